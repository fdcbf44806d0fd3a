package purge

import "encoding/binary"

// Standing is what a replica is to do before anything else is done with the one that
// it has met.
type Standing int

const (
	// Fit: both have the same cut. They can have a session.
	Fit Standing = iota
	// Ahead: the other has a lower cut, and moves first.
	Ahead
	// Adopt: the other has a higher cut, which speaks of this replica as it is: take
	// it over ([State.Adopt]).
	Adopt
	// Rebuild: what this replica holds cannot be believed.
	Rebuild
)

// Reason says why a replica must be rebuilt.
type Reason int

const (
	// NoReason is that of every other standing.
	NoReason Reason = iota
	// NotProven: the cut was raised without this incarnation. It was away for longer
	// than gc_grace, or it is a new disk.
	NotProven
	// OwnCut: the cut is one that this incarnation itself raised, and it does not know.
	// Its data is older than that: it was restored.
	OwnCut
	// SessionLost: the proof is a session that this incarnation has no record of. It
	// was restored.
	SessionLost
	// WentBack: the other one has a record of a session that both had completed, and
	// this one has not. It was restored.
	WentBack
)

// String says it to an operator.
func (r Reason) String() string {
	switch r {
	case NotProven:
		return "deletes were purged without it: it was away for longer than gc-grace, or its disk is new"
	case OwnCut:
		return "it does not know a purge that it began itself: its data is an older copy"
	case SessionLost:
		return "it does not know the session by which a purge was proven on it: its data is an older copy"
	case WentBack:
		return "it does not know a session that it has completed: its data is an older copy"
	}
	return "none"
}

// Meet judges what a replica is to do when it meets another, given what both keep:
// the first exchange of every session, and of the check at every start. Each side
// judges itself, and the other one too, so that one that misjudges itself is refused.
// Both call Settle before.
func Meet(me, them State) (Standing, Reason) {
	mine, theirs := me.pair(them.Self), them.pair(me.Self)
	if !mine.last().reaches(theirs.Confirmed.Session) {
		return Rebuild, WentBack
	}
	switch {
	case me.Cut.At == them.Cut.At:
		return Fit, NoReason
	case me.Cut.At > them.Cut.At:
		return Ahead, NoReason
	case them.Cut.Raiser == me.Self:
		return Rebuild, OwnCut
	}
	proven, ok := them.Cut.proven(me.Self)
	switch {
	case !ok:
		return Rebuild, NotProven
	case !me.pair(them.Cut.Raiser).last().reaches(proven.Session):
		return Rebuild, SessionLost
	}
	return Adopt, NoReason
}

// Adopt takes over the higher cut of a replica after Meet has said so. What the cut
// covers and was applied here by the position that was proven is gone with that. What
// was applied later stays, as an exception, until a later cut proves it.
//
// The state is to be stored before anything is removed.
func (s State) Adopt(c Cut) State {
	proven, ok := c.proven(s.Self)
	if !ok || c.At <= s.Cut.At {
		panic("purge: a cut is adopted that Meet has not allowed")
	}
	s.Cut, s.Upto = c, proven.Position
	return s
}

// Settle looks whether the initiator of a session that is pending here has recorded
// it: the last message of a session may be lost, and is made up for when both meet
// again. What is missing here is never taken from the other's ledger.
func Settle(me, them State) State {
	mine := me.pair(them.Self)
	if mine.Pending.Session != (Session{}) && mine.Pending.Session == them.pair(me.Self).Confirmed.Session {
		return me.Confirm(them.Self, mine.Pending.Session)
	}
	return me
}

// Rebuilt is the state of a replica that begins anew from what another one holds: it
// has the cut of its source, and nothing is proven of it. It is stored in the batch
// that drops the old rows. The source must have the same cut when it is read, or the
// rebuild starts again.
//
// Tombstones under the cut that the source still has are exceptions there, and here.
func Rebuilt(id Incarnation, source State) State { return State{Self: id, Cut: source.Cut} }

// AppendStanding appends what two replicas must have in common to be fit for each
// other, with nothing to settle: if both append the same, Meet says Fit to both and
// Settle changes nothing. A digest of it over all shards that two nodes share lets them
// pass over the meeting where nothing has changed.
func (s State) AppendStanding(dst []byte, with Incarnation) []byte {
	p := s.pair(with)
	dst = binary.BigEndian.AppendUint64(dst, uint64(min(s.Self, with)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(max(s.Self, with)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Cut.At))
	for _, id := range [...]Session{p.Confirmed.Session, p.Pending.Session} {
		dst = binary.BigEndian.AppendUint64(dst, id.Seq)
		dst = binary.BigEndian.AppendUint64(dst, id.Nonce)
	}
	return dst
}
