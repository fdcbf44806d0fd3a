package fleet

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"syntropy/internal/admin"
)

// Node is one process of a Fleet. It is safe for concurrent use.
type Node struct {
	Name    string
	DataDir string
	LogFile string // what it writes, over all its starts
	Admin   *admin.Client
	Ports

	program string
	args    []string
	spawn   *spawner

	mu   sync.Mutex
	proc *process // the last one; nil before the first start
}

// process is one life of a node.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended, when ended is closed
}

// EndedError reports that a process ended which was needed.
type EndedError struct {
	Node  *Node
	Cause string
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("%s has ended (%s); the end of %s:\n%s", e.Node.Name, e.Cause, e.Node.LogFile, e.Node.LogTail(tailLines))
}

// tailLines of a log are enough to see why a node ended.
const tailLines = 8

// Start starts the process, on the data that it left when it ran before.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc != nil && !isClosed(n.proc.ended) {
		return fmt.Errorf("%s is running", n.Name)
	}
	log, err := os.OpenFile(n.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	if _, err := fmt.Fprintf(log, "$ %s\n", n.Command()); err != nil {
		return err
	}
	cmd := exec.Command(n.program, n.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = environment(os.Environ())
	cmd.SysProcAttr = attributes()
	if err := n.spawn.start(cmd); err != nil {
		return fmt.Errorf("cannot start %s: %w", n.Name, err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	n.proc = p
	return nil
}

// environment leaves out the settings of nodes: what a fleet runs with is what
// its command lines say.
func environment(env []string) []string {
	var kept []string
	for _, v := range env {
		if !strings.HasPrefix(v, "SYNTROPY_") {
			kept = append(kept, v)
		}
	}
	return kept
}

func (n *Node) process() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// PID returns the process id of the last process.
func (n *Node) PID() int {
	if p := n.process(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// Ended returns a channel that is closed when the last process has ended.
func (n *Node) Ended() <-chan struct{} {
	if p := n.process(); p != nil {
		return p.ended
	}
	return closed
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Running reports whether there is a process.
func (n *Node) Running() bool { return !isClosed(n.Ended()) }

// Cause says how the last process ended.
func (n *Node) Cause() string {
	p := n.process()
	switch {
	case p == nil:
		return "never started"
	case !isClosed(p.ended):
		return "running"
	case p.err != nil:
		return p.err.Error()
	}
	return "exit status 0"
}

// Kill ends the process by signal 9, which leaves it no time for anything, and
// waits for its end.
func (n *Node) Kill() {
	if p := n.process(); p != nil {
		_ = p.cmd.Process.Kill() // fails only if it has ended
		<-p.ended
	}
}

// terminate asks the process to end in order.
func (n *Node) terminate() {
	p := n.process()
	if p == nil || isClosed(p.ended) {
		return
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		_ = p.cmd.Process.Kill() // no such signal on this system, or it has ended
	}
}

// Command returns the command line of the node, for a shell.
func (n *Node) Command() string {
	words := append([]string{n.program}, n.args...)
	for i, w := range words {
		words[i] = quote(w)
	}
	return strings.Join(words, " ")
}

// quote makes one word of a shell out of s.
func quote(s string) string {
	harmless := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-:=,+@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !harmless(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// maxTail bounds what LogTail reads: a log may be of any length.
const maxTail = 16 << 10

// LogTail returns the last lines that the last process wrote, each indented by
// two spaces.
func (n *Node) LogTail(lines int) string {
	f, err := os.Open(n.LogFile)
	if err != nil {
		return "  " + err.Error()
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-maxTail), io.SeekStart)
	}
	text, _ := io.ReadAll(io.LimitReader(f, maxTail))
	if at := bytes.LastIndex(text, []byte("\n$ ")); at >= 0 { // what it wrote in earlier lives
		text = text[at+1:]
	}
	if bytes.HasPrefix(text, []byte("$ ")) { // its command
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	all := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	var tail strings.Builder
	for _, line := range all[max(0, len(all)-lines):] {
		fmt.Fprintf(&tail, "  %s\n", line)
	}
	return strings.TrimRight(tail.String(), "\n")
}
