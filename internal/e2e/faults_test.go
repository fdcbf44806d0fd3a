package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// fault is something that happens to nodes: to the first of order, or to the first
// few. It leaves all processes running; pause is some time up to three seconds.
type fault struct {
	name   string
	weight int
	make   func(w *chaos, order []int, pause time.Duration)
}

var faults = []fault{
	{"kill", 3, func(w *chaos, order []int, pause time.Duration) { w.restart(sigKill, order[:1], pause) }},
	{"stop", 2, func(w *chaos, order []int, pause time.Duration) { w.restart(sigTerm, order[:1], pause) }},
	{"kill two", 2, func(w *chaos, order []int, pause time.Duration) { w.restart(sigKill, order[:2], pause) }},
	{"kill all", 2, func(w *chaos, order []int, pause time.Duration) { w.restart(sigKill, order, pause/4) }},
	{"stop all", 1, func(w *chaos, order []int, pause time.Duration) { w.restart(sigTerm, order, pause/4) }},
	{"freeze", 3, func(w *chaos, order []int, pause time.Duration) { w.freeze(order[:1], 500*time.Millisecond+2*pause) }},
	{"freeze two", 1, func(w *chaos, order []int, pause time.Duration) { w.freeze(order[:2], 500*time.Millisecond+pause) }},
	{"kill one, freeze one", 1, func(w *chaos, order []int, pause time.Duration) {
		w.down(sigKill, order[:1])
		w.freeze(order[1:2], 500*time.Millisecond+pause)
		w.up(order[:1])
	}},
	{"stumble", 1, func(w *chaos, order []int, pause time.Duration) { // too short for the others to give it up
		for i := range 6 {
			n := i % len(order)
			w.freeze(order[n:n+1], 50*time.Millisecond+w.some(1500*time.Millisecond))
			passed(w.t, w.some(200*time.Millisecond))
		}
	}},
	{"kill while it starts", 2, func(w *chaos, order []int, pause time.Duration) {
		for range 4 {
			w.restart(sigKill, order[:1], 0)
			passed(w.t, w.some(250*time.Millisecond))
		}
	}},
	{"freeze one, stop and start another", 2, func(w *chaos, order []int, pause time.Duration) {
		w.signal(syscall.SIGSTOP, order[:1]) // it reads the goodbye after the return
		w.restart(sigTerm, order[1:2], 0)
		passed(w.t, pause/2)
		w.signal(syscall.SIGCONT, order[:1])
	}},
	{"replace the disk", 2, func(w *chaos, order []int, pause time.Duration) {
		w.replace(order[0], pause)
	}},
	{"replace the disk, kill another meanwhile", 1, func(w *chaos, order []int, pause time.Duration) {
		w.replace(order[0], pause)
		w.restart(sigKill, order[1:2], pause/4)
	}},
	{"replace the disk, freeze another meanwhile", 1, func(w *chaos, order []int, pause time.Duration) {
		w.replace(order[0], 0)
		w.freeze(order[1:2], pause)
	}},
	{"replace the disk, kill all meanwhile", 1, func(w *chaos, order []int, pause time.Duration) {
		w.replace(order[0], 0)
		passed(w.t, w.some(300*time.Millisecond))
		w.restart(sigKill, order, 0)
	}},
}

// choose returns one of the faults, by weight; only, if it is not empty, names the
// one that there is to be.
func choose(rng *rand.Rand, only string) fault {
	var urn []fault
	for _, f := range faults {
		for range f.weight {
			if only == "" || only == f.name {
				urn = append(urn, f)
			}
		}
	}
	return urn[rng.IntN(len(urn))]
}

// episode makes one fault and waits until all is well again.
func (w *chaos) episode() {
	order, pause, f := w.rng.Perm(len(w.servers)), w.some(3*time.Second), choose(w.rng, *chaosOnly)
	names := make([]string, len(order))
	for i, n := range order {
		names[i] = filepath.Base(w.servers[n].dir)
	}
	began := time.Now()
	f.make(w, order, pause)
	ended := time.Now()
	w.well()
	w.t.Logf("%8.3fs %s: %s (%v); all well %v later", began.Sub(w.began).Seconds(), f.name, strings.Join(names, " "),
		ended.Sub(began).Round(time.Millisecond), time.Since(ended).Round(time.Millisecond))
}

// some returns a random time below d.
func (w *chaos) some(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }

func (w *chaos) restart(sig syscall.Signal, nodes []int, pause time.Duration) {
	w.down(sig, nodes)
	passed(w.t, pause)
	w.up(nodes)
}

func (w *chaos) replace(node int, pause time.Duration) {
	w.down(sigKill, []int{node})
	if err := os.RemoveAll(w.servers[node].dir); err != nil {
		w.t.Fatal(err)
	}
	passed(w.t, pause)
	w.up([]int{node})
}

// down ends processes, all at once.
func (w *chaos) down(sig syscall.Signal, nodes []int) {
	w.signal(sig, nodes)
	for _, n := range nodes {
		s := w.servers[n]
		select {
		case <-s.exited:
		case <-time.After(testDeadline):
			w.t.Fatalf("%s does not end", s.dir)
		}
		if code := s.cmd.ProcessState.ExitCode(); sig == sigTerm && code != 0 {
			w.wrong("%s: exit status %d after SIGTERM", s.dir, code)
		}
	}
}

func (w *chaos) up(nodes []int) {
	for _, n := range nodes {
		w.servers[n].start()
	}
}

func (w *chaos) freeze(nodes []int, d time.Duration) {
	w.signal(syscall.SIGSTOP, nodes)
	passed(w.t, d)
	w.signal(syscall.SIGCONT, nodes)
}

// signal sends a signal to processes, which are not well from now on.
func (w *chaos) signal(sig syscall.Signal, nodes []int) {
	w.out(nodes)
	for _, n := range nodes {
		if err := w.servers[n].cmd.Process.Signal(sig); err != nil {
			w.t.Fatal(err)
		}
	}
}
