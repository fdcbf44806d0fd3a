package merkle

import (
	"fmt"

	"syntropy/ring"
)

// MaxBits is the length of the path to a single position.
const MaxBits = ring.PositionBits

// Node names a subtree by the path to it: the first Bits bits that the
// positions under it have in common, the last one lowest in Path. The zero Node
// is the root, over all positions.
type Node struct {
	Bits uint8
	Path uint64
}

// NodeAt returns the node that is bits below the root and above a position.
func NodeAt(x ring.Position, bits int) Node {
	return Node{uint8(bits), uint64(x) >> (MaxBits - bits)}
}

// Down returns the i-th of the 2^bits nodes that are bits below n.
func (n Node) Down(bits, i int) Node {
	return Node{n.Bits + uint8(bits), n.Path<<bits | uint64(i)}
}

// Up returns the node that is bits above n.
func (n Node) Up(bits int) Node { return Node{n.Bits - uint8(bits), n.Path >> bits} }

// First returns the least position under n.
func (n Node) First() ring.Position { return ring.Position(n.Path << (MaxBits - n.Bits)) }

// Last returns the greatest position under n.
func (n Node) Last() ring.Position { return n.First() | ring.MaxPosition>>n.Bits }

// Contains reports whether x is under n.
func (n Node) Contains(x ring.Position) bool { return uint64(x)>>(MaxBits-n.Bits) == n.Path }

// Above reports whether o is n or under n.
func (n Node) Above(o Node) bool { return o.Bits >= n.Bits && o.Path>>(o.Bits-n.Bits) == n.Path }

// Valid reports whether n names a node at all.
func (n Node) Valid() bool { return n.Bits <= MaxBits && n.Path>>n.Bits == 0 }

// String prints the path, a hex digit for each four bits and a binary one for
// each that is left over, behind a dot; empty for the root.
func (n Node) String() string {
	if n.Bits == 0 {
		return ""
	}
	text, rest := "", n.Bits%4
	if n.Bits >= 4 {
		text = fmt.Sprintf("%0*x", n.Bits/4, n.Path>>rest)
	}
	if rest > 0 {
		text += fmt.Sprintf(".%0*b", rest, n.Path&(1<<rest-1))
	}
	return text
}
