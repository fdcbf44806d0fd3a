package merkle

import "math/bits"

// prime is 2^61-1. Sums of syndromes are taken in the field of this many
// elements: a product of two of them is reduced with two shifts, and a 60-bit
// position is an element as it is.
const prime = 1<<61 - 1

// reduce brings a number below 2^62 into the field.
func reduce(a uint64) uint64 {
	a = a&prime + a>>61
	if a >= prime {
		a -= prime
	}
	return a
}

func addMod(a, b uint64) uint64 {
	if a += b; a >= prime {
		a -= prime
	}
	return a
}

func subMod(a, b uint64) uint64 {
	if a < b {
		a += prime
	}
	return a - b
}

func mulMod(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return reduce(lo&prime + (hi<<3 | lo>>61))
}

// squareTimes squares a n times.
func squareTimes(a uint64, n int) uint64 {
	for range n {
		a = mulMod(a, a)
	}
	return a
}

// inverse returns 1/a for a other than zero: a^(p-2), by Fermat.
func inverse(a uint64) uint64 {
	// p-2 = 2^61-3 = (2^59-1)*4 + 1. chain(k) = a^(2^k-1) doubles with
	// chain(2k) = chain(k)^(2^k) * chain(k).
	c1 := a
	c2 := mulMod(squareTimes(c1, 1), c1)
	c4 := mulMod(squareTimes(c2, 2), c2)
	c8 := mulMod(squareTimes(c4, 4), c4)
	c16 := mulMod(squareTimes(c8, 8), c8)
	c32 := mulMod(squareTimes(c16, 16), c16)
	c48 := mulMod(squareTimes(c32, 16), c16)
	c56 := mulMod(squareTimes(c48, 8), c8)
	c58 := mulMod(squareTimes(c56, 2), c2)
	c59 := mulMod(squareTimes(c58, 1), c1)
	return mulMod(squareTimes(c59, 2), a)
}

// squareRoot returns a root of a, if it has one. The prime is 3 modulo 4, so a
// root is a^((p+1)/4) = a^(2^59).
func squareRoot(a uint64) (root uint64, ok bool) {
	root = squareTimes(a, 59)
	return root, mulMod(root, root) == a
}

// half returns a/2.
func half(a uint64) uint64 {
	if a&1 != 0 {
		a += prime
	}
	return a >> 1
}
