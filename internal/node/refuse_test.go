package node

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/internal/rpc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
	"syntropy/lww"
)

// dial says Hello to a node and returns the refusal.
func (m *member) dial(h *peerpb.Hello) *rpc.Refusal {
	m.c.t.Helper()
	_, err := m.replicaOf().acceptHello(h)
	var refusal *rpc.Refusal
	if !errors.As(err, &refusal) {
		m.c.t.Fatalf("got %v, want a refusal", err)
	}
	return refusal
}

// TestHelloRefused: each thing that must agree is checked before any row, and
// the text says what is wrong.
func TestHelloRefused(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1 := c.nodes[0]
	r2 := c.nodes[1].replicaOf()
	for _, tc := range []struct {
		name   string
		change func(*peerpb.Hello)
		code   string
		words  []string
	}{
		{"protocol", func(h *peerpb.Hello) { h.Protocol = 99 }, rpc.CodeProtocol, []string{"version 99", "upgrade"}},
		{"cluster", func(h *peerpb.Hello) { h.ClusterId = "ffff" }, rpc.CodeForeignCluster, []string{"cluster ffff", "wrong data directory"}},
		{"record", func(h *peerpb.Hello) { h.RecordFingerprint = "x" }, rpc.CodeSettings, []string{"n2", "cluster.json"}},
		{"stranger", func(h *peerpb.Hello) { h.Node = 9 }, rpc.CodeUndecided, []string{"n9 is not known here"}},
		{"itself", func(h *peerpb.Hello) { h.Node = 1 }, rpc.CodeUnknownNode, []string{"n1"}},
		{"mistaken", func(h *peerpb.Hello) { h.ToNode = 3 }, rpc.CodeUnknownNode, []string{"this is n1, not n3", "swapped"}},
	} {
		h := r2.hello(1)
		tc.change(h)
		refusal := n1.dial(h)
		if refusal.Code != tc.code {
			t.Errorf("%s: %v", tc.name, refusal)
		}
		wantWords(t, refusal.Text, tc.words...)
	}
	if _, err := n1.replicaOf().acceptHello(r2.hello(1)); err != nil {
		t.Errorf("the real n2 is refused: %v", err)
	}
}

// TestForeignClusterOnTheWire: a node of another cluster that dials in gets a
// refusal and no row.
func TestForeignClusterOnTheWire(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	foreign := startCluster(t, 1, testSettings())
	h := foreign.nodes[0].replicaOf().hello(1)
	h.Node = 2
	refused := make(chan *rpc.Refusal, 1)
	link := rpc.NewLink(rpc.LinkOptions{
		Addr:  c.nodes[0].addr,
		Hello: func() *peerpb.Hello { return h },
		OnRefused: func(r *rpc.Refusal) {
			select {
			case refused <- r:
			default:
			}
		},
	})
	done := make(chan struct{})
	ctx := within(t, testDeadline)
	go func() { defer close(done); link.Run(ctx) }()
	select {
	case r := <-refused:
		if r.Code != rpc.CodeForeignCluster {
			t.Errorf("%v", r)
		}
	case <-ctx.Done():
		t.Fatal("no refusal")
	}
	if _, err := link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Roots{Roots: &peerpb.Roots{}}}); !errors.Is(err, rpc.ErrDown) {
		t.Errorf("a row for a stranger: %v", err)
	}
	link.Wake()
	t.Cleanup(func() { <-done })
}

// TestImpostor: an empty directory started under the address of a member that
// runs must not push that member out.
func TestImpostor(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n3 := c.nodes[0], c.nodes[2]
	h := n3.replicaOf().hello(1)
	h.Incarnation, h.State = diskB, StateJoining
	refusal := n1.dial(h)
	if refusal.Code != rpc.CodeUndecided {
		t.Errorf("%v", refusal)
	}
	wantWords(t, refusal.Text, "n3", "is running")
	if _, err := n1.replicaOf().acceptHello(n3.replicaOf().hello(1)); err != nil {
		t.Errorf("the real n3 is out: %v", err)
	}

	// A copy of a full directory, while n3 is away, is a mix-up.
	h.State = StateLive
	n3.stop()
	p := n1.replicaOf().peer(3)
	eventually(t, "n1 has noticed", func() bool { return p.connectedTo() == "" })
	if refusal := n1.dial(h); refusal.Code != rpc.CodeStale {
		t.Errorf("%v", refusal)
	}
	n3.start()
	c.connected()
}

// TestOldWritesAreRejected (rule 2): what is stamped before the hint window does
// not arrive for the first time, one entry of a message does not spoil the
// others, and neither does a malformed one.
func TestOldWritesAreRejected(t *testing.T) {
	c := startCluster(t, 1, testSettings())
	r := c.nodes[0].replicaOf()
	raw := func(e lww.Entry) []byte { return lww.AppendEntry(nil, e) }
	reply, err := r.handleApply(&peerpb.Apply{Entries: [][]byte{
		raw(entry("old", "v", 4*time.Hour)),
		raw(entry("fine", "v", 2*time.Hour)),
		[]byte("garbage"),
		append(raw(entry("trailing", "v", 0)), 1),
		raw(entry("future", "v", -time.Hour)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	ack := reply.GetApplyReply()
	if ack.Applied != 1 || len(ack.Rejected) != 4 {
		t.Fatalf("%+v", ack)
	}
	for i, words := range [][]string{{"too old"}, {"malformed"}, {"malformed", "1 bytes follow"}, {"ahead of this node's clock"}} {
		wantWords(t, ack.Rejected[i].Reason, words...)
	}
	if st := r.store.Stats(); st.Entries != 1 {
		t.Errorf("%d entries", st.Entries)
	}
}

// TestWrongClock: a node whose clock is beyond the bound coordinates no writes,
// and says why; what others write reaches it.
func TestWrongClock(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	n1, n3 := c.nodes[0], c.nodes[2]
	n3.offset = 2 * time.Second
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	eventually(t, "n3 has heard the time", func() bool {
		return n3.write(t.Context(), []Op{{Key: []byte("x"), Value: []byte("1")}}) != nil
	})
	wantCode(t, n3.write(t.Context(), []Op{{Key: []byte("x"), Value: []byte("1")}}), CodeClock, "apart", "--max-clock-skew 500ms")
	n1.put("k", 0, 10) // the others go on, and n3 takes it
	if got := n3.get(key("k", 1)); got != "k of n1 1" {
		t.Errorf("n3 reads %q", got)
	}
	st, err := n1.Status(t.Context())
	if err != nil || st.Nodes[2].ClockSkewMS < 1500 {
		t.Errorf("n1 does not see the skew: %+v, %v", st.Nodes, err)
	}
	if _, found, _ := n1.read(t.Context(), []byte("x")); found {
		t.Error("a stamp from the future was believed")
	}
}

// TestShadowedByPeer (I4): OK is not returned for a write that lost at a replica
// that answered. n1 missed a version that is newer than n1's next stamp.
func TestShadowedByPeer(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	n2.inject(entry("k", "ahead", -300*time.Millisecond))
	write := func(key, value string) error {
		return n1.Write(t.Context(), coordinator.All, append(put(key, value), put("other", "v")...))
	}
	if err := write("k", "later"); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.nodes {
		if got := m.get([]byte("k")); got != "later" {
			t.Errorf("%s: the write was acknowledged and lost: %q", m.name, got)
		}
	}
	// A version from beyond the bound cannot be overtaken; the client is told.
	n2.inject(entry("far", "ahead", -time.Hour))
	wantCode(t, write("far", "v"), CodeShadowed, "far", "ahead of this node's clock")
	n1.inject(entry("mine", "ahead", -time.Hour))
	wantCode(t, write("mine", "v"), CodeShadowed, "mine")
}

// TestStartRefused: what contradicts the directory is refused, with the flag.
func TestStartRefused(t *testing.T) {
	c := startCluster(t, 1, testSettings())
	n1 := c.nodes[0]
	n1.stop()
	for _, tc := range []struct {
		name   string
		change func(*Options)
		words  []string
	}{
		{"shards", func(o *Options) { o.Settings.Shards = 16 }, []string{"--shards 16 given", "created with 8"}},
		{"settle", func(o *Options) { o.Settings.Settle = time.Second }, []string{"--settle 1s"}},
		{"address", func(o *Options) { o.PeerAddr = "127.0.0.1:1" }, []string{"127.0.0.1:1", n1.addr, "--peer-listen it had"}},
		{"expect", func(o *Options) { o.BootstrapExpect = 5 }, []string{"--bootstrap-expect 5", "consists of [n1"}},
		{"grace", func(o *Options) { o.Settings.GCGrace = time.Second }, []string{"--gc-grace 1s given", "created with"}},
	} {
		opts := n1.options()
		opts.IsSet = func(string) bool { return true }
		tc.change(&opts)
		n, err := Start(opts)
		if err == nil {
			n.Close()
			t.Errorf("%s: it starts", tc.name)
			continue
		}
		wantWords(t, err.Error(), tc.words...)
	}
	// Settings that were not given are those on record, whatever their defaults.
	opts := n1.options()
	opts.Settings = topology.DefaultSettings()
	opts.Settings.GCGrace = n1.c.settings.GCGrace // given; not valid beside the default hint window
	opts.IsSet = func(flag string) bool { return flag == "gc-grace" }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opts.PeerListener = l
	n, err := Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	n1.start()
	n1.replicaOf()
}

// TestJoinsAnotherCluster: a directory of one cluster started with --join to
// another must not quietly go on with its own.
func TestJoinsAnotherCluster(t *testing.T) {
	x := startCluster(t, 1, testSettings())
	y := startCluster(t, 1, testSettings())
	n := x.nodes[0]
	cluster := n.replicaOf().record.ClusterID
	n.stop()
	n.join = []string{y.nodes[0].addr}
	n.start()
	eventually(t, "it fails", func() bool { return n.Err() != nil })
	wantWords(t, n.Err().Error(), n.dir, cluster, y.nodes[0].replicaOf().record.ClusterID, "--join")
	n.stop()
	n.join = []string{n.addr, "127.0.0.1:1"} // itself and nobody are fine
	n.start()
	n.replicaOf()
}

// TestNewcomerRefused: a fourth node that wants to form the cluster with the others
// learns that they have, and how to join it.
func TestNewcomerRefused(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opts := c.nodes[0].options()
	opts.DataDir, opts.PeerAddr, opts.PeerListener = t.TempDir(), l.Addr().String(), l
	n, err := Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	<-n.Failed()
	wantWords(t, n.Err().Error(), "already consists of", "to add this node, start it with --join and without --bootstrap-expect", opts.PeerAddr)
	_, _, err = (&member{Node: n}).read(t.Context(), []byte("k"))
	wantCode(t, err, CodeFailed, "already consists of")
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(opts.DataDir); err != nil || len(left) > 0 {
		t.Errorf("a node that was refused has left %v, %v", left, err)
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
