package merkle_test

import (
	"bytes"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"syntropy/merkle"
	"syntropy/ring"
)

const prime = 1<<61 - 1

var fingerprints = rapid.OneOf(rapid.Uint64Range(1, prime-1), rapid.SampledFrom([]uint64{1, 2, prime - 1, prime / 2}))

// sumOf is the slow way to the syndrome of changes.
func sumOf(changes ...merkle.Change) (s merkle.Syndrome) {
	for k := range s {
		sum := new(big.Int)
		for _, c := range changes {
			term := new(big.Int).Exp(big.NewInt(int64(c.X)), big.NewInt(int64(k)), nil)
			sum.Add(sum, term.Mul(term, new(big.Int).SetUint64(c.F)))
		}
		s[k] = sum.Mod(sum, big.NewInt(prime)).Uint64()
	}
	return s
}

func negative(f uint64) uint64 { return (prime - f) % prime }

// TestSyndromeIsPowerSums: sums, differences and the syndrome of one entry are
// what the definition says.
func TestSyndromeIsPowerSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := merkle.Change{X: positions.Draw(t, "x"), F: fingerprints.Draw(t, "f")}
		b := merkle.Change{X: positions.Draw(t, "y"), F: fingerprints.Draw(t, "g")}
		one, two := merkle.SyndromeOf(a.X, a.F), merkle.SyndromeOf(b.X, b.F)
		if want := sumOf(a); one != want {
			t.Fatalf("%+v has %v, want %v", a, one, want)
		}
		if got, want := one.Plus(two), sumOf(a, b); got != want || !got.Valid() {
			t.Fatalf("%+v and %+v have %v, want %v", a, b, got, want)
		}
		if got, want := one.Minus(two), sumOf(a, merkle.Change{X: b.X, F: negative(b.F)}); got != want || !got.Valid() {
			t.Fatalf("%+v less %+v has %v, want %v", a, b, got, want)
		}
		if !one.Minus(one).IsZero() || one.IsZero() {
			t.Fatalf("%v is zero: %v", one, one.IsZero())
		}
	})
}

// TestSyndromeEncoding: 31 bytes and back. Any bytes are read without harm, and
// those of a valid syndrome are the only ones that it has.
func TestSyndromeEncoding(t *testing.T) {
	word := rapid.OneOf(rapid.Uint64Max(prime-1), rapid.SampledFrom([]uint64{0, 1, prime - 1, 1 << 60}))
	rapid.Check(t, func(t *rapid.T) {
		s := merkle.Syndrome{word.Draw(t, "0"), word.Draw(t, "1"), word.Draw(t, "2"), word.Draw(t, "3")}
		b := s.Append([]byte("head"))
		if len(b) != 4+merkle.SyndromeBytes || string(b[:4]) != "head" {
			t.Fatalf("%v became %x", s, b)
		}
		if got := merkle.SyndromeFrom(append(b[4:], 0xff)); got != s || !s.Valid() {
			t.Fatalf("%v came back as %v", s, got)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.OneOf(rapid.Byte(), rapid.Just(byte(0xff))), merkle.SyndromeBytes, merkle.SyndromeBytes).Draw(t, "bytes")
		if s := merkle.SyndromeFrom(b); s.Valid() != !slices.Contains(s[:], prime) || slices.Max(s[:]) > prime {
			t.Fatalf("%x is %v, valid: %v", b, s, s.Valid())
		} else if s.Valid() && b[30]>>4 == 0 && !bytes.Equal(s.Append(nil), b) {
			t.Fatalf("%x and %x are both %v", b, s.Append(nil), s)
		}
	})
	if s := (merkle.Syndrome{0, 0, prime, 0}); s.Valid() {
		t.Error("zero in two ways")
	}
}

// same reports whether two lists hold the same changes.
func same(a, b []merkle.Change) bool {
	less := func(x, y merkle.Change) int {
		if x.X < y.X {
			return -1
		}
		return 1
	}
	a, b = slices.SortedFunc(slices.Values(a), less), slices.SortedFunc(slices.Values(b), less)
	return slices.Equal(a, b)
}

// TestDecodeFindsOneAndTwo: under every node, whatever the fingerprints, one or
// two changes are found, exactly.
func TestDecodeFindsOneAndTwo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := merkle.NodeAt(positions.Draw(t, "under"), rapid.IntRange(0, merkle.MaxBits-1).Draw(t, "bits"))
		offset := func(name string) ring.Position {
			size := ring.MaxPosition >> n.Bits
			return n.First() + positions.Draw(t, name)&size
		}
		x, y := offset("x"), offset("y")
		if x == y {
			y ^= 1
		}
		changes := []merkle.Change{{X: x, F: fingerprints.Draw(t, "f")}, {X: y, F: fingerprints.Draw(t, "g")}}
		switch rapid.IntRange(0, 3).Draw(t, "signs") {
		case 0:
			changes[1].F = changes[0].F
		case 1:
			changes[1].F = negative(changes[0].F) // d[0] is zero
		}
		for _, want := range [][]merkle.Change{nil, changes[:1], changes[1:], changes} {
			got, count, ok := sumOf(want...).Decode(n)
			if !ok || !same(got[:count], want) {
				t.Fatalf("under %q %v was decoded to %v (%v)", n, want, got[:count], ok)
			}
		}
	})
}

// TestDecodeHardCases: changes that an arithmetic with a hole would miss.
func TestDecodeHardCases(t *testing.T) {
	const last = ring.MaxPosition
	for name, want := range map[string][]merkle.Change{
		"nothing":                        {},
		"at zero":                        {{X: 0, F: 5}}, // a series with the ratio zero
		"at the end":                     {{X: last, F: 5}},
		"the least fingerprint":          {{X: 7, F: 1}},
		"the greatest fingerprint":       {{X: 7, F: prime - 1}},
		"neighbours":                     {{X: 6, F: 3}, {X: 7, F: 4}},
		"neighbours, opposite":           {{X: 6, F: 3}, {X: 7, F: negative(3)}},
		"the first two, opposite":        {{X: 0, F: 3}, {X: 1, F: negative(3)}},
		"zero and the end":               {{X: 0, F: 1}, {X: last, F: 1}},
		"zero and the end, opposite":     {{X: 0, F: 1}, {X: last, F: negative(1)}},
		"the last two":                   {{X: last - 1, F: 9}, {X: last, F: prime - 9}},
		"the sum of x*f is zero":         {{X: 2, F: 3}, {X: 3, F: negative(2)}},
		"the sum of x^2*f is zero":       {{X: 2, F: 9}, {X: 3, F: negative(4)}},
		"the sum of x^3*f is zero":       {{X: 2, F: 27}, {X: 3, F: negative(8)}},
		"symmetric: x+y is the middle":   {{X: 1<<59 - 10, F: 4}, {X: 1<<59 + 10, F: 4}},
		"the product is above the prime": {{X: last, F: 2}, {X: last - 5, F: 3}},
	} {
		got, count, ok := sumOf(want...).Decode(merkle.Node{})
		if !ok || !same(got[:count], want) {
			t.Errorf("%s: %v was decoded to %v (%v)", name, want, got[:count], ok)
		}
	}
	root := func(x uint64) ring.Position { return ring.Position(x) }
	for name, changes := range map[string][]merkle.Change{
		// Three terms, of which one, two or three words of the sum are zero.
		"f, f, -2f at x-d, x+d, x": {{X: 5, F: 1}, {X: 7, F: 1}, {X: 6, F: negative(2)}},
		"second differences":       {{X: 0, F: 1}, {X: 1, F: negative(2)}, {X: 2, F: 1}},
		"third differences":        {{X: 0, F: 1}, {X: 1, F: negative(3)}, {X: 2, F: 3}, {X: 3, F: negative(1)}},
		"third differences, apart": {{X: 0, F: 1}, {X: root(1 << 58), F: negative(3)}, {X: root(2 << 58), F: 3}, {X: root(3 << 58), F: negative(1)}},
	} {
		if got, count, ok := sumOf(changes...).Decode(merkle.Node{}); ok {
			t.Errorf("%s: decoded to %v", name, got[:count])
		}
	}
	for name, s := range map[string]merkle.Syndrome{
		"x^3 without x":    {0, 0, 0, 1},
		"x^2 without x":    {0, 0, 1, 0},
		"a double root":    {0, 1, 4, 12}, // n*2^(n-1): the derivative of a series
		"a broken series":  {1, 2, 4, 9},
		"beyond positions": {1, prime - 1, 1, prime - 1},
	} {
		if got, count, ok := s.Decode(merkle.Node{}); ok {
			t.Errorf("%s: decoded to %v", name, got[:count])
		}
	}
}

// TestDecodeRefusesWhatIsElsewhere: what is not under the node was never under it:
// the syndrome is that of more changes, or of no syndromes of this node.
func TestDecodeRefusesWhatIsElsewhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, y := positions.Draw(t, "x"), positions.Draw(t, "y")
		n := merkle.NodeAt(positions.Draw(t, "under"), rapid.IntRange(1, merkle.MaxBits).Draw(t, "bits"))
		if x == y || n.Contains(x) && n.Contains(y) {
			return
		}
		f, g := fingerprints.Draw(t, "f"), fingerprints.Draw(t, "g")
		if got, count, ok := sumOf(merkle.Change{X: x, F: f}, merkle.Change{X: y, F: g}).Decode(n); ok {
			t.Fatalf("under %q: %v", n, got[:count])
		}
		if got, count, ok := merkle.SyndromeOf(x, f).Decode(n); ok != n.Contains(x) {
			t.Fatalf("under %q: %v, %v", n, got[:count], ok)
		}
	})
}

// TestDecodeMistakesMoreForTwo counts how often more than two changes look like
// two, and compares with what Decode promises.
func TestDecodeMistakesMoreForTwo(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, tc := range []struct {
		changes, bits, trials int
	}{
		{3, 0, 20_000}, {3, 1, 20_000}, {3, 2, 40_000}, {3, 3, 100_000}, {5, 0, 20_000}, {5, 2, 40_000}, {100, 1, 5_000}, {3, 8, 200_000}, {4, 30, 50_000}, {3, 45, 50_000},
	} {
		wrong := 0
		for range tc.trials {
			n := merkle.NodeAt(ring.Position(rng.Uint64()>>4), tc.bits)
			var s merkle.Syndrome
			xs := make(map[ring.Position]bool) // two changes at one position are one
			for len(xs) < tc.changes {
				x := n.First() + ring.Position(rng.Uint64()>>4)>>tc.bits
				if xs[x] {
					continue
				}
				xs[x] = true
				s = s.Plus(merkle.SyndromeOf(x, 1+rng.Uint64N(prime-1)))
			}
			if _, _, ok := s.Decode(n); ok {
				wrong++
			}
		}
		want := float64(tc.trials) * math.Pow(2, -float64(2*tc.bits+3))
		t.Logf("%d changes under a node of %d bits: %d of %d decoded, %.1f expected", tc.changes, tc.bits, wrong, tc.trials, want)
		if got := float64(wrong); math.Abs(got-want) > 5*math.Sqrt(want)+1 {
			t.Errorf("%d changes under a node of %d bits: %d of %d decoded, %.1f expected", tc.changes, tc.bits, wrong, tc.trials, want)
		}
	}
}

// FuzzDecode: whatever the bytes, nothing panics, and what is named under the
// node is all that the syndrome is the sum of.
func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, merkle.SyndromeBytes), uint8(0), uint64(0))
	f.Add(bytes.Repeat([]byte{0xff}, merkle.SyndromeBytes), uint8(4), uint64(1))
	f.Add(merkle.SyndromeOf(77, 5).Plus(merkle.SyndromeOf(78, prime-5)).Append(nil), uint8(50), uint64(77))
	f.Add(merkle.SyndromeOf(ring.MaxPosition, 1).Append(nil), uint8(60), uint64(ring.MaxPosition))
	f.Add(sumOf(merkle.Change{X: 5, F: 1}, merkle.Change{X: 7, F: 1}, merkle.Change{X: 6, F: prime - 2}).Append(nil), uint8(0), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, bits uint8, under uint64) {
		if len(b) < merkle.SyndromeBytes {
			return
		}
		n := merkle.NodeAt(ring.Position(under)&ring.MaxPosition, int(bits%(merkle.MaxBits+1)))
		s := merkle.SyndromeFrom(b)
		changes, count, ok := s.Decode(n)
		if !ok || !s.Valid() {
			return
		}
		for i, c := range changes[:count] {
			if !n.Contains(c.X) || c.F == 0 || c.F >= prime || i > 0 && c.X == changes[0].X {
				t.Errorf("%v under %q: %v", s, n, changes[:count])
			}
		}
		if got := sumOf(changes[:count]...); got != s {
			t.Errorf("%v was decoded to %v, which add up to %v", s, changes[:count], got)
		}
	})
}
