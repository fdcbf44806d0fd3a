package clients

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"syntropy/internal/fleet"
)

var idle = flag.Int("clients.idle", 1000, "idle connections of TestHostileClients")

// residentBytes is the memory that a node takes of the machine, where the system tells.
func residentBytes(t *testing.T, n *fleet.Node) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.PID()))
	if err != nil {
		t.Skipf("SKIPPED: the system does not tell how much memory a process takes: %v", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// TestHostileClients: connections that idle, clients that feed a byte a second, and
// clients that send and never read cost little, and others do not notice. Each idle
// connection was used once; they are given no time to calm down.
func TestHostileClients(t *testing.T) {
	node := start(t, 1, "--sync", "interval:100ms", "--max-clients", "20000").Nodes[0]
	addr := node.ClientAddr()
	others := plain(t, addr)
	ctx := t.Context()
	value := strings.Repeat("v", 1<<20)
	for i := range 20 {
		if err := others.Set(ctx, fmt.Sprint("big", i), value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	before, quiet := residentBytes(t, node), latency(t, others)

	dial := func() net.Conn {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}
	var connections []net.Conn
	for range *idle {
		connections = append(connections, dial())
	}
	pong := make([]byte, len("+PONG\r\n"))
	for _, nc := range connections {
		nc.Write([]byte("PING\r\n"))
		if _, err := io.ReadFull(nc, pong); err != nil {
			t.Fatal(err)
		}
	}
	var hostile sync.WaitGroup
	over := make(chan struct{})
	stop := sync.OnceFunc(func() {
		close(over)
		hostile.Wait()
	})
	t.Cleanup(stop) // before what they talk to is closed
	for range 5 {
		feeder, deaf := dial(), dial()
		hostile.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for _, b := range []byte("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1000\r\n" + strings.Repeat("v", 1000)) {
				if _, err := feeder.Write([]byte{b}); err != nil {
					return
				}
				select {
				case <-tick.C:
				case <-over:
					return
				}
			}
		})
		hostile.Go(func() {
			go func() {
				<-over
				deaf.Close()
			}()
			for range 1 << 20 {
				if _, err := deaf.Write([]byte("GET big0\r\nMGET big1 big2 big3 big4\r\n")); err != nil {
					return
				}
			}
		})
	}
	// For a while, whatever the others ask is answered, and rightly.
	onset := latency(t, others)
	busy := latency(t, others)
	took := residentBytes(t, node)
	for i := range 20 {
		if got, err := others.Get(ctx, fmt.Sprint("big", i)).Result(); err != nil || got != value {
			t.Fatalf("big%d: %d bytes, %v", i, len(got), err)
		}
	}
	took = max(took, residentBytes(t, node))
	for _, nc := range []net.Conn{connections[0], connections[len(connections)-1]} {
		nc.Write([]byte("PING\r\n"))
		if _, err := io.ReadFull(nc, pong); err != nil || !bytes.Equal(pong, []byte("+PONG\r\n")) {
			t.Errorf("an idle connection answers %q, %v", pong, err)
		}
	}
	stop()
	t.Logf("%d idle connections, 5 that feed a byte a second and 5 that never read: %.1f MiB more than %.1f MiB; a SET took %v before, %v while those that never read filled the network, and %v then",
		*idle, float64(took-before)/(1<<20), float64(before)/(1<<20), quiet, onset, busy)
	if took-before > 150<<20 {
		t.Error("that is more than 150 MiB")
	}
}

// latency makes many requests, and returns the median and 99th percentile of what they
// took.
func latency(t *testing.T, client *redis.Client) string {
	t.Helper()
	took := make([]time.Duration, 2000)
	for i := range took {
		began := time.Now()
		if err := client.Set(t.Context(), fmt.Sprint("l", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return fmt.Sprintf("%v (p99 %v)", took[len(took)/2].Round(time.Microsecond), took[len(took)*99/100].Round(time.Microsecond))
}
