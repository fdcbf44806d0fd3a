package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"syntropy/internal/reconcile"
	"syntropy/internal/storagebench"
)

// benchRowsMax bounds a measurement of the storage: four databases of 300 bytes a
// row, with what compactions need.
const benchRowsMax = 100_000_000

type benchStorageOptions struct {
	rows, slice     string
	writers, rounds int
	cacheMiB        int64
	dir             string
	seed            uint64
}

func newBenchStorage(a *app) *cobra.Command {
	var opts benchStorageOptions
	cmd := &cobra.Command{
		Use:   "storage",
		Short: "what does a write cost beside a plain one, and a read, a scan, a start?",
		Long: `Makes databases on this machine's disk, writes to them in turns, and tells how many
times as long each way takes as the one that it is compared with. Keys have 16
bytes and values 100. Figures are medians of the turns.

The ways to write, each with one thing more than the one before:
  plain    Pebble alone: the last write wins
  merge    Pebble alone, with an operator that keeps the newer version unread
  no-tree  the store without its trees: the old version is read and compared
  full     the store

Then rows are read and scanned; the store is opened as after a crash, and its trees
are compared with its rows; the ways take turns after a restart; and rows are
loaded in bulk.

A row takes about a kilobyte of disk in all while this runs, and a million rows some
minutes. CPU is that of the whole process, compactions included.

Example:
  $ syntropy bench storage --rows 1e6

With --json it prints an object with "rows", "writers", "rounds", "slice" and
"figures", an array of objects with "what", "than", "wall_ratio", "cpu_ratio" and
"cost": "wall_us" and "cpu_us" of an operation.

Exit statuses: 0 fine; 1 the command failed, or a tree was not that of its rows; 2 usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.benchStorage(cmd, opts) },
	}
	f := cmd.Flags()
	f.StringVar(&opts.rows, "rows", "1e6", fmt.Sprintf("`N` rows in each database, up to %.0e", float64(benchRowsMax)))
	f.StringVar(&opts.slice, "slice", "50000", "`N` writes in a turn")
	f.IntVar(&opts.rounds, "rounds", 7, "`number` of turns")
	f.IntVar(&opts.writers, "writers", 64, "`number` of writers at a time")
	f.Int64Var(&opts.cacheMiB, "cache-mib", 1024, "`MiB` of block cache for each database, and half as much for versions")
	f.StringVar(&opts.dir, "dir", "", "`directory` to make databases in; default is that of temporary files")
	f.Uint64Var(&opts.seed, "seed", 1, "`number` that rows and order follow from")
	return a.jsonFlag(cmd)
}

func (a *app) benchStorage(cmd *cobra.Command, opts benchStorageOptions) error {
	w := storagebench.Workload{
		Dir: opts.dir, Writers: opts.writers, Rounds: opts.rounds, Seed: opts.seed,
		CacheBytes: opts.cacheMiB << 20, VersionBytes: opts.cacheMiB << 19,
	}
	for _, n := range []struct {
		flag, text string
		to         *int
	}{{"rows", opts.rows, &w.Rows}, {"slice", opts.slice, &w.Slice}} {
		var err error
		if *n.to, err = reconcile.ParseCount(n.text); err != nil {
			return usageError("--%s: %w", n.flag, err)
		}
		if *n.to < 1 {
			return usageError("--%s is %d: give 1 or more", n.flag, *n.to)
		}
	}
	switch {
	case w.Rows > benchRowsMax:
		return usageError("--rows is %d: give at most %d", w.Rows, benchRowsMax)
	case opts.writers < 1:
		return usageError("--writers is %d: give 1 or more", opts.writers)
	case opts.rounds < 1:
		return usageError("--rounds is %d: give 1 or more", opts.rounds)
	case opts.cacheMiB < 1:
		return usageError("--cache-mib is %d: give 1 or more", opts.cacheMiB)
	}
	figures, err := storagebench.Measure(cmd.Context(), w, func(what string) {
		if a.progress {
			fmt.Fprintln(a.err, what)
		}
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(figures)
	}
	fmt.Fprintf(a.out, "%s, %s, medians of %s of %s\n\n", plural(figures.Rows, "row"), plural(figures.Writers, "writer"), plural(figures.Rounds, "turn"), plural(figures.Slice, "write"))
	t := table{align: "lrrl"}
	t.row("", "wall clock", "CPU", "")
	for _, f := range figures.Figures {
		t.row(f.What, fmt.Sprintf("%.2f x", f.Wall), fmt.Sprintf("%.2f x", f.CPU), "of "+f.Than)
	}
	t.print(a.out, a.colour)
	return nil
}
