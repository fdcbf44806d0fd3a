// Package merkle keeps the digest of every subtree of a shard, exact after each
// write, without ever rebuilding a tree.
//
// # Problem
//
// Two replicas hold millions of entries and want to know where they differ.
// Comparing all of them costs O(n). A tree of digests finds d differing entries
// by comparing O(d log n) nodes, but a tree that is rebuilt from the data is
// stale or late, one that lags behind the data reports differences that are
// none, and one whose digests say only "equal" or "not equal" has to be
// descended, level by level, to every single entry.
//
// # Idea
//
// The digest of a node is a *sum* over its entries. To write an entry is to add
// the change to one leaf; no sibling is read and no order matters. Sums can be
// taken at any level, so trees of different depth compare, and below the stored
// leaves the digest of a node is summed from a short scan of its rows.
//
// The sum is a [Syndrome]: four words that say not only that something differs
// below a node, but, when it is one entry or two, where:
//
//	a's syndrome - b's syndrome = syndrome of what differs
//	                            -> Decode -> the positions, if one or two
//
// So a descent ends as soon as the differences are thinned out, far above the
// leaves, and what it costs does not depend on how many entries agree.
//
// A node is named by its path from the root, [Node], and an entry by its
// position (package ring). The tree of a shard stores a leaf for every 72
// entries or so, whatever their number:
//
//	bits 0         root                   all positions
//	bits 4         0  1  2  ...  f        those that begin with 0, 1, ...
//	...
//	leaves         the first ones split already, the others not yet:
//	               | 00 | 01 | 10 | 11 |   2   |   3   | ...
//
// When the count has grown by another 72, the next leaf is split in two, from
// the left to the right and then again one level lower. This is linear hashing
// (Litwin, 1980) on the leading bits: positions are spread evenly, so it does
// not matter that the leaf that is split is not the one that was written to, and
// neither a write nor a start ever has to wait for a whole tree.
//
// The tree keeps no entries and reads no disk: the store adjusts it in the same
// critical section in which it commits a write, scans the few rows of a leaf
// that is due to be split, and persists the leaves with the rows.
//
// # Caveats
//
// A [Tree] is not safe for concurrent use, but a [Tree.Snapshot] is, and does
// not change any more. Sums rest on the secrecy of the hash key: whoever knows
// it can construct entries that cancel each other.
package merkle

import (
	"fmt"
	"math/bits"
	"sync/atomic"

	"syntropy/lww"
	"syntropy/ring"
)

// DefaultLeafKeys is the number of entries for each stored leaf. Fewer cost
// memory: 32 bytes a leaf and a sixteenth of that above. More cost reading: a
// node below a leaf is summed from a scan of its rows.
const DefaultLeafKeys = 72

// MaxDepth bounds the levels of stored leaves below the root of a tree: a
// billion of them, far more than fit into memory.
const MaxDepth = 30

// innerBits is the distance between the levels above the leaves that are kept
// summed up: a node between two of them is the sum of at most 8 others.
const innerBits = 4

// pageSlots is the unit of copy-on-write: 16 syndromes, 512 bytes. Smaller pages
// cost more pointers, larger ones more copying for the first write after a
// snapshot.
const pageSlots = 16

type page [pageSlots]Syndrome

// layer holds the syndromes of the nodes of one level. A page that was never
// written to is nil.
type layer struct {
	pages  []*page
	epochs []uint64 // of each page: the tree that may write to it
}

func newLayer(nodes uint64) layer {
	n := (nodes + pageSlots - 1) / pageSlots
	return layer{make([]*page, n), make([]uint64, n)}
}

func (l layer) get(i uint64) (s Syndrome) {
	if p := l.pages[i/pageSlots]; p != nil {
		s = p[i%pageSlots]
	}
	return s
}

// slot returns a writable syndrome, copying its page if another tree shares it.
func (l layer) slot(i, epoch uint64) *Syndrome {
	n := i / pageSlots
	switch {
	case l.pages[n] == nil:
		l.pages[n], l.epochs[n] = new(page), epoch
	case l.epochs[n] != epoch:
		copied := *l.pages[n]
		l.pages[n], l.epochs[n] = &copied, epoch
	}
	return &l.pages[n][i%pageSlots]
}

// sum adds up count consecutive syndromes.
func (l layer) sum(first, count uint64) (s Syndrome) {
	for i := first; i < first+count; {
		p := l.pages[i/pageSlots]
		end := min(first+count, (i/pageSlots+1)*pageSlots)
		for ; p != nil && i < end; i++ {
			s = s.Plus(p[i%pageSlots])
		}
		i = end
	}
	return s
}

func (l layer) clone() layer {
	return layer{append([]*page(nil), l.pages...), append([]uint64(nil), l.epochs...)}
}

func (l layer) bytes() (n int) {
	n = 16 * cap(l.pages)
	for _, p := range l.pages {
		if p != nil {
			n += pageSlots * 32
		}
	}
	return n
}

// Tree holds the digest of everything under one node, its root, and the
// syndromes of the nodes below, down to its leaves.
type Tree struct {
	root     Node
	leafKeys uint64
	total    Digest

	// There are 1<<depth + split leaves: of the nodes that are depth bits below
	// the root, the first split ones have two in high, the others one in low.
	depth     int
	split     uint64
	low, high layer
	inner     []layer // inner[i] is (i+1)*innerBits below the root

	epoch  uint64
	frozen bool
}

// epochs numbers the trees that may write to pages, so that two that share a
// page never take it for their own.
var epochs atomic.Uint64

// NewTree returns an empty tree over the positions under root, with leafKeys
// entries for each leaf; zero means DefaultLeafKeys.
func NewTree(root Node, leafKeys int) *Tree { return NewTreeOf(root, leafKeys, 1) }

// NewTreeOf returns an empty tree with a number of leaves, at least one. It is
// how a store brings back a tree that it has persisted: [Tree.Load] each leaf,
// then the totals.
func NewTreeOf(root Node, leafKeys int, leaves uint64) *Tree {
	if leafKeys <= 0 {
		leafKeys = DefaultLeafKeys
	}
	leaves = max(leaves, 1)
	t := &Tree{root: root, leafKeys: uint64(leafKeys), epoch: epochs.Add(1)}
	t.depth = bits.Len64(leaves) - 1
	t.split = leaves - 1<<t.depth
	if t.depth > t.maxDepth() {
		panic(fmt.Sprintf("merkle: a tree with %d leaves", leaves))
	}
	t.low, t.high = newLayer(1<<t.depth), newLayer(2<<t.depth)
	for b := innerBits; b+innerBits <= t.depth; b += innerBits {
		t.inner = append(t.inner, newLayer(1<<b))
	}
	return t
}

// maxDepth leaves room for the leaves below those that are split.
func (t *Tree) maxDepth() int { return min(MaxDepth, MaxBits-int(t.root.Bits)-1) }

// Under returns the node that the tree is over.
func (t *Tree) Under() Node { return t.root }

// Leaves returns the number of leaves.
func (t *Tree) Leaves() uint64 { return 1<<t.depth + t.split }

// Root returns the digest of all entries.
func (t *Tree) Root() Digest { return t.total }

// Leaf returns the leaf above a position, which is under the tree's root.
func (t *Tree) Leaf(x ring.Position) Node {
	n := NodeAt(x, int(t.root.Bits)+t.depth)
	if t.index(n) < t.split {
		n = NodeAt(x, int(n.Bits)+1)
	}
	return n
}

// index returns the place of a node among those of its level under the root.
func (t *Tree) index(n Node) uint64 { return n.Path & (1<<(n.Bits-t.root.Bits) - 1) }

// LeafSyndrome returns the syndrome of a leaf, as named by Leaf.
func (t *Tree) LeafSyndrome(leaf Node) Syndrome {
	if int(leaf.Bits-t.root.Bits) == t.depth {
		return t.low.get(t.index(leaf))
	}
	return t.high.get(t.index(leaf))
}

func (t *Tree) writable() {
	if t.frozen {
		panic("merkle: a snapshot was written to")
	}
}

// Adjust adds d to the digests of the leaf above a position and of every node
// above that: the digest of a new entry, or the difference of a new one and the
// one that it replaces.
func (t *Tree) Adjust(x ring.Position, d Digest) {
	t.writable()
	t.total.Sum = t.total.Sum.Plus(d.Sum)
	t.total.Count += d.Count
	t.Load(t.Leaf(x), d.Syndrome)
}

// Load adds the syndrome of a persisted leaf to an empty tree. Count and sum of
// the whole are not in the leaves: AdjustTotals brings them.
func (t *Tree) Load(leaf Node, s Syndrome) {
	t.writable()
	i, rel := t.index(leaf), int(leaf.Bits-t.root.Bits)
	l := t.low
	if rel > t.depth {
		l = t.high
	}
	p := l.slot(i, t.epoch)
	*p = p.Plus(s)
	for j, layer := range t.inner {
		p := layer.slot(i>>(rel-(j+1)*innerBits), t.epoch)
		*p = p.Plus(s)
	}
	t.total.Syndrome = t.total.Syndrome.Plus(s)
}

// AdjustTotals adds to the count and the sum of all entries.
func (t *Tree) AdjustTotals(s Sum, count uint64) {
	t.writable()
	t.total.Sum = t.total.Sum.Plus(s)
	t.total.Count += count
}

// IsLeaf reports whether n is a leaf of the tree as it is now.
func (t *Tree) IsLeaf(n Node) bool { return t.root.Above(n) && t.Leaf(n.First()) == n }

// Syndromes fills dst with the syndromes of the 2^bits nodes that are bits below
// n, which is the root or under it. ok is false, and dst undefined, if one of
// them is below a leaf: then the caller sums them from the rows under n, with a
// [Summer].
func (t *Tree) Syndromes(n Node, bits int, dst []Syndrome) (ok bool) {
	rel := int(n.Bits-t.root.Bits) + bits // of the nodes asked for
	first, count := t.index(n)<<bits, uint64(1)<<bits
	switch {
	case rel == 0:
		dst[0] = t.total.Syndrome
		return true
	case rel > t.depth+1 || rel == t.depth+1 && (first+count-1)/2 >= t.split:
		return false
	case rel == t.depth+1:
		for i := range count {
			dst[i] = t.high.get(first + i)
		}
		return true
	}
	for i := range count {
		dst[i] = t.at(rel, first+i)
	}
	return true
}

// at returns the syndrome of the i-th node rel bits below the root, not below a
// leaf, from the next level at or below it that is kept.
func (t *Tree) at(rel int, i uint64) Syndrome {
	for j := range t.inner {
		if down := (j+1)*innerBits - rel; down >= 0 {
			return t.inner[j].sum(i<<down, 1<<down)
		}
	}
	down := t.depth - rel
	first, end := i<<down, (i+1)<<down
	s := t.low.sum(max(first, min(t.split, end)), end-max(first, min(t.split, end)))
	if first < t.split {
		s = s.Plus(t.high.sum(2*first, 2*(min(end, t.split)-first)))
	}
	return s
}

// SplitDue returns the leaf that is to be split next, if the tree has fewer
// leaves than its entries ask for.
func (t *Tree) SplitDue() (leaf Node, due bool) {
	if t.total.Count <= t.leafKeys*t.Leaves() || t.depth >= t.maxDepth() {
		return Node{}, false
	}
	return t.root.Down(t.depth, int(t.split)), true
}

// Split splits the leaf that SplitDue returned; left is the syndrome of the
// entries under its left half, Down(1, 0).
func (t *Tree) Split(left Syndrome) {
	t.writable()
	whole := t.low.slot(t.split, t.epoch)
	right := whole.Minus(left)
	*whole = Syndrome{}
	*t.high.slot(2*t.split, t.epoch) = left
	*t.high.slot(2*t.split+1, t.epoch) = right
	t.split++
	if t.split%pageSlots == 0 {
		t.low.pages[t.split/pageSlots-1] = nil // zeros from here on
	}
	if t.split == 1<<t.depth {
		t.depth, t.split = t.depth+1, 0
		t.low, t.high = t.high, newLayer(2<<t.depth)
		if b := (len(t.inner) + 1) * innerBits; b+innerBits <= t.depth {
			l := newLayer(1 << b)
			for i := range uint64(1) << b {
				*l.slot(i, t.epoch) = t.low.sum(i<<(t.depth-b), 1<<(t.depth-b))
			}
			t.inner = append(t.inner, l)
		}
	}
}

// MergeDue returns the leaf that the next Merge makes of two, if the tree has
// far more leaves than its entries ask for. Splitting and merging are kept apart
// by a factor of four, so that a count that goes up and down costs nothing.
func (t *Tree) MergeDue() (leaf Node, due bool) {
	if t.Leaves() == 1 || t.total.Count*4 >= t.leafKeys*t.Leaves() {
		return Node{}, false
	}
	if t.split == 0 {
		return t.root.Down(t.depth-1, 1<<(t.depth-1)-1), true
	}
	return t.root.Down(t.depth, int(t.split-1)), true
}

// Merge undoes the last split; no rows are needed.
func (t *Tree) Merge() {
	t.writable()
	if t.split == 0 {
		t.depth--
		t.split = 1 << t.depth
		t.low, t.high = newLayer(1<<t.depth), t.low
		if n := len(t.inner); n > 0 && (n+1)*innerBits > t.depth {
			t.inner = t.inner[:n-1]
		}
	}
	t.split--
	*t.low.slot(t.split, t.epoch) = t.high.sum(2*t.split, 2)
	*t.high.slot(2*t.split, t.epoch) = Syndrome{}
	*t.high.slot(2*t.split+1, t.epoch) = Syndrome{}
}

// Snapshot returns a tree that keeps the present digests. It shares pages with t
// until t writes to them, so taking one costs two words a page.
//
// A snapshot of a snapshot is itself. Writing to one panics.
func (t *Tree) Snapshot() *Tree {
	if t.frozen {
		return t
	}
	s := t.Fork()
	s.frozen = true
	return s
}

// Fork returns a tree with the present digests that may be written to without
// changing t, even if t is a snapshot.
func (t *Tree) Fork() *Tree {
	f := *t
	f.low, f.high = t.low.clone(), t.high.clone()
	f.inner = make([]layer, len(t.inner))
	for i, l := range t.inner {
		f.inner[i] = l.clone()
	}
	f.frozen, f.epoch = false, epochs.Add(1)
	if !t.frozen {
		t.epoch = epochs.Add(1) // every page is shared from here on
	}
	return &f
}

// Bytes returns the memory that the tree takes, what it shares included.
func (t *Tree) Bytes() int {
	n := 256 + t.low.bytes() + t.high.bytes()
	for _, l := range t.inner {
		n += l.bytes()
	}
	return n
}

// Row is an entry as a tree sees it.
type Row struct {
	Position ring.Position
	Entry    lww.Entry
	// Sum is the entry's hash, as the tree has it. Zero: the tree has no entry
	// of that key, because the row is Late.
	Sum Sum
	// Late marks a row that was written after the moment that the tree shows:
	// Entry is what was written, Sum the hash of what it replaced.
	Late bool
}

// Fingerprint returns what stands for the row in a syndrome, zero for a row that
// the tree does not have.
func (r Row) Fingerprint(salt uint8) uint64 {
	if r.Sum == (Sum{}) {
		return 0
	}
	return r.Sum.Fingerprint(salt)
}

// Summer sums the syndromes of the nodes that are bits below a node from the
// rows under it. It is how nodes below the stored leaves get their digests.
type Summer struct {
	node Node
	bits int
	dst  []Syndrome
}

// NewSummer clears the first 2^bits elements of dst and sums into them.
func NewSummer(n Node, bits int, dst []Syndrome) Summer {
	clear(dst[:1<<bits])
	return Summer{n, bits, dst}
}

// Add adds a row: its position, which is under the node, and the fingerprint of
// its hash.
func (s Summer) Add(x ring.Position, fingerprint uint64) {
	i := NodeAt(x, int(s.node.Bits)+s.bits).Path & (1<<s.bits - 1)
	s.dst[i] = s.dst[i].Plus(SyndromeOf(x, fingerprint))
}
