package hint

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"syntropy/hlc"
	"syntropy/lww"
)

// Rows of a queue. It has the prefix 'h' of the engine to itself; package
// storage uses others. Integers are big-endian, so the rows of a target are one
// range, ordered by stamp: oldest first is reading from the front, and what has
// expired is a range at the front.
//
//	'h' | target 2 | stamp 8 | sequence 8     the entry (package lww, AppendEntry)
//
// The stamp is the entry's newest. Entries may share one: a write of several
// keys, or an expiry set twice by one read. The sequence, counted up for every
// hint, tells them apart and keeps them in the order of their arrival.
const (
	prefix = 'h'

	headBytes = 1 + 2
	keyBytes  = headBytes + 8 + 8
)

// place is where a hint stands among those of its target.
type place struct {
	stamp    hlc.Stamp
	sequence uint64
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.stamp, o.stamp), cmp.Compare(p.sequence, o.sequence))
}

// rowKey returns the key of a hint. With sequence 0, which no hint has, it is
// the lower bound of the rows of a stamp.
func rowKey(target hlc.NodeID, p place) []byte {
	k := make([]byte, 0, keyBytes+1) // one more for an upper bound
	k = append(k, prefix)
	k = binary.BigEndian.AppendUint16(k, uint16(target))
	k = binary.BigEndian.AppendUint64(k, uint64(p.stamp))
	return binary.BigEndian.AppendUint64(k, p.sequence)
}

// afterTarget returns the upper bound of the rows of a target. It is the lower
// bound of the next one's, and for the last one the end of all.
func afterTarget(target hlc.NodeID) []byte {
	if target == ^hlc.NodeID(0) {
		return []byte{prefix + 1}
	}
	return binary.BigEndian.AppendUint16([]byte{prefix}, uint16(target)+1)
}

// splitKey reads a row key; ok is false for one that no queue has written.
func splitKey(k []byte) (target hlc.NodeID, p place, ok bool) {
	if len(k) != keyBytes || k[0] != prefix {
		return 0, place{}, false
	}
	target = hlc.NodeID(binary.BigEndian.Uint16(k[1:]))
	p.stamp = hlc.Stamp(binary.BigEndian.Uint64(k[headBytes:]))
	p.sequence = binary.BigEndian.Uint64(k[headBytes+8:])
	return target, p, target != 0
}

// decodeRow reads the entry of a row and checks that it belongs there. The entry
// points into value.
func decodeRow(p place, value []byte) (lww.Entry, error) {
	e, rest, err := lww.DecodeEntry(value)
	switch {
	case err != nil:
		return lww.Entry{}, err
	case len(rest) > 0:
		return lww.Entry{}, fmt.Errorf("%w: %d bytes follow it", lww.ErrMalformed, len(rest))
	case e.Newest() != p.stamp:
		return lww.Entry{}, fmt.Errorf("%w: its stamp is not the one it is kept under", lww.ErrMalformed)
	}
	return e, nil
}

// rowBytes is what a hint counts against the bound.
func rowBytes(key, value []byte) int64 { return int64(len(key) + len(value)) }
