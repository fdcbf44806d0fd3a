package main

import (
	"slices"
	"time"

	"syntropy/antientropy"
)

// tally is what one run counts.
type tally struct {
	writes, refused  int
	hinted           int // deliveries that a hint made good
	outages          int
	longOutages      int // those that left misses
	missed           [causes]misses
	readsOne         int
	readsStale       int
	serving          float64 // key-seconds on replicas that were up
	servingStale     float64 // those of them in which the key was stale
	unprovenMax      proof   // in each field, over all pairs
	quiet, repairing traffic
}

// misses are the missed writes of one cause.
type misses struct {
	healedBy [healers]int
	age      []time.Duration // of each: from the write until the replica has it
	exposed  []time.Duration // of each: the part of it in which the replica was up
}

// traffic is that of some sessions.
type traffic struct {
	sessions, rounds, entries int
	bytes                     int64 // both ways
}

func (t *traffic) add(r antientropy.Report) {
	t.sessions++
	t.rounds += r.Rounds
	t.entries += r.Pulled + r.Pushed
	t.bytes += r.BytesSent + r.BytesReceived
}

func (t *tally) session(r antientropy.Report) {
	if r.Diverged == 0 {
		t.quiet.add(r)
	} else {
		t.repairing.add(r)
	}
}

func (t *tally) healed(c cause, by healer, age, exposed time.Duration) {
	m := &t.missed[c]
	m.healedBy[by]++
	m.age = append(m.age, age)
	m.exposed = append(m.exposed, exposed)
}

func (t *tally) unproven(p proof) {
	t.unprovenMax = proof{max(t.unprovenMax.age, p.age), max(t.unprovenMax.together, p.together)}
}

// quantile returns the value below which a share q of all lie; 0 for none.
func quantile[T ~int | ~int64 | ~float64](values []T, q float64) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
