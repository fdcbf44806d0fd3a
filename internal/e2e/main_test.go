package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"syntropy/internal/fleet"
	"syntropy/report"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	redis.SetLogger(silent{}) // dials to nodes that were killed are no news
	os.Exit(run(m))
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "syntropy-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "syntropy")
	if out, err := exec.Command("go", "build", "-o", binary, "syntropy/cmd/syntropy").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the binary: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// testDeadline is far longer than anything takes, for a machine that does other
// things too.
const testDeadline = 30 * time.Second

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(testDeadline); !condition(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain until %s", testDeadline, what)
		}
	}
}

func passed(t *testing.T, d time.Duration) {
	t.Helper()
	end := time.Now().Add(d)
	eventually(t, d.String()+" have passed", func() bool { return time.Now().After(end) })
}

// buffer is written by a process and read by a test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// server is one `syntropy serve`.
type server struct {
	t                   *testing.T
	dir                 string
	client, peer, admin string
	flags               []string
	stderr              *buffer
	cmd                 *exec.Cmd
	exited              chan struct{} // closed when cmd has been waited for
}

// freeAddrs returns loopback addresses that nobody listens on, in the order of
// their ports, which decides who is n1. They are from below the range of outgoing
// connections, of which one could sit on a node's port while the node is away.
func freeAddrs(t *testing.T, n int) (addrs []string) {
	t.Helper()
	ports, err := fleet.FreePorts((n + 2) / 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range []func(fleet.Ports) string{fleet.Ports.ClientAddr, fleet.Ports.PeerAddr, fleet.Ports.AdminAddr} {
		for _, p := range ports {
			addrs = append(addrs, use(p))
		}
	}
	return addrs[:n]
}

// newServers prepares a cluster of n processes and starts none.
func newServers(t *testing.T, n int, flags ...string) []*server {
	t.Helper()
	addrs, root := freeAddrs(t, 3*n), t.TempDir()
	servers := make([]*server, n)
	for i := range servers {
		s := &server{
			t: t, dir: filepath.Join(root, fmt.Sprintf("n%d", i+1)), stderr: new(buffer),
			peer: addrs[i], client: addrs[n+i], admin: addrs[2*n+i],
			flags: append([]string{"--bootstrap-expect", strconv.Itoa(n), "--replicas", strconv.Itoa(n), "--cache-mib", "8"}, flags...),
		}
		for _, peer := range addrs[:n] {
			s.flags = append(s.flags, "--join", peer)
		}
		servers[i] = s
	}
	return servers
}

// startServers starts a cluster and waits until every node sees every other up.
func startServers(t *testing.T, n int, flags ...string) []*server {
	t.Helper()
	servers := newServers(t, n, flags...)
	for _, s := range servers {
		s.start()
	}
	for _, s := range servers {
		s.ready(n)
	}
	return servers
}

func (s *server) args(more ...string) []string {
	args := []string{"serve", "--data-dir", s.dir, "--listen", s.client, "--peer-listen", s.peer, "--admin-listen", s.admin}
	return append(append(args, s.flags...), more...)
}

func (s *server) start(more ...string) {
	s.t.Helper()
	s.cmd = exec.Command(binary, s.args(more...)...)
	s.cmd.Stderr = s.stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, exited := s.cmd, make(chan struct{})
	s.exited = exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // its status is in ProcessState
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended long ago
		<-exited
		if s.t.Failed() {
			s.t.Logf("stderr of %s:\n%s", filepath.Base(s.dir), s.stderr)
		}
	})
}

// end signals the process and returns its exit status, -1 for a signal.
func (s *server) end(sig os.Signal) int {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(testDeadline):
		s.t.Fatalf("%s does not end", s.dir)
	}
	return s.cmd.ProcessState.ExitCode()
}

func (s *server) status() (st report.Status, err error) {
	out, _, errs := syntropy(s.t, nil, "status", "--admin", s.admin, "--json")
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return st, errors.New(errs)
	}
	return st, nil
}

// ready waits until the node is live and sees so many nodes up.
func (s *server) ready(up int) {
	s.t.Helper()
	eventually(s.t, filepath.Base(s.dir)+" is ready", func() bool {
		select {
		case <-s.exited:
			s.t.Fatalf("%s ended: %s", s.dir, s.stderr)
		default:
		}
		st, err := s.status()
		live := 0
		for _, n := range st.Nodes {
			if n.Up && n.State == report.StateLive {
				live++
			}
		}
		return err == nil && live >= up
	})
}

func (s *server) redis() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.client, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: 10 * time.Second, PoolSize: 8})
	s.t.Cleanup(func() { c.Close() })
	return c
}

// syntropy runs a command to its end.
func syntropy(t *testing.T, stdin []byte, args ...string) (stdout string, status int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("syntropy %s: %v", strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("syntropy %s does not end: %s", strings.Join(args, " "), &errs)
	}
	return out.String(), cmd.ProcessState.ExitCode(), errs.String()
}

// roots compares all replicas, recomputed from their rows.
func (s *server) roots() (report report.Roots) {
	s.t.Helper()
	out, _, errs := syntropy(s.t, nil, "roots", "--recompute", "--json", "--admin", s.admin)
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		s.t.Fatalf("%v: %s", err, errs)
	}
	return report
}

// treesAreExact fails unless every tree of every node is what its rows add up to
// (I5).
func (s *server) treesAreExact(nodes int) {
	s.t.Helper()
	report := s.roots()
	if len(report.Errors) > 0 {
		s.t.Fatalf("%v", report.Errors)
	}
	for _, shard := range report.Shards {
		if len(shard.Replicas) != nodes {
			s.t.Fatalf("shard %d: %d replicas answer", shard.Shard, len(shard.Replicas))
		}
		for _, r := range shard.Replicas {
			if r.Recomputed == "" || r.Recomputed != r.Root {
				s.t.Fatalf("shard %d at %v: root %s, its rows say %s", shard.Shard, r.Node, r.Root, r.Recomputed)
			}
		}
	}
}

// repair runs a repair that must succeed.
func (s *server) repair() (reports []report.Repair) {
	s.t.Helper()
	out, status, errs := syntropy(s.t, nil, "repair", "--json", "--admin", s.admin)
	if err := json.Unmarshal([]byte(out), &reports); err != nil || status != 0 {
		s.t.Fatalf("status %d, %v: %s%s", status, err, out, errs)
	}
	return reports
}

// equal repairs and checks I3: equal roots, and then nothing to repair.
func (s *server) equal() {
	s.t.Helper()
	s.repair()
	if report := s.roots(); !report.Equal || len(report.Errors) > 0 {
		s.t.Fatal("replicas differ after a repair")
	}
	for _, rep := range s.repair() {
		if rep.KeysDiverged+rep.KeysInFlight > 0 || rep.Rounds != 1 {
			s.t.Fatalf("equal replicas were repaired: %+v", rep)
		}
	}
}

func wantWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}

const sigKill, sigTerm = syscall.SIGKILL, syscall.SIGTERM
