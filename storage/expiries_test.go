package storage_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/memstore"
)

// TestExpired: whatever is written, in whatever order it expires and however often the
// store is opened again, Expired says at the end of each second what a look at every
// entry would.
func TestExpired(t *testing.T) {
	began := time.UnixMilli(1_700_000_000_000)
	rapid.Check(t, func(t *rapid.T) {
		engine, opts := memstore.New(), storage.Options{Shards: 4}
		var s *storage.Store
		now := began.Add(999 * time.Millisecond)
		reopen := func() {
			var err error
			if s, err = storage.Open(engine, opts); err != nil {
				t.Fatal(err)
			}
			if n := s.Expired(now); n != 0 {
				t.Fatalf("%d have expired before anything was read", n)
			}
			if err := s.LearnExpiries(context.Background(), now); err != nil {
				t.Fatal(err)
			}
		}
		reopen()
		held := map[string]lww.Entry{}
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "then") {
			case 0:
				reopen()
			case 1, 2, 3:
				now = now.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "seconds")) * time.Second)
			default:
				// Stamped a little before the moment that is looked at.
				e := lww.Entry{Key: fmt.Appendf(nil, "k%d", rapid.IntRange(0, 9).Draw(t, "key"))}
				e.Stamp, e.Node = hlc.FromTime(now.Add(-time.Duration(100-step)*time.Millisecond)), 1
				switch rapid.IntRange(0, 3).Draw(t, "kind") {
				case 0:
					e.Tombstone = true
				case 1:
				default:
					at := now.Add(time.Duration(rapid.IntRange(-10_000, 10_000).Draw(t, "expires in ms")) * time.Millisecond)
					e.ExpiryStamp, e.ExpiryNode, e.Expires = e.Stamp+1, 1, at.UnixMilli()
				}
				results, err := s.Apply([]lww.Entry{e})
				if err != nil {
					t.Fatal(err)
				}
				if results[0].Outcome == storage.Applied {
					held[string(e.Key)] = e
				}
			}
			want := int64(0)
			for _, e := range held {
				if !e.Tombstone && !e.Live(now) {
					want++
				}
			}
			if got := s.Expired(now); got != want {
				t.Fatalf("at %v Expired says %d, %d of %v have", now.Sub(began), got, want, held)
			}
		}
	})
}

// TestExpiredOverYears: with expiries in more seconds than are told apart, Expired is
// late, and right in the end.
func TestExpiredOverYears(t *testing.T) {
	s := open(t, memstore.New(), storage.Options{Shards: 1})
	began := time.UnixMilli(1_700_000_000_000)
	if err := s.LearnExpiries(t.Context(), began); err != nil {
		t.Fatal(err)
	}
	const keys = 20_000
	entries := make([]lww.Entry, keys)
	for i := range entries {
		entries[i] = entry(fmt.Sprint(i), hlc.FromTime(began))
		entries[i].ExpiryStamp, entries[i].ExpiryNode = entries[i].Stamp+1, 1
		entries[i].Expires = began.Add(time.Duration(i+1) * time.Hour).UnixMilli()
	}
	if _, err := s.Apply(entries); err != nil {
		t.Fatal(err)
	}
	for _, hours := range []int{1, 100, 10_000, keys} {
		now := began.Add(time.Duration(hours) * time.Hour)
		if got := s.Expired(now); got > int64(hours) || got < int64(hours)-10 {
			t.Errorf("after %d hours Expired says %d", hours, got)
		}
	}
	if got := s.Expired(began.Add(2 * keys * time.Hour)); got != keys {
		t.Errorf("in the end Expired says %d of %d", got, keys)
	}
}

// TestLearnExpiriesGivesUp: it ends with its context, and nothing is known then.
func TestLearnExpiriesGivesUp(t *testing.T) {
	s := open(t, memstore.New(), storage.Options{Shards: 1})
	e := entry("k", 5)
	e.ExpiryStamp, e.ExpiryNode, e.Expires = 6, 1, 1
	if _, err := s.Apply([]lww.Entry{e}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	now := time.UnixMilli(5000)
	if err := s.LearnExpiries(ctx, now); !errors.Is(err, context.Canceled) {
		t.Errorf("LearnExpiries returns %v", err)
	}
	if n := s.Expired(now); n != 0 {
		t.Errorf("%d have expired", n)
	}
	if err := s.LearnExpiries(t.Context(), now); err != nil || s.Expired(now) != 1 {
		t.Errorf("LearnExpiries returns %v, and %d have expired", err, s.Expired(now))
	}
}
