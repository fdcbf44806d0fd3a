package node

import (
	"slices"
	"sync"
	"testing"
	"time"

	"syntropy/hlc"
	"syntropy/storage"
)

// testWall is a wall clock that tests set.
type testWall struct {
	mu sync.Mutex
	t  time.Time
}

func (w *testWall) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.t
}

func (w *testWall) add(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = w.t.Add(d)
}

func openTestClock(t *testing.T, s *storage.Store, w *testWall) *clock {
	t.Helper()
	c, err := openClock(s, 500*time.Millisecond, w.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func mustNext(t *testing.T, c *clock) hlc.Stamp {
	t.Helper()
	s, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestClockMonotoneOverCrashes (I4): a clock that is dropped without a word at
// any point, between making a ceiling durable and using it for example, never
// issues a stamp twice, with a wall that moves on and is set back now and then.
func TestClockMonotoneOverCrashes(t *testing.T) {
	s, w := memStore(t, 1), &testWall{t: noon}
	var last hlc.Stamp
	for life := range 200 {
		c := openTestClock(t, s, w)
		for range life % 5 {
			stamp := mustNext(t, c)
			if stamp <= last {
				t.Fatalf("life %d: stamp %v after %v", life, stamp, last)
			}
			last = stamp
		}
		c.work.Wait()
		if life%3 == 0 { // made durable, not extended, killed
			c.mu.Lock()
			ceiling, _ := c.hlc.NextCeiling(w.now())
			c.mu.Unlock()
			if err := c.persist(ceiling); err != nil {
				t.Fatal(err)
			}
		}
		w.add(600 * time.Millisecond)
		if life%4 == 0 {
			w.add(-700 * time.Millisecond)
		}
	}
}

// TestClockSetBack: a wall behind the durable ceiling by more than the bound
// stamps nothing and says what to do; it goes on when the wall has caught up.
func TestClockSetBack(t *testing.T) {
	s, w := memStore(t, 1), &testWall{t: noon}
	last := mustNext(t, openTestClock(t, s, w))
	w.add(-time.Minute)
	c := openTestClock(t, s, w)
	_, err := c.Next()
	wantCode(t, err, CodeClock, "set the clock right")
	w.add(time.Minute)
	if stamp := mustNext(t, c); stamp <= last {
		t.Fatalf("stamp %v after %v", stamp, last)
	}
}

// TestClockObserve: stamps of others pull the clock up, those from beyond the
// bound do not.
func TestClockObserve(t *testing.T) {
	s, w := memStore(t, 1), &testWall{t: noon}
	c := openTestClock(t, s, w)
	seen := hlc.FromTime(noon.Add(400 * time.Millisecond))
	if err := c.Observe(seen); err != nil {
		t.Fatal(err)
	}
	if stamp := mustNext(t, c); stamp <= seen {
		t.Fatalf("stamp %v after seeing %v", stamp, seen)
	}
	if err := c.Observe(hlc.FromTime(noon.Add(time.Second))); err == nil {
		t.Fatal("a stamp from beyond the bound was believed")
	}
}

// TestClockConcurrent: no two callers get one stamp, while ceilings are raised
// in the background.
func TestClockConcurrent(t *testing.T) {
	s := memStore(t, 1)
	c, err := openClock(s, 2*time.Millisecond, time.Now) // a short lease: many ceilings
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	const callers, each = 8, 2000
	stamps := make([][]hlc.Stamp, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range each {
				if stamp, err := c.Next(); err == nil {
					stamps[i] = append(stamps[i], stamp)
				} else if code := err.(*Error).Code(); code != CodeClock {
					t.Error(err) // on a busy machine the wall may be read late
				}
			}
			if !slices.IsSorted(stamps[i]) {
				t.Error("the stamps of one caller run backwards")
			}
		})
	}
	wg.Wait()
	all := slices.Concat(stamps...)
	slices.Sort(all)
	if len(slices.Compact(slices.Clone(all))) != len(all) {
		t.Error("a stamp was issued twice")
	}
	raw, _, err := s.Meta(metaClock)
	if err != nil || len(raw) != 8 {
		t.Fatalf("stored ceiling %x, %v", raw, err)
	}
}

func TestClockMalformed(t *testing.T) {
	s := memStore(t, 1)
	if err := s.PutMeta(metaClock, []byte("7 bytes")); err != nil {
		t.Fatal(err)
	}
	if _, err := openClock(s, time.Second, time.Now); err == nil {
		t.Fatal("a malformed ceiling is taken for none")
	}
}
