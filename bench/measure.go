package bench

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Row is what is reported of one peer over one workload: medians over the runs.
type Row struct {
	Peer              string   `json:"peer"`
	N                 int      `json:"n"`
	D                 int      `json:"d"`
	Case              string   `json:"case"`
	Shards            int      `json:"shards"`
	BytesSent         int      `json:"bytes_sent"`     // by the initiator
	BytesReceived     int      `json:"bytes_received"` // by the initiator
	BytesPerKey       *float64 `json:"bytes_per_key"`  // both ways, for each diverged key; null if there is none
	Rounds            float64  `json:"rounds"`
	CPUMsInitiator    float64  `json:"cpu_ms_initiator"`
	CPUMsPartner      float64  `json:"cpu_ms_partner"`
	Comparisons       int      `json:"comparisons"`
	Missed            int      `json:"missed"` // the worst run
	Extra             int      `json:"extra"`  // the worst run
	MemoryBytesPerKey float64  `json:"memory_bytes_per_key"`
	UpdateNS          *float64 `json:"update_ns"` // null if the index cannot be updated
	Runs              int      `json:"runs"`
	Skipped           string   `json:"skipped,omitempty"` // why nothing was measured
}

// contender is a peer that takes part in a measurement.
type contender struct {
	row     *Row
	a, b    Side
	results []Result
}

// Measure runs all peers over one workload. Run by run they take turns, so that
// whatever else the machine does falls on all of them. progress is told what is
// being done.
func Measure(w reconcile.Workload, peers []Peer, runs int, progress func(string)) ([]Row, error) {
	progress(fmt.Sprintf("generating %d keys, %d diverged (%s)", w.Keys, w.Diverged, w.Case))
	a, b := reconcile.Generate(w)
	w, truth := a.Workload(), a.Truth()

	rows := make([]Row, len(peers))
	var contenders []*contender
	for i, peer := range peers {
		rows[i] = Row{Peer: peer.Name(), N: w.Keys, D: w.Diverged, Case: w.Case, Shards: w.Shards, Runs: runs, Skipped: peer.Limit(w)}
		if rows[i].Skipped != "" {
			rows[i].Runs = 0
			continue
		}
		progress("building " + peer.Name())
		c := &contender{row: &rows[i]}
		var err error
		before := heap()
		if c.a, err = peer.Build(a); err != nil {
			return nil, fmt.Errorf("%s: %w", peer.Name(), err)
		}
		if a.Len() > 0 {
			c.row.MemoryBytesPerKey = max(0, float64(heap()-before)/float64(a.Len()))
		}
		if c.b, err = peer.Build(b); err != nil {
			return nil, fmt.Errorf("%s: %w", peer.Name(), err)
		}
		if u, ok := c.a.(Updater); ok {
			c.row.UpdateNS = updateNS(u, a)
		}
		contenders = append(contenders, c)
	}
	for run := range runs {
		for _, c := range contenders {
			progress(fmt.Sprintf("run %d of %d: %s", run+1, runs, c.row.Peer))
			runtime.GC() // so that nobody pays for another's garbage
			r, err := Run(c.a, c.b, truth)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.row.Peer, err)
			}
			c.results = append(c.results, r)
		}
	}
	for _, c := range contenders {
		c.summarize()
	}
	return rows, nil
}

// heap returns how much memory is in use. Pools, and what they hang on to, go
// only after some collections.
func heap() int64 {
	var m runtime.MemStats
	for before := uint64(math.MaxUint64); ; before = m.HeapAlloc {
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		if m.HeapAlloc >= before {
			return int64(m.HeapAlloc)
		}
	}
}

func (c *contender) summarize() {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	row, results := c.row, c.results
	row.BytesSent = median(results, func(r Result) int { return r.BytesAtoB })
	row.BytesReceived = median(results, func(r Result) int { return r.BytesBtoA })
	if row.D > 0 {
		perKey := float64(row.BytesSent+row.BytesReceived) / float64(row.D)
		row.BytesPerKey = &perKey
	}
	row.Rounds = median(results, func(r Result) float64 { return r.RoundTrips })
	row.CPUMsInitiator = median(results, func(r Result) float64 { return ms(r.CPUInitiator) })
	row.CPUMsPartner = median(results, func(r Result) float64 { return ms(r.CPUPartner) })
	row.Comparisons = median(results, func(r Result) int { return r.Comparisons })
	for _, r := range results {
		row.Missed, row.Extra = max(row.Missed, r.Missed), max(row.Extra, r.Extra)
	}
}

// median returns the middle one, the lower of two.
func median[T cmp.Ordered](results []Result, of func(Result) T) T {
	values := make([]T, len(results))
	for i, r := range results {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// updateRows is how many rows are updated to measure what it costs: enough to
// miss the caches as writes do.
const updateRows = 50_000

// updateNS measures the update of rows all over the replica. Each is changed and
// then changed back, so the index is what it was.
func updateNS(u Updater, r *reconcile.Replica) *float64 {
	type write struct {
		x             ring.Position
		before, after merkle.Sum
	}
	var writes []write
	every, i := max(1, r.Len()/updateRows), 0
	r.Rows(0, ring.MaxPosition, func(x ring.Position, _ lww.Entry, s merkle.Sum) bool {
		if i++; i%every == 0 {
			writes = append(writes, write{x, s, s.Plus(merkle.Sum{Hi: 1, Lo: 1})})
		}
		return true
	})
	if len(writes) == 0 {
		return nil
	}
	// Not in the order of positions, in which no client writes.
	for i := range writes {
		j := int(uint64(i) * 0x9e3779b97f4a7c15 % uint64(len(writes)))
		writes[i], writes[j] = writes[j], writes[i]
	}
	runtime.GC()
	start := time.Now()
	for _, w := range writes {
		u.Update(w.x, w.before, w.after)
	}
	for _, w := range writes {
		u.Update(w.x, w.after, w.before)
	}
	ns := math.Round(float64(time.Since(start).Nanoseconds()) / float64(2*len(writes)))
	return &ns
}
