package merkle_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"pgregory.net/rapid"

	"syntropy/merkle"
	"syntropy/ring"
)

var hasher = merkle.NewHasher([32]byte{1})

// slowTree is the obvious tree: a sorted list of entries, summed anew for every
// question. Several entries may share a position.
type slowTree []slowEntry

type slowEntry struct {
	x   ring.Position
	sum merkle.Sum
}

func (s slowTree) sort() {
	sort.Slice(s, func(i, j int) bool { return s[i].x < s[j].x })
}

func (s slowTree) digest(n merkle.Node) (d merkle.Digest) {
	first, _ := slices.BinarySearchFunc(s, n.First(), func(e slowEntry, x ring.Position) int { return cmp.Compare(e.x, x) })
	for _, e := range s[first:] {
		if e.x > n.Last() {
			break
		}
		d = d.Plus(merkle.DigestOf(e.x, e.sum))
	}
	return d
}

// leaves returns the leaves from the left to the right, which have to cover the
// root's positions without a gap.
func leaves(t interface{ Fatalf(string, ...any) }, tree *merkle.Tree) (out []merkle.Node) {
	root := tree.Under()
	for x := root.First(); x <= root.Last(); {
		leaf := tree.Leaf(x)
		if leaf.First() != x || !tree.IsLeaf(leaf) || !root.Above(leaf) || tree.Leaf(leaf.Last()) != leaf {
			t.Fatalf("the leaf above %v is %q, from %v to %v", x, leaf, leaf.First(), leaf.Last())
		}
		if tree.IsLeaf(leaf.Down(1, 0)) || leaf != root && tree.IsLeaf(leaf.Up(1)) {
			t.Fatalf("a leaf above a leaf at %q", leaf)
		}
		out = append(out, leaf)
		x = leaf.Last() + 1
	}
	if uint64(len(out)) != tree.Leaves() {
		t.Fatalf("%d leaves, the tree says %d", len(out), tree.Leaves())
	}
	return out
}

// check compares a tree with the list: the root, every leaf, and the nodes bits
// below each node of some, or all, of those above the leaves.
func (s slowTree) check(t interface{ Fatalf(string, ...any) }, tree *merkle.Tree, nodes []merkle.Node) {
	root := tree.Under()
	if got, want := tree.Root(), s.digest(root); got != want {
		t.Fatalf("the root is %v, want %v", got, want)
	}
	leafOf := make(map[merkle.Node]bool)
	for _, leaf := range leaves(t, tree) {
		leafOf[leaf] = true
		if got, want := tree.LeafSyndrome(leaf), s.digest(leaf).Syndrome; got != want {
			t.Fatalf("leaf %q is %v, want %v", leaf, got, want)
		}
	}
	for _, n := range nodes {
		for bits := range 6 {
			if int(n.Bits)+bits > merkle.MaxBits {
				break
			}
			dst := make([]merkle.Syndrome, 1<<bits)
			ok := tree.Syndromes(n, bits, dst)
			want := true
			for i := range dst {
				c := n.Down(bits, i)
				want = want && tree.Leaf(c.First()).Bits >= c.Bits
				if ok && dst[i] != s.digest(c).Syndrome {
					t.Fatalf("node %q, %d below %q, is %v, want %v", c, bits, n, dst[i], s.digest(c).Syndrome)
				}
			}
			if ok != want {
				t.Fatalf("%d bits below %q: %v, with the leaves at %d bits", bits, n, ok, tree.Leaf(n.First()).Bits)
			}
			sums := make([]merkle.Syndrome, 1<<bits)
			summer := merkle.NewSummer(n, bits, sums)
			for _, e := range s {
				if n.Contains(e.x) {
					summer.Add(e.x, e.sum.Fingerprint(0))
				}
			}
			if ok && !slices.Equal(dst, sums) {
				t.Fatalf("%d bits below %q: the tree has %v, rows add up to %v", bits, n, dst, sums)
			}
		}
	}
}

// roots are the roots of trees of a shard, of several numbers of shards.
func rootOf(shard, shards int) merkle.Node {
	return merkle.Node{Bits: uint8(ring.ShardBits(shards)), Path: uint64(shard)}
}

var roots = rapid.Custom(func(t *rapid.T) merkle.Node {
	shards := rapid.SampledFrom([]int{1, 2, 64, 256, ring.Slots}).Draw(t, "shards")
	return rootOf(rapid.IntRange(0, shards-1).Draw(t, "shard"), shards)
})

// fit splits and merges until nothing is due, as a store does.
func (s slowTree) fit(t interface{ Fatalf(string, ...any) }, tree *merkle.Tree) {
	for {
		if leaf, due := tree.SplitDue(); due {
			before := tree.Leaves()
			if !tree.IsLeaf(leaf) {
				t.Fatalf("%q is to be split and no leaf", leaf)
			}
			tree.Split(s.digest(leaf.Down(1, 0)).Syndrome)
			if tree.Leaves() != before+1 || !tree.IsLeaf(leaf.Down(1, 0)) || !tree.IsLeaf(leaf.Down(1, 1)) {
				t.Fatalf("%q was not split", leaf)
			}
		} else if leaf, due := tree.MergeDue(); due {
			tree.Merge()
			if !tree.IsLeaf(leaf) {
				t.Fatalf("%q was to be a leaf", leaf)
			}
		} else {
			return
		}
	}
}

// TestTreeAgainstTheObvious writes, splits and merges at random, and compares the
// tree, and every snapshot and fork on the way, with a list.
func TestTreeAgainstTheObvious(t *testing.T) {
	type pair struct {
		*merkle.Tree
		model slowTree
	}
	rapid.Check(t, func(t *rapid.T) {
		root, leafKeys := roots.Draw(t, "root"), rapid.IntRange(1, 3).Draw(t, "leaf keys")
		now := pair{merkle.NewTree(root, leafKeys), nil}
		var others []pair // snapshots, and forks that are not written to for now
		frozen := make(map[*merkle.Tree]bool)
		// Positions of all depths: spread over the root, crowded at a place, and
		// its first and last.
		draw := func(t *rapid.T) ring.Position {
			x := positions.Draw(t, "position")
			if rapid.IntRange(0, 3).Draw(t, "crowd") == 0 {
				x = ring.Position(rapid.IntRange(0, 15).Draw(t, "offset")) + ring.MaxPosition/3
			}
			return root.First() | x&(ring.MaxPosition>>root.Bits)
		}
		nodes := func(t *rapid.T) (out []merkle.Node) {
			out = []merkle.Node{root}
			for range 4 {
				down := rapid.IntRange(0, min(12, merkle.MaxBits-int(root.Bits))).Draw(t, "down")
				out = append(out, merkle.NodeAt(draw(t), int(root.Bits)+down))
			}
			return out
		}
		add := func(t *rapid.T) {
			x, sum := draw(t), sums.Draw(t, "hash")
			now.Adjust(x, merkle.DigestOf(x, sum))
			now.model = append(slices.Clone(now.model), slowEntry{x, sum})
			now.model.sort()
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": add,
			"add many": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "entries") {
					add(t)
				}
			},
			"replace": func(t *rapid.T) {
				if len(now.model) == 0 {
					return
				}
				now.model = slices.Clone(now.model)
				e := &now.model[rapid.IntRange(0, len(now.model)-1).Draw(t, "entry")]
				sum := sums.Draw(t, "hash")
				now.Adjust(e.x, merkle.DigestOf(e.x, sum).Minus(merkle.DigestOf(e.x, e.sum)))
				e.sum = sum
			},
			"remove": func(t *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(t, "entries") {
					if len(now.model) == 0 {
						return
					}
					i := rapid.IntRange(0, len(now.model)-1).Draw(t, "entry")
					e := now.model[i]
					now.Adjust(e.x, merkle.Digest{}.Minus(merkle.DigestOf(e.x, e.sum)))
					now.model = slices.Delete(slices.Clone(now.model), i, i+1)
				}
			},
			"split": func(t *rapid.T) {
				if leaf, due := now.SplitDue(); due {
					now.Split(now.model.digest(leaf.Down(1, 0)).Syndrome)
				}
			},
			"merge": func(t *rapid.T) {
				if _, due := now.MergeDue(); due {
					now.Merge()
				}
			},
			"fit": func(t *rapid.T) {
				now.model.fit(t, now.Tree)
				if n, l := uint64(len(now.model)), now.Leaves(); n > l*uint64(leafKeys) || l > 1 && 4*n < l*uint64(leafKeys) {
					t.Fatalf("%d leaves for %d entries, it was to be one for %d", l, n, leafKeys)
				}
			},
			"snapshot": func(t *rapid.T) {
				s := now.Snapshot()
				if s.Snapshot() != s {
					t.Fatal("a snapshot of a snapshot is another one")
				}
				frozen[s] = true
				others = append(others, pair{s, now.model})
			},
			"fork": func(t *rapid.T) {
				// The fork goes on and the tree stands still, or the other way
				// round.
				fork := pair{now.Fork(), now.model}
				if rapid.Bool().Draw(t, "take it") {
					now, fork = fork, now
				}
				others = append(others, fork)
			},
			"go on from another": func(t *rapid.T) {
				if len(others) == 0 {
					return
				}
				o := rapid.SampledFrom(others).Draw(t, "other")
				if frozen[o.Tree] || rapid.Bool().Draw(t, "fork it") {
					now = pair{o.Fork(), o.model}
					return
				}
				i := slices.IndexFunc(others, func(p pair) bool { return p.Tree == o.Tree })
				others[i], now = now, others[i]
			},
			"load": func(t *rapid.T) {
				// A tree brought back from its leaves is the same tree.
				loaded := merkle.NewTreeOf(root, leafKeys, now.Leaves())
				for _, leaf := range leaves(t, now.Tree) {
					loaded.Load(leaf, now.LeafSyndrome(leaf))
				}
				loaded.AdjustTotals(now.Root().Sum, now.Root().Count)
				now.model.check(t, loaded, nodes(t))
				now.Tree = loaded
			},
			"": func(t *rapid.T) {
				now.model.check(t, now.Tree, nodes(t))
				if len(others) > 6 {
					others = others[1:]
				}
				for _, o := range others {
					o.model.check(t, o.Tree, []merkle.Node{root})
				}
			},
		})
	})
}

// TestTreeGrowsAndShrinks takes trees through several levels and back, with the
// levels above the leaves that are kept, and looks at every node on the way.
func TestTreeGrowsAndShrinks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, tc := range []struct{ leafKeys, entries int }{{1, 2000}, {3, 3500}, {merkle.DefaultLeafKeys, 40_000}} {
		t.Run(fmt.Sprintf("%d entries, %d a leaf", tc.entries, tc.leafKeys), func(t *testing.T) {
			root := rootOf(5, 16)
			tree := merkle.NewTree(root, tc.leafKeys)
			var model slowTree
			look := func() {
				t.Helper()
				model.sort()
				model.fit(t, tree)
				nodes := []merkle.Node{root, root.Down(1, 1), root.Down(3, 2), root.Down(4, 0), root.Down(5, 31), root.Down(8, 200)}
				if tc.entries < 10_000 { // every node down to below the leaves
					for bits := 0; int(root.Bits)+bits <= int(tree.Leaf(root.First()).Bits); bits++ {
						for i := range 1 << bits {
							nodes = append(nodes, root.Down(bits, i))
						}
					}
				}
				model.check(t, tree, nodes)
			}
			// The model is too slow to split with from the list at each step, so
			// entries come and go in steps.
			for step := range 8 {
				for range tc.entries / 8 {
					e := slowEntry{root.First() + ring.Position(rng.Uint64()>>4)>>root.Bits, merkle.Sum{Hi: rng.Uint64(), Lo: rng.Uint64()}}
					tree.Adjust(e.x, merkle.DigestOf(e.x, e.sum))
					model = append(model, e)
				}
				if step%3 == 0 || step == 7 {
					look()
				}
			}
			for len(model) > 0 {
				rng.Shuffle(len(model), func(i, j int) { model[i], model[j] = model[j], model[i] })
				keep := len(model) / 5
				for _, e := range model[keep:] {
					tree.Adjust(e.x, merkle.Digest{}.Minus(merkle.DigestOf(e.x, e.sum)))
				}
				model = model[:keep]
				look()
			}
			if tree.Leaves() != 1 || tree.Root() != (merkle.Digest{}) {
				t.Errorf("what is left: %d leaves, %v", tree.Leaves(), tree.Root())
			}
		})
	}
}

// TestTreesOfAnyDepthCompare: two replicas with leaves of different sizes have
// the same syndromes wherever both have any.
func TestTreesOfAnyDepthCompare(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	var model slowTree
	root := rootOf(1, 2)
	trees := []*merkle.Tree{merkle.NewTree(root, 1), merkle.NewTree(root, 7), merkle.NewTree(root, 72)}
	for range 1000 {
		e := slowEntry{root.First() + ring.Position(rng.Uint64()>>4)>>root.Bits, merkle.Sum{Hi: rng.Uint64(), Lo: rng.Uint64()}}
		model = append(model, e)
		for _, tree := range trees {
			tree.Adjust(e.x, merkle.DigestOf(e.x, e.sum))
		}
	}
	model.sort()
	for _, tree := range trees {
		model.fit(t, tree)
	}
	compared := 0
	for bits := range 11 {
		for i := range 1 << bits {
			n := root.Down(bits, i)
			var a, b [2]merkle.Syndrome
			if !trees[0].Syndromes(n, 1, a[:]) {
				continue
			}
			for _, other := range trees[1:] {
				if other.Syndromes(n, 1, b[:]) {
					compared++
					if a != b {
						t.Errorf("below %q: %v and %v", n, a, b)
					}
				}
			}
		}
	}
	if compared < 100 {
		t.Errorf("%d nodes compared", compared)
	}
}

// TestDepthIsBounded: a tree does not split below single positions.
func TestDepthIsBounded(t *testing.T) {
	root := merkle.NodeAt(77<<8, merkle.MaxBits-3)
	tree := merkle.NewTree(root, 1)
	var model slowTree
	for i := range 100 {
		e := slowEntry{root.First() + ring.Position(i%8), merkle.Sum{Hi: uint64(i+1) << 32}}
		tree.Adjust(e.x, merkle.DigestOf(e.x, e.sum))
		model = append(model, e)
	}
	model.sort()
	model.fit(t, tree)
	if n := tree.Leaves(); n != 4 {
		t.Errorf("%d leaves for 8 positions", n)
	}
	model.check(t, tree, []merkle.Node{root})
}

func TestSnapshotsRefuseWrites(t *testing.T) {
	tree := merkle.NewTree(merkle.Node{}, 1)
	for i := range ring.Position(9) {
		tree.Adjust(i, merkle.DigestOf(i, merkle.Sum{Hi: 99}))
	}
	s := tree.Snapshot()
	for name, write := range map[string]func(){
		"Adjust":       func() { s.Adjust(0, merkle.Digest{Count: 1}) },
		"Load":         func() { s.Load(merkle.Node{}, merkle.Syndrome{1}) },
		"AdjustTotals": func() { s.AdjustTotals(merkle.Sum{Lo: 1}, 1) },
		"Split":        func() { s.Split(merkle.Syndrome{}) },
		"Merge":        func() { s.Merge() },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s writes to a snapshot", name)
				}
			}()
			write()
		}()
	}
	if s.Root() != tree.Root() || s.Leaves() != 1 {
		t.Error("a refused write left something behind")
	}
}

// TestSnapshotsAreReadWhileTheTreeIsWritten belongs to -race: no page is written
// to that a snapshot shows.
func TestSnapshotsAreReadWhileTheTreeIsWritten(t *testing.T) {
	tree := merkle.NewTree(merkle.Node{}, 1)
	rng := rand.New(rand.NewPCG(2, 2))
	var model slowTree
	done := make(chan struct{})
	const rounds = 40
	for range rounds {
		snapshot, then := tree.Snapshot(), slices.Clone(model)
		go func() {
			defer func() { done <- struct{}{} }()
			var got [4]merkle.Syndrome
			for i := range 4 {
				got[i] = then.digest(merkle.Node{Bits: 2, Path: uint64(i)}).Syndrome
			}
			var dst [4]merkle.Syndrome
			if snapshot.Syndromes(merkle.Node{}, 2, dst[:]) && dst != got || snapshot.Root() != then.digest(merkle.Node{}) {
				t.Errorf("a snapshot of %d entries changed", len(then))
			}
		}()
		for range 25 {
			e := slowEntry{ring.Position(rng.Uint64() >> 4), merkle.Sum{Hi: rng.Uint64()}}
			tree.Adjust(e.x, merkle.DigestOf(e.x, e.sum))
			model = append(model, e)
		}
		model.sort()
		model.fit(t, tree)
	}
	for range rounds {
		<-done
	}
}

// TestRowFingerprint: a late row that was not there before has nothing to add.
func TestRowFingerprint(t *testing.T) {
	if f := (merkle.Row{Late: true}).Fingerprint(3); f != 0 {
		t.Errorf("no hash has the fingerprint %d", f)
	}
	s := merkle.Sum{Hi: 1 << 40, Lo: 5}
	if f := (merkle.Row{Sum: s}).Fingerprint(3); f != s.Fingerprint(3) {
		t.Errorf("%d", f)
	}
}
