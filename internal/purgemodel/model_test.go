package purgemodel

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

// raceEnabled says that everything takes ten times as long.
var raceEnabled bool

// What `make model-purge` sets.
var (
	flagDeep   = flag.Bool("purge.deep", false, "search every pair of classes, and not only a few")
	flagOnly   = flag.String("purge.only", "", "search only the scenarios with these names, comma separated")
	flagLimit  = flag.Uint64("purge.limit", 8_000, "how many states to visit of each scenario; 0: all")
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

// TestPairs searches two classes together, from an acknowledged delete that one replica
// has missed.
func TestPairs(t *testing.T) {
	often := []string{"replace+down", "replace+isolate", "isolate+rollback", "down+lost", "slow+read", "late+clock", "hint+clock", "isolate+read"}
	for i, a := range classes[1:] {
		for k, b := range classes[1:] {
			cfg := a.and(b).after("write A B", "tick")
			if k < i && !slices.Contains(often, cfg.Name) || k >= i && !*flagDeep && !slices.Contains(often, cfg.Name) {
				continue
			}
			run(t, cfg)
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

// TestSameStateSameBytes: a state that is read back from its bytes has the same bytes, and
// so has one whose nodes have other names.
func TestSameStateSameBytes(t *testing.T) {
	start := time.Now()
	cfg := scenario("all", Budget{Down: 1, Replace: 1, Slow: 1, Hints: 1, Reads: 1}).after("write A B", "replace the disk of C", "rebuild C A", "slow session begins A B")
	cfg.rules = sound()
	enc := normal{arrival: cfg.Limits.Arrival()}
	states := 0
	var visit func(s *state, depth int)
	visit = func(s *state, depth int) {
		cfg.successors(s, func(a step, n *state) {
			first, _ := enc.encode(n)
			b := slices.Clone(first)
			back := cfg.decode(b)
			if again, _ := enc.encode(back); !slices.Equal(again, b) {
				t.Fatalf("after %v: % x is read back as % x", a, b, again)
			}
			states++
			if depth > 0 {
				visit(back, depth-1)
			}
		})
	}
	visit(cfg.start(), 2)
	t.Logf("%d states, %v", states, time.Since(start).Round(time.Millisecond))
}
