package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"syntropy/internal/reconcile"
)

// benchKeysMax bounds a workload: a key takes 16 bytes while it runs, and
// making ten million takes some seconds.
const benchKeysMax = 100_000_000

func newBench(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "what do repair sessions and the storage cost on this machine?",
		Long: `Measures the parts of Syntropy on this machine. It asks no node, and leaves no file.

Example:
  $ syntropy bench reconcile --keys 1e6 --diverged 1000
  $ syntropy bench storage --rows 1e6

Exit statuses: 0 fine; 1 the command failed, or what it measured went wrong; 2 usage.`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBenchReconcile(a), newBenchStorage(a))
	return cmd
}

type benchOptions struct {
	keys, diverged, hint string
	kind                 string
	shards, runs         int
	seed                 uint64
}

func newBenchReconcile(a *app) *cobra.Command {
	var opts benchOptions
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "one repair session between two replicas that are known to differ",
		Long: `Makes two replicas in memory that differ in a known number of keys, runs a repair
session between them, and tells what it cost. Each run has replicas of another
seed; the figures are medians. What was found is compared with what differs.

The replicas differ in one of these ways:
  mixed       half of the keys in two versions, newer on either side; a quarter
              missing on either side
  stale       the partner holds older versions
  missing     the partner lacks the keys
  neighbours  as mixed, but keys that lie next to each other

Bytes are those of all messages with 5 for the frame of each, without the entries
that have to move in any case. Rounds are counted until every key is named. CPU
is the time that each side worked.

--hint tells the session how many keys to expect, as a node knows from the last
time; a node that knows nothing estimates it, which takes a round.

Example:
  $ syntropy bench reconcile --keys 1e6 --diverged 1000 --hint 1000
  1,000,000 keys, 1,000 of them diverged (mixed), 1 shard, medians of 5 runs

  sent           15,756 B
  received       36,069 B
  per key          51.8 B
  rounds                4  (6 with moving the entries)
  CPU initiator   5.37 ms
  CPU partner     2.65 ms
  comparisons       1,422
  missed, extra      0, 0
  tree memory     0.479 B  for each key

With --json it prints an object with "bytes_sent", "bytes_received", "bytes_per_key"
(null if nothing differs), "rounds", "cpu_ms_initiator", "cpu_ms_partner", "missed",
"extra", "memory_bytes_per_key", and what was asked for.

Exit statuses: 0 exactly the diverged keys were found; 1 a key was missed, or found
though it does not differ, or the command failed; 2 usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.benchReconcile(cmd, opts) },
	}
	f := cmd.Flags()
	f.StringVar(&opts.keys, "keys", "1e6", fmt.Sprintf("`N` keys on both replicas together, up to %.0e", float64(benchKeysMax)))
	f.StringVar(&opts.diverged, "diverged", "1000", "`N` of them differ")
	f.StringVar(&opts.kind, "case", reconcile.Mixed, "how they differ, a `name`: "+strings.Join(reconcile.Cases(), ", "))
	f.IntVar(&opts.shards, "shards", 1, "`number` of shards, a power of two")
	f.StringVar(&opts.hint, "hint", "0", "tell the session to expect `N` keys; 0 tells it nothing")
	f.IntVar(&opts.runs, "runs", 5, "`number` of runs")
	f.Uint64Var(&opts.seed, "seed", 1, "`number` that the first run's replicas follow from")
	return a.jsonFlag(cmd)
}

func (a *app) benchReconcile(cmd *cobra.Command, opts benchOptions) error {
	w := reconcile.Workload{Case: opts.kind, Shards: opts.shards, Seed: opts.seed}
	var hint int
	for _, n := range []struct {
		flag, text string
		to         *int
	}{{"keys", opts.keys, &w.Keys}, {"diverged", opts.diverged, &w.Diverged}, {"hint", opts.hint, &hint}} {
		var err error
		if *n.to, err = reconcile.ParseCount(n.text); err != nil {
			return usageError("--%s: %w", n.flag, err)
		}
	}
	switch {
	case w.Keys > benchKeysMax:
		return usageError("--keys is %d: give at most %d, which take %s of memory", w.Keys, benchKeysMax, size(16*benchKeysMax))
	case w.Diverged > w.Keys:
		return usageError("--diverged is %d and --keys is %d: no more keys can differ than there are", w.Diverged, w.Keys)
	case opts.shards < 1:
		return usageError("--shards is %d: give a power of two", opts.shards)
	case opts.runs < 1:
		return usageError("--runs is %d: give 1 or more", opts.runs)
	case opts.kind == "":
		return usageError("--case is empty: it is one of %s", strings.Join(reconcile.Cases(), ", "))
	}
	if err := w.Validate(); err != nil {
		return usageError("%w", err)
	}
	figures, err := reconcile.Measure(w, hint, opts.runs, func(run int) error {
		if a.progress && run > 0 {
			fmt.Fprintf(a.err, "%d of %s done\n", run, plural(opts.runs, "run"))
		}
		return cmd.Context().Err()
	})
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(figures)
	} else {
		a.printReconcile(figures)
	}
	if err == nil && figures.Missed+figures.Extra > 0 {
		err = fmt.Errorf("the session missed %s and found %d that do not differ: that is a bug; keep the command line, which repeats it", plural(figures.Missed, "key"), figures.Extra)
	}
	return err
}

func (a *app) printReconcile(f reconcile.Figures) {
	fmt.Fprintf(a.out, "%s, %s of them diverged (%s), %s, ", plural(f.Keys, "key"), count(f.Diverged), f.Case, plural(f.Shards, "shard"))
	if f.Runs == 1 {
		fmt.Fprint(a.out, "1 run\n\n")
	} else {
		fmt.Fprintf(a.out, "medians of %d runs\n\n", f.Runs)
	}
	t := table{align: "lrl"}
	t.row("sent", count(f.BytesSent)+" B")
	t.row("received", count(f.BytesReceived)+" B")
	if f.BytesPerKey != nil {
		t.row("per key", fmt.Sprintf("%.1f B", *f.BytesPerKey))
	}
	if f.RoundsTotal > f.Rounds {
		t.row("rounds", count(f.Rounds), fmt.Sprintf("(%d with moving the entries)", f.RoundsTotal))
	} else {
		t.row("rounds", count(f.Rounds))
	}
	t.row("CPU initiator", milliseconds(f.CPUInitiator))
	t.row("CPU partner", milliseconds(f.CPUPartner))
	t.row("comparisons", count(f.Comparisons))
	t.row("missed, extra", fmt.Sprintf("%d, %d", f.Missed, f.Extra))
	t.row("tree memory", fmt.Sprintf("%.3f B", f.MemoryBytesPerKey), "for each key")
	t.print(a.out, a.colour)
}

// milliseconds prints three digits: more is chance.
func milliseconds(ms float64) string { return fmt.Sprintf("%.3g ms", ms) }
