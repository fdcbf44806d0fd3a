package resp

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A golden script is a conversation. "> line" is sent as a line, `>"..."` as
// exactly these bytes; neighbouring ">" leave in one write. "< line" is a line
// expected back, "< EOF" the end of the connection. "@ 1.5s" moves the clock on
// before what is sent next.
type exchange struct {
	line int
	wait time.Duration
	send []byte
	want []byte
	eof  bool
}

func readScript(t *testing.T, path string) []exchange {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var script []exchange
	answered := true
	wait := time.Duration(0)
	for i, line := range strings.Split(string(text), "\n") {
		if answered && strings.HasPrefix(line, ">") {
			script = append(script, exchange{line: i + 1, wait: wait})
			answered, wait = false, 0
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if given, ok := strings.CutPrefix(line, "@ "); ok {
			d, err := time.ParseDuration(given)
			if err != nil || !answered {
				t.Fatalf("%s:%d: %v", path, i+1, err)
			}
			wait += d
			continue
		}
		last := &script[len(script)-1]
		switch {
		case strings.HasPrefix(line, `>"`):
			raw, err := strconv.Unquote(line[1:])
			if err != nil {
				t.Fatalf("%s:%d: %v", path, i+1, err)
			}
			last.send = append(last.send, raw...)
		case strings.HasPrefix(line, "> "):
			last.send = append(last.send, line[2:]+"\r\n"...)
		case line == "< EOF":
			last.eof, answered = true, true
		case strings.HasPrefix(line, "< "):
			last.want, answered = append(last.want, line[2:]+"\r\n"...), true
		case line == "<":
			last.want, answered = append(last.want, "\r\n"...), true
		default:
			t.Fatalf("%s:%d: %q is neither sent nor expected", path, i+1, line)
		}
	}
	return script
}

func TestGoldenScripts(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.txt")
	if len(paths) == 0 {
		t.Fatal("no scripts")
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		t.Run(name, func(t *testing.T) { playScript(t, path, false) })
		// However the network cuts the bytes, the replies are the same.
		t.Run(name+"/bytewise", func(t *testing.T) { playScript(t, path, true) })
	}
}

func playScript(t *testing.T, path string, bytewise bool) {
	clock, backend := newTestClock(), newMapBackend()
	backend.now = clock.now
	_, addr := startServer(t, backend, Options{Now: clock.now, EnableFlush: filepath.Base(path) == "flush.txt"}) // refused.txt shows the default
	nc := dial(t, addr)
	closed := false
	for _, x := range readScript(t, path) {
		clock.advance(x.wait)
		send(nc, x.send, bytewise)
		got := make([]byte, len(x.want))
		n, err := io.ReadFull(nc, got)
		if err != nil || !bytes.Equal(got, x.want) {
			t.Fatalf("%s:%d: sent %q\n got %q (%v)\nwant %q", path, x.line, x.send, got[:n], err, x.want)
		}
		if x.eof {
			rest, err := io.ReadAll(nc)
			if len(rest) > 0 || err != nil {
				t.Fatalf("%s:%d: got %q (%v), want the end", path, x.line, rest, err)
			}
			closed = true
		}
	}
	if closed {
		return
	}
	send(nc, []byte("QUIT\r\n"), false)
	if rest, err := io.ReadAll(nc); string(rest) != "+OK\r\n" || err != nil {
		t.Fatalf("%s: got %q (%v) after the last line", path, rest, err)
	}
}

// send ignores errors: a server may close on what it was sent, and what it
// answered shows in the next read.
func send(nc net.Conn, b []byte, bytewise bool) {
	if !bytewise {
		nc.Write(b)
		return
	}
	for i := range b {
		if _, err := nc.Write(b[i : i+1]); err != nil {
			return
		}
	}
}
