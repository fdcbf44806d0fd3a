package purge

import (
	"errors"

	"syntropy/hlc"
	"syntropy/lww"
)

// Source is where an entry comes from.
type Source int

const (
	// Client: a write, directly from the node that coordinates it.
	Client Source = iota
	// Hint: a write that was kept for this replica.
	Hint
	// ReadRepair: a version that another replica had when a read asked it.
	ReadRepair
	// Offer: what a replica that is to be rebuilt holds above the cut.
	Offer
	// Exchange: a session, which both sides began at the same cut.
	Exchange
)

// ErrLate reports a write that arrives so long after its stamp that a delete which
// came after it may be forgotten.
var ErrLate = errors.New("the write is older than the hint window: it comes too late")

// ErrPurged reports an entry whose key may have been deleted by a tombstone that was
// purged: it is at or under the purge cut, and the key is absent.
var ErrPurged = errors.New("the entry is at or under the purge cut, and its key is absent: a delete of it may have been purged")

// Admit reports whether an entry may be applied here at all; nil leaves the decision
// to last write wins. present tells whether an entry of the key is held that is not
// covered. It is asked in the same critical section as the write.
//
// What counts is the stamp of the value. A new expiry on an old value is as old as the
// value: no delete is undone by touching an expiry.
//
// A key that is present has not been deleted by anything at or under the cut, so that
// what is newer than the entry held can come. A session may bring an absent key: both
// sides are in good standing, so this one has lost it, or had not got it yet.
func (s State) Admit(from Source, v lww.Version, present bool, now hlc.Stamp, l Limits) error {
	switch from {
	case Client, Hint:
		if v.Newest() < now.Add(-(l.HintWindow + l.Deadline + l.Skew)) {
			return ErrLate
		}
	case Exchange:
		return nil
	}
	if !present && v.Stamp <= s.Cut.At {
		return ErrPurged
	}
	return nil
}

// Reply is what a replica answers to a read of one key.
type Reply struct {
	Cut   hlc.Stamp // its purge cut when it answered
	Found bool      // it holds an entry of the key that is not covered
	lww.Version
}

// Judge reports whether a live version that one replica replied may be answered to a
// client. It may not if a replica with a higher cut, at or above the stamp of the value,
// has no entry of the key: that one may have forgotten the delete, and the one that has
// the value may be one that never saw it. The two must meet first; then the read is
// repeated. Absence is not answered instead: the value may have been acknowledged.
//
// A tombstone, and a value that has expired, is always answered, as absent.
func Judge(r Reply, others []Reply) bool {
	for _, o := range others {
		if forgotten(r, o) && r.Cut < o.Cut {
			return false
		}
	}
	return true
}

// Repairable reports whether a version that one replica replied may be brought to one
// that replied something older. That one asks again, with Admit, when it arrives.
func Repairable(r, to Reply) bool { return !forgotten(r, to) }

// forgotten reports whether a replica may have had, and purged, a delete of a version.
func forgotten(r, o Reply) bool { return r.Found && !o.Found && r.Stamp <= o.Cut }
