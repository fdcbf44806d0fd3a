package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/lww"
)

// TestReplacedMemberWithoutShards: it has nobody to be filled from, and is live before
// it says Hello. Nobody must take its new disk for a mix-up.
func TestReplacedMemberWithoutShards(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	m := c.grow()
	m.start()
	c.connected()
	m.state(StateLive)
	m.stop()
	m.dir = t.TempDir()
	m.start()
	c.connected()
	if s, reason := m.replicaOf().stateAndReason(); s != StateLive {
		t.Fatalf("a member with a new, empty disk is %s: %s", s, reason)
	}
}

// TestReplacedDiskWhileZoneMateIsAway: n2 and n5 are in one zone and share no shard.
// n5 is away while n2's disk is replaced and filled; when it is back, the two deal
// with each other.
func TestReplacedDiskWhileZoneMateIsAway(t *testing.T) {
	c := placed(t)
	for i := range 40 {
		if err := c.nodes[i%5].Write(t.Context(), coordinator.All, put(fmt.Sprint("k", i), "v")); err != nil {
			t.Fatal(err)
		}
	}
	n2, n5 := c.nodes[1], c.nodes[4]
	if s := n2.replicaOf().layout().shared[5]; len(s) != 0 {
		t.Fatalf("n2 and n5 share %v", s)
	}
	n5.stop()
	n2.stop()
	if err := os.RemoveAll(n2.dir); err != nil {
		t.Fatal(err)
	}
	n2.expect = 0
	n2.start()
	n2.state(StateLive) // filled by all of its partners
	n5.start()
	c.connected()
	if s, reason := n2.replicaOf().stateAndReason(); s != StateLive {
		t.Fatalf("the filled n2 is %s: %s", s, reason)
	}
}

// TestReadHangsBehindTheClock: a flush that hangs on n1 must not make n1's reads hang,
// and a write there ends with the deadline.
func TestReadHangsBehindTheClock(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	n1 := c.nodes[0]
	disk := n1.slow()
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	if err := n1.Write(t.Context(), coordinator.All, put("k", "v")); err != nil {
		t.Fatal(err)
	}
	n1.quiet()
	disk.flush.Store(true)
	defer close(disk.released)
	passed(t, c.settings.MaxClockSkew) // the clock must be made durable before it goes on
	began := time.Now()
	wantCode(t, n1.Write(t.Context(), coordinator.Quorum, put("k2", "v")), CodeTimeout, "nothing was written", "disk")
	if _, err := n1.Read(t.Context(), coordinator.Quorum, [][]byte{[]byte("k")}); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*c.settings.RequestDeadline {
		t.Errorf("they took %v", took)
	}
}

// TestSlowReplicaFailsReads: one replica's disk hangs, and it is not down: it answers
// heartbeats. The others are a quorum.
func TestSlowReplicaFailsReads(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	n2, n3 := c.nodes[1], c.nodes[2]
	disk := n3.slow()
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	if err := n2.Write(t.Context(), coordinator.All, put("k", "v")); err != nil {
		t.Fatal(err)
	}
	disk.get.Store(true)
	defer close(disk.released)
	for i := range 3 {
		if _, err := n2.Read(t.Context(), coordinator.Quorum, [][]byte{[]byte("k")}); err != nil || !n2.replicaOf().peer(3).usable() {
			t.Errorf("read %d: %v; n3 up: %v", i, err, n2.replicaOf().peer(3).usable())
		}
	}
}

// TestReadOneHangs: with a disk that hangs, reads of this node alone end with the
// deadline.
func TestReadOneHangs(t *testing.T) {
	c := newCluster(t, 1, testSettings())
	n1 := c.nodes[0]
	disk := n1.slow()
	n1.start()
	n1.replicaOf()
	disk.get.Store(true)
	disk.scan.Store(true)
	defer close(disk.released)
	began := time.Now()
	if _, err := n1.Read(t.Context(), coordinator.One, [][]byte{[]byte("k")}); err == nil {
		t.Error("it reads without a disk")
	}
	if _, _, err := n1.Scan(t.Context(), coordinator.One, 0, 10, false); err == nil {
		t.Error("it scans without a disk")
	}
	if took := time.Since(began); took > 3*c.settings.RequestDeadline {
		t.Errorf("they took %v", took)
	}
}

// TestReadRepairFromTheFuture: what a session and a message refuse for its stamp, a
// read repair refuses too, also on this node's own replica.
func TestReadRepairFromTheFuture(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	c.readRepair = true
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n2.inject(entry("k", "from the future", -24*time.Hour)) // its clock was a day ahead for a while
	if _, err := n1.Read(t.Context(), coordinator.All, [][]byte{[]byte("k")}); err != nil {
		t.Fatal(err)
	}
	_, on1, _ := n1.replicaOf().store.Get([]byte("k"))
	_, on3, _ := n3.replicaOf().store.Get([]byte("k"))
	if on1 || on3 {
		t.Errorf("the entry from the future has spread: n1 %v, n3 %v", on1, on3)
	}
}

// TestReplayPause: the pause after a failed replay is kept when hints go on being made.
func TestReplayPause(t *testing.T) {
	c := hinted(t, 2)
	n1, n2 := c.nodes[0], c.nodes[1]
	r := n1.replicaOf()
	resume := n2.clockBehind()
	defer resume()
	for i := range 100 {
		r.keepHint(coordinator.Send{To: 2, Entries: []lww.Entry{entry(fmt.Sprint("k", i), "v", 0)}})
		passed(t, 20*time.Millisecond)
	}
	if n := strings.Count(n1.log.String(), "the replay of hints was interrupted"); n != 1 {
		t.Errorf("%d replays were tried in 2 s, with a pause of %v after each that failed", n, replayRetry)
	}
}

// TestOutstandingSends: what is on its way to one slow peer is bounded, however small
// each write is.
func TestOutstandingSends(t *testing.T) {
	p := new(peer)
	n := 0
	for p.reserve(60) == nil {
		n++
	}
	if n != backlogRequestsMax {
		t.Errorf("%d requests of 60 bytes are admitted to one peer", n)
	}
}

// TestScanGetsAnywhere: a scan over many empty shards that takes longer than the
// deadline gives short pages rather than none.
func TestScanGetsAnywhere(t *testing.T) {
	s := testSettings()
	s.Shards = 4096
	c := startCluster(t, 3, s)
	n1 := c.nodes[0]
	if err := n1.Write(t.Context(), coordinator.All, put("k", "v")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, _, err := n1.Scan(t.Context(), coordinator.Quorum, 0, 10, false)
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	n1.replicaOf().settings.RequestDeadline = max(took/4, 500*time.Millisecond) // as with a round trip four times as long
	if keys := n1.scanAll(coordinator.Quorum, 10); len(keys) != 1 {
		t.Errorf("it found %v", keys)
	}
}

// TestReadOfManyKeys: keys that do not fit into one message are answered in parts.
func TestReadOfManyKeys(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1 := c.nodes[0]
	var keys [][]byte
	for i := range 300 {
		keys = append(keys, append(bytes.Repeat([]byte("k"), 60<<10), fmt.Sprint(i)...))
	}
	if _, err := n1.Read(t.Context(), coordinator.Quorum, keys); err != nil {
		s := err.Error()
		t.Errorf("…%s", s[max(0, len(s)-200):])
	}
}

// TestClosedLinkDropsSessionsOfTheNewOne: it must not.
func TestClosedLinkDropsSessionsOfTheNewOne(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	r1, r2 := n1.replicaOf(), n2.replicaOf()
	h := &peerHandler{n2.Node}
	// n1 dials again; the old link is still being closed by n2.
	if _, err := h.Hello(t.Context(), r1.hello(hlc.NodeID(2))); err != nil {
		t.Fatal(err)
	}
	s, _ := r2.sessions.get(sessionKey{1, 77}, true) // opened over the new link
	h.LinkClosed(1)                                  // of the old link
	if got, _ := r2.sessions.get(sessionKey{1, 77}, false); got != s {
		t.Error("the end of the old link ended the session of the new one")
	}
}

// TestFailedNodeServesNobody: what a node shows whose disk has failed may be wrong, and
// the others must not count on it.
func TestFailedNodeServesNobody(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	if err := n2.Write(t.Context(), coordinator.All, put("k", "v")); err != nil {
		t.Fatal(err)
	}
	n1.fail(errors.New("the disk failed")) // as watchStore does
	_, err := n1.Read(t.Context(), coordinator.One, [][]byte{[]byte("k")})
	wantCode(t, err, CodeFailed, "the disk failed")
	eventually(t, "n2 takes n1 for down", func() bool {
		st, err := n2.Status(t.Context())
		return err == nil && st.Nodes[0].State == StateDown
	})
}

// TestRefusedHintStays: a hint that the target refuses for the moment is not
// forgotten, and is brought when it can be taken.
func TestRefusedHintStays(t *testing.T) {
	c := hinted(t, 2)
	n1, n2 := c.nodes[0], c.nodes[1]
	r := n1.replicaOf()
	resume := n2.clockBehind()
	r.keepHint(coordinator.Send{To: 2, Entries: []lww.Entry{entry("k", "v", 0)}})
	eventually(t, "the replay is refused", func() bool { return strings.Contains(n1.log.String(), "the replay of hints was interrupted") })
	if got := r.hintsPending(); got != 1 {
		t.Fatalf("%d hints are kept", got)
	}
	resume()
	eventually(t, "the hint is brought", func() bool { return r.hintsPending() == 0 })
	if h := r.count(); n2.get([]byte("k")) != "v" || h.HintsDelivered != 1 || h.HintsRejected != 0 {
		t.Errorf("%+v", h)
	}
}

// clockBehind sets the node's clock back until resume is called, for stamps that
// arrive.
func (m *member) clockBehind() (resume func()) {
	c := m.replicaOf().clock
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.wall
	c.wall = func() time.Time { return wall().Add(-time.Minute) }
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.wall = wall
	}
}
