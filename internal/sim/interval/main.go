// Interval measures, by simulation, what the interval of anti-entropy costs and
// what it buys, and writes the table of docs/repair-interval.md.
//
// It runs the real sessions over real stores in memory, begun by the real
// scheduler; only time, the network and the clients are made up. A month takes
// some ten seconds:
//
//	go run ./internal/sim/interval                              # prints
//	go run ./internal/sim/interval -doc docs/repair-interval.md # replaces what is between the markers
//
// The output depends on the parameters, which it prints, and on nothing else.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

func main() {
	doc := flag.String("doc", "", "a Markdown file whose table to replace; default: print")
	seeds := flag.Int("seeds", 7, "how many runs for each interval; 1 to 100")
	days := flag.Int("days", 0, "days of virtual time in each run; default: those of the published table")
	flag.Parse()
	s := published()
	if *days > 0 {
		s.Days = *days
	}
	if err := run(s, *seeds, *doc); err != nil {
		fmt.Fprintln(os.Stderr, "interval:", err)
		os.Exit(1)
	}
}

func run(s scenario, seeds int, doc string) error {
	if seeds < 1 || seeds > 100 {
		return fmt.Errorf("%d seeds: choose 1 to 100", seeds)
	}
	intervals := []time.Duration{time.Hour, 6 * time.Hour, 24 * time.Hour, 0}
	runs, err := study(s, intervals, seeds)
	if err != nil {
		return err
	}
	costs, err := sessionCosts(s)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s- seeds 1 to %d; medians of them where nothing else is said\n\n%s\n%s\n%s",
		s, seeds, summary(runs[0]), intervalTable(intervals, runs), costTable(costs))
	if doc == "" {
		fmt.Print(text)
		return nil
	}
	old, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	page, err := replaceTable(string(old), text)
	if err != nil {
		return fmt.Errorf("%s: %w", doc, err)
	}
	return os.WriteFile(doc, []byte(page), 0o644)
}

// study runs every interval with every seed, as many at a time as there are
// processors: each run is alone in its goroutine and shares nothing.
func study(s scenario, intervals []time.Duration, seeds int) ([][]*cluster, error) {
	runs := make([][]*cluster, len(intervals))
	errs := make(chan error, len(intervals)*seeds)
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i, interval := range intervals {
		runs[i] = make([]*cluster, seeds)
		for seed := range seeds {
			all.Add(1)
			slots <- struct{}{}
			go func() {
				defer func() { <-slots; all.Done() }()
				c, err := simulate(s, interval, uint64(seed+1))
				if err != nil {
					errs <- fmt.Errorf("seed %d, interval %s: %w", seed+1, intervalName(interval), err)
				}
				runs[i][seed] = c
			}()
		}
	}
	all.Wait()
	close(errs)
	return runs, <-errs
}

// simulate is one run. What it returns has let go of the stores.
func simulate(s scenario, interval time.Duration, seed uint64) (*cluster, error) {
	c, err := newCluster(s, interval, seed)
	if err != nil {
		return nil, err
	}
	if err := c.run(); err != nil {
		return nil, err
	}
	return &cluster{scenario: s, interval: interval, tally: c.tally}, nil
}

// The page is written by hand but for what is between these lines.
const (
	tableBegins = "<!-- measured: make sim-interval -->"
	tableEnds   = "<!-- end of what is measured -->"
)

func replaceTable(page, table string) (string, error) {
	before, rest, ok := strings.Cut(page, tableBegins)
	_, after, closed := strings.Cut(rest, tableEnds)
	if !ok || !closed {
		return "", fmt.Errorf("the lines %q and %q are not there", tableBegins, tableEnds)
	}
	return before + tableBegins + "\n\n" + table + "\n" + tableEnds + after, nil
}
