package coordinator

import (
	"fmt"

	"syntropy/lww"
)

// AnswerOutcome says what a replica did with an entry.
type AnswerOutcome uint8

// The outcomes.
const (
	// Applied: the replica holds the entry, durably. It may have held it before.
	Applied AnswerOutcome = iota
	// Shadowed: the replica holds a newer version and keeps it.
	Shadowed
	// Rejected: the replica refuses the entry and would refuse it again.
	Rejected
	// Deferred: the replica cannot take the entry now and may be able to later,
	// when its clock is right for example. It is owed a hint.
	Deferred
)

// String names the outcome.
func (o AnswerOutcome) String() string {
	switch o {
	case Applied:
		return "applied"
	case Shadowed:
		return "shadowed"
	case Rejected:
		return "rejected"
	case Deferred:
		return "deferred"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Answer is what one replica says about one entry.
type Answer struct {
	Outcome AnswerOutcome
	Version lww.Version // Shadowed: the version that the replica holds
	Reason  string      // Rejected and Deferred: why, for people
}

// Answered reports a replica's answers, one for each entry of s. Answers whose
// number does not fit count as a failure of the replica.
func (w *Write) Answered(s Send, answers []Answer) {
	if !w.mail.close(s) {
		return
	}
	s = w.mail.sends[s.id]
	if len(answers) != len(s.Index) {
		w.failed(s, errMisfit)
		return
	}
	var repeat []int
	for n, i := range s.Index {
		e := &w.entries[i]
		t := e.expects(s)
		if t == nil {
			continue
		}
		e.waiting--
		var why error
		switch a := answers[n]; a.Outcome {
		case Applied:
			t.state = answered
		case Shadowed:
			t.state = answered
		case Rejected:
			t.state = refused
			why = fmt.Errorf("%v refuses the entry: %s", s.To, a.Reason)
		case Deferred:
			t.state = missed
			why = fmt.Errorf("%v cannot take the entry now: %s", s.To, a.Reason)
		default:
			t.state = missed
			why = errMisfit
		}
		if e.settled {
			w.owe(i, t)
			continue
		}
		if t.state == answered {
			e.count(answers[n])
		}
		if w.judge(i, why) {
			repeat = append(repeat, i)
		}
	}
	w.repeat(repeat)
}

// Failed reports that s was not delivered, or that nobody knows.
func (w *Write) Failed(s Send, err error) {
	if w.mail.close(s) {
		w.failed(w.mail.sends[s.id], err)
	}
}

func (w *Write) failed(s Send, err error) {
	for _, i := range s.Index {
		e := &w.entries[i]
		t := e.expects(s)
		if t == nil {
			continue
		}
		e.waiting--
		t.state = missed
		if e.settled {
			w.owe(i, t)
			continue
		}
		// An entry whose answers were complete would be settled, or sent again and
		// then not expect this one: a failure never repeats anything.
		w.judge(i, err)
	}
}

// expects returns the replica that s went to, if s carried the present attempt
// at the entry. A replica that has applied an earlier attempt does not hold this
// one: counting its word would turn a lost write into an acknowledged one.
func (e *pending) expects(s Send) *target {
	if e.attempt != s.Attempt {
		return nil
	}
	for n := range e.targets {
		if t := &e.targets[n]; t.node == s.To && t.state == waiting {
			return t
		}
	}
	return nil
}

// count takes an answer into the number that the level asks for.
func (e *pending) count(a Answer) {
	e.answers++
	if a.Outcome != Shadowed {
		return
	}
	e.beaten = true
	if e.kind == Touch && replaced(e.entry.Version, a.Version) {
		e.superseded = true
	}
	if a.Version.Newest() > e.newest.Newest() {
		e.newest = a.Version
	}
}

// judge decides about an entry after an answer or a failure, if that can be
// done, and reports whether it must be stamped again.
func (w *Write) judge(i int, why error) (again bool) {
	e := &w.entries[i]
	switch {
	case e.answers >= e.need && e.beaten && !e.superseded:
		return true
	case e.answers >= e.need:
		w.settle(i)
		if w.undecided--; w.undecided == 0 && !w.done {
			w.done = true
		}
	case e.answers+e.waiting < e.need:
		w.fail(w.unknown(e, why))
	}
	return false
}

// repeat stamps entries again that lost on arrival, and sends them to all their
// replicas. If that fails for one the request fails; those that were stamped
// before it are on their way and are sent all the same.
func (w *Write) repeat(again []int) {
	if len(again) == 0 || w.done {
		return
	}
	var items []item
	var err error
	for _, i := range again {
		e := &w.entries[i]
		// The replicas that answered may have gone since.
		if w.aim(e) < e.need {
			err = e.shadowed(errTooFew)
		} else {
			err = w.stamp(e)
		}
		if err != nil {
			break
		}
		items = e.appendItems(items, i)
	}
	if len(items) > 0 {
		w.dispatch(items)
	}
	if err != nil {
		w.fail(err)
	}
}
