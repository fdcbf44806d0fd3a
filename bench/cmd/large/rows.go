package main

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/ring"
)

// keyBytes is the length of every key.
const keyBytes = 20

// rows knows the order of all rows: by shard, then by token.
type rows struct {
	valueBytes int
	shards     [][]row
}

type row struct {
	token  ring.Token
	number uint32
}

func putKey(dst []byte, number uint32) []byte {
	dst = append(dst[:0], "user:000000000000000"...)
	for i := keyBytes - 1; number > 0; i-- {
		dst[i] = byte('0' + number%10)
		number /= 10
	}
	return dst
}

// arrange sorts rows as a store keeps them.
func arrange(o options, locate func(key []byte) (int, ring.Token)) rows {
	r := rows{valueBytes: o.valueBytes, shards: make([][]row, o.shards)}
	for s := range r.shards {
		r.shards[s] = make([]row, 0, o.rows/o.shards*11/10)
	}
	key := make([]byte, 0, keyBytes)
	for n := range uint32(o.rows) {
		key = putKey(key, n)
		s, t := locate(key)
		r.shards[s] = append(r.shards[s], row{t, n})
	}
	for _, s := range r.shards {
		slices.SortFunc(s, func(a, b row) int { return cmp.Compare(a.token, b.token) })
	}
	return r
}

// written is when the rows were written, long before any session.
var written = hlc.FromTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

// entry makes a row, in a version: 0 is the load, others overwrite it. Its value is
// bytes that no compression makes smaller. It points into buffers that the next
// call overwrites.
func (r rows) entry(b *buffers, number uint32, version int) lww.Entry {
	b.key, b.value = putKey(b.key, number), b.value[:0]
	for x := uint64(number)<<8 | uint64(version); len(b.value) < r.valueBytes; {
		x = mix(x)
		b.value = binary.LittleEndian.AppendUint64(b.value, x)
	}
	stamp := written.Add(time.Duration(number) * time.Microsecond).Add(time.Duration(version) * time.Hour)
	return lww.Entry{Key: b.key, Value: b.value[:r.valueBytes], Version: lww.Version{Stamp: stamp, Node: 1}}
}

type buffers struct{ key, value []byte }

// mix is one step of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
