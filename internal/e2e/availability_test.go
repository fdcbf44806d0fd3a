package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// deadline is the --request-deadline of these tests.
const deadline = 2 * time.Second

// load writes to some nodes until it is stopped, and remembers what happened.
type load struct {
	stop    context.CancelFunc
	clients sync.WaitGroup

	mu      sync.Mutex
	acked   map[string]string // the last acknowledged value; absent: unknown
	took    []time.Duration   // of acknowledged writes
	slowest time.Duration     // of all
	errs    []loadError
}

type loadError struct {
	at  time.Time
	err error
}

// startLoad writes with some clients to each of the servers, each its own keys.
func startLoad(t *testing.T, servers []*server, clients int, acked map[string]string) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{stop: stop, acked: acked}
	for _, s := range servers {
		client := s.redis()
		for c := range clients {
			l.clients.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					key := fmt.Sprintf("%s/%d/%d", s.client, c, n%300)
					value := fmt.Sprintf("%d %s", time.Now().UnixNano(), strings.Repeat("x", 80))
					began := time.Now()
					err := client.Set(context.WithoutCancel(ctx), key, value, 0).Err()
					l.note(key, value, began, err)
				}
			})
		}
	}
	return l
}

func (l *load) note(key, value string, began time.Time, err error) {
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, took)
	if err != nil {
		delete(l.acked, key) // it may be there or not
		l.errs = append(l.errs, loadError{time.Now(), err})
		return
	}
	l.acked[key] = value
	l.took = append(l.took, took)
}

func (l *load) end() {
	l.stop()
	l.clients.Wait()
}

// p99 returns the 99th percentile and how many writes there were.
func (l *load) p99() (time.Duration, int) {
	slices.Sort(l.took)
	if len(l.took) == 0 {
		return 0, 0
	}
	return l.took[len(l.took)*99/100], len(l.took)
}

// TestKillAnyOne (I1): each node in turn is killed with signal 9 under load. The
// clients of the other two go on: an error is possible only while the failure is
// being noticed, and nothing takes longer than the request deadline. Afterwards a
// read at QUORUM on any node, with no repair in between, returns every acknowledged
// write.
func TestKillAnyOne(t *testing.T) {
	servers := startServers(t, 3, "--shards", "16", "--request-deadline", deadline.String(), "--repair-interval", "off")
	acked := make(map[string]string)
	for i, victim := range servers {
		others := slices.Concat(servers[:i], servers[i+1:])
		quiet := startLoad(t, others, 4, acked)
		passed(t, 1500*time.Millisecond)
		quiet.end()

		busy := startLoad(t, others, 4, acked)
		passed(t, 300*time.Millisecond)
		killed := time.Now()
		victim.end(sigKill)
		passed(t, 2*time.Second)
		busy.end()

		quietP99, quietWrites := quiet.p99()
		busyP99, busyWrites := busy.p99()
		t.Logf("n%d killed: p99 %v of %d writes while all are up, %v of %d with it down (%.1f times); slowest %v; %d errors",
			i+1, quietP99, quietWrites, busyP99, busyWrites, float64(busyP99)/float64(quietP99), busy.slowest, len(busy.errs))
		if len(quiet.errs) > 0 {
			t.Errorf("errors while all nodes are up: %v", quiet.errs)
		}
		for _, e := range busy.errs {
			if late := e.at.Sub(killed); late > deadline {
				t.Errorf("n%d: an error %v after the kill: %v", i+1, late, e.err)
			}
		}
		// What the machine adds when it is busy with other things is not the
		// deadline's fault.
		if busy.slowest > deadline+time.Second {
			t.Errorf("n%d: a write took %v, the request deadline is %v", i+1, busy.slowest, deadline)
		}
		if busyWrites < 200 {
			t.Errorf("only %d writes: no load", busyWrites)
		}
		victim.start()
		for _, s := range servers {
			s.ready(3)
		}
		for _, s := range servers {
			s.holds(acked)
		}
	}
	servers[0].treesAreExact(3)
}

// holds reads every key, at the default consistency.
func (s *server) holds(acked map[string]string) {
	s.t.Helper()
	client, lost := s.redis(), 0
	for key, want := range acked {
		got, err := client.Get(s.t.Context(), key).Result()
		if err != nil || got != want {
			if lost++; lost < 5 {
				s.t.Errorf("%s: %s is %.20q (%v), acknowledged was %.20q", s.dir, key, got, err, want)
			}
		}
	}
	if lost > 0 {
		s.t.Errorf("%s lacks %d of %d acknowledged writes", s.dir, lost, len(acked))
	}
}

// TestDrain: a node that gets SIGTERM under load exits with 0 and has answered all
// that it was sent: nobody's write to it fails, so nothing becomes a hint for that
// reason. What is written after it has said goodbye is kept for it, and is all that
// it needs to be level again.
func TestDrain(t *testing.T) {
	servers := startServers(t, 3, "--shards", "16", "--repair-interval", "off", "--settle", "0s")
	n3 := servers[2]
	acked := make(map[string]string)
	l := startLoad(t, servers[:2], 8, acked)
	for range 3 {
		passed(t, 300*time.Millisecond)
		if status := n3.end(sigTerm); status != 0 {
			t.Errorf("exit status %d", status)
		}
		for _, s := range servers[:2] {
			st, err := s.status()
			if err != nil {
				t.Fatal(err)
			}
			if st.Counters.DeliveriesFailed != 0 {
				t.Errorf("%v: %d requests to a node that drained were not answered", st.Node, st.Counters.DeliveriesFailed)
			}
		}
		n3.start()
		for _, s := range servers {
			s.ready(3)
		}
	}
	l.end()
	if len(l.errs) > 0 {
		t.Errorf("clients of the other nodes saw errors: %v", l.errs[0].err)
	}
	eventually(t, "no hint is pending and no write on its way", func() bool {
		for _, s := range servers {
			if st, err := s.status(); err != nil || st.Counters.HintsPending+st.Counters.WritesInFlight > 0 {
				return false
			}
		}
		return true
	})
	for _, rep := range servers[0].repair() {
		if rep.KeysDiverged > 0 {
			t.Errorf("%v - %v: %d keys differ: a write was lost on the way", rep.Initiator, rep.Partner, rep.KeysDiverged)
		}
	}
}
