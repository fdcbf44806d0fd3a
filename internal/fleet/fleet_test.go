package fleet

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newFleet prepares nodes that run a shell script instead of this program.
func newFleet(t *testing.T, nodes int, script string) *Fleet {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "node.sh")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ports, err := FreePorts(nodes)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Options{Dir: dir, Ports: ports, Program: program})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Stop() })
	return f
}

func TestKillAndStartAgain(t *testing.T) {
	f := newFleet(t, 2, "exec sleep 1000")
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	n := f.Nodes[1]
	first := n.PID()
	if err := n.Start(); err == nil {
		t.Error("started twice")
	}
	n.Kill()
	if n.Running() || n.Cause() != "signal: killed" || !f.Nodes[0].Running() {
		t.Errorf("killed n2: %s, n1: %s", n.Cause(), f.Nodes[0].Cause())
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if !n.Running() || n.PID() == first {
		t.Errorf("not started again: %s", n.Cause())
	}
	if killed := f.Stop(); len(killed) != 0 {
		t.Errorf("had to kill %v", killed)
	}
	for _, n := range f.Nodes {
		if n.Running() || syscall.Kill(n.PID(), 0) == nil {
			t.Errorf("%s is left", n.Name)
		}
	}
	if log, err := os.ReadFile(n.LogFile); err != nil || strings.Count(string(log), "$ "+n.Command()+"\n") != 2 {
		t.Errorf("the log does not begin each life with the command: %v\n%s", err, log)
	}
}

func TestStopKillsTheStubborn(t *testing.T) {
	f := newFleet(t, 1, "trap '' TERM; : > \"$0.ready\"; while :; do sleep 0.1; done")
	f.grace = time.Millisecond
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	ready := filepath.Join(filepath.Dir(f.Nodes[0].DataDir), "node.sh.ready")
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the script does not start")
		}
	}
	if killed := f.Stop(); !slices.Equal(killed, []string{"n1"}) || f.Nodes[0].Running() {
		t.Errorf("killed %v", killed)
	}
}

// TestEndedWhileWaiting: a node that cannot start is reported at once, with what
// it said in this life.
func TestEndedWhileWaiting(t *testing.T) {
	f := newFleet(t, 1, "echo the disk is full; exit 3")
	for range 2 {
		if err := f.Start(); err != nil {
			t.Fatal(err)
		}
		<-f.Nodes[0].Ended()
	}
	err := f.WaitLive(t.Context())
	ended, ok := errors.AsType[*EndedError](err)
	if !ok || ended.Node != f.Nodes[0] || !strings.Contains(err.Error(), "n1 has ended (exit status 3)") || !strings.HasSuffix(err.Error(), "n1.log:\n  the disk is full") {
		t.Errorf("%v", err)
	}
}

func TestPortInUse(t *testing.T) {
	ports, err := FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", ports[1].PeerAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := filepath.Join(t.TempDir(), "d")
	_, err = New(Options{Dir: dir, Ports: ports})
	e, ok := errors.AsType[*PortError](err)
	if !ok || e.Port != ports[1].Peers || e.Use != "peers of n2" || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
}

func TestPorts(t *testing.T) {
	if got := PortsFrom(7000, 3)[2]; got != (Ports{7003, 7103, 7203}) {
		t.Errorf("%v", got)
	}
	ports, err := FreePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, p := range ports {
		all = append(all, p.Clients, p.Peers, p.Admin)
	}
	if !slices.IsSortedFunc(ports, func(a, b Ports) int { return a.Peers - b.Peers }) {
		t.Errorf("n1 to n3 would be named differently: %v", ports)
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != 9 {
		t.Errorf("a port is given twice: %v", ports)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"--listen": "--listen", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'", "~": "'~'"} {
		if got := quote(in); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
}
