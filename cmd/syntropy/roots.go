package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"syntropy/hlc"
	"syntropy/report"
)

func newRoots(a *app) *cobra.Command {
	var recompute, all bool
	cmd := &cobra.Command{
		Use:     "roots",
		GroupID: groupAsk,
		Short:   "do all replicas hold exactly the same?",
		Long: `Asks every node for the Merkle root of each of its replicas and compares them.
The root of a shard is a digest of everything in it (keys, values, tombstones,
stamps), so equal roots are the proof that replicas are equal, byte for byte.

While clients write, roots differ for moments: a write is at one replica already
and at the next not yet. Ask again, or ask when writes rest.

--recompute has every node read all its rows from disk and sum them up anew, so
that the answer rests on the data and not on the tree that the node maintains.
It takes as long as reading everything.

Shards whose roots differ are listed; --all lists every shard.

Example:
  $ syntropy roots
  NODE  STATE  SHARDS  ENTRIES
  n1    live      256   34,924
  n2    live      256   34,924
  n3    live      256   34,924

  256 shards: each has one root on all its replicas. The replicas are equal.

Exit statuses: 0 all replicas answered and are equal; 3 roots differ, a node did
not answer, or a recomputed root is not what the tree says; 1 the command failed;
2 usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.dial()
			defer c.Close()
			roots, err := c.Roots(cmd.Context(), recompute)
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(roots)
			} else {
				a.printRoots(roots, all)
			}
			if err != nil {
				return err
			}
			return judgeRoots(roots)
		},
	}
	cmd.Flags().BoolVar(&recompute, "recompute", false, "sum the rows on disk instead of trusting the trees")
	cmd.Flags().BoolVar(&all, "all", false, "list every shard, not only those that differ")
	return a.client(cmd)
}

// wrongTrees lists the replicas whose tree is not what their rows say.
func wrongTrees(roots report.Roots) []string {
	var wrong []string
	for _, s := range roots.Shards {
		for _, r := range s.Replicas {
			if r.Recomputed != "" && r.Recomputed != r.Root {
				wrong = append(wrong, fmt.Sprintf("shard %d at %v: the tree says %s, the rows on disk say %s", s.Shard, r.Node, short(r.Root), short(r.Recomputed)))
			}
		}
	}
	return wrong
}

// answered tells whether a replica's root is known; a node that is down has none.
func answered(r report.ReplicaRoot) bool { return r.Root != "" }

// oneRoot reports whether all replicas of a shard that answered have the same
// root.
func oneRoot(s report.ShardRoots) bool {
	first := ""
	for _, r := range s.Replicas {
		if first == "" {
			first = r.Root
		}
		if answered(r) && r.Root != first {
			return false
		}
	}
	return true
}

// differing counts the shards whose roots differ.
func differing(roots report.Roots) (n int) {
	for _, s := range roots.Shards {
		if !oneRoot(s) {
			n++
		}
	}
	return n
}

func judgeRoots(roots report.Roots) error {
	wrong := wrongTrees(roots)
	switch {
	case len(wrong) > 0:
		return disagree("%s not match the rows on disk: keep the logs and the data directory of that node, and start it with an empty one, which is filled from the others", trees(len(wrong)))
	case differing(roots) > 0, !roots.Equal && len(roots.Errors) == 0:
		return disagree("replicas differ: syntropy repair makes them equal")
	case len(roots.Errors) > 0:
		return disagree("not every replica is compared: %s", strings.Join(roots.Errors, "; "))
	}
	return nil
}

func trees(n int) string {
	if n == 1 {
		return "1 tree does"
	}
	return count(n) + " trees do"
}

func (a *app) printRoots(roots report.Roots, all bool) {
	type held struct {
		shards  int
		entries uint64
		states  map[string]bool
	}
	nodes := map[hlc.NodeID]*held{}
	list := table{align: "rlllr"}
	list.head("SHARD", "NODE", "STATE", "ROOT", "ENTRIES")
	for _, s := range roots.Shards {
		same := oneRoot(s)
		for i, r := range s.Replicas {
			n := nodes[r.Node]
			if n == nil {
				n = &held{states: map[string]bool{}}
				nodes[r.Node] = n
			}
			n.states[r.State] = true
			entries := "?"
			if answered(r) {
				entries = count(r.Entries)
				n.shards++
				n.entries += r.Entries
			}
			if same && !all {
				continue
			}
			label, root := "", cell{text: r.Root}
			if i == 0 {
				label = strconv.Itoa(s.Shard)
			}
			switch {
			case !answered(r):
				root.text = "?"
			case !same:
				root.style = yellow
			}
			list.row(label, r.Node, stateCell(r.State), root, entries)
		}
	}
	sum := table{align: "llrr"}
	sum.head("NODE", "STATE", "SHARDS", "ENTRIES")
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		n := nodes[id]
		states := slices.Sorted(maps.Keys(n.states))
		state := cell{text: strings.Join(states, ", "), style: yellow}
		if len(states) == 1 {
			state = stateCell(states[0])
		}
		if n.shards == 0 {
			sum.row(id, state, "?", "?")
			continue
		}
		sum.row(id, state, count(n.shards), count(n.entries))
	}
	sum.print(a.out, a.colour)
	fmt.Fprintln(a.out)
	if len(list.rows) > 1 {
		list.print(a.out, a.colour)
		fmt.Fprintln(a.out)
	}
	for _, e := range roots.Errors {
		a.printLong("no answer: "+e, red)
	}
	for _, tree := range wrongTrees(roots) {
		a.printLong("wrong tree: "+tree, red)
	}
	if roots.Recomputed {
		fmt.Fprintln(a.out, "Every root was also summed from the rows on disk.")
	}
	shards := plural(len(roots.Shards), "shard")
	switch {
	case differing(roots) > 0, !roots.Equal && len(roots.Errors) == 0 && len(wrongTrees(roots)) == 0:
		fmt.Fprintf(a.out, "%s: the roots of %s differ.\n", shards, count(differing(roots)))
	case len(roots.Errors) > 0:
		fmt.Fprintf(a.out, "%s: each has one root on the replicas that answered.\n", shards)
	case len(wrongTrees(roots)) > 0:
		fmt.Fprintf(a.out, "%s: each has one root on all its replicas, but not every tree can be trusted.\n", shards)
	default:
		fmt.Fprintln(a.out, paint(shards+": each has one root on all its replicas. The replicas are equal.", green, a.colour))
	}
}
