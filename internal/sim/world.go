package sim

import (
	"container/heap"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"time"

	"syntropy/hlc"
)

// start is the true time at which every run begins.
var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// Times of the simulated cluster. Only their order matters: delays below the
// settle window below the session timeout, outages on both sides of the hint
// window, and a skew well within the bound.
const (
	clockBound     = 500 * time.Millisecond
	clockLease     = 200 * time.Millisecond
	skewMax        = 100 * time.Millisecond
	setBackMax     = 2 * time.Second // a clock that somebody set wrong
	settle         = 1 * time.Second
	sessionTimeout = 2 * time.Second
	deadline       = 1 * time.Second // of a client's request
	hintWindow     = 2 * time.Second
	// detection is how long the others take at most to notice that a node went
	// away or came back.
	detection = 300 * time.Millisecond
	// eventsMax ends a run that feeds itself. A run of 500 operations takes
	// some 10,000 events.
	eventsMax = 2_000_000
)

// world is one run: the queue of events, the network, the nodes, the oracle.
type world struct {
	opts   Options
	rand   *rand.Rand
	now    time.Duration // since start
	queue  eventQueue
	seq    int // order of events at one moment
	calm   bool
	nodes  []*node
	oracle *oracle

	sessions  int // ids given out
	values    int // written
	hash      hash.Hash64
	trace     []string
	result    Result
	violation error
}

func (w *world) run() {
	for i := range w.opts.Nodes {
		n := &node{world: w, id: hlc.NodeID(i + 1), skew: w.between(-skewMax, skewMax)}
		n.create()
		w.nodes = append(w.nodes, n)
	}
	w.clients(w.opts.Ops)
	w.drain()
	w.settle()
}

// clients schedules the operations one after the other.
func (w *world) clients(left int) {
	if left == 0 {
		return
	}
	w.after(w.between(time.Millisecond, 150*time.Millisecond), func() {
		w.operation()
		w.clients(left - 1)
	})
}

func (w *world) operation() {
	n := w.door()
	key := fmt.Sprintf("key-%02d", w.rand.IntN(w.opts.Keys))
	switch p := w.rand.Float64(); {
	case p < w.opts.CrashRate:
		n.crash()
	case p < w.opts.CrashRate+0.12:
		w.beginSession(n, w.other(n))
	case p < w.opts.CrashRate+0.16:
		w.twins(key)
	case p < w.opts.CrashRate+0.40:
		w.race(key)
	case p < w.opts.CrashRate+0.60:
		n.look(key)
	default:
		n.change(key)
	}
}

// race lets clients of two nodes change a key at nearly the same time, which is
// when one is stamped above the other on the way.
func (w *world) race(key string) {
	n := w.door()
	other := w.other(n)
	n.change(key)
	w.after(w.between(0, 100*time.Millisecond), func() { other.change(key) })
}

// door picks the node that a client turns to: one that is down is left for
// another, once.
func (w *world) door() *node {
	n := w.nodes[w.rand.IntN(len(w.nodes))]
	if !n.up {
		n = w.other(n)
	}
	return n
}

func (w *world) other(n *node) *node {
	i := w.rand.IntN(len(w.nodes) - 1)
	if w.nodes[i] == n {
		i = len(w.nodes) - 1
	}
	return w.nodes[i]
}

// settle ends all failures, waits until nothing is in flight, and lets the
// replicas repair each other until no session finds a difference.
func (w *world) settle() {
	w.calm = true
	for _, n := range w.nodes {
		n.skew = 0
		if !n.up {
			n.restart()
		}
	}
	w.after(10*time.Second, func() {})
	w.drain()
	for pass := 1; ; pass++ {
		if w.violation != nil {
			return
		}
		// The first pass may bring to one node what an earlier pair still
		// lacked; the second spreads it.
		if pass > 3 {
			w.fail("I3: three rounds of sessions between all pairs did not make the replicas equal")
			return
		}
		if quiet := w.allPairs(); quiet {
			break
		}
	}
	w.checkEnd()
}

// allPairs runs a session between each two nodes, and reports whether all of
// them found nothing to do.
func (w *world) allPairs() (quiet bool) {
	quiet = true
	for i, a := range w.nodes {
		for _, b := range w.nodes[i+1:] {
			s := w.beginSession(a, b)
			w.drain()
			if w.violation != nil {
				return false
			}
			if s == nil || !s.over || s.err != nil || !s.init.Report().Complete {
				w.fail("I3: a session of n%d and n%d is not complete though nothing fails any more", a.id, b.id)
				return false
			}
			quiet = quiet && s.init.Report().Rounds == 1
		}
	}
	return quiet
}

// ---- events

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + d, w.seq, do})
}

// drain runs events until none is left or a check fails.
func (w *world) drain() {
	for len(w.queue) > 0 && w.violation == nil {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
		if w.result.Events++; w.result.Events > eventsMax {
			w.fail("I6: the run does not end")
		}
	}
}

// between draws a duration in [lo, hi).
func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rand.Int64N(int64(hi-lo)))
}

func (w *world) chance(p float64) bool { return w.rand.Float64() < p }

// send carries something to a node: late, twice or never, and never to a node
// that is down when it arrives.
func (w *world) send(to *node, what string, deliver func()) {
	copies := 1
	if !w.calm {
		if w.chance(w.opts.Loss) {
			w.result.Lost++
			w.log("lost on its way to n%d: %s", to.id, what)
			return
		}
		if w.chance(w.opts.Dup) {
			w.result.Duplicated++
			copies = 2
		}
	}
	for range copies {
		delay := w.between(time.Millisecond, 50*time.Millisecond)
		if !w.calm && w.chance(0.1) {
			delay = w.between(50*time.Millisecond, 1500*time.Millisecond) // overtaken by many
		}
		w.after(delay, func() {
			if to.up {
				w.log("n%d receives %s", to.id, what)
				deliver()
			}
		})
	}
}

// ---- trace

// log notes an event: in the hash of the run and in the trace of the last ones.
func (w *world) log(format string, args ...any) {
	line := fmt.Sprintf("%9.3fs ", w.now.Seconds()) + fmt.Sprintf(format, args...)
	io.WriteString(w.hash, line)
	if len(w.trace) == w.opts.TraceLen {
		w.trace = append(w.trace[:0], w.trace[1:]...)
	}
	w.trace = append(w.trace, line)
}

// fail notes the first violation and so ends the run.
func (w *world) fail(format string, args ...any) {
	if w.violation == nil {
		w.violation = fmt.Errorf(format, args...)
		w.log("VIOLATION %v", w.violation)
	}
}
