package resp

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pieces is a connection on which bytes arrive in pieces, and then the end.
type pieces struct {
	arrive  [][]byte
	written bytes.Buffer
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.arrive) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.arrive[0])
	if p.arrive[0] = p.arrive[0][n:]; len(p.arrive[0]) == 0 {
		p.arrive = p.arrive[1:]
	}
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error)      { return p.written.Write(b) }
func (p *pieces) Close() error                     { return nil }
func (p *pieces) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7001} }
func (p *pieces) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9999} }
func (p *pieces) SetDeadline(time.Time) error      { return nil }
func (p *pieces) SetReadDeadline(time.Time) error  { return nil }
func (p *pieces) SetWriteDeadline(time.Time) error { return nil }

// converse serves one connection to its end, and returns all that it was answered.
func converse(t *testing.T, clock *testClock, arrive ...[]byte) string {
	t.Helper()
	backend := newMapBackend()
	backend.now = clock.now
	srv := New(backend, Options{Now: clock.now, EnableFlush: true})
	nc := &pieces{arrive: arrive}
	newConn(srv, 1, nc).serve(context.Background())
	if n, m := srv.buffered.Load(), srv.replying.Load(); n != 0 || m != 0 {
		t.Errorf("%d bytes of commands and %d of replies are not given back", n, m)
	}
	return nc.written.String()
}

// FuzzConversation: whatever a client sends, the replies are the same however the network
// cuts it: a command by itself, in pieces, or with others that it is joined with.
func FuzzConversation(f *testing.F) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		f.Fatal("no scripts", err)
	}
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		var sent []byte // a few commands of the script, so that they are soon varied
		commands := 0
		for _, line := range strings.Split(string(text), "\n") {
			if raw, err := strconv.Unquote(strings.TrimPrefix(line, ">")); strings.HasPrefix(line, `>"`) && err == nil {
				sent = append(sent, raw...)
			} else if command, ok := strings.CutPrefix(line, "> "); ok {
				sent = append(sent, command+"\r\n"...)
			} else {
				continue
			}
			if commands++; commands%6 == 0 {
				f.Add(sent, uint64(commands))
				sent = nil
			}
		}
		f.Add(sent, uint64(1))
	}
	// What tells of the moment differs from one time to the next.
	moment := regexp.MustCompile(`(?i)info|list`)
	clock := newTestClock()
	f.Fuzz(func(t *testing.T, sent []byte, seed uint64) {
		if moment.Match(sent) || len(sent) > 64<<10 {
			return
		}
		whole := converse(t, clock, bytes.Clone(sent))
		rng := rand.New(rand.NewPCG(seed, 0))
		var cut [][]byte
		for rest := bytes.Clone(sent); len(rest) > 0; {
			n := 1 + rng.IntN(min(len(rest), 1+rng.IntN(700)))
			cut, rest = append(cut, rest[:n]), rest[n:]
		}
		if got := converse(t, clock, cut...); got != whole {
			t.Errorf("%q is answered %q, in pieces %q", sent, whole, got)
		}
	})
}
