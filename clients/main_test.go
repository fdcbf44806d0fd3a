package clients

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"syntropy/internal/fleet"
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
	dir, err := os.MkdirTemp("", "syntropy-clients-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "syntropy")
	build := exec.Command("go", "build", "-o", binary, "./cmd/syntropy")
	build.Dir = ".." // the module that it belongs to
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the binary: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience is far longer than anything takes, for a machine that does other things
// too.
const patience = 30 * time.Second

// start starts a cluster of so many nodes, which ends with the test.
func start(t *testing.T, nodes int, flags ...string) *fleet.Fleet {
	t.Helper()
	ports, err := fleet.FreePorts(nodes)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Options{Dir: t.TempDir(), Ports: ports, Program: binary, Args: append([]string{"--cache-mib", "8"}, flags...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range f.Nodes {
				t.Logf("the end of %s:\n%s", n.LogFile, n.LogTail(20))
			}
		}
		if killed := f.Stop(); len(killed) > 0 {
			t.Errorf("nodes that had to be killed: %v", killed)
		}
	})
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	if err := f.WaitLive(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// plain returns a client of one node.
func plain(t *testing.T, addr string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { client.Close() })
	return client
}

// eventually asks until there is no error, or long enough.
func eventually(t *testing.T, ask func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(patience)
	for err := ask(); err != nil; err = ask() {
		if time.Now().After(end) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

// tool runs redis-cli or redis-benchmark against a node, and skips the test without
// it.
func tool(t *testing.T, name, addr, stdin string, args ...string) string {
	t.Helper()
	out, err := runTool(t, name, addr, stdin, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// failing is tool for what must fail.
func failing(t *testing.T, name, addr string, args ...string) string {
	t.Helper()
	out, err := runTool(t, name, addr, "", args...)
	if err == nil {
		t.Errorf("%s %q succeeds: %s", name, args, out)
	}
	return out
}

func runTool(t *testing.T, name, addr, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := command(t, ctx, name, addr, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func command(t *testing.T, ctx context.Context, name, addr string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: %s is not installed: apt-get install redis-tools", name)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(ctx, path, append([]string{"-h", host, "-p", port}, args...)...)
}

// follow starts a tool that does not end by itself, and returns what it has written so
// far whenever it is asked. The tool writes to a file by lines, as it would to a
// terminal.
func follow(t *testing.T, name, addr string, args ...string) func() string {
	t.Helper()
	cmd := command(t, t.Context(), name, addr, args...)
	out, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append([]string{"stdbuf", "-oL", cmd.Path}, cmd.Args[1:]...)
	if cmd.Path, err = exec.LookPath("stdbuf"); err != nil {
		t.Skip("SKIPPED: stdbuf is not installed: apt-get install coreutils")
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		out.Close()
	})
	return func() string {
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}
