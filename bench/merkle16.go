package bench

import (
	"encoding/binary"
	"fmt"
	"math"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Merkle16 is a plain Merkle tree done well: 16-ary, with additive digests of
// 128 bits, a leaf for about 16 keys. The sides take turns in going down a level:
// each compares the digests that it was sent and answers with those below the
// ones that differ. Leaves that differ are listed.
//
// This is what the CPU time of others is measured against.
type Merkle16 struct {
	// DigestBytes is what travels of a digest, 16 or 8. With 8 a difference below
	// two levels of the tree goes unseen once in 2^64 times.
	DigestBytes int
}

// merkle16LeafKeys is the number of keys for a leaf, within a factor of the
// square root of two.
const merkle16LeafKeys = 16

// Name returns "merkle16", or "merkle16/8" for digests cut to 8 bytes.
func (m Merkle16) Name() string {
	if m.DigestBytes == merkle.SumBytes {
		return "merkle16"
	}
	return fmt.Sprintf("merkle16/%d", m.DigestBytes)
}

func (Merkle16) Limit(reconcile.Workload) string { return "" }

// tree16 holds the digests of each level in one array, the root's first.
type tree16 struct {
	rows        *reconcile.Replica
	levels      [][]merkle.Sum
	bits        []int // from the root down to each level
	digestBytes int
}

func (m Merkle16) Build(rows *reconcile.Replica) (Side, error) {
	t := &tree16{rows: rows, digestBytes: m.DigestBytes}
	// The shape is a setting that both sides share. What four does not divide is
	// taken off the top, where it costs once and not for every key.
	leafBits := max(0, int(math.Round(math.Log2(float64(rows.Workload().Keys)/merkle16LeafKeys))))
	t.bits = append(t.bits, 0)
	for b := leafBits % 4; b <= leafBits; b += 4 {
		if b > 0 {
			t.bits = append(t.bits, b)
		}
	}
	for _, b := range t.bits {
		t.levels = append(t.levels, make([]merkle.Sum, 1<<b))
	}
	leaves := t.levels[len(t.levels)-1]
	rows.Rows(0, ring.MaxPosition, func(x ring.Position, _ lww.Entry, s merkle.Sum) bool {
		i := uint64(x) >> (ring.PositionBits - leafBits)
		leaves[i] = leaves[i].Plus(s)
		return true
	})
	for l := len(t.levels) - 2; l >= 0; l-- {
		down := t.bits[l+1] - t.bits[l]
		for i, s := range t.levels[l+1] {
			t.levels[l][i>>down] = t.levels[l][i>>down].Plus(s)
		}
	}
	return t, nil
}

// Update adds the change to a node of each level.
func (t *tree16) Update(x ring.Position, before, after merkle.Sum) {
	d := after.Minus(before)
	for l, b := range t.bits {
		n := &t.levels[l][uint64(x)>>(ring.PositionBits-b)]
		*n = n.Plus(d)
	}
}

func (t *tree16) Initiate() Initiator { return initiate(t.rows, &finder16{walk16: walk16{tree16: t}}) }
func (t *tree16) Answer() Party       { return answer(t.rows, &answerer16{walk16{tree16: t}}) }

func (t *tree16) appendDigest(dst []byte, s merkle.Sum) []byte {
	if t.digestBytes == hashBytes {
		return binary.BigEndian.AppendUint64(dst, s.Lo)
	}
	return s.Append(dst)
}

// same compares a digest with one at the front of b.
func (t *tree16) same(s merkle.Sum, b []byte) bool {
	if t.digestBytes == hashBytes {
		return s.Lo == binary.BigEndian.Uint64(b)
	}
	return s == merkle.SumFrom(b)
}

// walk16 is one end of a session on its way down. A message is
//
//	which of the digests that you sent differ, a bit each
//	the digests of the children of those, or of leaves the rows
//
// and the very first one the digest of the root alone.
type walk16 struct {
	*tree16
	level       int      // of the digests that were last sent or received
	sent        []uint32 // the nodes of it whose digests were sent
	nodes       []uint32 // that differ
	comparisons int
	us, you     []listed
	v           verdict
}

func (w *walk16) compared() int { return w.comparisons + w.v.comparisons }

func (w *walk16) leaf() bool { return w.level == len(w.levels)-1 }

// differing reads which of the digests that were sent differ, into nodes.
func (w *walk16) differing(in []byte) (rest []byte, err error) {
	n := (len(w.sent) + 7) / 8
	if len(in) < n {
		return nil, errCutShort
	}
	w.nodes = w.nodes[:0]
	for i, node := range w.sent {
		if in[i/8]>>(i%8)&1 != 0 {
			w.nodes = append(w.nodes, node)
		}
	}
	return in[n:], nil
}

// compareChildren compares the digests of the children of nodes, appends the
// bits that say which differ, and makes those the nodes.
func (w *walk16) compareChildren(in, out []byte) ([]byte, error) {
	down := w.bits[w.level+1] - w.bits[w.level]
	children := len(w.nodes) << down
	if len(in) != children*w.digestBytes {
		return nil, errCutShort
	}
	w.level++
	bitmap := len(out)
	out = append(out, make([]byte, (children+7)/8)...)
	next := w.sent[:0] // what was sent has been read
	i := 0
	for _, n := range w.nodes {
		first := n << down
		for c, s := range w.levels[w.level][first : first+1<<down] {
			if !w.same(s, in[i*w.digestBytes:]) {
				out[bitmap+i/8] |= 1 << (i % 8)
				next = append(next, first+uint32(c))
			}
			i++
		}
	}
	w.comparisons += children
	w.nodes, w.sent = next, w.nodes
	return out, nil
}

// below appends the digests of the children of nodes, or of leaves the rows.
func (w *walk16) below(out []byte) []byte {
	if w.leaf() {
		for _, n := range w.nodes {
			first, last := w.span(n)
			w.us = readList(w.rows, first, last, w.us[:0])
			out = appendList(out, w.us)
		}
		return out
	}
	down := w.bits[w.level+1] - w.bits[w.level]
	w.level++
	w.sent = w.sent[:0]
	for _, n := range w.nodes {
		first := n << down
		for c, s := range w.levels[w.level][first : first+1<<down] {
			out = w.appendDigest(out, s)
			w.sent = append(w.sent, first+uint32(c))
		}
	}
	return out
}

// span returns the positions under a leaf.
func (t *tree16) span(leaf uint32) (first, last ring.Position) {
	n := merkle.Node{Bits: uint8(t.bits[len(t.bits)-1]), Path: uint64(leaf)}
	return n.First(), n.Last()
}

// compareRows compares the rows of the leaves in nodes.
func (w *walk16) compareRows(in []byte) (err error) {
	for _, n := range w.nodes {
		if w.you, in, err = cutList(in, w.you[:0]); err != nil {
			return err
		}
		first, last := w.span(n)
		w.us = readList(w.rows, first, last, w.us[:0])
		w.v.compareLists(w.us, w.you)
	}
	return nil
}

type answerer16 struct{ walk16 }

func (a *answerer16) answer(in, out []byte) (_ []byte, err error) {
	if a.sent == nil { // the root's digest
		if len(in) != a.digestBytes {
			return nil, errCutShort
		}
		a.comparisons++
		if a.same(a.levels[0][0], in) {
			return out, nil
		}
		a.nodes = append(a.nodes, 0)
		a.sent = []uint32{}
		return a.below(out), nil
	}
	if in, err = a.differing(in); err != nil {
		return nil, err
	}
	if a.leaf() {
		if err := a.compareRows(in); err != nil {
			return nil, err
		}
		return a.v.append(out, a.rows), nil
	}
	if out, err = a.compareChildren(in, out); err != nil {
		return nil, err
	}
	return a.below(out), nil
}

type finder16 struct {
	walk16
	started, listed bool
	named           []ring.Position
}

func (f *finder16) found() (named, ask []ring.Position) { return f.named, f.v.stale }

func (f *finder16) find(in, out []byte) (_ []byte, err error) {
	switch {
	case !f.started:
		f.started = true
		return f.appendDigest(out, f.levels[0][0]), nil
	case f.listed:
		f.named, err = receiveVerdict(in, f.rows)
		return nil, err
	case len(in) == 0: // the roots are equal
		return nil, nil
	case f.sent == nil: // that they are not goes without saying
		f.nodes = append(f.nodes, 0)
		f.sent = []uint32{}
	default:
		if in, err = f.differing(in); err != nil {
			return nil, err
		}
	}
	if f.leaf() {
		err := f.compareRows(in)
		f.named = append(f.v.onlyUs, f.v.onlyYou...)
		return nil, err
	}
	if out, err = f.compareChildren(in, out); err != nil || len(f.nodes) == 0 {
		return nil, err
	}
	f.listed = f.leaf()
	return f.below(out), nil
}
