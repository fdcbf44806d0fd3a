package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"syntropy/bench"
)

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"-n", "2e3,3e5", "-d", "1%", "-case", "mixed,stale", "-peers", "merkle16,mst", "-runs", "1", "-json", "-quiet"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	type line struct {
		n, d    int
		c, peer string
		skipped bool
	}
	var got []line
	for dec := json.NewDecoder(&out); dec.More(); {
		var r bench.Row
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		got = append(got, line{r.N, r.D, r.Case, r.Peer, r.Skipped != ""})
		if (r.BytesSent == 0 || r.Runs != 1) && r.Skipped == "" {
			t.Errorf("nothing was measured: %+v", r)
		}
	}
	want := []line{
		{2000, 20, "mixed", "merkle16", false}, {2000, 20, "mixed", "mst", false},
		{2000, 20, "stale", "merkle16", false}, {2000, 20, "stale", "mst", false},
		{300000, 3000, "mixed", "merkle16", false}, {300000, 3000, "mixed", "mst", true},
		{300000, 3000, "stale", "merkle16", false}, {300000, 3000, "stale", "mst", true},
	}
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d: %v", len(got), len(want), got)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("line %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"-n", "200000", "-d", "0", "-peers", "merkle16,mst", "-runs", "1", "-quiet"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"200000 keys, 0 diverged (mixed)", "merkle16 ", "mst is left out: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, &out)
		}
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range []string{"-n 1.5", "-n x", "-n 10 -d 11", "-d 101%", "-d -1", "-peers nobody", "-case odd", "-shards 3", "-runs 0", "-seeds 0"} {
		if err := run(strings.Fields(args), io.Discard, io.Discard); err == nil {
			t.Errorf("%s was taken", args)
		}
	}
}
