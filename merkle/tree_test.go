package merkle_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// slowTree is the obvious tree: the digests of all entries, summed anew for
// every question.
type slowTree map[string]merkle.Digest

var (
	tokens = ring.NewTokens([32]byte{1})
	hasher = merkle.NewHasher([32]byte{1})
)

// tokenOf spreads a handful of keys so that some share tokens, leaves and pages
// and others do not.
func tokenOf(key string) ring.Token {
	t := tokens.Of([]byte(key))
	switch key[0] % 3 {
	case 0: // crowd into one leaf of any level
		t = t&0xff | 0x123456789abc<<8
	case 1: // share a token
		t = ring.MaxToken
	}
	return t
}

func (s slowTree) digest(n merkle.Node) (sum merkle.Digest) {
	for key, d := range s {
		t := tokenOf(key)
		if n.First() <= t && t <= n.Last() {
			sum = sum.Plus(d)
		}
	}
	return sum
}

// interesting returns, of every level up to deepest, the nodes above the
// entries, their neighbours and the first and the last node.
func (s slowTree) interesting(deepest int) map[merkle.Node]bool {
	nodes := make(map[merkle.Node]bool)
	for level := range deepest + 1 {
		add := func(path uint64) {
			if n := (merkle.Node{Level: uint8(level), Path: path}); n.Valid() {
				nodes[n] = true
			}
		}
		add(0)
		add(1<<(4*level) - 1)
		for key := range s {
			path := merkle.NodeOf(tokenOf(key), level).Path
			add(path - 1)
			add(path)
			add(path + 1)
		}
	}
	return nodes
}

func (s slowTree) check(t *rapid.T, name string, tree *merkle.Tree) {
	for n := range s.interesting(tree.LeafLevel()) {
		if got, ok := tree.Digest(n); !ok || got != s.digest(n) {
			t.Fatalf("%s: node %q has %v, its entries add up to %v", name, n, got, s.digest(n))
		}
		children, ok := tree.Children(n)
		if want := int(n.Level) < tree.LeafLevel(); ok != want {
			t.Fatalf("%s: node %q has stored children: %v, leaf level %d", name, n, ok, tree.LeafLevel())
		}
		scanned, err := merkle.ChildrenByScan(n, func(visit func(ring.Token, merkle.Digest)) error {
			for key, d := range s {
				if token := tokenOf(key); n.Contains(token) {
					visit(token, d)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, d := range scanned {
			if d != s.digest(n.Child(i)) {
				t.Fatalf("%s: child %x of %q by scan: %v, want %v", name, i, n, d, s.digest(n.Child(i)))
			}
			if ok && children[i] != d {
				t.Fatalf("%s: child %x of %q is stored as %v, by scan %v", name, i, n, children[i], d)
			}
		}
	}
	if got := tree.Root(); got != s.digest(merkle.Node{}) {
		t.Fatalf("%s: root %v, want %v", name, got, s.digest(merkle.Node{}))
	}
	if _, ok := tree.Digest(merkle.Node{Level: uint8(tree.LeafLevel() + 1)}); ok {
		t.Fatalf("%s: a digest below the leaves", name)
	}
}

// TestTreeAgainstTheObvious runs random writes and removals on trees of two leaf
// levels at once. At any moment both equal the sums over all entries (I5), and
// every snapshot, and snapshot of a snapshot, still equals the entries of its
// own moment.
func TestTreeAgainstTheObvious(t *testing.T) {
	type frozen struct {
		name    string
		tree    *merkle.Tree
		entries slowTree
	}
	keys := make([]string, 30)
	for i := range keys {
		keys[i] = fmt.Sprintf("%ckey%d", 'a'+i%26, i)
	}
	rapid.Check(t, func(t *rapid.T) {
		levels := [2]int{}
		var trees [2]*merkle.Tree
		for i := range trees {
			levels[i] = rapid.IntRange(0, merkle.MaxLeafLevel-1).Draw(t, "leaf level")
			trees[i] = merkle.New(levels[i])
			if trees[i].LeafLevel() != levels[i] {
				t.Fatal("the leaf level is another one")
			}
		}
		entries := slowTree{}
		var snapshots []frozen
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				key := rapid.SampledFrom(keys).Draw(t, "key")
				d := hasher.Entry(lww.Entry{Key: []byte(key), Version: lww.Version{Stamp: 1}, Value: []byte{rapid.Byte().Draw(t, "value")}})
				for _, tree := range trees {
					tree.Adjust(tokenOf(key), d, entries[key])
				}
				entries[key] = d
			},
			"remove": func(t *rapid.T) {
				key := rapid.SampledFrom(keys).Draw(t, "key")
				for _, tree := range trees {
					tree.Adjust(tokenOf(key), merkle.Digest{}, entries[key])
				}
				delete(entries, key)
			},
			"snapshot": func(t *rapid.T) {
				if len(snapshots) >= 6 {
					return
				}
				i := rapid.IntRange(0, 1).Draw(t, "tree")
				name := fmt.Sprintf("snapshot %d", len(snapshots))
				snapshots = append(snapshots, frozen{name, trees[i].Snapshot(), maps.Clone(entries)})
			},
			"snapshot of a snapshot": func(t *rapid.T) {
				if len(snapshots) == 0 || len(snapshots) >= 6 {
					return
				}
				s := rapid.SampledFrom(snapshots).Draw(t, "of")
				snapshots = append(snapshots, frozen{s.name + "'", s.tree.Snapshot(), s.entries})
			},
			"forget": func(t *rapid.T) { snapshots = nil },
			"check": func(t *rapid.T) {
				for i, tree := range trees {
					entries.check(t, fmt.Sprintf("tree %d", i), tree)
				}
				for _, s := range snapshots {
					s.entries.check(t, s.name, s.tree)
				}
			},
			"": func(t *rapid.T) {
				// Unequal leaf levels, equal digests wherever both have one.
				for n := range entries.interesting(min(levels[0], levels[1])) {
					a, _ := trees[0].Digest(n)
					b, _ := trees[1].Digest(n)
					if a != b {
						t.Fatalf("node %q: %v with leaf level %d, %v with %d", n, a, levels[0], b, levels[1])
					}
				}
			},
		})
	})
}

// TestEmptyAgainIsZero: what was added and taken away leaves no trace.
func TestEmptyAgainIsZero(t *testing.T) {
	tree := merkle.New(3)
	var key [8]byte
	digests := make(map[ring.Token]merkle.Digest)
	for i := range 500 {
		binary.BigEndian.PutUint64(key[:], uint64(i))
		token := tokens.Of(key[:])
		digests[token] = hasher.Entry(lww.Entry{Key: key[:], Version: lww.Version{Stamp: 1}})
		tree.Adjust(token, digests[token], merkle.Digest{})
	}
	if got := tree.Root().Count; got != 500 {
		t.Fatalf("%d entries", got)
	}
	for token, d := range digests {
		tree.Adjust(token, merkle.Digest{}, d)
	}
	for path := range uint64(1) << 12 {
		if d, _ := tree.Digest(merkle.Node{Level: 3, Path: path}); d != (merkle.Digest{}) {
			t.Fatalf("leaf %03x is %v", path, d)
		}
	}
	if tree.Root() != (merkle.Digest{}) {
		t.Fatalf("the root is %v", tree.Root())
	}
}

// TestSnapshotsSharePages: a snapshot costs pointers, and the first write after
// it copies one page a level, the second none. Measured by allocations.
func TestSnapshotsSharePages(t *testing.T) {
	tree := merkle.New(4) // 65,536 leaves in 256 pages, 1.5 MiB
	one := hasher.Entry(lww.Entry{Key: []byte("k"), Version: lww.Version{Stamp: 1}})
	for path := range uint64(1) << 16 {
		tree.Adjust(merkle.Node{Level: 4, Path: path}.First(), one, merkle.Digest{})
	}
	token := tokens.Of([]byte("k"))
	if n := testing.AllocsPerRun(100, func() { tree.Adjust(token, one, one) }); n != 0 {
		t.Errorf("a write allocates %v times", n)
	}
	var kept *merkle.Tree
	if n := testing.AllocsPerRun(100, func() { kept = tree.Snapshot() }); n > 2+5 {
		t.Errorf("a snapshot allocates %v times", n)
	}
	// Five levels; a page is its head and its digests.
	if n := testing.AllocsPerRun(100, func() { kept = tree.Snapshot(); tree.Adjust(token, one, one) }); n > 2+5+5*2 {
		t.Errorf("a snapshot and a write allocate %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { tree.Adjust(token, one, one) }); n != 0 {
		t.Errorf("the second write after a snapshot allocates %v times", n)
	}
	_ = kept
}

// TestSnapshotsAreReadWhileTheTreeIsWritten belongs to -race: no page is
// written to that a snapshot shows.
func TestSnapshotsAreReadWhileTheTreeIsWritten(t *testing.T) {
	tree := merkle.New(2)
	one := merkle.Digest{Sum: merkle.Sum{Lo: 1}, Count: 1}
	write := func() {
		for path := range uint64(256) {
			tree.Adjust(merkle.Node{Level: 2, Path: path}.First(), one, merkle.Digest{})
		}
	}
	done := make(chan struct{})
	const rounds = 50
	for round := range rounds {
		snapshot := tree.Snapshot()
		go func() {
			defer func() { done <- struct{}{} }()
			for path := range uint64(256) {
				if d, _ := snapshot.Digest(merkle.Node{Level: 2, Path: path}); d.Count != uint64(round) {
					t.Errorf("snapshot %d shows leaf %02x with %d entries", round, path, d.Count)
					return
				}
			}
			if got := snapshot.Root().Count; got != uint64(round)*256 {
				t.Errorf("snapshot %d shows %d entries", round, got)
			}
		}()
		write()
	}
	for range rounds {
		<-done
	}
}

// TestNodes: the sixteen children of a node divide its range of tokens without
// gap or overlap, and a node contains exactly the tokens of its range.
func TestNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := ring.Token(rapid.Uint64Max(uint64(ring.MaxToken)).Draw(t, "token"))
		level := rapid.IntRange(0, merkle.MaxLevel).Draw(t, "level")
		n := merkle.NodeOf(token, level)
		if !n.Valid() || !n.Contains(token) || token < n.First() || token > n.Last() {
			t.Fatalf("node %q of token %v: %v to %v", n, token, n.First(), n.Last())
		}
		if n.String() != token.String()[:level] {
			t.Fatalf("node %q of token %v at level %d", n, token, level)
		}
		if first := n.First(); first > 0 && n.Contains(first-1) {
			t.Fatalf("node %q contains what is before it", n)
		}
		if last := n.Last(); last < ring.MaxToken && n.Contains(last+1) {
			t.Fatalf("node %q contains what is after it", n)
		}
		if level == merkle.MaxLevel {
			if n.First() != token || n.Last() != token {
				t.Fatalf("the node of a token is %v to %v", n.First(), n.Last())
			}
			return
		}
		next := n.First()
		for i := range merkle.Fanout {
			c := n.Child(i)
			if !c.Valid() || c.First() != next || c.Last() < c.First() {
				t.Fatalf("child %x of %q is %v to %v, want from %v", i, n, c.First(), c.Last(), next)
			}
			next = c.Last() + 1
		}
		if next != n.Last()+1 {
			t.Fatalf("the children of %q end at %v, it at %v", n, next-1, n.Last())
		}
		if n.Child(token.Nibble(level)) != merkle.NodeOf(token, level+1) {
			t.Fatal("the nibble leads elsewhere")
		}
	})
	root := merkle.Node{}
	if root.First() != 0 || root.Last() != ring.MaxToken || root.String() != "" {
		t.Errorf("the root is %v to %v", root.First(), root.Last())
	}
	for _, bad := range []merkle.Node{{Level: 0, Path: 1}, {Level: 1, Path: 16}, {Level: 15, Path: 1 << 60}, {Level: 16}, {Level: 255}} {
		if bad.Valid() {
			t.Errorf("%+v is valid", bad)
		}
	}
}

func TestNewRefusesLeafLevels(t *testing.T) {
	for _, level := range []int{-1, merkle.MaxLeafLevel + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a tree of leaf level %d", level)
				}
			}()
			merkle.New(level)
		}()
	}
}

func TestChildrenByScanPassesErrorsOn(t *testing.T) {
	rotten := errors.New("rotten")
	_, err := merkle.ChildrenByScan(merkle.Node{}, func(func(ring.Token, merkle.Digest)) error { return rotten })
	if !errors.Is(err, rotten) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkWrite shows the price of keeping the tree: adjusting it (tree)
// beside hashing the one entry that is written (hash).
func BenchmarkWrite(b *testing.B) {
	entry := lww.Entry{Key: []byte("user:00001234"), Value: make([]byte, 100), Version: lww.Version{Stamp: 1, Node: 1}}
	d := hasher.Entry(entry)
	b.Run("hash", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			hasher.Entry(entry)
		}
	})
	for _, level := range []int{2, 4} {
		b.Run(fmt.Sprintf("tree/level=%d", level), func(b *testing.B) {
			tree := merkle.New(level)
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				tree.Adjust(ring.Token(i*0x9e3779b97f4a7c15>>4), d, merkle.Digest{})
			}
		})
	}
	b.Run("snapshot/level=4", func(b *testing.B) {
		tree := merkle.New(4)
		for i := range uint64(1 << 16) {
			tree.Adjust(merkle.Node{Level: 4, Path: i}.First(), d, merkle.Digest{})
		}
		b.ReportAllocs()
		for b.Loop() {
			tree.Snapshot()
		}
	})
}
