package sim

import (
	"errors"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
)

// session is what the shell around an initiator keeps: who it talks to, which
// answer it waits for, and the views of both sides for the check of the proof.
type session struct {
	id      int
	a, b    *node
	init    *antientropy.Initiator
	view    *storage.Snapshot
	theirs  *storage.Snapshot // the partner's view, once it has answered
	life    int               // the life of the partner that answered first
	settled hlc.Stamp
	waits   int // the number of the message whose answer is awaited
	over    bool
	err     error
}

// partner is what the shell around a responder keeps.
type partner struct {
	life int
	resp *antientropy.Responder
	view *storage.Snapshot
	seen int // the greatest number of a message that was taken
}

// sessionsMax is how many sessions a node takes part in as a partner.
const sessionsMax = 2

// beginSession opens a session of a with b. It returns nil if a is down.
func (w *world) beginSession(a, b *node) *session {
	if !a.up {
		return nil
	}
	w.sessions++
	w.result.Sessions++
	now := hlc.FromTime(a.wall())
	s := &session{id: w.sessions, a: a, b: b, settled: now.Add(-settle)}
	// As of when: what the schedule, an operator, and a node that remembers too
	// little compare.
	asOf := []hlc.Stamp{s.settled, now, hlc.Max}[w.rand.IntN(3)]
	s.view = a.store.SnapshotAsOf(w.opts.Bug.moment(asOf))
	cfg := antientropy.Config{Now: now, AsOf: s.view.AsOf(), Settle: settle, Expected: []int{0, 3, 30}[w.rand.IntN(3)], Textbook: w.chance(0.1)}
	cfg.Found = func(d antientropy.Difference) {
		w.log("session %d: n%d differs from n%d in %s: %v, %s", s.id, a.id, b.id, d.Key, d.Action, d.Reason())
	}
	if w.chance(0.1) {
		cfg.Salt = 1
	}
	if w.chance(0.3) {
		cfg.MessageBytes = 200
	}
	s.init = antientropy.NewInitiator(w.opts.Bug.view(s.view), cfg)
	a.opened[s.id] = s
	w.log("session %d: n%d opens it with n%d", s.id, a.id, b.id)
	s.next()
	return s
}

// next sends the initiator's next message, or ends the session.
//
// Each message but the first names the life of the partner that it is for: a
// late duplicate of the first may open the session again in a partner that was
// restarted, over a later view, which is not the one that was compared so far.
func (s *session) next() {
	msg, err := s.init.Next()
	if err != nil || msg == nil {
		s.end(err)
		return
	}
	s.waits++
	w, number, life := s.a.world, s.waits, s.life
	w.send(s.b, s.name("message", number), func() { s.b.message(s, number, life, msg) })
	w.after(sessionTimeout, func() {
		if !s.over && s.waits == number && s.a.opened[s.id] == s {
			s.end(errors.New("timeout"))
		}
	})
}

func (s *session) name(what string, number int) string {
	return what + " " + itoa(number) + " of session " + itoa(s.id)
}

// message is the partner's shell: it takes each message of a session once, and
// knows nothing of sessions of an earlier life.
func (n *node) message(s *session, number, life int, msg []byte) {
	p := n.partner[s.id]
	switch {
	case number > 1 && (p == nil || life != n.life):
		n.reply(s, nil, number, antientropy.Refuse("unknown", "no such session"))
		return
	case p == nil && n.busy() >= sessionsMax:
		n.reply(s, nil, number, antientropy.Refuse("busy", "too many sessions"))
		return
	case p == nil:
		p = &partner{life: n.life}
		p.resp = antientropy.NewResponder(func(asOf hlc.Stamp) (antientropy.View, error) {
			p.view = n.store.SnapshotAsOf(n.opts.Bug.moment(asOf))
			return n.opts.Bug.view(p.view), nil
		})
		n.partner[s.id] = p
	}
	if number <= p.seen || p.resp.Done() {
		return // a late duplicate
	}
	p.seen = number
	pushed, err := p.resp.Receive(msg)
	if err == nil {
		err = n.applyAll(pushed)
	}
	n.reply(s, p, number, p.resp.Reply(err))
	n.after(2*sessionTimeout, func() {
		if p.seen == number {
			if p.view != nil {
				p.view.Close() // the initiator went away
			}
			p.resp.Reply(errors.New("timeout"))
		}
	})
}

// busy counts the sessions that this node serves.
func (n *node) busy() (count int) {
	for _, p := range n.partner {
		if !p.resp.Done() {
			count++
		}
	}
	return count
}

func (n *node) reply(s *session, p *partner, number int, reply []byte) {
	n.send(s.a, s.name("answer", number), func() { s.a.answer(s, p, number, reply) })
}

// answer is the initiator's shell: only the answer that it waits for counts.
func (n *node) answer(s *session, p *partner, number int, reply []byte) {
	if n.opened[s.id] != s || s.over || s.waits != number {
		return
	}
	if number == 1 && p != nil {
		s.life, s.theirs = p.life, p.view
	}
	pulled, err := s.init.Receive(reply)
	if err != nil {
		s.end(err)
		return
	}
	to := n
	if n.opts.Bug == WrongDirection {
		to = s.b
	}
	s.init.Applied(to.applyAll(pulled))
	s.next()
}

var errDisk = errors.New("the disk is full")

// applyAll applies the entries of a session, or fails to.
func (n *node) applyAll(entries []lww.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if !n.calm && n.chance(n.opts.ApplyFail) {
		n.log("n%d: %v", n.id, errDisk)
		if n.opts.Bug == IgnoreApplyError {
			return nil
		}
		return errDisk
	}
	for _, e := range entries {
		n.log("n%d: a session brings %s", n.id, describe(e))
	}
	n.apply(entries)
	return nil
}

func (s *session) end(err error) {
	w := s.a.world
	s.over, s.err = true, err
	delete(s.a.opened, s.id)
	r := s.init.Report()
	w.log("session %d ends: error %v, %+v", s.id, err, r)
	w.result.Pulled += r.Pulled
	w.result.Pushed += r.Pushed
	var wrong *antientropy.TreeError
	if errors.As(err, &wrong) {
		w.fail("I5: session %d of n%d and n%d: %v", s.id, s.a.id, s.b.id, err)
	}
	if r.Complete {
		w.result.Completed++
		w.checkProof(s)
	}
	s.view.Close()
}
