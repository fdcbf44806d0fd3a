package main

import (
	"encoding/json"
	"strings"
	"testing"

	"syntropy/internal/storagebench"
)

func TestBenchStorage(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	got := sh.run(append(strings.Fields("bench storage --rows 300 --slice 100 --rounds 1 --writers 2 --cache-mib 2 --json --dir"), t.TempDir())...)
	if got.status != exitOK || got.err != "" {
		t.Fatalf("%+v", got)
	}
	var f storagebench.Figures
	if err := json.Unmarshal([]byte(got.out), &f); err != nil {
		t.Fatal(err)
	}
	if f.Rows != 300 || f.Slice != 100 || f.Rounds != 1 || f.Writers != 2 || len(f.Figures) < 10 {
		t.Errorf("%+v", f)
	}
}

func TestBenchStorageRefuses(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	for line, want := range map[string]string{
		"--rows 0":                 "--rows is 0: give 1 or more",
		"--rows 1.5":               "--rows: ",
		"--rows 1e9":               "--rows is 1000000000: give at most 100000000",
		"--slice 0":                "--slice is 0: give 1 or more",
		"--writers 0":              "--writers is 0: give 1 or more",
		"--rounds -1":              "--rounds is -1: give 1 or more",
		"--cache-mib 0":            "--cache-mib is 0: give 1 or more",
		"--rows 1e6 extraargument": `takes no argument "extraargument"`,
	} {
		got := sh.run(append([]string{"bench", "storage"}, strings.Fields(line)...)...)
		if got.status != exitUsage || got.out != "" || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v, want %q", line, got, want)
		}
	}
}
