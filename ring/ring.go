// Package ring says where a key belongs: its slot, its shard and its token.
//
// # Idea
//
// Every key has a place on two scales that have nothing to do with each other:
//
//   - Its [Slot], the one that Redis Cluster computes, so that cluster-aware
//     clients can send a command to a node that holds the key. A shard is a
//     contiguous range of slots and the unit that is placed, repaired and
//     rebuilt.
//   - Its [Token], a keyed hash that spreads the keys of a shard evenly over
//     the leaves of the shard's Merkle tree. The 60 bits are 15 nibbles, the
//     path from the root of a 16-ary tree. Rows are stored in token order, so
//     each subtree is one contiguous range on disk.
//
// The token is keyed with the cluster's secret: without it, nobody can choose
// keys that pile up in one leaf.
//
// # Caveats
//
// Two keys may share a token. A token names all keys under it.
package ring

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/dchest/siphash"
)

// Slots is the number of slots, as in Redis Cluster.
const Slots = 16384

// Slot returns the slot of a key: CRC16 (XMODEM) modulo Slots, taken of the
// part between the first '{' and the next '}' if that part is not empty (a hash
// tag), else of the whole key. Keys with one hash tag share a slot.
func Slot(key []byte) int {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		if n := bytes.IndexByte(key[open+1:], '}'); n > 0 {
			key = key[open+1 : open+1+n]
		}
	}
	var crc uint16
	for _, b := range key {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^b]
	}
	return int(crc) % Slots
}

// crcTable is the table of the polynomial x^16 + x^12 + x^5 + 1.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()

// ShardOf returns the shard of a slot when there are shards of them, a power of
// two of at most Slots.
func ShardOf(slot, shards int) int { return slot * shards / Slots }

// Shape of a token.
const (
	TokenNibbles = 15
	TokenBits    = 4 * TokenNibbles
	MaxToken     = Token(1<<TokenBits - 1)
)

// Token is a 60-bit keyed hash of a key.
type Token uint64

// String prints the 15 nibbles.
func (t Token) String() string { return fmt.Sprintf("%015x", uint64(t)) }

// Nibble returns the branch taken below the given level: level 0 is the root.
func (t Token) Nibble(level int) int {
	return int(t>>(TokenBits-4*(level+1))) & 15
}

// Tokens computes tokens under one cluster's secret. It is safe for concurrent
// use.
type Tokens struct{ k0, k1 uint64 }

// NewTokens derives the key for tokens from the cluster's secret.
func NewTokens(secret [32]byte) Tokens {
	k0, k1 := DeriveKey(secret, "token v1")
	return Tokens{k0, k1}
}

// Of returns the token of a key.
func (t Tokens) Of(key []byte) Token {
	return Token(siphash.Hash(t.k0, t.k1, key) >> (64 - TokenBits))
}

// PositionBits is the length of a position.
const PositionBits = TokenBits

// MaxPosition is the last position of the last shard.
const MaxPosition = Position(MaxToken)

// Position is the place of a key among all keys: the bits of its shard, then as
// many of its token as fit into 60 bits. Rows in the order of shard and token are
// in the order of positions, a shard is one contiguous range of them, and so is
// every subtree of its Merkle tree. The tokens that share a position, 2^8 of them
// with 256 shards, are neighbours.
type Position uint64

// String prints 15 hex digits.
func (x Position) String() string { return fmt.Sprintf("%015x", uint64(x)) }

// ShardBits is the number of bits of a position that tell the shard, for a
// number of shards that is a power of two.
func ShardBits(shards int) int { return bits.TrailingZeros(uint(shards)) }

// At returns the position of a token in a shard.
func At(shard int, t Token, shards int) Position {
	b := ShardBits(shards)
	return Position(shard)<<(PositionBits-b) | Position(t)>>b
}

// Shard returns the shard in which a position is.
func (x Position) Shard(shards int) int { return int(x >> (PositionBits - ShardBits(shards))) }

// Tokens returns the first and the last token of a position.
func (x Position) Tokens(shards int) (first, last Token) {
	b := ShardBits(shards)
	first = Token(x) << b & MaxToken
	return first, first | (1<<b - 1)
}

// DeriveKey returns a 128-bit key for one purpose. Every purpose has its own
// key, so that what leaks from one use says nothing about another.
func DeriveKey(secret [32]byte, purpose string) (k0, k1 uint64) {
	sum := sha256.Sum256(append([]byte("syntropy "+purpose+"\x00"), secret[:]...))
	return binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])
}
