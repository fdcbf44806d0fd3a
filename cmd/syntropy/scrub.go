package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"syntropy/hlc"
	"syntropy/internal/admin"
	"syntropy/report"
)

func newScrub(a *app) *cobra.Command {
	var (
		opts   report.ScrubOptions
		nodeID string
		shard  int
	)
	cmd := &cobra.Command{
		Use:     "scrub",
		GroupID: groupAsk,
		Short:   "does a node's disk still hold what it should?",
		Long: `Has one node read every row from its disk, with its checksum, and compares what the
rows add up to with the Merkle trees, leaf by leaf, and with the garbage index. It is
how bytes that rotted are found before somebody needs them. It reads as fast as the
disk can, and waits until all is read; Ctrl-C ends it.

What is wrong is put into quarantine: that node does not read it for anybody, and
other replicas answer. Nodes scrub by themselves, all rows within each
--scrub-interval of serve, and at once what there is reason to doubt; then they also
heal it. This command heals only with --heal: the rows of what is wrong are read
from another replica and merged with those that can be read here, and the tree is
made to match. Where there is no other replica (--replicas 1), --heal accepts what can
be read and forgets the rest.

  WRONG       leaves (some 70 rows each) whose rows are not those that the tree says
  UNREADABLE  leaves with rows that cannot be read
  TOTALS      count or sum of the whole shard are wrong
  INDEX       the garbage index is not that of the rows
  FROM        the replica that it was healed from
  ROWS        rows that were replaced or added by healing

To compare all nodes at once, and them with each other, use "syntropy roots --recompute".

Example:
  $ syntropy scrub --node n2 --heal
  SHARD  WRONG  UNREADABLE  TOTALS  INDEX  HEALED  FROM  ROWS
      7      0           3      ok     ok     yes    n1   212

  n2: 256 shards, 34,924 rows, 4.1 MiB in 310 ms: 255 shards are well, 1 is healed.

Exit statuses: 0 all is well, or healed; 3 something is wrong; 1 the command failed;
2 usage.`,
		Args: noArgs,
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
			stop := a.showScrub(cmd.Context(), c, opts.Node)
			out, err := c.Scrub(cmd.Context(), opts)
			stop()
			switch {
			case err != nil && cmd.Context().Err() != nil:
				return fmt.Errorf("interrupted: the scrub is cancelled; what it had healed stays")
			case err != nil:
				return err
			case a.json:
				err = a.printJSON(out)
			default:
				a.printScrub(out)
			}
			if err != nil {
				return err
			}
			return judgeScrub(out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&nodeID, "node", "", "node `N`, like n2, instead of the one that answers")
	f.IntVar(&shard, "shard", 0, "only shard `S`")
	f.BoolVar(&opts.Heal, "heal", false, "make right what is wrong, from another replica")
	return a.client(cmd)
}

// scrubLook is how often the progress of a scrub is asked for.
const scrubLook = 500 * time.Millisecond

// showScrub draws how far the scrub of a node has come, if somebody looks. stop waits
// until it draws no more.
func (a *app) showScrub(ctx context.Context, c *admin.Client, id hlc.NodeID) (stop func()) {
	if !a.progress || a.json {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var drawing sync.WaitGroup
	drawing.Go(func() {
		bar := progressbar.NewOptions(1, progressbar.OptionSetWriter(a.err), progressbar.OptionSetDescription("scrubbing"),
			progressbar.OptionSetWidth(30), progressbar.OptionShowCount(), progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionClearOnFinish())
		defer bar.Finish()
		tick := time.NewTicker(scrubLook)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			st, err := c.Status(ctx)
			if err != nil {
				continue
			}
			for _, n := range st.Nodes {
				if n.Node == id || id == 0 && n.Node == st.Node {
					if n.Disk != nil && n.Disk.Scrub != nil {
						bar.ChangeMax(n.Disk.Scrub.Shards)
						_ = bar.Set(n.Disk.Scrub.Done) // it draws, or it does not
					}
				}
			}
		}
	})
	return func() { cancel(); drawing.Wait() }
}

// unhealed counts the shards that are not well after a scrub.
func unhealed(s report.Scrub) (n int) {
	for _, p := range s.Problems {
		if !p.Healed {
			n++
		}
	}
	return n
}

func judgeScrub(s report.Scrub) error {
	switch n := unhealed(s); {
	case s.Error != "":
		return disagree("the scrub of %v did not come to its end: %s", s.Node, s.Error)
	case n > 0:
		return disagree("%s not well on %v: syntropy scrub --heal makes them right from another replica, and the node tries to by itself", shardsAre(n), s.Node)
	}
	return nil
}

func shardsAre(n int) string {
	if n == 1 {
		return "1 shard is"
	}
	return count(n) + " shards are"
}

func (a *app) printScrub(s report.Scrub) {
	if len(s.Problems) > 0 {
		t := table{align: "rrrlllrr"}
		t.head("SHARD", "WRONG", "UNREADABLE", "TOTALS", "INDEX", "HEALED", "FROM", "ROWS")
		well := map[bool]string{false: "ok", true: "wrong"}
		for _, p := range s.Problems {
			healed, from := cell{text: "no", style: red}, "-"
			if p.Healed {
				healed = cell{text: "yes", style: green}
			}
			if p.From != 0 {
				from = p.From.String()
			}
			t.row(count(p.Shard), count(p.WrongLeaves), count(p.UnreadableLeaves), well[p.TotalsWrong], well[p.IndexWrong], healed, from, count(p.RowsChanged))
		}
		t.print(a.out, a.colour)
		fmt.Fprintln(a.out)
		for _, p := range s.Problems {
			if p.Error != "" {
				a.printLong(fmt.Sprintf("shard %d: %s", p.Shard, p.Error), red)
			}
		}
	}
	line := fmt.Sprintf("%v: %s, %s, %s in %s: %s well", s.Node, plural(s.Shards, "shard"), plural(int64(s.Rows), "row"), size(int64(s.Bytes)),
		span(time.Duration(s.DurationMS*1e6)), shardsAre(s.Healthy))
	if n := len(s.Problems) - unhealed(s); n > 0 {
		line += fmt.Sprintf(", %s healed", shardsAre(n))
	}
	if n := unhealed(s); n > 0 {
		fmt.Fprintf(a.out, "%s, %s in quarantine.\n", line, shardsAre(n))
		return
	}
	if s.Error == "" {
		line = paint(line+".", green, a.colour)
	}
	fmt.Fprintln(a.out, line)
}
