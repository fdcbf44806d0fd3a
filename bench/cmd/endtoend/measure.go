package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"syntropy/report"
)

// figures are the outcome. Arrays of two are of n1, which initiates, and n2.
type figures struct {
	Rows       int    `json:"rows"`
	Stale      int    `json:"stale"`
	KeyBytes   int    `json:"key_bytes"`
	ValueBytes int    `json:"value_bytes"`
	Command    string `json:"command"`
	Machine    string `json:"machine"`
	Sync       string `json:"sync"`
	HintWindow string `json:"hint_window"`

	LoadSeconds  float64    `json:"load_seconds"`
	LoadRetried  int        `json:"load_batches_retried"`
	LoadCPU      [2]float64 `json:"load_cpu_seconds"`
	DiskBytes    [2]int64   `json:"disk_bytes"`
	MemoryBytes  [2]int64   `json:"memory_peak_bytes"` // resident; n2 since it came back
	StopSeconds  float64    `json:"stop_seconds"`
	StartSeconds float64    `json:"start_seconds"` // of n2 with its data, until both nodes call each other live

	HintsKept      int64 `json:"hints_kept"`
	HintsExpired   int64 `json:"hints_expired"`
	HintsDelivered int64 `json:"hints_delivered"`
	// StillStale counts rows that n2 answered with their old value before the
	// repair, of those asked for.
	StillStale      int `json:"still_stale"`
	StillStaleAsked int `json:"still_stale_asked"`

	// EncodedBytes are the stale rows as nodes send them, and nothing else.
	EncodedBytes int64   `json:"encoded_bytes"`
	Repair       session `json:"repair"`
	Again        session `json:"again"`

	RootsEqual      bool `json:"roots_equal"`
	RootsRecomputed bool `json:"roots_recomputed"` // and summed from all rows
	// What n2 answers in the end, alone, with n1 stopped.
	Arrived      int     `json:"arrived"` // of the stale rows, with their new value
	Kept         int     `json:"kept"`    // of as many others, with the value that they had
	KeptAsked    int     `json:"kept_asked"`
	Bounds       []bound `json:"bounds"`
	TotalSeconds float64 `json:"total_seconds"`
}

// session is one `syntropy repair` on two nodes.
type session struct {
	report.Repair
	CPUSeconds [2]float64 `json:"cpu_seconds"`
	// NodeRows are the rows that each node read for it, by its own counter.
	NodeRows [2]int64 `json:"node_rows_read"`
	// TCPBytes crossed the connections between the nodes meanwhile, heartbeats
	// and the transport's framing included, by the kernel's count; 0: not known.
	TCPBytes int64 `json:"tcp_bytes,omitempty"`
	// CommandSeconds is what an operator waits for the command.
	CommandSeconds float64 `json:"command_seconds"`
}

func (s session) bytes() int64 { return s.BytesSent + s.BytesReceived }

// measure does it all. Whatever happens, no node runs when it returns.
func measure(ctx context.Context, o options, dir string, say func(string, ...any)) (f figures, err error) {
	began := time.Now()
	f = figures{Rows: o.w.rows, Stale: o.w.stale, KeyBytes: keyBytes, ValueBytes: o.w.valueBytes,
		EncodedBytes: int64(o.w.stale) * int64(o.w.entryBytes()), Sync: o.sync, HintWindow: o.hintWindow.String(),
		Machine: fmt.Sprintf("%s, %d cores for both nodes and the load, %s", machine(), runtime.NumCPU(), runtime.Version()),
		Command: fmt.Sprintf("go run ./endtoend -rows %d -stale %d -value-bytes %d", o.w.rows, o.w.stale, o.w.valueBytes)}
	nodes, err := newNodes(o, dir)
	if err != nil {
		return f, err
	}
	defer func() {
		for _, n := range nodes {
			if stopped := n.stop(); err == nil { // else it says nothing about the cause
				err = stopped
			}
		}
	}()
	if err := f.load(ctx, o, nodes, say); err != nil {
		return f, err
	}
	if err := f.diverge(ctx, o, nodes, say); err != nil {
		return f, err
	}
	if err := quiet(ctx, nodes, say); err != nil {
		return f, err
	}
	say("repair")
	if f.Repair, err = repair(ctx, nodes); err != nil {
		return f, err
	}
	say("%d keys differed; once more", f.Repair.KeysDiverged)
	if f.Again, err = repair(ctx, nodes); err != nil {
		return f, err
	}
	if err := f.verify(ctx, o, nodes, say); err != nil {
		return f, err
	}
	f.judge()
	f.TotalSeconds = time.Since(began).Seconds()
	say("done")
	return f, nil
}

// load fills both nodes.
func (f *figures) load(ctx context.Context, o options, nodes [2]*node, say func(string, ...any)) error {
	for _, n := range nodes {
		if err := n.start(); err != nil {
			return err
		}
	}
	if err := waitLive(ctx, nodes); err != nil {
		return err
	}
	say("loading %d rows", o.w.rows)
	before, err := cpuTimes(nodes)
	if err != nil {
		return err
	}
	began, told := time.Now(), newPace(10*time.Second)
	// ALL: afterwards both have everything, and nothing waits to be brought.
	f.LoadRetried, err = o.write(ctx, nodes[0].client, "ALL", o.w.rows, func(i int) int { return i }, 0, func(done int) {
		if told.due() {
			say("%d rows, %.0f a second", done, float64(done)/time.Since(began).Seconds())
		}
	})
	if err != nil {
		return err
	}
	f.LoadSeconds = time.Since(began).Seconds()
	after, err := cpuTimes(nodes)
	if err != nil {
		return err
	}
	f.LoadCPU = seconds(before, after)
	var roots report.Roots
	if err := nodes[0].ask(ctx, &roots, "roots"); err != nil {
		return err
	}
	rows := uint64(0)
	for _, s := range roots.Shards {
		rows += s.Replicas[0].Entries
	}
	if !roots.Equal || rows != uint64(o.w.rows) {
		return fmt.Errorf("after the load the nodes hold %d rows, equal: %v; nothing can be measured", rows, roots.Equal)
	}
	return nil
}

// diverge makes n2 miss the stale rows, and keeps hints from bringing them.
func (f *figures) diverge(ctx context.Context, o options, nodes [2]*node, say func(string, ...any)) error {
	// Where a batch of the load was late, hints are kept and brought too, and are
	// none of what is looked at here.
	var before report.Counters
	if err := waitFor(ctx, nodes[0], readyTimeout, func(st report.Status) string {
		before = st.Counters
		return pending(st)
	}); err != nil {
		return err
	}
	say("stopping n2")
	began := time.Now()
	if err := nodes[1].stop(); err != nil {
		return err
	}
	f.StopSeconds = time.Since(began).Seconds()
	if err := waitAlone(ctx, nodes[0]); err != nil {
		return err
	}
	say("overwriting %d rows on n1", o.w.stale)
	if _, err := o.write(ctx, nodes[0].client, "ONE", o.w.stale, o.w.staleRow, 1, func(int) {}); err != nil {
		return err
	}
	say("waiting until no hint for n2 is left")
	counters := func(st report.Status) {
		c := st.Counters
		f.HintsKept, f.HintsExpired, f.HintsDelivered = c.HintsKept-before.HintsKept, c.HintsExpired-before.HintsExpired, c.HintsDelivered-before.HintsDelivered
	}
	// A hint goes at the first look after its window; looks are a tenth of that
	// apart, or a second.
	if err := waitFor(ctx, nodes[0], 3*o.hintWindow+readyTimeout, func(st report.Status) string {
		counters(st)
		return pending(st)
	}); err != nil {
		return err
	}
	say("of %d hints %d have expired; starting n2", f.HintsKept, f.HintsExpired)
	began = time.Now()
	if err := nodes[1].start(); err != nil {
		return err
	}
	if err := waitLive(ctx, nodes); err != nil {
		return err
	}
	f.StartSeconds = time.Since(began).Seconds()
	// A few only: what is read here is in memory afterwards.
	f.StillStaleAsked = min(o.w.stale, 100)
	var err error
	f.StillStale, err = o.count(ctx, nodes[1].client, f.StillStaleAsked, func(i int) int { return o.w.staleRow(i * o.w.stale / f.StillStaleAsked) }, 0)
	if err != nil {
		return err
	}
	st, err := nodes[0].status(ctx)
	if err != nil {
		return err
	}
	counters(st)
	return nil
}

// pending says what a node still means to bring to the other one; empty: nothing.
func pending(st report.Status) string {
	if c := st.Counters; c.HintsPending > 0 || c.WritesInFlight > 0 {
		return fmt.Sprintf("it keeps %d hints, and %d writes are on their way", c.HintsPending, c.WritesInFlight)
	}
	return ""
}

// quiet waits until the nodes have finished what they do behind the load, such as
// compactions: its CPU time would be taken for the repair's.
func quiet(ctx context.Context, nodes [2]*node, say func(string, ...any)) error {
	const (
		look    = 2 * time.Second
		busyMax = 0.06 // of one core, both nodes together: an idle pair takes half of it
		limit   = 5 * time.Minute
	)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for began := time.Now(); ; {
		before, err := cpuTimes(nodes)
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		after, err := cpuTimes(nodes)
		if err != nil {
			return err
		}
		taken := seconds(before, after)
		if busy := (taken[0] + taken[1]) / look.Seconds(); busy <= busyMax || time.Since(began) > limit {
			say("idle, the nodes take %.3f s of CPU time a second", busy)
			return nil
		}
	}
}

// repair runs `syntropy repair` on n1 and watches both nodes.
func repair(ctx context.Context, nodes [2]*node) (s session, err error) {
	rows, err := rowsRead(ctx, nodes)
	if err != nil {
		return s, err
	}
	peers := []string{nodes[0].peer, nodes[1].peer}
	crossed, counted := tcpBytes(peers)
	cpu, err := cpuTimes(nodes)
	if err != nil {
		return s, err
	}
	began := time.Now()
	var reports []report.Repair
	if err := nodes[0].ask(ctx, &reports, "repair"); err != nil {
		return s, err
	}
	s.CommandSeconds = time.Since(began).Seconds()
	cpuAfter, err := cpuTimes(nodes)
	if err != nil {
		return s, err
	}
	if crossedAfter, ok := tcpBytes(peers); ok && counted {
		s.TCPBytes = crossedAfter - crossed
	}
	rowsAfter, err := rowsRead(ctx, nodes)
	if err != nil {
		return s, err
	}
	if len(reports) != 1 || reports[0].Error != "" {
		return s, fmt.Errorf("the repair should have been of one pair and complete: %+v", reports)
	}
	s.Repair, s.CPUSeconds = reports[0], seconds(cpu, cpuAfter)
	for i := range nodes {
		s.NodeRows[i] = rowsAfter[i] - rows[i]
	}
	return s, nil
}

// verify compares the nodes in every way there is. At its end n1 is stopped.
func (f *figures) verify(ctx context.Context, o options, nodes [2]*node, say func(string, ...any)) (err error) {
	say("comparing roots")
	var roots report.Roots
	args := []string{"roots"}
	if o.recompute {
		args = append(args, "--recompute")
	}
	if err := nodes[1].ask(ctx, &roots, args...); err != nil {
		return err
	}
	f.RootsEqual = roots.Equal
	if f.RootsRecomputed = roots.Recomputed; roots.Recomputed {
		for _, s := range roots.Shards {
			for _, r := range s.Replicas {
				f.RootsEqual = f.RootsEqual && r.Root == r.Recomputed
			}
		}
	}
	for i, n := range nodes {
		f.MemoryBytes[i] = memoryPeak(n.pid())
		if f.DiskBytes[i], err = diskBytes(n.dir); err != nil {
			return err
		}
	}
	// With n1 gone, what n2 answers is its own.
	say("stopping n1 and reading from n2")
	if err := nodes[0].stop(); err != nil {
		return err
	}
	if err := waitAlone(ctx, nodes[1]); err != nil {
		return err
	}
	if f.Arrived, err = o.count(ctx, nodes[1].client, o.w.stale, o.w.staleRow, 1); err != nil {
		return err
	}
	var others []int
	for i := range o.w.stale {
		if row := o.w.staleRow(i) + 1; row < o.w.rows && (i+1 == o.w.stale || row < o.w.staleRow(i+1)) {
			others = append(others, row)
		}
	}
	f.KeptAsked = len(others)
	f.Kept, err = o.count(ctx, nodes[1].client, len(others), func(i int) int { return others[i] }, 0)
	return err
}

func cpuTimes(nodes [2]*node) (times [2]time.Duration, err error) {
	for i, n := range nodes {
		if times[i], err = cpuTime(n.pid()); err != nil {
			return times, errors.Join(n.check(), err)
		}
	}
	return times, nil
}

func seconds(before, after [2]time.Duration) (s [2]float64) {
	for i := range s {
		s[i] = (after[i] - before[i]).Seconds()
	}
	return s
}

func rowsRead(ctx context.Context, nodes [2]*node) (rows [2]int64, err error) {
	for i, n := range nodes {
		st, err := n.status(ctx)
		if err != nil {
			return rows, err
		}
		rows[i] = st.Counters.RowsReadByRepair
	}
	return rows, nil
}

// diskBytes adds up the files of a node that runs: some of them may go meanwhile.
func diskBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
