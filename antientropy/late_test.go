package antientropy

import (
	"testing"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
)

// A key whose expiry was touched a moment ago is late: its row was written after
// the moment that is compared. That must not hide what else differs: were a late
// row left alone whatever it holds, a replica could lack a delete from long ago,
// be proven to agree, and bring the value back once the tombstone is purged.
func TestATouchedKeyHidesNothing(t *testing.T) {
	now := second(7200)
	settle := 10 * time.Second
	written := value("k", "v", 3600)
	touched := written
	touched.ExpiryStamp, touched.ExpiryNode, touched.Expires = now.Add(-time.Second), 1, now.Time().UnixMilli()+1e6
	deleted := tombstone("k", 7100)
	for name, sides := range map[string][2][]lww.Entry{
		"the partner missed a delete, and was touched":          {{deleted}, {written, touched}},
		"the initiator missed a delete, and was touched":        {{written, touched}, {deleted}},
		"the partner lacks the value, the initiator is touched": {{written, touched}, {}},
		"the initiator lacks the value, the partner is touched": {{}, {written, touched}},
		"the partner lacks what came with its touch":            {{touched}, {}},
		"the initiator lacks what came with its touch":          {{}, {touched}},
	} {
		t.Run(name, func(t *testing.T) {
			var side [2]storeReplica
			for i, entries := range sides {
				side[i] = newStore(t, storage.Options{Shards: 1})
				for _, e := range entries {
					mustApply(t, side[i], e)
				}
			}
			view := side[0].SnapshotAsOf(now.Add(-settle))
			if view.AsOf() == hlc.Max {
				t.Fatal("the view shows the present")
			}
			s := session{a: side[0], b: side[1], viewA: view, viewB: side[1].SnapshotAsOf(view.AsOf()),
				cfg: Config{Now: now, AsOf: view.AsOf(), Settle: settle}}
			s.mustRun(t)
			if !equalReplicas(t, side[0], side[1]) {
				t.Error("the session is complete, and the replicas differ")
			}
		})
	}
	// Both sides touched, each by its own way: nothing to repair.
	a, b := newStore(t, storage.Options{Shards: 1}), newStore(t, storage.Options{Shards: 1})
	mustApply(t, a, written)
	mustApply(t, a, touched)
	mustApply(t, b, touched)
	view := a.SnapshotAsOf(now.Add(-settle))
	s := session{a: a, b: b, viewA: view, viewB: b.SnapshotAsOf(view.AsOf()), cfg: Config{Now: now, AsOf: view.AsOf(), Settle: settle}}
	if r := s.mustRun(t); r.Diverged != 0 || r.Pushed+r.Pulled != 0 {
		t.Errorf("equal replicas were repaired: %+v", r)
	}
}
