package main

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"syntropy/internal/admin"
	"syntropy/report"
)

func at(d time.Duration) *time.Time { t := noon.Add(d); return &t }

// sameJSON checks that --json printed v and nothing else.
func sameJSON[T any](t *testing.T, got result, want T) {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(got.out), &v); err != nil {
		t.Errorf("%v in %s", err, got.out)
	}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("got %+v, want %+v", v, want)
	}
}

func TestStatus(t *testing.T) {
	f := &fakeNode{status: report.Status{
		Cluster: "5c1e7a90", TopologyVersion: 3, Node: 1,
		Nodes: []report.NodeStatus{
			{Node: 1, Peer: "127.0.0.1:7101", Up: true, State: "live", Shards: 256, Entries: 34924, Tombstones: 12},
			{Node: 2, Peer: "127.0.0.1:7102", Up: true, State: "joining", Reason: "rebuilding 3 shards", Shards: 256, Entries: 1024, ClockSkewMS: -0.24},
			{Node: 3, Peer: "127.0.0.1:7103", State: "down", Reason: "no heartbeat for 12s", Shards: 256, Entries: -1, HintsPending: 1234, WritesMissed: 7},
		},
		Pairs: []report.PairStatus{
			{A: 1, B: 2, Shards: 256, ProvenUntil: at(-2 * time.Minute)},
			{A: 1, B: 3, Shards: 256},
		},
		Counters: report.Counters{
			HintsKept: 1300, HintsDelivered: 50, HintsExpired: 9, HintsDropped: 7, HintsRejected: 1, ReadRepairs: 12,
			SessionsScheduled: 1, KeysPulled: 2, KeysPushed: 3456, RowsReadByRepair: 9876,
		},
		OldestUnprovenSeconds: 3605, HintsPending: 1234, Tombstones: 12, Rebuilding: 3,
	}}
	sh := newShell(t, f)
	got := sh.run("status")
	golden(t, "status.txt", got.out)
	if got.status != exitOK || got.err != "" {
		t.Errorf("%+v", got)
	}
	got = sh.run("status", "--json")
	sameJSON(t, got, f.status)
	if got.status != exitOK || got.err != "" {
		t.Errorf("%+v", got)
	}
	sh.colour = true
	golden(t, "status_colour.txt", sh.run("status").out)
	sh.colour = false
	for i := range f.status.Nodes {
		f.status.Nodes[i].Zone = string(rune('a' + i))
	}
	golden(t, "status_zones.txt", sh.run("status").out)
}

// longReason is what a node says that was away for too long.
const longReason = "STALE: n3 was away for longer than gc_grace (240h0m0s) while the others went on: deletes made meanwhile may be " +
	"forgotten by now, so its data could bring deleted keys back. It neither serves nor syncs. To bring it back, stop it, move its " +
	"data directory /var/lib/syntropy/n3 away, and start it with an empty one: it is then filled from the others, and what only " +
	"it held is in the directory that you kept\r\n\x1b[2J."

func TestLongReasons(t *testing.T) {
	f := &fakeNode{
		status: report.Status{Cluster: "5c1e7a90", TopologyVersion: 1, Node: 1, Nodes: []report.NodeStatus{
			{Node: 1, Peer: "127.0.0.1:7101", Up: true, State: "live", Shards: 256, Entries: 34924},
			{Node: 2, Peer: "127.0.0.1:7102", State: "down", Reason: "dial tcp 127.0.0.1:7102: connect: connection refused", Shards: 256, Entries: -1},
			{Node: 3, Peer: "127.0.0.1:7103", State: "stale", Reason: longReason, Shards: 256, Entries: -1},
		}},
		inspection: report.Inspection{Key: "k", Shard: 1, Slot: 2, Token: "0a3f9c21b7d4e65", Agree: true, Replicas: []report.ReplicaVersion{
			{Node: 1, State: "live", Found: true, Tombstone: true, Timestamp: 9, Time: "2026-11-22T09:30:00.000125Z+12", Writer: "n1", Digest: "3f9ac210"},
			{Node: 3, State: "down", Error: longReason},
		}},
		reports: []report.Repair{{Initiator: 1, Partner: 3, Error: longReason}},
		roots: report.Roots{
			Shards: []report.ShardRoots{{Shard: 0, Replicas: []report.ReplicaRoot{{Node: 1, State: "live", Root: "3f9ac210aabbccdd"}, {Node: 3, State: "down"}}}},
			Errors: []string{"n3: " + longReason},
		},
	}
	sh := newShell(t, f)
	for _, line := range []string{"status", "inspect k", "repair", "roots"} {
		got := sh.run(strings.Fields(line)...)
		golden(t, "long_"+strings.Fields(line)[0]+".txt", got.out)
		if !strings.Contains(strings.Join(strings.Fields(got.out), " "), "is in the directory that you kept ?[2J.") {
			t.Errorf("%s does not give the reason in full", line)
		}
	}
}

func TestErrorsOfTheNode(t *testing.T) {
	sh := newShell(t, &fakeNode{err: admin.Unavailable("2 of 3 replicas do not answer: start them first")})
	got := sh.run("roots", "--json")
	if want := (result{exitFailed, "", "syntropy: 2 of 3 replicas do not answer: start them first\n"}); got != want {
		t.Errorf("%+v", got)
	}
}

func TestInspect(t *testing.T) {
	stamp := "2026-11-22T09:30:00.000125Z"
	value := report.ReplicaVersion{Node: 1, State: "live", Found: true, Timestamp: 9, Time: stamp, Writer: "n1", ValueBytes: 13, Digest: "3f9ac210aabbccdd3f9ac210aabbccdd"}
	value2 := value
	value2.Node = 2
	tomb := report.ReplicaVersion{Node: 2, State: "live", Found: true, Tombstone: true, Timestamp: 7, Time: stamp, Writer: "n2", Digest: "0011223344556677"}
	down := report.ReplicaVersion{Node: 3, State: "down", Error: "no heartbeat for 12s"}
	for _, tc := range []struct {
		name     string
		replicas []report.ReplicaVersion
		agree    bool
		status   int
		stderr   string
	}{
		{"agree", []report.ReplicaVersion{value, value2, down}, true, exitOK, ""},
		{"differ", []report.ReplicaVersion{value, tomb, {Node: 3, State: "live"}}, false, exitDisagree, "syntropy: the replicas of shard 143 differ in this key\n"},
		{"absent", []report.ReplicaVersion{{Node: 1, State: "live"}, {Node: 2, State: "live"}}, true, exitOK, ""},
		{"nobody", []report.ReplicaVersion{down}, true, exitFailed, "syntropy: no replica of shard 143 answered: see syntropy status for which nodes are up\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeNode{inspection: report.Inspection{Key: "U+1F600", Shard: 143, Slot: 9189, Token: "0a3f9c21b7d4e65", Agree: tc.agree, Replicas: tc.replicas}}
			sh := newShell(t, f)
			got := sh.run("inspect", "U+1F600")
			golden(t, "inspect_"+tc.name+".txt", got.out)
			if got.status != tc.status || got.err != tc.stderr || f.key != "U+1F600" {
				t.Errorf("%+v", got)
			}
			got = sh.run("inspect", "--base64", "AP8=", "--json")
			sameJSON(t, got, f.inspection)
			if got.status != tc.status || got.err != tc.stderr || f.key != "\x00\xff" {
				t.Errorf("%+v, the node was asked for %q", got, f.key)
			}
		})
	}
}

func TestRoots(t *testing.T) {
	const a, b = "3f9ac210aabbccdd3f9ac210aabbccdd", "8812bb01aabbccdd8812bb01aabbccdd"
	shard := func(n int, roots ...string) report.ShardRoots {
		s := report.ShardRoots{Shard: n}
		for i, r := range roots {
			rr := report.ReplicaRoot{State: "live", Root: r, Entries: 700}
			if r == "" {
				rr.State, rr.Entries = "down", 0
			}
			rr.Node++
			for range i {
				rr.Node++
			}
			s.Replicas = append(s.Replicas, rr)
		}
		return s
	}
	wrong := shard(1, a, a)
	wrong.Replicas[0].Recomputed = a
	wrong.Replicas[1].Recomputed = b
	differ := shard(7, a, a, b)
	differ.Replicas[2].State = "joining"
	for _, tc := range []struct {
		name   string
		args   []string
		report report.Roots
		status int
		stderr string
	}{
		{"equal", nil, report.Roots{Equal: true, Shards: []report.ShardRoots{shard(0, a, a, a), shard(1, b, b, b)}}, exitOK, ""},
		{"all", []string{"--all"}, report.Roots{Equal: true, Shards: []report.ShardRoots{shard(0, a, a), shard(1, b, b)}}, exitOK, ""},
		{"differ", nil, report.Roots{Shards: []report.ShardRoots{shard(0, a, a, a), differ}}, exitDisagree, "replicas differ"},
		{"missing", nil, report.Roots{Equal: true, Shards: []report.ShardRoots{shard(0, a, a)}, Errors: []string{"n3: no heartbeat for 12s"}}, exitDisagree, "n3: no heartbeat for 12s"},
		{"down", nil, report.Roots{Shards: []report.ShardRoots{shard(0, a, a, ""), shard(1, "", b, b)}, Errors: []string{"n3: not connected"}}, exitDisagree, "not every replica is compared: n3: not connected"},
		{"down_and_differ", nil, report.Roots{Shards: []report.ShardRoots{shard(0, a, b, "")}, Errors: []string{"n3: not connected"}}, exitDisagree, "replicas differ"},
		{"wrong", []string{"--recompute"}, report.Roots{Equal: true, Recomputed: true, Shards: []report.ShardRoots{shard(0, a, a), wrong}}, exitDisagree, "1 tree does not match"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeNode{roots: tc.report}
			sh := newShell(t, f)
			got := sh.run(append([]string{"roots"}, tc.args...)...)
			golden(t, "roots_"+tc.name+".txt", got.out)
			if got.status != tc.status || !strings.Contains(got.err, tc.stderr) || f.recompute != tc.report.Recomputed {
				t.Errorf("%+v", got)
			}
			got = sh.run("roots", "--json")
			sameJSON(t, got, tc.report)
			if got.status != tc.status {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestInterruptedRepair(t *testing.T) {
	f := &fakeNode{blocked: make(chan struct{})}
	sh := newShell(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	sh.ctx = ctx
	go func() {
		<-f.blocked
		cancel()
	}()
	got := sh.run("repair")
	if got.status != exitFailed || got.out != "" || !strings.HasPrefix(got.err, "syntropy: interrupted: the repair is cancelled") {
		t.Errorf("%+v", got)
	}
}
