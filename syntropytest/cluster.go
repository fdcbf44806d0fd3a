package syntropytest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syntropy"
	"syntropy/report"
)

const (
	// patience is how long a cluster may take for what takes it a second: this is for
	// machines that do other things too.
	patience = 30 * time.Second
	poll     = 10 * time.Millisecond
	// shards are few, since tests have few keys and each shard costs time to start.
	shards = 16
	// cacheBytes is enough for the keys of a test and lets many clusters run at once.
	cacheBytes = 1 << 20
)

// Cluster is some nodes in one test. Its methods are for the goroutine that runs the
// test; they fail the test themselves. The databases are safe for concurrent use.
type Cluster struct {
	t     testing.TB
	label string // of all goroutines of the nodes
	nodes []*node
	join  []string
}

// node is one place in the cluster: an address, a disk, and a DB if it runs.
type node struct {
	port    *port
	dir     string
	disks   int // that the place has had
	options syntropy.Options
	db      *syntropy.DB
	log     logBuffer
}

// clusters numbers the clusters of a process.
var clusters atomic.Int64

// NewCluster starts n nodes that have formed a cluster, and returns when each is
// connected to each. Every key is on three of them, or on all if there are fewer.
func NewCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	return NewClusterWith(t, n, nil)
}

// NewClusterWith is NewCluster with other options. They are prepared for each node, by
// its number from 0, and passed to change; what concerns addresses and forming the
// cluster is set after it.
func NewClusterWith(t testing.TB, n int, change func(i int, o *syntropy.Options)) *Cluster {
	t.Helper()
	if n < 1 {
		t.Fatalf("syntropytest: a cluster of %d nodes: give at least 1", n)
	}
	c := &Cluster{t: t, label: fmt.Sprintf("cluster %d of %s", clusters.Add(1), t.Name())}
	root := t.TempDir() // before the next line: what is cleaned up last must exist until then
	t.Cleanup(c.close)
	for i := range n {
		p, err := openPort()
		if err != nil {
			t.Fatal("syntropytest: ", err)
		}
		m := &node{port: p, dir: filepath.Join(root, fmt.Sprintf("node-%d", i))}
		c.nodes = append(c.nodes, m)
		c.join = append(c.join, p.addr())
		m.options = syntropy.Options{
			Replicas: min(n, 3), Shards: shards, Settle: -1, RepairInterval: -1, CacheBytes: cacheBytes,
			Logger: slog.New(slog.NewTextHandler(&m.log, nil)),
		}
		if change != nil {
			change(i, &m.options)
		}
	}
	for i := range n {
		c.Start(i)
	}
	c.WaitConnected()
	return c
}

// Len returns the number of nodes, stopped ones included.
func (c *Cluster) Len() int { return len(c.nodes) }

// DB returns node i, counted from 0 in no order that the cluster knows. It fails the
// test if the node is stopped. After a Start or Replace it is another one.
func (c *Cluster) DB(i int) *syntropy.DB {
	c.t.Helper()
	if c.nodes[i].db == nil {
		c.t.Fatalf("syntropytest: node %d is stopped", i)
	}
	return c.nodes[i].db
}

// Addr returns the peer address of node i, which it keeps.
func (c *Cluster) Addr(i int) string { return c.nodes[i].port.addr() }

// Stop closes node i, unless it is stopped. Its disk and its address stay.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	if err := c.nodes[i].stop(); err != nil {
		c.t.Errorf("syntropytest: closing node %d: %v", i, err)
	}
}

func (n *node) stop() error {
	if n.db == nil {
		return nil
	}
	db := n.db
	n.db = nil
	return db.Close()
}

// Start starts node i again, on its disk and its address, and returns at once; see
// [Cluster.WaitConnected]. It fails the test if the node runs.
func (c *Cluster) Start(i int) {
	c.t.Helper()
	n := c.nodes[i]
	if n.db != nil {
		c.t.Fatalf("syntropytest: node %d runs already", i)
	}
	o := n.options
	o.PeerAddr, o.PeerListener = n.port.addr(), n.port.listen()
	o.Join, o.BootstrapExpect = c.join, len(c.nodes)
	var err error
	// Goroutines inherit labels, so whatever the node starts can be told from the
	// goroutines of other tests.
	pprof.Do(context.Background(), pprof.Labels(labelKey, c.label), func(context.Context) {
		n.db, err = syntropy.Open(n.dir, &o)
	})
	if err != nil {
		c.t.Fatalf("syntropytest: starting node %d: %v", i, err)
	}
}

// Replace stops node i and starts it with an empty disk, as after a disk failure. The
// node is filled by the others; [Cluster.WaitConnected] waits for that too.
func (c *Cluster) Replace(i int) {
	c.t.Helper()
	c.Stop(i)
	n := c.nodes[i]
	n.disks++
	n.dir = fmt.Sprintf("%s-disk-%d", n.dir, n.disks+1)
	c.Start(i)
}

// WaitConnected waits until every running node is live and connected to every other
// running one, and nobody takes a stopped one for running. It fails the test after
// 30 seconds.
func (c *Cluster) WaitConnected() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		missing := c.missing(ctx)
		if missing == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.t.Fatalf("syntropytest: waited %v in vain: %s", patience, missing)
		}
	}
}

// missing says what keeps the cluster from being connected; empty: nothing.
func (c *Cluster) missing(ctx context.Context) string {
	running := make(map[string]bool)
	for _, n := range c.nodes {
		running[n.port.addr()] = n.db != nil
	}
	for i, n := range c.nodes {
		if n.db == nil {
			continue
		}
		if err := n.db.Err(); err != nil {
			c.t.Fatalf("syntropytest: node %d failed: %v", i, err)
		}
		members, err := n.db.Members(ctx)
		if err != nil {
			return fmt.Sprintf("node %d: %v", i, err)
		}
		for _, m := range members {
			ok := m.Up && m.State == report.StateLive
			if !running[m.Addr] {
				ok = !m.Up
			}
			if !ok {
				return fmt.Sprintf("node %d sees %v (%s) as %s", i, m.ID, m.Addr, m.State)
			}
		}
	}
	return ""
}

// close ends the cluster, at the end of the test.
func (c *Cluster) close() {
	for i, n := range c.nodes {
		if err := n.stop(); err != nil {
			c.t.Errorf("syntropytest: closing node %d: %v", i, err)
		}
		if err := n.port.close(); err != nil {
			c.t.Errorf("syntropytest: closing the port of node %d: %v", i, err)
		}
	}
	if left := waitForGoroutines(c.label, patience); left != "" {
		c.t.Errorf("syntropytest: goroutines of the nodes are left after all were closed:\n%s", left)
	}
	if c.t.Failed() {
		for i, n := range c.nodes {
			c.t.Logf("log of node %d, %s:\n%s", i, n.port.addr(), n.log.String())
		}
	}
}

// logBuffer keeps what a node logs, for the message of a failed test.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends to the log.
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
