package storagebench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"syntropy/lww"
	"syntropy/ring"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
)

// Figure compares the cost of two things, medians over the rounds of one run.
type Figure struct {
	What string `json:"what"`
	Than string `json:"than"`
	// Wall and CPU are how many times what the other takes.
	Wall float64 `json:"wall_ratio"`
	CPU  float64 `json:"cpu_ratio"`
	// Cost is what it takes on this machine, of an operation or, of an opening, in
	// all.
	Cost Cost `json:"cost"`
}

// Figures are the results of one run.
type Figures struct {
	Rows    int      `json:"rows"`
	Writers int      `json:"writers"`
	Rounds  int      `json:"rounds"`
	Slice   int      `json:"slice"`
	Figures []Figure `json:"figures"`
}

// bench is a run in progress.
type bench struct {
	Workload
	dir    string
	report func(string)
	out    Figures
}

// Measure runs all comparisons. report is told what is being done.
func Measure(ctx context.Context, w Workload, report func(string)) (f Figures, err error) {
	dir, err := os.MkdirTemp(w.Dir, "storagebench")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{Workload: w, dir: dir, report: report}
	b.out = Figures{Rows: w.Rows, Writers: w.Writers, Rounds: w.Rounds, Slice: w.Slice}
	for _, sync := range []bool{true, false} {
		b.Sync = sync
		if err := b.writes(ctx); err != nil {
			return f, err
		}
	}
	err = b.load()
	return b.out, err
}

// add compares two series of measurements, taken in turns.
func (b *bench) add(what, than string, costs, base []Cost) {
	var wall, cpu []float64
	for i, c := range costs {
		wall = append(wall, c.WallMicros/base[i].WallMicros)
		cpu = append(cpu, c.CPUMicros/base[i].CPUMicros)
	}
	f := Figure{What: what, Than: than, Wall: median(wall), CPU: median(cpu)}
	wall, cpu = nil, nil
	for _, c := range costs {
		wall, cpu = append(wall, c.WallMicros), append(cpu, c.CPUMicros)
	}
	f.Cost = Cost{median(wall), median(cpu)}
	b.out.Figures = append(b.out.Figures, f)
	b.report(fmt.Sprintf("%s: %.2f times the wall clock and %.2f times the CPU of %s", what, f.Wall, f.CPU, than))
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	if len(s)%2 == 0 {
		return (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return s[len(s)/2]
}

// writes compares the ways to write, then what was written: read, scanned, and
// opened after a crash. What was synced is then opened anew, for a cold start.
func (b *bench) writes(ctx context.Context) (err error) {
	how := "not synced"
	if b.Sync {
		how = "synced"
	}
	dir := filepath.Join(b.dir, how)
	dbs := make(map[string]*database)
	closeAll := func() {
		for _, d := range dbs {
			err = errors.Join(err, d.close())
		}
		clear(dbs)
	}
	defer func() { closeAll(); err = errors.Join(err, os.RemoveAll(dir)) }()
	openAll := func() error {
		for _, way := range Ways() {
			d, err := b.open(way, filepath.Join(dir, way))
			if err != nil {
				return err
			}
			dbs[way] = d
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := openAll(); err != nil {
		return err
	}
	for _, way := range Ways() {
		b.report(fmt.Sprintf("%s: writing %d rows", way, b.Rows))
		if err := b.fill(dbs[way]); err != nil {
			return err
		}
	}
	stamp := new(atomic.Uint64)
	stamp.Store(1)
	warm, err := b.rounds(ctx, dbs, stamp, 1)
	if err != nil {
		return err
	}
	b.compareWrites(how, warm)
	if !b.Sync {
		return nil
	}
	if err := errors.Join(b.reads(dbs), b.scans(dbs), b.recovery(dbs)); err != nil {
		return err
	}
	if closeAll(); err != nil {
		return err
	}
	if err := openAll(); err != nil {
		return err
	}
	cold, err := b.rounds(ctx, dbs, stamp, 0)
	if err != nil {
		return err
	}
	b.compareWrites(how+", after a restart", cold)
	return nil
}

func (b *bench) open(way, dir string) (*database, error) {
	return openDatabase(way, dir, pebblestore.Options{CacheBytes: b.CacheBytes}, b.VersionBytes, b.Sync)
}

func (b *bench) compareWrites(how string, costs map[string][]Cost) {
	for _, way := range Ways()[1:] {
		b.add("write, "+way+", "+how, Plain, costs[way], costs[Plain])
	}
	b.add("write, "+Full+", "+how, NoTree, costs[Full], costs[NoTree])
}

// rounds lets the ways take turns; the first rounds warm up and are not counted.
func (b *bench) rounds(ctx context.Context, dbs map[string]*database, stamp *atomic.Uint64, warmUp int) (map[string][]Cost, error) {
	costs := make(map[string][]Cost)
	for round := range warmUp + b.Rounds {
		for _, way := range Ways() {
			c, err := b.slice(dbs[way], round, stamp)
			if err = errors.Join(err, ctx.Err()); err != nil {
				return nil, err
			}
			if round >= warmUp {
				costs[way] = append(costs[way], c)
			}
		}
	}
	return costs, nil
}

// timed measures n operations.
func timed(n int, do func() error) (Cost, error) {
	cpu, begun := processCPU(), time.Now()
	err := do()
	wall := time.Since(begun)
	per := float64(n) * 1e3
	return Cost{float64(wall.Nanoseconds()) / per, float64((processCPU() - cpu).Nanoseconds()) / per}, err
}

func (b *bench) reads(dbs map[string]*database) error {
	for _, missing := range []bool{false, true} {
		what, from := "read of a row", 0
		if missing {
			what, from = "read of a row that is not there", b.Rows
		}
		costs := make(map[string][]Cost)
		for round := range b.Rounds {
			for _, way := range []string{Plain, Full} {
				rng := rand.New(rand.NewPCG(b.Seed+uint64(round), 2))
				c, err := timed(b.Slice, func() error {
					for range b.Slice {
						found, err := dbs[way].get(entryOf(from+rng.IntN(b.Rows), 1, rng).Key)
						if err != nil || found == missing {
							return fmt.Errorf("%s: found %v, %w", way, found, err)
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
				costs[way] = append(costs[way], c)
			}
		}
		b.add(what, Plain, costs[Full], costs[Plain])
	}
	return nil
}

func (b *bench) scans(dbs map[string]*database) error {
	var ours, plain []Cost
	for range b.Rounds {
		rows := 0
		c, err := timed(b.Rows, func() error {
			it, err := dbs[Plain].db.NewIter(nil)
			if err != nil {
				return err
			}
			for ok := it.First(); ok; ok = it.Next() {
				rows++
			}
			return it.Close()
		})
		if err != nil || rows != b.Rows {
			return fmt.Errorf("scanned %d rows of %d: %w", rows, b.Rows, err)
		}
		plain, rows = append(plain, c), 0
		c, err = timed(b.Rows, func() (err error) {
			for shard := range shards {
				err = errors.Join(err, dbs[Full].store.Scan(shard, 0, func(ring.Token, lww.Entry) bool { rows++; return true }))
			}
			return err
		})
		if err != nil || rows != b.Rows {
			return fmt.Errorf("scanned %d rows of %d: %w", rows, b.Rows, err)
		}
		ours = append(ours, c)
	}
	b.add("scan of a row", Plain, ours, plain)
	return nil
}

// recovery opens what a crash at this moment would leave, the log not replayed, by
// Pebble alone and as a store, and compares the trees with the rows.
func (b *bench) recovery(dbs map[string]*database) error {
	var ours, plain []Cost
	for range b.Rounds {
		for _, way := range []string{Plain, Full} {
			dir := filepath.Join(b.dir, "crashed")
			if err := dbs[Full].db.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
				return err
			}
			opts := pebblestore.Options{CacheBytes: b.CacheBytes}
			if way == Plain {
				var db *pebble.DB
				c, err := timed(1, func() (err error) { db, err = pebble.Open(dir, opts.Pebble()); return err })
				if err != nil {
					return err
				}
				plain = append(plain, c)
				err = db.Close()
				if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
					return err
				}
				continue
			}
			var d *database
			c, err := timed(1, func() (err error) { d, err = b.open(Full, dir); return err })
			if err != nil {
				return err
			}
			if len(ours) == 0 {
				err = audit(d.store)
			}
			ours = append(ours, c)
			if err = errors.Join(err, d.close(), os.RemoveAll(dir)); err != nil {
				return err
			}
		}
	}
	b.add("opening after a crash", "Pebble alone, of the same directory", ours, plain)
	return nil
}

// audit compares the trees of a store with its rows.
func audit(s *storage.Store) error {
	snapshot := s.Snapshot()
	defer snapshot.Close()
	for shard := range s.Shards() {
		a, err := snapshot.Recompute(context.Background(), shard)
		if err != nil {
			return err
		}
		if a.Tree != a.Rows || len(a.Wrong) > 0 {
			return fmt.Errorf("the tree of shard %d is not that of its rows: that is a bug", shard)
		}
	}
	return nil
}

// load compares loading in bulk with writing the same rows, a thousand in a call.
func (b *bench) load() (err error) {
	entries := make([][]lww.Entry, shards)
	rng := rand.New(rand.NewPCG(b.Seed, 0))
	var loads, fills []Cost
	for range b.Rounds {
		dir := filepath.Join(b.dir, "load")
		d, err := b.open(Plain, dir)
		if err != nil {
			return err
		}
		c, err := timed(b.Rows, func() error { return b.fill(d) })
		if err = errors.Join(err, d.close(), os.RemoveAll(dir)); err != nil {
			return err
		}
		fills = append(fills, c)
		if d, err = b.open(Full, dir); err != nil {
			return err
		}
		if entries[0] == nil {
			for i := range b.Rows {
				e := entryOf(i, 1, rng)
				shard, _ := d.store.Locate(e.Key)
				entries[shard] = append(entries[shard], e)
			}
			for _, rows := range entries {
				slices.SortFunc(rows, func(x, y lww.Entry) int {
					return int(int64(d.store.Position(x.Key)) - int64(d.store.Position(y.Key)))
				})
			}
		}
		c, err = timed(b.Rows, func() error {
			for shard, rows := range entries {
				i := 0
				_, err := d.store.Load(shard, uint64(len(rows)), func() (lww.Entry, bool, error) {
					if i == len(rows) {
						return lww.Entry{}, false, nil
					}
					i++
					return rows[i-1], true, nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil && len(loads) == 0 {
			err = audit(d.store)
		}
		if err = errors.Join(err, d.close(), os.RemoveAll(dir)); err != nil {
			return err
		}
		loads = append(loads, c)
	}
	b.add("bulk load of a row", "plain, a thousand in a batch", loads, fills)
	return nil
}
