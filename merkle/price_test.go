package merkle_test

import (
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// grown returns trees of shards that hold n entries at even distances, with the
// leaves that these ask for.
func grown(n, shards int) (trees []*merkle.Tree) {
	for shard := range shards {
		root := rootOf(shard, shards)
		leaves := uint64(max(1, (n/shards+merkle.DefaultLeafKeys-1)/merkle.DefaultLeafKeys))
		tree := merkle.NewTreeOf(root, 0, leaves)
		for i := range uint64(n / shards) {
			x := root.First() + ring.Position(i)*(ring.MaxPosition>>root.Bits/ring.Position(n/shards))
			tree.Adjust(x, merkle.DigestOf(x, merkle.Sum{Hi: i<<8 | 8}))
		}
		trees = append(trees, tree)
	}
	return trees
}

// TestMemory holds the trees to their price: about half a byte an entry. A tree
// that has just come through a split of its levels is no larger than others.
func TestMemory(t *testing.T) {
	for _, n := range []int{1_000_000, 1_180_000, 700_000} {
		tree := grown(n, 1)[0]
		if _, due := tree.SplitDue(); due {
			t.Fatal("the tree is not grown")
		}
		per := float64(tree.Bytes()) / float64(n)
		t.Logf("%d entries, %d leaves: %.3f bytes an entry", n, tree.Leaves(), per)
		if per > 0.55 {
			t.Errorf("%d entries take %.3f bytes each", n, per)
		}
	}
	total := 0
	for _, tree := range grown(1_000_000, 256) {
		total += tree.Bytes()
	}
	t.Logf("1000000 entries in 256 shards: %.3f bytes an entry", float64(total)/1e6)
}

// The price of keeping the tree, BenchmarkAdjust, is to be compared with that of
// hashing the one entry that is written, BenchmarkEntryHash.

func BenchmarkAdjust(b *testing.B) {
	tree := grown(1_000_000, 1)[0]
	old, d := merkle.Sum{Hi: 1 << 50}, merkle.Sum{Hi: 1 << 51}
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		x := ring.Position(i*0x9e3779b97f4a7c15) >> 4
		tree.Adjust(x, merkle.DigestOf(x, d).Minus(merkle.DigestOf(x, old)))
	}
}

func BenchmarkEntryHash(b *testing.B) {
	entry := lww.Entry{Key: []byte("user:00001234"), Value: make([]byte, 100), Version: lww.Version{Stamp: 1, Node: 1}}
	b.ReportAllocs()
	for b.Loop() {
		hasher.Entry(entry)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	tree := grown(1_000_000, 1)[0]
	b.ReportAllocs()
	for b.Loop() {
		tree.Snapshot()
	}
}

func BenchmarkDecode(b *testing.B) {
	s := merkle.SyndromeOf(1<<50, 77).Plus(merkle.SyndromeOf(1<<51, 78))
	for b.Loop() {
		if _, n, _ := s.Decode(merkle.Node{}); n != 2 {
			b.Fatal(n)
		}
	}
}
