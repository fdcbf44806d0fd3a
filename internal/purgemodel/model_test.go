package purgemodel

import (
	"flag"
	"testing"
	"time"
)

var (
	flagScenario = flag.String("purge.scenario", "", "")
	flagDepth    = flag.Int("purge.depth", 0, "")
	flagClosure  = flag.Int("purge.closure", 0, "")
	flagLimit    = flag.Uint64("purge.limit", 0, "")
)

func TestOne(t *testing.T) {
	base := Scenario{Name: "calm", Limits: limits, Keys: 1, Writes: []string{"v0", "x0"}, Given: 1, Closure: *flagClosure, Budget: Budget{Raises: 2}}
	sc := map[string]Scenario{"calm": base}
	s := base
	s.Writes = []string{"v0", "x0"}
	s.Given = 0
	sc["fromnothing"] = s
	s = base
	s.Budget.Down = 1
	sc["down"] = s
	s.Budget = Budget{Raises: 2, Replace: 1}
	sc["replace"] = s
	s.Budget = Budget{Raises: 2, Backup: 1, Rollback: 1}
	sc["rollback"] = s
	s.Budget = Budget{Raises: 2, Slow: 1}
	sc["slow"] = s
	s.Budget = Budget{Raises: 2, Reads: 1}
	sc["reads"] = s
	s.Budget = Budget{Raises: 2, Hints: 1}
	sc["hints"] = s
	s.Budget = Budget{Raises: 2, Cut: 1}
	sc["cut"] = s
	s.Budget = Budget{Raises: 2, Lost: 1}
	sc["lost"] = s
	start := time.Now()
	res := Search(sc[*flagScenario], *flagDepth, *flagLimit)
	t.Logf("%s: %d states, %d steps, %d closures, depth %d, whole %v, %v", *flagScenario, res.States, res.Steps, res.Closures, res.Depth, res.Whole, time.Since(start))
	if res.Wrong != "" {
		t.Errorf("%s", res.Wrong)
		for _, l := range res.Trace {
			t.Log(l)
		}
	}
}
