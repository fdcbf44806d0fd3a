package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/internal/topology"
	"syntropy/lww"
	"syntropy/report"
	"syntropy/storage"
	"syntropy/storage/memstore"
	"syntropy/storage/pebblestore"
	"syntropy/storage/storagetest"
)

// testDeadline is how long a condition may take to come true: far longer than
// it ever takes, for a machine that does other things too.
const testDeadline = 30 * time.Second

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(testDeadline); !condition(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain until %s", testDeadline, what)
		}
	}
}

// passed waits until a time span is over, for what is about time itself.
func passed(t *testing.T, d time.Duration) {
	t.Helper()
	end := time.Now().Add(d)
	eventually(t, d.String()+" have passed", func() bool { return time.Now().After(end) })
}

func testSettings() topology.Settings {
	s := topology.DefaultSettings()
	s.Shards, s.Settle, s.RequestDeadline = 8, 100*time.Millisecond, 3*time.Second
	return s
}

// staleSettings has the shortest gc_grace that tests can wait for.
func staleSettings() topology.Settings {
	s := testSettings()
	s.GCGrace, s.HintWindow, s.Settle, s.RequestDeadline = 3*time.Second, 600*time.Millisecond, 200*time.Millisecond, time.Second
	return s
}

// memStore returns a store in memory.
func memStore(t *testing.T, shards int) *storage.Store {
	t.Helper()
	s, err := storage.Open(memstore.New(), storage.Options{Shards: shards, Secret: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// roomy is a disk on which there is always room.
func roomy() *room {
	return &room{look: func() (pebblestore.DiskState, error) {
		return pebblestore.DiskState{TotalBytes: 1 << 40, FreeBytes: 1 << 40}, nil
	}}
}

// layoutOf is a layout in which some members hold all shards, without links
// between them.
func layoutOf(self hlc.NodeID, shards int, members ...hlc.NodeID) *layout {
	t := &topology.Table{Version: 1, Shards: make([][]hlc.NodeID, shards)}
	l := &layout{table: t, peers: make(map[hlc.NodeID]*peer), order: t.Shards, shared: make(map[hlc.NodeID][]int), held: shards}
	for _, id := range members {
		t.Members = append(t.Members, topology.Member{ID: id, Addr: id.String()})
	}
	for shard := range t.Shards {
		t.Shards[shard] = members
	}
	for _, id := range members {
		if id != self {
			l.shared[id] = t.Shared(self, id)
		}
	}
	return l
}

// logBuffer keeps what a node logs, for the message of a failed test.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// member is one node of a test cluster, running or not.
type member struct {
	*Node
	c      *cluster
	name   string
	addr   string
	dir    string
	offset time.Duration
	expect int
	join   []string
	zone   string
	wrap   func(storage.Engine) storage.Engine
	log    logBuffer
}

// cluster is some nodes in this process, on real sockets and real disks.
type cluster struct {
	t        *testing.T
	settings topology.Settings
	nodes    []*member

	// The lines of defence, all off but an operator's repair unless a test says
	// otherwise.
	hints, readRepair bool
	interval          time.Duration
	events            Events
	hintBytes         int64
	disk              func(*member) (pebblestore.DiskState, error) // nil: the real ones
}

// slowDisk is a disk that stops answering when it is told to.
type slowDisk struct {
	get, scan, flush atomic.Bool // which of its doings hang
	released         chan struct{}
}

func (d *slowDisk) hang(which *atomic.Bool) error {
	if which.Load() {
		<-d.released
	}
	return nil
}

// slow puts a slow disk under a node that is yet to be started. It answers again when
// the test ends.
func (m *member) slow() *slowDisk {
	d := &slowDisk{released: make(chan struct{})}
	m.wrap = func(e storage.Engine) storage.Engine {
		return &storagetest.Intercept{
			Engine: e,
			OnGet:  func([]byte) error { return d.hang(&d.get) },
			OnScan: func(_, _ []byte) error { return d.hang(&d.scan) },
			OnWait: func() error { return d.hang(&d.flush) },
		}
	}
	return d
}

// running counts the nodes of all clusters of a test that run.
var running int

// newCluster picks addresses and directories and starts nothing. When the test
// ends it stops all nodes and makes sure that nothing of them is left.
func newCluster(t *testing.T, n int, settings topology.Settings) *cluster {
	t.Helper()
	before := runtime.NumGoroutine()
	c := &cluster{t: t, settings: settings}
	c.settings.Replicas = n
	root := t.TempDir()
	var addrs []string
	var held []net.Listener
	for range n { // all at once, or two nodes could get one port
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
		addrs = append(addrs, l.Addr().String())
	}
	for _, l := range held {
		l.Close()
	}
	addrs = sortAddrs(t, addrs)
	for i, addr := range addrs {
		name := fmt.Sprintf("n%d", i+1)
		c.nodes = append(c.nodes, &member{c: c, name: name, addr: addr, dir: filepath.Join(root, name), expect: n, join: addrs})
	}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			m.stop()
		}
		if t.Failed() {
			for _, m := range c.nodes {
				t.Logf("log of %s:\n%s", m.name, m.log.String())
			}
			return
		}
		if running > 0 {
			return // the last cluster of the test to stop looks
		}
		eventually(t, "no goroutine of the nodes is left", func() bool { return runtime.NumGoroutine() <= before })
	})
	return c
}

// grow adds a node that is to join by an address of its own.
func (c *cluster) grow() *member {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	l.Close()
	name := fmt.Sprintf("n%d", len(c.nodes)+1)
	m := &member{c: c, name: name, addr: l.Addr().String(), dir: filepath.Join(c.t.TempDir(), name), join: []string{c.nodes[0].addr}}
	c.nodes = append(c.nodes, m)
	return m
}

// sortAddrs puts addresses into the order of the members' ids.
func sortAddrs(t *testing.T, addrs []string) []string {
	r, err := topology.NewRecord(topology.DefaultSettings(), addrs, neverRandom{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sorted := make([]string, len(r.Members))
	for i, m := range r.Members {
		sorted[i] = m.Addr
	}
	return sorted
}

type neverRandom struct{}

func (neverRandom) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte{1}, len(p))), nil }

// startCluster starts n nodes and waits until each can reach each.
func startCluster(t *testing.T, n int, settings topology.Settings) *cluster {
	t.Helper()
	c := newCluster(t, n, settings)
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	return c
}

func (m *member) options() Options {
	var disk func() (pebblestore.DiskState, error)
	if m.c.disk != nil {
		disk = func() (pebblestore.DiskState, error) { return m.c.disk(m) }
	}
	return Options{
		disk:    disk,
		DataDir: m.dir, PeerAddr: m.addr, Join: m.join, BootstrapExpect: m.expect, Settings: m.c.settings,
		ClockOffset: m.offset, CacheBytes: 1 << 20, NoHints: !m.c.hints, NoReadRepair: !m.c.readRepair,
		RepairInterval: m.c.interval, Zone: m.zone, Events: m.c.events, HintBytesMax: m.c.hintBytes, wrap: m.wrap,
		Logger: slog.New(slog.NewTextHandler(&m.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
}

// start starts the node on its address.
func (m *member) start() {
	m.c.t.Helper()
	opts := m.options()
	eventually(m.c.t, m.addr+" is free", func() bool {
		l, err := net.Listen("tcp", m.addr)
		opts.PeerListener = l
		return err == nil
	})
	n, err := Start(opts)
	if err != nil {
		opts.PeerListener.Close()
		m.c.t.Fatal(err)
	}
	m.Node = n
	running++
}

// stop stops the node as SIGTERM does. What it leaves open, a snapshot for
// example, shows as an error.
func (m *member) stop() {
	m.c.t.Helper()
	if m.Node == nil {
		return
	}
	if err := m.Close(); err != nil {
		m.c.t.Errorf("closing %s: %v", m.name, err)
	}
	m.Node = nil
	running--
}

// replicaOf waits for the node's replica.
func (m *member) replicaOf() (r *replica) {
	m.c.t.Helper()
	eventually(m.c.t, m.name+" is in the cluster", func() bool {
		if err := m.Err(); err != nil {
			m.c.t.Fatalf("%s failed: %v", m.name, err)
		}
		var err error
		r, err = m.running()
		return err == nil
	})
	return r
}

// connected waits until every running node reaches every other one.
func (c *cluster) connected() {
	c.t.Helper()
	for _, m := range c.nodes {
		if m.Node == nil {
			continue
		}
		r := m.replicaOf()
		for _, other := range c.nodes {
			if other.Node == nil || other == m {
				continue
			}
			id := other.replicaOf().self
			eventually(c.t, m.name+" knows "+other.name, func() bool { return r.peer(id) != nil })
			p := r.peer(id)
			eventually(c.t, fmt.Sprintf("%s reaches %s (%s)", m.name, other.name, p.whyNot()), p.usable)
		}
	}
}

// state waits until the node is in a state.
func (m *member) state(want string) {
	m.c.t.Helper()
	r := m.replicaOf()
	eventually(m.c.t, m.name+" is "+want, func() bool { return r.currentState() == want })
}

// Op is one write of a client, as tests put it.
type Op struct {
	Key    []byte
	Value  []byte
	Delete bool
}

func mutations(ops []Op) []coordinator.Mutation {
	ms := make([]coordinator.Mutation, len(ops))
	for i, op := range ops {
		ms[i] = coordinator.Mutation{Kind: coordinator.Put, Key: op.Key, Value: op.Value}
		if op.Delete {
			ms[i].Kind = coordinator.Delete
		}
	}
	return ms
}

// write writes at level ONE, and returns when every replica that is up has
// answered.
func (m *member) write(ctx context.Context, ops []Op) error {
	err := m.Write(ctx, coordinator.One, mutations(ops))
	m.quiet()
	return err
}

// quiet waits until none of the node's writes is on its way.
func (m *member) quiet() {
	m.c.t.Helper()
	if r, err := m.running(); err == nil {
		eventually(m.c.t, "the writes of "+m.name+" have been answered", func() bool { return r.counters.delivering.Load() == 0 })
	}
}

// read reads at level ONE.
func (m *member) read(ctx context.Context, key []byte) (value []byte, found bool, err error) {
	got, err := m.Read(ctx, coordinator.One, [][]byte{key})
	if err != nil || !got[0].OK || !got[0].Entry.Live(m.wall()) {
		return nil, false, err
	}
	return got[0].Entry.Value, true, nil
}

// scan is a page of the node's own replica.
func (n *Node) scan(ctx context.Context, cursor uint64, count int) (next uint64, keys [][]byte, err error) {
	next, entries, err := n.Scan(ctx, coordinator.One, cursor, count, false)
	for _, e := range entries {
		keys = append(keys, e.Key)
	}
	return next, keys, err
}

// put writes keys with the prefix, numbered from to to-1, in one batch.
func (m *member) put(prefix string, from, to int) {
	m.c.t.Helper()
	var ops []Op
	for i := from; i < to; i++ {
		ops = append(ops, Op{Key: key(prefix, i), Value: fmt.Appendf(nil, "%s of %s %d", prefix, m.name, i)})
	}
	if err := m.write(m.c.t.Context(), ops); err != nil {
		m.c.t.Fatal(err)
	}
}

func (m *member) del(prefix string, from, to int) {
	m.c.t.Helper()
	var ops []Op
	for i := from; i < to; i++ {
		ops = append(ops, Op{Key: key(prefix, i), Delete: true})
	}
	if err := m.write(m.c.t.Context(), ops); err != nil {
		m.c.t.Fatal(err)
	}
}

func key(prefix string, i int) []byte { return fmt.Appendf(nil, "%s%04d", prefix, i) }

// get returns the value that the node reads, "-" for none.
func (m *member) get(key []byte) string {
	m.c.t.Helper()
	value, found, err := m.read(m.c.t.Context(), key)
	if err != nil {
		m.c.t.Fatal(err)
	}
	if !found {
		return "-"
	}
	return string(value)
}

// inject puts an entry into one replica behind everybody's back.
func (m *member) inject(entries ...lww.Entry) {
	m.c.t.Helper()
	if _, err := m.replicaOf().store.Apply(entries); err != nil {
		m.c.t.Fatal(err)
	}
}

// entry is a value stamped by node 9 some time ago.
func entry(k, v string, ago time.Duration) lww.Entry {
	return lww.Entry{Key: []byte(k), Value: []byte(v), Version: lww.Version{Stamp: hlc.FromTime(time.Now().Add(-ago)), Node: 9}}
}

// repair runs a repair that must succeed in all pairs.
func (m *member) repair(opts report.RepairOptions) []report.Repair {
	m.c.t.Helper()
	reports, err := m.Repair(m.c.t.Context(), opts)
	if err != nil {
		m.c.t.Fatal(err)
	}
	for _, rep := range reports {
		if rep.Error != "" {
			m.c.t.Fatalf("%v - %v: %s", rep.Initiator, rep.Partner, rep.Error)
		}
	}
	return reports
}

// settled waits until no write is younger than the settle window.
func (c *cluster) settled() { c.t.Helper(); passed(c.t, c.settings.Settle+5*time.Millisecond) }

// equal fails unless all members answer and every root, recomputed from disk,
// is the same on all of them (I3, I5).
func (c *cluster) equal() {
	c.t.Helper()
	roots, err := c.nodes[0].Roots(c.t.Context(), true)
	if err != nil {
		c.t.Fatal(err)
	}
	if !roots.Equal || len(roots.Errors) > 0 {
		c.t.Fatalf("replicas differ: %+v", roots)
	}
}

// rootsText is the state of all replicas in one string.
func (c *cluster) rootsText() string {
	c.t.Helper()
	roots, err := c.nodes[0].Roots(c.t.Context(), true)
	if err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprint(roots)
}

// wantCode fails unless the error has the code and its text all the words.
func wantCode(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	var coded *Error
	if !errors.As(err, &coded) || coded.Code() != code {
		t.Fatalf("got error %v, want one with code %s", err, code)
	}
	wantWords(t, err.Error(), words...)
}

func wantWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Fatalf("%q does not say %q", text, w)
		}
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestMain(m *testing.M) {
	status := m.Run()
	if running != 0 { // then no test has looked for goroutines since
		fmt.Fprintf(os.Stderr, "%d nodes were started and never stopped\n", running)
		status = 1
	}
	os.Exit(status)
}
