package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"syntropy/internal/fleet"
	"syntropy/internal/unidata"
)

// The tests of this file run the program as a shell does, and so do the nodes
// that it starts: this test's executable is the program when asked to be.
const beProgram = "BE_SYNTROPY"

func init() {
	if os.Getenv(beProgram) != "" {
		main() // exits
	}
}

// programDeadline is far more than any step takes, also under the race detector.
const programDeadline = 150 * time.Second

// program is one run of the program.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	tmp   string // its temporary directory
	lines *bufio.Scanner
	out   bytes.Buffer // what was read of the stream that is watched
	other bytes.Buffer // all of the other stream
}

// startProgram runs a command line and watches its stdout, or its stderr.
func startProgram(t *testing.T, watchErr bool, args ...string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, cmd: exec.Command(self, args...), tmp: t.TempDir()}
	p.cmd.Env = append(os.Environ(), beProgram+"=1", "TMPDIR="+p.tmp)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, &p.other
	if watchErr {
		p.cmd.Stdout, p.cmd.Stderr = &p.other, w
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(programDeadline)); err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(r)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		r.Close()
	})
	return p
}

// until reads up to a line that contains text.
func (p *program) until(text string) {
	p.t.Helper()
	for p.lines.Scan() {
		p.out.WriteString(p.lines.Text() + "\n")
		if strings.Contains(p.lines.Text(), text) {
			return
		}
	}
	p.t.Fatalf("it never said %q (%v):\n%s\n%s", text, p.lines.Err(), p.out.String(), p.other.String())
}

// end reads the rest and returns the exit status.
func (p *program) end() int {
	p.t.Helper()
	for p.lines.Scan() {
		p.out.WriteString(p.lines.Text() + "\n")
	}
	if err := p.lines.Err(); err != nil {
		p.t.Fatalf("it does not end: %v\n%s\n%s", err, p.out.String(), p.other.String())
	}
	err := p.cmd.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return 0
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// pids returns the processes of the nodes, as the table of nodes names them.
func (p *program) pids(nodes int) []int {
	p.t.Helper()
	var pids []int
	for _, m := range regexp.MustCompile(`(?m)^ +n\d +(\d+) +\d+ +\d+ +\d+`).FindAllStringSubmatch(p.out.String(), -1) {
		pid, _ := strconv.Atoi(m[1])
		pids = append(pids, pid)
	}
	if len(pids) != nodes {
		p.t.Fatalf("%d processes of %d in\n%s", len(pids), nodes, p.out.String())
	}
	return pids
}

// nothingLeft checks that the nodes have ended and no temporary file is left.
func (p *program) nothingLeft(pids []int) {
	p.t.Helper()
	for _, pid := range pids {
		if alive(pid) {
			p.t.Errorf("process %d is left", pid)
		}
	}
	if left, err := os.ReadDir(p.tmp); err != nil || len(left) > 0 {
		p.t.Errorf("left in the temporary directory: %v, %v", left, err)
	}
}

// alive reports whether a process runs. One that has ended but that nobody has
// waited for (a zombie) does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, state, ok := strings.Cut(string(stat), ") ")
	return err != nil || !ok || !strings.HasPrefix(state, "Z")
}

// freeBase finds a base port whose ports are free.
func freeBase(t *testing.T, nodes int) int {
	t.Helper()
	for base := 17000 + os.Getpid()%50*200; base < 31000; base += 10 {
		if f, err := fleet.New(fleet.Options{Dir: t.TempDir(), Ports: fleet.PortsFrom(base, nodes)}); err == nil {
			f.Stop()
			return base
		}
	}
	t.Fatal("no ports are free")
	return 0
}

func TestDev(t *testing.T) {
	base := freeBase(t, 3)
	p := startProgram(t, false, "dev", "--base-port", strconv.Itoa(base), "--settle", "1s", "--shards", "16")
	p.until("Ctrl-C stops")
	pids := p.pids(3)
	addr := func(node int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(base+node)) }
	clients := map[int]*redis.Client{}
	for _, node := range []int{1, 3} {
		clients[node] = redis.NewClient(&redis.Options{Addr: addr(node)})
		defer clients[node].Close()
	}
	ctx := t.Context()
	if err := clients[1].Set(ctx, "greeting", "hello", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := clients[3].Get(ctx, "greeting").Result(); got != "hello" || err != nil {
		t.Errorf("n3: %q, %v", got, err)
	}

	// It goes on without a node that is killed, and tells how to start it again.
	if err := syscall.Kill(pids[2], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.until("n3 (pid " + strconv.Itoa(pids[2]) + ") has ended: signal: killed.")
	p.until("To start it again")
	p.until("serve --data-dir " + p.tmp)
	if !strings.Contains(p.out.String(), "this node is in the cluster") {
		t.Errorf("the end of the log is missing:\n%s", p.out.String())
	}
	if err := clients[1].Set(ctx, "greeting", "still here", 0).Err(); err != nil {
		t.Error(err)
	}

	p.signal(syscall.SIGTERM)
	if status := p.end(); status != exitOK || p.other.Len() > 0 || !strings.HasSuffix(p.out.String(), " is removed\n") {
		t.Errorf("status %d\n%s\n%s", status, p.out.String(), p.other.String())
	}
	p.nothingLeft(pids)
}

// TestDevKeepsData: with --data-dir the next dev finds what this one wrote.
func TestDevKeepsData(t *testing.T) {
	base, dir := freeBase(t, 1), t.TempDir()
	client := redis.NewClient(&redis.Options{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(base+1))})
	defer client.Close()
	for i := range 2 {
		p := startProgram(t, false, "dev", "--nodes", "1", "--base-port", strconv.Itoa(base), "--data-dir", dir)
		p.until("Ctrl-C stops")
		if i == 0 {
			if err := client.Set(t.Context(), "k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
		} else if got, err := client.Get(t.Context(), "k").Result(); got != "v" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		p.signal(os.Interrupt)
		if status := p.end(); status != exitOK {
			t.Errorf("status %d\n%s", status, p.other.String())
		}
		p.nothingLeft(p.pids(1))
	}
}

// TestDevJSON: one object for programs on stdout, the story on stderr.
func TestDevJSON(t *testing.T) {
	base := freeBase(t, 2)
	p := startProgram(t, false, "dev", "--json", "--nodes", "2", "--base-port", strconv.Itoa(base))
	p.until(`"n2"`)
	p.until("]")
	p.signal(syscall.SIGTERM)
	if status := p.end(); status != exitOK {
		t.Errorf("status %d\n%s", status, p.other.String())
	}
	var r devReport
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil || len(r.Nodes) != 2 {
		t.Fatalf("%v in %s", err, p.out.String())
	}
	for i, n := range r.Nodes {
		if n.PID == 0 || n.Clients != net.JoinHostPort("127.0.0.1", strconv.Itoa(base+i+1)) || !strings.Contains(n.Command, n.DataDir) {
			t.Errorf("%+v", n)
		}
	}
	p.nothingLeft([]int{r.Nodes[0].PID, r.Nodes[1].PID})
}

func TestDevAllNodesEnd(t *testing.T) {
	p := startProgram(t, false, "dev", "--nodes", "1", "--base-port", strconv.Itoa(freeBase(t, 1)))
	p.until("Ctrl-C stops")
	if err := syscall.Kill(p.pids(1)[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := p.end(); status != exitFailed || p.other.String() != "syntropy: all nodes have ended\n" || !strings.Contains(p.out.String(), "logs are kept in "+p.tmp) {
		t.Errorf("status %d\n%s\n%s", status, p.out.String(), p.other.String())
	}
}

// TestDevDies: nodes do not outlive a dev that cannot stop them.
func TestDevDies(t *testing.T) {
	p := startProgram(t, false, "dev", "--nodes", "2", "--base-port", strconv.Itoa(freeBase(t, 2)))
	p.until("Ctrl-C stops")
	pids := p.pids(2)
	p.signal(os.Kill)
	p.end()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(programDeadline)
	for alive(pids[0]) || alive(pids[1]) {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatal("the nodes go on")
		}
	}
}

func TestDevPortInUse(t *testing.T) {
	base := freeBase(t, 3)
	port := strconv.Itoa(base + 102)
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := startProgram(t, false, "dev", "--base-port", strconv.Itoa(base))
	status := p.end()
	if want := "syntropy: port " + port + " on 127.0.0.1, for the peers of n2, is not free"; status != exitFailed ||
		!strings.HasPrefix(p.other.String(), want) || !strings.Contains(p.other.String(), "nothing was started") || p.out.Len() > 0 {
		t.Errorf("status %d\n%s\n%s", status, p.out.String(), p.other.String())
	}
	p.nothingLeft(nil)
}

func TestDevUsage(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	full := t.TempDir()
	if err := os.WriteFile(full+"/x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"dev --nodes 0":           "--nodes 0: give 1 to 7",
		"dev --nodes 8":           "--nodes 8: give 1 to 7",
		"dev --base-port 65500":   "--base-port 65500",
		"dev --shards 3":          "shards is 3: give a power of two",
		"dev --gc-grace 1h":       "gc_grace 1h0m0s must exceed",
		"dev now":                 `takes no argument "now"`,
		"demo now":                `takes no argument "now"`,
		"demo --data-dir " + full: "is not empty",
		"demo --settle 1s":        "unknown flag: --settle",
		"dev --listen :1":         "unknown flag: --listen",
	} {
		if got := sh.run(strings.Fields(line)...); got.status != exitUsage || got.out != "" || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

func TestDemo(t *testing.T) {
	p := startProgram(t, true, "demo", "--json")
	status := p.end()
	d := json.NewDecoder(&p.other)
	d.DisallowUnknownFields()
	var r demoReport
	if err := d.Decode(&r); err != nil {
		t.Fatalf("status %d, %v\n%s", status, err, p.out.String())
	}
	if _, err := d.Token(); err != io.EOF {
		t.Errorf("more than one object on stdout: %v", err)
	}
	if status != exitOK || !r.OK || r.Error != "" {
		t.Errorf("status %d, %s\n%s", status, r.Error, p.out.String())
	}
	rows := 0
	for range unidata.Rows() {
		rows++
	}
	for _, c := range []struct {
		name      string
		got, want int
	}{
		{"rows", r.Rows, rows}, {"overwritten", r.Overwritten, 1000}, {"deleted", r.Deleted, 500}, {"added", r.Added, 200},
		{"late", r.Late, 300}, {"read", r.Read, 100},
		{"hints kept", int(r.HintsKept), 1700}, {"hints expired", int(r.HintsExpired), 1700}, {"hints delivered", int(r.HintsDelivered), 300},
		{"read repairs", int(r.ReadRepairs), 100},
		{"keys diverged", r.KeysDiverged, 1600}, {"entries travelled", r.EntriesTravelled, 1600},
		{"entries of the dry run", total(r.DryRun).diverged, 2 * 1600},
		{"in flight", total(r.DryRun).inFlight + total(r.Repair).inFlight, 0},
		{"pulled and pushed at first", sumUp(r.Agreed).pulled + sumUp(r.Agreed).pushed, 0},
		{"rounds at first", sumUp(r.Agreed).rounds, 3}, {"rounds at last", sumUp(r.Again).rounds, 3},
		{"checks", len(r.Checks), 23},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.name, c.got, c.want)
		}
	}
	for _, c := range r.Checks {
		if !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	// What travelled cannot be less than the entries, nor more than everything.
	if r.BytesTravelled < r.EntryBytes || r.KeyByKeyRatio < 1 || r.StreamRatio < r.KeyByKeyRatio {
		t.Errorf("%d bytes travelled, entries %d, ratios %.1f and %.1f", r.BytesTravelled, r.EntryBytes, r.KeyByKeyRatio, r.StreamRatio)
	}
	for line := range strings.Lines(p.out.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > pageWidth || strings.HasSuffix(line, " \n") {
			t.Errorf("a line of %d columns: %q", n, line)
		}
	}
	if strings.Contains(p.out.String(), "\x1b") || strings.Contains(p.out.String(), "entrys") {
		t.Errorf("escapes or bad English in\n%s", p.out.String())
	}
	p.nothingLeft(p.pids(3))
}

func TestDemoInterrupted(t *testing.T) {
	p := startProgram(t, false, "demo")
	p.until("Real data")
	p.signal(os.Interrupt)
	if status := p.end(); status != exitOK || p.other.String() != "" {
		t.Errorf("status %d\n%s\n%s", status, p.out.String(), p.other.String())
	}
	p.nothingLeft(p.pids(3))
}

// TestDemoFails: a demo that cannot go on says why, stops its nodes, and keeps
// their logs.
func TestDemoFails(t *testing.T) {
	p := startProgram(t, false, "demo")
	p.until("Real data")
	pids := p.pids(3)
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := p.end(); status != exitFailed || !strings.Contains(p.other.String(), "n1 has ended (signal: killed)") ||
		!strings.Contains(p.out.String(), "data and logs are kept in "+p.tmp) || strings.Contains(p.out.String(), "checks hold") {
		t.Errorf("status %d\n%s\n%s", status, p.out.String(), p.other.String())
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	if left, err := os.ReadDir(p.tmp); err != nil || len(left) != 1 {
		t.Errorf("kept: %v, %v", left, err)
	}
}

func TestStory(t *testing.T) {
	var out bytes.Buffer
	s := &story{out: &out}
	s.step("A step")
	s.check(true, "sound", "%d of %d", 3, 3)
	s.check(false, "broken", "")
	s.say("%s", strings.Repeat("word ", 25))
	s.check(false, "long", "%s", strings.Repeat("word ", 25))
	words := strings.TrimSpace(strings.Repeat("word ", 19))
	want := "\n1  A step\n   ok      sound: 3 of 3\n   FAILED  broken\n\n   " + words + "\n   word word word word word word\n" +
		"   FAILED  long: " + strings.TrimSuffix(words, " word word word") + "\n           word word word word word word word word word\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if got := strings.Join(s.failed(), " "); got != "broken long" {
		t.Errorf("failed: %s", got)
	}
}

// TestDemoData holds the figures that the demo promises to what it writes.
func TestDemoData(t *testing.T) {
	d, again := newDemoData(), newDemoData()
	if len(d.overwritten) != 1000 || len(d.deleted) != 500 || len(d.added) != 200 || d.overwritten[0] != (demoRow{demoFace, "grinning face"}) || d.deleted[0] != demoGhost {
		t.Errorf("%d, %d, %d, %v, %s", len(d.overwritten), len(d.deleted), len(d.added), d.overwritten[0], d.deleted[0])
	}
	touched := map[string]bool{}
	loaded := map[string]string{}
	for _, row := range d.rows {
		loaded[row.key] = row.value
	}
	for i, row := range d.overwritten {
		if old, ok := loaded[row.key]; !ok || old == row.value || d.model[row.key] != row.value || again.overwritten[i] != row {
			t.Errorf("overwritten: %v, was %q", row, old)
		}
		touched[row.key] = true
	}
	for i, key := range d.deleted {
		if _, held := d.model[key]; held || loaded[key] == "" || again.deleted[i] != key {
			t.Errorf("deleted: %s", key)
		}
		touched[key] = true
	}
	for _, row := range slices.Concat(d.added, d.late) {
		if loaded[row.key] != "" || d.model[row.key] != row.value {
			t.Errorf("added: %v", row)
		}
		touched[row.key] = true
	}
	if len(touched) != demoEntries+demoLate || len(d.model) != len(d.rows)-500+200+300 {
		t.Errorf("%d keys touched, %d in the end", len(touched), len(d.model))
	}
	if c := d.costs(); c.entries != len(d.rows)+200+300 || c.diverged >= c.listed || c.listed >= c.held {
		t.Errorf("%+v", c)
	}
}
