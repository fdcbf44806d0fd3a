package antientropy

import (
	"cmp"
	"fmt"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Action says what a session does about a key that differs.
type Action uint8

const (
	// Push: the initiator's version is newer and goes to the partner.
	Push Action = iota + 1
	// Pull: the partner's version is newer and comes to the initiator.
	Pull
	// Exchange: only the values tell which is newer, so both travel.
	Exchange
	// Wait: the newer version is younger than the settle window and probably
	// still on its way. Nothing is done.
	Wait
)

// String names the action.
func (a Action) String() string {
	return [...]string{"", "push", "pull", "both", "wait"}[a]
}

// Side is the version that one side of a session holds of a key.
type Side struct {
	lww.Version
	ValueBytes int // -1: it was not told
}

// Difference is a key on which the two sides differ. A nil side holds nothing.
type Difference struct {
	Shard     int
	Position  ring.Position
	Key       []byte
	Initiator *Side
	Partner   *Side
	Action    Action
	because   because
}

// because is what Reason needs to know beside the two sides.
type because struct {
	kind      byte
	sameValue bool
	settle    time.Duration // the settle window, for becauseYoung
}

const (
	becauseNewer = iota // of what the versions say
	becauseEqual        // the sides have become equal
	becauseFresh        // one side's was not there at the moment that is compared
	becauseYoung        // it was written within the settle window
)

// Reason says, for people, why the action is what it is.
func (d Difference) Reason() string {
	why := d.because
	switch why.kind {
	case becauseEqual:
		return "equal by now: written again since the moment that is compared"
	case becauseFresh:
		return "written since the moment that is compared, so it may still be on its way"
	case becauseYoung:
		return fmt.Sprintf("written within the settle window of %v, so it may still be on its way (%s)", why.settle, d.whySides())
	}
	return d.whySides()
}

// Comparison is one node that a session compared.
type Comparison struct {
	Shard     int
	Node      merkle.Node // from the root of the shard
	Initiator merkle.Syndrome
	Partner   merkle.Syndrome
	Then      Step
	// The rows under the node, counted in a textbook session only.
	InitiatorRows, PartnerRows uint64
}

// Step is what a comparison led to.
type Step uint8

const (
	// Skip: the digests match; nothing below is looked at.
	Skip Step = iota + 1
	// Descend: the children are compared.
	Descend
	// List: few entries are left; they are listed.
	List
	// Name: one or two keys differ, and the digests tell which.
	Name
)

// String names the step.
func (s Step) String() string { return [...]string{"", "skip", "descend", "list", "name"}[s] }

// decide says what to do about a key, given what both sides hold of it, and why.
// At least one side holds it, and the two differ.
func decide(mine, theirs *keyVersion, settled hlc.Stamp, settle time.Duration) (Action, because) {
	sameValue := mine != nil && theirs != nil && mine.valueHash == theirs.valueHash
	switch {
	case sameValue && mine.version == theirs.version:
		// They differed at the moment that is compared, and what was written
		// since has made them equal.
		return Wait, because{kind: becauseEqual}
	case mine != nil && mine.fresh(), theirs != nil && theirs.fresh():
		return Wait, because{kind: becauseFresh}
	case writtenAt(mine, theirs) > settled:
		return Wait, because{becauseYoung, sameValue, settle}
	}
	return compareSides(mine, theirs), because{becauseNewer, sameValue, 0}
}

// writtenAt returns the stamp of the write that one side lacks: the newer value,
// or, where both hold the same value, the newer expiry.
//
// Not the newest stamp of all: a key whose expiry is touched again and again
// would otherwise be in flight for ever, a delete of it never reach the side
// that missed it, and its tombstone be purged as proven.
func writtenAt(mine, theirs *keyVersion) hlc.Stamp {
	if mine == nil || theirs == nil {
		mine = cmp.Or(mine, theirs)
		return mine.version.Stamp
	}
	m, t := mine.version, theirs.version
	if m.Stamp != t.Stamp || m.Node != t.Node || m.Tombstone != t.Tombstone || mine.valueHash != theirs.valueHash {
		return max(m.Stamp, t.Stamp)
	}
	return max(m.ExpiryStamp, t.ExpiryStamp)
}

func compareSides(mine, theirs *keyVersion) Action {
	switch {
	case theirs == nil:
		return Push
	case mine == nil:
		return Pull
	}
	order, decided := lww.CompareVersions(mine.version, theirs.version, mine.valueHash == theirs.valueHash)
	switch {
	case !decided || order == 0:
		return Exchange
	case order > 0:
		return Push
	}
	return Pull
}

func (d Difference) whySides() string {
	switch {
	case d.Partner == nil:
		return "the partner has never seen it"
	case d.Initiator == nil:
		return "the initiator has never seen it"
	}
	mine, theirs := d.Initiator.Version, d.Partner.Version
	order, decided := lww.CompareVersions(mine, theirs, d.because.sameValue)
	switch {
	case !decided:
		return "same stamp and writer, different values: the greater value wins"
	case order > 0:
		return "the initiator's is newer: " + why(mine, theirs)
	case order < 0:
		return "the partner's is newer: " + why(theirs, mine)
	}
	return "equal versions with different digests"
}

// why says on which field the newer version wins.
func why(newer, older lww.Version) string {
	switch {
	case newer.Stamp != older.Stamp:
		return fmt.Sprintf("stamped %v later", newer.Stamp.Sub(older.Stamp))
	case newer.Node != older.Node:
		return fmt.Sprintf("same stamp, writer %v over %v", newer.Node, older.Node)
	case newer.Tombstone != older.Tombstone:
		return "same stamp and writer, a delete over a value"
	case newer.ExpiryStamp != older.ExpiryStamp:
		return fmt.Sprintf("its expiry was set %v later", newer.ExpiryStamp.Sub(older.ExpiryStamp))
	}
	return "same stamps, the greater expiry"
}
