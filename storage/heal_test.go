package storage_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/memstore"
	"syntropy/storage/storagetest"
)

// TestHealingIsNotForgotten loses rows behind a running store and heals without
// anybody's help: from then on the rows are not there, whatever the store remembers
// of them, and so it is after a start.
func TestHealingIsNotForgotten(t *testing.T) {
	engine := memstore.New()
	s := open(t, engine, storagetest.Options)
	for i := range 300 {
		if _, err := s.Apply([]lww.Entry{entry(fmt.Sprint("key", i), 5)}); err != nil {
			t.Fatal(err)
		}
	}
	lost := []byte("key7")
	b := engine.NewBatch()
	err := engine.Scan(nil, []byte{0xff}, func(k, _ []byte) bool {
		if k[0] == 'd' && bytes.HasSuffix(k, lost) {
			b.Delete(k)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Commit(b, false); err != nil {
		t.Fatal(err)
	}
	shard, _ := s.Locate(lost)
	scrub := func(s *storage.Store) storage.Findings {
		t.Helper()
		snapshot := s.Snapshot()
		defer snapshot.Close()
		f, err := snapshot.Scrub(context.Background(), shard, nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := scrub(s)
	if f.Healthy() {
		t.Fatal("nobody misses the row")
	}
	if _, err := s.Heal(nil, f); err != nil {
		t.Fatal(err)
	}
	if f := scrub(s); !f.Healthy() {
		t.Errorf("healed, and %+v", f)
	}
	// An older write than the lost one: there is nothing that it could lose to.
	results, err := s.Apply([]lww.Entry{entry(string(lost), 3)})
	if err != nil || results[0].Outcome != storage.Applied {
		t.Errorf("%v, %v", results, err)
	}
	before := roots(s)
	for _, how := range []string{"after a crash", "after a stop"} {
		again := open(t, engine, storagetest.Options)
		for i, r := range roots(again) {
			if r != before[i] {
				t.Errorf("%s: shard %d has the root %v, before %v", how, i, r, before[i])
			}
		}
		if f := scrub(again); !f.Healthy() {
			t.Errorf("%s: %+v", how, f)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
