// Program storage measures what the store costs beside Pebble alone, keeps the
// results, and writes them into docs/storage.md:
//
//	go run . -rows 1e6,1e7      # measures, and renders
//	go run .                    # renders what is kept
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"syntropy/internal/reconcile"
	"syntropy/internal/storagebench"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "storage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f := flag.NewFlagSet("storage", flag.ContinueOnError)
	rows := f.String("rows", "", "measure with these numbers of rows, separated by commas")
	rounds := f.Int("rounds", 7, "turns of each way in a run")
	slice := f.Int("slice", 50_000, "writes in a turn")
	cache := f.Int64("cache-mib", 1024, "block cache of each database")
	work := f.String("work", "", "directory to make databases in")
	results := f.String("results", "../../results", "directory of the results")
	doc := f.String("doc", "../../../docs/storage.md", "page to write the figures into")
	if err := f.Parse(args); err != nil {
		return err
	}
	for text := range strings.SplitSeq(*rows, ",") {
		if text == "" {
			continue
		}
		n, err := reconcile.ParseCount(text)
		if err != nil {
			return fmt.Errorf("-rows: %w", err)
		}
		w := storagebench.Workload{
			Dir: *work, Rows: n, Writers: 64, Slice: *slice, Rounds: *rounds, Seed: 1,
			CacheBytes: *cache << 20, VersionBytes: *cache << 19,
		}
		figures, err := storagebench.Measure(context.Background(), w, func(what string) { fmt.Fprintln(os.Stderr, what) })
		if err != nil {
			return err
		}
		raw, err := json.MarshalIndent(figures, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(*results, "storage-"+text+".json"), append(raw, '\n'), 0o644); err != nil {
			return err
		}
	}
	return render(*results, *doc)
}

const (
	begin = "<!-- figures: written by make bench-storage -->\n"
	end   = "<!-- end of figures -->\n"
)

// render writes a table of each result that is kept into the page.
func render(results, doc string) error {
	files, err := filepath.Glob(filepath.Join(results, "storage-*.json"))
	if err != nil {
		return err
	}
	var all []storagebench.Figures
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var figures storagebench.Figures
		if err := json.Unmarshal(raw, &figures); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, figures)
	}
	slices.SortFunc(all, func(a, b storagebench.Figures) int { return a.Rows - b.Rows })
	page, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(page, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !found || !closed {
		return errors.New(doc + " has no place for figures")
	}
	var out bytes.Buffer
	out.Write(before)
	out.WriteString(begin)
	for _, f := range all {
		table(&out, f)
	}
	out.WriteString(end)
	out.Write(after)
	return os.WriteFile(doc, out.Bytes(), 0o644)
}

func table(out *bytes.Buffer, f storagebench.Figures) {
	fmt.Fprintf(out, "\n%.0e rows; %d writers; medians of %d turns of %d operations\n\n", float64(f.Rows), f.Writers, f.Rounds, f.Slice)
	fmt.Fprint(out, "| what | wall clock | CPU | of |\n|---|---|---|---|\n")
	for _, x := range f.Figures {
		fmt.Fprintf(out, "| %s | %.2f | %.2f | %s |\n", x.What, x.Wall, x.CPU, x.Than)
	}
	fmt.Fprintln(out)
}
