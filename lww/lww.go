// Package lww defines the entry that replicas hold and the one rule by which
// they settle conflicts: last write wins.
//
// # Problem
//
// Two replicas hold different versions of a key. Without asking anybody else,
// both must come to the same answer, in whatever order and however often they
// learn of the versions.
//
// # Idea
//
// All versions of a key form one total order (see [Compare]) and [Merge] keeps
// the greater. A maximum is commutative, associative and idempotent, so any
// exchange of entries, repeated, reordered or partial, moves replicas towards
// the same state and never away from it.
//
// A delete is an entry too: a tombstone. Were it the absence of an entry, it
// could not be told from a write that has not arrived yet, and the next repair
// would bring the deleted value back.
//
// An expiry has a stamp of its own. Changing when a key expires writes the
// entry again with the same value stamp and a newer expiry stamp; a concurrent
// newer write or delete has a greater value stamp and wins, so touching an
// expiry never undoes a delete.
//
// # Caveats
//
// Of two concurrent writes one is lost, and both clients have been told OK.
// Counters, locks and read-modify-write need a different system.
package lww

import (
	"bytes"
	"cmp"
	"time"

	"syntropy/hlc"
)

// Limits of an entry, checked where entries enter the system and again when
// they are decoded.
const (
	// MaxKeyBytes bounds a key. Keys are held in memory by a session while it
	// settles them; 64 KiB is far above any sensible key.
	MaxKeyBytes = 64 << 10
	// MaxValueBytes bounds a value. An entry travels as one message, and a
	// message must fit into memory several times over.
	MaxValueBytes = 8 << 20
)

// Version is all that an entry says about itself except its key and value.
type Version struct {
	Stamp     hlc.Stamp  // when the value or the delete was written
	Node      hlc.NodeID // who stamped it
	Tombstone bool       // the key was deleted

	ExpiryStamp hlc.Stamp  // when the expiry was last set or removed; 0: never
	ExpiryNode  hlc.NodeID // who stamped that
	Expires     int64      // milliseconds since 1970; 0: does not expire
}

// Entry is one version of one key. Entries are immutable: a newer one replaces
// an older one. Whoever creates an entry keeps the ownership of Key and Value;
// whoever keeps an entry beyond a call copies them (Clone).
type Entry struct {
	Key []byte
	Version
	Value []byte // empty for a tombstone
}

// Newest returns the latest moment at which anything about the entry was
// written.
func (v Version) Newest() hlc.Stamp { return max(v.Stamp, v.ExpiryStamp) }

// Live reports whether a reader at the given time sees a value.
func (v Version) Live(now time.Time) bool {
	return !v.Tombstone && (v.Expires == 0 || now.UnixMilli() < v.Expires)
}

// ExpiresAt returns the expiry, and whether there is one.
func (v Version) ExpiresAt() (time.Time, bool) {
	return time.UnixMilli(v.Expires).UTC(), v.Expires != 0
}

// Clone returns a copy that shares no memory with e.
func (e Entry) Clone() Entry {
	e.Key = bytes.Clone(e.Key)
	e.Value = bytes.Clone(e.Value)
	return e
}

// Compare orders two versions of the same key: negative when b is newer,
// positive when a is newer. Zero means that they are equal in every field.
//
// The order is: value stamp; the node that wrote it; a tombstone over a value;
// the greater value bytes; then the expiry's stamp, its node, and the expiry.
// All but the first decide only between writes that cannot happen with correct
// clocks, but must be decided all the same, and alike on every replica.
func Compare(a, b Entry) int {
	if c := compareValue(a.Version, b.Version); c != 0 {
		return c
	}
	if c := bytes.Compare(a.Value, b.Value); c != 0 {
		return c
	}
	return compareExpiry(a.Version, b.Version)
}

// CompareVersions orders two versions as Compare does, without the values. The
// caller says whether the values are known to be equal. When the order hangs on
// values that are not, decided is false: only Compare on whole entries can tell.
func CompareVersions(a, b Version, valuesEqual bool) (order int, decided bool) {
	if c := compareValue(a, b); c != 0 {
		return c, true
	}
	if !valuesEqual {
		return 0, false
	}
	return compareExpiry(a, b), true
}

func compareValue(a, b Version) int {
	return cmp.Or(
		cmp.Compare(a.Stamp, b.Stamp),
		cmp.Compare(a.Node, b.Node),
		compareBool(a.Tombstone, b.Tombstone),
	)
}

func compareExpiry(a, b Version) int {
	return cmp.Or(
		cmp.Compare(a.ExpiryStamp, b.ExpiryStamp),
		cmp.Compare(a.ExpiryNode, b.ExpiryNode),
		cmp.Compare(a.Expires, b.Expires),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Merge returns the newer of two versions of the same key.
func Merge(a, b Entry) Entry {
	if Compare(a, b) >= 0 {
		return a
	}
	return b
}
