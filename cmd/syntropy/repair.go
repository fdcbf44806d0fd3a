package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"syntropy/hlc"
	"syntropy/report"
)

func newRepair(a *app) *cobra.Command {
	var (
		opts   report.RepairOptions
		nodeID string
		shard  int
	)
	cmd := &cobra.Command{
		Use:     "repair",
		GroupID: groupAsk,
		Short:   "compare replicas now, and make them equal",
		Long: `Runs anti-entropy: each pair of nodes, one after the other, compares Merkle trees,
finds the keys that differ, and sends the newer version of each where it is missing.
The pairs of the node that --admin names come first. It waits until all is done.
Interrupting it (Ctrl-C) cancels it; what is repaired stays repaired.

Nodes repair by themselves, every pair within each --repair-interval of serve; this
command does it now. When nothing differs it costs one exchange for each pair: of
under 100 bytes when both hold every shard, and a byte or two more for each shard that
they share when they do not.

  SHARDS EQUAL    shards that the pair shares, and how many of them were equal
  ROUNDS          messages back and forth
  DIFFER          keys found to differ
  PULLED PUSHED   versions that travelled to, and from, the first node of the pair
  IN FLIGHT       differences younger than the settle window: most likely a write
                  that is just arriving. They are looked at once more after the
                  window, unless --no-wait is given.
  SENT RECEIVED   bytes that the first node sent and received

--dry-run shows which keys differ and what would be done, and changes nothing.
--explain draws the way down both trees as a textbook would: at each level the digests
that match (skip: everything below is equal) and those that differ (descend, or list
the keys), then each key that was found, who wins and why. Without it a session goes
no further down than to where a difference of digests tells which keys it is of, reads
fewer rows, and sends fewer bytes. With --dry-run it explains without changing
anything.

If a connection breaks, what was repaired stays, and what is left is compared anew when
the connection is back within a few seconds.

Example:
  $ syntropy repair
  PAIR     SHARDS  EQUAL  ROUNDS  DIFFER  PULLED  PUSHED  IN FLIGHT   SENT  RECEIVED  TIME
  n1 - n2     256    255       2       1       1       0          0  104 B      72 B  5 ms
  n1 - n3     256    255       2       1       0       1          0  145 B      38 B  3 ms
  n2 - n3     256    256       1       0       0       0          0   83 B       9 B  2 ms

  2 keys differed and are repaired: every pair that was compared agrees now.

Exit statuses: 0 every pair was compared and agrees now; 3 some pair could not be
finished, or keys in flight are left, or --dry-run found differences; 1 the
command failed; 2 usage.`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("node") {
				id, err := hlc.ParseNodeID(nodeID)
				if err != nil {
					return usageError("--node: %w", err)
				}
				opts.Node = id
			}
			if cmd.Flags().Changed("shard") {
				if shard < 0 {
					return usageError("--shard %d: shards are counted from 0", shard)
				}
				opts.Shard = &shard
			}
			c := a.dial()
			defer c.Close()
			reports, err := c.Repair(cmd.Context(), opts)
			switch {
			case err != nil && cmd.Context().Err() != nil:
				return fmt.Errorf("interrupted: the repair is cancelled; what it had repaired stays, and the next one does the rest")
			case err != nil:
				return err
			case a.json:
				err = a.printJSON(reports)
			default:
				a.printRepair(reports, opts)
			}
			if err != nil {
				return err
			}
			return judgeRepair(reports, opts)
		},
	}
	f := cmd.Flags()
	f.StringVar(&nodeID, "node", "", "only pairs with node `N`, like n2")
	f.IntVar(&shard, "shard", 0, "only shard `S`")
	f.BoolVar(&opts.DryRun, "dry-run", false, "show what differs and change nothing")
	f.BoolVar(&opts.Explain, "explain", false, "draw the descent through the trees")
	f.BoolVar(&opts.NoWait, "no-wait", false, "leave keys in flight for a later repair")
	cmd.AddCommand(newRepairCancel(a))
	return a.client(cmd)
}

func newRepairCancel(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel",
		Short: "stop the repairs that operators run",
		Long: `Stops the repairs that operators run, whoever started them: on the node that --admin
names, and on every node that is connected to it. The count is of the node that
--admin names alone. What is repaired stays repaired. No harm is done: the next
repair does the rest.

Example:
  $ syntropy repair cancel
  1 repair cancelled on this node; any on the nodes connected to it were stopped as well

With --json it prints {"cancelled": 1}.

Exit statuses: 0 done, also when none was running; 1 the command failed; 2 usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.dial()
			defer c.Close()
			n, err := c.CancelRepair(cmd.Context())
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(struct {
					Cancelled int `json:"cancelled"`
				}{n})
			}
			what := plural(n, "repair") + " cancelled"
			if n == 0 {
				what = "no repair was running"
			}
			fmt.Fprintln(a.out, what, "on this node; any on the nodes connected to it were stopped as well")
			return nil
		},
	}
}

// tally adds up what the pairs of a repair found.
type tally struct{ diverged, pulled, pushed, inFlight, failed int }

func total(reports []report.Repair) (t tally) {
	for _, r := range reports {
		t.diverged += r.KeysDiverged
		t.pulled += r.KeysPulled
		t.pushed += r.KeysPushed
		t.inFlight += r.KeysInFlight
		if r.Error != "" {
			t.failed++
		}
	}
	return t
}

// judgeRepair chooses the exit status; the error repeats for stderr what the
// table says, since with --json nobody may be looking at the table.
func judgeRepair(reports []report.Repair, opts report.RepairOptions) error {
	t := total(reports)
	switch {
	case t.failed > 0:
		return disagree("%d of %s could not be finished: run it again when the cause is gone", t.failed, plural(len(reports), "pair"))
	case opts.DryRun && t.diverged > 0:
		return disagree("%s, and nothing was changed: run it without --dry-run to repair", differ(t.diverged))
	case t.inFlight > 0:
		return disagree("%s younger than the settle window: run it again in a while", left(t.inFlight))
	}
	return nil
}

func left(n int) string {
	if n == 1 {
		return "1 key in flight is left,"
	}
	return count(n) + " keys in flight are left,"
}

func (a *app) printRepair(reports []report.Repair, opts report.RepairOptions) {
	if len(reports) == 0 {
		fmt.Fprintln(a.out, "There is no pair of replicas to compare.")
		return
	}
	for _, r := range reports {
		switch {
		case opts.Explain:
			a.printExplanation(r)
		case opts.DryRun && len(r.Differences) > 0:
			a.printDifferences(r)
		}
	}
	t := table{align: "lrrrrrrrrrr"}
	t.head("PAIR", "SHARDS", "EQUAL", "ROUNDS", "DIFFER", "PULLED", "PUSHED", "IN FLIGHT", "SENT", "RECEIVED", "TIME")
	for _, r := range reports {
		differ := cell{text: count(r.KeysDiverged)}
		if r.KeysDiverged > 0 {
			differ.style = yellow
		}
		t.row(pair(r.Initiator, r.Partner), count(r.Shards), count(r.ShardsEqual), count(r.Rounds), differ,
			count(r.KeysPulled), count(r.KeysPushed), count(r.KeysInFlight),
			size(r.BytesSent), size(r.BytesReceived), span(time.Duration(r.DurationMS*1e6)))
	}
	t.print(a.out, a.colour)
	fmt.Fprintln(a.out)
	for _, r := range reports {
		if r.Error != "" {
			a.printLong(pair(r.Initiator, r.Partner)+" is not finished: "+r.Error, red)
		}
	}
	sum := total(reports)
	switch {
	case sum.failed > 0:
		fmt.Fprintf(a.out, "%s pulled and %s pushed before that: what is repaired stays repaired.\n", plural(sum.pulled, "version"), count(sum.pushed))
	case sum.diverged == 0 && sum.inFlight == 0:
		fmt.Fprintln(a.out, paint("Nothing differs: every pair that was compared agrees.", green, a.colour))
	case opts.DryRun:
		fmt.Fprintf(a.out, "%s. Nothing was changed: this was a dry run.\n", differed(sum.diverged, true))
	case sum.inFlight > 0:
		fmt.Fprintf(a.out, "%s; %s younger than the settle window.\n", differed(sum.diverged, false), left(sum.inFlight))
	default:
		fmt.Fprintln(a.out, paint(differed(sum.diverged, false)+": every pair that was compared agrees now.", green, a.colour))
	}
}

func differed(n int, dryRun bool) string {
	switch {
	case dryRun:
		return differ(n)
	case n == 1:
		return "1 key differed and is repaired"
	}
	return count(n) + " keys differed and are repaired"
}

func differ(n int) string {
	if n == 1 {
		return "1 key differs"
	}
	return count(n) + " keys differ"
}
