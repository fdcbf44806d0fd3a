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
	Peer          string   `json:"peer"`
	N             int      `json:"n"`
	D             int      `json:"d"`
	Case          string   `json:"case"`
	Shards        int      `json:"shards"`
	BytesSent     int      `json:"bytes_sent"`     // by the initiator
	BytesReceived int      `json:"bytes_received"` // by the initiator
	BytesPerKey   *float64 `json:"bytes_per_key"`  // both ways, for each diverged key; null if there is none
	// NamingBytes is what went both ways until every diverged key was named: all
	// of the bytes, unless the peer moves entries, too.
	NamingBytes    int     `json:"naming_bytes"`
	Rounds         float64 `json:"rounds"`       // until every diverged key was named
	RoundsTotal    float64 `json:"rounds_total"` // until the session was over
	CPUMsInitiator float64 `json:"cpu_ms_initiator"`
	CPUMsPartner   float64 `json:"cpu_ms_partner"`
	// The CPU times divided by those of merkle16 in the same runs; null if it was
	// not measured beside.
	CPURatioInitiator *float64 `json:"cpu_ratio_initiator"`
	CPURatioPartner   *float64 `json:"cpu_ratio_partner"`
	Comparisons       int      `json:"comparisons"`
	Missed            int      `json:"missed"` // the worst run
	Extra             int      `json:"extra"`  // the worst run
	MemoryBytesPerKey float64  `json:"memory_bytes_per_key"`
	UpdateNS          *float64 `json:"update_ns"`    // null if the index cannot be updated
	UpdateRatio       *float64 `json:"update_ratio"` // to one keyed hash of an entry, measured beside
	Runs              int      `json:"runs"`
	Seeds             int      `json:"seeds"`
	Skipped           string   `json:"skipped,omitempty"` // why nothing was measured
}

// contender is a peer that takes part in a measurement.
type contender struct {
	peer    Peer
	row     *Row
	a, b    Side
	results []Result
	updates []float64 // ns
}

// Meter measures. Its zero value is ready.
type Meter struct {
	// The keys of the last workload, a seed each: the next one may have the same,
	// and they take longest to make.
	of   reconcile.Workload
	keys map[uint64]*reconcile.Keys
}

func (m *Meter) generate(w reconcile.Workload) (a, b *reconcile.Replica) {
	of := w
	of.Diverged, of.Case, of.Seed = 0, "", 0
	if m.keys == nil || m.of != of {
		m.of, m.keys = of, make(map[uint64]*reconcile.Keys)
	}
	if m.keys[w.Seed] == nil {
		m.keys[w.Seed] = reconcile.NewKeys(w)
	}
	return m.keys[w.Seed].Diverge(w.Diverged, w.Case)
}

// Measure runs all peers over one workload, runs times for each of so many
// seeds. Run by run they take turns, so that whatever else the machine does falls
// on all of them. progress is told what is being done.
func (m *Meter) Measure(w reconcile.Workload, peers []Peer, seeds, runs int, progress func(string)) ([]Row, error) {
	rows := make([]Row, len(peers))
	var contenders []*contender
	for i, peer := range peers {
		rows[i] = Row{
			Peer: peer.Name(), N: w.Keys, D: w.Diverged, Case: cmp.Or(w.Case, reconcile.Mixed), Shards: max(1, w.Shards),
			Skipped: peer.Limit(w),
		}
		if rows[i].Skipped == "" {
			rows[i].Runs, rows[i].Seeds = seeds*runs, seeds
			contenders = append(contenders, &contender{peer: peer, row: &rows[i]})
		}
	}
	var hash []float64 // ns
	for seed := range seeds {
		progress(fmt.Sprintf("generating %d keys, %d diverged (%s), seed %d", w.Keys, w.Diverged, w.Case, w.Seed))
		a, b := m.generate(w)
		ns, err := prepare(contenders, a, b, seed == 0, progress)
		if err != nil {
			return nil, err
		}
		hash = append(hash, ns...)
		for run := range runs {
			for _, c := range contenders {
				progress(fmt.Sprintf("run %d of %d: %s", seed*runs+run+1, seeds*runs, c.row.Peer))
				if err := c.run(a.Truth()); err != nil {
					return nil, fmt.Errorf("%s: %w", c.row.Peer, err)
				}
			}
		}
		for _, c := range contenders {
			c.a, c.b = nil, nil
		}
		w.Seed++
	}
	for _, c := range contenders {
		c.summarize(hash)
	}
	compareCPU(rows)
	return rows, nil
}

// prepare builds the indexes and measures what they take and what their updates
// cost, and beside them the hash of an entry.
func prepare(contenders []*contender, a, b *reconcile.Replica, measure bool, progress func(string)) (hash []float64, err error) {
	for _, c := range contenders {
		progress("building " + c.row.Peer)
		var before int64
		if measure {
			before = heap()
		}
		if c.a, err = c.peer.Build(a); err != nil {
			return nil, fmt.Errorf("%s: %w", c.row.Peer, err)
		}
		if measure && a.Len() > 0 {
			bytes := float64(0)
			if s, ok := c.a.(Sized); ok {
				bytes = float64(s.Bytes())
			} else {
				bytes = float64(max(0, heap()-before))
			}
			c.row.MemoryBytesPerKey = rounded(bytes / float64(a.Len()))
		}
		if c.b, err = c.peer.Build(b); err != nil {
			return nil, fmt.Errorf("%s: %w", c.row.Peer, err)
		}
	}
	if !measure || a.Len() == 0 {
		return nil, nil
	}
	writes := writes(a)
	if len(writes) == 0 {
		return nil, nil // the few rows there are lie behind the last step
	}
	runtime.GC()
	for range updateRounds {
		hash = append(hash, hashNS(a.Hasher(), writes))
		for _, c := range contenders {
			if u, ok := c.a.(Updater); ok {
				c.updates = append(c.updates, updateNS(u, writes))
			}
		}
	}
	return hash, nil
}

// A short session is repeated within its turn, so that its time is more than
// that of missing the caches once.
const (
	turnTime = 5 * time.Millisecond
	turnMax  = 25
)

func (c *contender) run(truth []ring.Position) error {
	runtime.GC() // so that nobody pays for another's garbage
	var turn []Result
	for spent := time.Duration(0); len(turn) == 0 || spent < turnTime && len(turn) < turnMax; {
		r, err := Run(c.a, c.b, truth)
		if err != nil {
			return err
		}
		if f, ok := c.a.(Finder); ok { // its time is that of finding alone, as all others'
			find, err := Run(f.Finding(), c.b, truth)
			if err != nil {
				return err
			}
			r.CPUInitiator, r.CPUPartner = find.CPUInitiator, find.CPUPartner
			r.Missed, r.Extra = max(r.Missed, find.Missed), max(r.Extra, find.Extra)
		}
		spent += r.CPUInitiator + r.CPUPartner
		turn = append(turn, r)
	}
	r := turn[0] // all are alike but for the time
	r.CPUInitiator = reconcile.Median(turn, func(r Result) time.Duration { return r.CPUInitiator })
	r.CPUPartner = reconcile.Median(turn, func(r Result) time.Duration { return r.CPUPartner })
	c.results = append(c.results, r)
	return nil
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

func (c *contender) summarize(hash []float64) {
	ms := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
	row, results := c.row, c.results
	row.BytesSent = reconcile.Median(results, func(r Result) int { return r.BytesAtoB })
	row.BytesReceived = reconcile.Median(results, func(r Result) int { return r.BytesBtoA })
	row.NamingBytes = reconcile.Median(results, func(r Result) int { return r.NamingBytes })
	if row.D > 0 {
		perKey := rounded(reconcile.Median(results, func(r Result) float64 { return float64(r.BytesAtoB + r.BytesBtoA) }) / float64(row.D))
		row.BytesPerKey = &perKey
	}
	row.Rounds = reconcile.Median(results, func(r Result) float64 { return r.RoundTrips })
	row.RoundsTotal = reconcile.Median(results, func(r Result) float64 { return r.RoundTripsTotal })
	row.CPUMsInitiator = reconcile.Median(results, func(r Result) float64 { return ms(r.CPUInitiator) })
	row.CPUMsPartner = reconcile.Median(results, func(r Result) float64 { return ms(r.CPUPartner) })
	row.Comparisons = reconcile.Median(results, func(r Result) int { return r.Comparisons })
	for _, r := range results {
		row.Missed, row.Extra = max(row.Missed, r.Missed), max(row.Extra, r.Extra)
	}
	if len(c.updates) > 0 && len(hash) > 0 {
		// The least of some: what comes on top is what else the machine does.
		ns := math.Round(slices.Min(c.updates))
		ratio := rounded(slices.Min(c.updates) / slices.Min(hash))
		row.UpdateNS, row.UpdateRatio = &ns, &ratio
	}
}

// compareCPU divides CPU times by those of the baseline.
func compareCPU(rows []Row) {
	i := slices.IndexFunc(rows, func(r Row) bool { return r.Peer == baseline && r.Skipped == "" })
	if i < 0 {
		return
	}
	base := rows[i]
	for i := range rows {
		if r := &rows[i]; r.Skipped == "" {
			initiator, partner := rounded(r.CPUMsInitiator/base.CPUMsInitiator), rounded(r.CPUMsPartner/base.CPUMsPartner)
			r.CPURatioInitiator, r.CPURatioPartner = &initiator, &partner
		}
	}
}

// baseline is the peer that CPU times are measured against.
const baseline = "merkle16"

// rounded keeps three decimals: more is noise.
func rounded(f float64) float64 { return math.Round(1000*f) / 1000 }

// updateRows is how many rows are updated to measure what it costs: enough to
// miss the caches as writes do. It is done some times.
const (
	updateRows   = 50_000
	updateRounds = 5
)

// write is a row of which some are updated.
type write struct {
	x             ring.Position
	before, after merkle.Sum
	entry         lww.Entry
}

// writes draws rows all over a replica, updateRows of them at most.
func writes(r *reconcile.Replica) (all []write) {
	const step = 1 << ring.PositionBits / updateRows
	for i := range ring.Position(updateRows) {
		r.Rows(i*step, (i+1)*step-1, func(x ring.Position, e lww.Entry, s merkle.Sum) bool {
			all = append(all, write{x, s, s.Plus(merkle.Sum{Hi: 1 << 40, Lo: 1}), e.Clone()})
			return false
		})
	}
	// Not in the order of positions, in which no client writes.
	for i := range all {
		j := int(uint64(i) * 0x9e3779b97f4a7c15 % uint64(len(all)))
		all[i], all[j] = all[j], all[i]
	}
	return all
}

// updateNS measures an update. Each row is changed and then changed back, so the
// index is what it was.
func updateNS(u Updater, writes []write) float64 {
	took := reconcile.Timed(func() {
		for _, w := range writes {
			u.Update(w.x, w.before, w.after)
		}
		for _, w := range writes {
			u.Update(w.x, w.after, w.before)
		}
	})
	return float64(took.Nanoseconds()) / float64(2*len(writes))
}

// hashNS measures the keyed hash of an entry: what a write costs at least, with
// any digest. A write has its entry at hand, so these few stay in the cache.
func hashNS(h *merkle.Hasher, writes []write) float64 {
	atHand := writes[:min(len(writes), 256)]
	rounds := updateRows / len(atHand)
	took := reconcile.Timed(func() {
		for range rounds {
			for _, w := range atHand {
				h.Entry(w.entry)
			}
		}
	})
	return float64(took.Nanoseconds()) / float64(rounds*len(atHand))
}
