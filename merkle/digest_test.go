package merkle_test

import (
	"math/big"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
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

// TestDigestAdds: digests add up field by field, and what was added can be taken
// away again.
func TestDigestAdds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) merkle.Digest {
			x := ring.Position(rapid.Uint64Max(uint64(ring.MaxPosition)).Draw(t, name))
			return merkle.DigestOf(x, sums.Draw(t, name+"'s hash"))
		}
		a, b := draw("a"), draw("b")
		want := merkle.Digest{Sum: a.Sum.Plus(b.Sum), Count: 2, Syndrome: a.Syndrome.Plus(b.Syndrome)}
		if got := a.Plus(b); got != want {
			t.Fatalf("%v, want %v", got, want)
		}
		if got := a.Plus(b).Minus(b); got != a {
			t.Fatalf("%v, want %v", got, a)
		}
	})
}

// TestFingerprints: a fingerprint is an element of the field other than zero, for
// every hash and salt. Hashes that share one under the salt of the trees do not
// under the others.
func TestFingerprints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, salt := sums.Draw(t, "hash"), rapid.Uint8().Draw(t, "salt")
		if f := s.Fingerprint(salt); f == 0 || f >= 1<<61-1 {
			t.Fatalf("%v has the fingerprint %d under salt %d", s, f, salt)
		}
	})
	a, b := merkle.Sum{Hi: 800, Lo: 1}, merkle.Sum{Hi: 801, Lo: 1 << 40}
	if a.Fingerprint(0) != b.Fingerprint(0) {
		t.Fatal("the trees tell them apart")
	}
	for salt := 1; salt < 256; salt++ {
		if a.Fingerprint(uint8(salt)) == b.Fingerprint(uint8(salt)) {
			t.Errorf("salt %d does not tell them apart", salt)
		}
	}
	if a.Fingerprint(1) == a.Fingerprint(2) {
		t.Error("the salt does not matter")
	}
	// Pinned: leaves on disk, and other releases, are made of these.
	if got := (merkle.Sum{Hi: 1<<64 - 9, Lo: 7}).Fingerprint(0); got != 1<<61-2 {
		t.Errorf("the fingerprint is %d", got)
	}
	for _, zero := range []uint64{0, 7, 1<<64 - 1, 1<<64 - 8} {
		if got := (merkle.Sum{Hi: zero}).Fingerprint(0); got != 1 {
			t.Errorf("a hash of %d has the fingerprint %d", zero, got)
		}
	}
}

// TestEntryHashCoversEveryField: changing anything about an entry, the value
// included, changes its hash, and so does the secret. A field left out would
// be a field in which replicas may differ for ever.
func TestEntryHashCoversEveryField(t *testing.T) {
	base := lww.Entry{Key: []byte("key"), Value: []byte("value"), Version: lww.Version{
		Stamp: 1, Node: 1, ExpiryStamp: 1, ExpiryNode: 1, Expires: 1}}
	h := merkle.NewHasher([32]byte{1})
	seen := map[merkle.Sum]string{h.Entry(base): "the entry itself"}
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
			t.Errorf("changing %s gives the hash of %s", name, other)
		}
		seen[d] = "changing " + name
	}
	d := merkle.NewHasher([32]byte{2}).Entry(base)
	if _, ok := seen[d]; ok {
		t.Error("the secret does not matter")
	}
	if a, b := h.Bytes([]byte("a")), h.Bytes([]byte("b")); a == b {
		t.Error("two values, one hash")
	}
	if a, b := h.Bytes([]byte("a")), merkle.NewHasher([32]byte{2}).Bytes([]byte("a")); a == b {
		t.Error("two secrets, one hash of a value")
	}
	// Pinned: replicas that compare digests run different releases.
	if got, want := h.Entry(base).String(), "f436c6f560f0bf85d75b0a2408cb3a7f"; got != want {
		t.Errorf("the hash is %s, want %s", got, want)
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
					t.Error("a hash changed")
				}
			}
		})
	}
	wg.Wait()
}
