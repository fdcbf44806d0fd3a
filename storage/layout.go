package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Rows of a store, by the first byte of their key. Integers are big-endian, so
// rows sort by shard, then token, then key: a subtree of a shard's Merkle tree
// is one contiguous range, and so is a shard.
//
//	'd' | shard 2 | token 8 | key             the entry (package lww, AppendRow)
//	'g' | shard 2 | stamp 8 | token 8 | key   nothing: the garbage index
//	'l' | shard 2 | leaf 4                    sum 16 | entries, tombstones uvarint
//	'm' | name                                meta
//
// The garbage index lists what may be purged one day, in the order in which it
// may: tombstones by their stamp, expiring entries by the later of their stamps
// and their expiry. So the cost of a purge grows with what it purges.
const (
	prefixData    = 'd'
	prefixGarbage = 'g'
	prefixLeaf    = 'l'
	prefixMeta    = 'm'
)

const dataHead = 1 + 2 + 8

func appendShard(dst []byte, prefix byte, shard int) []byte {
	dst = append(dst, prefix)
	return binary.BigEndian.AppendUint16(dst, uint16(shard))
}

func appendDataKey(dst []byte, shard int, token ring.Token, key []byte) []byte {
	dst = appendShard(dst, prefixData, shard)
	dst = binary.BigEndian.AppendUint64(dst, uint64(token))
	return append(dst, key...)
}

// dataRange returns the bounds of the rows with first <= token <= last.
func dataRange(shard int, first, last ring.Token) (lower, upper []byte) {
	return appendDataKey(nil, shard, first, nil), appendDataKey(nil, shard, last+1, nil)
}

func splitDataKey(k []byte) (token ring.Token, key []byte, err error) {
	if len(k) <= dataHead {
		return 0, nil, fmt.Errorf("storage: a data row has a key of %d bytes", len(k))
	}
	return ring.Token(binary.BigEndian.Uint64(k[3:])), k[dataHead:], nil
}

// appendGarbageKey appends the index row of an entry, if it has one.
func appendGarbageKey(dst []byte, shard int, token ring.Token, e lww.Entry) (key []byte, indexed bool) {
	at, ok := purgeableAt(e.Version)
	if !ok {
		return dst, false
	}
	dst = appendShard(dst, prefixGarbage, shard)
	dst = binary.BigEndian.AppendUint64(dst, uint64(at))
	dst = binary.BigEndian.AppendUint64(dst, uint64(token))
	return append(dst, e.Key...), true
}

// purgeableAt returns the stamp that a purge cut must reach before it covers a
// version.
func purgeableAt(v lww.Version) (hlc.Stamp, bool) {
	if v.Tombstone {
		return v.Stamp, true
	}
	if at, ok := v.ExpiresAt(); ok {
		return max(v.Newest(), hlc.FromTime(at)), true
	}
	return 0, false
}

func appendLeafKey(dst []byte, shard int, leaf merkle.Node) []byte {
	dst = appendShard(dst, prefixLeaf, shard)
	return binary.BigEndian.AppendUint32(dst, uint32(leaf.Path))
}

// leafRow is a stored leaf: its digest, and how many of its entries are
// tombstones, which only this replica's statistics need.
type leafRow struct {
	digest     merkle.Digest
	tombstones uint64
}

func (l leafRow) append(dst []byte) []byte {
	dst = l.digest.Sum.Append(dst)
	dst = binary.AppendUvarint(dst, l.digest.Count)
	return binary.AppendUvarint(dst, l.tombstones)
}

var errLeafRow = errors.New("storage: a leaf row is malformed")

func decodeLeafRow(b []byte) (l leafRow, err error) {
	if len(b) < merkle.SumBytes {
		return l, errLeafRow
	}
	l.digest.Sum = merkle.SumFrom(b)
	b = b[merkle.SumBytes:]
	count, n := binary.Uvarint(b)
	if n <= 0 {
		return l, errLeafRow
	}
	tombstones, m := binary.Uvarint(b[n:])
	if m <= 0 || n+m != len(b) {
		return l, errLeafRow
	}
	l.digest.Count, l.tombstones = count, tombstones
	return l, nil
}

func appendMetaKey(dst []byte, name string) []byte {
	dst = append(dst, prefixMeta)
	return append(dst, name...)
}
