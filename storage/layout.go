package storage

import (
	"encoding/binary"
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
//	'm' | name                                meta
//	't' | number 8                            the tree log: what one commit did to the trees
//	'c'                                       number 8 | newest 8, of the last checkpoint
//	's' | number 8 | shard 2                  sum 16 | entries, tombstones, leaves uvarint
//	'l' | number 8 | shard 2 | first 4        syndromes 31 each, of up to 64 leaves
//
// The trees live in memory. On disk they are a checkpoint, the rows 's' and 'l'
// under the number that the row 'c' has, and the rows 't' with greater numbers,
// one for every commit since; treelog.go draws those. A shard without a row 's'
// has an empty tree. The leaves of a shard are in the order of positions, first
// counts those before the row.
//
// The garbage index lists what may be purged one day, in the order in which it
// may: tombstones by their stamp, expiring entries by the later of their stamps
// and their expiry. So the cost of a purge grows with what it purges.
const (
	prefixCheckpoint = 'c'
	prefixData       = 'd'
	prefixGarbage    = 'g'
	prefixLeaves     = 'l'
	prefixMeta       = 'm'
	prefixTotals     = 's'
	prefixTreeLog    = 't'
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
func appendGarbageKey(dst []byte, shard int, token ring.Token, key []byte, v lww.Version) (row []byte, indexed bool) {
	at, ok := purgeableAt(v)
	if !ok {
		return dst, false
	}
	dst = appendShard(dst, prefixGarbage, shard)
	dst = binary.BigEndian.AppendUint64(dst, uint64(at))
	dst = binary.BigEndian.AppendUint64(dst, uint64(token))
	return append(dst, key...), true
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

// appendNumbered appends the key of a row that belongs to a commit: one of the
// tree log, or the beginning of those of a checkpoint.
func appendNumbered(dst []byte, prefix byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefix), number)
}

func appendTotalsKey(dst []byte, number uint64, shard int) []byte {
	return binary.BigEndian.AppendUint16(appendNumbered(dst, prefixTotals, number), uint16(shard))
}

func appendLeavesKey(dst []byte, number uint64, shard int, first uint64) []byte {
	dst = binary.BigEndian.AppendUint16(appendNumbered(dst, prefixLeaves, number), uint16(shard))
	return binary.BigEndian.AppendUint32(dst, uint32(first))
}

// damaged is the error of rows that nobody can have written.
func damaged(format string, args ...any) error {
	return fmt.Errorf("storage: "+format+": the store is damaged, restore it or start from an empty directory", args...)
}

// totals is what a shard is known by besides its leaves.
type totals struct {
	sum        merkle.Sum
	entries    uint64 // tombstones included
	tombstones uint64
	leaves     uint64
}

func (t totals) append(dst []byte) []byte {
	dst = t.sum.Append(dst)
	dst = binary.AppendUvarint(dst, t.entries)
	dst = binary.AppendUvarint(dst, t.tombstones)
	return binary.AppendUvarint(dst, t.leaves)
}

// moreLeaves bounds the leaves that a tree may have beyond its entries. Splitting
// never makes more leaves than there are entries, but merging follows deletes
// (Options.PhysicalDelete) at a distance. It keeps a damaged number from asking
// for all memory.
const moreLeaves = 1 << 20

func decodeTotals(v []byte) (t totals, ok bool) {
	if len(v) < merkle.SumBytes {
		return t, false
	}
	t.sum = merkle.SumFrom(v)
	v = v[merkle.SumBytes:]
	for _, field := range []*uint64{&t.entries, &t.tombstones, &t.leaves} {
		x, n := binary.Uvarint(v)
		if n <= 0 {
			return t, false
		}
		*field, v = x, v[n:]
	}
	switch {
	case len(v) > 0, t.tombstones > t.entries:
		return t, false
	case t.leaves == 0, t.leaves > 1<<merkle.MaxDepth, t.leaves > moreLeaves && t.leaves-moreLeaves > t.entries:
		return t, false
	case t.entries == 0 && t.sum != merkle.Sum{}:
		return t, false
	}
	return t, true
}

func appendMetaKey(dst []byte, name string) []byte {
	dst = append(dst, prefixMeta)
	return append(dst, name...)
}
