package storagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// Options are those of the suite's stores: few shards and small leaves, so that
// a handful of keys makes trees of some depth, checkpoints after few writes, and
// room for few versions.
var Options = storage.Options{Shards: 4, Secret: [32]byte{1, 2, 3}, LeafKeys: 2, CheckpointWrites: 30, VersionBytes: 1 << 13}

func runStore(t *testing.T, open func(t *testing.T) EngineUnderTest) {
	for _, tc := range []struct {
		name string
		test func(t *testing.T, e EngineUnderTest)
	}{
		{"an entry is applied, unchanged or shadowed", storeOutcomes},
		{"index and counts move with the entry", storeIndex},
		{"a reopened store has its trees without reading data", storeReopen},
		{"the trees follow the count", storeGrowth},
		{"a snapshot shows data and trees of one moment", storeSnapshot},
		{"recomputing finds what is wrong", storeRecompute},
		{"a store is opened only with its own options", storeOptions},
		{"leaves and totals that cannot be are not passed over", storeDamaged},
		{"malformed entries change nothing", storeMalformed},
		{"forgetting deletes brings them back", storePhysicalDelete},
		{"without sync a crash loses the end, Sync keeps it", storeNoSync},
		{"entries are scanned in the order of their tokens", storeScan},
		{"meta rows are durable and beside the data", storeMeta},
		{"a shard is loaded as a whole", storeLoad},
		{"a closed store takes nothing", storeClosed},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, open(t)) })
	}
}

func openStore(t testing.TB, e storage.Engine, opts storage.Options) *storage.Store {
	t.Helper()
	s, err := storage.Open(e, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func apply(t testing.TB, s *storage.Store, entries ...lww.Entry) []storage.Result {
	t.Helper()
	results, err := s.Apply(entries)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(entries) {
		t.Fatalf("%d results for %d entries", len(results), len(entries))
	}
	return results
}

func value(key string, stamp hlc.Stamp, text string) lww.Entry {
	return lww.Entry{Key: []byte(key), Value: []byte(text), Version: lww.Version{Stamp: stamp, Node: 1}}
}

func tombstone(key string, stamp hlc.Stamp) lww.Entry {
	return lww.Entry{Key: []byte(key), Version: lww.Version{Stamp: stamp, Node: 1, Tombstone: true}}
}

func expiring(e lww.Entry, stamp hlc.Stamp, expires int64) lww.Entry {
	e.ExpiryStamp, e.ExpiryNode, e.Expires = stamp, 1, expires
	return e
}

// RandomEntry draws an entry of a small domain: a key of the given number of
// keys, stamps of 1<<20 to 60<<20 that collide, tombstones, expiries before,
// amid, after and very far after them.
func RandomEntry(rng *rand.Rand, keys int) lww.Entry {
	e := value(fmt.Sprintf("key%d", rng.IntN(keys)), hlc.Stamp(1+rng.IntN(50))<<20, strings.Repeat("v", rng.IntN(4)))
	e.Node = hlc.NodeID(1 + rng.IntN(2))
	if rng.IntN(4) == 0 {
		e.Tombstone, e.Value = true, nil
	}
	if !e.Tombstone && rng.IntN(3) == 0 {
		e = expiring(e, hlc.Stamp(1+rng.IntN(60))<<20, []int64{0, 1, 5, 1 << 40, 1 << 43, math.MaxInt64}[rng.IntN(6)])
	}
	return e
}

func storeOutcomes(t *testing.T, e EngineUnderTest) {
	s := openStore(t, e, Options)
	if r := apply(t, s); len(r) != 0 {
		t.Fatal("nothing has an outcome")
	}
	const applied, unchanged, shadowed = storage.Applied, storage.Unchanged, storage.Shadowed
	first, second := value("k", 1, "a"), value("k", 2, "b")
	gone := tombstone("k", 3)
	third := value("k", 4, "c")
	touched := expiring(third, 9, 1<<40)
	for i, step := range []struct {
		offers []lww.Entry
		want   []storage.Outcome
		holds  lww.Entry
	}{
		{[]lww.Entry{first}, []storage.Outcome{applied}, first},
		{[]lww.Entry{first}, []storage.Outcome{unchanged}, first},
		{[]lww.Entry{second}, []storage.Outcome{applied}, second},
		{[]lww.Entry{first}, []storage.Outcome{shadowed}, second},
		{[]lww.Entry{value("k", 2, "a")}, []storage.Outcome{shadowed}, second}, // a tie: the greater value
		{[]lww.Entry{gone}, []storage.Outcome{applied}, gone},
		{[]lww.Entry{second, gone}, []storage.Outcome{shadowed, unchanged}, gone},
		// The same key several times in one call: each meets what the one
		// before left.
		{[]lww.Entry{third, first, third, touched, third}, []storage.Outcome{applied, shadowed, unchanged, applied, shadowed}, touched},
		{[]lww.Entry{value("k", 5, "d"), tombstone("k", 6), value("k", 7, "e")}, []storage.Outcome{applied, applied, applied}, value("k", 7, "e")},
		{[]lww.Entry{tombstone("k", 9), value("k", 8, "f")}, []storage.Outcome{applied, shadowed}, tombstone("k", 9)},
	} {
		results := apply(t, s, step.offers...)
		for j, r := range results {
			if r.Outcome != step.want[j] {
				t.Errorf("step %d, offer %d: %v, want %v", i, j, r.Outcome, step.want[j])
			}
			if r.Outcome != shadowed && r.Version != step.offers[j].Version {
				t.Errorf("step %d, offer %d: %v, but the store is said to hold %+v", i, j, r.Outcome, r.Version)
			}
		}
		if last := results[len(results)-1]; last.Version != step.holds.Version {
			t.Errorf("step %d: the store is said to hold %+v", i, last.Version)
		}
		got, found, err := s.Get([]byte("k"))
		if err != nil || !found || lww.Compare(got, step.holds) != 0 || string(got.Key) != "k" {
			t.Fatalf("step %d: the store holds %+v, %v, %v", i, got, found, err)
		}
		Check(t, e, s, Options)
	}
	if _, found, err := s.Get([]byte("absent")); found || err != nil {
		t.Errorf("a key never written: %v, %v", found, err)
	}
	// The entries stay the caller's, and what Get returns is the caller's too.
	mine := value("mine", 1, "value")
	apply(t, s, mine)
	copy(mine.Value, "xxxxx")
	got, _, _ := s.Get([]byte("mine"))
	copy(got.Value, "yyyyy")
	if got, _, _ = s.Get([]byte("mine")); string(got.Value) != "value" {
		t.Errorf("the store holds %q", got.Value)
	}
}

func storeIndex(t *testing.T, e EngineUnderTest) {
	s := openStore(t, e, Options)
	index := func() (n int) {
		Check(t, e, s, Options)
		return len(rowsOf(t, e, []byte("g"), []byte("h")))
	}
	for i, step := range []struct {
		offer                    lww.Entry
		index, tombstones, total int
	}{
		{value("k", 1, "a"), 0, 0, 1},
		{expiring(value("k", 1, "a"), 2, 1<<40), 1, 0, 1},
		{expiring(value("k", 1, "a"), 3, 1<<41), 1, 0, 1}, // moves
		{expiring(value("k", 1, "a"), 4, 1<<41), 1, 0, 1}, // stays where it is
		{expiring(value("k", 1, "a"), 5, 0), 0, 0, 1},     // PERSIST
		{expiring(value("k", 1, "a"), 6, math.MaxInt64), 1, 0, 1},
		{tombstone("k", 7), 1, 1, 1},
		{tombstone("k", 8), 1, 1, 1},
		{tombstone("l", 8), 2, 2, 2},
		{value("k", 9, "b"), 1, 1, 2},
	} {
		apply(t, s, step.offer)
		if n, st := index(), s.Stats(); n != step.index || st.Tombstones != uint64(step.tombstones) || st.Entries != uint64(step.total) {
			t.Errorf("step %d: %d index rows, %+v; want %+v", i, n, st, step)
		}
	}
	rng := Rand(t)
	for range 60 {
		var offers []lww.Entry
		for range rng.IntN(8) {
			offers = append(offers, RandomEntry(rng, 20))
		}
		apply(t, s, offers...)
		index()
	}
}

func storeReopen(t *testing.T, e EngineUnderTest) {
	rng := Rand(t)
	s := openStore(t, e, Options)
	for range 40 {
		apply(t, s, RandomEntry(rng, 100), RandomEntry(rng, 100))
	}
	before, stats := rootsOf(s), s.Stats()
	if stats.Entries == 0 || stats.Tombstones == 0 {
		t.Fatalf("nothing to reopen: %+v", stats)
	}
	e = e.Crash(t)

	reads := 0
	isData := func(k []byte) bool { return len(k) == 0 || k[0] == 'd' }
	watched := &Intercept{Engine: e.Engine,
		OnGet: func(k []byte) error {
			if isData(k) {
				reads++
			}
			return nil
		},
		OnScan: func(lower, upper []byte) error {
			if string(lower) < "e" && string(upper) > "d" {
				reads++
			}
			return nil
		},
	}
	s = openStore(t, watched, Options)
	if got := rootsOf(s); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("roots %v, before %v", got, before)
	}
	if got := s.Stats(); got != stats {
		t.Errorf("%+v, before %+v", got, stats)
	}
	if reads != 0 {
		t.Errorf("opening read data %d times", reads)
	}
	// The watch itself works.
	_ = s.Scan(0, 0, func(ring.Token, lww.Entry) bool { return false })
	_, _, _ = s.Get([]byte("k"))
	if reads != 2 {
		t.Errorf("a scan and a get were seen as %d reads", reads)
	}
	Check(t, e, s, Options)

}

// storeGrowth: the trees have the leaves that the counts ask for, after writes
// one by one, after one large write, and soon after the store was opened with
// another number of entries for each.
func storeGrowth(t *testing.T, e EngineUnderTest) {
	opts := Options
	s := openStore(t, e, opts)
	suits := func(when string) {
		t.Helper()
		Check(t, e, s, opts)
		for shard := range opts.Shards {
			entries, leaves := int(rootsOf(s)[shard].Count), len(Leaves(s, shard))
			if entries > opts.LeafKeys*leaves || leaves > 1 && 4*entries < opts.LeafKeys*leaves {
				t.Errorf("%s: shard %d has %d leaves for %d entries, it was to have one for %d", when, shard, leaves, entries, opts.LeafKeys)
			}
		}
	}
	n := 0
	write := func() lww.Entry {
		n++
		return value(fmt.Sprintf("key%d", n), 1, "v")
	}
	for range 100 {
		apply(t, s, write())
	}
	suits("one by one")
	var many []lww.Entry
	for range 500 {
		many = append(many, write())
	}
	apply(t, s, many...)
	suits("many at once")
	for round, keys := range []int{1, 40, 3} {
		opts.LeafKeys = keys
		s = openStore(t, e, opts)
		Check(t, e, s, opts) // the old tree, as good as any
		for i := range 800 {
			apply(t, s, value(fmt.Sprintf("key%d", 1+i%200), hlc.Stamp(2+round*1000+i), "w"))
		}
		suits(fmt.Sprintf("opened with %d", keys))
	}
	e = e.Crash(t)
	s = openStore(t, e, opts)
	Check(t, e, s, opts)

	opts.PhysicalDelete = true
	s = openStore(t, e, opts)
	for i := range n {
		apply(t, s, tombstone(fmt.Sprintf("key%d", i+1), 1<<30))
		if i%50 == 0 {
			suits("deleting")
		}
	}
	suits("all deleted")
	if st := s.Stats(); st.Entries != 0 {
		t.Errorf("%+v", st)
	}
	Check(t, e, openStore(t, e, opts), opts)
}

func rootsOf(s *storage.Store) (roots []merkle.Digest) {
	snapshot := s.Snapshot()
	defer snapshot.Close()
	for shard := range snapshot.Shards() {
		roots = append(roots, snapshot.Root(shard))
	}
	return roots
}

func storeSnapshot(t *testing.T, e EngineUnderTest) {
	s := openStore(t, e, Options)
	var stop atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	for w := range 2 {
		rng := rand.New(rand.NewPCG(uint64(w), 1))
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				// Two keys, mostly of two shards, always with one stamp.
				a, b := tombstone("a", hlc.Stamp(i+1)), tombstone("b", hlc.Stamp(i+1))
				a.Node, b.Node = hlc.NodeID(w+1), hlc.NodeID(w+1)
				if _, err := s.Apply([]lww.Entry{a, RandomEntry(rng, 50), b}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 15 {
		snapshot := s.Snapshot()
		first, second := survey(t, snapshot), survey(t, snapshot)
		if first != second {
			t.Fatalf("a snapshot changed:\n%s\n%s", first, second)
		}
		if err := snapshot.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// survey checks a snapshot against itself, from the rows up, and returns what
// it shows as text.
func survey(t *testing.T, s *storage.Snapshot) string {
	t.Helper()
	var text strings.Builder
	pair := make(map[string]lww.Version)
	for shard := range s.Shards() {
		audit, err := s.Recompute(context.Background(), shard)
		if err != nil {
			t.Fatal(err)
		}
		if len(audit.Wrong) > 0 || audit.Tree != audit.Rows || audit.Tree != s.Root(shard) {
			t.Fatalf("shard %d: trees and rows are of two moments: %+v", shard, audit)
		}
		fmt.Fprintf(&text, "%d: %v", shard, audit.Tree)
		var sum merkle.Digest
		under := merkle.Node{Bits: uint8(ring.ShardBits(s.Shards())), Path: uint64(shard)}
		err = s.Rows(under, func(r *merkle.Row) bool {
			if at, _ := s.Locate(r.Entry.Key); at != shard || s.Position(r.Entry.Key) != r.Position || s.Sum(r.Entry) != r.Sum || r.Late {
				t.Fatalf("key %q does not belong into shard %d: %+v", r.Entry.Key, shard, r)
			}
			sum = sum.Plus(merkle.DigestOf(r.Position, r.Sum))
			if len(r.Entry.Key) == 1 {
				pair[string(r.Entry.Key)] = r.Entry.Version
			}
			return true
		})
		if err != nil || sum != audit.Tree {
			t.Fatalf("shard %d: rows add up to %v, %v", shard, sum, err)
		}
		// The halves of a node, stored at the root and scanned below the leaves,
		// add up to it all the way down to a single position.
		for n, d := under, audit.Tree.Syndrome; !d.IsZero() && n.Bits < merkle.MaxBits; {
			var stored, scanned [2]merkle.Syndrome
			sum := merkle.NewSummer(n, 1, scanned[:])
			err := s.Rows(n, func(r *merkle.Row) bool {
				if !n.Contains(r.Position) {
					t.Fatalf("position %v is not under node %q", r.Position, n)
				}
				sum.Add(r.Position, r.Fingerprint(0))
				return true
			})
			if err != nil || scanned[0].Plus(scanned[1]) != d {
				t.Fatalf("shard %d: the rows under %q add up to %v, it is %v (%v)", shard, n, scanned, d, err)
			}
			if s.Syndromes(n, 1, stored[:]) && stored != scanned {
				t.Fatalf("shard %d: the halves of %q are %v, the rows add up to %v", shard, n, stored, scanned)
			}
			i := 0
			if scanned[0].IsZero() {
				i = 1
			}
			n, d = n.Down(1, i), scanned[i]
		}
	}
	if pair["a"] != pair["b"] {
		t.Fatalf("a snapshot shows half of a write: %v", pair)
	}
	return text.String()
}

// storePhysicalDelete shows why a delete must be data: without a tombstone, a
// late copy of the old write finds nothing that is newer than it.
func storePhysicalDelete(t *testing.T, e EngineUnderTest) {
	opts := Options
	opts.PhysicalDelete = true
	s := openStore(t, e, opts)
	old := value("k", 1, "v")
	apply(t, s, old, value("stays", 1, "v"))
	apply(t, s, tombstone("k", 2), tombstone("never there", 2), expiring(value("e", 1, "v"), 1, 1<<40), tombstone("e", 2))
	if _, found, _ := s.Get([]byte("k")); found {
		t.Error("the key is still there")
	}
	if st := s.Stats(); st.Entries != 1 || st.Tombstones != 0 {
		t.Errorf("%+v", st)
	}
	Check(t, e, s, opts)
	if r := apply(t, s, old); r[0].Outcome != storage.Applied {
		t.Errorf("the old write is %v: nothing remembers the delete", r[0].Outcome)
	}
	// Within one call too.
	apply(t, s, tombstone("k", 3), value("k", 1, "again"), tombstone("stays", 5))
	Check(t, e, s, opts)
	if got, found, _ := s.Get([]byte("k")); !found || string(got.Value) != "again" {
		t.Errorf("the store holds %+v, %v", got, found)
	}
}

func storeNoSync(t *testing.T, e EngineUnderTest) {
	rng := Rand(t)
	opts := Options
	opts.NoSync = true
	sure := make(map[string]lww.Entry)
	for life := range 6 {
		s := openStore(t, e, opts)
		held := Check(t, e, s, opts)
		for key, entry := range sure {
			if lww.Compare(held[key], entry) < 0 {
				t.Fatalf("life %d: %q was synced as %+v, now it is %+v", life, key, entry, held[key])
			}
		}
		for range 1 + rng.IntN(20) {
			apply(t, s, RandomEntry(rng, 30), RandomEntry(rng, 30))
		}
		if life%2 == 0 {
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			sure = Check(t, e, s, opts)
		}
		apply(t, s, RandomEntry(rng, 30))
		if life == 4 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			sure = nil
			for key, entry := range Check(t, e, s, opts) {
				if sure == nil {
					sure = make(map[string]lww.Entry)
				}
				sure[key] = entry
			}
		}
		e = e.Crash(t)
	}
}

func storeScan(t *testing.T, e EngineUnderTest) {
	s := openStore(t, e, Options)
	want := make(map[string]bool)
	for i := range 60 {
		key := fmt.Sprintf("key%d", i)
		want[key] = true
		switch i % 3 {
		case 0:
			apply(t, s, tombstone(key, 1))
		case 1:
			apply(t, s, expiring(value(key, 1, "v"), 1, 1))
		default:
			apply(t, s, value(key, 1, "v"))
		}
	}
	for shard := range s.Shards() {
		var seen []ring.Token
		err := s.Scan(shard, 0, func(token ring.Token, e lww.Entry) bool {
			if at, tok := s.Locate(e.Key); at != shard || tok != token {
				t.Errorf("key %q in shard %d under token %v", e.Key, shard, token)
			}
			if len(seen) > 0 && seen[len(seen)-1] > token {
				t.Errorf("token %v after %v", token, seen[len(seen)-1])
			}
			seen = append(seen, token)
			if !want[string(e.Key)] {
				t.Errorf("key %q was not written, or visited twice", e.Key)
			}
			delete(want, string(e.Key))
			return true
		})
		if err != nil || len(seen) < 3 {
			t.Fatalf("shard %d: %d entries, %v", shard, len(seen), err)
		}
		// From a token on, that token included, and one after it excluded.
		for from, expect := range map[ring.Token]int{seen[1]: len(seen) - 1, seen[1] + 1: len(seen) - 2, ring.MaxToken: 0, seen[len(seen)-1]: 1} {
			n := 0
			if err := s.Scan(shard, from, func(ring.Token, lww.Entry) bool { n++; return true }); err != nil || n != expect {
				t.Errorf("shard %d from %v: %d entries, %v; want %d", shard, from, n, err, expect)
			}
		}
		n := 0
		if err := s.Scan(shard, 0, func(ring.Token, lww.Entry) bool { n++; return n < 2 }); err != nil || n != 2 {
			t.Errorf("a scan stopped at the second entry visited %d, %v", n, err)
		}
	}
	if len(want) > 0 {
		t.Errorf("never visited: %v", want)
	}
}

func storeMeta(t *testing.T, e EngineUnderTest) {
	s := openStore(t, e, Options)
	if _, found, err := s.Meta("cut"); found || err != nil {
		t.Errorf("before it was put: %v, %v", found, err)
	}
	for i := range 3 {
		if err := s.PutMeta("cut", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	Check(t, e, s, Options)
	if st := s.Stats(); st.Entries != 0 {
		t.Errorf("meta counts as data: %+v", st)
	}
	s = openStore(t, e.Crash(t), Options)
	if v, found, err := s.Meta("cut"); string(v) != "2" || !found || err != nil {
		t.Errorf("after a crash: %q, %v, %v", v, found, err)
	}
}

func storeClosed(t *testing.T, e EngineUnderTest) {
	s := openStore(t, e, Options)
	apply(t, s, value("k", 1, "v"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := all(t, e)
	if _, err := s.Apply([]lww.Entry{value("k", 2, "w")}); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
	if err := s.PutMeta("m", nil); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("PutMeta after Close: %v", err)
	}
	if err := s.Sync(); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Sync after Close: %v", err)
	}
	if err := s.Close(); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
	if got := all(t, e); !maps.Equal(got, before) {
		t.Error("a closed store was written to")
	}
	Check(t, e, openStore(t, e, Options), Options)
}
