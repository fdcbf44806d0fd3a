package antientropy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"syntropy/hlc"
)

// The world of the schedule's simulation: nodes that begin one session at a time
// and take part in one more, and time in steps.
const (
	simInterval   = time.Hour
	simStep       = 2 * time.Second
	simSettle     = 10 * time.Second
	simSessionMax = 36 * time.Second // a hundredth of the interval
)

type simNode struct {
	up       bool
	schedule *Schedule
	wake     time.Time // when it asks its schedule again
	begun    *simSession
	serves   bool
}

type simSession struct {
	from, to  hlc.NodeID
	at, until time.Time
	broken    bool
}

type simPair struct {
	reachable time.Time // since when; zero: is not
	proven    time.Time // beginning of the last completed session
}

type simFaults struct {
	down    float64 // chance of a node that is up to go down, per interval
	outage  time.Duration
	failing float64 // of sessions
}

type simWorld struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	nodes  []simNode // by id, from 1
	pairs  map[[2]hlc.NodeID]*simPair
	begins []time.Time
	byHigh int        // sessions begun by the other side
	mute   hlc.NodeID // never begins one
}

func newSimWorld(t *testing.T, nodes int, seed uint64) *simWorld {
	w := &simWorld{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), now: noon,
		nodes: make([]simNode, nodes+1), pairs: make(map[[2]hlc.NodeID]*simPair),
	}
	for i := range w.ids() {
		for j := range i - 1 {
			w.pairs[[2]hlc.NodeID{j + 1, i}] = &simPair{}
		}
	}
	for id := range w.ids() {
		w.start(id)
	}
	return w
}

func (w *simWorld) ids() func(func(hlc.NodeID) bool) {
	return func(yield func(hlc.NodeID) bool) {
		for id := 1; id < len(w.nodes) && yield(hlc.NodeID(id)); id++ {
		}
	}
}

func (w *simWorld) upTo(d time.Duration) time.Duration {
	return 1 + time.Duration(w.rng.Int64N(int64(d)))
}

func (w *simWorld) pair(a, b hlc.NodeID) *simPair {
	return w.pairs[[2]hlc.NodeID{min(a, b), max(a, b)}]
}

// start starts a node, which knows its proofs from before.
func (w *simWorld) start(id hlc.NodeID) {
	s := NewSchedule(id, ScheduleOptions{Interval: simInterval, Settle: simSettle, Seed: w.rng.Uint64()})
	var partners []hlc.NodeID
	for other := range w.ids() {
		if other != id {
			partners = append(partners, other)
		}
	}
	s.SetPartners(partners)
	for _, other := range partners {
		if p := w.pair(id, other); !p.proven.IsZero() {
			s.Proven(other, p.proven.Add(-simSettle))
		}
	}
	w.nodes[id] = simNode{up: true, schedule: s, wake: w.now}
	for _, other := range partners {
		if w.nodes[other].up {
			w.pair(id, other).reachable = w.now
			w.nodes[other].wake = w.now
		}
	}
}

func (w *simWorld) stop(id hlc.NodeID) {
	w.nodes[id].up = false
	for other := range w.ids() {
		if other == id {
			continue
		}
		w.pair(id, other).reachable = time.Time{}
		if s := w.nodes[other].begun; s != nil && s.to == id {
			s.broken = true
		}
	}
	if s := w.nodes[id].begun; s != nil && !s.broken {
		w.nodes[s.to].serves = false
	}
	w.nodes[id] = simNode{}
}

func (w *simWorld) step(failing float64) {
	for id := range w.ids() {
		n := &w.nodes[id]
		if s := n.begun; n.up && s != nil && (s.broken || !s.until.After(w.now)) {
			n.begun, n.wake = nil, w.now
			if !s.broken {
				w.nodes[s.to].serves = false
			}
			if s.broken || w.rng.Float64() < failing {
				n.schedule.Failed(s.to, w.now)
			} else {
				w.pair(id, s.to).proven = s.at
				n.schedule.Proven(s.to, s.at.Add(-simSettle))
				w.nodes[s.to].schedule.Proven(id, s.at.Add(-simSettle))
			}
		}
		if !n.up || n.begun != nil || n.wake.After(w.now) || id == w.mute {
			continue
		}
		to, wait, ok := n.schedule.Next(w.now, func(other hlc.NodeID) bool { return w.nodes[other].up })
		n.wake = w.now.Add(wait)
		switch {
		case !ok || wait > 0:
		case w.nodes[to].serves:
			n.schedule.Failed(to, w.now) // it is busy
		default:
			n.begun = &simSession{from: id, to: to, at: w.now, until: w.now.Add(w.upTo(simSessionMax))}
			w.nodes[to].serves = true
			w.begins = append(w.begins, w.now)
			if id > to {
				w.byHigh++
			}
		}
	}
}

// check looks at every pair that can be reached: its proof is not older than the
// interval, but for a quarter of one after the pair came back.
func (w *simWorld) check() {
	for ids, p := range w.pairs {
		if p.reachable.IsZero() || w.now.Sub(p.reachable) < simInterval/4 {
			continue
		}
		if age := w.now.Sub(p.proven); age > simInterval+simSessionMax {
			w.t.Fatalf("%v: the pair %v is reachable for %v, and its proof is %v old", w.now, ids, w.now.Sub(p.reachable), age)
		}
	}
}

func (w *simWorld) run(intervals int, f simFaults) {
	back := make(map[hlc.NodeID]time.Time)
	for end := w.now.Add(time.Duration(intervals) * simInterval); w.now.Before(end); w.now = w.now.Add(simStep) {
		for id := range w.ids() {
			switch n := w.nodes[id]; {
			case n.up && w.rng.Float64() < f.down*float64(simStep)/float64(simInterval):
				w.stop(id)
				back[id] = w.now.Add(w.upTo(f.outage))
			case !n.up && !back[id].After(w.now):
				w.start(id)
			}
		}
		w.step(f.failing)
		w.check()
	}
}

// crowd returns the largest share of the pairs that began a session within two
// hundredths of an interval, from a moment on.
func (w *simWorld) crowd(from time.Time) float64 {
	most, first := 0, 0
	for i, at := range w.begins {
		for w.begins[first].Before(from) && first < i || at.Sub(w.begins[first]) > simInterval/50 {
			first++
		}
		if !at.Before(from) {
			most = max(most, i-first+1)
		}
	}
	return float64(most) / float64(len(w.pairs))
}

// TestEveryPairIsProvenWithinEachInterval: on a hundred quiet intervals, each
// pair has little more than one session an interval, nearly all of them begun by
// its first side, and they are spread out, also right after all of them had been
// due at once.
func TestEveryPairIsProvenWithinEachInterval(t *testing.T) {
	for nodes := 3; nodes <= 7; nodes++ {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			w := newSimWorld(t, nodes, uint64(nodes))
			const intervals = 100
			w.run(intervals, simFaults{})
			perPair := float64(len(w.begins)) / float64(len(w.pairs)*intervals)
			high := float64(w.byHigh) / float64(len(w.begins))
			crowd := w.crowd(noon.Add(simInterval / 10))
			t.Logf("%.2f sessions a pair and interval, %.3f of them by the other side, at most %.2f of the pairs at a time", perPair, high, crowd)
			if perPair < 1 || perPair > 1.4 {
				t.Errorf("%.2f sessions a pair and interval", perPair)
			}
			if high > 0.01 {
				t.Errorf("%.3f of the sessions were begun by the other side", high)
			}
			if len(w.pairs) >= 10 && crowd > 0.5 {
				t.Errorf("%.2f of all pairs began within a fiftieth of an interval", crowd)
			}
		})
	}
}

// TestSchedulesWithFaults: nodes go down for up to three intervals and sessions
// fail. What can be reached is proven all the same, and an outage of all nodes
// does not leave them in step.
func TestSchedulesWithFaults(t *testing.T) {
	for nodes := 3; nodes <= 7; nodes++ {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			w := newSimWorld(t, nodes, uint64(100+nodes))
			const intervals = 100
			w.run(intervals, simFaults{down: 0.1, outage: 3 * simInterval, failing: 0.1})
			perPair := float64(len(w.begins)) / float64(len(w.pairs)*intervals)
			t.Logf("%.2f sessions a pair and interval, %d by the other side", perPair, w.byHigh)
			if perPair > 1.7 {
				t.Errorf("%.2f sessions a pair and interval", perPair)
			}
			for id := range w.ids() {
				if w.nodes[id].up {
					w.stop(id)
				}
			}
			w.now = w.now.Add(2 * simInterval)
			for id := range w.ids() {
				w.start(id)
			}
			back := w.now
			w.run(5, simFaults{})
			if crowd := w.crowd(back.Add(simInterval / 10)); len(w.pairs) >= 10 && crowd > 0.5 {
				t.Errorf("after an outage %.2f of all pairs began within a fiftieth of an interval", crowd)
			}
		})
	}
}

// TestTheOtherSideStepsIn: a node that takes part in sessions and never begins
// one, with the lowest id, is proven with everybody within each interval.
func TestTheOtherSideStepsIn(t *testing.T) {
	w := newSimWorld(t, 5, 1)
	w.mute = 1
	w.run(20, simFaults{failing: 0.1})
	if w.byHigh < 4*20 {
		t.Errorf("only %d sessions were begun by the other side", w.byHigh)
	}
}
