package bench

import (
	"encoding/binary"
	"fmt"
	"sort"

	"github.com/dchest/siphash"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Merkle2 is the Merkle tree of textbooks: binary, a key for each leaf, and the
// digest of a node is a keyed hash of those of its children. The sides take turns
// in going down a level.
type Merkle2 struct{}

func (Merkle2) Name() string { return "merkle2" }

// Limit: a node's number has 31 bits, and there are 1.5 of them for each key.
func (Merkle2) Limit(w reconcile.Workload) string {
	if w.Keys > 2e7 {
		return "its index takes 60 bytes a key: at most 2e7 keys"
	}
	return ""
}

// ref names a subtree: 0 is empty, i > 0 the inner node i, and -i the leaf i.
type ref int32

type inner2 struct {
	digest      merkle.Sum
	left, right ref
}

type leaf2 struct {
	digest merkle.Sum
	x      ring.Position
}

type tree2 struct {
	rows   *reconcile.Replica
	inner  []inner2 // from 1
	leaves []leaf2  // from 1
	root   ref
	path   []ref // of an update, kept for the next
}

func (Merkle2) Build(rows *reconcile.Replica) (Side, error) {
	t := &tree2{rows: rows, inner: make([]inner2, 1, 1+rows.Len()*3/2), leaves: make([]leaf2, 1, 1+rows.Len())}
	rows.Rows(0, ring.MaxPosition, func(x ring.Position, _ lww.Entry, s merkle.Sum) bool {
		t.leaves = append(t.leaves, leaf2{s, x})
		return true
	})
	var err error
	t.root, err = t.build(1, len(t.leaves), 0)
	return t, err
}

// build makes the subtree of the leaves from first to before end, which have
// their first bits in common.
func (t *tree2) build(first, end, bits int) (ref, error) {
	switch {
	case first == end:
		return 0, nil
	case first+1 == end:
		return -ref(first), nil
	case bits == ring.PositionBits:
		return 0, fmt.Errorf("two keys share the position %v: generate with another seed", t.leaves[first].x)
	}
	i := len(t.inner)
	t.inner = append(t.inner, inner2{})
	mid := first + sort.Search(end-first, func(j int) bool { return bitOf(t.leaves[first+j].x, bits) })
	left, err := t.build(first, mid, bits+1)
	if err != nil {
		return 0, err
	}
	right, err := t.build(mid, end, bits+1)
	if err != nil {
		return 0, err
	}
	t.inner[i].left, t.inner[i].right = left, right
	t.rehash(i)
	return ref(i), nil
}

// bitOf returns the bit of a position behind its first ones.
func bitOf(x ring.Position, bits int) bool { return uint64(x)>>(ring.PositionBits-1-bits)&1 != 0 }

func (t *tree2) rehash(i int) {
	var b [2 * merkle.SumBytes]byte
	l, r := t.digest(t.inner[i].left), t.digest(t.inner[i].right)
	binary.BigEndian.PutUint64(b[0:], l.Hi)
	binary.BigEndian.PutUint64(b[8:], l.Lo)
	binary.BigEndian.PutUint64(b[16:], r.Hi)
	binary.BigEndian.PutUint64(b[24:], r.Lo)
	const k0, k1 = 0x73796e74726f7079, 0x6d65726b6c652d32 // any key that both share
	t.inner[i].digest.Hi, t.inner[i].digest.Lo = siphash.Hash128(k0, k1, b[:])
}

// digest returns the digest of a subtree: zero if it is empty, that of the row
// if it is a leaf, at whatever depth.
func (t *tree2) digest(r ref) merkle.Sum {
	switch {
	case r > 0:
		return t.inner[r].digest
	case r < 0:
		return t.leaves[-r].digest
	}
	return merkle.Sum{}
}

// Update rehashes the path from a leaf to the root.
func (t *tree2) Update(x ring.Position, _, after merkle.Sum) {
	t.path = t.path[:0]
	r := t.root
	for bits := 0; r > 0; bits++ {
		t.path = append(t.path, r)
		if bitOf(x, bits) {
			r = t.inner[r].right
		} else {
			r = t.inner[r].left
		}
	}
	t.leaves[-r].digest = after
	for i := len(t.path) - 1; i >= 0; i-- {
		t.rehash(int(t.path[i]))
	}
}

func (t *tree2) Initiate() Initiator { return initiate(t.rows, &finder2{walk2: walk2{tree2: t}}) }
func (t *tree2) Answer() Party       { return answer(t.rows, &answerer2{walk2{tree2: t}}) }

// place is a node of the tree as it would be were it complete: below a leaf, the
// leaf and nothing.
type place struct {
	node merkle.Node
	ref  ref
}

// child returns the left or the right child.
func (t *tree2) child(p place, right int) place {
	c := place{node: p.node.Down(1, right)}
	switch {
	case p.ref > 0 && right == 0:
		c.ref = t.inner[p.ref].left
	case p.ref > 0:
		c.ref = t.inner[p.ref].right
	case p.ref < 0 && c.node.Contains(t.leaves[-p.ref].x):
		c.ref = p.ref
	}
	return c
}

// walk2 is one end of a session on its way down. A message is
//
//	which of the digests that you sent differ, a bit each
//	a bit for each of those: is it an inner node here?
//	the digests of the two children of those that are
//	what is under the others, token and hash (from the partner only)
//	what is under those that are not inner nodes at yours (from the partner only)
//
// and the very first one the digest of the root alone.
type walk2 struct {
	*tree2
	sent        []place // their children's digests were
	comparisons int
	us, you     []listed
	v           verdict
}

func (w *walk2) compared() int { return w.comparisons + w.v.comparisons }

// bitReader reads bits from the front of a message.
type bitReader struct {
	b []byte
	n int
}

func (r *bitReader) next() bool {
	i := r.n
	r.n++
	return r.b[i/8]>>(i%8)&1 != 0
}

func cutBits(in []byte, n int) (bitReader, []byte, error) {
	if len(in) < (n+7)/8 {
		return bitReader{}, nil, errCutShort
	}
	return bitReader{b: in}, in[(n+7)/8:], nil
}

// appendBits appends n bits.
func appendBits(dst []byte, n int, bit func(i int) bool) []byte {
	first := len(dst)
	dst = append(dst, make([]byte, (n+7)/8)...)
	for i := range n {
		if bit(i) {
			dst[first+i/8] |= 1 << (i % 8)
		}
	}
	return dst
}

// receive reads a message up to the lists. inner are the nodes that are inner
// ones over there, of which the digests are compared: differ gets those of their
// children that differ, out the bits that say so. others are the nodes that are
// not inner ones over there.
func (w *walk2) receive(in, out []byte, nodes []place) (rest, _ []byte, differ, others []place, err error) {
	isInner, in, err := cutBits(in, len(nodes))
	if err != nil {
		return nil, nil, nil, nil, err
	}
	var children []place
	for _, p := range nodes {
		if isInner.next() {
			children = append(children, w.child(p, 0), w.child(p, 1))
		} else {
			others = append(others, p)
		}
	}
	if len(in) < len(children)*merkle.SumBytes {
		return nil, nil, nil, nil, errCutShort
	}
	w.comparisons += len(children)
	out = appendBits(out, len(children), func(i int) bool {
		same := w.digest(children[i].ref) == merkle.SumFrom(in[i*merkle.SumBytes:])
		if !same {
			differ = append(differ, children[i])
		}
		return !same
	})
	return in[len(children)*merkle.SumBytes:], out, differ, others, nil
}

// differing reads which of the children whose digests were sent differ.
func (w *walk2) differing(in []byte) (nodes []place, rest []byte, err error) {
	bits, in, err := cutBits(in, 2*len(w.sent))
	if err != nil {
		return nil, nil, err
	}
	for _, p := range w.sent {
		for i := range 2 {
			if bits.next() {
				nodes = append(nodes, w.child(p, i))
			}
		}
	}
	return nodes, in, nil
}

// below appends which of the nodes are inner ones, and the digests of the
// children of those. It returns the others.
func (w *walk2) below(out []byte, nodes []place) (_ []byte, others []place) {
	out = appendBits(out, len(nodes), func(i int) bool { return nodes[i].ref > 0 })
	w.sent = w.sent[:0]
	for _, p := range nodes {
		if p.ref <= 0 {
			others = append(others, p)
			continue
		}
		w.sent = append(w.sent, p)
		out = w.digest(w.inner[p.ref].left).Append(out)
		out = w.digest(w.inner[p.ref].right).Append(out)
	}
	return out, others
}

func (w *walk2) appendLists(out []byte, places []place) []byte {
	for _, p := range places {
		w.us = readList(w.rows, p.node.First(), p.node.Last(), w.us[:0])
		out = appendList(out, w.us)
	}
	return out
}

func (w *walk2) compareLists(in []byte, places []place) (rest []byte, err error) {
	for _, p := range places {
		if w.you, in, err = cutList(in, w.you[:0]); err != nil {
			return nil, err
		}
		w.us = readList(w.rows, p.node.First(), p.node.Last(), w.us[:0])
		w.v.compareLists(w.us, w.you)
	}
	return in, nil
}

type answerer2 struct{ walk2 }

func (a *answerer2) answer(in, out []byte) (_ []byte, err error) {
	root := []place{{ref: a.root}}
	if a.sent == nil {
		if len(in) != merkle.SumBytes {
			return nil, errCutShort
		}
		a.comparisons++
		if a.digest(a.root) == merkle.SumFrom(in) {
			return out, nil
		}
		a.sent = []place{}
		out, others := a.below(out, root)
		return a.appendLists(out, others), nil
	}
	nodes, in, err := a.differing(in)
	if err != nil {
		return nil, err
	}
	_, out, differ, asked, err := a.receive(in, out, nodes)
	if err != nil {
		return nil, err
	}
	out, others := a.below(out, differ)
	out = a.appendLists(out, others)
	return a.appendLists(out, asked), nil
}

type finder2 struct {
	walk2
	started bool
	asked   []place // what is under these
}

func (f *finder2) found() (named, ask []ring.Position) {
	return append(f.v.onlyUs, f.v.onlyYou...), f.v.stale
}

func (f *finder2) find(in, out []byte) (_ []byte, err error) {
	var nodes []place
	switch {
	case !f.started:
		f.started = true
		return f.digest(f.root).Append(out), nil
	case len(in) == 0: // the roots are equal
		return nil, nil
	case f.sent == nil:
		nodes, f.sent = []place{{ref: f.root}}, []place{}
	default:
		if nodes, in, err = f.differing(in); err != nil {
			return nil, err
		}
	}
	in, out, differ, others, err := f.receive(in, out, nodes)
	if err != nil {
		return nil, err
	}
	if in, err = f.compareLists(in, others); err != nil {
		return nil, err
	}
	if _, err = f.compareLists(in, f.asked); err != nil {
		return nil, err
	}
	if len(differ) == 0 {
		return nil, nil
	}
	out, f.asked = f.below(out, differ)
	return out, nil
}
