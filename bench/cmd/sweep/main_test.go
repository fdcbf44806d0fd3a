package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"syntropy/bench"
	"syntropy/internal/reconcile"
)

func TestPlan(t *testing.T) {
	for _, n := range []int{1e3, 1e5, 1e6, 1e7} {
		seen := make(map[string]bool)
		for _, m := range plan(n) {
			if err := m.w.Validate(); err != nil || m.w.Keys != n {
				t.Errorf("%d: %+v: %v", n, m.w, err)
			}
			baseline := func(p bench.Peer) bool { return p.Name() == "merkle16" }
			if !slices.ContainsFunc(m.peers, baseline) || m.seeds*m.runs < 3 {
				t.Errorf("%d: %+v", n, m)
			}
			name := m.group + workloadName(m.w.Keys, m.w.Diverged, m.w.Case, m.w.Shards)
			if seen[name] {
				t.Errorf("%s is planned twice", name)
			}
			seen[name] = true
		}
	}
}

// fake writes results of made-up figures.
func fake(t *testing.T, spoil func(*bench.Row)) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := writeMachine(dir); err != nil {
		t.Fatal(err)
	}
	one := 1.0
	for _, n := range []int{1e6, 1e7} {
		var lines []byte
		for _, m := range plan(n) {
			for _, p := range m.peers {
				r := bench.Row{
					Peer: p.Name(), N: n, D: m.w.Diverged, Case: m.w.Case, Shards: m.w.Shards, BytesSent: 30, BytesReceived: 25, NamingBytes: 50,
					Rounds: 1, RoundsTotal: 2, CPUMsInitiator: 1, CPUMsPartner: 1, CPURatioInitiator: &one, CPURatioPartner: &one,
					MemoryBytesPerKey: 0.5, UpdateNS: &one, UpdateRatio: &one, Runs: 5, Seeds: 1,
				}
				if r.D > 0 {
					perKey := 40.0
					r.BytesPerKey = &perKey
				}
				spoil(&r)
				line, err := json.Marshal(record{m.group, "0123abc", r})
				if err != nil {
					t.Fatal(err)
				}
				lines = append(append(lines, line...), '\n')
			}
		}
		if err := os.WriteFile(filepath.Join(dir, power(n)+".jsonl"), lines, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBounds(t *testing.T) {
	check := func(dir string) string {
		var out bytes.Buffer
		if err := run([]string{"-check", "-results", dir}, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if out := check(fake(t, func(*bench.Row) {})); strings.Contains(out, "FALLS SHORT") || strings.Contains(out, "not measured") {
		t.Errorf("good figures fail:\n%s", out)
	}
	out := check(fake(t, func(r *bench.Row) {
		if r.Peer == "syntropy/hint/3" && r.N == 1e7 && r.D == 100 && r.Case == reconcile.Stale {
			r.Rounds = 5
		}
	}))
	if strings.Count(out, "FALLS SHORT") != 1 || !strings.Contains(out, "syntropy/hint/3, 1e7 keys, 100 stale") {
		t.Errorf("a round too many is to be seen:\n%s", out)
	}
	// Where others fall short does not matter.
	others := fake(t, func(r *bench.Row) {
		if r.Peer == "riak" {
			r.Missed, r.Rounds = 1, 9
		}
	})
	if out := check(others); strings.Contains(out, "FALLS SHORT") {
		t.Errorf("Syntropy is held to what another does:\n%s", out)
	}
}

// TestResultsAreKept: a sweep goes on where it was, unless it is to begin again.
func TestResultsAreKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "2e1.jsonl")
	sweep := func(args ...string) (workloads string, lines []record) {
		var log bytes.Buffer
		if err := run(append(args, "-n", "20", "-group", groupCore, "-results", dir), io.Discard, &log); err != nil {
			t.Fatal(err)
		}
		lines, err := readLines[record](path)
		if err != nil {
			t.Fatal(err)
		}
		return log.String(), lines
	}
	log, all := sweep()
	if len(all) == 0 || !strings.Contains(log, "20 keys, 2 diverged (stale), shards: 1: core\n") {
		t.Fatalf("%d lines after\n%s", len(all), log)
	}
	// The last workload was not measured, or its file is not what it should be.
	last := all[len(all)-1]
	kept := slices.DeleteFunc(slices.Clone(all), func(r record) bool {
		return r.Group == last.Group && r.D == last.D && r.Case == last.Case
	})
	if err := writeRecords(path, kept); err != nil {
		t.Fatal(err)
	}
	if log, lines := sweep(); strings.Count(log, "\n") != 1 || len(lines) != len(all) {
		t.Errorf("%d lines of %d after\n%s", len(lines), len(all), log)
	}
	if log, _ := sweep(); log != "" {
		t.Errorf("measured for the third time:\n%s", log)
	}
	if err := writeRecords(path, append(all, record{Group: groupOthers})); err != nil {
		t.Fatal(err)
	}
	log, lines := sweep("-again")
	if len(lines) != len(all)+1 || lines[0].Group != groupOthers || strings.Count(log, "\n") != 7 {
		t.Errorf("%d lines of %d after\n%s", len(lines), len(all)+1, log)
	}
}

// TestRender: tables and plots are written, and the prose around them is kept.
func TestRender(t *testing.T) {
	dir := fake(t, func(*bench.Row) {})
	descent := 49
	var lines []byte
	for _, b := range []billion{{N: 1000, D: 1, Comparisons: 2, Descent: &descent}, {N: 1e9, D: 1, Comparisons: 2, Descent: &descent}, {N: 1e9, D: 3, Comparisons: 8}} {
		line, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := os.WriteFile(filepath.Join(dir, billionFile), lines, 0o644); err != nil {
		t.Fatal(err)
	}
	doc := filepath.Join(dir, "page.md")
	if err := os.WriteFile(doc, []byte("before\n"+beginMark+"\nold\n"+endMark+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing changes
		if err := run([]string{"-render", "-results", dir, "-doc", doc}, io.Discard, io.Discard); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		page := string(raw)
		if !strings.HasPrefix(page, "before\n") || !strings.HasSuffix(page, "\nafter\n") || strings.Contains(page, "\nold\n") || strings.Count(page, beginMark) != 1 {
			t.Errorf("%s", page)
		}
		for _, want := range []string{"commit 0123abc", "| `merkle16` |", "| 1e9 |", "| 1e9, 3 |", "PASS"} {
			if !strings.Contains(page, want) {
				t.Errorf("there is no %q in\n%s", want, page)
			}
		}
	}
	for _, plot := range []string{"bench-bytes.svg", "bench-cpu.svg", "bench-comparisons.svg"} {
		if raw, err := os.ReadFile(filepath.Join(dir, plot)); err != nil || !bytes.Contains(raw, []byte("</svg>")) {
			t.Errorf("%s: %v", plot, err)
		}
	}
	if kept := newest([]record{{Commit: "old"}, {Group: "x"}, {Commit: "new"}}); len(kept) != 2 || kept[1].Commit != "new" {
		t.Errorf("%+v", kept)
	}
	if err := os.WriteFile(doc, []byte("no marks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-render", "-results", dir, "-doc", doc}, io.Discard, io.Discard); err == nil {
		t.Error("a page without marks was overwritten")
	}
}

func TestPower(t *testing.T) {
	for n, want := range map[int]string{1000: "1e3", 1e9: "1e9", 1500: "1.5e3", 72: "7.2e1", 1e10: "1e10"} {
		if got := power(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range []string{"", "-n x", "-group nobody -n 1e3", "-check -results /nonexistent"} {
		if err := run(strings.Fields(args), io.Discard, io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}
