package reconcile

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// held is a row as a test keeps it.
type held struct {
	x ring.Position
	e lww.Entry
	s merkle.Sum
}

func rowsOf(r *Replica, first, last ring.Position) (rows []held) {
	r.Rows(first, last, func(x ring.Position, e lww.Entry, s merkle.Sum) bool {
		rows = append(rows, held{x, e.Clone(), s})
		return true
	})
	return rows
}

func drawWorkload(t *rapid.T) Workload {
	keys := rapid.IntRange(0, 600).Draw(t, "keys")
	return Workload{
		Keys:       keys,
		Diverged:   rapid.IntRange(0, keys).Draw(t, "diverged"),
		Case:       rapid.SampledFrom(Cases()).Draw(t, "case"),
		Shards:     1 << rapid.IntRange(0, 5).Draw(t, "shard bits"),
		Seed:       rapid.Uint64().Draw(t, "seed"),
		ValueBytes: rapid.IntRange(1, 40).Draw(t, "value bytes"),
	}
}

// TestTruth compares the two replicas key by key, and knows what a row must be.
func TestTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorkload(t)
		a, b := Generate(w)
		byKey := func(r *Replica) map[string]held {
			m := make(map[string]held)
			var before *held
			for _, h := range rowsOf(r, 0, ring.MaxPosition) {
				if want := ring.At(ring.ShardOf(ring.Slot(h.e.Key), w.Shards), r.tokens.Of(h.e.Key), w.Shards); h.x != want || r.Position(h.e.Key) != want {
					t.Fatalf("%s is at %v, not at %v", h.e.Key, h.x, want)
				}
				if before != nil && (before.x > h.x || before.x == h.x && bytes.Compare(before.e.Key, h.e.Key) >= 0) {
					t.Fatalf("%s comes before %s", before.e.Key, h.e.Key)
				}
				if h.s != r.Hasher().Entry(h.e) {
					t.Fatalf("%s has a hash that is not its own", h.e.Key)
				}
				if age := hlc.FromTime(Now).Sub(h.e.Stamp); age < 3*time.Hour || age > 96*time.Hour {
					t.Fatalf("%s was written %v ago", h.e.Key, age)
				}
				if len(h.e.Value) != w.ValueBytes || h.e.Node < 1 || h.e.Node > 3 || h.e.Validate() != nil {
					t.Fatalf("an entry that no node writes: %+v", h.e)
				}
				before, m[string(h.e.Key)] = &h, h
			}
			if len(m) != r.Len() {
				t.Fatalf("Len is %d, there are %d rows", r.Len(), len(m))
			}
			return m
		}
		inA, inB := byKey(a), byKey(b)
		all := maps.Clone(inA)
		maps.Copy(all, inB)
		if len(all) != w.Keys {
			t.Fatalf("%d different keys, not %d", len(all), w.Keys)
		}
		count := make(map[kind]int)
		var truth []ring.Position
		for key, h := range all {
			ha, okA := inA[key]
			hb, okB := inB[key]
			switch {
			case !okA:
				count[missingA]++
			case !okB:
				count[missingB]++
			case lww.Compare(ha.e, hb.e) == 0:
				continue
			case ha.e.Stamp > hb.e.Stamp:
				count[newerA]++
			case ha.e.Stamp < hb.e.Stamp:
				count[newerB]++
			default:
				t.Fatalf("%s has two versions of one stamp", key)
			}
			truth = append(truth, h.x)
		}
		slices.Sort(truth)
		if !slices.Equal(truth, a.Truth()) || !slices.Equal(truth, b.Truth()) || len(truth) != w.Diverged {
			t.Fatalf("the replicas differ at %v, the truth is %v", truth, a.Truth())
		}
		switch w.Case {
		case Stale:
			if count[newerA] != w.Diverged {
				t.Fatalf("kinds %v", count)
			}
		case Missing:
			if count[missingB] != w.Diverged {
				t.Fatalf("kinds %v", count)
			}
		default:
			for k := range kinds {
				if n := count[k]; n != w.Diverged/4 && n != (w.Diverged+3)/4 {
					t.Fatalf("kinds %v of %d", count, w.Diverged)
				}
			}
		}
		if w.Case == Neighbours && len(truth) > 0 {
			between := 0
			for _, h := range all {
				if h.x >= truth[0] && h.x <= truth[len(truth)-1] {
					between++
				}
			}
			if between != len(truth) {
				t.Fatalf("%d rows lie between the %d that differ", between-len(truth), len(truth))
			}
		}
	})
}

func TestRowsOfARange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := Generate(drawWorkload(t))
		for _, r := range []*Replica{a, b} {
			all := rowsOf(r, 0, ring.MaxPosition)
			bound := func(name string) ring.Position {
				if len(all) > 0 && rapid.Bool().Draw(t, name+" is a row") {
					return all[rapid.IntRange(0, len(all)-1).Draw(t, name)].x
				}
				return ring.Position(rapid.Uint64Range(0, uint64(ring.MaxPosition)).Draw(t, name))
			}
			first, last := bound("first"), bound("last")
			var want []held
			for _, h := range all {
				if h.x >= first && h.x <= last {
					want = append(want, h)
				}
			}
			got := rowsOf(r, first, last)
			if len(got) != len(want) || r.count(first, max(first, last)) < len(want) {
				t.Fatalf("%d rows from %v to %v, not %d", len(got), first, last, len(want))
			}
			for i := range got {
				if got[i].x != want[i].x || !bytes.Equal(got[i].e.Key, want[i].e.Key) || got[i].s != want[i].s {
					t.Fatalf("row %d from %v is %s, not %s", i, first, got[i].e.Key, want[i].e.Key)
				}
			}
			stopped := 0
			r.Rows(first, last, func(ring.Position, lww.Entry, merkle.Sum) bool { stopped++; return false })
			if stopped != min(1, len(want)) {
				t.Fatalf("%d rows were visited after the visitor had enough", stopped)
			}
		}
	})
}

// TestKeysAreUsedAgain: replicas of the same keys do not get in each other's way.
func TestKeysAreUsedAgain(t *testing.T) {
	w := Workload{Keys: 5000, Shards: 4, Seed: 3}
	keys := NewKeys(w)
	before, _ := keys.Diverge(5000, Missing)
	x := before.Truth()[0]
	before.Tree(0).Adjust(x, merkle.DigestOf(x, merkle.Sum{Hi: 1 << 40}))
	got, gotB := keys.Diverge(100, Mixed)
	w.Diverged, w.Case = 100, Mixed
	want, wantB := Generate(w)
	for shard := range w.Shards {
		if got.Tree(shard).Root() != want.Tree(shard).Root() || gotB.Tree(shard).Root() != wantB.Tree(shard).Root() {
			t.Errorf("shard %d differs from that of other keys of the same seed", shard)
		}
	}
	if !slices.Equal(got.Truth(), want.Truth()) {
		t.Error("other keys differ")
	}
}

// TestTree compares with a tree that every row was written to, one by one.
func TestTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorkload(t)
		a, b := Generate(w)
		for _, r := range []*Replica{a, b} {
			for shard := range w.Shards {
				tree := r.Tree(shard)
				if tree != r.Tree(shard) {
					t.Fatal("a tree was built twice")
				}
				if leaf, due := tree.SplitDue(); due {
					t.Fatalf("leaf %v is to be split", leaf)
				}
				if tree.Leaves() > 1 && tree.Root().Count <= merkle.DefaultLeafKeys*(tree.Leaves()-1) {
					t.Fatalf("%d leaves for %d rows", tree.Leaves(), tree.Root().Count)
				}
				slow := merkle.NewTreeOf(tree.Under(), 0, tree.Leaves())
				for _, h := range rowsOf(r, tree.Under().First(), tree.Under().Last()) {
					slow.Adjust(h.x, merkle.DigestOf(h.x, h.s))
				}
				if tree.Root() != slow.Root() {
					t.Fatalf("shard %d: root %v, want %v", shard, tree.Root(), slow.Root())
				}
				for x, ok := tree.Under().First(), true; ok; {
					leaf := slow.Leaf(x)
					if tree.LeafSyndrome(leaf) != slow.LeafSyndrome(leaf) {
						t.Fatalf("shard %d: leaf %v differs", shard, leaf)
					}
					x, ok = leaf.Last()+1, leaf.Last() < tree.Under().Last()
				}
			}
		}
	})
}

func TestTheSeedDecides(t *testing.T) {
	w := Workload{Keys: 500, Diverged: 40, Seed: 7}
	a, b := Generate(w)
	a2, b2 := Generate(w)
	print := func(r *Replica) string { return fmt.Sprint(rowsOf(r, 0, ring.MaxPosition)) }
	if print(a) != print(a2) || print(b) != print(b2) {
		t.Error("one seed made two workloads")
	}
	w.Seed++
	a2, _ = Generate(w)
	if print(a) == print(a2) {
		t.Error("two seeds made one workload")
	}
}

func TestWorkloadsThatCannotBe(t *testing.T) {
	for _, w := range []Workload{
		{Keys: -1}, {Keys: 1, Diverged: 2}, {Keys: 1, Diverged: -1}, {Case: "odd"}, {Shards: 3}, {Shards: 2 * ring.Slots}, {ValueBytes: -1},
	} {
		if w.Validate() == nil {
			t.Errorf("%+v is said to be valid", w)
		}
	}
}

// BenchmarkRows is the floor under every peer: making and hashing a row.
func BenchmarkRows(b *testing.B) {
	r, _ := Generate(Workload{Keys: 100_000})
	for b.Loop() {
		r.Rows(0, ring.MaxPosition, func(ring.Position, lww.Entry, merkle.Sum) bool { return true })
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(r.Len()), "ns/row")
}
