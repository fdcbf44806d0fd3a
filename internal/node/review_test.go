package node

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"syntropy/internal/topology"
)

// TestLastWriteOfABatchWins: a key that is written twice in one call ends with
// the later value, also where the batch is too large for one message and the two
// overtake each other on the way.
func TestLastWriteOfABatchWins(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1 := c.nodes[0]
	c.connected()
	for i := range 10 {
		k := key("twice", i)
		err := n1.Write(t.Context(), []Op{
			{Key: k, Value: bytes.Repeat([]byte("A"), maxApplyBytes)},
			{Key: key("between", i), Value: []byte("v")},
			{Key: k, Value: bytes.Repeat([]byte("B"), maxApplyBytes)},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range c.nodes {
			if got := m.get(k); !strings.HasPrefix(got, "B") {
				t.Fatalf("%s: batch %d ended with %.1s, the earlier write", m.name, i, got)
			}
		}
	}
}

// TestStaleIsRemembered (I2): a node that was told that it is stale stays so over
// a restart, also when the member that told it is away.
func TestStaleIsRemembered(t *testing.T) {
	c := startCluster(t, 3, staleSettings())
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n1.put("k", 0, 20)
	n3.away(n1, n2)
	n1.del("k", 0, 10)
	n3.start()
	n3.state(StateStale)
	n3.stop()
	n1.stop()
	n2.stop()
	n3.start()
	n3.state(StateStale)
	_, _, err := n3.Get(t.Context(), key("k", 5))
	wantCode(t, err, CodeStale, "gc_grace", "move its data directory away")
	// A member that never judged it does not deal with it either.
	hello := n3.replicaOf().hello(2)
	n2.start()
	if refusal := n2.dial(hello); refusal == nil || !strings.Contains(refusal.Text, "out of service") {
		t.Errorf("n2 accepts a node that says it is stale: %v", refusal)
	}
}

// TestStoodStill: a node that did not run for longer than gc_grace, frozen or
// suspended, serves nothing before the others have accepted it again.
func TestStoodStill(t *testing.T) {
	c := startCluster(t, 3, staleSettings())
	n1, n3 := c.nodes[0], c.nodes[2]
	n1.put("k", 0, 5)
	c.connected()
	r := n3.replicaOf()
	r.mu.Lock()
	r.ticked = r.ticked.Add(-c.settings.GCGrace - time.Minute)
	r.mu.Unlock()
	// The request comes before the first tick.
	_, _, err := n3.Get(t.Context(), key("k", 1))
	wantCode(t, err, CodeChecking, "stood still")
	r.afterGap(time.Hour)
	n3.state(StateLive) // the links were made anew, and the others accept it
	if got := n3.get(key("k", 1)); got != "k of n1 1" {
		t.Errorf("%q", got)
	}
}

// TestStoreIsEmpty: as TestStoreIsGone, with a directory in its place, such as
// the mount point of a volume that is not there.
func TestStoreIsEmpty(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n1.put("k", 0, 20)
	n3.stop()
	n2.stop() // without n2 the filling cannot end
	store := filepath.Join(n3.dir, "store")
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	n3.start()
	n3.state(StateJoining)
	_, _, err := n3.Get(t.Context(), key("k", 1))
	wantCode(t, err, CodeJoining)
	n2.start()
	n3.state(StateLive)
	if got := n3.get(key("k", 1)); got != "k of n1 1" {
		t.Errorf("%q", got)
	}
}

// foreign rewrites the directory of a stopped node into one of another cluster
// with members at the same addresses.
func (m *member) foreign() {
	m.c.t.Helper()
	file := filepath.Join(m.dir, "cluster.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		m.c.t.Fatal(err)
	}
	record, err := topology.ParseRecord(raw)
	if err != nil {
		m.c.t.Fatal(err)
	}
	record.ClusterID = strings.Repeat("ab", 16)
	if raw, err = json.Marshal(record); err != nil {
		m.c.t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		m.c.t.Fatal(err)
	}
}

// TestForeignDirectory: a node with the directory of another cluster whose
// members have the same addresses ends, with or without --join, and the members
// go on.
func TestForeignDirectory(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n3 := c.nodes[0], c.nodes[2]
	n1.put("k", 0, 5)
	n3.stop()
	n3.foreign()
	for _, join := range [][]string{n3.join, nil} {
		n3.join = join
		n3.start()
		eventually(t, "n3 fails", func() bool { return n3.Err() != nil })
		wantWords(t, n3.Err().Error(), n3.dir, "cluster")
		n3.stop()
	}
	if n1.Err() != nil || n1.get(key("k", 1)) != "k of n1 1" {
		t.Errorf("n1 is disturbed: %v", n1.Err())
	}
}

// TestRepairUnderLoad: writes that come while a repair runs are none of its
// business; what was in flight when it began is settled.
func TestRepairUnderLoad(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1 := c.nodes[0]
	c.connected()
	n1.inject(entry("first", "v", 0)) // n2 has not got it: in flight
	r := n1.replicaOf()
	settled := r.settings.Settle
	done := make(chan RepairReport)
	go func() { done <- r.repairPair(t.Context(), 2, RepairOptions{}) }()
	for wait := time.After(settled / 2); ; {
		select {
		case <-wait:
			n1.inject(entry("second", "v", 0)) // younger than the first look
			wait = nil
		case rep := <-done:
			if rep.Error != "" || rep.KeysPushed != 1 || rep.KeysInFlight != 0 {
				t.Errorf("%+v", rep)
			}
			return
		}
	}
}

// TestRootsWithANodeDown: who did not answer is listed, and nothing is called
// equal that was not compared.
func TestRootsWithANodeDown(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	c.connected()
	n2.stop()
	eventually(t, "n1 notices", func() bool { return len(n1.replicaOf().usablePeers()) == 0 })
	report, err := n1.Roots(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if report.Equal || len(report.Errors) != 1 {
		t.Errorf("equal %v, errors %q", report.Equal, report.Errors)
	}
	for _, s := range report.Shards {
		if len(s.Replicas) != 2 || s.Replicas[1].Node != 2 || s.Replicas[1].State != StateDown || s.Replicas[1].Root != "" {
			t.Fatalf("%+v", s)
		}
	}
	reports, err := n1.Repair(t.Context(), RepairOptions{})
	if err != nil || len(reports) != 1 || reports[0].Rounds != 0 || !strings.Contains(reports[0].Error, "not connected") {
		t.Errorf("%+v, %v", reports, err)
	}
}

// TestScanOfLargeKeys: a page holds at most about a megabyte of keys, and the
// scan still returns each of them once.
func TestScanOfLargeKeys(t *testing.T) {
	c := startCluster(t, 1, testSettings())
	n1 := c.nodes[0]
	for i := range 40 {
		if err := n1.Write(t.Context(), []Op{{Key: append(key("k", i), make([]byte, 60<<10)...), Value: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
	}
	seen, pages := make(map[string]bool), 0
	for cursor := uint64(0); pages == 0 || cursor != 0; pages++ {
		next, keys, err := n1.Scan(t.Context(), cursor, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) > maxScannedBytes/(60<<10)+1 {
			t.Fatalf("a page of %d keys", len(keys))
		}
		for _, k := range keys {
			if seen[string(k)] {
				t.Fatalf("%.5s came twice", k)
			}
			seen[string(k)] = true
		}
		cursor = next
	}
	if len(seen) != 40 || pages < 3 {
		t.Errorf("%d keys in %d pages", len(seen), pages)
	}
}

// TestMissedWrites: status counts what a node could not be sent, until a repair
// has brought it.
func TestMissedWrites(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	c.connected()
	missed := func() int64 {
		st, err := n1.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Nodes[1].WritesMissed
	}
	n2.stop()
	eventually(t, "n1 notices", func() bool { return len(n1.replicaOf().usablePeers()) == 0 })
	n1.put("k", 0, 3)
	if got := missed(); got != 3 {
		t.Errorf("%d writes missed, not 3", got)
	}
	n2.start()
	c.connected()
	c.settled()
	n1.repair(RepairOptions{DryRun: true})
	if got := missed(); got != 3 {
		t.Errorf("after a dry run: %d", got)
	}
	n1.repair(RepairOptions{})
	if got := missed(); got != 0 {
		t.Errorf("after a repair: %d", got)
	}
}
