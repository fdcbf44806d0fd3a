package main

import (
	"fmt"
	"strings"
	"testing"

	"syntropy/hlc"
	"syntropy/report"
)

// session is a repair of n1 and n2 whose shards 7 and 12 differ: two keys are repaired and one
// is in flight.
func session() report.Repair {
	r := report.Repair{
		Initiator: 1, Partner: 2, Shards: 256, ShardsEqual: 254, Rounds: 3,
		BytesSent: 4200, BytesReceived: 3990, KeysDiverged: 2, KeysInFlight: 1, KeysPulled: 1, KeysPushed: 1, DurationMS: 38.2,
	}
	digest := func(seed int) string { return fmt.Sprintf("%08x%024x", uint32(seed)*2654435761, 0) }
	step := func(shard, level int, path string, mine, theirs uint64, differ bool, then string) {
		s := report.DescentStep{
			Shard: shard, Level: level, Node: path, Outcome: "match", Then: then,
			Initiator: digest(len(r.Descent) + 1), InitiatorEntries: mine, PartnerEntries: theirs,
		}
		s.Partner = s.Initiator
		if differ {
			s.Outcome, s.Partner = "differ", digest(len(r.Descent)+100)
		}
		r.Descent = append(r.Descent, s)
	}
	step(0, 0, "", 151, 151, false, "skip")
	step(1, 0, "", 120, 120, false, "skip")
	step(7, 0, "", 1141, 1140, true, "descend")
	step(12, 0, "", 98, 98, true, "list")
	for i := range 16 {
		if i == 3 || i == 10 {
			step(7, 1, fmt.Sprintf("%x", i), 70, 70-uint64(i/10), true, map[int]string{3: "list", 10: "descend"}[i])
		} else {
			step(7, 1, fmt.Sprintf("%x", i), 71, 71, false, "skip")
		}
	}
	step(7, 2, "a0", 4, 4, false, "skip")
	step(7, 2, "a3", 5, 4, true, "list")

	value := &report.SideVersion{Timestamp: 9, Time: "2026-11-22T09:30:00.000125Z", Writer: "n1", ValueBytes: 13}
	old := &report.SideVersion{Timestamp: 7, Time: "2026-11-22T09:12:44.100000Z+3", Writer: "n3", ValueBytes: 1, Expires: at(0)}
	tomb := &report.SideVersion{Timestamp: 8, Time: "2026-11-22T09:29:59.999871Z", Writer: "n2", Tombstone: true}
	r.Differences = []report.Difference{
		{Shard: 7, Key: "U+1F600", Token: "a3f9c21b7d4e650", Initiator: value, Action: "push", Reason: "n2 lacks the key"},
		{Shard: 7, Key: "user:{42}:session:0123456789abcdef", Token: "31f00dfeed0c0de", Initiator: old, Partner: tomb, Action: "pull", Reason: "the partner's is newer: stamped 2s later"},
		{Shard: 12, Key: "\ufffd\x00", KeyBase64: "/wA=", Token: "77aa0912bb34cd5", Initiator: value, Partner: old, Action: "wait", Reason: "younger than the settle window"},
	}
	return r
}

func TestRepair(t *testing.T) {
	done, equal, inFlight, failed := session(), report.Repair{Initiator: 1, Partner: 3, Shards: 256, ShardsEqual: 256, Rounds: 1, BytesSent: 96, BytesReceived: 96, DurationMS: 2}, session(), report.Repair{Initiator: 1, Partner: 3, Error: "n3 is busy with other sessions"}
	done.Descent, done.Differences, done.KeysInFlight = nil, nil, 0
	inFlight.Descent, inFlight.Differences = nil, nil
	dry, explained, cut := session(), session(), session()
	dry.Descent, dry.DryRun = nil, true
	cut.Descent, cut.Truncated, cut.DryRun = nil, 1234, true
	const left = "syntropy: 1 key in flight is left, younger than the settle window: run it again in a while\n"
	for _, tc := range []struct {
		name    string
		line    string
		reports []report.Repair
		status  int
		stderr  string
		colour  bool
	}{
		{"done", "repair", []report.Repair{done, equal}, exitOK, "", false},
		{"equal", "repair --node n3 --shard 0 --no-wait", []report.Repair{equal}, exitOK, "", false},
		{"alone", "repair", nil, exitOK, "", false},
		{"in_flight", "repair --no-wait", []report.Repair{inFlight}, exitDisagree, left, false},
		{"failed", "repair", []report.Repair{done, failed}, exitDisagree, "syntropy: 1 of 2 pairs could not be finished: run it again when the cause is gone\n", false},
		{"dry_run", "repair --dry-run", []report.Repair{dry, equal}, exitDisagree, "syntropy: 2 keys differ, and nothing was changed: run it without --dry-run to repair\n", false},
		{"dry_run_cut", "repair --dry-run", []report.Repair{cut}, exitDisagree, "syntropy: 2 keys differ, and nothing was changed: run it without --dry-run to repair\n", false},
		{"explain", "repair --explain", []report.Repair{explained}, exitDisagree, left, false},
		{"explain_colour", "repair --explain", []report.Repair{explained}, exitDisagree, left, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeNode{reports: tc.reports}
			sh := newShell(t, f)
			sh.colour = tc.colour
			got := sh.run(strings.Fields(tc.line)...)
			golden(t, "repair_"+tc.name+".txt", got.out)
			if got.status != tc.status || got.err != tc.stderr {
				t.Errorf("status %d, stderr %q", got.status, got.err)
			}
			if f.opts.DryRun != strings.Contains(tc.line, "--dry") || f.opts.Explain != strings.Contains(tc.line, "--explain") || f.opts.NoWait != strings.Contains(tc.line, "--no-wait") {
				t.Errorf("the node was asked for %+v", f.opts)
			}
			if asked := f.opts.Shard != nil && *f.opts.Shard == 0 && f.opts.Node == hlc.NodeID(3); asked != strings.Contains(tc.line, "--node n3") {
				t.Errorf("the node was asked for %+v", f.opts)
			}
			got = sh.run(append(strings.Fields(tc.line), "--json")...)
			if tc.reports == nil {
				tc.reports = []report.Repair{}
			}
			sameJSON(t, got, tc.reports)
			if got.status != tc.status || got.err != tc.stderr {
				t.Errorf("--json: status %d, stderr %q", got.status, got.err)
			}
		})
	}
}

func TestRepairCancel(t *testing.T) {
	f := &fakeNode{}
	sh := newShell(t, f)
	for want, reports := range map[string][]report.Repair{
		"no repair was running on this node; any on the nodes connected to it were stopped as well\n": nil,
		"1 repair cancelled on this node; any on the nodes connected to it were stopped as well\n":    {{}},
		"2 repairs cancelled on this node; any on the nodes connected to it were stopped as well\n":   {{}, {}},
	} {
		f.reports = reports
		if got := sh.run("repair", "cancel"); got != (result{exitOK, want, ""}) {
			t.Errorf("%+v", got)
		}
		if got := sh.run("repair", "cancel", "--json"); got.out != fmt.Sprintf("{\n  \"cancelled\": %d\n}\n", len(reports)) {
			t.Errorf("%+v", got)
		}
	}
}
