package bench

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Flat compares as Cassandra's repair does: a tree of depth 15, however many keys
// there are, is made from the data, sent whole, and of leaves that differ all
// rows are streamed. Here of each row only token and hash are, and making the tree
// is not counted, though Cassandra does it for every repair.
type Flat struct{}

const (
	flatBits      = 15
	flatHashBytes = sha256.Size
)

func (Flat) Name() string                    { return "depth-limited" }
func (Flat) Limit(reconcile.Workload) string { return "" }

type flatSide struct {
	rows   *reconcile.Replica
	leaves [][flatHashBytes]byte
}

func (Flat) Build(rows *reconcile.Replica) (Side, error) {
	s := &flatSide{rows, make([][flatHashBytes]byte, 1<<flatBits)}
	var buf []byte
	for i := range s.leaves {
		first, last := flatSpan(i)
		buf = buf[:0]
		rows.Rows(first, last, func(_ ring.Position, _ lww.Entry, sum merkle.Sum) bool {
			buf = sum.Append(buf)
			return true
		})
		s.leaves[i] = sha256.Sum256(buf)
	}
	return s, nil
}

func flatSpan(leaf int) (first, last ring.Position) {
	n := merkle.Node{Bits: flatBits, Path: uint64(leaf)}
	return n.First(), n.Last()
}

func (s *flatSide) Initiate() Initiator { return initiate(s.rows, &flatFinder{flatSide: s}) }
func (s *flatSide) Answer() Party       { return answer(s.rows, &flatAnswerer{flatSide: s}) }

// The tree is sent as Cassandra writes one, in pre-order: an inner node as what
// it is and the token at which it splits, a leaf as what it is and its hash.
const (
	flatInner = iota
	flatLeaf
)

func (s *flatSide) appendTree(dst []byte, n merkle.Node) []byte {
	if n.Bits == flatBits {
		return append(append(dst, flatLeaf), s.leaves[n.Path][:]...)
	}
	dst = append(dst, flatInner, tokenBytes)
	dst = binary.BigEndian.AppendUint64(dst, uint64(n.Down(1, 1).First()))
	return s.appendTree(s.appendTree(dst, n.Down(1, 0)), n.Down(1, 1))
}

// cutTree calls visit with each leaf's hash.
func cutTree(b []byte, n merkle.Node, visit func(leaf int, hash []byte)) (rest []byte, err error) {
	switch {
	case n.Bits == flatBits && len(b) > flatHashBytes && b[0] == flatLeaf:
		visit(int(n.Path), b[1:1+flatHashBytes])
		return b[1+flatHashBytes:], nil
	case n.Bits < flatBits && len(b) >= 2+tokenBytes && b[0] == flatInner:
		if b, err = cutTree(b[2+tokenBytes:], n.Down(1, 0), visit); err != nil {
			return nil, err
		}
		return cutTree(b, n.Down(1, 1), visit)
	}
	return nil, errCutShort
}

type flatFinder struct {
	*flatSide
	started bool
	v       verdict
}

func (f *flatFinder) compared() int { return f.v.comparisons }

func (f *flatFinder) found() (named, ask []ring.Position) {
	return append(f.v.onlyUs, f.v.onlyYou...), f.v.stale
}

func (f *flatFinder) find(in, out []byte) (_ []byte, err error) {
	if !f.started {
		f.started = true
		return f.appendTree(out, merkle.Node{}), nil
	}
	var us, you []listed
	for len(in) > 0 {
		if len(in) < 2 {
			return nil, errCutShort
		}
		leaf := int(binary.BigEndian.Uint16(in)) % len(f.leaves)
		if you, in, err = cutList(in[2:], you[:0]); err != nil {
			return nil, err
		}
		first, last := flatSpan(leaf)
		us = readList(f.rows, first, last, us[:0])
		f.v.compareLists(us, you)
	}
	return nil, nil
}

type flatAnswerer struct {
	*flatSide
	comparisons int
}

func (a *flatAnswerer) compared() int { return a.comparisons }

// answer lists the rows of the leaves that differ.
func (a *flatAnswerer) answer(in, out []byte) ([]byte, error) {
	var list []listed
	_, err := cutTree(in, merkle.Node{}, func(leaf int, hash []byte) {
		a.comparisons++
		if bytes.Equal(a.leaves[leaf][:], hash) {
			return
		}
		first, last := flatSpan(leaf)
		list = readList(a.rows, first, last, list[:0])
		out = binary.BigEndian.AppendUint16(out, uint16(leaf))
		out = appendList(out, list)
	})
	return out, err
}
