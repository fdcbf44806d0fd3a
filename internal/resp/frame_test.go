package resp

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestDeclaredLengthsAreCheckedFirst(t *testing.T) {
	srv, addr := startServer(t, newMapBackend(), Options{})
	for _, tc := range []struct{ send, want string }{
		{"*1048577\r\n", "invalid multibulk length: a command has at most 1048576 arguments"},
		{"*9999999999999\r\n", "invalid multibulk length: a command has at most 1048576 arguments"},
		{"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000000000\r\n", "invalid bulk length: a value has at most 8388608 bytes (8 MiB)"},
		// The client is in the middle of a long value: it must still read why.
		{"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20000000\r\n" + strings.Repeat("v", 20_000_000), "invalid bulk length: a value has at most 8388608 bytes (8 MiB)"},
		{"GET " + strings.Repeat("k", inlineBytesMax), "too big inline request: a line has at most 65536 bytes"},
	} {
		nc := dial(t, addr)
		if _, err := nc.Write([]byte(tc.send)); err != nil {
			t.Errorf("%.40q: %v", tc.send, err)
		}
		expectEnd(t, nc, "-ERR Protocol error: "+tc.want+"\r\n")
	}
	nc := dial(t, addr)
	mib8 := bytes.Repeat([]byte("v"), ValueBytesMax)
	nc.Write([]byte("*20\r\n$4\r\nMSET\r\n"))
	for range 7 {
		fmt.Fprintf(nc, "$%d\r\n%s\r\n", len(mib8), mib8)
	}
	fmt.Fprintf(nc, "$%d\r\n", len(mib8))
	expectEnd(t, nc, "-ERR Protocol error: a command has at most 67108864 bytes (64 MiB) in total\r\n")
	if n := srv.buffered.Load(); n != 0 {
		t.Errorf("%d bytes of buffers are not given back", n)
	}
}

func TestTheBudgetOfBufferedBytes(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{BufferedBytesMax: 1 << 20})
	greedy, modest := dial(t, addr), dial(t, addr)
	greedy.Write(bulks("SET", "k", strings.Repeat("v", 4<<20)))
	expectEnd(t, greedy, "-ERR Protocol error: too many bytes of commands are in flight on this node: try again later or send smaller commands\r\n")
	modest.Write(bulks("SET", "k", strings.Repeat("v", 500<<10)))
	expect(t, modest, "+OK\r\n")
}

func TestGarbage(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{})
	witness := dial(t, addr)
	rng := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	random[0] = 0x9c
	for name, bytes := range map[string][]byte{
		"tls":       []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
		"get":       []byte("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
		"post":      []byte("POST /set HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nSET k stolen\r\n"),
		"http2":     []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		"random":    random,
		"tile38":    []byte("$3 GET\r\n"),
		"array":     []byte("*\x00\x00\x00"),
		"noise":     []byte("*1\r\n$3\r\nGETxx"),
		"negative":  []byte("*1\r\n$-1\r\n"),
		"huge":      []byte("*99999999999999999999\r\n"),
		"bare lf":   []byte("*1\n$4\nPING\n"),
		"zero byte": []byte("SET k \x00\r\n"),
	} {
		nc := dial(t, addr)
		nc.Write(bytes)
		got, err := io.ReadAll(nc)
		if err != nil || !strings.HasPrefix(string(got), "-ERR Protocol error: ") ||
			!strings.HasSuffix(string(got), "; this is the Redis protocol port of Syntropy; the admin HTTP API is on --admin-listen\r\n") ||
			strings.Count(string(got), "\n") != 1 {
			t.Errorf("%s: got %q (%v)", name, got, err)
		}
		witness.Write([]byte("GET k\r\n"))
		expect(t, witness, "$-1\r\n")
	}
}

func TestEverySplitReadsTheSame(t *testing.T) {
	for _, input := range []string{
		"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\nECHO 'a b'\r\n*0\r\n\r\nPING\n",
		"*2\r\n$3\r\nGET\r\n$1\r\nkx\r\n", "*1\r\n$x\r\n", "*1\r\n:1\r\n", "*\r\n", "*-\r\n", "*1\r\r\n",
		"PING\r\nGET / HTTP/1.1\r\n", "P\x01NG\r\n", "SET k 'unbalanced\r\nPING\r\n", "  PING\r\n",
		"*1\r\n$99999999\r\n", "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n*00\r\nPING\r\n",
	} {
		whole := readAll(input, len(input))
		for first := range len(input) {
			if got := readAll(input, first); got != whole {
				t.Errorf("%q cut at %d reads %s, whole %s", input, first, got, whole)
			}
		}
		if got := readAll(input, -1); got != whole {
			t.Errorf("%q byte by byte reads %s, whole %s", input, got, whole)
		}
	}
}

// readAll tells what a connection would read from input when it arrives in two
// pieces, or with first < 0 byte by byte.
func readAll(input string, first int) string {
	ends := []int{first, len(input)}
	if first < 0 {
		ends = nil
		for i := range len(input) {
			ends = append(ends, i+1)
		}
	}
	var f framer
	var read strings.Builder
	start := 0
	for _, end := range ends {
		for {
			size, err := f.next([]byte(input)[start:end])
			var args [][]byte
			if err == nil && size > 0 {
				args, err = parse([]byte(input)[start:start+size], nil)
			}
			if err != nil {
				fmt.Fprintf(&read, "%v", err)
				return read.String()
			}
			if size == 0 {
				break
			}
			fmt.Fprintf(&read, "%q ", args)
			start += size
		}
	}
	return read.String()
}

// FuzzReader: bytes are read alike in whatever pieces they come. Here and below,
// testdata/fuzz keeps what has once led to a path of its own.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"PING\r\n", "*1\r\n$4\r\nPING\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n", "*-1\r\n*0\r\n*00\r\n",
		"SET 'a b' \"c\\n\"\r\n", "GET / HTTP/1.1\r\n", "*1\r\n$-1\r\n", "$3 GET\r\n", "\x16\x03\x01",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		whole := readAll(string(input), len(input))
		if bytewise := readAll(string(input), -1); whole != bytewise {
			t.Errorf("%q reads %s, byte by byte %s", input, whole, bytewise)
		}
		if strings.HasSuffix(whole, "Protocol error: invalid command") {
			t.Errorf("%q: the framer and the parser disagree", input)
		}
	})
}

func TestRandomCommandsComeBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		args := make([]string, 1+rng.IntN(6))
		for i := range args {
			b := make([]byte, rng.IntN(20))
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			args[i] = string(b)
		}
		wire := string(bulks(args...))
		if got, want := readAll(wire, rng.IntN(len(wire))), fmt.Sprintf("%q ", args); got != want {
			t.Fatalf("%q reads %s, want %s", wire, got, want)
		}
	}
}
