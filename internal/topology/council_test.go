package topology

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// council is a cluster of Logs on real directories, connected in memory, in the
// time of a synctest bubble: a minute of theirs takes some milliseconds.
type council struct {
	t      *testing.T
	base   string
	record *Record
	send   func(ctx context.Context, to string, messages [][]byte) error // set before the start; nil: everything arrives

	mu    sync.Mutex
	nodes map[string]*councillor // that are running, by address
	seen  map[uint64][]byte      // each version of the table, which is one for all
	disks map[string]*councillor // all that ever were, by incarnation
}

type councillor struct {
	me   Identity
	path string
	dir  *Dir
	log  *Log
	stop context.CancelFunc
	err  chan error
	told []uint64 // versions that Changed brought since the start
}

func newCouncil(t *testing.T, record *Record) *council {
	c := &council{
		base: t.TempDir(), // removed after the nodes have ended
		t:    t, record: record, nodes: make(map[string]*councillor), seen: make(map[uint64][]byte),
		disks: make(map[string]*councillor),
	}
	t.Cleanup(c.endAll)
	return c
}

// fixed makes a disk of a given incarnation.
type fixed string

func (f fixed) Read(b []byte) (int, error) {
	return hex.Decode(b, []byte(f))
}

// start runs the Log of a disk, which is made if it is not there.
func (c *council) start(me Identity, table *Table) *councillor {
	c.t.Helper()
	n := c.disks[me.Incarnation]
	if n == nil {
		n = &councillor{me: me, path: filepath.Join(c.base, me.Incarnation)}
		c.disks[me.Incarnation] = n
	}
	var err error
	if n.dir, err = OpenDir(n.path, fixed(me.Incarnation), epoch); err != nil {
		c.t.Fatal(err)
	}
	n.told = nil
	n.log, err = OpenLog(LogOptions{
		Record: c.record, Me: me, Dir: n.dir, Table: table,
		Send: func(ctx context.Context, to Member, messages [][]byte) error {
			if c.send != nil {
				if err := c.send(ctx, to.Addr, messages); err != nil {
					return err
				}
			}
			c.mu.Lock()
			target := c.nodes[to.Addr]
			c.mu.Unlock()
			if target == nil {
				return errors.New("connection refused")
			}
			return target.log.Receive(messages)
		},
		Changed: func(table *Table) {
			c.mu.Lock()
			defer c.mu.Unlock()
			n.told = append(n.told, table.Version)
			if known, ok := c.seen[table.Version]; ok && !bytes.Equal(known, table.Encode()) {
				c.t.Errorf("two tables of version %d", table.Version)
			}
			c.seen[table.Version] = table.Encode()
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.err = stop, make(chan error, 1)
	c.mu.Lock()
	c.nodes[me.Addr] = n
	c.mu.Unlock()
	go func() { n.err <- n.log.Run(ctx) }()
	return n
}

// startAll starts the founders.
func (c *council) startAll() (nodes []*councillor) {
	c.t.Helper()
	for _, m := range c.record.Members {
		if m.Founder != "" {
			nodes = append(nodes, c.start(Identity{m.Founder, m.Addr, m.Zone}, nil))
		}
	}
	return nodes
}

// end stops a node, which must go without complaint.
func (c *council) end(n *councillor) {
	c.t.Helper()
	c.mu.Lock()
	delete(c.nodes, n.me.Addr)
	c.mu.Unlock()
	n.stop()
	if err := <-n.err; err != nil {
		c.t.Errorf("%v: %v", n.me, err)
	}
	if err := n.dir.Close(); err != nil {
		c.t.Error(err)
	}
	if !slices.IsSorted(n.told) {
		c.t.Errorf("%v: tables in the order %v", n.me, n.told)
	}
}

func (c *council) endAll() {
	c.t.Helper()
	c.mu.Lock()
	var running []*councillor
	for _, n := range c.nodes {
		running = append(running, n)
	}
	c.mu.Unlock()
	for _, n := range running {
		c.end(n)
	}
}

// within waits, in the bubble's time.
func (c *council) within(d time.Duration, what string, condition func() bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.mu.Lock()
			for _, n := range c.nodes {
				c.t.Logf("%v: %+v", n.me, n.log.Status())
			}
			c.mu.Unlock()
			c.t.Fatalf("not within %v: %s", d, what)
		}
	}
}

func version(n *councillor) uint64 {
	if t := n.log.Table(); t != nil {
		return t.Version
	}
	return 0
}

func (c *council) enroll(n *councillor, me Identity) *Table {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	table, err := n.log.Enroll(ctx, me)
	if err != nil {
		c.t.Fatal(err)
	}
	if m, ok := table.MemberByAddr(me.Addr); !ok || m.Founder != me.Incarnation {
		c.t.Fatalf("%v is not in the table that Enroll returned: %+v", me, table.Members)
	}
	return table
}

func disk(n int) Identity { return Identity{Incarnation: incarnation(uint64(n)), Addr: addr(n - 1)} }

func blanks(n int) []string { return make([]string, n) }
