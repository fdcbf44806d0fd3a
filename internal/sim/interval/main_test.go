package main

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// small is a scenario of a second, with failures enough that a week shows them.
func small() scenario {
	s := published()
	s.Days, s.Keys, s.Shards = 8, 3000, 16
	s.WritesPerSecond, s.ReadsPerSecond = 0.05, 0.05
	s.LostPerMillion = 10_000
	s.OutageEvery, s.OutageMedian = 36*time.Hour, time.Hour
	return s
}

var intervals = []time.Duration{time.Hour, 6 * time.Hour, 24 * time.Hour, 0}

// TestWhatTheIntervalChanges holds a small study to what must be true whatever
// the figures are: the history does not depend on the interval, and a longer
// interval never costs more for nothing and never leaves less stale.
func TestWhatTheIntervalChanges(t *testing.T) {
	runs, err := study(small(), intervals, 1)
	if err != nil {
		t.Fatal(err)
	}
	first := runs[0][0].tally
	if len(first.missed[whileUp].age) < 20 || len(first.missed[whileAway].age) < 20 || first.hinted < 20 {
		t.Fatalf("too little happens to say anything: %d, %d, %d",
			len(first.missed[whileUp].age), len(first.missed[whileAway].age), first.hinted)
	}
	for i, interval := range intervals {
		c := runs[i][0]
		got := c.tally
		name := intervalName(interval)
		if got.writes != first.writes || got.outages != first.outages || got.readsOne != first.readsOne || got.hinted != first.hinted ||
			len(got.missed[whileUp].age) != len(first.missed[whileUp].age) || len(got.missed[whileAway].age) != len(first.missed[whileAway].age) {
			t.Errorf("%s: it lived through another history than 1 h: %d writes of %d, %d outages of %d, ...", name, got.writes, first.writes, got.outages, first.outages)
		}
		if interval == 0 {
			if got.quiet.sessions+got.repairing.sessions != 0 {
				t.Errorf("never: %d sessions", got.quiet.sessions+got.repairing.sessions)
			}
			continue
		}
		sessions := float64(got.quiet.sessions+got.repairing.sessions) / float64(pairs*c.Days)
		if most := 1.6 * float64(24*time.Hour) / float64(interval); sessions < 0.5 || sessions > most {
			t.Errorf("%s: %.2f sessions a pair and day, at most %.1f make sense", name, sessions, most)
		}
		if got.unprovenMax.together > interval {
			t.Errorf("%s: a pair was up and unproven for %v", name, got.unprovenMax.together)
		}
		if n := got.quiet.sessions; n > 0 && got.quiet.bytes/int64(n) > 100 {
			t.Errorf("%s: %d bytes for a session with nothing to do", name, got.quiet.bytes/int64(n))
		}
		if got.missed[whileUp].healedBy[byAntiEntropy] == 0 || got.missed[whileAway].healedBy[byAntiEntropy] == 0 {
			t.Errorf("%s: anti-entropy healed nothing", name)
		}
	}
	ascends := func(what string, of func(*tally) float64) {
		last := math.Inf(-1)
		for i, interval := range intervals {
			v := of(runs[i][0].tally)
			t.Logf("%s, %s: %g", what, intervalName(interval), v)
			if v < last || i == len(intervals)-1 && v == 0 {
				t.Errorf("%s, %s: %g, and %g with the interval before", what, intervalName(interval), v, last)
			}
			last = v
		}
	}
	ascends("median age of a miss", func(t *tally) float64 { return float64(quantile(t.missed[whileUp].age, 0.5)) })
	ascends("99th percentile of the age", func(t *tally) float64 { return float64(quantile(t.missed[whileUp].age, 0.99)) })
	ascends("99th percentile after a return", func(t *tally) float64 { return float64(quantile(t.missed[whileAway].exposed, 0.99)) })
	ascends("share stale", func(t *tally) float64 { return t.servingStale / t.serving })
	ascends("stale reads", func(t *tally) float64 { return float64(t.readsStale) })
	ascends("fewer quiet sessions", func(t *tally) float64 { return -float64(t.quiet.sessions) + 1 })
}

// The same seed is the same run, or the page would change with every printing.
func TestTheSameSeedIsTheSameRun(t *testing.T) {
	s := small()
	s.Days = 3
	one, err := simulate(s, time.Hour, 3)
	if err != nil {
		t.Fatal(err)
	}
	two, err := simulate(s, time.Hour, 3)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(one.tally, two.tally) {
		t.Errorf("%+v\nand\n%+v", one.tally, two.tally)
	}
}

// TestSessionsAreChecked: a session that finds more or less than the study knows
// of ends the run, so that the figures cannot be of something else.
func TestSessionsAreChecked(t *testing.T) {
	c, err := newCluster(small(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.nodes[0], c.nodes[1]
	c.now = time.Hour
	if err := c.miss(a, b, 7); err != nil {
		t.Fatal(err)
	}
	b.held[7] = a.held[7] // the study believes that nothing differs
	c.now += time.Hour
	if err := c.repair(a, b); err == nil {
		t.Error("a session found a difference that should not be there, and nobody noticed")
	}
}

// TestSessionCosts: what one session costs grows with the differences and not
// with the data, and differences in flight are not repaired.
func TestSessionCosts(t *testing.T) {
	s := small()
	costs, err := sessionCosts(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(costs) != 4 {
		t.Fatalf("%d rows, not 0, 1, 10 and 100", len(costs))
	}
	for i, c := range costs {
		if c.repaired.entries != c.differ || c.inFlight.entries != 0 {
			t.Errorf("%d keys differ: %d repaired, and %d of those in flight", c.differ, c.repaired.entries, c.inFlight.entries)
		}
		// A single key is named by the first answer, at a price that no more can match.
		if i > 0 && c.repaired.bytes <= costs[i-1].repaired.bytes || i > 2 && c.repaired.bytes >= 10*costs[i-1].repaired.bytes {
			t.Errorf("%d keys differ: %d bytes, after %d for %d", c.differ, c.repaired.bytes, costs[i-1].repaired.bytes, costs[i-1].differ)
		}
	}
}

// The page shows the parameters that the program has, and has a place for the
// table.
func TestThePage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "repair-interval.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), published().String()) {
		t.Error("docs/repair-interval.md was measured with other parameters: make sim-interval")
	}
	for _, r := range rows() {
		if !strings.Contains(string(page), "\n| "+r.name+" |") {
			t.Errorf("docs/repair-interval.md lacks the row %q: make sim-interval", r.name)
		}
	}
	if again, err := replaceTable(string(page), "table"); err != nil || !strings.Contains(again, tableBegins+"\n\ntable\n"+tableEnds) {
		t.Errorf("the table cannot be replaced: %v", err)
	}
	if _, err := replaceTable("no markers", "table"); err == nil {
		t.Error("a page without a place for the table was written")
	}
}

func TestFigures(t *testing.T) {
	for want, got := range map[string]string{
		"0 s": short(0), "44.4 min": short(44*time.Minute + 24*time.Second), "3 h": short(3 * time.Hour), "2 days": short(48 * time.Hour),
		"23 B": size(23), "11.6 KiB": size(11.6 * 1024), "3.0 MiB": size(3 << 20), "0.33": significant(0.333), "1.5": significant(1.5), "28.0": significant(28),
		"1,234,567": thousands(1234567), "100": thousands(100),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if v := []time.Duration{3, 1, 2}; quantile(v, 0.5) != 2 || quantile(v, 1) != 3 || quantile(v[:0], 1) != 0 {
		t.Error("quantile")
	}
}
