package coordinator

import (
	"errors"
	"fmt"

	"syntropy/hlc"
	"syntropy/lww"
)

// AttemptsMax bounds how often one request stamps an entry and sends it. A
// second attempt is rare and a third needs another writer on the same key in
// between; what fails 16 times is a fight over one key, which more messages
// would feed.
const AttemptsMax = 16

var (
	errAttempts = fmt.Errorf("it was replaced by newer versions %d times in a row: too many clients write this key at once", AttemptsMax)
	errTooFew   = errors.New("too few replicas are up to send it again above that")
)

// Write is one request to write one or several keys. It is not safe for
// concurrent use.
type Write struct {
	place Placement
	clock Clock
	level Level

	entries []pending
	mail    mail
	attempt int // of the sends made last
	owed    []item

	undecided int // entries
	done      bool
	err       error
}

// pending is one entry on its way.
type pending struct {
	kind  Kind
	entry lww.Entry // as it was last stamped
	last  int       // the mutation whose entry is sent in place of this one; usually itself

	shard   int
	need    int
	targets []target
	// Of the present attempt; answers to earlier ones are not counted.
	attempt  int
	attempts int // made so far
	answers  int // applied or shadowed, at most need
	waiting  int // targets
	beaten   bool
	newest   lww.Version // of those that shadow it

	superseded bool
	settled    bool // it is not sent again: decided, or the request has failed
}

// target is one replica of a pending entry.
type target struct {
	node  hlc.NodeID
	state targetState
}

type targetState uint8

const (
	waiting  targetState = iota
	answered             // applied or shadowed: it holds the entry or a newer one
	refused              // rejected: a hint would be rejected, too
	missed               // down, failed or silent
	hinted               // missed, and the hint was handed out
)

// Result says what became of a mutation that did not fail.
type Result uint8

const (
	// Written: as many replicas as the level asks for hold the entry. A mutation
	// that a later one of the same request overwrote counts as written.
	Written Result = iota
	// Superseded: the value that a Touch was about had been replaced. Nothing
	// was changed; the caller reads again and decides anew.
	Superseded
)

// String names the result.
func (r Result) String() string {
	switch r {
	case Written:
		return "written"
	case Superseded:
		return "superseded"
	}
	return fmt.Sprintf("result(%d)", uint8(r))
}

// NewWrite checks and stamps the mutations and queues what is to be sent. It
// fails with *InvalidError or *UnavailableError, with the clock's own error when
// there is no stamp to be had, or with *ShadowedError when the version to be
// touched is too far ahead of this clock; in each case nothing is sent.
func NewWrite(p Placement, clock Clock, level Level, ms []Mutation) (*Write, error) {
	w := &Write{place: p, clock: clock, level: level, entries: make([]pending, len(ms))}
	last, err := overwritten(ms)
	if err != nil {
		return nil, err
	}
	for i := range ms {
		e := &w.entries[i]
		e.kind, e.last = ms[i].Kind, i
		if e.entry, err = ms[i].entry(); err != nil {
			return nil, &InvalidError{Index: i, Key: ms[i].Key, Err: err}
		}
		if last != nil {
			e.last = last[i]
		}
	}
	targets := make([]target, 0, 3*len(ms)) // of all entries; three is the usual number of replicas
	for i := range w.entries {
		e := &w.entries[i]
		e.shard = p.Shard(e.entry.Key)
		if e.last != i {
			continue
		}
		replicas := p.Replicas(e.shard)
		e.need = level.Of(len(replicas))
		first := len(targets)
		for _, id := range replicas {
			targets = append(targets, target{node: id})
		}
		e.targets = targets[first:len(targets):len(targets)]
		if w.aim(e) < e.need {
			return nil, &UnavailableError{Op: "write", Shard: e.shard, Level: level, Need: e.need,
				Replicas: replicas, Down: p.down(replicas)}
		}
	}
	items := make([]item, 0, len(targets))
	for i := range w.entries {
		if e := &w.entries[i]; e.last == i {
			if err := w.stamp(e); err != nil {
				return nil, err
			}
			w.undecided++
			items = e.appendItems(items, i)
		}
	}
	w.dispatch(items)
	w.done = w.undecided == 0 // nothing was asked for
	return w, nil
}

// aim prepares the next attempt at an entry and returns how many of its replicas
// may be asked.
func (w *Write) aim(e *pending) int {
	e.waiting = 0
	for n := range e.targets {
		t := &e.targets[n]
		t.state = missed
		if w.place.May(t.node) {
			t.state = waiting
			e.waiting++
		}
	}
	return e.waiting
}

// stamp stamps an entry for its next attempt: above all that shadowed the last
// one, and above the version that a Touch is about.
func (w *Write) stamp(e *pending) error {
	above := e.newest
	if e.kind == Touch && e.attempts == 0 {
		above = e.entry.Version
	}
	var at hlc.Stamp
	var err error
	lost := above.Newest() != 0 // unless a stamp above it is found
	if e.attempts == AttemptsMax {
		err = errAttempts
	} else if lost {
		err = w.clock.Observe(above.Newest())
	}
	if err == nil {
		lost = e.attempts > 0
		at, err = w.clock.Next()
	}
	if err != nil && lost {
		e.newest = above
		return e.shadowed(err)
	}
	if err != nil {
		return err
	}
	e.kind.stamp(&e.entry, at, w.place.Self)
	e.attempts++
	e.answers, e.beaten, e.newest = 0, false, lww.Version{}
	return nil
}

func (e *pending) appendItems(items []item, index int) []item {
	for _, t := range e.targets {
		if t.state == waiting {
			items = append(items, item{t.node, index, &e.entry})
		}
	}
	return items
}

// dispatch queues the entries that were just stamped.
func (w *Write) dispatch(items []item) {
	w.attempt++
	for _, it := range items {
		w.entries[it.index].attempt = w.attempt
	}
	w.mail.addGrouped(w.attempt, items)
}

// Sends returns what is to be sent now, each message once. What comes of each is
// reported with Answered or Failed.
func (w *Write) Sends() []Send { return w.mail.take() }

// Done reports whether the client can be told, and what: nil when every mutation
// has a result, else *UnknownError or *ShadowedError. Once done it does not
// change any more; late answers and failures then only decide about hints.
func (w *Write) Done() (bool, error) { return w.done, w.err }

// Finished reports that the request is done and that no send is outstanding:
// there is nothing more to report to it, and once Hints was emptied it can be
// dropped.
func (w *Write) Finished() bool { return w.done && w.mail.left == 0 }

// Results returns what became of each mutation. It means something only when
// Done reported no error.
func (w *Write) Results() []Result {
	results := make([]Result, len(w.entries))
	for i := range w.entries {
		if w.entries[w.entries[i].last].superseded {
			results[i] = Superseded
		}
	}
	return results
}

// Entry returns the entry of a mutation as it was last stamped. It shares the
// key and value of the mutation.
func (w *Write) Entry(i int) lww.Entry { return w.entries[w.entries[i].last].entry }

// Expire ends the request: the deadline passed. Outstanding sends count as
// failed, so that their replicas are owed hints; if the request is not done it
// fails with *UnknownError.
func (w *Write) Expire() {
	for i := range w.mail.sends {
		w.Failed(w.mail.sends[i], ErrDeadline)
	}
	w.mail.taken = len(w.mail.sends) // what was not taken until now is not sent any more
}

// fail ends the request with an error.
func (w *Write) fail(err error) {
	if w.done {
		return
	}
	w.done, w.err = true, err
	for i := range w.entries {
		w.settle(i)
	}
}

// shadowed is the error for an entry that lost and is not stamped again.
func (e *pending) shadowed(err error) error {
	return &ShadowedError{Key: e.entry.Key, Ours: e.entry.Version, Theirs: e.newest, Attempts: e.attempts, Err: err}
}

func (w *Write) unknown(e *pending, err error) error {
	u := &UnknownError{Key: e.entry.Key, Shard: e.shard, Level: w.level, Need: e.need, Got: e.answers, Err: err}
	for _, t := range e.targets {
		if t.state != answered {
			u.Missing = append(u.Missing, t.node)
		}
	}
	return u
}
