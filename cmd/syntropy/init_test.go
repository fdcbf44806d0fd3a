package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"syntropy/internal/topology"
)

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	sh := newShell(t, &fakeNode{})
	sh.env = []string{"SYNTROPY_ZONE=east", "SYNTROPY_SETTLE=3s", "SYNTROPY_LISTEN=10.0.0.1:7001"}
	args := []string{"init", "--data-dir", dir, "--peer-listen", "10.0.0.1:7101", "--member", "10.0.0.3:7101", "--member", "10.0.0.2:7101@west", "--shards", "64"}
	got := sh.run(args...)
	if got.status != exitOK || got.err != "" {
		t.Fatalf("%+v", got)
	}
	record, err := topology.RecordIn(dir)
	if err != nil || record == nil {
		t.Fatal(record, err)
	}
	golden(t, "init.txt", strings.NewReplacer(dir, "a", record.ClusterID[:8], "12345678").Replace(got.out))
	if s := record.Settings; s.Shards != 64 || s.Settle.Seconds() != 3 || s.Replicas != 3 || !record.Created.Equal(noon) {
		t.Errorf("%+v", record)
	}
	if len(record.Members) != 3 {
		t.Fatal(record.Members)
	}
	for i, want := range []struct {
		addr, zone string
		founder    bool
	}{{"10.0.0.1:7101", "east", true}, {"10.0.0.2:7101", "west", false}, {"10.0.0.3:7101", "", false}} {
		if m := record.Members[i]; int(m.ID) != i+1 || m.Addr != want.addr || m.Zone != want.zone || (m.Founder != "") != want.founder {
			t.Errorf("%+v", m)
		}
	}

	// Again: nothing may be overwritten.
	before, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	got = sh.run(args...)
	if want := "syntropy: " + dir + " holds cluster " + record.ClusterID[:8] + " already, created at 2026-11-22 12:00: start its node with syntropy serve --data-dir " + dir; got.status != exitFailed || got.out != "" || !strings.HasPrefix(got.err, want) {
		t.Errorf("%+v", got)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "cluster.json")); err != nil || string(after) != string(before) {
		t.Error("a refused init changed the record", err)
	}

	// Nor what is somebody else's.
	thesis := writeFile(t, "thesis.tex", "years of work")
	got = sh.run("init", "--data-dir", filepath.Dir(thesis), "--peer-listen", "10.0.0.1:7101")
	if got.status != exitFailed || !strings.Contains(got.err, "is not a Syntropy data directory") {
		t.Errorf("%+v", got)
	}

	var r initReport
	alone := filepath.Join(t.TempDir(), "b")
	sh.env = nil
	got = sh.run("init", "--data-dir", alone, "--peer-listen", "10.0.0.9:7101", "--json")
	if err := json.Unmarshal([]byte(got.out), &r); err != nil || got.status != exitOK || r.DataDir != alone || len(r.Cluster) != 32 ||
		len(r.Members) != 1 || r.Members[0] != (initMember{"n1", "10.0.0.9:7101", ""}) {
		t.Errorf("%+v, %v", got, err)
	}
}
