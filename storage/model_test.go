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

// offers draws entries of few keys and few stamps, so that ties, repetitions
// and late arrivals are the rule.
var offers = rapid.Custom(func(t *rapid.T) lww.Entry {
	e := lww.Entry{Key: []byte(rapid.SampledFrom([]string{"a", "b", "c", "{a}b", "dd", "\x00", "\xff\xff"}).Draw(t, "key"))}
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
			Shards:    1 << rapid.IntRange(0, 3).Draw(t, "log shards"),
			LeafLevel: rapid.IntRange(1, 3).Draw(t, "leaf level"),
			NoSync:    rapid.Bool().Draw(t, "no sync"),
		}
		hasher := merkle.NewHasher(opts.Secret)
		engine := memstore.New()
		var s *storage.Store
		reopen := func() {
			var err error
			if s, err = storage.Open(engine, opts); err != nil {
				t.Fatal(err)
			}
		}
		reopen()
		held, durable := model{}, model{}
		var snapshots []frozen

		check := func(t *rapid.T, snapshot *storage.Snapshot, m model) {
			want := make([]merkle.Digest, opts.Shards)
			for _, e := range m {
				shard := ring.ShardOf(ring.Slot(e.Key), opts.Shards)
				want[shard] = want[shard].Plus(hasher.Entry(e))
			}
			seen := 0
			for shard := range opts.Shards {
				if got := snapshot.Root(shard); got != want[shard] {
					t.Fatalf("shard %d: root %v, want %v", shard, got, want[shard])
				}
				err := snapshot.Rows(shard, merkle.Node{}, func(_ ring.Token, e lww.Entry, d merkle.Digest) bool {
					seen++
					if w, ok := m[string(e.Key)]; !ok || lww.Compare(e, w) != 0 || d != hasher.Entry(w) {
						t.Fatalf("a row %+v, want %+v", e, w)
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
