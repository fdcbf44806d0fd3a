package storage_test

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/storage"
	"syntropy/storage/memstore"
	"syntropy/storage/storagetest"
)

// Sessions run over snapshots. Package storage does not know of them.
var _ antientropy.View = (*storage.Snapshot)(nil)

const lastStamp = 12

// versions draws versions as clocks that work make them: what a node writes under
// a stamp is one thing, and so is the expiry that it sets under one.
var versions = rapid.Custom(func(t *rapid.T) lww.Entry {
	e := lww.Entry{Key: []byte(rapid.SampledFrom(modelKeys).Draw(t, "key"))}
	e.Stamp = hlc.Stamp(rapid.IntRange(1, lastStamp).Draw(t, "stamp"))
	e.Node = hlc.NodeID(rapid.IntRange(1, 2).Draw(t, "node"))
	hash := fnv.New32()
	fmt.Fprintf(hash, "%s %d %d", e.Key, e.Stamp, e.Node)
	if e.Tombstone = hash.Sum32()%4 == 0; !e.Tombstone {
		e.Value = fmt.Appendf(nil, "%d %d", e.Stamp, e.Node)
		if at := rapid.IntRange(0, 2*lastStamp).Draw(t, "expiry stamp"); at > int(e.Stamp) && at <= lastStamp {
			e.ExpiryStamp, e.ExpiryNode, e.Expires = hlc.Stamp(at), 1, int64(at%3)
		}
	}
	return e
})

// received is the obvious store: all that ever reached it.
type received []lww.Entry

// asOf returns the newest version of each key that is stamped t or before. A
// value from then that came only with expiries from after t is shown with the
// earliest of them, if it is newer than what is shown otherwise.
func (r received) asOf(t hlc.Stamp) map[string]lww.Entry {
	held, touched := make(map[string]lww.Entry), make(map[string]lww.Entry)
	for _, e := range r {
		key := string(e.Key)
		if e.Stamp > t {
			continue
		}
		if e.Newest() > t {
			old, ok := touched[key]
			if c := compareValues(e, old); !ok || c > 0 || c == 0 && lww.Compare(e, old) < 0 {
				touched[key] = e
			}
			continue
		}
		if old, ok := held[key]; !ok || lww.Compare(e, old) > 0 {
			held[key] = e
		}
	}
	for key, e := range touched {
		if old, ok := held[key]; !ok || compareValues(e, old) > 0 {
			held[key] = e
		}
	}
	return held
}

// compareValues compares two versions but for their expiries.
func compareValues(a, b lww.Entry) int {
	a.ExpiryStamp, a.ExpiryNode, a.Expires = 0, 0, 0
	b.ExpiryStamp, b.ExpiryNode, b.Expires = 0, 0, 0
	return lww.Compare(a, b)
}

// checkAsOf compares a snapshot with what the store had received when it was
// taken, as of what it says.
func (r received) checkAsOf(t interface{ Fatalf(string, ...any) }, s *storage.Store, snapshot *storage.Snapshot) {
	then, now := r.asOf(snapshot.AsOf()), r.asOf(hlc.Max)
	sums := make(map[string]merkle.Sum)
	for key, e := range then {
		sums[key] = s.Sum(e)
	}
	checkTrees(t, s, snapshot, sums)
	seen := 0
	for shard := range snapshot.Shards() {
		err := snapshot.Rows(under(shard, snapshot.Shards()), func(row *merkle.Row) bool {
			seen++
			old, found := then[string(row.Entry.Key)]
			present := now[string(row.Entry.Key)]
			want := merkle.Row{Position: s.Position(row.Entry.Key), Sum: sums[string(row.Entry.Key)], Late: !found || lww.Compare(old, present) != 0}
			if lww.Compare(row.Entry, present) != 0 || row.Position != want.Position || row.Sum != want.Sum || row.Late != want.Late {
				t.Fatalf("as of %d the row is %+v, want %+v of %+v", snapshot.AsOf(), row, want, present)
			}
			return true
		})
		if err != nil {
			t.Fatalf("%v", err)
		}
	}
	if seen != len(now) {
		t.Fatalf("%d rows, want %d", seen, len(now))
	}
}

// TestReplicasAgreeAsOf: two stores that have received every value up to a stamp,
// in whatever order, are equal as of then, whatever later versions only one of
// them has. Each is right as of every other moment too, of what it received, as
// far back as it says that it remembers.
func TestReplicasAgreeAsOf(t *testing.T) {
	agreed := 0
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(versions, 1, 60).Draw(t, "versions")
		moment := hlc.Stamp(rapid.IntRange(0, lastStamp).Draw(t, "moment"))
		opts := storage.Options{Shards: 1 << rapid.IntRange(0, 2).Draw(t, "log shards")}
		var roots [2]string
		for side := range roots {
			opts.LeafKeys = rapid.IntRange(1, 3).Draw(t, "leaf keys")
			opts.RecentEntries = rapid.SampledFrom([]int{0, 0, 40, 17, 3, 1, -1}).Draw(t, "recent entries")
			replica := replica{opts: opts, engine: memstore.New()}
			replica.open(t)
			arrivals := make([]lww.Entry, 0, len(all))
			for _, e := range rapid.Permutation(all).Draw(t, "order") {
				if e.Stamp <= moment || rapid.Bool().Draw(t, "arrives") {
					arrivals = append(arrivals, e)
				}
			}
			for len(arrivals) > 0 {
				n := rapid.IntRange(1, min(8, len(arrivals))).Draw(t, "batch")
				replica.receive(t, arrivals[:n])
				arrivals = arrivals[n:]
				switch rapid.IntRange(0, 9).Draw(t, "then") {
				case 0:
					replica.open(t)
				case 1:
					replica.snapshot(hlc.Stamp(rapid.IntRange(0, lastStamp).Draw(t, "as of")))
				}
			}
			replica.check(t)
			if snapshot := replica.store.SnapshotAsOf(moment); snapshot.AsOf() == moment {
				for shard := range opts.Shards {
					roots[side] += fmt.Sprint(snapshot.Root(shard))
				}
			}
		}
		if roots[0] != "" && roots[1] != "" {
			agreed++
			if roots[0] != roots[1] {
				t.Fatalf("as of %v the roots are\n%s\n%s", moment, roots[0], roots[1])
			}
		}
	})
	if agreed == 0 {
		t.Error("no two stores remembered enough: nothing was compared")
	}
}

// replica is a store, what it has received, and snapshots of moments in between.
type replica struct {
	opts      storage.Options
	engine    *memstore.Engine
	store     *storage.Store
	received  received
	floor     hlc.Stamp // that the store must not be above
	snapshots []taken
}

type taken struct {
	*storage.Snapshot
	received
	store *storage.Store
}

func (r *replica) open(t *rapid.T) {
	var err error
	if r.store, err = storage.Open(r.engine, r.opts); err != nil {
		t.Fatal(err)
	}
	for _, e := range r.received {
		r.floor = max(r.floor, e.Newest())
	}
}

func (r *replica) receive(t *rapid.T, entries []lww.Entry) {
	r.received = append(r.received, entries...)
	if _, err := r.store.Apply(entries); err != nil {
		t.Fatal(err)
	}
}

func (r *replica) snapshot(moment hlc.Stamp) {
	r.snapshots = append(r.snapshots, taken{r.store.SnapshotAsOf(moment), r.received, r.store})
}

func (r *replica) check(t *rapid.T) {
	for moment := range hlc.Stamp(lastStamp + 1) {
		r.snapshot(moment)
		got, floor := r.snapshots[len(r.snapshots)-1].AsOf(), r.store.RecentFloor()
		switch {
		case moment >= floor && got != moment, moment < floor && got != hlc.Max:
			t.Fatalf("asked for %v with a floor of %v, the snapshot shows %v", moment, floor, got)
		case r.opts.RecentEntries == 0 && floor > r.floor:
			t.Fatalf("the floor is %v; nothing was forgotten, and when the store was opened nothing was later than %v", floor, r.floor)
		}
	}
	for _, s := range r.snapshots {
		s.checkAsOf(t, s.store, s.Snapshot)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecentFloor: what is forgotten raises the floor to its newest stamp, the
// oldest arrivals first, and so does opening a store. Late arrivals of old
// versions do not lower it.
func TestRecentFloor(t *testing.T) {
	opts := storage.Options{Shards: 2, RecentEntries: 4}
	engine := memstore.New()
	s := open(t, engine, opts)
	for _, step := range []struct {
		key          string
		stamp, floor hlc.Stamp
	}{
		{"a", 10, 0}, {"b", 20, 0}, {"a", 30, 0}, {"a", 30, 0}, {"c", 40, 0}, // one was there already
		{"d", 50, 10}, {"a", 1, 20}, {"a", 2, 30}, {"e", 60, 40}, {"a", 3, 50}, {"a", 4, 50}, {"a", 5, 50}, {"a", 6, 60},
	} {
		if _, err := s.Apply([]lww.Entry{entry(step.key, step.stamp)}); err != nil {
			t.Fatal(err)
		}
		if got := s.RecentFloor(); got != step.floor {
			t.Errorf("after %s at %d the floor is %d, want %d", step.key, step.stamp, got, step.floor)
		}
	}
	for _, recent := range []int{0, -1} {
		opts.RecentEntries = recent
		if got := open(t, engine, opts).RecentFloor(); got != 60 {
			t.Errorf("opened again, the floor is %d, want 60", got)
		}
	}
	s = open(t, engine, opts) // remembers nothing
	if _, err := s.Apply([]lww.Entry{entry("f", 70), entry("f", 65)}); err != nil {
		t.Fatal(err)
	}
	if got := s.RecentFloor(); got != 70 {
		t.Errorf("without memory the floor is %d, want 70", got)
	}
}

// TestLateRowThatChangedByItself: a late row is known by its hash. One that is not
// what was written is not late but wrong, and shows as that.
func TestLateRowThatChangedByItself(t *testing.T) {
	engine := memstore.New()
	s := open(t, engine, storage.Options{Shards: 1})
	if _, err := s.Apply([]lww.Entry{entry("k", 5), entry("k", 9)}); err != nil {
		t.Fatal(err)
	}
	for k, v := range rows(t, engine) {
		if k[0] == 'd' {
			b := engine.NewBatch()
			b.Set([]byte(k), []byte(v+"rot"))
			if _, err := engine.Commit(b, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	snapshot := s.SnapshotAsOf(5)
	defer snapshot.Close()
	if got, want := snapshot.Root(0).Sum, s.Sum(entry("k", 5)); got != want {
		t.Errorf("as of 5 the root is %v, want %v", got, want)
	}
	err := snapshot.Rows(merkle.Node{}, func(r *merkle.Row) bool {
		if r.Late || r.Sum != s.Sum(r.Entry) {
			t.Errorf("the row is shown as %+v", r)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if audit, err := snapshot.Recompute(t.Context(), 0); err != nil || len(audit.Wrong) != 1 {
		t.Errorf("the audit says %+v, %v", audit, err)
	}
}

// TestTiesOfValuesAsOf: two writes of one stamp and one node differ in their
// values only. No clock that works makes them, but replicas must agree all the
// same, in whatever order they got them.
func TestTiesOfValuesAsOf(t *testing.T) {
	a, b, later := entry("k", 5), entry("k", 5), entry("k", 9)
	a.Value, b.Value = []byte("a"), []byte("b")
	var first string
	for i, order := range [][]lww.Entry{{a, b, later}, {b, a, later}, {later, a, b}, {later, b, a}, {a, later, b}, {b, later, a}} {
		s := open(t, memstore.New(), storage.Options{Shards: 1})
		for _, e := range order {
			if _, err := s.Apply([]lww.Entry{e}); err != nil {
				t.Fatal(err)
			}
		}
		snapshot := s.SnapshotAsOf(5)
		root := fmt.Sprint(snapshot.Root(0))
		if err := snapshot.Close(); err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = root
		}
		if root != first {
			t.Errorf("order %d: %s, in another it is %s", i, root, first)
		}
	}
}

// TestSnapshotsAsOfUnderLoad belongs to -race: while writers write, snapshots as
// of a moment a little ago are taken, and trees and rows of each agree.
func TestSnapshotsAsOfUnderLoad(t *testing.T) {
	opts := storage.Options{Shards: 4, LeafKeys: 2, RecentEntries: 300}
	s := open(t, memstore.New(), opts)
	done := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 3 {
		rng := rand.New(rand.NewPCG(uint64(w), 5))
		writers.Go(func() {
			for i := range 2000 {
				e := storagetest.RandomEntry(rng, 100)
				e.Stamp = hlc.Stamp(1000 + 10*i - rng.IntN(50))
				e.ExpiryStamp, e.ExpiryNode, e.Expires = 0, 0, 0
				if _, err := s.Apply([]lww.Entry{e}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writers.Wait(); close(done) }()
	shown, late := 0, 0
	for running := true; running || late == 0; {
		select {
		case <-done:
			running = false
		default:
		}
		snapshot := s.SnapshotAsOf(s.RecentFloor() + 50)
		for shard := range opts.Shards {
			audit, err := snapshot.Recompute(t.Context(), shard)
			if err != nil {
				t.Fatal(err)
			}
			if audit.Tree != audit.Rows || len(audit.Wrong) > 0 || audit.Tree != snapshot.Root(shard) {
				t.Fatalf("as of %v, shard %d: %+v", snapshot.AsOf(), shard, audit)
			}
			err = snapshot.Rows(under(shard, opts.Shards), func(r *merkle.Row) bool {
				if r.Late {
					late++
				} else if r.Entry.Newest() > snapshot.AsOf() {
					t.Errorf("as of %v, a row of %v is not late", snapshot.AsOf(), r.Entry.Newest())
				}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		shown++
		if err := snapshot.Close(); err != nil {
			t.Fatal(err)
		}
		if !running && late == 0 {
			t.Fatalf("%d snapshots, and no row was ever late", shown)
		}
	}
	t.Logf("%d snapshots, %d late rows", shown, late)
}
