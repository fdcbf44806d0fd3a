package merkle

import (
	"encoding/binary"

	"syntropy/ring"
)

// Syndrome is what a node of the tree holds: the sums, over the entries under
// it, of f, x*f, x^2*f and x^3*f in the field of 2^61-1 elements, where x is the
// entry's position and f its fingerprint. Syndromes of disjoint sets add up.
//
// The name is that of coding theory: these are the power sums by which a decoder
// of a Reed-Solomon code locates errors. The difference of two replicas'
// syndromes is the syndrome of what differs between them, and [Syndrome.Decode]
// locates one or two differing positions in it. See Minsky, Trachtenberg and
// Zippel, "Set Reconciliation with Nearly Optimal Communication Complexity"
// (2003), for the idea of comparing sets as one compares code words.
type Syndrome [4]uint64

// SyndromeBytes is the size of an encoded Syndrome: 4 times 61 bits, rounded up.
const SyndromeBytes = 31

// SyndromeOf returns the syndrome of one entry, at x with the fingerprint f, or
// of the change of an entry by f.
func SyndromeOf(x ring.Position, f uint64) Syndrome {
	f1 := mulMod(f, uint64(x))
	f2 := mulMod(f1, uint64(x))
	return Syndrome{f, f1, f2, mulMod(f2, uint64(x))}
}

// Plus returns s+o.
func (s Syndrome) Plus(o Syndrome) Syndrome {
	return Syndrome{addMod(s[0], o[0]), addMod(s[1], o[1]), addMod(s[2], o[2]), addMod(s[3], o[3])}
}

// Minus returns s-o.
func (s Syndrome) Minus(o Syndrome) Syndrome {
	return Syndrome{subMod(s[0], o[0]), subMod(s[1], o[1]), subMod(s[2], o[2]), subMod(s[3], o[3])}
}

// IsZero reports whether s is the syndrome of nothing.
func (s Syndrome) IsZero() bool { return s == Syndrome{} }

// Valid reports whether all words are elements of the field, as those of every
// syndrome are.
func (s Syndrome) Valid() bool {
	return s[0] < prime && s[1] < prime && s[2] < prime && s[3] < prime
}

// Append appends the SyndromeBytes bytes of s: the words packed without gaps,
// the first one lowest, in little-endian order.
func (s Syndrome) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, s[0]|s[1]<<61)
	dst = binary.LittleEndian.AppendUint64(dst, s[1]>>3|s[2]<<58)
	dst = binary.LittleEndian.AppendUint64(dst, s[2]>>6|s[3]<<55)
	return append(dst, byte(s[3]>>9), byte(s[3]>>17), byte(s[3]>>25), byte(s[3]>>33), byte(s[3]>>41), byte(s[3]>>49), byte(s[3]>>57))
}

// SyndromeFrom reads a syndrome from the first SyndromeBytes bytes of b. It may
// be one that is not Valid.
func SyndromeFrom(b []byte) Syndrome {
	const word = 1<<61 - 1
	a, c, d := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	// The last word ends with the last byte: read the eight bytes up to there.
	e := binary.LittleEndian.Uint64(b[SyndromeBytes-8:]) >> 8
	return Syndrome{
		a & word,
		(a>>61 | c<<3) & word,
		(c>>58 | d<<6) & word,
		d>>55 | e<<9&word,
	}
}

// AtMostOne reports whether a difference looks like that of at most one
// position: what Decode finds out first, without finding out where.
func (d Syndrome) AtMostOne() bool {
	return mulMod(d[0], d[2]) == mulMod(d[1], d[1]) && mulMod(d[1], d[3]) == mulMod(d[2], d[2])
}

// Change is one term of a decoded syndrome: at X the two sides' fingerprints
// differ by F, ours minus theirs.
type Change struct {
	X ring.Position
	F uint64
}

// Decode takes d for the difference of two syndromes of a node and returns the
// positions at which the two sides differ, if they are one or two. ok is false if
// they are more.
//
// If exactly one or two positions differ, the answer is right. If more do, it is
// false by accident: as a single one once in 2^(b+123) cases, as a pair once in
// 2^(2b+3), b being the length of the node's path: of all quadratic equations half
// have roots, and each root is under the node once in 2^(b+1), the field having
// twice as many elements as there are positions. So whoever needs to know
// confirms what it names.
//
// With one difference the four words are a geometric series, and its ratio is
// the position. With two, at x and y, the words obey d[k+2] = (x+y)*d[k+1] -
// x*y*d[k]; the two equations for k = 0 and 1 give sum and product, and a
// quadratic equation x and y. This is the decoder of Peterson (1960) for two
// errors, with the error locator solved in closed form.
func (d Syndrome) Decode(n Node) (changes [2]Change, count int, ok bool) {
	if d.IsZero() {
		return changes, 0, true
	}
	if mulMod(d[0], d[2]) == mulMod(d[1], d[1]) {
		if d[0] == 0 {
			return changes, 0, false
		}
		x := mulMod(d[1], inverse(d[0]))
		if mulMod(d[2], x) != d[3] || !n.holds(x) {
			return changes, 0, false
		}
		return [2]Change{{ring.Position(x), d[0]}}, 1, true
	}
	det := inverse(subMod(mulMod(d[0], d[2]), mulMod(d[1], d[1])))
	sum := mulMod(subMod(mulMod(d[0], d[3]), mulMod(d[1], d[2])), det)
	product := mulMod(subMod(mulMod(d[1], d[3]), mulMod(d[2], d[2])), det)
	four := addMod(addMod(product, product), addMod(product, product))
	root, square := squareRoot(subMod(mulMod(sum, sum), four))
	if !square || root == 0 {
		return changes, 0, false
	}
	x, y := half(addMod(sum, root)), half(subMod(sum, root))
	if !n.holds(x) || !n.holds(y) {
		return changes, 0, false
	}
	fx := mulMod(subMod(d[1], mulMod(y, d[0])), inverse(subMod(x, y)))
	fy := subMod(d[0], fx)
	if fx == 0 || fy == 0 {
		return changes, 0, false
	}
	return [2]Change{{ring.Position(x), fx}, {ring.Position(y), fy}}, 2, true
}

// holds reports whether an element of the field is a position under n.
func (n Node) holds(x uint64) bool {
	return x <= uint64(ring.MaxPosition) && n.Contains(ring.Position(x))
}
