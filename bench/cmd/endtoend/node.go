package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"syntropy/report"
)

const (
	// stopTimeout is more than a node takes to write what it holds to disk.
	stopTimeout = time.Minute
	// readyTimeout is more than a node takes to read its trees from disk.
	readyTimeout = 5 * time.Minute
	// pollEvery is how often a node is asked while something is waited for.
	pollEvery  = 100 * time.Millisecond
	askTimeout = 10 * time.Second
)

// node is one process of `syntropy serve`.
type node struct {
	name                string
	client, peer, admin string // addresses
	dir, log            string
	binary              string
	args                []string

	cmd   *exec.Cmd // nil before the first start
	ended chan struct{}
	cause error // how it ended, when ended is closed
}

// build builds the syntropy that belongs to this program.
func build(ctx context.Context, dir string) (binary string, err error) {
	binary = filepath.Join(dir, "syntropy")
	// `go build` would be content with this module's requirements, which know
	// nothing of what the binary needs: it is built in its own.
	where := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "syntropy")
	where.Stderr = os.Stderr
	root, err := where.Output()
	if err != nil {
		return "", fmt.Errorf("the source of syntropy is not found: run this in the module of bench, or give -binary (%w)", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-C", strings.TrimSpace(string(root)), "-trimpath", "-o", binary, "./cmd/syntropy")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("syntropy does not build (%w):\n%s", err, out)
	}
	return binary, nil
}

// newNodes prepares two nodes and starts none.
func newNodes(o options, dir string) ([2]*node, error) {
	var nodes [2]*node
	ports, err := freePorts(3 * len(nodes))
	if err != nil {
		return nodes, err
	}
	for i := range nodes {
		name := "n" + strconv.Itoa(i+1)
		n := &node{name: name, client: ports[i], peer: ports[2+i], admin: ports[4+i],
			dir: filepath.Join(dir, name), log: filepath.Join(dir, name+".log"), binary: o.binary}
		n.args = []string{"serve", "--data-dir", n.dir, "--listen", n.client, "--peer-listen", n.peer, "--admin-listen", n.admin,
			"--join", ports[2+1-i], "--bootstrap-expect", "2", "--replicas", "2", "--repair-interval", "off",
			"--hint-window", o.hintWindow.String(), "--sync", o.sync, "--cache-mib", strconv.Itoa(o.cacheMiB)}
		nodes[i] = n
	}
	return nodes, nil
}

// freePorts finds free ports, ascending, since the node with the first peer
// address becomes n1. They are below those that Linux takes for outgoing
// connections: one of these could sit on a node's port while the node is away.
func freePorts(n int) (addrs []string, err error) {
	for port := 17000 + rand.IntN(13000); port < 32000 && len(addrs) < n; port++ {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		addrs = append(addrs, addr)
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	if len(addrs) < n {
		return nil, fmt.Errorf("only %d ports of %d are free on 127.0.0.1", len(addrs), n)
	}
	return addrs, nil
}

// start starts the process, on the data that it left when it ran before.
func (n *node) start() error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	cmd := exec.Command(n.binary, n.args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, attributes()
	for _, v := range os.Environ() { // a node runs with what its command line says
		if !strings.HasPrefix(v, "SYNTROPY_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", n.name, err)
	}
	ended := make(chan struct{})
	n.cmd, n.ended = cmd, ended
	go func() {
		n.cause = cmd.Wait()
		close(ended)
	}()
	return nil
}

func (n *node) pid() int { return n.cmd.Process.Pid }

// stop asks the process to end, waits, and kills it if it does not.
func (n *node) stop() error {
	if n.cmd == nil {
		return nil
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-n.ended:
		n.cmd = nil
		return n.cause
	case <-late.C:
		_ = n.cmd.Process.Kill()
		<-n.ended
		n.cmd = nil
		return fmt.Errorf("%s did not stop within %v and was killed", n.name, stopTimeout)
	}
}

// check reports a process that is needed and has ended.
func (n *node) check() error {
	select {
	case <-n.ended:
		text, _ := os.ReadFile(n.log)
		return fmt.Errorf("%s has ended (%v); the end of its log:\n%s", n.name, n.cause, text[max(0, len(text)-2000):])
	default:
		return nil
	}
}

// status asks the admin port, as `syntropy status` does; that would start a
// process for each question, while time is measured.
func (n *node) status(ctx context.Context) (st report.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin+"/v1/status", nil)
	if err != nil {
		return st, err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return st, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	return st, err
}

// ask runs a command of syntropy against the node and decodes what it prints.
func (n *node) ask(ctx context.Context, into any, args ...string) error {
	cmd := exec.CommandContext(ctx, n.binary, append(args, "--json", "--admin", n.admin)...)
	// Ctrl-C is passed on, so that a repair is cancelled and not left alone.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	cmd.SysProcAttr = attributes()
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == statusDisagree {
		err = nil // what it printed says so
	}
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		return fmt.Errorf("syntropy %s: %w\n%s", strings.Join(args, " "), err, complaint.String())
	}
	return nil
}

// statusDisagree is how syntropy exits when replicas differ.
const statusDisagree = 3

// waitFor asks a node for its status until lacking finds nothing that lacks. It
// fails at once when that node ends, or another one that is needed for it.
func waitFor(ctx context.Context, n *node, limit time.Duration, lacking func(report.Status) string, needed ...*node) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	again := time.NewTicker(pollEvery)
	defer again.Stop()
	needed = append(slices.Clone(needed), n)
	for {
		for _, n := range needed {
			if err := n.check(); err != nil {
				return err
			}
		}
		st, err := n.status(ctx)
		reason := ""
		if err != nil {
			reason = err.Error()
		} else if reason = lacking(st); reason == "" {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late.C:
			return fmt.Errorf("%s is not as it should be after %v: %s", n.name, limit, reason)
		}
	}
}

// waitLive waits until both nodes serve and know it of each other.
func waitLive(ctx context.Context, nodes [2]*node) error {
	for _, n := range nodes {
		if err := waitFor(ctx, n, readyTimeout, func(st report.Status) string {
			if len(st.Nodes) != len(nodes) {
				return fmt.Sprintf("it is in a cluster of %d nodes", len(st.Nodes))
			}
			for _, s := range st.Nodes {
				if s.State != report.StateLive {
					return fmt.Sprintf("%v is %s: %s", s.Node, s.State, s.Reason)
				}
			}
			return ""
		}, nodes[:]...); err != nil {
			return err
		}
	}
	return nil
}

// waitAlone waits until a node knows that the other one is gone.
func waitAlone(ctx context.Context, n *node) error {
	return waitFor(ctx, n, readyTimeout, func(st report.Status) string {
		for _, s := range st.Nodes {
			if s.Node != st.Node && s.State != report.StateDown {
				return fmt.Sprintf("it takes %v for %s", s.Node, s.State)
			}
		}
		return ""
	})
}
