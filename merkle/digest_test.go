package merkle_test

import (
	"math/big"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"syntropy/lww"
	"syntropy/merkle"
)

var sums = rapid.Custom(func(t *rapid.T) merkle.Sum {
	word := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 1<<64 - 1, 1 << 63}))
	return merkle.Sum{Hi: word.Draw(t, "hi"), Lo: word.Draw(t, "lo")}
})

// TestSumIsArithmeticModulo2To128 compares with package big.
func TestSumIsArithmeticModulo2To128(t *testing.T) {
	modulus := new(big.Int).Lsh(big.NewInt(1), 128)
	number := func(s merkle.Sum) *big.Int { return new(big.Int).SetBytes(s.Append(nil)) }
	rapid.Check(t, func(t *rapid.T) {
		a, b := sums.Draw(t, "a"), sums.Draw(t, "b")
		sum := new(big.Int).Add(number(a), number(b))
		if got := number(a.Plus(b)); got.Cmp(sum.Mod(sum, modulus)) != 0 {
			t.Fatalf("%v + %v = %v", a, b, a.Plus(b))
		}
		diff := new(big.Int).Sub(number(a), number(b))
		if got := number(a.Minus(b)); got.Cmp(diff.Mod(diff, modulus)) != 0 {
			t.Fatalf("%v - %v = %v", a, b, a.Minus(b))
		}
		if got := merkle.SumFrom(append(a.Append(nil), 0xff)); got != a {
			t.Fatalf("%v came back as %v", a, got)
		}
		if len(a.Append(nil)) != merkle.SumBytes || len(a.String()) != 2*merkle.SumBytes {
			t.Fatalf("%v is not %d bytes", a, merkle.SumBytes)
		}
	})
}

func TestDigestAdds(t *testing.T) {
	a := merkle.Digest{Sum: merkle.Sum{Hi: 1, Lo: 1<<64 - 1}, Count: 3}
	b := merkle.Digest{Sum: merkle.Sum{Hi: 2, Lo: 1}, Count: 4}
	if got, want := a.Plus(b), (merkle.Digest{Sum: merkle.Sum{Hi: 4, Lo: 0}, Count: 7}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got := a.Plus(b).Minus(b); got != a {
		t.Errorf("%v, want %v", got, a)
	}
}

// TestEntryDigestCoversEveryField: changing anything about an entry, the value
// included, changes its digest, and so does the secret. A field left out would
// be a field in which replicas may differ for ever.
func TestEntryDigestCoversEveryField(t *testing.T) {
	base := lww.Entry{Key: []byte("key"), Value: []byte("value"), Version: lww.Version{
		Stamp: 1, Node: 1, ExpiryStamp: 1, ExpiryNode: 1, Expires: 1}}
	h := merkle.NewHasher([32]byte{1})
	seen := map[merkle.Digest]string{h.Entry(base): "the entry itself"}
	for name, change := range map[string]func(*lww.Entry){
		"the key":              func(e *lww.Entry) { e.Key = []byte("kez") },
		"the stamp":            func(e *lww.Entry) { e.Stamp++ },
		"the node":             func(e *lww.Entry) { e.Node++ },
		"the tombstone":        func(e *lww.Entry) { e.Tombstone = true },
		"the expiry stamp":     func(e *lww.Entry) { e.ExpiryStamp++ },
		"the expiry node":      func(e *lww.Entry) { e.ExpiryNode++ },
		"the expiry":           func(e *lww.Entry) { e.Expires++ },
		"the whole expiry":     func(e *lww.Entry) { e.ExpiryStamp, e.ExpiryNode, e.Expires = 0, 0, 0 },
		"the value":            func(e *lww.Entry) { e.Value = []byte("valuf") },
		"the end of the value": func(e *lww.Entry) { e.Value = []byte("valu") },
		// Bytes that move from key to value: the length of the key is hashed.
		"key and value": func(e *lww.Entry) { e.Key, e.Value = []byte("keyv"), []byte("alue") },
	} {
		e := base.Clone()
		change(&e)
		d := h.Entry(e)
		if other, ok := seen[d]; ok {
			t.Errorf("changing %s gives the digest of %s", name, other)
		}
		seen[d] = "changing " + name
	}
	d := merkle.NewHasher([32]byte{2}).Entry(base)
	if _, ok := seen[d]; ok {
		t.Error("the secret does not matter")
	}
	if d.Count != 1 {
		t.Errorf("an entry counts %d", d.Count)
	}
	if a, b := h.Value([]byte("a")), h.Value([]byte("b")); a == b {
		t.Error("two values, one hash")
	}
	if a, b := h.Value([]byte("a")), merkle.NewHasher([32]byte{2}).Value([]byte("a")); a == b {
		t.Error("two secrets, one hash of a value")
	}
	// Pinned: replicas that compare digests run different releases.
	if got, want := h.Entry(base).Sum.String(), "f436c6f560f0bf85d75b0a2408cb3a7f"; got != want {
		t.Errorf("the digest is %s, want %s", got, want)
	}
}

// TestHasherIsSafeForConcurrentUse: goroutines share the pool of buffers, with
// values below and above what the pool keeps. It tells most under -race.
func TestHasherIsSafeForConcurrentUse(t *testing.T) {
	h := merkle.NewHasher([32]byte{1})
	small := lww.Entry{Key: []byte("small"), Value: []byte("v"), Version: lww.Version{Stamp: 1}}
	large := lww.Entry{Key: []byte("large"), Value: make([]byte, 100<<10), Version: lww.Version{Stamp: 1}}
	wantSmall, wantLarge := h.Entry(small), h.Entry(large)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if h.Entry(small) != wantSmall || h.Entry(large) != wantLarge {
					t.Error("a digest changed")
				}
			}
		})
	}
	wg.Wait()
}
