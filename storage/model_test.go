package storage_test

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
	"syntropy/storage/memstore"
)

// modelKeys are few, so that they are written again and again, and enough for a
// tree of some depth.
var modelKeys = []string{"a", "b", "c", "{a}b", "{a}c", "{a}d", "{a}e", "{a}f", "{a}g", "{a}h", "dd", "ee", "ff", "\x00", "\xff\xff"}

// offers draws entries of few keys and few stamps, so that ties, repetitions
// and late arrivals are the rule.
var offers = rapid.Custom(func(t *rapid.T) lww.Entry {
	e := lww.Entry{Key: []byte(rapid.SampledFrom(modelKeys).Draw(t, "key"))}
	e.Stamp = hlc.Stamp(rapid.IntRange(1, 4).Draw(t, "stamp"))
	e.Node = hlc.NodeID(rapid.IntRange(1, 2).Draw(t, "node"))
	e.Tombstone = rapid.IntRange(0, 3).Draw(t, "tombstone") == 0
	if !e.Tombstone {
		e.Value = []byte(rapid.SampledFrom([]string{"", "v", "w"}).Draw(t, "value"))
		if rapid.Bool().Draw(t, "expiry") {
			e.ExpiryStamp = hlc.Stamp(rapid.IntRange(1, 4).Draw(t, "expiry stamp"))
			e.ExpiryNode = 1
			e.Expires = rapid.SampledFrom([]int64{0, 1, 1 << 62}).Draw(t, "expires")
		}
	}
	return e
})

func under(shard, shards int) merkle.Node {
	return merkle.Node{Bits: uint8(ring.ShardBits(shards)), Path: uint64(shard)}
}

// checkTrees compares the trees of a snapshot with sums over what it is to hold,
// the hash of each entry by key: the roots, and the syndromes of nodes above and
// beside the entries, at every depth and several at once.
func checkTrees(t interface{ Fatalf(string, ...any) }, s *storage.Store, snapshot *storage.Snapshot, sums map[string]merkle.Sum) {
	digests := make(map[ring.Position]merkle.Digest)
	for key, sum := range sums {
		x := s.Position([]byte(key))
		digests[x] = digests[x].Plus(merkle.DigestOf(x, sum))
	}
	sum := func(n merkle.Node) (d merkle.Digest) {
		for x, digest := range digests {
			if n.Contains(x) {
				d = d.Plus(digest)
			}
		}
		return d
	}
	for shard := range snapshot.Shards() {
		top := under(shard, snapshot.Shards())
		if got, want := snapshot.Root(shard), sum(top); got != want {
			t.Fatalf("shard %d: root %v, want %v", shard, got, want)
		}
		nodes := map[merkle.Node]bool{top: true}
		for _, key := range modelKeys {
			x := s.Position([]byte(key))
			for depth := 1; top.Contains(x) && depth <= 6; depth++ {
				n := merkle.NodeAt(x, int(top.Bits)+depth)
				nodes[n] = true
				nodes[merkle.Node{Bits: n.Bits, Path: n.Path ^ 1}] = true
			}
		}
		for n := range nodes {
			for _, bits := range []int{0, 1, 3} {
				dst := make([]merkle.Syndrome, 1<<bits)
				if !snapshot.Syndromes(n, bits, dst) {
					if n == top && bits == 0 {
						t.Fatalf("shard %d has no syndrome", shard)
					}
					continue
				}
				for i, got := range dst {
					if want := sum(n.Down(bits, i)).Syndrome; got != want {
						t.Fatalf("node %q is %v, its rows add up to %v", n.Down(bits, i), got, want)
					}
				}
			}
		}
	}
}

// TestStoreAgainstTheObvious compares a store with a map. Snapshots are
// compared with copies of the map taken at the same moment.
func TestStoreAgainstTheObvious(t *testing.T) {
	type model = map[string]lww.Entry
	type frozen struct {
		*storage.Snapshot
		model
	}
	rapid.Check(t, func(t *rapid.T) {
		opts := storage.Options{
			Shards: 1 << rapid.IntRange(0, 3).Draw(t, "log shards"),
			NoSync: rapid.Bool().Draw(t, "no sync"),
		}
		hasher := merkle.NewHasher(opts.Secret)
		engine := memstore.New()
		var s *storage.Store
		reopen := func() {
			var err error
			opts.LeafKeys = rapid.IntRange(1, 3).Draw(t, "leaf keys")
			opts.VersionBytes = rapid.SampledFrom([]int64{-1, 1, 1 << 12}).Draw(t, "version bytes")
			opts.CheckpointWrites = rapid.SampledFrom([]int{1, 3, 10, 100}).Draw(t, "checkpoint writes")
			if s, err = storage.Open(engine, opts); err != nil {
				t.Fatal(err)
			}
		}
		reopen()
		held, durable := model{}, model{}
		var snapshots []frozen

		check := func(t *rapid.T, snapshot *storage.Snapshot, m model) {
			sums := make(map[string]merkle.Sum)
			for key, e := range m {
				sums[key] = hasher.Entry(e)
			}
			checkTrees(t, s, snapshot, sums)
			seen := 0
			for shard := range opts.Shards {
				err := snapshot.Rows(under(shard, opts.Shards), func(r *merkle.Row) bool {
					seen++
					if w, ok := m[string(r.Entry.Key)]; !ok || lww.Compare(r.Entry, w) != 0 || r.Sum != hasher.Entry(w) || r.Late || r.Position != s.Position(r.Entry.Key) {
						t.Fatalf("a row %+v, want %+v", r, w)
					}
					return true
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if seen != len(m) {
				t.Fatalf("%d rows, want %d", seen, len(m))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				batch := rapid.SliceOfN(offers, 0, 8).Draw(t, "offers")
				results, err := s.Apply(batch)
				if err != nil {
					t.Fatal(err)
				}
				for i, e := range batch {
					old, found := held[string(e.Key)]
					want := storage.Applied
					if found {
						switch c := lww.Compare(e, old); {
						case c == 0:
							want = storage.Unchanged
						case c < 0:
							want = storage.Shadowed
						}
					}
					if want == storage.Applied {
						held[string(e.Key)] = e
					}
					if got := results[i]; got.Outcome != want || got.Version != held[string(e.Key)].Version {
						t.Fatalf("offer %d %+v: %+v, want %v", i, e, got, want)
					}
				}
				if !opts.NoSync {
					durable = maps.Clone(held)
				}
			},
			"sync": func(t *rapid.T) {
				if err := s.Sync(); err != nil {
					t.Fatal(err)
				}
				durable = maps.Clone(held)
			},
			"crash": func(*rapid.T) {
				engine = engine.Crash()
				held = maps.Clone(durable)
				reopen()
			},
			"snapshot": func(*rapid.T) {
				if len(snapshots) < 4 {
					snapshots = append(snapshots, frozen{s.Snapshot(), maps.Clone(held)})
				}
			},
			"look": func(t *rapid.T) {
				for _, s := range snapshots {
					check(t, s.Snapshot, s.model)
				}
			},
			"": func(t *rapid.T) {
				var stats storage.Stats
				for key, want := range held {
					got, found, err := s.Get([]byte(key))
					if err != nil || !found || lww.Compare(got, want) != 0 {
						t.Fatalf("Get(%q) is %+v, %v, %v; want %+v", key, got, found, err, want)
					}
					stats.Entries++
					if want.Tombstone {
						stats.Tombstones++
					}
				}
				if _, found, err := s.Get([]byte("never")); found || err != nil {
					t.Fatalf("a key never written: %v, %v", found, err)
				}
				if got := s.Stats(); got != stats {
					t.Fatalf("%+v, want %+v", got, stats)
				}
				seen := make(map[string]bool)
				for shard := range s.Shards() {
					err := s.Scan(shard, 0, func(_ ring.Token, e lww.Entry) bool {
						if seen[string(e.Key)] || lww.Compare(e, held[string(e.Key)]) != 0 {
							t.Fatalf("scanned %+v, want %+v", e, held[string(e.Key)])
						}
						seen[string(e.Key)] = true
						return true
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				if len(seen) != len(held) {
					t.Fatalf("scanned %d entries of %d", len(seen), len(held))
				}
				now := s.Snapshot()
				check(t, now, held)
				if err := now.Close(); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

func TestOutcomeString(t *testing.T) {
	if got := fmt.Sprint(storage.Applied, storage.Unchanged, storage.Shadowed); got != "applied unchanged shadowed" {
		t.Error(got)
	}
}
