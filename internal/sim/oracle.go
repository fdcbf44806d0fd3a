package sim

import (
	"slices"

	"syntropy/hlc"
	"syntropy/lww"
)

// oracle sees everything and takes part in nothing.
type oracle struct {
	written map[string][]lww.Entry // every version that was ever made
	newest  map[string]lww.Entry   // the greatest that must not get lost
	// floor is the greatest version that a quorum is known to hold: one that was
	// acknowledged, or read by a quorum that then agreed on it. Whatever begins
	// after that must see it or something newer.
	floor map[string]lww.Entry
	// deleted is the stamp of the newest delete that was acknowledged.
	deleted map[string]hlc.Stamp
	// born is the stamp under which each value was written by the one request
	// that wrote it. That stamps it more than once if it is shadowed; changing
	// its expiry must not.
	born map[string]hlc.Stamp
}

func newOracle() *oracle {
	return &oracle{
		make(map[string][]lww.Entry), make(map[string]lww.Entry),
		make(map[string]lww.Entry), make(map[string]hlc.Stamp), make(map[string]hlc.Stamp),
	}
}

func (o *oracle) wrote(e lww.Entry) {
	key := string(e.Key)
	if !slices.ContainsFunc(o.written[key], func(old lww.Entry) bool { return equal(old, e) }) {
		o.written[key] = append(o.written[key], e.Clone())
	}
}

func raise(m map[string]lww.Entry, e lww.Entry) {
	if old, ok := m[string(e.Key)]; !ok || lww.Compare(e, old) > 0 {
		m[string(e.Key)] = e.Clone()
	}
}

// kept notes a version that some disk holds durably and that must not get lost.
func (o *oracle) kept(e lww.Entry) { raise(o.newest, e) }

// acked notes a version of which a client was told OK.
func (o *oracle) acked(e lww.Entry) {
	o.agreed(e)
	if e.Tombstone {
		o.deleted[string(e.Key)] = max(o.deleted[string(e.Key)], e.Stamp)
	}
}

// agreed notes a version that a quorum holds.
func (o *oracle) agreed(e lww.Entry) {
	o.kept(e)
	raise(o.floor, e)
}

// floors copies what a request that begins now must see.
func (o *oracle) floors(keys [][]byte) []lww.Entry {
	floors := make([]lww.Entry, len(keys))
	for i, k := range keys {
		floors[i] = o.floor[string(k)] // the zero entry is older than any other
	}
	return floors
}

// put notes a value that a client writes, each time that it is stamped.
func (o *oracle) put(e lww.Entry) { o.born[string(e.Value)] = max(o.born[string(e.Value)], e.Stamp) }

// holders counts the nodes whose disks hold a version, or a newer one.
func (w *world) holders(e lww.Entry) (count int) {
	for _, n := range w.nodes {
		if got, ok := n.held[string(e.Key)]; ok && lww.Compare(got, e) >= 0 {
			count++
		}
	}
	return count
}

// checkAcked holds a write of which a client is told OK to what that means: a
// quorum has it, and it is newer than whatever a quorum had when it began.
func (w *world) checkAcked(e, before lww.Entry) {
	if have := w.holders(e); have < w.quorum() {
		w.fail("I1: OK was said of %s, and %d replicas hold it", describe(e), have)
	}
	if before.Stamp != 0 && lww.Compare(e, before) <= 0 {
		w.fail("I4: OK was said of %s, which had lost to %s before it began", describe(e), describe(before))
	}
}

// checkRead holds the answer of a quorum read to what it promises. agreed says
// that all its repairs were carried out.
func (w *world) checkRead(key []byte, got lww.Entry, found bool, before lww.Entry, agreed bool) {
	switch {
	case before.Stamp != 0 && !found:
		w.fail("I1: a quorum read found nothing under %s; before it began a quorum had %s", key, describe(before))
	case !found:
		return
	case lww.Compare(got, before) < 0:
		w.fail("I1: a quorum read got %s; before it began a quorum had %s", describe(got), describe(before))
	}
	if have := w.holders(got); agreed && have < w.quorum() {
		w.fail("repair: a quorum read got %s and repaired it, and %d replicas hold it", describe(got), have)
	}
}

// checkUndeleted checks that a value did not get a stamp above that of a delete
// which it was written before: changing an expiry must not bring it back.
func (w *world) checkUndeleted(e lww.Entry) {
	born, deleted := w.oracle.born[string(e.Value)], w.oracle.deleted[string(e.Key)]
	if !e.Tombstone && born < deleted && deleted < e.Stamp {
		w.fail("I2: %s was written at %v, deleted at %v, and is back", describe(e), born, deleted)
	}
}
