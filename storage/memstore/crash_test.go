package memstore_test

import (
	"testing"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/memstore"
	"syntropy/storage/storagetest"
)

// TestCrashes takes the power away two hundred times, at random points of a
// random workload that syncs now and then. After every crash, data and trees
// agree, and everything that was synced is there (I1, I5).
func TestCrashes(t *testing.T) {
	rng := storagetest.Rand(t)
	opts := storagetest.Options
	opts.NoSync = true
	engine := memstore.New()
	acked := make(map[string]lww.Entry)
	for crash := range 200 {
		s, err := storage.Open(engine, opts)
		if err != nil {
			t.Fatalf("after crash %d: %v", crash, err)
		}
		held := storagetest.Check(t, engine, s, opts)
		for key, e := range acked {
			if lww.Compare(held[key], e) < 0 {
				t.Fatalf("crash %d: %q was synced as %+v, now it is %+v", crash, key, e, held[key])
			}
		}
		written := make(map[string]lww.Entry)
		for range rng.IntN(20) {
			var offers []lww.Entry
			for range 1 + rng.IntN(5) {
				e := storagetest.RandomEntry(rng, 200)
				e.Stamp += hlc.Stamp(10*crash) << 20 // later lives win, mostly
				offers = append(offers, e)
			}
			if _, err := s.Apply(offers); err != nil {
				t.Fatal(err)
			}
			for _, e := range offers {
				if old, ok := written[string(e.Key)]; !ok || lww.Compare(old, e) < 0 {
					written[string(e.Key)] = e
				}
			}
			if rng.IntN(5) == 0 {
				if err := s.Sync(); err != nil {
					t.Fatal(err)
				}
				for key, e := range written {
					if old, ok := acked[key]; !ok || lww.Compare(old, e) < 0 {
						acked[key] = e
					}
				}
			}
		}
		old := s
		engine = engine.Crash()
		if _, err := old.Apply([]lww.Entry{storagetest.RandomEntry(rng, 1)}); err == nil {
			t.Fatal("a crashed engine takes writes")
		}
	}
	if len(acked) < 100 {
		t.Fatalf("only %d keys were ever synced", len(acked))
	}
}
