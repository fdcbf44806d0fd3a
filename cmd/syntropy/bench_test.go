package main

import (
	"encoding/json"
	"strings"
	"testing"

	"syntropy/internal/reconcile"
)

func TestBenchReconcile(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	got := sh.run(strings.Fields("bench reconcile --keys 2e3 --diverged 40 --case stale --shards 4 --hint 120 --runs 3 --seed 7 --json")...)
	if got.status != exitOK || got.err != "" {
		t.Fatalf("%+v", got)
	}
	var names map[string]any
	if err := json.Unmarshal([]byte(got.out), &names); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("bytes_sent bytes_received bytes_per_key rounds cpu_ms_initiator cpu_ms_partner missed extra memory_bytes_per_key") {
		if _, ok := names[name].(float64); !ok {
			t.Errorf("%s is %v", name, names[name])
		}
	}
	var f reconcile.Figures
	if err := json.Unmarshal([]byte(got.out), &f); err != nil {
		t.Fatal(err)
	}
	if f.Keys != 2000 || f.Diverged != 40 || f.Case != reconcile.Stale || f.Shards != 4 || f.Expected != 120 || f.Runs != 3 || f.Seed != 7 {
		t.Errorf("not what was asked for: %+v", f)
	}
	if f.Missed != 0 || f.Extra != 0 || f.Rounds < 2 || f.RoundsTotal < f.Rounds || f.EntryBytes < 40*100 {
		t.Errorf("%+v", f)
	}
}

func TestBenchReconcileForPeople(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	got := sh.run(strings.Fields("bench reconcile --keys 1000 --diverged 1 --runs 2")...)
	if got.status != exitOK || !strings.HasPrefix(got.out, "1,000 keys, 1 of them diverged (mixed), 1 shard, medians of 2 runs\n\nsent  ") {
		t.Errorf("%+v", got)
	}
	got = sh.run(strings.Fields("bench reconcile --keys 1000 --diverged 0 --runs 1")...)
	if got.status != exitOK || strings.Contains(got.out, "per key") || !strings.Contains(got.out, "1 run\n") {
		t.Errorf("%+v", got)
	}
	got = sh.run(strings.Fields("bench reconcile --keys 0 --diverged 0 --runs 1 --json")...)
	if got.status != exitOK || !strings.Contains(got.out, `"bytes_per_key": null`) {
		t.Errorf("%+v", got)
	}
}

func TestBenchReconcileRefuses(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	for line, want := range map[string]string{
		"--keys 10 --diverged 11":  "--diverged is 11 and --keys is 10: no more keys can differ than there are",
		"--keys 1.5":               `--keys: "1.5" is not a number of keys: give one such as 1000 or 1e6`,
		"--keys many":              "--keys: ",
		"--diverged -1":            "--diverged: ",
		"--hint x":                 "--hint: ",
		"--keys 1e9":               "--keys is 1000000000: give at most 100000000",
		"--shards 3":               "3 shards: give a power of two",
		"--shards 0":               "--shards is 0: give a power of two",
		"--runs 0":                 "--runs is 0: give 1 or more",
		"--case odd":               `there is no case "odd": it is one of`,
		"--case=":                  "--case is empty: it is one of",
		"--seed -1":                "invalid argument",
		"--keys NaN":               "--keys: ",
		"--keys 1e99":              "--keys: ",
		"--keys 1e6 extraargument": `takes no argument "extraargument"`,
	} {
		got := sh.run(append([]string{"bench", "reconcile"}, strings.Fields(line)...)...)
		if got.status != exitUsage || got.out != "" || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v, want %q", line, got, want)
		}
	}
}
