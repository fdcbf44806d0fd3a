package node

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/report"
)

// TestFormation: three empty nodes become one cluster, with the ids in the order
// of their addresses, and a node that starts alone is a cluster by itself.
func TestFormation(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	id := ""
	for i, m := range c.nodes {
		st, err := m.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.ID() != hlc.NodeID(i+1) || st.Node != m.ID() {
			t.Errorf("%s is %v, its status says %v", m.name, m.ID(), st.Node)
		}
		if id == "" {
			id = st.Cluster
		}
		if st.Cluster != id || len(st.Nodes) != 3 || len(st.Pairs) != 3 {
			t.Errorf("%s: %+v", m.name, st)
		}
		for _, ns := range st.Nodes {
			if ns.State != StateLive || !ns.Up || ns.Incarnation == "" {
				t.Errorf("%s sees %+v", m.name, ns)
			}
		}
	}
	if c.nodes[0].RequestDeadline() != c.settings.RequestDeadline {
		t.Error("another request deadline than the cluster's")
	}
}

func TestAlone(t *testing.T) {
	c := startCluster(t, 1, testSettings())
	n1 := c.nodes[0]
	n1.put("k", 0, 10)
	if got := n1.get(key("k", 3)); got != "k of n1 3" {
		t.Fatalf("read %q", got)
	}
	if reports := n1.repair(report.RepairOptions{}); len(reports) != 0 {
		t.Fatalf("repair of nobody: %+v", reports)
	}
	n1.stop()
	n1.start()
	if n1.replicaOf(); n1.get(key("k", 9)) != "k of n1 9" {
		t.Fatal("a restart lost a key")
	}
}

// TestBeforeFormation: a node that waits for the others says so to everybody.
func TestBeforeFormation(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	m := c.nodes[0]
	m.start()
	_, _, err := m.read(t.Context(), []byte("k"))
	wantCode(t, err, CodeLoading, "waits for the others")
	wantCode(t, m.write(t.Context(), []Op{{Key: []byte("k")}}), CodeLoading)
	_, err = m.Repair(t.Context(), report.RepairOptions{})
	wantCode(t, err, CodeLoading)
	_, err = m.Status(t.Context())
	wantCode(t, err, CodeLoading)
	if m.ID() != 0 {
		t.Errorf("it calls itself %v", m.ID())
	}
}

// TestWriteAnywhereReadEverywhere: a write goes to all replicas that are up, and
// deletes win over what they delete, on all of them.
func TestWriteAnywhereReadEverywhere(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	for i, m := range c.nodes {
		m.put("k", 10*i, 10*i+10)
	}
	c.nodes[1].put("k", 0, 5) // over what n1 wrote
	c.nodes[2].del("k", 10, 15)
	for _, m := range c.nodes {
		for i := range 30 {
			want := fmt.Sprintf("k of n%d %d", i/10+1, i)
			switch {
			case i < 5:
				want = fmt.Sprintf("k of n2 %d", i)
			case i >= 10 && i < 15:
				want = "-"
			}
			if got := m.get(key("k", i)); got != want {
				t.Errorf("%s: key %d is %q, want %q", m.name, i, got, want)
			}
		}
		if size, err := m.Size(t.Context()); err != nil || size != 25 {
			t.Errorf("%s: size %d, %v", m.name, size, err)
		}
	}
	c.equal()
}

// TestInspect: every replica's version of a key, and who does not answer.
func TestInspect(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	c.nodes[0].inject(entry("k", "old", 2*time.Hour))
	c.nodes[1].inject(entry("k", "newer", time.Hour))
	in, err := c.nodes[2].Inspect(t.Context(), []byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	got := []int{in.Replicas[0].ValueBytes, in.Replicas[1].ValueBytes, in.Replicas[2].ValueBytes}
	if in.Agree || fmt.Sprint(got) != "[3 5 0]" || in.Replicas[2].Found || in.Replicas[0].Timestamp >= in.Replicas[1].Timestamp {
		t.Fatalf("%+v", in)
	}
	c.nodes[0].stop()
	r := c.nodes[2].replicaOf()
	eventually(t, "n3 has noticed", func() bool { return !r.peer(1).usable() })
	if in, err = c.nodes[2].Inspect(t.Context(), []byte("k")); err != nil || in.Replicas[0].State != StateDown || in.Replicas[0].Error == "" {
		t.Fatalf("%+v, %v", in, err)
	}
	_, err = c.nodes[2].Inspect(t.Context(), make([]byte, lww.MaxKeyBytes+1))
	wantCode(t, err, CodeInvalid)
}

// TestRepairBringsWhatWasMissed: exactly that, and a second repair finds nothing
// in one small exchange for each pair (I9).
func TestRepairBringsWhatWasMissed(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n1.put("k", 0, 100)
	n3.stop()
	n1.put("new", 0, 20)
	n2.put("k", 10, 17)
	n2.del("k", 90, 100)
	n3.start()
	c.connected()
	n1.put("live", 0, 3) // it gets these by itself
	c.settled()

	for _, rep := range n1.repair(report.RepairOptions{}) {
		want := 0
		if rep.Initiator == 1 && rep.Partner == 3 {
			want = 37
		}
		if rep.KeysDiverged != want || rep.KeysPushed != want || rep.KeysPulled != 0 || rep.KeysInFlight != 0 {
			t.Errorf("first: %+v", rep)
		}
	}
	c.equal()
	if got := n3.get(key("k", 95)); got != "-" {
		t.Errorf("a deleted key is there: %q", got)
	}
	if got := n3.get(key("k", 12)); got != "k of n2 12" {
		t.Errorf("n3 has %q", got)
	}
	for _, rep := range n2.repair(report.RepairOptions{}) {
		if rep.Rounds != 1 || rep.KeysDiverged != 0 || rep.ShardsEqual != rep.Shards || rep.BytesSent > 200 || rep.BytesReceived > 200 {
			t.Errorf("second: %+v", rep)
		}
	}
	st, err := n1.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Pairs {
		if p.ProvenUntil == nil {
			t.Errorf("no proof for %v - %v", p.A, p.B)
		}
	}
}

// TestRepairBothWays: what each side alone has reaches the other; newer versions
// and deletes win in either direction, and a delete is not undone.
func TestRepairBothWays(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	tombstone := entry("gone", "", time.Hour)
	tombstone.Tombstone = true
	n1.inject(entry("one", "1", time.Hour), entry("both", "old", 2*time.Hour), entry("gone", "alive", 2*time.Hour))
	n2.inject(entry("two", "2", time.Hour), entry("both", "new", time.Hour), tombstone)
	rep := n1.repair(report.RepairOptions{})[0]
	if rep.KeysDiverged != 4 || rep.KeysPushed != 1 || rep.KeysPulled != 3 {
		t.Errorf("%+v", rep)
	}
	for _, m := range c.nodes {
		got := m.get([]byte("one")) + m.get([]byte("two")) + m.get([]byte("both")) + m.get([]byte("gone"))
		if got != "12new-" {
			t.Errorf("%s: %s", m.name, got)
		}
	}
	c.equal()
}

// TestRepairKeepsExpiry: expiry fields travel with an entry, and an expiry alone
// is a difference.
func TestRepairKeepsExpiry(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	at := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	plain := entry("k", "v", time.Hour)
	touched := plain
	touched.ExpiryStamp, touched.ExpiryNode, touched.Expires = plain.Stamp.Add(time.Minute), 7, at.UnixMilli()
	past := entry("past", "v", time.Hour)
	past.ExpiryStamp, past.ExpiryNode, past.Expires = past.Stamp, 7, time.Now().Add(-time.Minute).UnixMilli()
	n1.inject(plain, past)
	n2.inject(touched)
	n1.repair(report.RepairOptions{})
	for _, m := range c.nodes {
		e, found, err := m.replicaOf().store.Get([]byte("k"))
		if err != nil || !found || e.Version != touched.Version {
			t.Errorf("%s: %+v, %v", m.name, e, err)
		}
		if got := m.get([]byte("past")); got != "-" {
			t.Errorf("%s serves an expired key: %q", m.name, got)
		}
	}
	c.equal()
	in, err := n2.Inspect(t.Context(), []byte("k"))
	if err != nil || in.Replicas[0].Expires == nil || !in.Replicas[0].Expires.Equal(at) {
		t.Errorf("%+v, %v", in, err)
	}
}

// TestDryRun: it lists both versions of each key, the direction and the reason,
// and leaves every replica as it was.
func TestDryRun(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	n1.inject(entry("mine", "1", time.Hour), entry("stale", "old", 2*time.Hour))
	n2.inject(entry("stale", "newer", time.Hour), entry("theirs", "22", time.Hour))
	before := c.rootsText()
	rep := n1.repair(report.RepairOptions{DryRun: true, Node: 2})[0]
	if after := c.rootsText(); after != before {
		t.Errorf("a dry run changed something:\n%s\n%s", before, after)
	}
	if rep.KeysDiverged != 3 || rep.KeysPulled+rep.KeysPushed != 0 || !rep.DryRun {
		t.Errorf("%+v", rep)
	}
	var got []string
	for _, d := range rep.Differences {
		side := func(v *report.SideVersion) string {
			if v == nil {
				return "none"
			}
			if v.Writer != "n9" || v.Time == "" || v.Timestamp == 0 {
				t.Errorf("%s: %+v", d.Key, v)
			}
			return fmt.Sprint(v.ValueBytes)
		}
		got = append(got, fmt.Sprintf("%s %s/%s %s", d.Key, side(d.Initiator), side(d.Partner), d.Action))
		if d.Reason == "" || d.Token == "" {
			t.Errorf("%+v", d)
		}
	}
	for _, want := range []string{"mine 1/none push", "stale 3/5 pull", "theirs none/2 pull"} {
		if !strings.Contains(strings.Join(got, ";"), want) {
			t.Errorf("%q is not among %q", want, got)
		}
	}
	if st, err := n1.Status(t.Context()); err != nil || st.Pairs[0].ProvenUntil != nil {
		t.Errorf("a dry run proved something: %+v, %v", st.Pairs, err)
	}
}

// TestExplain is the textbook's picture: eight keys in one tree, one of them
// stale at the partner.
func TestExplain(t *testing.T) {
	s := testSettings()
	s.Shards = 1
	c := startCluster(t, 2, s)
	n1, n2 := c.nodes[0], c.nodes[1]
	for i := range 8 {
		e := entry(fmt.Sprintf("key%d", i), "v", 2*time.Hour)
		n1.inject(e)
		if n2.inject(e); i == 5 {
			n1.inject(entry("key5", "new", time.Hour))
		}
	}
	rep := n1.repair(report.RepairOptions{Explain: true})[0]
	if len(rep.Differences) != 1 || rep.KeysPushed != 1 || rep.Truncated != 0 {
		t.Fatalf("%+v", rep)
	}
	d := rep.Differences[0]
	if d.Key != "key5" || d.Initiator == nil || d.Partner == nil || d.Initiator.Timestamp <= d.Partner.Timestamp || d.Action != "push" {
		t.Errorf("%+v", d)
	}
	steps := map[string]int{}
	for i, st := range rep.Descent {
		steps[st.Outcome+" "+st.Then]++
		if (st.Outcome == "match") != (st.Initiator == st.Partner) || st.Shard != 0 {
			t.Errorf("step %d: %+v", i, st)
		}
		if i == 0 && (st.Level != 0 || st.Node != "" || st.InitiatorEntries != 8 || st.PartnerEntries != 8 || st.Outcome != "differ" || st.Then != "descend") {
			t.Errorf("the root: %+v", st)
		}
		// The differing path leads to the key.
		if st.Outcome == "differ" && !strings.HasPrefix(d.Token, st.Node) {
			t.Errorf("node %q differs, the key's token is %s", st.Node, d.Token)
		}
	}
	if steps["match skip"] == 0 || steps["differ descend"] == 0 || steps["differ list"] != 1 {
		t.Errorf("%v", steps)
	}
	c.equal()
}

// TestRepairLimits: --node and --shard leave the rest as it is, and what does
// not exist is an error before anything happens.
func TestRepairLimits(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	for i := range 40 {
		n1.inject(entry(fmt.Sprint("k", i), "v", time.Hour))
	}
	shard := 3
	in := n1.replicaOf().store.Snapshot()
	want := int(in.Root(shard).Count)
	in.Close()
	reports := n1.repair(report.RepairOptions{Shard: &shard, Node: 2})
	if len(reports) != 2 || reports[0].Partner != 2 || reports[1].Initiator != 2 || reports[1].Partner != 3 {
		t.Fatalf("pairs: %+v", reports)
	}
	if reports[0].KeysPushed != want || want == 0 || reports[0].Shards != 1 || reports[1].KeysPushed != want {
		t.Fatalf("shard %d has %d keys: %+v", shard, want, reports)
	}
	for _, m := range []*member{n2, n3} {
		if size, _ := m.Size(t.Context()); size != int64(want) {
			t.Errorf("%s holds %d keys", m.name, size)
		}
	}
	for _, bad := range []int{-1, 8} {
		_, err := n1.Repair(t.Context(), report.RepairOptions{Shard: &bad})
		wantCode(t, err, CodeNoSuchShard, "0 to 7")
	}
	_, err := n1.Repair(t.Context(), report.RepairOptions{Node: 9})
	wantCode(t, err, CodeNoSuchNode, "n9", "n1", "n3")
	if reports := n1.repair(report.RepairOptions{Node: 1}); len(reports) != 2 {
		t.Errorf("own pairs: %+v", reports)
	}
	c.equalAfter(n1)
}

// equalAfter repairs from a node and checks I3: equal, and then nothing to do.
func (c *cluster) equalAfter(m *member) {
	c.t.Helper()
	m.repair(report.RepairOptions{})
	c.equal()
	for _, rep := range m.repair(report.RepairOptions{}) {
		if rep.KeysDiverged+rep.KeysPulled+rep.KeysPushed != 0 || rep.Rounds != 1 {
			c.t.Fatalf("equal replicas were repaired: %+v", rep)
		}
	}
}

// TestLastWriteOfABatchWins: a key that is written twice in one call ends with
// the later value, also where the batch is too large for one message and the two
// overtake each other on the way.
func TestLastWriteOfABatchWins(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1 := c.nodes[0]
	c.connected()
	for i := range 10 {
		k := key("twice", i)
		err := n1.write(t.Context(), []Op{
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

// TestRootsWithANodeDown: who did not answer is listed, and nothing is called
// equal that was not compared.
func TestRootsWithANodeDown(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	c.connected()
	n2.stop()
	eventually(t, "n1 notices", func() bool { return len(n1.replicaOf().usablePeers()) == 0 })
	roots, err := n1.Roots(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if roots.Equal || len(roots.Errors) != 1 {
		t.Errorf("equal %v, errors %q", roots.Equal, roots.Errors)
	}
	for _, s := range roots.Shards {
		if len(s.Replicas) != 2 || s.Replicas[1].Node != 2 || s.Replicas[1].State != StateDown || s.Replicas[1].Root != "" {
			t.Fatalf("%+v", s)
		}
	}
	reports, err := n1.Repair(t.Context(), report.RepairOptions{})
	if err != nil || len(reports) != 1 || reports[0].Rounds != 0 || !strings.Contains(reports[0].Error, "not connected") {
		t.Errorf("%+v, %v", reports, err)
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
	n1.repair(report.RepairOptions{DryRun: true})
	if got := missed(); got != 3 {
		t.Errorf("after a dry run: %d", got)
	}
	n1.repair(report.RepairOptions{})
	if got := missed(); got != 0 {
		t.Errorf("after a repair: %d", got)
	}
}
