package e2e

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestImportMalformed: the file and the line, nothing after it with stop, all
// the rest with skip.
func TestImportMalformed(t *testing.T) {
	s := startServers(t, 1, "--shards", "8")[0]
	client := s.redis()
	longKey := strings.Repeat("k", 64<<10+1)
	longValue := strings.Repeat("v", 8<<20+1)
	for _, tc := range []struct {
		name   string
		before string // a good row, a bad one on line 2, a good one
		word   string
	}{
		{"no-tab.tsv", "%s-a\t1\nno tab here\n%s-b\t2\n", "TAB"},
		{"long-key.tsv", "%s-a\t1\n" + longKey + "\tv\n%s-b\t2\n", "65536"},
		{"long-value.tsv", "%s-a\t1\nk\t" + longValue + "\n%s-b\t2\n", "8388608"},
		{"empty-key.tsv", "%s-a\t1\n\tv\n%s-b\t2\n", "key"},
		{"bad.jsonl", `{"key":"%s-a","value":"1"}` + "\n{\"key\": 7}\n" + `{"key":"%s-b","value":"2"}` + "\n", "key"},
		{"cut.jsonl", `{"key":"%s-a","value":"1"}` + "\n{\"key\":\n" + `{"key":"%s-b","value":"2"}` + "\n", ""},
		{"bad.csv", "%s-a,1\na,b,c\n%s-b,2\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tc.name)
			if err := os.WriteFile(path, fmt.Appendf(nil, tc.before, tc.name, tc.name), 0o600); err != nil {
				t.Fatal(err)
			}
			_, status, stderr := syntropy(t, nil, "import", path, "--admin", s.admin)
			if status != 1 {
				t.Errorf("stop: exit status %d", status)
			}
			wantWords(t, stderr, path+":2: ", tc.word, "1 row is stored", "--on-error skip")
			if n, _ := client.Exists(t.Context(), tc.name+"-a", tc.name+"-b").Result(); n != 1 {
				t.Errorf("stop: %d of two rows are there, want the first", n)
			}
			stdout, status, stderr := syntropy(t, nil, "import", path, "--on-error", "skip", "--admin", s.admin)
			if status != 0 {
				t.Errorf("skip: exit status %d: %s", status, stderr)
			}
			wantWords(t, stdout, "imported 2 rows", "skipped 1 malformed line", ":2: ")
			if n, _ := client.Exists(t.Context(), tc.name+"-a", tc.name+"-b").Result(); n != 2 {
				t.Errorf("skip: %d of two rows are there", n)
			}
		})
	}
	for _, args := range [][]string{
		{"import", filepath.Join(t.TempDir(), "absent.tsv")},
		{"import", "-", "--format", "xml"},
		{"import", "-"},
		{"import", "x.tsv", "--on-error", "shrug"},
	} {
		if _, status, stderr := syntropy(t, nil, append(args, "--admin", s.admin)...); status == 0 || stderr == "" {
			t.Errorf("%v: status %d, %q", args, status, stderr)
		}
	}
	s.treesAreExact(1)
}

// TestTooLarge: keys and values over the limits get an ordinary error, those at
// the limits are kept, and the connection goes on.
func TestTooLarge(t *testing.T) {
	s := startServers(t, 1)[0]
	client, ctx := s.redis(), t.Context()
	key, value := strings.Repeat("k", 64<<10), strings.Repeat("v", 8<<20)
	for _, tc := range []struct{ key, value, word string }{
		{key + "k", "v", "key is too long"},
		{"k", value + "v", "value is too long"},
		{"", "v", "key is empty"},
	} {
		err := client.Set(ctx, tc.key, tc.value, 0).Err()
		if err == nil {
			t.Fatalf("%s: it is taken", tc.word)
		}
		wantWords(t, err.Error(), tc.word)
	}
	if n, err := client.DBSize(ctx).Result(); n != 0 || err != nil {
		t.Errorf("%d keys were written, %v", n, err)
	}
	if err := client.Set(ctx, key, value, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := client.Get(ctx, key).Result(); err != nil || got != value {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

// strangers are what arrives on ports that are open to the world.
func strangers() map[string][]byte {
	noise := make([]byte, 64<<10)
	_, _ = rand.Read(noise) // never fails
	return map[string][]byte{
		"noise":     noise,
		"http":      []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
		"post":      []byte("POST /v1/load HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{\"key\":"),
		"http2":     []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x04\x04\x00\x00\x00\x00\x00\xff\xff\xff\xff"),
		"huge bulk": []byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$999999999999\r\n"),
		"huge args": []byte("*2147483647\r\n"),
		"negative":  []byte("*-5\r\n$-9\r\n"),
		"zeros":     make([]byte, 100_000),
		"silence":   nil,
	}
}

// TestGarbage: strangers on all three ports of all nodes, while a client that
// behaves goes on undisturbed and nothing is written.
func TestGarbage(t *testing.T) {
	servers := startServers(t, 3, "--settle", "100ms", "--shards", "8")
	client := servers[0].redis()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var slowest time.Duration
	written := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; written++ {
			began := time.Now()
			key := fmt.Sprint("k", written)
			if err := client.Set(ctx, key, key, 0).Err(); err != nil && ctx.Err() == nil {
				t.Errorf("the client that behaves: %v", err)
				return
			}
			if got, err := client.Get(ctx, key).Result(); (err != nil || got != key) && ctx.Err() == nil {
				t.Errorf("the client that behaves: %q, %v", got, err)
				return
			}
			slowest = max(slowest, time.Since(began))
		}
	}()
	var guests sync.WaitGroup
	for _, s := range servers {
		for _, addr := range []string{s.client, s.peer, s.admin} {
			for _, bytes := range strangers() {
				guests.Go(func() { visit(addr, bytes) })
			}
			guests.Go(func() {
				conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 2 * time.Second}, "tcp", addr, &tls.Config{InsecureSkipVerify: true}) // nobody answers: only the hello matters
				if err == nil {
					conn.Close()
					t.Errorf("%s speaks TLS", addr)
				}
			})
		}
	}
	guests.Wait()
	stop()
	<-done
	t.Logf("%d writes and reads meanwhile, the slowest took %v", written, slowest)
	if written < 20 || slowest > 5*time.Second {
		t.Errorf("the client that behaves was disturbed: %d requests, the slowest took %v", written, slowest)
	}
	for _, s := range servers {
		s.ready(3)
		if strings.Contains(s.stderr.String(), "panic") {
			t.Errorf("it panics")
		}
	}
	passed(t, 150*time.Millisecond)
	servers[0].equal()
	size, err := client.DBSize(t.Context()).Result()
	if err != nil || size < int64(written)-1 || size > int64(written)+1 {
		t.Errorf("%d keys after %d writes, %v", size, written, err)
	}
}

// visit says something to a port, listens for a moment and leaves.
func visit(addr string, bytes []byte) {
	conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return // turned away: fine too
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(700 * time.Millisecond)) // sockets have deadlines
	_, _ = conn.Write(bytes)                                     // the other side may hang up at once
	_, _ = io.Copy(io.Discard, conn)
}

// TestAskNobody: commands without a node say what to do.
func TestAskNobody(t *testing.T) {
	addr := freeAddrs(t, 1)[0]
	for _, args := range [][]string{{"status"}, {"repair"}, {"roots"}, {"inspect", "k"}, {"repair", "cancel"}} {
		_, status, stderr := syntropy(t, nil, append(args, "--admin", addr)...)
		if status != 1 {
			t.Errorf("%v: exit status %d", args, status)
		}
		wantWords(t, stderr, "no node answers at "+addr, "--admin")
	}
}

// TestBadQuestions: a running node refuses what makes no sense, with status 1
// or 2 and the reason.
func TestBadQuestions(t *testing.T) {
	s := startServers(t, 1, "--shards", "8")[0]
	for _, tc := range []struct {
		args   []string
		status int
		word   string
	}{
		{[]string{"repair", "--shard", "8"}, 1, "0 to 7"},
		{[]string{"repair", "--shard", "-1"}, 2, "--shard"},
		{[]string{"repair", "--node", "n9"}, 1, "n9"},
		{[]string{"repair", "--node", "zero"}, 2, "--node"},
		{[]string{"inspect", ""}, 2, "empty"},
		{[]string{"inspect"}, 2, "argument"},
		{[]string{"status", "--bogus"}, 2, "--bogus"},
	} {
		_, status, stderr := syntropy(t, nil, append(tc.args, "--admin", s.admin)...)
		if status != tc.status {
			t.Errorf("%v: exit status %d, want %d: %s", tc.args, status, tc.status, stderr)
		}
		wantWords(t, stderr, tc.word)
	}
	out, _, _ := syntropy(t, nil, "status", "--json", "--admin", s.admin)
	if !json.Valid([]byte(out)) {
		t.Errorf("status --json: %s", out)
	}
}
