package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/report"
)

// away stops the node for longer than gc_grace while the others run, and
// returns when they have judged it.
func (m *member) away(others ...*member) {
	m.c.t.Helper()
	id := m.replicaOf().self
	m.stop()
	for _, o := range others {
		r := o.replicaOf()
		eventually(m.c.t, o.name+" has given "+m.name+" up", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.absence.Peers[id].Dead
		})
	}
}

// TestStaleNode (I2): a node that was away for longer than gc_grace neither
// serves nor syncs and says why; empty, it is filled and serves again, and what
// was deleted meanwhile stays deleted.
func TestStaleNode(t *testing.T) {
	c := startCluster(t, 3, staleSettings())
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n1.put("k", 0, 50)
	n3.inject(entry("only on n3", "old", time.Hour))
	n3.away(n1, n2)
	n1.del("k", 0, 10)
	n2.put("new", 0, 10)
	n3.start()
	n3.state(StateStale)

	_, _, err := n3.read(t.Context(), key("k", 5))
	wantCode(t, err, CodeStale, "gc_grace (3s)", "deleted keys back", "neither serves nor syncs", "move its data directory away")
	wantCode(t, n3.write(t.Context(), []Op{{Key: []byte("k"), Value: []byte("v")}}), CodeStale)
	_, err = n3.Repair(t.Context(), report.RepairOptions{})
	wantCode(t, err, CodeStale)
	st, err := n3.Status(t.Context())
	if err != nil || st.Nodes[2].State != StateStale {
		t.Fatalf("%+v, %v", st.Nodes, err)
	}
	wantWords(t, st.Nodes[2].Reason, "empty one")

	reports, err := n1.Repair(t.Context(), report.RepairOptions{})
	if err != nil || len(reports) != 3 {
		t.Fatalf("%+v, %v", reports, err)
	}
	for _, rep := range reports {
		if with3 := rep.Partner == 3; with3 != (rep.Error != "") {
			t.Errorf("%v - %v: %q", rep.Initiator, rep.Partner, rep.Error)
		} else if with3 {
			wantWords(t, rep.Error, "n3")
			if !strings.Contains(rep.Error, "gc_grace") && !strings.Contains(rep.Error, "not connected") {
				t.Errorf("the error does not say why: %s", rep.Error)
			}
		}
	}
	for _, m := range []*member{n1, n2} {
		if m.get(key("k", 5)) != "-" || m.get([]byte("only on n3")) != "-" {
			t.Errorf("%s has data of the stale node", m.name)
		}
	}

	// A restart of anybody changes nothing.
	n3.stop()
	n1.stop()
	n1.start()
	n3.start()
	n3.state(StateStale)

	// An empty directory does.
	n3.stop()
	if err := os.RemoveAll(n3.dir); err != nil {
		t.Fatal(err)
	}
	n3.start()
	n3.state(StateLive)
	c.connected()
	c.settled()
	c.equalAfter(n1)
	if n3.get(key("k", 5)) != "-" || n3.get(key("k", 20)) != "k of n1 20" || n3.get(key("new", 3)) != "new of n2 3" {
		t.Error("n3 is not filled")
	}
}

// TestFillIsSeen: while it is being filled a node takes writes, serves no reads,
// and says so; killed in the middle, it is still joining afterwards.
func TestFillIsSeen(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n1.put("k", 0, 100)
	n3.stop()
	n2.stop() // without n2 the filling cannot end
	if err := os.RemoveAll(n3.dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n3.start()
		c.connected()
		r := n3.replicaOf()
		eventually(t, "n3 waits for n2 alone", func() bool {
			_, reason := r.stateAndReason()
			return strings.HasSuffix(reason, "still needs a session with n2")
		})
		if got := n3.get(key("k", 1)); got != "k of n1 1" { // from n1: its own copy serves no reads
			t.Errorf("n3 answers %q", got)
		}
		_, err := n3.Read(t.Context(), coordinator.Quorum, [][]byte{key("k", 1)})
		wantCode(t, err, CodeUnavailable, "n2", "empty data directory")
		n3.put("taken", 0, 3)
		if st, err := n3.Status(t.Context()); err != nil || st.Rebuilding != 1 {
			t.Errorf("%+v, %v", st, err)
		}
		n3.stop()
	}
	n3.start()
	n2.start()
	n3.state(StateLive)
	c.connected()
	c.settled()
	if n3.get(key("k", 99)) != "k of n1 99" {
		t.Error("it is not filled")
	}
	c.equalAfter(n1)
}

// TestStoreIsGone: a founding member whose store was removed has lost what it
// acknowledged and must not answer that nothing is there.
func TestStoreIsGone(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n1.put("k", 0, 10)
	n2.stop()
	n3.stop()
	if err := os.RemoveAll(filepath.Join(n3.dir, "store")); err != nil {
		t.Fatal(err)
	}
	n3.start()
	n3.replicaOf()
	_, err := n3.Read(t.Context(), coordinator.Quorum, [][]byte{key("k", 1)})
	wantCode(t, err, CodeUnavailable, "empty data directory")
	n2.start()
	n3.state(StateLive)
	c.connected()
	c.equalAfter(n1)
}

// TestNewDiskIsRemembered: who accepted a node with a new disk must know that
// disk after a crash, or it would take the filled node for a mix-up.
func TestNewDiskIsRemembered(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n3 := c.nodes[0], c.nodes[2]
	n3.stop()
	if err := os.RemoveAll(n3.dir); err != nil {
		t.Fatal(err)
	}
	n3.start()
	n3.state(StateLive)
	raw, _, err := n1.replicaOf().store.Meta(metaAbsence) // what a crash leaves
	if err != nil {
		t.Fatal(err)
	}
	wantWords(t, string(raw), n3.replicaOf().incarnation)
}

// TestWholeClusterAway: when all were stopped for longer than gc_grace, nobody
// missed anything, and all serve.
func TestWholeClusterAway(t *testing.T) {
	c := startCluster(t, 3, staleSettings())
	c.nodes[0].put("k", 0, 10)
	for _, m := range c.nodes {
		m.stop()
	}
	passed(t, c.settings.GCGrace+time.Second)
	c.nodes[0].start()
	c.nodes[0].state(StateChecking)
	_, _, err := c.nodes[0].read(t.Context(), key("k", 1))
	wantCode(t, err, CodeChecking, "longer than gc_grace", "majority")
	c.nodes[1].start()
	c.nodes[0].state(StateLive)
	c.nodes[1].state(StateLive)
	c.nodes[2].start()
	c.nodes[2].state(StateLive)
	c.connected()
	for _, m := range c.nodes {
		if m.get(key("k", 7)) != "k of n1 7" {
			t.Errorf("%s lost a key", m.name)
		}
	}
	c.equalAfter(c.nodes[0])
}

// TestClockJumpsBack: a node whose wall clock is behind the time at which it
// last ran does not know how long it was away, and asks before it serves.
func TestClockJumpsBack(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n3 := c.nodes[2]
	c.nodes[0].put("k", 0, 1)
	for _, m := range c.nodes {
		m.stop()
	}
	n3.offset = -time.Hour
	n3.start()
	n3.state(StateChecking)
}

// TestRestoredCopy only reports: a directory copied back from an earlier moment
// carries its old incarnation, and nothing in this version tells it from a
// restart. What it lacks comes back by repair; what only it had acknowledged
// since the copy is lost.
func TestRestoredCopy(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n3 := c.nodes[0], c.nodes[2]
	n1.put("before", 0, 10)
	n3.stop()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(n3.dir)); err != nil {
		t.Fatal(err)
	}
	n3.start()
	c.connected()
	n1.put("after", 0, 10)
	n3.stop()
	if err := os.RemoveAll(n3.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(n3.dir, os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	n3.start()
	c.connected()
	t.Logf("a restored copy is taken for a restart: state %s, a write made after the copy reads %q",
		n3.replicaOf().currentState(), n3.get(key("after", 1)))
	c.settled()
	c.equalAfter(n1)
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
	_, _, err := n3.read(t.Context(), key("k", 5))
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
	_, _, err := n3.read(t.Context(), key("k", 1))
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
	_, err := n3.Read(t.Context(), coordinator.Quorum, [][]byte{key("k", 1)})
	wantCode(t, err, CodeUnavailable, "empty data directory")
	n2.start()
	n3.state(StateLive)
	if got := n3.get(key("k", 1)); got != "k of n1 1" {
		t.Errorf("%q", got)
	}
}
