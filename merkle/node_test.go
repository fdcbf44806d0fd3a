package merkle_test

import (
	"testing"

	"pgregory.net/rapid"

	"syntropy/merkle"
	"syntropy/ring"
)

var positions = rapid.OneOf(
	rapid.Map(rapid.Uint64Max(uint64(ring.MaxPosition)), func(x uint64) ring.Position { return ring.Position(x) }),
	rapid.SampledFrom([]ring.Position{0, 1, 2, ring.MaxPosition, ring.MaxPosition - 1, 1 << 59, 1<<59 - 1}),
)

// TestNodes: the nodes below a node divide its range of positions without gap or
// overlap, and a node contains exactly the positions of its range.
func TestNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := positions.Draw(t, "position")
		bits := rapid.IntRange(0, merkle.MaxBits).Draw(t, "bits")
		n := merkle.NodeAt(x, bits)
		if !n.Valid() || !n.Contains(x) || x < n.First() || x > n.Last() || !n.Above(n) {
			t.Fatalf("node %q of position %v: %v to %v", n, x, n.First(), n.Last())
		}
		if n.Last()-n.First() != ring.MaxPosition>>bits {
			t.Fatalf("node %q holds %v to %v", n, n.First(), n.Last())
		}
		if bits%4 == 0 && n.String() != x.String()[:bits/4] {
			t.Fatalf("node %q of position %v at %d bits", n, x, bits)
		}
		if first := n.First(); first > 0 && n.Contains(first-1) {
			t.Fatalf("node %q contains what is before it", n)
		}
		if last := n.Last(); last < ring.MaxPosition && n.Contains(last+1) {
			t.Fatalf("node %q contains what is after it", n)
		}
		down := rapid.IntRange(0, min(5, merkle.MaxBits-bits)).Draw(t, "down")
		next := n.First()
		for i := range 1 << down {
			c := n.Down(down, i)
			if !c.Valid() || c.First() != next || c.Last() < c.First() || c.Up(down) != n || !n.Above(c) || c.Above(n) != (down == 0) {
				t.Fatalf("node %d of those %d below %q is %v to %v, want from %v", i, down, n, c.First(), c.Last(), next)
			}
			if c.Contains(x) != (c == merkle.NodeAt(x, bits+down)) {
				t.Fatalf("%q contains %v: %v", c, x, c.Contains(x))
			}
			next = c.Last() + 1
		}
		if next != n.Last()+1 {
			t.Fatalf("the nodes below %q end at %v, it at %v", n, next-1, n.Last())
		}
	})
	root := merkle.Node{}
	if root.First() != 0 || root.Last() != ring.MaxPosition || !root.Valid() {
		t.Errorf("the root is %v to %v", root.First(), root.Last())
	}
	for _, bad := range []merkle.Node{{Bits: 0, Path: 1}, {Bits: 1, Path: 2}, {Bits: 60, Path: 1 << 60}, {Bits: 61}, {Bits: 255}} {
		if bad.Valid() {
			t.Errorf("%+v is valid", bad)
		}
	}
	for n, want := range map[merkle.Node]string{
		{}: "", {Bits: 1, Path: 1}: ".1", {Bits: 3, Path: 2}: ".010", {Bits: 4, Path: 10}: "a",
		{Bits: 8, Path: 10}: "0a", {Bits: 6, Path: 0b0101_10}: "5.10", {Bits: 9, Path: 0x0f << 1}: "0f.0",
	} {
		if n.String() != want {
			t.Errorf("%#v is written %q, want %q", n, n.String(), want)
		}
	}
}
