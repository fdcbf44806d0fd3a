package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"syntropy/internal/node"
)

func newStatus(a *app) *cobra.Command {
	return a.client(&cobra.Command{
		Use:     "status",
		GroupID: groupAsk,
		Short:   "which nodes are there, and how long ago were their replicas proven to agree?",
		Long: `Shows the cluster as one node sees it: who is there and up, what each holds, and
since when each pair of replicas is proven to agree.

The number to watch is how long some pair of the node that answered is without
proof. It grows until somebody runs a repair ("syntropy repair") that compares the
pair to the end. Keep it well below --gc-grace (10 days by default): a node that is
away for longer than that is not let back in with the data it has.

  STATE   live      serves reads and writes
          joining   started empty, takes writes and is being filled from the others;
                    serves no reads yet
          checking  was away for long and waits to hear whether it may serve
          stale     was away for longer than --gc-grace: serves nothing and takes part
                    in no repair; must come back with an empty data directory
          down      the node that answered has no connection to it
          The reason stands in the last column, or below the table when it is long.
  MISSED  writes that the node that answered could not bring to it since it started
          itself, and since it last brought a repair with it to its end
  CLOCK   its clock minus the clock of the node that answered

Example:
  $ syntropy status
  cluster 5c1e7a90   topology version 1   answered by n1

  NODE  PEER            STATE  SHARDS  ENTRIES  TOMBSTONES  MISSED   CLOCK
  n1    127.0.0.1:7101  live      256   34,924          12       0  0.0 ms
  n2    127.0.0.1:7102  live      256   34,924          12       0  0.2 ms
  n3    127.0.0.1:7103  down      256        ?           ?   1,700       ?  dial tcp ...

  PAIR     PROVEN TO AGREE UNTIL
  n1 - n2  2026-11-22 09:28:00 UTC  2 min 00 s ago
  n1 - n3  never

  longest without proof 1 h 00 min   tombstones 12   nodes being filled 0

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

func (a *app) printStatus(st node.Status) {
	fmt.Fprintf(a.out, "cluster %s   topology version %d   answered by %v\n\n", st.Cluster, st.TopologyVersion, st.Node)

	nodes := table{align: "lllrrrrrl"}
	nodes.head("NODE", "PEER", "STATE", "SHARDS", "ENTRIES", "TOMBSTONES", "MISSED", "CLOCK", "")
	for _, n := range st.Nodes {
		clock := fmt.Sprintf("%.1f ms", n.ClockSkewMS)
		if !n.Up {
			clock = "?"
		}
		tombstones := count(n.Tombstones)
		if n.Entries < 0 {
			tombstones = "?"
		}
		nodes.row(n.Node, n.Peer, stateCell(n.State), count(n.Shards), known(n.Entries), tombstones, count(n.WritesMissed), clock, cell{text: n.Reason, brief: true})
	}
	nodes.print(a.out, a.colour)

	if len(st.Pairs) > 0 {
		fmt.Fprintln(a.out)
		pairs := table{}
		pairs.head("PAIR", "PROVEN TO AGREE UNTIL")
		for _, p := range st.Pairs {
			until, ago := cell{text: "never", style: yellow}, ""
			if p.ProvenUntil != nil {
				until = cell{text: p.ProvenUntil.UTC().Format("2006-01-02 15:04:05 UTC")}
				ago = span(max(0, a.now().Sub(*p.ProvenUntil))) + " ago"
			}
			pairs.row(pair(p.A, p.B), until, ago)
		}
		pairs.print(a.out, a.colour)
	}

	oldest := "longest without proof " + span(seconds(st.OldestUnprovenSeconds).Round(time.Millisecond))
	fmt.Fprintf(a.out, "\n%s   tombstones %s   nodes being filled %s\n", oldest, count(st.Tombstones), count(st.Rebuilding))
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
