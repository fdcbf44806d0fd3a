package storage

import (
	"sync"
	"unsafe"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// DefaultVersionBytes is enough for a million keys.
const DefaultVersionBytes = 64 << 20

// versions remembers the present version and hash of many keys, so that most
// writes read nothing. To find a row in the engine, cached as it may be, takes as
// long as all the rest of a write; here it takes two cache lines.
//
// What is in it is what the engine has: only commits put something in, under the
// store's lock and before the stripe of the key counts them. A key with an expiry
// is left out, and so is one that was never written since the store was opened:
// then the row is read.
//
// A key is known by shard, token and another keyed hash, 138 bits in all.
type versions struct {
	buckets []bucket
	locks   [256]sync.Mutex
}

// bucket holds four keys: their tokens in one line of the processor's cache, and
// the rest behind.
type bucket struct {
	tokens [bucketKeys]uint64 // plus one; zero is free
	known  [bucketKeys]known
}

const bucketKeys = 4

type known struct {
	check     uint64
	stamp     hlc.Stamp
	sum       merkle.Sum
	node      hlc.NodeID
	shard     uint16
	tombstone bool
}

// newVersions returns one that takes about so many bytes, which are outside of the
// heap: a collector that reckons with them would let as much garbage pile up.
func newVersions(bytes int64) *versions {
	n := 1
	for int64(2*n)*int64(unsafe.Sizeof(bucket{})) <= bytes {
		n *= 2
	}
	v := new(versions)
	if !v.mapBuckets(n) {
		v.buckets = make([]bucket, n)
	}
	return v
}

func (v *versions) lock(o *offer) (*bucket, *sync.Mutex) {
	i := (uint64(o.token) ^ uint64(o.shard)<<20) & uint64(len(v.buckets)-1)
	lock := &v.locks[i%uint64(len(v.locks))]
	lock.Lock()
	return &v.buckets[i], lock
}

// slot returns the place of a key in its bucket.
func (b *bucket) slot(o *offer) (i int, ok bool) {
	for i, token := range b.tokens {
		if k := &b.known[i]; token == uint64(o.token)+1 && k.check == o.check && k.shard == uint16(o.shard) {
			return i, true
		}
	}
	return 0, false
}

// meet sets what an offer meets, if it is known and the order of the two does not
// hang on the value.
func (v *versions) meet(o *offer) (ok bool) {
	b, lock := v.lock(o)
	defer lock.Unlock()
	i, ok := b.slot(o)
	if !ok {
		return false
	}
	k := &b.known[i]
	old := lww.Version{Stamp: k.stamp, Node: k.node, Tombstone: k.tombstone}
	order, ok := lww.CompareVersions(o.Version, old, o.sum == k.sum && o.sum != merkle.Sum{})
	if ok {
		o.met = held{found: true, order: order, Version: old, sum: k.sum}
	}
	return ok
}

// put remembers the version that the key of an offer has now.
func (v *versions) put(o *offer, now lww.Version, sum merkle.Sum) {
	b, lock := v.lock(o)
	defer lock.Unlock()
	i, ok := b.slot(o)
	if now.ExpiryStamp != 0 || now.ExpiryNode != 0 || now.Expires != 0 {
		if ok {
			b.tokens[i] = 0
		}
		return
	}
	for j := 0; !ok && j < bucketKeys; j++ {
		if b.tokens[j] == 0 {
			i, ok = j, true
		}
	}
	if !ok {
		i = int(o.check % bucketKeys) // some key has to go
	}
	b.tokens[i] = uint64(o.token) + 1
	b.known[i] = known{o.check, now.Stamp, sum, now.Node, uint16(o.shard), now.Tombstone}
}

// clear forgets all keys.
func (v *versions) clear() {
	for i := range v.locks {
		v.locks[i].Lock()
	}
	clear(v.buckets)
	for i := range v.locks {
		v.locks[i].Unlock()
	}
}
