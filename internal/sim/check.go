package sim

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strconv"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

func itoa(n int) string { return strconv.Itoa(n) }

// holds notes that the node now has a version, which must not be older than the
// one it had: versions only grow, on every replica, whatever arrives.
func (n *node) holds(e lww.Entry) {
	key := string(e.Key)
	if old, ok := n.held[key]; ok && lww.Compare(e, old) < 0 {
		invariant := "I1"
		if old.Tombstone && !e.Tombstone {
			invariant = "I2"
		}
		n.fail("%s: n%d had %s and now has the older %s", invariant, n.id, describe(old), describe(e))
	}
	n.held[key] = e.Clone()
}

// checkHeld checks, after a restart, that every version the node ever had is
// still there.
func (n *node) checkHeld() {
	rows := n.rows()
	for _, key := range slices.Sorted(maps.Keys(n.held)) {
		want := n.held[key]
		got, found := rows[key]
		if !found && want.Tombstone && n.opts.Bug == PhysicalDelete {
			continue // what the bug does; that it is one shows later
		}
		if !found || lww.Compare(got, want) != 0 {
			n.fail("I1: n%d lost %s in a crash", n.id, describe(want))
		}
	}
}

// checkTree compares the node's trees with its rows (I5).
func (n *node) checkTree() {
	snap := n.store.Snapshot()
	defer snap.Close()
	for shard := range n.opts.Shards {
		audit, err := snap.Recompute(context.Background(), shard)
		if err != nil {
			n.fail("n%d cannot be read: %v", n.id, err)
			return
		}
		if len(audit.Wrong) > 0 || audit.Tree != audit.Rows {
			n.fail("I5: n%d, shard %d: the tree says %v, the rows %v, wrong leaves: %v", n.id, shard, audit.Tree, audit.Rows, audit.Wrong)
		}
	}
}

func (n *node) rows() map[string]lww.Entry {
	rows := make(map[string]lww.Entry)
	for shard := range n.opts.Shards {
		err := n.store.Scan(shard, 0, func(_ ring.Token, e lww.Entry) bool {
			rows[string(e.Key)] = e.Clone()
			return true
		})
		if err != nil {
			n.fail("n%d cannot be read: %v", n.id, err)
		}
	}
	return rows
}

// checkProof holds a completed session to what it claims: whatever one side held
// when it began, and is not younger than the settle window, the other side now
// has too, or newer. The purge of tombstones will rest on this: they have no expiry
// that could make them young again.
func (w *world) checkProof(s *session) {
	w.proves(s, s.view, s.b)
	w.proves(s, s.theirs, s.a)
}

func (w *world) proves(s *session, held *storage.Snapshot, by *node) {
	if !by.up {
		return // its disk is looked at when it is back
	}
	now := by.rows()
	for shard := range w.opts.Shards {
		under := merkle.Node{Bits: uint8(ring.ShardBits(w.opts.Shards)), Path: uint64(shard)}
		err := held.Rows(under, func(r *merkle.Row) bool {
			e := r.Entry
			// A young touch of an old value may be on its way, and the value with it: the
			// touch may be all that ever brought it here.
			if e.Newest() > s.settled {
				return true
			}
			got, found := now[string(e.Key)]
			if !found && e.Tombstone && w.opts.Bug == PhysicalDelete {
				return true
			}
			if !found || lww.Compare(got, e) < 0 {
				w.fail("proof: session %d is complete, and n%d lacks %s", s.id, by.id, describe(e))
			}
			return true
		})
		if err != nil {
			w.fail("a snapshot cannot be read: %v", err)
		}
	}
}

// checkEnd holds the healed cluster to the invariants.
func (w *world) checkEnd() {
	first := w.nodes[0].rows()
	for _, n := range w.nodes {
		n.checkTree()
		if p := n.hints.Stats().Pending; len(p) > 0 {
			w.fail("I6: n%d still keeps hints, though every node is up and they are past their window: %v", n.id, p)
		}
		rows := n.rows()
		if !maps.EqualFunc(rows, first, equal) {
			w.fail("I3: n1 and n%d are not byte-equal:\n%s", n.id, diff(first, rows))
		}
		snap, ref := n.store.Snapshot(), w.nodes[0].store.Snapshot()
		for shard := range w.opts.Shards {
			if snap.Root(shard) != ref.Root(shard) {
				w.fail("I3: n1 and n%d have different roots of shard %d", n.id, shard)
			}
		}
		snap.Close()
		ref.Close()
	}
	for _, key := range slices.Sorted(maps.Keys(w.oracle.newest)) {
		acked := w.oracle.newest[key]
		got, found := first[key]
		switch {
		case acked.Tombstone && found && !got.Tombstone && lww.Compare(got, acked) < 0:
			w.fail("I2: %s came back after it was deleted: acknowledged was %s, held is %s", key, describe(acked), describe(got))
		case acked.Tombstone && !found && w.opts.Bug == PhysicalDelete:
		case !found:
			w.fail("I1: %s is lost: acknowledged was %s", key, describe(acked))
		case lww.Compare(got, acked) < 0:
			w.fail("I1: %s is older than what was acknowledged: %s, held is %s", key, describe(acked), describe(got))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(first)) {
		e := first[key]
		w.checkUndeleted(e)
		if !slices.ContainsFunc(w.oracle.written[key], func(o lww.Entry) bool { return equal(o, e) }) {
			w.fail("I1: nobody ever wrote %s", describe(e))
		}
	}
	if w.violation == nil && !w.allPairs() {
		w.fail("I9: equal replicas exchanged more than one digest")
	}
}

func equal(a, b lww.Entry) bool {
	return a.Version == b.Version && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
}

func diff(a, b map[string]lww.Entry) (text string) {
	keys := make(map[string]bool)
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if !equal(a[k], b[k]) {
			text += "  " + describe(a[k]) + "\n  " + describe(b[k]) + "\n"
		}
	}
	return text
}
