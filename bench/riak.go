package bench

import (
	"encoding/binary"
	"fmt"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Riak compares as Riak's active anti-entropy does: 1024 times 1024 segments,
// hashes of four bytes, two levels of them, and the keys of segments that differ.
// The initiator asks and compares, one level after the other. The hash of a
// segment is a sum here, so that a write can adjust it; Riak hashes the segment's
// keys again.
type Riak struct{}

const (
	riakWidth     = 1024
	riakBits      = 20 // of a segment
	riakHashBytes = 4
)

func (Riak) Name() string                    { return "riak" }
func (Riak) Limit(reconcile.Workload) string { return "" }

type riakSide struct {
	rows     *reconcile.Replica
	buckets  []uint32
	segments []uint32
}

func (Riak) Build(rows *reconcile.Replica) (Side, error) {
	s := &riakSide{rows, make([]uint32, riakWidth), make([]uint32, riakWidth*riakWidth)}
	rows.Rows(0, ring.MaxPosition, func(x ring.Position, _ lww.Entry, sum merkle.Sum) bool {
		s.Update(x, merkle.Sum{}, sum)
		return true
	})
	return s, nil
}

func (s *riakSide) Update(x ring.Position, before, after merkle.Sum) {
	i, d := x>>(ring.PositionBits-riakBits), uint32(after.Lo)-uint32(before.Lo)
	s.segments[i] += d
	s.buckets[i/riakWidth] += d
}

func (s *riakSide) Initiate() Initiator { return initiate(s.rows, &riakFinder{riakSide: s}) }
func (s *riakSide) Answer() Party       { return answer(s.rows, riakAnswerer{s}) }

// What the initiator asks for, in the first byte.
const (
	riakBuckets  = iota // the hashes of the first level
	riakSegments        // those below some buckets, 2 bytes each
	riakKeys            // the keys of some segments, 4 bytes each
)

type riakAnswerer struct{ *riakSide }

func (a riakAnswerer) compared() int { return 0 }

func (a riakAnswerer) answer(in, out []byte) ([]byte, error) {
	if len(in) == 0 {
		return nil, errCutShort
	}
	switch op, in := in[0], in[1:]; op {
	case riakBuckets:
		return appendHashes(out, a.buckets), nil
	case riakSegments:
		for ; len(in) >= 2; in = in[2:] {
			b := int(binary.BigEndian.Uint16(in))
			if b >= riakWidth {
				return nil, fmt.Errorf("there is no bucket %d", b)
			}
			out = appendHashes(out, a.segments[b*riakWidth:(b+1)*riakWidth])
		}
		return out, nil
	case riakKeys:
		var list []listed
		for ; len(in) >= 4; in = in[4:] {
			first, last := riakSpan(binary.BigEndian.Uint32(in))
			list = readList(a.rows, first, last, list[:0])
			out = appendList(out, list)
		}
		return out, nil
	default:
		return nil, fmt.Errorf("unknown request %d", op)
	}
}

func appendHashes(dst []byte, hashes []uint32) []byte {
	for _, h := range hashes {
		dst = binary.BigEndian.AppendUint32(dst, h)
	}
	return dst
}

func riakSpan(segment uint32) (first, last ring.Position) {
	n := merkle.Node{Bits: riakBits, Path: uint64(segment)}
	return n.First(), n.Last()
}

type riakFinder struct {
	*riakSide
	started     bool
	asked       byte
	differ      []uint32 // the buckets or segments that were asked for
	comparisons int
	v           verdict
}

func (f *riakFinder) compared() int { return f.comparisons + f.v.comparisons }

func (f *riakFinder) found() (named, ask []ring.Position) {
	return append(f.v.onlyUs, f.v.onlyYou...), f.v.stale
}

// compare returns which of our hashes, the first of which is number n, differ
// from those at the front of in.
func (f *riakFinder) compare(in []byte, ours []uint32, n uint32, differ []uint32) (rest []byte, _ []uint32, err error) {
	if len(in) < len(ours)*riakHashBytes {
		return nil, nil, errCutShort
	}
	f.comparisons += len(ours)
	for i, h := range ours {
		if h != binary.BigEndian.Uint32(in[i*riakHashBytes:]) {
			differ = append(differ, n+uint32(i))
		}
	}
	return in[len(ours)*riakHashBytes:], differ, nil
}

func (f *riakFinder) find(in, out []byte) (_ []byte, err error) {
	if !f.started {
		f.started = true
		return append(out, riakBuckets), nil
	}
	switch f.asked {
	case riakBuckets:
		if _, f.differ, err = f.compare(in, f.buckets, 0, nil); err != nil || len(f.differ) == 0 {
			return nil, err
		}
		out = append(out, riakSegments)
		for _, b := range f.differ {
			out = binary.BigEndian.AppendUint16(out, uint16(b))
		}
	case riakSegments:
		var segments []uint32
		for _, b := range f.differ {
			if in, segments, err = f.compare(in, f.segments[b*riakWidth:(b+1)*riakWidth], b*riakWidth, segments); err != nil {
				return nil, err
			}
		}
		f.differ = segments
		out = append(out, riakKeys)
		for _, s := range f.differ {
			out = binary.BigEndian.AppendUint32(out, s)
		}
	case riakKeys:
		var us, you []listed
		for _, s := range f.differ {
			if you, in, err = cutList(in, you[:0]); err != nil {
				return nil, err
			}
			first, last := riakSpan(s)
			us = readList(f.rows, first, last, us[:0])
			f.v.compareLists(us, you)
		}
		return nil, nil
	}
	f.asked++
	return out, nil
}
