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
// rows sort by shard, then token, then key, which is the order of positions: a
// subtree of a shard's Merkle tree is one contiguous range, and so is a shard.
//
//	'd' | shard 2 | token 8 | key             the entry (package lww, AppendRow)
//	'g' | shard 2 | stamp 8 | token 8 | key   nothing: the garbage index
//	'l' | shard 2 | bits 1 | path 8           syndrome 31, of a leaf of the tree
//	's' | shard 2                             sum 16 | newest 8 | entries, tombstones, leaves uvarint
//	'm' | name                                meta
//
// Bits and path are those of the leaf's merkle.Node, counted from the root over
// all shards. A leaf whose syndrome is zero has no row, and a shard that was never
// written to has no totals ('s'). Newest is the greatest stamp that any entry of
// the shard ever had (Store.RecentFloor begins there).
//
// The garbage index lists what may be purged one day, in the order in which it
// may: tombstones by their stamp, expiring entries by the later of their stamps
// and their expiry. So the cost of a purge grows with what it purges.
const (
	prefixData    = 'd'
	prefixGarbage = 'g'
	prefixLeaf    = 'l'
	prefixMeta    = 'm'
	prefixTotals  = 's'
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
	dst = append(dst, leaf.Bits)
	return binary.BigEndian.AppendUint64(dst, leaf.Path)
}

var (
	errLeafRow   = errors.New("storage: a leaf row is malformed: the store is damaged, restore it or start from an empty directory")
	errTotalsRow = errors.New("storage: a totals row is malformed: the store is damaged, restore it or start from an empty directory")
)

func decodeLeaf(k, v []byte) (shard int, leaf merkle.Node, s merkle.Syndrome, err error) {
	if len(k) != 1+2+1+8 || len(v) != merkle.SyndromeBytes {
		return 0, leaf, s, errLeafRow
	}
	shard = int(binary.BigEndian.Uint16(k[1:]))
	leaf = merkle.Node{Bits: k[3], Path: binary.BigEndian.Uint64(k[4:])}
	s = merkle.SyndromeFrom(v)
	if !leaf.Valid() || !s.Valid() || s.IsZero() {
		return 0, leaf, s, errLeafRow
	}
	return shard, leaf, s, nil
}

func appendTotalsKey(dst []byte, shard int) []byte { return appendShard(dst, prefixTotals, shard) }

// totals is what a shard is known by besides its leaves.
type totals struct {
	sum        merkle.Sum
	newest     hlc.Stamp
	entries    uint64 // tombstones included
	tombstones uint64
	leaves     uint64
}

func (t totals) append(dst []byte) []byte {
	dst = t.sum.Append(dst)
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.newest))
	dst = binary.AppendUvarint(dst, t.entries)
	dst = binary.AppendUvarint(dst, t.tombstones)
	return binary.AppendUvarint(dst, t.leaves)
}

// moreLeaves bounds the leaves that a tree may have beyond its entries. Splitting
// never makes more leaves than there are entries, but merging follows deletes
// (Options.PhysicalDelete) at a distance. It keeps a damaged number from asking
// for all memory.
const moreLeaves = 1 << 20

func decodeTotals(k, v []byte) (shard int, t totals, err error) {
	if len(k) != 1+2 || len(v) < merkle.SumBytes+8 {
		return 0, t, errTotalsRow
	}
	shard = int(binary.BigEndian.Uint16(k[1:]))
	t.sum = merkle.SumFrom(v)
	t.newest = hlc.Stamp(binary.BigEndian.Uint64(v[merkle.SumBytes:]))
	v = v[merkle.SumBytes+8:]
	for _, field := range []*uint64{&t.entries, &t.tombstones, &t.leaves} {
		x, n := binary.Uvarint(v)
		if n <= 0 {
			return 0, t, errTotalsRow
		}
		*field, v = x, v[n:]
	}
	switch {
	case len(v) > 0, t.tombstones > t.entries:
		return 0, t, errTotalsRow
	case t.leaves == 0, t.leaves > 1<<merkle.MaxDepth, t.leaves > moreLeaves && t.leaves-moreLeaves > t.entries:
		return 0, t, errTotalsRow
	case t.entries == 0 && t.sum != merkle.Sum{}:
		return 0, t, errTotalsRow
	}
	return shard, t, nil
}

func appendMetaKey(dst []byte, name string) []byte {
	dst = append(dst, prefixMeta)
	return append(dst, name...)
}
