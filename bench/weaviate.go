package bench

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/weaviate/weaviate/usecases/replica/hashtree"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Weaviate compares with Weaviate's own hash tree, of height 16 as is its
// default: for each level the initiator sends the bit set of the nodes that it
// wants, which has as many bits as the tree has nodes, and compares the digests
// that come back. Of leaves that differ the rows are listed.
type Weaviate struct{}

const weaviateHeight = 16

func (Weaviate) Name() string                    { return "weaviate" }
func (Weaviate) Limit(reconcile.Workload) string { return "" }

type weaviateSide struct {
	rows *reconcile.Replica
	tree *hashtree.HashTree
}

func (Weaviate) Build(rows *reconcile.Replica) (Side, error) {
	tree, err := hashtree.NewHashTree(weaviateHeight)
	if err != nil {
		return nil, err
	}
	s := &weaviateSide{rows, tree}
	rows.Rows(0, ring.MaxPosition, func(x ring.Position, _ lww.Entry, sum merkle.Sum) bool {
		err = errors.Join(err, s.aggregate(x, sum))
		return true
	})
	tree.Sync()
	return s, err
}

// aggregate adds a row to its leaf, or takes it out: it is an exclusive or.
func (s *weaviateSide) aggregate(x ring.Position, sum merkle.Sum) error {
	var b [tokenBytes + merkle.SumBytes]byte
	binary.BigEndian.PutUint64(b[:], uint64(x))
	sum.Append(b[:tokenBytes])
	return s.tree.AggregateLeafWith(uint64(x)>>(ring.PositionBits-weaviateHeight), b[:])
}

// Update leaves the inner nodes to the next session, as Weaviate does.
func (s *weaviateSide) Update(x ring.Position, before, after merkle.Sum) {
	if err := errors.Join(s.aggregate(x, before), s.aggregate(x, after)); err != nil {
		panic(err) // no position is out of bounds
	}
}

func (s *weaviateSide) Initiate() Initiator {
	return initiate(s.rows, &weaviateFinder{weaviateSide: s, want: hashtree.NewBitset(hashtree.NodesCount(weaviateHeight)).Set(0),
		digests: make([]hashtree.Digest, hashtree.LeavesCount(weaviateHeight)), theirs: make([]hashtree.Digest, hashtree.LeavesCount(weaviateHeight))})
}

func (s *weaviateSide) Answer() Party {
	return answer(s.rows, &weaviateAnswerer{weaviateSide: s, want: hashtree.NewBitset(0), digests: make([]hashtree.Digest, hashtree.LeavesCount(weaviateHeight))})
}

// weaviateRows is what the initiator asks for behind the last level: the rows of
// ranges of leaves, first and last, 4 bytes each.
const weaviateRows = weaviateHeight + 1

func weaviateSpan(first, last uint64) (ring.Position, ring.Position) {
	return merkle.Node{Bits: weaviateHeight, Path: first}.First(), merkle.Node{Bits: weaviateHeight, Path: last}.Last()
}

type weaviateAnswerer struct {
	*weaviateSide
	want    *hashtree.Bitset
	digests []hashtree.Digest
}

func (a *weaviateAnswerer) compared() int { return 0 }

func (a *weaviateAnswerer) answer(in, out []byte) ([]byte, error) {
	if len(in) == 0 || in[0] > weaviateRows {
		return nil, errCutShort
	}
	level, in := int(in[0]), in[1:]
	if level == weaviateRows {
		var list []listed
		for ; len(in) >= 8; in = in[8:] {
			first, last := weaviateSpan(uint64(binary.BigEndian.Uint32(in)), uint64(binary.BigEndian.Uint32(in[4:])))
			list = readList(a.rows, first, last, list[:0])
			out = appendList(out, list)
		}
		return out, nil
	}
	if err := a.want.Unmarshal(in); err != nil {
		return nil, err
	}
	n, err := a.tree.Level(level, a.want, a.digests)
	if err != nil {
		return nil, err
	}
	for _, d := range a.digests[:n] {
		out = binary.BigEndian.AppendUint64(out, d[0])
		out = binary.BigEndian.AppendUint64(out, d[1])
	}
	return out, nil
}

type weaviateFinder struct {
	*weaviateSide
	level           int // that was asked for
	started         bool
	want            *hashtree.Bitset
	digests, theirs []hashtree.Digest
	ranges          [][2]uint64
	comparisons     int
	v               verdict
}

func (f *weaviateFinder) compared() int { return f.comparisons + f.v.comparisons }

func (f *weaviateFinder) found() (named, ask []ring.Position) {
	return append(f.v.onlyUs, f.v.onlyYou...), f.v.stale
}

func (f *weaviateFinder) find(in, out []byte) ([]byte, error) {
	switch {
	case !f.started:
		f.started = true
		return f.ask(out)
	case f.level == weaviateRows:
		return nil, f.compareRows(in)
	}
	n, err := f.tree.Level(f.level, f.want, f.digests)
	if err != nil {
		return nil, err
	}
	if len(in) != n*hashtree.DigestLength {
		return nil, fmt.Errorf("%d bytes for %d digests", len(in), n)
	}
	for i := range n {
		if err := f.theirs[i].UnmarshalBinary(in[i*hashtree.DigestLength : (i+1)*hashtree.DigestLength]); err != nil {
			return nil, err
		}
	}
	f.comparisons += n
	if hashtree.LevelDiff(f.level, f.want, f.digests, f.theirs) == 0 {
		return nil, nil
	}
	f.level++
	return f.ask(out)
}

func (f *weaviateFinder) ask(out []byte) ([]byte, error) {
	out = append(out, byte(f.level))
	if f.level < weaviateRows {
		b, err := f.want.Marshal()
		return append(out, b...), err
	}
	for r := f.tree.NewRangeReader(f.want); ; {
		first, last, err := r.Next()
		if errors.Is(err, hashtree.ErrNoMoreRanges) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		f.ranges = append(f.ranges, [2]uint64{first, last})
		out = binary.BigEndian.AppendUint32(out, uint32(first))
		out = binary.BigEndian.AppendUint32(out, uint32(last))
	}
}

func (f *weaviateFinder) compareRows(in []byte) (err error) {
	var us, you []listed
	for _, r := range f.ranges {
		if you, in, err = cutList(in, you[:0]); err != nil {
			return err
		}
		first, last := weaviateSpan(r[0], r[1])
		us = readList(f.rows, first, last, us[:0])
		f.v.compareLists(us, you)
	}
	return nil
}
