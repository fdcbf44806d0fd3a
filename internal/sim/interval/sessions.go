package main

import (
	"fmt"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
)

// sessions decides when each node begins a session, with the scheduler that
// real nodes use, and runs it.
type sessions struct {
	c         *cluster
	schedules [replicas]*antientropy.Schedule
	wake      [replicas]time.Duration // when to ask a node's schedule again
	proofs    [pairs]proof
}

// proof is the time that has passed since a pair was last proven to agree: all of
// it, and the part in which both were up.
type proof struct{ age, together time.Duration }

// pairs is how many there are.
const pairs = replicas * (replicas - 1) / 2

// pairOf numbers the pairs: of three nodes, the sum of two names them.
func pairOf(a, b hlc.NodeID) int { return int(a+b) - 3 }

// pollMin is how soon a schedule is asked again if it had nothing to begin.
const pollMin = time.Second

func newSessions(c *cluster, seed uint64) *sessions {
	s := &sessions{c: c}
	for i, r := range c.nodes {
		if c.interval == 0 {
			s.wake[i] = never
			continue
		}
		s.schedules[i] = antientropy.NewSchedule(r.id, antientropy.ScheduleOptions{
			Interval: c.interval, Settle: c.Settle, Seed: seed,
		})
		var partners []hlc.NodeID
		for _, p := range c.nodes {
			if p != r {
				partners = append(partners, p.id)
			}
		}
		s.schedules[i].SetPartners(partners)
	}
	return s
}

// due returns when some schedule is to be asked next.
func (s *sessions) due() time.Duration {
	first := never
	for _, w := range s.wake {
		first = min(first, w)
	}
	return first
}

// pass lets the proofs age.
func (s *sessions) pass(passed time.Duration) {
	for i, a := range s.c.nodes {
		for _, b := range s.c.nodes[i+1:] {
			p := &s.proofs[pairOf(a.id, b.id)]
			p.age += passed
			if a.up && b.up {
				p.together += passed
			}
		}
	}
}

// returned asks all schedules again, now that a node is back.
func (s *sessions) returned() {
	for i, schedule := range s.schedules {
		if schedule != nil {
			s.wake[i] = s.c.now
		}
	}
}

// run asks the schedules that are due and runs the sessions that they begin.
func (s *sessions) run() error {
	for i, r := range s.c.nodes {
		if s.wake[i] > s.c.now {
			continue
		}
		if !r.up {
			s.wake[i] = never // until it returns
			continue
		}
		now := start.Add(s.c.now)
		partner, wait, ok := s.schedules[i].Next(now, func(id hlc.NodeID) bool { return s.c.nodes[id-1].up })
		if !ok || wait > 0 {
			s.wake[i] = s.c.now + max(wait, pollMin)
			continue
		}
		other := s.c.nodes[partner-1]
		if err := s.c.repair(r, other); err != nil {
			return fmt.Errorf("session of %v and %v: %w", r.id, other.id, err)
		}
		until := now.Add(-s.c.Settle)
		s.schedules[i].Proven(partner, until)
		s.schedules[partner-1].Proven(r.id, until)
		p := &s.proofs[pairOf(r.id, partner)]
		s.c.tally.unproven(*p)
		*p = proof{}
	}
	return nil
}

// finish counts the time since the last proof of each pair as well.
func (s *sessions) finish() {
	for _, p := range s.proofs {
		s.c.tally.unproven(p)
	}
}

// repair runs one session between two nodes, to its end and in no time, and
// holds it to what the study knows of both: it must find every difference, and
// leave only those that the settle window covers.
func (c *cluster) repair(a, b *replica) error {
	want := different(a, b)
	mine, theirs := a.store.Snapshot(), b.store.Snapshot()
	defer mine.Close()
	defer theirs.Close()
	initiator := antientropy.NewInitiator(mine, antientropy.Config{
		Now: hlc.FromTime(start.Add(c.now)), Settle: c.Settle,
	})
	responder := antientropy.NewResponder(func(hlc.Stamp) (antientropy.View, error) { return theirs, nil })
	for {
		msg, err := initiator.Next()
		if err != nil {
			return err
		}
		if msg == nil {
			break
		}
		pushed, err := responder.Receive(msg)
		if err == nil {
			err = c.apply(b, pushed, byAntiEntropy)
		}
		pulled, err := initiator.Receive(responder.Reply(err))
		if err != nil {
			return err
		}
		initiator.Applied(c.apply(a, pulled, byAntiEntropy))
	}
	r := initiator.Report()
	switch {
	case !r.Complete || !responder.Complete():
		return fmt.Errorf("it did not complete: %+v", r)
	case r.Diverged+r.InFlight != want:
		return fmt.Errorf("%d keys differ, the session found %d and %d in flight", want, r.Diverged, r.InFlight)
	case different(a, b) != r.InFlight:
		return fmt.Errorf("%d keys still differ, %d were left alone as in flight", different(a, b), r.InFlight)
	}
	c.tally.session(r)
	return nil
}

// different counts the keys of which two replicas hold different versions.
func different(a, b *replica) (count int) {
	for key, stamp := range a.held {
		if stamp != b.held[key] {
			count++
		}
	}
	return count
}
