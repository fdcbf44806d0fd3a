package purge

import (
	"errors"
	"slices"

	"syntropy/hlc"
)

// ErrCuts reports that two replicas cannot have a session before they have met and
// both have the same cut.
var ErrCuts = errors.New("purge: the purge cuts of the replicas differ")

// ErrMoved reports that a session proves nothing, and must bring nothing more,
// because one side was given another cut or was rebuilt since it began, or because
// another session of the pair was recorded meanwhile.
var ErrMoved = errors.New("purge: the replica, its purge cut or its ledger has moved on during the session")

// Role is a side of a session.
type Role int

const (
	// Initiator began the session. It records it last, when the partner has.
	Initiator Role = iota
	// Partner answered. It records the session first, as pending.
	Partner
)

// Snapshot is what one side says of the view that it opens for a session. It is taken
// after both have the same cut.
type Snapshot struct {
	Position  Position
	Time      hlc.Stamp    // by the clock of that side
	Unreached []hlc.NodeID // not reached by that side for longer than gc_grace, while it was running
}

// Open returns the record that this side will keep if the session completes. Both
// sides must be fit ([Meet]); nonce is random, and the same on both sides.
func Open(me, them State, mine, theirs Snapshot, nonce uint64) (Record, error) {
	a, _ := Meet(me, them)
	if b, _ := Meet(them, me); a != Fit || b != Fit {
		return Record{}, ErrCuts
	}
	return Record{
		Session:   Session{1 + max(me.pair(them.Self).last().Seq, them.pair(me.Self).last().Seq), nonce},
		Cut:       me.Cut.At,
		Position:  mine.Position,
		Theirs:    theirs.Position,
		Time:      min(mine.Time, theirs.Time),
		Unreached: both(mine.Unreached, theirs.Unreached),
	}, nil
}

// both returns what is in both. That one side had not reached a node at one time, and the
// other not at another time, says nothing of the node.
func both(a, b []hlc.NodeID) (out []hlc.NodeID) {
	for _, n := range a {
		if slices.Contains(b, n) {
			out = append(out, n)
		}
	}
	return out
}

// Resume returns the record of a session that goes on with new snapshots on both
// sides. Ranges that were finished were compared as they were then: a session proves
// no more than its earliest snapshot.
func (r Record) Resume(mine, theirs Snapshot) Record {
	r.Position = min(r.Position, mine.Position)
	r.Theirs = min(r.Theirs, theirs.Position)
	r.Time = min(r.Time, mine.Time, theirs.Time)
	return r
}

// Check reports whether a session that began with this record may still bring
// entries, and complete: ErrMoved if not. It is asked in the same critical section as
// the commit that it guards.
//
// A record never replaces one of the same session number or a later one: the ledger
// would seem to have gone back in time.
func (s State) Check(self, with Incarnation, r Record) error {
	if s.Self != self || s.Cut.At != r.Cut || s.pair(with).last().Seq >= r.Session.Seq {
		return ErrMoved
	}
	return nil
}

// Complete records a session as complete: everything that it found is applied and
// durable on both sides. An error on a single key on either side, and it is not
// complete. self is who this replica was when the session began; ErrMoved as of Check.
//
// The partner stores the state first, durably, and tells; then the initiator stores
// its own; then the partner is told, and calls Confirm.
func (s State) Complete(self, with Incarnation, r Record, role Role) (State, error) {
	if err := s.Check(self, with, r); err != nil {
		return s, err
	}
	p := s.pair(with)
	if role == Partner {
		p.Pending = r
	} else {
		// What was pending is older: confirmed later, it would replace this one.
		p.Confirmed, p.Pending = r, Record{}
	}
	return s.with(p), nil
}

// Confirm makes usable what is pending: the initiator has recorded the session. For
// any other session it does nothing.
func (s State) Confirm(with Incarnation, id Session) State {
	p := s.pair(with)
	if p.Pending.Session != id || id == (Session{}) {
		return s
	}
	p.Confirmed, p.Pending = p.Pending, Record{}
	return s.with(p)
}

// MaxPairs bounds the ledger of a shard: it is stored with each session.
const MaxPairs = 32

// Prune drops what is kept of incarnations that are members no more, the oldest
// first, until at most MaxPairs are left. A record that is dropped can cost a rebuild
// of this replica, if a cut of that time is still to be adopted, and nothing else.
func (s State) Prune(isMember func(Incarnation) bool) State {
	for len(s.Pairs) > MaxPairs {
		oldest := -1
		for i, p := range s.Pairs {
			if !isMember(p.With) && (oldest < 0 || p.time() < s.Pairs[oldest].time()) {
				oldest = i
			}
		}
		if oldest < 0 {
			return s
		}
		pairs := make([]Pair, 0, len(s.Pairs)-1)
		pairs = append(pairs, s.Pairs[:oldest]...)
		s.Pairs = append(pairs, s.Pairs[oldest+1:]...)
	}
	return s
}

func (p Pair) time() hlc.Stamp { return max(p.Confirmed.Time, p.Pending.Time) }
