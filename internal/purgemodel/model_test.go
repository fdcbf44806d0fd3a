package purgemodel

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// raceEnabled says that everything takes ten times as long.
var raceEnabled bool

// What `make model-purge` sets.
var (
	flagDeep   = flag.Bool("purge.deep", false, "search every pair of classes, and not only a few")
	flagOnly   = flag.String("purge.only", "", "search only the scenarios with these names, comma separated")
	flagLimit  = flag.Uint64("purge.limit", 8_000, "how many states to visit of each scenario; 0: all")
	flagWalks  = flag.Int("purge.walks", 40, "random walks to compare states on and their bytes, for each scenario")
	flagRaises = flag.Uint("purge.raises", 2, "how often a cut may be raised in a run")
	flagSample = flag.Int("purge.closure", 100, "run every so many-th state to its end; 0: none")
)

// TestClasses searches what can happen with one failure of each class, and at most two
// purges, around one delete of a value that all replicas have.
func TestClasses(t *testing.T) {
	for _, cfg := range classes {
		run(t, cfg)
	}
}

// TestCalm searches all that can happen without a failure: writes that reach some replicas
// and not others, sessions in any order, purges.
func TestCalm(t *testing.T) {
	if raceEnabled {
		t.Skip("TestClasses searches a part of it")
	}
	cfg := scenario("calm", Budget{})
	cfg.Closure = 200
	res := Search(cfg, 0, 0)
	report(t, res)
	if !res.Whole || res.States < 30_000 {
		t.Errorf("the search ended after %d states", res.States)
	}
}

// TestWrites searches other things that clients write.
func TestWrites(t *testing.T) {
	for name, writes := range map[string][]string{
		"a value and its delete":      {"v0", "x0"},
		"a value that expires":        {"v0", "e0"},
		"a value, deleted, and again": {"v0", "x0", "v0"},
		"two keys":                    {"v0", "v1", "x0"},
	} {
		cfg := scenario(name, Budget{}).writing(writes...)
		run(t, cfg)
	}
}

// TestPairs searches two classes together: from an acknowledged delete that one replica
// has missed or, where a write can be late, from the beginning.
func TestPairs(t *testing.T) {
	often := []string{"down+replace", "isolate+replace", "isolate+rollback", "down+lost", "slow+read", "late+clock", "hint+clock", "isolate+read"}
	for i, a := range classes[1:] {
		for _, b := range classes[1+i:] {
			cfg := a.and(b)
			if cfg.Budget.Hints+cfg.Budget.Late == 0 {
				cfg = cfg.after("write A B", "tick")
			}
			if *flagDeep || slices.Contains(often, cfg.Name) {
				run(t, cfg)
			}
		}
	}
}

func run(t *testing.T, cfg Scenario) {
	if *flagOnly != "" && !slices.Contains(strings.Split(*flagOnly, ","), cfg.Name) {
		return
	}
	t.Run(cfg.Name, func(t *testing.T) {
		cfg.Closure, cfg.Budget.Raises = *flagSample, uint8(*flagRaises)
		limit := *flagLimit
		if raceEnabled {
			limit /= 20
		}
		report(t, Search(cfg, 0, limit))
	})
}

func report(t *testing.T, res Result) {
	t.Helper()
	whole := "not all that can be reached"
	if res.Whole {
		whole = "all that can be reached"
	}
	t.Logf("%d states, every one down to depth %d, %s; %d steps, %d states run to their end", res.States, res.Depth, whole, res.Steps, res.Closures)
	if res.Wrong != "" {
		t.Errorf("%s\n%s", res.Wrong, strings.Join(res.Trace, "\n"))
	}
}

// everything can happen in the scenarios of the tests of the encoding.
var everything = []Scenario{
	scenario("no clocks, no way back", Budget{Down: 2, Cut: 1, Isolate: 1, Replace: 1, Backup: 1, Restore: 1, Slow: 2, Resume: 1, Lost: 2, Hints: 1, Late: 1, Reads: 2, Fail: 1, Raises: 3}).writing("v0", "e0", "v1", "x0"),
	scenario("clocks", Budget{Down: 1, Clock: 2, Slow: 1, Hints: 1, Reads: 1, Raises: 2}).writing("v0", "x0", "v0"),
	scenario("a way back", Budget{Down: 1, Backup: 1, Rollback: 1, Slow: 1, Lost: 1, Hints: 1, Reads: 1, Raises: 3}).writing("v0", "x0", "v0"),
}

// TestEncodingForgetsNothing walks at random through states as they come, never encoded.
// In each of them, what can happen next must be what can happen in the state that is read
// back from its bytes, and in the one in which the nodes have other names.
func TestEncodingForgetsNothing(t *testing.T) {
	walks := *flagWalks
	if raceEnabled {
		walks = 4
	}
	states := 0
	for _, cfg := range everything {
		cfg.rules = sound()
		enc := normal{arrival: cfg.Limits.Arrival()}
		after := func(s *state) []string {
			var out []string
			cfg.successors(s, func(_ step, n *state) {
				b, _ := enc.encode(n)
				out = append(out, cfg.wrong(n)[:min(2, len(cfg.wrong(n)))]+string(b))
			})
			slices.Sort(out)
			return slices.Compact(out)
		}
		for seed := range walks {
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			s := cfg.start()
			for range 30 {
				want := after(s)
				b, _ := enc.encode(s)
				b = slices.Clone(b)
				if !slices.Equal(after(cfg.decode(b)), want) {
					t.Fatalf("%s, seed %d: other things can happen once %s is read back from % x", cfg.Name, seed, s.show([nodes]int{0, 1, 2}), b)
				}
				enc.learn(s)
				enc.perm = perms[rnd.IntN(len(perms))]
				enc.write(s)
				renamed := cfg.decode(slices.Clone(enc.out))
				if got, _ := enc.encode(renamed); !slices.Equal(got, b) {
					t.Fatalf("%s, seed %d: under other names %s has other bytes", cfg.Name, seed, s.show([nodes]int{0, 1, 2}))
				}
				if !slices.Equal(after(renamed), want) {
					t.Fatalf("%s, seed %d: under other names other things can happen after %s", cfg.Name, seed, s.show([nodes]int{0, 1, 2}))
				}
				var next []state
				cfg.successors(s, func(_ step, n *state) { next = append(next, *n) })
				to := next[rnd.IntN(len(next))]
				if s = &to; s.bad != "" {
					t.Fatal(s.bad)
				}
				states++
			}
		}
	}
	t.Logf("%d states", states)
}
