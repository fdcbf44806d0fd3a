package purgemodel

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var (
	flagOnly   = flag.String("purge.only", "", "scenarios to search, by name, comma separated")
	flagLimit  = flag.Uint64("purge.limit", 20_000, "states to visit of each scenario; 0: all")
	flagSample = flag.Int("purge.closure", 100, "run every so many-th state to its end; 0: none")
)

func TestClasses(t *testing.T) {
	for _, cfg := range classes {
		if *flagOnly != "" && !strings.Contains(","+*flagOnly+",", ","+cfg.Name+",") {
			continue
		}
		run(t, cfg)
	}
}

func run(t *testing.T, cfg Scenario) {
	t.Run(cfg.Name, func(t *testing.T) {
		cfg.Closure = *flagSample
		start := time.Now()
		res := Search(cfg, 0, *flagLimit)
		t.Logf("%d states, %d steps, %d run to the end, depth %d, whole: %v, %v", res.States, res.Steps, res.Closures, res.Depth, res.Whole, time.Since(start).Round(time.Millisecond))
		if res.Wrong != "" {
			t.Errorf("%s\n%s", res.Wrong, strings.Join(res.Trace, "\n"))
		}
	})
}

func TestPairs(t *testing.T) {
	for i, a := range classes[1:] {
		for _, b := range classes[1+i:] {
			cfg := a.and(b)
			if *flagOnly != "" && !strings.Contains(","+*flagOnly+",", ","+cfg.Name+",") {
				continue
			}
			run(t, cfg.after("write A B", "tick"))
		}
	}
}
