package antientropy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"syntropy/hlc"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func everyone(hlc.NodeID) bool { return true }
func nobody(hlc.NodeID) bool   { return false }

func newSchedule(self hlc.NodeID, o ScheduleOptions, partners ...hlc.NodeID) *Schedule {
	s := NewSchedule(self, o)
	s.SetPartners(partners)
	return s
}

// beginsAt asks a schedule as a node would until a session is to begin.
func beginsAt(t *testing.T, s *Schedule, from time.Time, reachable func(hlc.NodeID) bool) (hlc.NodeID, time.Time) {
	t.Helper()
	for now, asked := from, 0; asked < 100_000; asked++ {
		partner, wait, ok := s.Next(now, reachable)
		if ok && wait == 0 {
			return partner, now
		}
		if wait <= 0 || wait > lookMax {
			t.Fatalf("Next says to wait %v", wait)
		}
		now = now.Add(wait)
	}
	t.Fatal("no session ever begins")
	return 0, time.Time{}
}

func expectWithin(t *testing.T, what string, got, from, to time.Duration) {
	t.Helper()
	if got < from || got > to {
		t.Errorf("%s after %v, want %v to %v", what, got, from, to)
	}
}

func TestScheduleLetsTheLowerIdGoFirst(t *testing.T) {
	moments := make(map[time.Duration]bool)
	early := 0
	for seed := range uint64(50) {
		o := ScheduleOptions{Interval: time.Hour, Settle: time.Minute, Seed: seed}
		one, two := newSchedule(1, o, 2), newSchedule(2, o, 1)
		// Never proven: the first side at once, the other a little later.
		_, first := beginsAt(t, one, noon, everyone)
		_, other := beginsAt(t, two, noon, everyone)
		expectWithin(t, "first side, unproven", first.Sub(noon), 0, 0)
		expectWithin(t, "other side, unproven", other.Sub(noon), 2*time.Minute, 5*time.Minute)

		// A first proof spreads the first side over the interval.
		one.Proven(2, noon)
		_, spread := beginsAt(t, one, noon, everyone)
		expectWithin(t, "first side, after a late proof", spread.Sub(noon), 7*time.Minute, 50*time.Minute+12*time.Second)
		if spread.Sub(noon) < 43*time.Minute {
			early++
		}
		// One from before a restart does not.
		restarted := newSchedule(1, o, 2)
		restarted.Proven(2, noon)
		_, first = beginsAt(t, restarted, noon, everyone)
		expectWithin(t, "first side, restarted", first.Sub(noon), 43*time.Minute, 50*time.Minute+12*time.Second)

		later := noon.Add(50 * time.Minute)
		one.Proven(2, later)
		two.Proven(1, later)
		_, first = beginsAt(t, one, later, everyone)
		_, other = beginsAt(t, two, later, everyone)
		expectWithin(t, "first side", first.Sub(later), 43*time.Minute, 50*time.Minute+12*time.Second)
		expectWithin(t, "other side", other.Sub(later), 52*time.Minute+36*time.Second, 55*time.Minute)
		moments[first.Sub(later).Round(10*time.Second)] = true
	}
	if early < 25 {
		t.Errorf("after a late proof only %d sessions of 50 come early", early)
	}
	if len(moments) < 15 {
		t.Errorf("50 seeds give only %d different moments", len(moments))
	}
}

func TestScheduleTakesTheOldestProofFirst(t *testing.T) {
	s := newSchedule(1, ScheduleOptions{Interval: time.Hour}, 5, 4, 3, 2, 1, 4) // itself, and one twice
	s.Proven(2, noon.Add(-5*time.Hour))
	s.Proven(4, noon.Add(-7*time.Hour))
	s.Proven(5, noon.Add(-6*time.Hour))
	s.Proven(4, noon.Add(-8*time.Hour)) // older than what is known
	s.Proven(9, noon)                   // not a partner
	s.Failed(9, noon)
	if partner, until, ok := s.Oldest(); partner != 3 || !until.IsZero() || !ok {
		t.Errorf("the oldest is %v, %v, %v", partner, until, ok)
	}
	s.Proven(3, noon)
	if partner, until, ok := s.Oldest(); partner != 4 || !until.Equal(noon.Add(-7*time.Hour)) || !ok {
		t.Errorf("the oldest is %v, %v, %v", partner, until, ok)
	}
	not5 := func(id hlc.NodeID) bool { return id != 5 }
	var order []hlc.NodeID
	for range 2 {
		partner, _ := beginsAt(t, s, noon, not5)
		order = append(order, partner)
	}
	// The one that could not be reached is next, at once.
	partner, when := beginsAt(t, s, noon.Add(time.Second), everyone)
	if order = append(order, partner); !slices.Equal(order, []hlc.NodeID{4, 2, 5}) || !when.Equal(noon.Add(time.Second)) {
		t.Errorf("sessions with %v, the last at %v", order, when)
	}

	s.SetPartners([]hlc.NodeID{3, 2})
	if partner, until, _ := s.Oldest(); partner != 2 || !until.Equal(noon.Add(-5*time.Hour)) {
		t.Errorf("after a change of partners the oldest is %v, %v", partner, until)
	}
}

func TestScheduleOfNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		s         *Schedule
		reachable func(hlc.NodeID) bool
	}{
		"no interval":  {newSchedule(1, ScheduleOptions{}, 2), everyone},
		"no partners":  {newSchedule(1, ScheduleOptions{Interval: time.Hour}), everyone},
		"all are down": {newSchedule(1, ScheduleOptions{Interval: time.Hour}, 2, 3), nobody},
	} {
		if partner, wait, ok := tc.s.Next(noon, tc.reachable); partner != 0 || wait <= 0 || ok {
			t.Errorf("%s: %v, %v, %v", name, partner, wait, ok)
		}
	}
	if _, _, ok := NewSchedule(1, ScheduleOptions{}).Oldest(); ok {
		t.Error("a schedule without partners has an oldest one")
	}
}

func TestScheduleRetriesWithPauses(t *testing.T) {
	s := newSchedule(1, ScheduleOptions{Interval: time.Hour}, 2)
	now := noon
	var pauses []time.Duration
	for range 12 {
		_, began := beginsAt(t, s, now, everyone)
		pauses = append(pauses, began.Sub(now))
		now = began.Add(time.Second)
		s.Failed(2, now)
	}
	want := 10 * time.Second
	for i, p := range pauses[1:] {
		expectWithin(t, fmt.Sprint("attempt ", i), p, want/2, want)
		want = min(2*want, 3*time.Minute)
	}
	// A connection that comes and goes ends no pause; a partner that was away does.
	for _, tc := range []struct {
		away time.Duration
		due  bool
	}{{time.Second, false}, {15 * time.Second, true}} {
		s.Failed(2, now)
		s.Next(now, everyone)
		s.Next(now, nobody)
		now = now.Add(tc.away)
		if _, wait, ok := s.Next(now, everyone); !ok || (wait == 0) != tc.due {
			t.Errorf("back after %v: wait %v, %v", tc.away, wait, ok)
		}
	}
	// An outcome that is never reported.
	_, began := beginsAt(t, s, now, everyone)
	_, again := beginsAt(t, s, began, everyone)
	expectWithin(t, "next attempt", again.Sub(began), 3*time.Minute, 3*time.Minute)
}

func TestScheduleOutlivesAClockThatIsSetBack(t *testing.T) {
	for _, self := range []hlc.NodeID{1, 3} {
		s := newSchedule(self, ScheduleOptions{Interval: time.Hour}, 2)
		beginsAt(t, s, noon, everyone)
		s.Failed(2, noon)
		s.Proven(2, noon)
		back := noon.Add(-1000 * time.Hour)
		_, began := beginsAt(t, s, back, everyone)
		expectWithin(t, "session", began.Sub(back), 0, time.Hour)
	}
}

func TestScheduleFollowsFromItsSeed(t *testing.T) {
	run := func(self hlc.NodeID, seed uint64) (began []time.Time) {
		s := newSchedule(self, ScheduleOptions{Interval: time.Hour, Seed: seed}, 7, 8)
		now := noon
		for range 20 {
			var partner hlc.NodeID
			partner, now = beginsAt(t, s, now, everyone)
			s.Proven(partner, now)
			began = append(began, now)
		}
		return began
	}
	same, other, node := slices.Equal(run(1, 1), run(1, 1)), slices.Equal(run(1, 1), run(1, 2)), slices.Equal(run(1, 1), run(2, 1))
	if !same || other || node {
		t.Errorf("equal seeds agree: %v, others: %v, other nodes: %v", same, other, node)
	}
}
