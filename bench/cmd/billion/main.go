// Program billion compares two replicas of up to a billion keys in the memory of
// one machine:
//
//	go run . -n 1e3,1e6,1e9 -out ../../results/billion.jsonl
//
// A billion rows need not be kept to be compared: a tree keeps 32 bytes for 72 of
// them, and a session reads the rows of a few leaves. Here each row is made when
// it is read, a function of its number; and the second replica is a fork of the
// first one's tree, adjusted by the rows that differ. The trees are what a store
// would have: every one of the rows is made once and hashed, and its digest is in
// them.
//
// It takes half a gigabyte and some minutes for 1e9 keys on two cores.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"syntropy/internal/reconcile"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "billion:", err)
		os.Exit(1)
	}
}

// keysMax leaves every row an interval of 2^28 positions for itself.
const keysMax = 1 << 32

// result is a line of the output.
type result struct {
	N           int     `json:"n"`
	D           int     `json:"d"`
	Comparisons uint64  `json:"comparisons"` // of nodes, on both sides
	Bytes       int64   `json:"bytes"`       // both ways, frames included, without entries
	Rounds      int     `json:"rounds"`      // until all is named
	RowsRead    uint64  `json:"rows_read"`   // on both sides
	SessionMS   float64 `json:"session_ms"`  // both sides
	// Descent is what a plain descent compares to find the one row that differs:
	// null if there are several.
	Descent   *int    `json:"descent"`
	TreeBytes int     `json:"tree_bytes"`
	BuildS    float64 `json:"build_s"` // to make and hash all rows
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("billion", flag.ContinueOnError)
	flags.SetOutput(stderr)
	n := flags.String("n", "1e3,1e4,1e5,1e6,1e7,1e8,1e9", "keys, or several numbers with commas")
	d := flags.String("d", "0,1,3,1000", "diverged keys, or several numbers with commas")
	out := flags.String("out", "", "file to write lines of JSON to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	keys, err := counts(*n)
	if err != nil {
		return fmt.Errorf("-n: %w", err)
	}
	diverged, err := counts(*d)
	if err != nil {
		return fmt.Errorf("-d: %w", err)
	}
	var lines []byte
	t := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "keys\tdiverged\tcomparisons\tplain descent\tbytes\trounds\trows read\tsession ms\ttree MB\tbuilding s\t")
	for _, n := range keys {
		if n < 1 || n > keysMax {
			return fmt.Errorf("-n: %d keys: give 1 to %d", n, keysMax)
		}
		began := time.Now()
		fmt.Fprintf(stderr, "making and hashing %d rows\n", n)
		base := build(newRows(n), runtime.GOMAXPROCS(0))
		building := time.Since(began).Seconds()
		for _, d := range diverged {
			if d > n {
				continue
			}
			r, err := compare(base, d)
			if err != nil {
				return fmt.Errorf("%d keys, %d diverged: %w", n, d, err)
			}
			r.BuildS = float64(int(10*building)) / 10
			line, err := json.Marshal(r)
			if err != nil {
				return err
			}
			lines = append(append(lines, line...), '\n')
			descent := "-"
			if r.Descent != nil {
				descent = fmt.Sprint(*r.Descent)
			}
			fmt.Fprintf(t, "%d\t%d\t%d\t%s\t%d\t%d\t%d\t%.3g\t%.3g\t%.1f\t\n", r.N, r.D, r.Comparisons, descent, r.Bytes, r.Rounds, r.RowsRead, r.SessionMS, float64(r.TreeBytes)/1e6, r.BuildS)
		}
	}
	if err := t.Flush(); err != nil || *out == "" {
		return err
	}
	return os.WriteFile(*out, lines, 0o644)
}

func counts(list string) (all []int, err error) {
	for s := range strings.SplitSeq(list, ",") {
		n, err := reconcile.ParseCount(s)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// errFound is what a comparison that names the wrong rows ends with.
var errFound = errors.New("what was found is not what differs")
