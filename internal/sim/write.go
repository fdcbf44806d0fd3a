package sim

import (
	"errors"
	"fmt"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
)

// errDown is how a transport reports a node that is not there.
var errDown = errors.New("not connected")

// touchesMax is how often a client reads again and repeats a touch whose value
// was replaced meanwhile.
const touchesMax = 3

// quorum is how many replicas must answer: every node holds every key.
func (w *world) quorum() int { return coordinator.Quorum.Of(len(w.nodes)) }

// placement is the cluster as this node sees it.
func (n *node) placement() coordinator.Placement {
	ids := make([]hlc.NodeID, len(n.nodes))
	for i := range ids {
		ids[i] = hlc.NodeID(i + 1)
	}
	return coordinator.Placement{
		Self:     n.id,
		Shard:    func(key []byte) int { shard, _ := n.store.Locate(key); return shard },
		Replicas: func(int) []hlc.NodeID { return ids },
		May:      func(id hlc.NodeID) bool { return id == n.id || n.nodes[id-1].seen },
	}
}

// wallClock is the node's clock with the wall time filled in.
type wallClock struct{ *node }

func (c wallClock) Next() (hlc.Stamp, error)  { return c.stamp() }
func (c wallClock) Observe(s hlc.Stamp) error { return c.clock.Observe(s, c.wall()) }

// request is what the shell around a coordinator's request keeps: it dies with
// the process that began it.
type request struct {
	*node
	life int
	told bool // the client has its answer
}

func (n *node) request() request { return request{node: n, life: n.life} }

func (r *request) alive() bool { return r.up && r.node.life == r.life }

// carry takes something to a node and an answer back. gone is called when the
// transport knows that the node is not there; a message that is lost is found
// missing only at the deadline. What a node tells itself does not travel.
func (r *request) carry(to *node, what string, there func() (back func()), gone func()) {
	mine := func(do func()) func() {
		return func() {
			if r.alive() {
				do()
			}
		}
	}
	switch {
	case to == r.node:
		r.after(time.Millisecond, mine(func() { there()() }))
	case !to.up:
		r.after(time.Millisecond, mine(gone))
	default:
		r.send(to, what, func() { r.send(r.node, "the answer to "+what, mine(there())) })
	}
}

// writing is a write that this node coordinates.
type writing struct {
	request
	w      *coordinator.Write
	before []lww.Entry // what a quorum had of each key when it began
	sends  []coordinator.Send
	then   func(results []coordinator.Result) // after OK; a touch has one
}

// change begins whatever a client may do to a key.
func (n *node) change(key string) {
	switch p := n.rand.Float64(); {
	case p < 0.3:
		n.client(coordinator.Delete, key)
	case p < 0.55:
		n.touch(key, touchesMax)
	default:
		n.client(coordinator.Put, key)
	}
}

// client begins a write or a delete, at times of several keys.
func (n *node) client(kind coordinator.Kind, key string) {
	keys := []string{key}
	if n.chance(0.2) {
		keys = append(keys, key+"-twin")
	}
	ms := make([]coordinator.Mutation, len(keys))
	for i, k := range keys {
		ms[i] = coordinator.Mutation{Kind: kind, Key: []byte(k)}
		if kind == coordinator.Put {
			n.values++
			ms[i].Value = fmt.Appendf(nil, "%s value %d", k, n.values)
			if n.chance(0.2) {
				ms[i].Expires = n.wall().Add(time.Hour).UnixMilli()
			}
		}
	}
	n.write(ms, nil)
}

func (n *node) write(ms []coordinator.Mutation, then func([]coordinator.Result)) {
	if !n.up {
		n.result.Refused++
		return
	}
	keys := make([][]byte, len(ms))
	for i, m := range ms {
		keys[i] = m.Key
	}
	before := n.oracle.floors(keys)
	w, err := coordinator.NewWrite(n.placement(), wallClock{n}, coordinator.Quorum, ms)
	if err != nil {
		n.log("n%d refuses a write: %v", n.id, err)
		n.result.Refused++
		return
	}
	r := &writing{request: n.request(), w: w, before: before, then: then}
	r.pump()
	n.after(deadline, func() {
		if r.alive() && !w.Finished() {
			w.Expire()
			r.pump()
		}
	})
}

// pump does what the request asks for, and tells the client once it is done.
func (r *writing) pump() {
	for _, s := range r.w.Sends() {
		r.deliver(s)
	}
	for _, h := range r.w.Hints() {
		r.keep(h)
	}
	done, err := r.w.Done()
	if !done || r.told {
		return
	}
	r.told = true
	if err != nil {
		r.log("n%d: no OK: %v", r.id, err)
		r.result.Refused++
		if _, unknown := errors.AsType[*coordinator.UnknownError](err); unknown {
			r.result.Unknown++
		}
		return
	}
	results := r.w.Results()
	for i, res := range results {
		if res == coordinator.Superseded {
			r.result.Superseded++
			continue
		}
		e := r.w.Entry(i)
		r.log("n%d: OK for %s", r.id, describe(e))
		r.result.Acked++
		r.checkAcked(e, r.before[i])
		r.oracle.acked(e)
		r.checkUndeleted(e)
	}
	if r.then != nil {
		r.then(results)
	}
}

func (r *writing) deliver(s coordinator.Send) {
	for _, e := range s.Entries {
		r.oracle.wrote(e)
		if r.then == nil && !e.Tombstone {
			r.oracle.put(e)
		}
	}
	r.sends = append(r.sends, s)
	to := r.nodes[s.To-1]
	r.carry(to, describeAll("write", s.Entries), func() func() {
		answers := to.take("write", s.Entries)
		return func() {
			r.w.Answered(r.opts.Bug.answers(r, s, answers))
			r.pump()
		}
	}, func() {
		r.w.Failed(s, errDown)
		r.pump()
	})
}

// take takes entries that a coordinator sends, as a write or as a hint. One that
// is older than any that can still be on its way is refused, since deletes that
// beat it may be forgotten by now; so is one stamped too far ahead of the own
// clock. A session may bring both.
func (n *node) take(as string, entries []lww.Entry) []coordinator.Answer {
	answers := make([]coordinator.Answer, len(entries))
	oldest := hlc.FromTime(n.wall().Add(-hintWindow - deadline - clockBound))
	for i, e := range entries {
		if e.Newest() < oldest && n.opts.Bug != AcceptOldHint {
			answers[i] = coordinator.Answer{Outcome: coordinator.Rejected, Reason: "it is older than the hint window"}
			continue
		}
		if err := n.clock.Observe(e.Newest(), n.wall()); err != nil {
			answers[i] = coordinator.Answer{Outcome: coordinator.Rejected, Reason: err.Error()}
			continue
		}
		if n.opts.Bug == BlindOverwrite {
			n.overwrite(e)
			continue
		}
		results := n.apply([]lww.Entry{e})
		switch {
		case results == nil:
			return nil // a check has failed
		case results[0].Outcome == storage.Shadowed:
			answers[i] = coordinator.Answer{Outcome: coordinator.Shadowed, Version: results[0].Version}
		case results[0].Outcome == storage.Applied:
			n.checkAge(as, e)
		}
	}
	return answers
}

// checkAge checks that nothing arrives for the first time after its time, by the
// true clock: later than that tombstones may be gone.
func (n *node) checkAge(as string, e lww.Entry) {
	const ageMax = hintWindow + deadline + clockBound + skewMax + setBackMax
	if age := hlc.FromTime(start.Add(n.now)).Sub(e.Newest()); age > ageMax {
		n.fail("window: a %s brings n%d %s, %v after it was stamped", as, n.id, describe(e), age)
	}
}
