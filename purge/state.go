package purge

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
)

// Incarnation names one life of one replica: what has been on one disk since the
// replica was last built there. It is a random number, drawn anew for an empty disk,
// at the restore of a backup, and at the beginning of a rebuild; zero is nobody.
//
// A rebuilt replica has another one than before on the same disk, since what was
// proven of its past is no longer true of it.
type Incarnation uint64

// Position counts the commits of one incarnation: whatever was applied here by a
// position is in every snapshot taken at that position or a later one. Positions of
// different incarnations have nothing to do with each other. The first commit has 1.
type Position uint64

// Session names a session of two incarnations. Seq rises with each session of the
// pair; Nonce is random, so that a replica which went back in time and counts again
// from an old number does not repeat a name.
type Session struct{ Seq, Nonce uint64 }

// reaches reports whether one who has taken part in s has also taken part in o.
func (s Session) reaches(o Session) bool { return s == o || s.Seq > o.Seq }

// Record is the outcome of one complete session, as one of both sides keeps it:
// "whatever I had applied at Position, you hold".
type Record struct {
	Session Session   // zero: there is none
	Cut     hlc.Stamp // of both sides, when it began
	// Position is that of this side's snapshot, and Theirs that of the other's. Of
	// a session that used several, it is the earliest.
	Position, Theirs Position
	// Time is when the snapshots were taken: the earlier one, each by the clock of
	// its own side.
	Time hlc.Stamp
	// Unreached are the nodes that neither side had reached for longer than gc_grace
	// when the session began.
	Unreached []hlc.NodeID
}

// Pair is what a replica keeps of its sessions with one other incarnation.
type Pair struct {
	With Incarnation
	// Confirmed is known to be recorded on both sides. Only it proves anything.
	Confirmed Record
	// Pending is recorded here, as the partner of the session, and nobody has said
	// yet that the initiator recorded it too. It shows that this replica took part.
	Pending Record
}

// last returns the name of the last session of the pair, confirmed or not.
func (p Pair) last() Session {
	if p.Pending.Session.reaches(p.Confirmed.Session) {
		return p.Pending.Session
	}
	return p.Confirmed.Session
}

// Proven is what a cut says of one replica: the session with the raiser that proved
// it, and that replica's own position at the snapshot of the session.
type Proven struct {
	Replica  Incarnation
	Session  Session
	Position Position
}

// Cut is a purge cut: everything that [CoverStamp] puts at or under At is proven on
// every replica that counts, and can be forgotten.
type Cut struct {
	At     hlc.Stamp
	Raiser Incarnation // 0 only while At is 0
	Set    []Proven    // by Replica, without the raiser: one that must be told its own cut was restored
}

func (c Cut) proven(id Incarnation) (Proven, bool) {
	i, found := slices.BinarySearchFunc(c.Set, id, func(p Proven, id Incarnation) int { return cmp.Compare(p.Replica, id) })
	if !found {
		return Proven{}, false
	}
	return c.Set[i], true
}

// State is what a replica of a shard keeps about purging. It is stored in the same
// batches as the data it speaks of; AppendState and ParseState give it a form. Treat
// the slices in it as immutable.
type State struct {
	Self Incarnation
	Cut  Cut
	// Upto is the position by which the cut speaks of what is held here: an entry
	// under the cut that was applied later is an exception, and stays.
	Upto  Position
	Pairs []Pair // by With
}

func (s State) pair(with Incarnation) Pair {
	if i, found := s.find(with); found {
		return s.Pairs[i]
	}
	return Pair{With: with}
}

func (s State) find(with Incarnation) (int, bool) {
	return slices.BinarySearchFunc(s.Pairs, with, func(p Pair, id Incarnation) int { return cmp.Compare(p.With, id) })
}

// with returns the state with another pair in place of the one of the same partner.
func (s State) with(p Pair) State {
	i, found := s.find(p.With)
	pairs := make([]Pair, 0, len(s.Pairs)+1)
	pairs = append(pairs, s.Pairs[:i]...)
	pairs = append(pairs, p)
	if found {
		i++
	}
	s.Pairs = append(pairs, s.Pairs[i:]...)
	return s
}

// Pair returns what is kept of the sessions with an incarnation. ok is false if
// there was none.
func (s State) Pair(with Incarnation) (p Pair, ok bool) {
	_, ok = s.find(with)
	return s.pair(with), ok
}

// CoverStamp returns the stamp that a cut must reach before a version can be
// forgotten. A tombstone is past all use then; so is a value whose expiry has passed,
// if the cut has passed the moment of the expiry too. ok is false for a value that
// stays for ever.
func CoverStamp(v lww.Version) (at hlc.Stamp, ok bool) {
	switch {
	case v.Tombstone:
		return v.Newest(), true
	case v.Expires != 0:
		return max(v.Newest(), hlc.FromTime(time.UnixMilli(v.Expires))), true
	}
	return 0, false
}

// Covered reports whether a version that was applied here at a position is gone: it
// is out of the digests, reads as absent and loses against everything, whether or not
// its row has been removed from disk yet.
func (s State) Covered(v lww.Version, applied Position) bool {
	at, ok := CoverStamp(v)
	return ok && at <= s.Cut.At && applied <= s.Upto
}

// Limits are the settings of the cluster that the rules depend on.
type Limits struct {
	Grace      time.Duration // a delete is kept at least that long
	HintWindow time.Duration // a hint is brought within
	Settle     time.Duration // a session leaves younger differences alone
	Deadline   time.Duration // of a request
	Skew       time.Duration // clocks differ by no more
	// Excluded is how many replicas of a shard may be left out of a proof because
	// they are long dead: W-1, so that of any W that acknowledged a write one was asked.
	Excluded int
}

// Arrival is how long after its stamp a write can still reach its first replica, and
// a session still leave it alone: hint window, settle window, deadline and clock bound.
func (l Limits) Arrival() time.Duration { return l.HintWindow + l.Settle + l.Deadline + l.Skew }

// ErrGrace is the error of limits in which deletes could be forgotten while older
// writes are still on their way.
var ErrGrace = errors.New("gc-grace must be longer than hint-window, settle, request-deadline and max-clock-skew together")

// Validate reports what must not be set.
func (l Limits) Validate() error {
	if min(l.HintWindow, l.Settle, l.Deadline, l.Skew) < 0 || l.Excluded < 0 {
		return errors.New("limits must not be negative")
	}
	if l.Grace <= l.Arrival() {
		return ErrGrace
	}
	return nil
}
