package hlc_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syntropy/hlc"
)

var epoch = time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)

// TestClockUnderAnyWall drives one node's clock through wall readings that
// jump both ways, stamps of other nodes, ceilings that become durable or are
// lost, and restarts. Whatever happens, the stamps of the node only rise (I4),
// none is above the ceiling that was durable when it was issued, and none is
// further ahead of the wall than the bound.
func TestClockUnderAnyWall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bound := time.Duration(rapid.IntRange(0, 300).Draw(t, "bound µs")) * time.Microsecond
		lease := time.Duration(rapid.IntRange(2, 200).Draw(t, "lease µs")) * time.Microsecond
		wall := epoch
		var (
			durable  hlc.Stamp // what the disk holds
			issued   hlc.Stamp // the highest stamp of all lives
			observed hlc.Stamp // the highest stamp accepted in this life
			clock    = hlc.New(0, bound, lease)
		)
		next := func(t *rapid.T) error {
			before := clock.Last()
			s, err := clock.Next(wall)
			var ahead *hlc.AheadError
			switch {
			case err == nil:
				if s <= issued {
					t.Fatalf("issued %v after %v", s, issued)
				}
				if s <= observed {
					t.Fatalf("issued %v after observing %v", s, observed)
				}
				if s > durable {
					t.Fatalf("issued %v above the durable ceiling %v", s, durable)
				}
				if s < hlc.FromTime(wall) {
					t.Fatalf("issued %v, the wall is at %v", s, wall)
				}
				if d := s.Sub(hlc.FromTime(wall)); d > bound {
					t.Fatalf("issued %v, %v ahead of the wall, bound %v", s, d, bound)
				}
				if clock.Last() != s {
					t.Fatalf("Last is %v after issuing %v", clock.Last(), s)
				}
				issued = s
			case errors.Is(err, hlc.ErrCeiling):
				if max(hlc.FromTime(wall), before+1) <= durable {
					t.Fatalf("ErrCeiling with the ceiling at %v, last %v, wall %v", durable, before, wall)
				}
			case errors.As(err, &ahead):
				if d := (before + 1).Sub(hlc.FromTime(wall)); d <= bound || d != ahead.Ahead || ahead.Bound != bound {
					t.Fatalf("%v, but the clock is %v ahead", err, d)
				}
			default:
				t.Fatal(err)
			}
			if err != nil && clock.Last() != before {
				t.Fatalf("a failed Next moved the clock from %v to %v", before, clock.Last())
			}
			return err
		}
		extend := func() bool {
			ceiling, due := clock.NextCeiling(wall)
			if due {
				if ceiling <= durable {
					t.Fatalf("the next ceiling %v is not above the last one %v", ceiling, durable)
				}
				durable = ceiling
				clock.Extend(ceiling)
			}
			return due
		}
		t.Repeat(map[string]func(*rapid.T){
			"wall": func(t *rapid.T) {
				wall = wall.Add(time.Duration(rapid.IntRange(-400, 500).Draw(t, "µs")) * time.Microsecond)
			},
			"next": func(t *rapid.T) {
				if err := next(t); !errors.Is(err, hlc.ErrCeiling) {
					return
				}
				// A caller that does as ErrCeiling says gets its stamp.
				if !extend() {
					t.Fatalf("ErrCeiling, but no ceiling is due: last %v, durable %v, wall %v", clock.Last(), durable, wall)
				}
				if err := next(t); errors.Is(err, hlc.ErrCeiling) {
					t.Fatal("ErrCeiling right after the ceiling was extended")
				}
			},
			"many": func(t *rapid.T) {
				for range rapid.IntRange(1, 50).Draw(t, "n") {
					if next(t) != nil {
						return
					}
				}
			},
			"observe": func(t *rapid.T) {
				s := hlc.FromTime(wall).Add(time.Duration(rapid.IntRange(-500, 500).Draw(t, "µs"))*time.Microsecond) +
					hlc.Stamp(rapid.SampledFrom([]int{0, 1, 4095}).Draw(t, "counter"))
				before := clock.Last()
				err := clock.Observe(s, wall)
				if refuse := s.Sub(hlc.FromTime(wall)) > bound; refuse != (err != nil) {
					t.Fatalf("observing %v with the wall at %v, bound %v: %v", s, wall, bound, err)
				}
				if err == nil {
					observed = max(observed, s)
				}
				if want := max(before, observed); clock.Last() != want {
					t.Fatalf("Last is %v after observing %v (%v), want %v", clock.Last(), s, err, want)
				}
			},
			"extend": func(*rapid.T) { extend() },
			"extend and crash before telling the clock": func(*rapid.T) {
				if ceiling, due := clock.NextCeiling(wall); due {
					durable = ceiling
				}
				clock, observed = hlc.New(durable, bound, lease), 0
			},
			"restart": func(*rapid.T) { clock, observed = hlc.New(durable, bound, lease), 0 },
		})
	})
}

// TestClockStory is one afternoon of a node, step by step.
func TestClockStory(t *testing.T) {
	const bound, lease = 500 * time.Millisecond, 200 * time.Millisecond
	clock := hlc.New(0, bound, lease)

	// A new clock has no ceiling: nothing is issued before one is durable.
	if _, err := clock.Next(epoch); !errors.Is(err, hlc.ErrCeiling) {
		t.Fatalf("a clock without a ceiling issued a stamp (%v)", err)
	}
	ceiling, due := clock.NextCeiling(epoch)
	if !due || ceiling != hlc.FromTime(epoch.Add(lease)) {
		t.Fatalf("the first ceiling is %v, due %v", ceiling, due)
	}
	clock.Extend(ceiling)

	first := mustNext(t, clock, epoch)
	if first != hlc.FromTime(epoch) {
		t.Fatalf("the first stamp is %v, want the wall", first)
	}
	// Within one microsecond, and when the wall steps back, the counter rises.
	if s := mustNext(t, clock, epoch); s != first+1 {
		t.Fatalf("the second stamp is %v", s)
	}
	if s := mustNext(t, clock, epoch.Add(-100*time.Millisecond)); s != first+2 {
		t.Fatalf("the third stamp is %v", s)
	}
	// Set back by more than the bound, the clock refuses rather than stamp what
	// other nodes would refuse.
	var ahead *hlc.AheadError
	if _, err := clock.Next(epoch.Add(-time.Second)); !errors.As(err, &ahead) || ahead.Ahead != time.Second {
		t.Fatalf("a clock one second ahead of the wall: %v", err)
	}

	// A stamp of another node pulls the clock forward, up to the bound exactly.
	seen := hlc.FromTime(epoch.Add(bound))
	if err := clock.Observe(seen.Add(time.Microsecond), epoch); !errors.As(err, &ahead) {
		t.Fatalf("a stamp beyond the bound was accepted: %v", err)
	}
	if err := clock.Observe(seen, epoch); err != nil {
		t.Fatal(err)
	}
	if _, err := clock.Next(epoch); !errors.Is(err, hlc.ErrCeiling) {
		t.Fatalf("the observed stamp is above the ceiling, yet: %v", err)
	}
	ceiling, _ = clock.NextCeiling(epoch)
	clock.Extend(ceiling)
	clock.Extend(first) // lower: ignored
	if s := mustNext(t, clock, epoch); s != seen+1 {
		t.Fatalf("after observing %v the clock issued %v", seen, s)
	}

	// With more than half a lease left, no new ceiling is due.
	if c, due := clock.NextCeiling(epoch); due || c != ceiling {
		t.Fatalf("ceiling %v due=%v, want %v and not due", c, due, ceiling)
	}

	// The node restarts an hour later, its wall clock set back by a day. It
	// knows only the ceiling, and continues above all it can have issued.
	clock = hlc.New(ceiling, 48*time.Hour, lease)
	yesterday := epoch.Add(-24 * time.Hour)
	if _, err := clock.Next(yesterday); !errors.Is(err, hlc.ErrCeiling) {
		t.Fatalf("restarted at its ceiling, the clock issued a stamp (%v)", err)
	}
	next, _ := clock.NextCeiling(yesterday)
	clock.Extend(next)
	if s := mustNext(t, clock, yesterday); s != ceiling+1 {
		t.Fatalf("after the restart the clock issued %v, want %v", s, ceiling+1)
	}
}

// TestClockSaturates: a clock at the end of time fails; it does not begin again
// at zero, nor issue Max, which is after every stamp.
func TestClockSaturates(t *testing.T) {
	end := time.Date(2112, 12, 31, 0, 0, 0, 0, time.UTC)
	if hlc.FromTime(end) != hlc.Max {
		t.Fatalf("%v is not past the last stamp", end)
	}
	for _, floor := range []hlc.Stamp{0, hlc.Max - 2, hlc.Max - 1, hlc.Max} {
		clock := hlc.New(floor, time.Hour, time.Minute)
		clock.Extend(hlc.Max)
		last := floor
		for range 3 {
			s, err := clock.Next(end)
			if err == nil && (s <= last || s == hlc.Max) {
				t.Errorf("floor %#x: issued %#x", uint64(floor), uint64(s))
			}
			last = max(last, s)
		}
	}
	// Up to there it works.
	clock := hlc.New(hlc.Max-3, time.Hour, time.Minute)
	clock.Extend(hlc.Max)
	if s := mustNext(t, clock, hlc.Max.Time()); s != hlc.Max-2 {
		t.Errorf("issued %#x", uint64(s))
	}
}

func mustNext(t *testing.T, c *hlc.Clock, wall time.Time) hlc.Stamp {
	t.Helper()
	s, err := c.Next(wall)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A clock that follows one that is ahead must not put its own ceiling further
// ahead than others believe: after a crash it could issue nothing for a while,
// and each further crash would add to that.
func TestClockGoesOnAfterCrashesWhileOthersAreAhead(t *testing.T) {
	const bound = 500 * time.Millisecond
	wall := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	ceiling := hlc.Stamp(0)
	for crash := range 20 {
		wall = wall.Add(10 * time.Microsecond)
		c := hlc.New(ceiling, bound, bound/2)
		if err := c.Observe(hlc.FromTime(wall.Add(bound)), wall); err != nil {
			t.Fatal(err)
		}
		for {
			_, err := c.Next(wall)
			if err == nil {
				break
			}
			next, due := c.NextCeiling(wall)
			if !errors.Is(err, hlc.ErrCeiling) || !due {
				t.Fatalf("after %d crashes: %v, a ceiling of %v due: %v", crash, err, next, due)
			}
			ceiling = next
			c.Extend(next)
		}
	}
}
