package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"syntropy/internal/admin"
	"syntropy/report"
)

const host = "127.0.0.1"

const (
	// liveTimeout is far more than a start takes, also on a slow machine; past
	// it something is wrong, and the log says what.
	liveTimeout = 60 * time.Second
	// pollEvery is short for a person and long for a node that is starting.
	pollEvery = 50 * time.Millisecond
	// statusTimeout bounds one question while waiting.
	statusTimeout = 5 * time.Second
	// stopTimeout is more than a node takes to drain.
	stopTimeout = 15 * time.Second
)

// Options say which nodes there are.
type Options struct {
	// Dir holds, for each node, its data directory n1 and its log file n1.log.
	// It is created if absent.
	Dir string
	// Ports are those of the nodes, in ascending order, so that the first node
	// becomes n1 when the cluster forms.
	Ports []Ports
	// Args are flags of serve for every node, beside those of addresses, data
	// directory and cluster size.
	Args []string
	// NodeArgs returns further flags of one node, by its index; nil: none.
	NodeArgs func(i int) []string
	// Program is the executable; empty means this one.
	Program string
}

// cacheMiB is the block cache of each node: they share a machine, of which each would
// take a part for itself.
const cacheMiB = "256"

// Fleet is a cluster of processes. Its methods are for one goroutine, which must
// call Stop at the end.
type Fleet struct {
	Nodes []*Node
	spawn *spawner
	grace time.Duration // how long Stop waits before it kills
	stop  sync.Once
}

// New prepares the nodes and starts none. It fails with a *PortError if a port
// is in use.
func New(opts Options) (*Fleet, error) {
	if err := check(opts.Ports); err != nil {
		return nil, err
	}
	program := opts.Program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("cannot find the program to run as a node: %w", err)
		}
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f := &Fleet{spawn: newSpawner(), grace: stopTimeout}
	size := strconv.Itoa(len(opts.Ports))
	for i, p := range opts.Ports {
		name := "n" + strconv.Itoa(i+1)
		n := &Node{
			Name: name, Ports: p, DataDir: filepath.Join(dir, name), LogFile: filepath.Join(dir, name+".log"),
			Admin: admin.NewClient(p.AdminAddr()), program: program, spawn: f.spawn,
		}
		n.args = []string{"serve", "--data-dir", n.DataDir, "--listen", p.ClientAddr(), "--peer-listen", p.PeerAddr(),
			"--admin-listen", p.AdminAddr(), "--bootstrap-expect", size, "--cache-mib", cacheMiB}
		for j, other := range opts.Ports {
			if j != i {
				n.args = append(n.args, "--join", other.PeerAddr())
			}
		}
		n.args = append(n.args, opts.Args...)
		if opts.NodeArgs != nil {
			n.args = append(n.args, opts.NodeArgs(i)...)
		}
		// One log per fleet: it begins with the command of this one, and what
		// an earlier fleet wrote does not pile up.
		if err := os.Rename(n.LogFile, n.LogFile+".old"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		f.Nodes = append(f.Nodes, n)
	}
	go f.spawn.run()
	return f, nil
}

// Start starts all nodes. After an error some of them may run: call Stop.
func (f *Fleet) Start() error {
	for _, n := range f.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

// WaitLive waits until every node serves and knows that all others do. It fails
// at once when one of them ends.
func (f *Fleet) WaitLive(ctx context.Context) error {
	return f.wait(ctx, f.Nodes, func(asked *Node, st report.Status) string {
		if len(st.Nodes) != len(f.Nodes) {
			return fmt.Sprintf("%s is in a cluster of %d nodes, not of %d", asked.Name, len(st.Nodes), len(f.Nodes))
		}
		for _, ns := range st.Nodes {
			if ns.State != report.StateLive {
				return fmt.Sprintf("%s says that %v is %s: %s", asked.Name, ns.Node, ns.State, ns.Reason)
			}
		}
		return ""
	})
}

// WaitDown waits until all other nodes have noticed that one is gone.
func (f *Fleet) WaitDown(ctx context.Context, gone *Node) error {
	others := slices.DeleteFunc(slices.Clone(f.Nodes), func(n *Node) bool { return n == gone })
	return f.wait(ctx, others, func(asked *Node, st report.Status) string {
		for _, ns := range st.Nodes {
			if ns.Peer == gone.PeerAddr() && ns.State != report.StateDown {
				return fmt.Sprintf("%s still takes %s for %s", asked.Name, gone.Name, ns.State)
			}
		}
		return ""
	})
}

// wait asks nodes for their status until wrong finds nothing wrong with any.
func (f *Fleet) wait(ctx context.Context, nodes []*Node, wrong func(*Node, report.Status) string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, liveTimeout, errLate)
	defer cancel()
	again := time.NewTicker(pollEvery)
	defer again.Stop()
	for {
		reason, culprit := "", (*Node)(nil)
		for _, n := range nodes {
			if !n.Running() {
				return &EndedError{n, n.Cause()}
			}
			if reason = ask(ctx, n, wrong); reason != "" {
				culprit = n
				break
			}
		}
		if reason == "" {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errLate) {
				return err
			}
			return fmt.Errorf("not ready after %v: %s; see %s", liveTimeout, reason, culprit.LogFile)
		}
	}
}

var errLate = errors.New("late")

func ask(ctx context.Context, n *Node, wrong func(*Node, report.Status) string) string {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	st, err := n.Admin.Status(ctx)
	if err != nil {
		return n.Name + " does not answer: " + err.Error()
	}
	return wrong(n, st)
}

// Stop asks all nodes to end, waits, and kills those that do not end within 15
// seconds, whose names it returns. No process is left when it returns.
func (f *Fleet) Stop() (killed []string) {
	f.stop.Do(func() {
		for _, n := range f.Nodes {
			n.terminate()
		}
		late := time.NewTimer(f.grace)
		defer late.Stop()
		for _, n := range f.Nodes {
			select {
			case <-n.Ended():
			case <-late.C:
				late.Reset(0) // for the others too
				if n.Running() {
					killed = append(killed, n.Name)
				}
				n.Kill()
			}
			n.Admin.Close()
		}
		f.spawn.close()
	})
	return killed
}
