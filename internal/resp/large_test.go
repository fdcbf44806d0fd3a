package resp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// mgetCall is what one call of MGet asked for and brought.
type mgetCall struct {
	asked, answered, bytes int
	deadline               time.Time
}

// largeBackend counts what MGet brings. Its calls come from one connection.
type largeBackend struct {
	*mapBackend
	mgets []mgetCall
	// before runs at the start of a call, which is counted from 0; what it
	// returns is the call's outcome.
	before func(call int) error
	answer func(values [][]byte) [][]byte // changes what is answered
}

func newLargeBackend(sizes map[string]int) *largeBackend {
	b := &largeBackend{mapBackend: newMapBackend()}
	for key, size := range sizes {
		b.data[key] = bytes.Repeat([]byte(key[:1]), size)
	}
	return b
}

func (b *largeBackend) MGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	if b.before != nil {
		if err := b.before(len(b.mgets)); err != nil {
			return nil, err
		}
	}
	values, err := b.mapBackend.MGet(ctx, keys)
	if b.answer != nil {
		values = b.answer(values)
	}
	call := mgetCall{asked: len(keys), answered: len(values)}
	for _, value := range values {
		call.bytes += len(value)
	}
	call.deadline, _ = ctx.Deadline()
	b.mgets = append(b.mgets, call)
	return values, err
}

// readBulk reads a bulk string of size times the same letter.
func readBulk(t *testing.T, r *bufio.Reader, letter byte, size int) {
	t.Helper()
	expectLine(t, r, fmt.Sprintf("$%d", size))
	got := make([]byte, size+2)
	if n, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("%d of %d bytes: %v", n, len(got), err)
	}
	if bytes.Count(got[:size], []byte{letter}) != size || string(got[size:]) != "\r\n" {
		t.Fatalf("%d bytes, not all of them %q", size, letter)
	}
}

func expectLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	if got, err := r.ReadString('\n'); err != nil || got != want+"\r\n" {
		t.Fatalf("got %.100q (%v), want %q", got, err, want)
	}
}

func TestLargeRepliesAreAskedForInPieces(t *testing.T) {
	const big, middle = ValueBytesMax, 1 << 20
	sizes := map[string]int{"big": big, "middle": middle, "small": 10, "empty": 0}
	times := func(n int, key string) []string { return strings.Fields(strings.Repeat(key+" ", n)) }
	for _, tc := range []struct {
		name  string
		keys  []string
		calls int
	}{
		{"large", times(20, "big"), 20},
		{"middle", times(20, "middle"), 5},
		{"small", times(1000, "small"), 8},
		{"missing", times(300, "nothing"), 3},
		// Small values first must not lead to a large piece of large ones.
		{"mixed", append(append(times(256, "small"), times(20, "big")...), times(3, "empty")...), 23},
		{"alternating", times(10, "big small empty nothing"), 11},
	} {
		for _, joined := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/joined %v", tc.name, joined), func(t *testing.T) {
				backend := newLargeBackend(sizes)
				_, addr := startServer(t, backend, Options{})
				nc := dial(t, addr)
				r := bufio.NewReaderSize(nc, 64<<10)
				if joined {
					nc.Write([]byte("GET " + strings.Join(tc.keys, "\r\nGET ") + "\r\n"))
				} else {
					nc.Write(bulks(append([]string{"MGET"}, tc.keys...)...))
					expectLine(t, r, fmt.Sprintf("*%d", len(tc.keys)))
				}
				for _, key := range tc.keys {
					if size, ok := sizes[key]; ok {
						readBulk(t, r, key[0], size)
					} else {
						expectLine(t, r, "$-1")
					}
				}
				nc.Write([]byte("PING\r\n"))
				expectLine(t, r, "+PONG")
				for i, call := range backend.mgets {
					if call.asked > mgetKeysMax || call.bytes > MGetBytes+ValueBytesMax {
						t.Errorf("call %d asked for %d keys and brought %d bytes", i, call.asked, call.bytes)
					}
				}
				// How GETs are joined depends on how they arrive.
				if n := len(backend.mgets); !joined && n != tc.calls {
					t.Errorf("%d calls, want %d: %v", n, tc.calls, backend.mgets)
				}
			})
		}
	}
}

// TestAPieceIsWrittenBeforeTheNextIsAskedFor: the second call waits until the
// client has the values of the first.
func TestAPieceIsWrittenBeforeTheNextIsAskedFor(t *testing.T) {
	for _, command := range []string{"MGET big big", "GET big\r\nGET big"} {
		backend := newLargeBackend(map[string]int{"big": ValueBytesMax})
		arrived := make(chan struct{})
		backend.before = func(call int) error {
			if call == 1 {
				select {
				case <-arrived:
				case <-t.Context().Done():
				}
			}
			return nil
		}
		_, addr := startServer(t, backend, Options{})
		nc := dial(t, addr)
		nc.Write([]byte(command + "\r\n"))
		r := bufio.NewReader(nc)
		if strings.HasPrefix(command, "MGET") {
			expectLine(t, r, "*2")
		}
		expectLine(t, r, fmt.Sprintf("$%d", ValueBytesMax))
		if _, err := io.CopyN(io.Discard, r, ValueBytesMax); err != nil {
			t.Fatal(err)
		}
		close(arrived)
		expectLine(t, r, "")
		readBulk(t, r, 'b', ValueBytesMax)
		// A slow client must not use up the time of the calls to come.
		if first, second := backend.mgets[0].deadline, backend.mgets[1].deadline; !second.After(first) {
			t.Errorf("%s: the deadlines of the calls are %v and %v", command, first, second)
		}
	}
}

func TestAPieceThatFails(t *testing.T) {
	stale := codedError{"STALE", "away for too long"}
	for _, tc := range []struct {
		command, begin string
		failing        int
		values, errors int
	}{
		{"MGET big big big", "*3", 1, 1, 2},
		{"MGET big big big", "", 0, 0, 1},
		{"GET big\r\nGET big\r\nGET big", "", 1, 1, 2},
		{"GET big\r\nGET big\r\nGET big", "", 0, 0, 3},
	} {
		backend := newLargeBackend(map[string]int{"big": ValueBytesMax})
		backend.before = func(call int) error {
			if call == tc.failing {
				return fmt.Errorf("shard 3: %w", stale)
			}
			return nil
		}
		_, addr := startServer(t, backend, Options{})
		nc := dial(t, addr)
		nc.Write([]byte(tc.command + "\r\n"))
		r := bufio.NewReader(nc)
		if tc.begin != "" {
			expectLine(t, r, tc.begin)
		}
		for range tc.values {
			readBulk(t, r, 'b', ValueBytesMax)
		}
		for range tc.errors {
			expectLine(t, r, "-STALE shard 3: away for too long")
		}
		nc.Write([]byte("PING\r\n"))
		expectLine(t, r, "+PONG")
	}
}

func TestABackendThatAnswersAnotherNumber(t *testing.T) {
	for name, answer := range map[string]func([][]byte) [][]byte{
		"none": func([][]byte) [][]byte { return nil },
		"more": func(values [][]byte) [][]byte { return append(values, nil) },
	} {
		backend := newLargeBackend(nil)
		backend.answer = answer
		_, addr := startServer(t, backend, Options{})
		nc := dial(t, addr)
		want := "-ERR " + errMGetAnswer.Error() + "\r\n"
		nc.Write([]byte("MGET a b\r\n"))
		expect(t, nc, want)
		nc.Write([]byte("GET a\r\nGET b\r\n"))
		expect(t, nc, want+want)
		if len(backend.mgets) != 2 {
			t.Errorf("%s: %d calls", name, len(backend.mgets))
		}
	}
}

// TestAClientThatLeavesIsNotReadFor: nothing is read for a client that is gone.
func TestAClientThatLeavesIsNotReadFor(t *testing.T) {
	backend := newLargeBackend(map[string]int{"big": ValueBytesMax})
	srv := New(backend, Options{})
	ours, theirs := net.Pipe()
	ours.Close()
	c := newConn(srv, 1, theirs)
	mget(t.Context(), c, [][]byte{[]byte("MGET"), []byte("big"), []byte("big"), []byte("big")})
	if len(backend.mgets) != 1 || !errors.Is(c.w.err, io.ErrClosedPipe) {
		t.Errorf("%d calls, %v", len(backend.mgets), c.w.err)
	}
}
