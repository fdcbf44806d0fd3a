package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"syntropy/report"
)

func newStatus(a *app) *cobra.Command {
	return a.client(&cobra.Command{
		Use:     "status",
		GroupID: groupAsk,
		Short:   "which nodes are there, and how long ago were their replicas proven to agree?",
		Long: `Shows the cluster as one node sees it: who is there and up, what each holds, and
until when each pair of replicas is proven to agree.

The number to watch is how long some pair is without proof. While all nodes are up
it stays below --repair-interval (1 h by default), since every pair is compared within
each interval, whether or not anything seems wrong; "syntropy repair" does it now. Keep
it well below --gc-grace (10 days by default): a node that is away for longer than that
is not let back in with the data it has.

  STATE   live      serves reads and writes
          joining   started empty, takes writes and is being filled from the others;
                    its own copy serves no reads yet
          checking  was away for long and waits to hear whether it may serve
          stale     was away for longer than --gc-grace: serves nothing and takes part
                    in no repair; must come back with an empty data directory
          down      the node that answered has no connection to it
          The reason stands in the last column, or below the table when it is long.
  SHARDS  that it holds a replica of
  HINTS   writes that the node that answered keeps for it and brings it when it is back
  MISSED  writes that the node that answered could neither bring to it nor keep for it,
          since it started itself, and since it last brought a repair with it to its
          end
  CLOCK   its clock minus the clock of the node that answered

What is wrong with the disk of a node stands below the table: that it is full or slow,
files that have rotted, and what is in quarantine for it.

Below, what the node that answered has done since it started: for writes that replicas
missed (hints), for stale replicas that reads came across (read repairs), and in
sessions (anti-entropy): how many began on schedule, the keys that they moved, and the
rows that this node read for its own and others'.

Example:
  $ syntropy status
  cluster 5c1e7a90   topology version 1   answered by n1

  NODE  PEER            STATE  SHARDS  ENTRIES  TOMBSTONES  HINTS  MISSED   CLOCK
  n1    127.0.0.1:7101  live      256   34,924          12      0       0  0.0 ms
  n2    127.0.0.1:7102  live      256   34,924          12      0       0  0.2 ms
  n3    127.0.0.1:7103  down      256        ?           ?  1,700       0       ?  dial tcp ...

  PAIR     SHARDS  PROVEN TO AGREE UNTIL
  n1 - n2     256  2026-11-22 09:28:00 UTC  2 min 00 s ago
  n1 - n3     256  never
  n2 - n3     256  never

  longest without proof 1 h 00 min   hints pending 1,700   tombstones 12   nodes being filled 0
  hints: kept 1,700, delivered 0, expired 0, dropped 0, refused 0   read repairs: 0
  anti-entropy: 1 scheduled session, 0 keys pulled, 0 pushed, 0 rows read

Exit statuses: 0 a node answered, whatever it says of the others; 1 none did;
2 usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.dial()
			defer c.Close()
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(st)
			}
			a.printStatus(st)
			return nil
		},
	})
}

func (a *app) printStatus(st report.Status) {
	fmt.Fprintf(a.out, "cluster %s   topology version %d   answered by %v\n\n", st.Cluster, st.TopologyVersion, st.Node)

	zones := slices.ContainsFunc(st.Nodes, func(n report.NodeStatus) bool { return n.Zone != "" })
	nodes := table{align: "lllrrrrrrl"}
	head := []string{"NODE", "PEER", "STATE", "SHARDS", "ENTRIES", "TOMBSTONES", "HINTS", "MISSED", "CLOCK", ""}
	if zones {
		nodes.align, head = "llllrrrrrrl", slices.Insert(head, 2, "ZONE")
	}
	nodes.head(head...)
	for _, n := range st.Nodes {
		clock := fmt.Sprintf("%.1f ms", n.ClockSkewMS)
		if !n.Up {
			clock = "?"
		}
		tombstones := count(n.Tombstones)
		if n.Entries < 0 {
			tombstones = "?"
		}
		row := []any{n.Node, n.Peer, stateCell(n.State), count(n.Shards), known(n.Entries), tombstones, count(n.HintsPending), count(n.WritesMissed), clock, cell{text: n.Reason, brief: true}}
		if zones {
			row = slices.Insert(row, 2, any(n.Zone))
		}
		nodes.row(row...)
	}
	nodes.print(a.out, a.colour)
	a.printDisks(st.Nodes)

	if len(st.Pairs) > 0 {
		fmt.Fprintln(a.out)
		pairs := table{align: "lrll"}
		pairs.head("PAIR", "SHARDS", "PROVEN TO AGREE UNTIL", "")
		for _, p := range st.Pairs {
			until, ago := cell{text: "never", style: yellow}, ""
			if p.ProvenUntil != nil {
				until = cell{text: p.ProvenUntil.UTC().Format("2006-01-02 15:04:05 UTC")}
				ago = span(max(0, a.now().Sub(*p.ProvenUntil))) + " ago"
			}
			pairs.row(pair(p.A, p.B), count(p.Shards), until, ago)
		}
		pairs.print(a.out, a.colour)
	}

	oldest := "longest without proof " + span(seconds(st.OldestUnprovenSeconds).Round(time.Millisecond))
	fmt.Fprintf(a.out, "\n%s   hints pending %s   tombstones %s   nodes being filled %s\n", oldest, count(st.HintsPending), count(st.Tombstones), count(st.Rebuilding))
	c := st.Counters
	fmt.Fprintf(a.out, "hints: kept %s, delivered %s, expired %s, dropped %s, refused %s   read repairs: %s\n",
		count(c.HintsKept), count(c.HintsDelivered), count(c.HintsExpired), count(c.HintsDropped), count(c.HintsRejected), count(c.ReadRepairs))
	fmt.Fprintf(a.out, "anti-entropy: %s, %s pulled, %s pushed, %s read\n",
		plural(c.SessionsScheduled, "scheduled session"), plural(c.KeysPulled, "key"), count(c.KeysPushed), plural(c.RowsReadByRepair, "row"))
}

// printDisks tells what is wrong with the disks of nodes, and nothing if nothing is.
func (a *app) printDisks(nodes []report.NodeStatus) {
	first := true
	trouble := func(n report.NodeStatus, format string, args ...any) {
		if first {
			fmt.Fprintln(a.out)
		}
		first = false
		a.printLong(fmt.Sprintf("%v: ", n.Node)+fmt.Sprintf(format, args...), red)
	}
	for _, n := range nodes {
		d := n.Disk
		if d == nil {
			continue
		}
		if d.Full {
			trouble(n, "the disk is full: it takes no writes, and serves reads (%s of %s free, %s are kept free)",
				size(int64(d.FreeBytes)), size(int64(d.TotalBytes)), size(int64(d.ReservedBytes)))
		}
		if d.SlowSeconds > 0 {
			trouble(n, "the disk is slow: it has not answered for %s (%s)", span(seconds(d.SlowSeconds)), d.SlowFile)
		}
		for _, r := range d.Rot {
			trouble(n, "rot in %s, found %s: %s", r.File, r.Since.UTC().Format("2006-01-02 15:04:05 UTC"), r.Error)
		}
		for _, q := range d.Quarantined {
			trouble(n, "in quarantine since %s: shard %d, tokens %s to %s: %s", q.Since.UTC().Format("2006-01-02 15:04:05 UTC"), q.Shard, q.FromToken, q.ToToken, q.Reason)
		}
	}
}

// known prints a number that may be unknown (-1).
func known(n int64) string {
	if n < 0 {
		return "?"
	}
	return count(n)
}

func pair(a, b fmt.Stringer) string { return a.String() + " - " + b.String() }

func stateCell(state string) cell {
	switch state {
	case "live":
		return cell{text: state, style: green}
	case "down":
		return cell{text: state, style: red}
	}
	return cell{text: state, style: yellow}
}
