package main

import (
	"strings"
	"testing"

	"syntropy/report"
)

func TestScrub(t *testing.T) {
	well := report.Scrub{Node: 2, Shards: 256, Healthy: 256, Rows: 34924, Bytes: 4 << 20, DurationMS: 310, Problems: []report.ScrubProblem{}}
	healed, wrong, broken := well, well, well
	healed.Healthy = 255
	healed.Problems = []report.ScrubProblem{{Shard: 7, UnreadableLeaves: 3, Healed: true, From: 1, RowsChanged: 212}}
	wrong.Healthy = 254
	wrong.Problems = []report.ScrubProblem{
		{Shard: 7, WrongLeaves: 1, TotalsWrong: true, IndexWrong: true},
		{Shard: 9, UnreadableLeaves: 1, Error: "rows cannot be read: 000012.sst: checksum mismatch"},
	}
	broken.Error = "this node is stopping"
	for _, tc := range []struct {
		name, line string
		scrub      report.Scrub
		status     int
		stderr     string
	}{
		{"well", "scrub", well, exitOK, ""},
		{"healed", "scrub --node n2 --shard 7 --heal", healed, exitOK, ""},
		{"wrong", "scrub", wrong, exitDisagree, "syntropy: 2 shards are not well on n2: syntropy scrub --heal makes them right from another replica, and the node tries to by itself\n"},
		{"broken", "scrub", broken, exitDisagree, "syntropy: the scrub of n2 did not come to its end: this node is stopping\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeNode{scrub: tc.scrub}
			sh := newShell(t, f)
			got := sh.run(strings.Fields(tc.line)...)
			golden(t, "scrub_"+tc.name+".txt", got.out)
			if got.status != tc.status || got.err != tc.stderr {
				t.Errorf("status %d, stderr %q", got.status, got.err)
			}
			if all := strings.Contains(tc.line, "--heal"); f.scrubbed.Heal != all || (f.scrubbed.Node == 2) != all || (f.scrubbed.Shard != nil) != all {
				t.Errorf("the node was asked for %+v", f.scrubbed)
			}
			sameJSON(t, sh.run(append(strings.Fields(tc.line), "--json")...), tc.scrub)
		})
	}
	sh := newShell(t, &fakeNode{})
	for _, line := range []string{"scrub --shard -1", "scrub --node x", "scrub now"} {
		if got := sh.run(strings.Fields(line)...); got.status != exitUsage {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// TestStatusOfDisks: what is wrong with a disk is told below the table.
func TestStatusOfDisks(t *testing.T) {
	f := &fakeNode{status: report.Status{Cluster: "5c1e7a90", TopologyVersion: 1, Node: 1, Nodes: []report.NodeStatus{
		{Node: 1, Peer: "127.0.0.1:7101", Up: true, State: "live", Shards: 256, Entries: 34924, Disk: &report.Disk{
			FreeBytes: 1 << 20, TotalBytes: 64 << 20, ReservedBytes: 16 << 20, Full: true, FullSince: at(0),
		}},
		{Node: 2, Peer: "127.0.0.1:7102", Up: true, State: "live", Shards: 256, Entries: 34924, Disk: &report.Disk{
			FreeBytes: 1 << 30, TotalBytes: 2 << 30, ReservedBytes: 256 << 20, SlowSeconds: 12.5, SlowFile: "000007.log",
			Rot:         []report.Rot{{File: "000012.sst", FirstShard: 7, LastShard: 9, Since: noon, Error: "checksum mismatch"}},
			Quarantined: []report.Quarantine{{Shard: 7, FromToken: "0a0", ToToken: "0af", Since: noon, Reason: "rows cannot be read"}},
		}},
		{Node: 3, Peer: "127.0.0.1:7103", Up: true, State: "live", Shards: 256, Entries: 34924, Disk: &report.Disk{FreeBytes: 1 << 30, TotalBytes: 2 << 30}},
	}, Pairs: []report.PairStatus{}}}
	golden(t, "status_disks.txt", newShell(t, f).run("status").out)
}
