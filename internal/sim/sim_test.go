package sim_test

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"syntropy/internal/sim"
)

var (
	seeds = flag.Int("sim.seeds", 200, "how many seeds to run")
	seed  = flag.Uint64("sim.seed", 0, "run only this seed, with a long trace")
)

// options gives every seed one of four shapes.
func options(seed uint64) sim.Options {
	o := sim.Harsh(seed)
	switch seed % 4 {
	case 1:
		o.Shards, o.Keys = 1, 5
	case 2:
		o.Nodes, o.Shards, o.Keys = 5, 16, 200
	case 3:
		o.Nodes, o.Loss, o.CrashRate = 2, 0.2, 0.05
	}
	return o
}

// TestSeeds is the simulator's whole point: many runs, no violation.
func TestSeeds(t *testing.T) {
	if *seed != 0 {
		o := options(*seed)
		o.TraceLen = 400
		r := sim.Run(o)
		t.Logf("%+v", r)
		if r.Err != nil {
			t.Error(r.Err)
		}
		return
	}
	n := *seeds
	if testing.Short() {
		n = min(n, 20)
	}
	var sum sim.Result
	for s := range uint64(n) {
		o := options(s + 1)
		r := sim.Run(o)
		if r.Err != nil {
			t.Fatalf("%v\nrun it again with go test -run TestSeeds ./internal/sim -sim.seed=%d (%+v)", r.Err, r.Seed, o)
		}
		sum.Acked += r.Acked
		sum.Refused += r.Refused
		sum.Lost += r.Lost
		sum.Duplicated += r.Duplicated
		sum.Crashes += r.Crashes
		sum.Sessions += r.Sessions
		sum.Completed += r.Completed
		sum.Pulled += r.Pulled
		sum.Pushed += r.Pushed
		sum.Unknown += r.Unknown
		sum.Superseded += r.Superseded
		sum.Reads += r.Reads
		sum.Repaired += r.Repaired
		sum.Hinted += r.Hinted
		sum.Replayed += r.Replayed
		sum.Events += r.Events
	}
	t.Logf("%d runs: %+v", n, sum)
	// A simulator in which nothing happens finds nothing.
	for what, count := range map[string]int{
		"acknowledged": sum.Acked, "refused": sum.Refused, "lost": sum.Lost, "duplicated": sum.Duplicated,
		"crashes": sum.Crashes, "completed": sum.Completed, "aborted": sum.Sessions - sum.Completed,
		"pulled": sum.Pulled, "pushed": sum.Pushed, "unknown": sum.Unknown, "superseded": sum.Superseded,
		"reads": sum.Reads, "repaired": sum.Repaired, "hinted": sum.Hinted, "replayed": sum.Replayed,
	} {
		if count < n {
			t.Errorf("%s: only %d in %d runs", what, count, n)
		}
	}
}

// The same seed is the same run, or a failure could not be looked at again.
func TestTheSameSeedIsTheSameRun(t *testing.T) {
	hashes := make(map[uint64]uint64)
	for s := range uint64(10) {
		a, b := sim.Run(sim.Harsh(s)), sim.Run(sim.Harsh(s))
		if a != b {
			t.Errorf("seed %d: %+v and %+v", s, a, b)
		}
		if other, ok := hashes[a.Hash]; ok {
			t.Errorf("seeds %d and %d are the same run", s, other)
		}
		hashes[a.Hash] = s
	}
}

// A calm run, the zero Options, needs no luck.
func TestACalmRun(t *testing.T) {
	r := sim.Run(sim.Options{})
	if r.Err != nil || r.Lost+r.Duplicated+r.Crashes != 0 || r.Refused > r.Acked {
		t.Errorf("%+v", r)
	}
}

// Each planted mistake is found, and by the check that is there for it.
func TestPlantedBugsAreFound(t *testing.T) {
	const (
		seedsMax = 20
		enough   = 3 // finds
	)
	by := map[sim.Bug]string{
		sim.PhysicalDelete:     "I2",
		sim.BlindOverwrite:     "I1",
		sim.ClockFromZero:      "I4",
		sim.DigestWithoutValue: "proof",
		sim.LeafForgetsDeletes: "I5",
		sim.IgnoreApplyError:   "proof",
		sim.WrongDirection:     "proof",
		sim.AcceptOldHint:      "window",
		sim.CountOlderAttempt:  "I1",
		sim.OKWhenShadowed:     "I4",
		sim.RepairWithOlder:    "repair",
		sim.TouchRewrites:      "I2",
	}
	for _, bug := range sim.Bugs() {
		t.Run(fmt.Sprint(bug), func(t *testing.T) {
			found, tried, others := 0, 0, ""
			for ; tried < seedsMax && found < enough; tried++ {
				o := sim.Harsh(uint64(tried))
				o.Bug = bug
				r := sim.Run(o)
				if r.Err == nil {
					continue
				}
				text := strings.SplitN(r.Err.Error(), "\n", 2)[0]
				if strings.Contains(text, ": "+by[bug]+": ") {
					found++
				} else {
					others += "\n" + text
				}
			}
			t.Logf("found with %d of %d seeds", found, tried)
			if found == 0 {
				t.Errorf("not found as %s with %d seeds; but:%s", by[bug], tried, others)
			}
		})
	}
}
