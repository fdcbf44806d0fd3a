// Program sweep measures all peers over many workloads, keeps the results, and
// makes the tables and plots of docs/reconciliation.md from them:
//
//	go run . -n 1e3,1e4,1e5,1e6     # measures what there is no result of yet
//	go run . -render                # writes tables and plots
//	go run . -check                 # compares with the bounds that Syntropy is held to
//
// Results are lines of JSON, a file for each number of keys. They are kept, so a
// sweep that was stopped goes on where it was; -again measures anew.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"syntropy/bench"
	"syntropy/internal/reconcile"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "sweep:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("sweep", flag.ContinueOnError)
	flags.SetOutput(stderr)
	n := flags.String("n", "", "measure with so many keys, or several numbers with commas")
	group := flags.String("group", "", "measure only this group: core (Syntropy and the baseline) or others")
	again := flags.Bool("again", false, "with -n: drop what there are results of, and measure it anew")
	dir := flags.String("results", "../../results", "directory of the results")
	doc := flags.String("doc", "../../../docs/reconciliation.md", "page that the tables are written into; plots are beside it")
	render := flags.Bool("render", false, "write tables and plots")
	check := flags.Bool("check", false, "compare the results with the bounds")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *n == "" && !*render && !*check {
		return errors.New("nothing to do: give -n, -render or -check")
	}
	if *group != "" && *group != groupCore && *group != groupOthers {
		return fmt.Errorf("-group: there is no %q: it is %s or %s", *group, groupCore, groupOthers)
	}
	if *n != "" {
		for keys := range strings.SplitSeq(*n, ",") {
			count, err := reconcile.ParseCount(keys)
			if err != nil {
				return fmt.Errorf("-n: %w", err)
			}
			if err := measure(*dir, count, *group, *again, stderr); err != nil {
				return err
			}
		}
	}
	if !*render && !*check {
		return nil
	}
	all, err := load(*dir)
	if err != nil {
		return err
	}
	if *check {
		all.printBounds(stdout)
	}
	if *render {
		return all.render(*doc)
	}
	return nil
}

// record is a line of results.
type record struct {
	// Group is what was measured together: times compare within it.
	Group  string `json:"group"`
	Commit string `json:"commit"`
	bench.Row
}

// measure runs what there are no results of yet.
func measure(dir string, n int, group string, again bool, progress io.Writer) error {
	path := filepath.Join(dir, power(n)+".jsonl")
	have, err := readLines[record](path)
	if err != nil {
		return err
	}
	if again {
		have = slices.DeleteFunc(have, func(r record) bool { return group == "" || r.Group == group })
		if err := writeRecords(path, have); err != nil {
			return err
		}
	}
	done := make(map[string]bool)
	for _, r := range have {
		done[r.Group+workloadName(r.N, r.D, r.Case, r.Shards)] = true
	}
	commit := describeCommit()
	if err := writeMachine(dir); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	var meter bench.Meter
	for _, m := range plan(n) {
		name := workloadName(m.w.Keys, m.w.Diverged, m.w.Case, m.w.Shards)
		if done[m.group+name] || group != "" && m.group != group {
			continue
		}
		fmt.Fprintf(progress, "%s: %s\n", name, m.group)
		rows, err := meter.Measure(m.w, m.peers, m.seeds, m.runs, func(string) {})
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", name, err), out.Close())
		}
		var records []record
		for _, r := range rows {
			if r.Skipped == "" {
				records = append(records, record{m.group, commit, r})
			}
		}
		lines, err := appendRecords(nil, records)
		if err != nil {
			return errors.Join(err, out.Close())
		}
		// One write for all: a workload is in the file as a whole or not at all.
		if _, err := out.Write(lines); err != nil {
			return errors.Join(err, out.Close())
		}
	}
	return out.Close()
}

func appendRecords(dst []byte, records []record) ([]byte, error) {
	for _, r := range records {
		line, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		dst = append(append(dst, line...), '\n')
	}
	return dst, nil
}

func writeRecords(path string, records []record) error {
	lines, err := appendRecords(nil, records)
	if err != nil {
		return err
	}
	return os.WriteFile(path, lines, 0o644)
}

func workloadName(n, d int, kind string, shards int) string {
	return fmt.Sprintf("%d keys, %d diverged (%s), shards: %d", n, d, kind, shards)
}

// power writes a number of keys as 1e6.
func power(n int) string {
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(float64(n), 'e', -1, 64), "e+")
	return mantissa + "e" + strings.TrimPrefix(exponent, "0")
}

// readLines reads a file of JSON lines; there may be none.
func readLines[T any](path string) (all []T, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, v)
	}
	return all, nil
}
