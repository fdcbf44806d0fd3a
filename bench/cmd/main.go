// Program cmd measures ways to find out where two replicas differ and prints a
// table, medians over some runs:
//
//	go run . -n 1e6 -d 10,1000 -case mixed -peers merkle16,riblt -runs 5
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"syntropy/bench"
	"syntropy/internal/reconcile"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	n := flags.String("n", "1e6", "keys, or several numbers with commas")
	d := flags.String("d", "1000", "diverged keys, as a number or as a share such as 10%, or several with commas")
	cases := flags.String("case", reconcile.Mixed, "how they differ, with commas: "+strings.Join(reconcile.Cases(), ", "))
	names := flags.String("peers", "", "which peers, with commas; all if empty: "+strings.Join(peerNames(), ", "))
	runs := flags.Int("runs", 5, "runs of each peer for each seed; the median of all is shown")
	seeds := flags.Int("seeds", 1, "how many seeds, from -seed on")
	shards := flags.Int("shards", 1, "shards, a power of two")
	seed := flags.Uint64("seed", 1, "seed of the replicas")
	valueBytes := flags.Int("value-bytes", reconcile.DefaultValueBytes, "length of a value")
	asJSON := flags.Bool("json", false, "print a line of JSON for each peer")
	quiet := flags.Bool("quiet", false, "do not say on standard error what is being done")
	if err := flags.Parse(args); err != nil {
		return err
	}
	peers, err := selectPeers(*names)
	if err != nil {
		return err
	}
	if *runs < 1 || *seeds < 1 {
		return fmt.Errorf("-runs %d -seeds %d: there must be one at least", *runs, *seeds)
	}
	workloads, err := workloadsOf(*n, *d, *cases, reconcile.Workload{Shards: *shards, Seed: *seed, ValueBytes: *valueBytes})
	if err != nil {
		return err
	}
	progress := func(what string) { fmt.Fprintln(stderr, what) }
	if *quiet {
		progress = func(string) {}
	}
	missed := false
	var meter bench.Meter
	for i, w := range workloads {
		rows, err := meter.Measure(w, peers, *seeds, *runs, progress)
		if err != nil {
			return err
		}
		for _, r := range rows {
			missed = missed || r.Missed+r.Extra > 0
		}
		if *asJSON {
			for _, r := range rows {
				if err := json.NewEncoder(stdout).Encode(r); err != nil {
					return err
				}
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(stdout)
		}
		if err := printTable(stdout, w, *runs**seeds, rows); err != nil {
			return err
		}
	}
	if missed {
		return fmt.Errorf("some peers did not find the truth: see missed and extra")
	}
	return nil
}

func peerNames() (names []string) {
	for _, p := range bench.Peers() {
		names = append(names, p.Name())
	}
	return names
}

func selectPeers(names string) ([]bench.Peer, error) {
	if names == "" {
		return bench.Peers(), nil
	}
	var peers []bench.Peer
	for name := range strings.SplitSeq(names, ",") {
		i := slices.Index(peerNames(), name)
		if i < 0 {
			return nil, fmt.Errorf("-peers: there is no %q: it is one of %s", name, strings.Join(peerNames(), ", "))
		}
		peers = append(peers, bench.Peers()[i])
	}
	return peers, nil
}

// workloadsOf combines all keys, diverged keys and cases.
func workloadsOf(n, d, cases string, w reconcile.Workload) (ws []reconcile.Workload, err error) {
	for keys := range strings.SplitSeq(n, ",") {
		if w.Keys, err = count(keys, 0); err != nil {
			return nil, fmt.Errorf("-n: %w", err)
		}
		for diverged := range strings.SplitSeq(d, ",") {
			if w.Diverged, err = count(diverged, w.Keys); err != nil {
				return nil, fmt.Errorf("-d: %w", err)
			}
			for w.Case = range strings.SplitSeq(cases, ",") {
				if err := w.Validate(); err != nil {
					return nil, err
				}
				ws = append(ws, w)
			}
		}
	}
	return ws, nil
}

// count reads "1000", "1e6" or "10%".
func count(s string, of int) (int, error) {
	if share, ok := strings.CutSuffix(s, "%"); ok && of > 0 {
		f, err := strconv.ParseFloat(share, 64)
		if err != nil || f < 0 || f > 100 {
			return 0, fmt.Errorf("%q is not a share: give 0%% to 100%%", s)
		}
		return int(math.Round(f / 100 * float64(of))), nil
	}
	return reconcile.ParseCount(s)
}

func printTable(out io.Writer, w reconcile.Workload, runs int, rows []bench.Row) error {
	fmt.Fprintf(out, "%d keys, %d diverged (%s), shards: %d, runs: %d\n", w.Keys, w.Diverged, w.Case, w.Shards, runs)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "peer\tsent\treceived\tB/diverged\trounds\tin all\tCPU ms initiator\tpartner\tratio\tpartner\tcompared\tmissed\textra\tmemory B/key\tupdate ns\t/ hash\t")
	for _, r := range rows {
		if r.Skipped != "" {
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%g\t%g\t%.3g\t%.3g\t%s\t%s\t%d\t%d\t%d\t%.3g\t%s\t%s\t\n", r.Peer, r.BytesSent, r.BytesReceived, optional(r.BytesPerKey, 1),
			r.Rounds, r.RoundsTotal, r.CPUMsInitiator, r.CPUMsPartner, optional(r.CPURatioInitiator, 2), optional(r.CPURatioPartner, 2),
			r.Comparisons, r.Missed, r.Extra, r.MemoryBytesPerKey, optional(r.UpdateNS, 0), optional(r.UpdateRatio, 1))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Skipped != "" {
			fmt.Fprintf(out, "%s is left out: %s\n", r.Peer, r.Skipped)
		}
	}
	return nil
}

func optional(v *float64, decimals int) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', decimals, 64)
}
