package merkle

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"sync"

	"github.com/dchest/siphash"

	"syntropy/lww"
	"syntropy/ring"
)

// DigestVersion names what a digest is taken of and how. Nodes that compare
// digests must use the same one.
const DigestVersion = 1

// SumBytes is the size of an encoded Sum.
const SumBytes = 16

// Sum is a 128-bit number that adds up: the sum of a node is the sum of the
// sums of its entries, modulo 2^128.
//
// Addition rather than exclusive or, because with XOR any entry counted twice
// vanishes; 128 bits of a keyed hash, because 64 unkeyed bits can be forged.
type Sum struct{ Hi, Lo uint64 }

// Plus returns s+o.
func (s Sum) Plus(o Sum) Sum {
	lo, carry := bits.Add64(s.Lo, o.Lo, 0)
	hi, _ := bits.Add64(s.Hi, o.Hi, carry)
	return Sum{hi, lo}
}

// Minus returns s-o.
func (s Sum) Minus(o Sum) Sum {
	lo, borrow := bits.Sub64(s.Lo, o.Lo, 0)
	hi, _ := bits.Sub64(s.Hi, o.Hi, borrow)
	return Sum{hi, lo}
}

// String prints 32 hex digits.
func (s Sum) String() string { return hex.EncodeToString(s.Append(nil)) }

// Append appends the SumBytes bytes of s.
func (s Sum) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, s.Hi)
	return binary.BigEndian.AppendUint64(dst, s.Lo)
}

// SumFrom reads a sum from the first SumBytes bytes of b.
func SumFrom(b []byte) Sum {
	return Sum{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// Digest is what a tree knows of the entries under one node. The digest of a
// node is the sum of the digests of its children, in every field; more additive
// words can join it without changing anything else.
type Digest struct {
	Sum   Sum
	Count uint64 // entries, tombstones included
}

// Plus returns d+o.
func (d Digest) Plus(o Digest) Digest { return Digest{d.Sum.Plus(o.Sum), d.Count + o.Count} }

// Minus returns d-o.
func (d Digest) Minus(o Digest) Digest { return Digest{d.Sum.Minus(o.Sum), d.Count - o.Count} }

// Hasher computes the digest of single entries under a cluster's secret. It is
// safe for concurrent use.
type Hasher struct{ k0, k1, v0, v1 uint64 }

// NewHasher derives the key for digests from the cluster's secret.
func NewHasher(secret [32]byte) *Hasher {
	h := new(Hasher)
	h.k0, h.k1 = ring.DeriveKey(secret, "digest v1")
	h.v0, h.v1 = ring.DeriveKey(secret, "value v1")
	return h
}

// hashInput holds buffers for the bytes that a digest covers. Buffers of large
// values are not kept.
var hashInput = sync.Pool{New: func() any { return new([]byte) }}

const maxKeptInput = 64 << 10

// Entry returns the digest of one entry: SipHash-2-4 with 128 bits of output
// over the key's length, the key and the row (every field of the entry, the
// value included). Without the value, rot and two writes of one stamp would be
// invisible.
func (h *Hasher) Entry(e lww.Entry) Digest {
	buf := hashInput.Get().(*[]byte)
	b := lww.AppendEntry((*buf)[:0], e)
	hi, lo := siphash.Hash128(h.k0, h.k1, b)
	if cap(b) <= maxKeptInput {
		*buf = b
		hashInput.Put(buf)
	}
	return Digest{Sum: Sum{hi, lo}, Count: 1}
}

// Value returns a keyed 64-bit hash of a value alone, by which two replicas
// find out that they hold the same value without sending it.
func (h *Hasher) Value(value []byte) uint64 { return siphash.Hash(h.v0, h.v1, value) }
