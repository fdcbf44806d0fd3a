package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syntropy/report"
)

var (
	chaosSeed  = flag.Uint64("chaos.seed", 0, "run the chaos tests with this seed; 0: with a few fixed ones")
	chaosOnly  = flag.String("chaos.only", "", "make only the fault of this name")
	chaosFlags = flag.String("chaos.flags", "", "more flags for the nodes of the chaos tests")
	chaosTime  = flag.Duration("chaos.time", 5*time.Second, "how long each chaos test makes faults")
)

// TestChaos (I1, I2, I3, I6): clients on all nodes write, delete, expire and read
// while nodes are killed, stopped, frozen and lose their disks, one after the other
// and several at once. See history_test.go for what is checked meanwhile.
func TestChaos(t *testing.T) {
	for _, tc := range []struct {
		name  string
		nodes int
		seed  uint64
		flags []string
	}{
		{"three", 3, 1, []string{"--repair-interval", "2s"}},
		{"three without a schedule", 3, 2, []string{"--repair-interval", "off"}},
		{"five", 5, 3, []string{"--replicas", "3", "--repair-interval", "2s"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if *chaosSeed != 0 {
				tc.seed = *chaosSeed
			}
			t.Logf("seed %d", tc.seed)
			w := &chaos{t: t, rng: rand.New(rand.NewPCG(tc.seed, 0)), outages: make([][]outage, tc.nodes)}
			w.servers = startServers(t, tc.nodes, append([]string{"--settle", "200ms", "--request-deadline", deadline.String(),
				"--hint-window", "10s", "--shards", "16"}, append(tc.flags, strings.Fields(*chaosFlags)...)...)...)
			w.run(tc.seed)
		})
	}
}

// chaos makes faults and knows which nodes were well at what time.
type chaos struct {
	t       *testing.T
	rng     *rand.Rand
	servers []*server
	began   time.Time

	mu      sync.Mutex
	outages [][]outage // per node, in the order of time
	faults  []string   // violations, as they were found
	count   atomic.Int64
	slowest atomic.Int64 // nanoseconds, of clients of nodes that were well
	errs    atomic.Int64 // that clients of nodes that were well got
}

// outage is a time in which a node was not well; to is zero while it lasts.
type outage struct{ from, to time.Time }

func (w *chaos) run(seed uint64) {
	t := w.t
	w.began = time.Now()
	ops := w.clients(seed)
	for end := time.Now().Add(*chaosTime); time.Now().Before(end) && w.healthy(); {
		passed(t, time.Duration(200+w.rng.IntN(1300))*time.Millisecond)
		w.episode()
	}
	passed(t, time.Second)
	t.Logf("%d requests; to nodes that were well, %d errors, and the slowest took %v", w.count.Load(), w.errs.Load(), time.Duration(w.slowest.Load()))
	ops.end()
	w.report()
	w.quiesce(ops)
	w.report()
}

// healthy reports whether nothing wrong was found until now.
func (w *chaos) healthy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.faults) == 0
}

func (w *chaos) report() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, f := range w.faults {
		if i < 20 {
			w.t.Error(f)
		}
	}
	if n := len(w.faults); n > 0 {
		w.t.Fatalf("%d violations", n)
	}
}

// wrong notes a violation; clients call it.
func (w *chaos) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf("%8.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

// out notes that nodes are not well from now on.
func (w *chaos) out(nodes []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range nodes {
		if o := w.outages[n]; len(o) == 0 || !o[len(o)-1].to.IsZero() {
			w.outages[n] = append(o, outage{from: time.Now()})
		}
	}
}

// well waits until every node sees every node live.
func (w *chaos) well() {
	for _, s := range w.servers {
		eventually(w.t, filepath.Base(s.dir)+" sees all nodes live", func() bool {
			select {
			case <-s.exited:
				w.t.Fatalf("%s ended by itself: %s", s.dir, s.stderr)
			default:
			}
			st, err := s.ask()
			live := 0
			for _, n := range st.Nodes {
				if n.Up && n.State == report.StateLive {
					live++
				}
			}
			return err == nil && live == len(w.servers)
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.outages {
		if n := len(o); n > 0 && o[n-1].to.IsZero() {
			o[n-1].to = time.Now()
		}
	}
}

// ask is status without another process, for those who ask all the time.
func (s *server) ask() (st report.Status, err error) {
	client := http.Client{Timeout: 2 * time.Second}
	answer, err := client.Get("http://" + s.admin + "/v1/status")
	if err != nil {
		return st, err
	}
	defer answer.Body.Close()
	return st, json.NewDecoder(answer.Body).Decode(&st)
}

// touches reports whether an outage touches the time between a and b.
func (o outage) touches(a, b time.Time) bool {
	return !o.from.After(b) && (o.to.IsZero() || !o.to.Before(a))
}

// wasWell reports whether a node was well all the time between a and b.
func (w *chaos) wasWell(node int, a, b time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.outages[node] {
		if o.touches(a, b) {
			return false
		}
	}
	return true
}

// wasCalm reports whether at most one node was not well between a and b, and
// nothing about that changed.
func (w *chaos) wasCalm(a, b time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	bad := 0
	for _, os := range w.outages {
		for _, o := range os {
			if o.touches(a, b) {
				bad++
				if o.from.After(a) || !o.to.IsZero() && o.to.Before(b) {
					return false
				}
			}
		}
	}
	return bad <= 1
}

// isOut reports whether a node is not well, or was not until a moment ago.
func (w *chaos) isOut(node int, moment time.Duration) bool {
	now := time.Now()
	return !w.wasWell(node, now.Add(-moment), now)
}

// quiesce checks what must hold once nobody writes and all nodes are up.
func (w *chaos) quiesce(ops *clients) {
	t := w.t
	ops.check("before a repair")
	eventually(t, "no hint is pending and no write on its way", func() bool {
		for _, s := range w.servers {
			if st, err := s.ask(); err != nil || st.Counters.HintsPending+st.Counters.WritesInFlight > 0 {
				return false
			}
		}
		return true
	})
	passed(t, 300*time.Millisecond) // the settle window
	w.servers[w.rng.IntN(len(w.servers))].equal()
	w.servers[0].treesAreExact(3)
	ops.check("after a repair")
	w.idle()
	ops.scan()
	w.report()
	for _, s := range w.servers {
		if code := s.end(sigTerm); code != 0 {
			t.Errorf("%s: exit status %d after SIGTERM", s.dir, code)
		}
	}
}

// idleTicksMax is 5% of a core over three seconds, in ticks of 10 ms.
const idleTicksMax = 15

// memoryMax is far more than these few hundred keys need, and far less than what
// unbounded queues would take in this time.
const memoryMax = 400 << 20

// idle checks that no process works when there is nothing to do, or has become large.
func (w *chaos) idle() {
	before := make([]int, len(w.servers))
	for i, s := range w.servers {
		before[i] = s.ticks()
	}
	passed(w.t, 3*time.Second)
	for i, s := range w.servers {
		ticks, bytes := s.ticks()-before[i], s.resident()
		w.t.Logf("%s: %d ticks in 3 s of idleness, %d MiB resident", filepath.Base(s.dir), ticks, bytes>>20)
		if ticks > idleTicksMax {
			w.t.Errorf("%s used %d ticks of 10 ms in 3 s with nothing to do", s.dir, ticks)
		}
		if bytes > memoryMax {
			w.t.Errorf("%s has %d MiB in memory", s.dir, bytes>>20)
		}
	}
}

// ticks returns the processor time that the process has used.
func (s *server) ticks() int {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatalf("the processor time of a process is read from /proc: %v", err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // the name may hold spaces
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return user + system
}

// resident returns the bytes of memory that the process has at this moment.
func (s *server) resident() int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	pages, _ := strconv.Atoi(strings.Fields(string(raw) + " 0 0")[1])
	return pages * os.Getpagesize()
}
