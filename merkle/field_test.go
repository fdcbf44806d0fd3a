package merkle

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

var bigPrime = new(big.Int).SetUint64(prime)

func number(a uint64) *big.Int { return new(big.Int).SetUint64(a) }

// elements draws elements of the field, those at its edges more often.
var elements = rapid.OneOf(
	rapid.Uint64Max(prime-1),
	rapid.SampledFrom([]uint64{0, 1, 2, 3, prime - 1, prime - 2, prime / 2, prime/2 + 1, 1 << 60, 1<<60 - 1}),
)

// TestFieldAgainstBig compares the arithmetic with that of package big.
func TestFieldAgainstBig(t *testing.T) {
	if !bigPrime.ProbablyPrime(40) {
		t.Fatal("2^61-1 is not prime")
	}
	mod := func(x *big.Int) uint64 { return x.Mod(x, bigPrime).Uint64() }
	rapid.Check(t, func(t *rapid.T) {
		a, b := elements.Draw(t, "a"), elements.Draw(t, "b")
		for name, tc := range map[string]struct {
			got  uint64
			want *big.Int
		}{
			"sum":        {addMod(a, b), new(big.Int).Add(number(a), number(b))},
			"difference": {subMod(a, b), new(big.Int).Sub(number(a), number(b))},
			"product":    {mulMod(a, b), new(big.Int).Mul(number(a), number(b))},
			"square":     {squareTimes(a, 1), new(big.Int).Mul(number(a), number(a))},
		} {
			if want := mod(tc.want); tc.got != want {
				t.Fatalf("the %s of %d and %d is %d, want %d", name, a, b, tc.got, want)
			}
		}
		if h := half(a); h >= prime || addMod(h, h) != a {
			t.Fatalf("half of %d is %d", a, h)
		}
		if a != 0 {
			if got, want := inverse(a), new(big.Int).ModInverse(number(a), bigPrime); got != want.Uint64() {
				t.Fatalf("1/%d is %d, want %d", a, got, want)
			}
		}
		root, ok := squareRoot(a)
		if want := big.Jacobi(number(a), bigPrime) >= 0; ok != want {
			t.Fatalf("%d is a square: %v, want %v", a, ok, want)
		}
		if ok && mulMod(root, root) != a {
			t.Fatalf("%d squared is not %d", root, a)
		}
		n := rapid.IntRange(0, 130).Draw(t, "n")
		if got, want := squareTimes(a, n), new(big.Int).Exp(number(a), new(big.Int).Lsh(big.NewInt(1), uint(n)), bigPrime); got != want.Uint64() {
			t.Fatalf("%d squared %d times is %d, want %d", a, n, got, want)
		}
	})
}

// TestReduce brings every number below 2^62 into the field, as mulMod and
// fingerprints need it.
func TestReduce(t *testing.T) {
	for _, a := range []uint64{0, 1, prime - 1, prime, prime + 1, 2*prime - 1, 2 * prime, 1<<62 - 1} {
		if got := reduce(a); got != a%prime {
			t.Errorf("%d became %d, want %d", a, got, a%prime)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Uint64Max(1<<62-1).Draw(t, "a")
		if got := reduce(a); got != a%prime {
			t.Fatalf("%d became %d, want %d", a, got, a%prime)
		}
	})
}
