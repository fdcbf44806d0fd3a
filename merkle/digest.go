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
const DigestVersion = 2

// SumBytes is the size of an encoded Sum.
const SumBytes = 16

// Sum is the keyed 128-bit hash of an entry, or the sum of such hashes modulo
// 2^128.
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

// Fingerprint returns the element of the field that stands for an entry in a
// syndrome, never zero. Salt zero is what trees are made of. Two entries that
// share a fingerprint under one salt, by chance once in 2^61 pairs, differ under
// another: a session uses it to find what the trees cannot show.
func (s Sum) Fingerprint(salt uint8) uint64 {
	v := s.Hi
	if salt > 0 {
		// Any function of all 128 bits will do: they are a keyed hash already.
		hi, lo := bits.Mul64(s.Lo|1, s.Hi^(uint64(salt)*0x9e3779b97f4a7c15))
		v = hi ^ lo ^ s.Lo
	}
	if f := reduce(v >> 3); f != 0 {
		return f
	}
	return 1
}

// Digest is what is known of a whole tree. Each of its fields is a sum over the
// entries, and digests add up field by field.
type Digest struct {
	Sum      Sum
	Count    uint64 // entries, tombstones included
	Syndrome Syndrome
}

// DigestOf returns the digest of a single entry: its position and its hash.
func DigestOf(x ring.Position, s Sum) Digest {
	return Digest{Sum: s, Count: 1, Syndrome: SyndromeOf(x, s.Fingerprint(0))}
}

// Plus returns d+o.
func (d Digest) Plus(o Digest) Digest {
	return Digest{d.Sum.Plus(o.Sum), d.Count + o.Count, d.Syndrome.Plus(o.Syndrome)}
}

// Minus returns d-o.
func (d Digest) Minus(o Digest) Digest {
	return Digest{d.Sum.Minus(o.Sum), d.Count - o.Count, d.Syndrome.Minus(o.Syndrome)}
}

// Hasher computes the hashes of entries under a cluster's secret. It is safe for
// concurrent use.
type Hasher struct{ k0, k1, v0, v1 uint64 }

// NewHasher derives the keys of the hashes from the cluster's secret.
func NewHasher(secret [32]byte) *Hasher {
	h := new(Hasher)
	h.k0, h.k1 = ring.DeriveKey(secret, "digest v1")
	h.v0, h.v1 = ring.DeriveKey(secret, "value v1")
	return h
}

// hashInput holds buffers for the bytes that a hash covers. Buffers of large
// values are not kept.
var hashInput = sync.Pool{New: func() any { return new([]byte) }}

const maxKeptInput = 64 << 10

// Entry returns the hash of an entry: SipHash-2-4 with 128 bits of output over
// the key's length, the key and the row (every field of the entry, the value
// included). Without the value, rot and two writes of one stamp would be
// invisible.
func (h *Hasher) Entry(e lww.Entry) Sum {
	buf := hashInput.Get().(*[]byte)
	b := lww.AppendEntry((*buf)[:0], e)
	hi, lo := siphash.Hash128(h.k0, h.k1, b)
	if cap(b) <= maxKeptInput {
		*buf = b
		hashInput.Put(buf)
	}
	return Sum{hi, lo}
}

// Bytes returns a keyed 64-bit hash of a key or a value alone, by which two
// replicas find out that they hold the same one without sending it.
func (h *Hasher) Bytes(b []byte) uint64 { return siphash.Hash(h.v0, h.v1, b) }
