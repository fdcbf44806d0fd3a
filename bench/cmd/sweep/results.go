package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"syntropy/bench"
)

// results is all that was measured.
type results struct {
	records []record
	billion []billion
	machine machine
}

// billion is a line of the results of the program of that name.
type billion struct {
	N           int     `json:"n"`
	D           int     `json:"d"`
	Comparisons int     `json:"comparisons"`
	Bytes       int     `json:"bytes"`
	Rounds      int     `json:"rounds"`
	SessionMS   float64 `json:"session_ms"`
	Descent     *int    `json:"descent"`
	TreeBytes   int     `json:"tree_bytes"`
	BuildS      float64 `json:"build_s"`
}

const billionFile = "billion.jsonl"

func load(dir string) (r results, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return r, err
	}
	for _, path := range paths {
		if filepath.Base(path) == billionFile {
			if r.billion, err = readLines[billion](path); err != nil {
				return r, err
			}
			continue
		}
		records, err := readLines[record](path)
		if err != nil {
			return r, err
		}
		r.records = append(r.records, records...)
	}
	r.records = newest(r.records)
	if len(r.records) == 0 {
		return r, fmt.Errorf("there are no results in %s: measure with -n first", dir)
	}
	raw, err := os.ReadFile(filepath.Join(dir, machineFile))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(raw, &r.machine)
}

// newest keeps the last of several results of one thing: two sweeps may have run
// at a time.
func newest(records []record) (kept []record) {
	seen := make(map[string]bool)
	for _, f := range slices.Backward(records) {
		name := f.Group + f.Peer + workloadName(f.N, f.D, f.Case, f.Shards)
		if !seen[name] {
			seen[name] = true
			kept = append(kept, f)
		}
	}
	slices.Reverse(kept)
	return kept
}

// find returns the figures of a peer, if they were measured.
func (r results) find(peer string, n, d int, kind string, shards int) (bench.Row, bool) {
	i := slices.IndexFunc(r.records, func(f record) bool {
		return f.Peer == peer && f.N == n && f.D == d && f.Case == kind && f.Shards == shards && (peer != "merkle16" || f.Group == groupCore)
	})
	if i < 0 {
		return bench.Row{}, false
	}
	return r.records[i].Row, true
}

// keys lists the numbers of keys that were measured.
func (r results) keys() (all []int) {
	for _, f := range r.records {
		all = append(all, f.N)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (r results) commits() string {
	var all []string
	for _, f := range r.records {
		all = append(all, f.Commit)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// The page has its figures between these lines; the prose around them is kept.
const (
	beginMark = "<!-- figures: written by make bench-reconcile-render -->"
	endMark   = "<!-- end of figures -->"
)

func (r results) render(doc string) error {
	raw, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(raw), beginMark)
	_, after, found := strings.Cut(rest, endMark)
	if !ok || !found {
		return errors.New(doc + " lacks the lines between which figures are written: " + beginMark + " and " + endMark)
	}
	page := before + beginMark + "\n\n" + r.tables() + "\n" + endMark + after
	return cmp.Or(os.WriteFile(doc, []byte(page), 0o644), r.plots(filepath.Dir(doc)))
}
