package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var full = flag.Bool("endtoend", false, "run two real nodes too: half a minute")

// TestSmall is the whole program on few rows.
func TestSmall(t *testing.T) {
	if !*full {
		t.Skip("two real nodes are started with -endtoend only")
	}
	doc := page(t, "before\n"+figuresBegin+"\nold\n"+figuresEnd+"\nafter\n")
	t.Setenv("TMPDIR", t.TempDir())
	var out, log bytes.Buffer
	err := run(t.Context(), []string{"-rows", "20000", "-stale", "1%", "-hint-window", "12s", "-doc", doc}, &out, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	var f figures
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &f); err != nil {
		t.Fatal(err)
	}
	if f.Repair.KeysPushed != 200 || f.Repair.Rounds == 0 || f.Repair.CPUSeconds[1] == 0 || f.Again.bytes() == 0 || f.KeptAsked != 200 {
		t.Errorf("%+v", f)
	}
	if text, err := os.ReadFile(doc); err != nil || !strings.HasPrefix(string(text), "before\n"+figuresBegin+"\n\n- 20,000 rows") || !strings.HasSuffix(string(text), figuresEnd+"\nafter\n") {
		t.Errorf("%v\n%s", err, text)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("%v is left behind (%v)", left, err)
	}
}

func page(t *testing.T, text string) string {
	t.Helper()
	doc := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(doc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestRefused: what cannot work is said before nodes are started.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-rows 0", "one at least"},
		{"-rows 1e13", "not a number of rows"},
		{"-stale 101%", "not a share"},
		{"-rows 10 -stale 11", "no more than the 10"},
		{"-rows 10 -stale 0.1%", "some row must be stale"},
		{"-value-bytes 8", "give 16"},
		{"-hint-window 3s", "12s or more"},
		{"-pipeline 0", "-pipeline is 1 to"},
		{"twelve", "no flag"},
		{"-doc " + page(t, "a page without figures"), "are not there"},
	} {
		err := run(t.Context(), strings.Fields(c.args), &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestStaleRowsAreSpreadEvenly(t *testing.T) {
	for _, w := range []workload{{rows: 10_000_000, stale: 10_000}, {rows: 1000, stale: 999}, {rows: 7, stale: 3}, {rows: 5, stale: 5}} {
		last := -1
		for i := range w.stale {
			row := w.staleRow(i)
			if gap := row - last; i > 0 && gap != w.rows/w.stale && gap != w.rows/w.stale+1 || row >= w.rows {
				t.Fatalf("%+v: row %d follows %d", w, row, last)
			}
			last = row
		}
	}
}

func TestValuesDiffer(t *testing.T) {
	w := workload{valueBytes: 100, seed: 1}
	seen := make(map[string]bool)
	for row := range 100 {
		for version := range 2 {
			v := w.value(nil, row, version)
			if len(v) != w.valueBytes || seen[string(v)] {
				t.Fatalf("row %d, version %d: %x", row, version, v)
			}
			seen[string(v)] = true
		}
		if len(key(row)) != keyBytes {
			t.Fatalf("%q", key(row))
		}
	}
	if got := w.entryBytes(); got != 133 {
		t.Errorf("a row takes %d bytes, not its key, its value and 13 more", got)
	}
}

// TestJudge: a bound holds up to its last byte, and what did not arrive is an
// error however cheap it was.
func TestJudge(t *testing.T) {
	f := figures{Rows: 1000, Stale: 10, EncodedBytes: 1330, StillStale: 10, StillStaleAsked: 10, RootsEqual: true, Arrived: 10, Kept: 5, KeptAsked: 5}
	f.Repair.KeysDiverged, f.Repair.KeysPushed = 10, 10
	f.Repair.BytesSent, f.Repair.BytesReceived = 2000, 230
	f.Repair.RowsRead, f.Repair.NodeRows = 1001, [2]int64{1, 1000}
	f.judge()
	var verdicts []bool
	for _, b := range f.Bounds {
		verdicts = append(verdicts, b.Pass)
	}
	if got, want := verdicts, []bool{true, false, true, true}; len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("%+v", f.Bounds)
	}
	if err := f.wrong(); err != nil {
		t.Error(err)
	}
	if text := f.table(); !strings.Contains(text, "for each key that differs: FALLS SHORT ") || !strings.Contains(text, "bytes, both ways: PASS ") {
		t.Error(text)
	}
	f.Arrived, f.RootsEqual = 9, false
	if err := f.wrong(); err == nil || !strings.Contains(err.Error(), "roots differ") || !strings.Contains(err.Error(), "9 of 10") {
		t.Error(err)
	}
}

func TestGroup(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -999: "-999", -1000: "-1,000", 1234567: "1,234,567"} {
		if got := group(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
