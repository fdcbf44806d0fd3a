package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Figures are medians over some sessions, each over replicas of another seed.
type Figures struct {
	Keys     int    `json:"keys"`
	Diverged int    `json:"diverged"`
	Case     string `json:"case"`
	Shards   int    `json:"shards"`
	Expected int    `json:"hint"` // 0: none
	Runs     int    `json:"runs"`
	Seed     uint64 `json:"seed"` // of the first run

	BytesSent     int64    `json:"bytes_sent"`     // by the initiator
	BytesReceived int64    `json:"bytes_received"` // by the initiator
	BytesPerKey   *float64 `json:"bytes_per_key"`  // both ways, for each diverged key; null if there is none
	EntryBytes    int64    `json:"entry_bytes"`    // both ways, the entries, which the others leave out
	Rounds        int      `json:"rounds"`         // until every diverged key is named
	RoundsTotal   int      `json:"rounds_total"`   // until both sides agree
	CPUInitiator  float64  `json:"cpu_ms_initiator"`
	CPUPartner    float64  `json:"cpu_ms_partner"`
	Comparisons   uint64   `json:"comparisons"` // of nodes, on both sides
	RowsRead      uint64   `json:"rows_read"`   // on both sides
	Missed        int      `json:"missed"`      // in all runs together
	Extra         int      `json:"extra"`       // in all runs together
	// MemoryBytesPerKey is what the initiator's tree takes.
	MemoryBytesPerKey float64 `json:"memory_bytes_per_key"`
}

// Measure runs sessions over replicas of a workload, of its seed and those after
// it. stop is asked before each run; an error of it ends the measurement.
func Measure(w Workload, expected, runs int, stop func(run int) error) (Figures, error) {
	if err := w.Validate(); err != nil {
		return Figures{}, err
	}
	if runs < 1 {
		return Figures{}, fmt.Errorf("%d runs: give one at least", runs)
	}
	if expected < 0 {
		return Figures{}, errors.New("a negative hint: give the number of keys that are expected to differ, or 0 if that is unknown")
	}
	w = w.withDefaults()
	f := Figures{Keys: w.Keys, Diverged: w.Diverged, Case: w.Case, Shards: w.Shards, Expected: expected, Runs: runs, Seed: w.Seed}
	var outcomes []Outcome
	var memory []float64
	for run := range runs {
		if err := stop(run); err != nil {
			return f, err
		}
		a, b := Generate(w)
		o, err := Session(a, b, expected)
		if err != nil {
			return f, fmt.Errorf("seed %d: %w", w.Seed, err)
		}
		outcomes = append(outcomes, o)
		memory = append(memory, float64(a.TreeBytes())/float64(max(1, a.Len())))
		f.Missed, f.Extra = f.Missed+o.Missed, f.Extra+o.Extra
		w.Seed++
	}
	f.BytesSent = Median(outcomes, func(o Outcome) int64 { return o.Sent })
	f.BytesReceived = Median(outcomes, func(o Outcome) int64 { return o.Received })
	if w.Diverged > 0 {
		perKey := math.Round(10*float64(f.BytesSent+f.BytesReceived)/float64(w.Diverged)) / 10
		f.BytesPerKey = &perKey
	}
	f.EntryBytes = Median(outcomes, func(o Outcome) int64 { return o.Report.EntryBytes })
	f.Rounds = Median(outcomes, Outcome.Rounds)
	f.RoundsTotal = Median(outcomes, func(o Outcome) int { return o.Report.Rounds })
	f.CPUInitiator = Median(outcomes, func(o Outcome) float64 { return float64(o.CPUInitiator.Microseconds()) / 1000 })
	f.CPUPartner = Median(outcomes, func(o Outcome) float64 { return float64(o.CPUPartner.Microseconds()) / 1000 })
	f.Comparisons = Median(outcomes, func(o Outcome) uint64 { return o.Report.Compared })
	f.RowsRead = Median(outcomes, func(o Outcome) uint64 { return o.Report.RowsRead })
	slices.Sort(memory)
	f.MemoryBytesPerKey = math.Round(1000*memory[(runs-1)/2]) / 1000
	return f, nil
}

// Median returns the middle of what of says of each run, the lower of two.
func Median[R any, T cmp.Ordered](runs []R, of func(R) T) T {
	values := make([]T, len(runs))
	for i, o := range runs {
		values[i] = of(o)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// ParseCount reads a number of keys such as 1000 or 1e6.
func ParseCount(s string) (int, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || f < 0 || f > MaxKeys {
		return 0, fmt.Errorf("%q is not a number of keys: give one such as 1000 or 1e6", s)
	}
	return int(f), nil
}
