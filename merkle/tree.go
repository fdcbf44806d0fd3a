// Package merkle keeps the digest of every subtree of a shard, exact after each
// write, without ever rebuilding a tree.
//
// # Problem
//
// Two replicas hold millions of entries and want to know where they differ.
// Comparing all of them costs O(n). A tree of digests finds d differing entries
// by comparing O(d log n) nodes, but a tree that is rebuilt from the data is
// stale or late, and one that lags behind the data reports differences that are
// none.
//
// # Idea
//
// The digest of a node is the *sum* of the digests of its entries ([Sum], 128
// bits, keyed). To write an entry is to subtract the old digest and add the new
// one along one path; no sibling is read and no order matters. Digests can be
// summed at any level, so trees of different depth compare, and below the
// stored leaves the digest of a node is summed from a short scan of its rows.
//
// A node is named by its path from the root: [Node]. The path of an entry is its
// token. The 16 children of a node are the 16 possible next nibbles.
//
//	level 0                root                    all tokens
//	level 1        0  1  2  ...  e  f              tokens that begin with 0, 1, ...
//	level 2     00 .. 0f   ...   f0 .. ff          the leaves of a tree of leaf level 2
//
// The tree itself keeps no entries and reads no disk: the store adjusts it in
// the same critical section in which it commits a write, and persists the
// leaves in the same batch.
//
// # Caveats
//
// A [Tree] is not safe for concurrent use, but a [Tree.Snapshot] is, and does
// not change any more. Additive digests rest on the secrecy of the hash key:
// whoever knows it can construct entries that cancel each other.
package merkle

import (
	"fmt"

	"syntropy/ring"
)

// Fanout is the number of children of a node.
const Fanout = 16

// MaxLevel is the level at which a node is a single token.
const MaxLevel = ring.TokenNibbles

// MaxLeafLevel bounds the leaves that a tree stores: 16^5 leaves of one shard
// are 25 MiB.
const MaxLeafLevel = 5

// Node names a subtree by its path: Level nibbles, the last one lowest in Path.
// The zero Node is the root.
type Node struct {
	Level uint8
	Path  uint64
}

// NodeOf returns the node of a level above a token.
func NodeOf(t ring.Token, level int) Node {
	return Node{uint8(level), uint64(t) >> (ring.TokenBits - 4*level)}
}

// Child returns the i-th child.
func (n Node) Child(i int) Node { return Node{n.Level + 1, n.Path<<4 | uint64(i)} }

// First and Last are the ends of the range of tokens under n, both inclusive.
func (n Node) First() ring.Token {
	return ring.Token(n.Path << (ring.TokenBits - 4*int(n.Level)))
}

// Last returns the greatest token under n.
func (n Node) Last() ring.Token {
	return n.First() | ring.MaxToken>>(4*int(n.Level))
}

// Contains reports whether t is under n.
func (n Node) Contains(t ring.Token) bool { return NodeOf(t, int(n.Level)) == n }

// Valid reports whether n names a node at all.
func (n Node) Valid() bool {
	return int(n.Level) <= MaxLevel && n.Path < 1<<(4*int(n.Level))
}

// String prints the path, one hex digit a level; empty for the root.
func (n Node) String() string {
	if n.Level == 0 {
		return ""
	}
	return fmt.Sprintf("%0*x", int(n.Level), n.Path)
}

// pageDigests is the unit of copy-on-write: 256 digests, 6 KiB. Smaller pages
// cost more pointers, larger ones more copying for the first write after a
// snapshot.
const pageDigests = 256

// page holds consecutive digests of one level. It may be written only by the
// tree of its own epoch; every other tree that points to it shares it.
type page struct {
	epoch   uint64
	digests []Digest
}

// Tree holds the digests of all nodes from the root to its leaf level. Pages
// that hold only zeros are not allocated. Memory is 24 bytes a leaf and a
// sixteenth of that above.
type Tree struct {
	leafLevel int
	epoch     uint64
	frozen    bool // a snapshot
	levels    [][]*page
}

// New returns an empty tree with stored leaves at leafLevel, 0 to MaxLeafLevel.
func New(leafLevel int) *Tree {
	if leafLevel < 0 || leafLevel > MaxLeafLevel {
		panic(fmt.Sprintf("merkle: leaf level %d is not in 0..%d", leafLevel, MaxLeafLevel))
	}
	t := &Tree{leafLevel: leafLevel, levels: make([][]*page, leafLevel+1)}
	for level := range t.levels {
		nodes := 1 << (4 * level)
		t.levels[level] = make([]*page, (nodes+pageDigests-1)/pageDigests)
	}
	return t
}

// LeafLevel returns the level of the stored leaves.
func (t *Tree) LeafLevel() int { return t.leafLevel }

// Leaf returns the stored leaf above a token.
func (t *Tree) Leaf(token ring.Token) Node { return NodeOf(token, t.leafLevel) }

// Adjust adds plus to and subtracts minus from the leaf above a token and every
// node above that: one addition a level.
func (t *Tree) Adjust(token ring.Token, plus, minus Digest) {
	if t.frozen {
		panic("merkle: a snapshot was adjusted")
	}
	for level := range t.levels {
		d := t.slot(NodeOf(token, level))
		*d = d.Plus(plus).Minus(minus)
	}
}

// slot returns a writable digest of a stored node, copying its page if a
// snapshot shares it.
func (t *Tree) slot(n Node) *Digest {
	pages := t.levels[n.Level]
	i := n.Path / pageDigests
	p := pages[i]
	switch {
	case p == nil:
		p = &page{t.epoch, make([]Digest, min(pageDigests, 1<<(4*int(n.Level))))}
		pages[i] = p
	case p.epoch != t.epoch:
		p = &page{t.epoch, append([]Digest(nil), p.digests...)}
		pages[i] = p
	}
	return &p.digests[n.Path%pageDigests]
}

// Digest returns the digest of a node at or above the leaf level; ok is false
// below it, where the caller sums the rows of the node.
func (t *Tree) Digest(n Node) (d Digest, ok bool) {
	if int(n.Level) > t.leafLevel {
		return Digest{}, false
	}
	if p := t.levels[n.Level][n.Path/pageDigests]; p != nil {
		d = p.digests[n.Path%pageDigests]
	}
	return d, true
}

// Root returns the digest of all entries.
func (t *Tree) Root() Digest {
	d, _ := t.Digest(Node{})
	return d
}

// Children returns the digests of the children of a node above the leaf level;
// ok is false at and below it.
func (t *Tree) Children(n Node) (c [Fanout]Digest, ok bool) {
	if int(n.Level) >= t.leafLevel {
		return c, false
	}
	for i := range c {
		c[i], _ = t.Digest(n.Child(i))
	}
	return c, true
}

// Snapshot returns a tree that keeps the present digests. It shares pages with
// t until t writes to them, so taking one costs a pointer a page.
//
// A snapshot of a snapshot is itself. Adjusting one panics.
func (t *Tree) Snapshot() *Tree {
	if t.frozen {
		return t
	}
	s := &Tree{leafLevel: t.leafLevel, epoch: t.epoch, frozen: true, levels: make([][]*page, len(t.levels))}
	for level, pages := range t.levels {
		s.levels[level] = append([]*page(nil), pages...)
	}
	t.epoch++ // every page is shared from here on
	return s
}

// ChildrenByScan sums the digests of the children of n from its rows: scan calls
// its argument for each row under n. It is how nodes below the stored leaves get
// their digests.
func ChildrenByScan(n Node, scan func(visit func(ring.Token, Digest)) error) (c [Fanout]Digest, err error) {
	err = scan(func(t ring.Token, d Digest) {
		i := t.Nibble(int(n.Level))
		c[i] = c[i].Plus(d)
	})
	return c, err
}
