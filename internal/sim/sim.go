// Package sim runs the pure packages of Syntropy, clock, store, coordinator, hints
// and anti-entropy,
// as a small cluster in virtual time: one goroutine, one seed, every failure it
// can think of, and checks that know no excuse.
//
// # Problem
//
// The states in which replicated stores lose data need a crash, a clock set back
// and a message that arrives a second late, in one particular order. Nobody
// writes a test for an order that nobody thought of, and on real machines it
// happens once and cannot be repeated.
//
// # Idea
//
// Everything that happens is an event in a heap ordered by virtual time: client
// operations, messages that arrive, timeouts, crashes, restarts. All choices
// come from one seeded generator. The same seed is the same run, event by event,
// so a failure found once is found again, with more printing:
//
//	r := sim.Run(sim.Options{Seed: 7, Loss: 0.1, CrashRate: 0.05})
//	if r.Err != nil {
//		fmt.Println(r.Err) // names the seed and prints the last events
//	}
//
// Messages are lost, duplicated, and overtake each other; nodes lose what they
// had not made durable, and their wall clocks change while they are down;
// applying what a session brought may fail. Clients write and read at a quorum,
// through any node; what a replica missed is kept as a hint, found by a read, or
// found by a session. In the end all that stops, sessions
// run until nothing differs, and the replicas must hold, byte for byte, what an
// oracle that saw every acknowledged write says.
//
// # Caveats
//
// A check is worth what it catches: each [Bug] is a mistake that a real system
// made, planted by wrapping the product and never by changing it, and tests show
// that the checks find every one.
//
// Every node holds every key. Topology, and the schedule by which sessions
// begin, are not simulated.
package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"time"
)

// Options describe a run. The zero value is a calm one of 500 operations.
type Options struct {
	Seed   uint64
	Ops    int // client operations, crashes and sessions begun; 0: 500
	Nodes  int // 0: 3
	Shards int // a power of two; 0: 4
	Keys   int // 0: 30. Few keys make conflicts common.

	Loss      float64 // share of messages that never arrive
	Dup       float64 // share of messages that arrive twice
	CrashRate float64 // share of operations that crash a node
	ApplyFail float64 // share of session batches that a replica fails to apply

	Bug Bug // planted mistake; zero: none
	// TraceLen is how many of the last events an error prints. 0: 60.
	TraceLen int
}

// Harsh returns the options under which the product is tested.
func Harsh(seed uint64) Options {
	return Options{Seed: seed, Loss: 0.1, Dup: 0.1, CrashRate: 0.04, ApplyFail: 0.05}
}

func (o Options) withDefaults() Options {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.Ops, 500)
	def(&o.Nodes, 3)
	def(&o.Shards, 4)
	def(&o.Keys, 30)
	def(&o.TraceLen, 60)
	return o
}

// Result says what happened in a run.
type Result struct {
	Seed   uint64
	Hash   uint64 // of every event: equal for equal runs
	Events int
	Time   time.Duration // virtual

	Acked      int // writes of a key that were acknowledged
	Refused    int // those that were not: too few live nodes, a clock out of bounds
	Unknown    int // those of them that may have been written
	Superseded int // touches of a value that was replaced meanwhile
	Reads      int // that were answered
	Repaired   int // entries that a read brought to a replica
	Hinted     int // entries kept for a replica
	Replayed   int // entries taken over by it
	Lost       int // messages
	Duplicated int
	Crashes    int
	Sessions   int // begun
	Completed  int
	Pulled     int
	Pushed     int

	Err error // the first check that failed
}

// Run simulates until a check fails or all of them have passed.
func Run(opts Options) Result {
	opts = opts.withDefaults()
	w := &world{
		opts: opts,
		// The second word only separates this stream from others of the seed.
		rand:   rand.New(rand.NewPCG(opts.Seed, 0x53796e74726f7079)),
		hash:   fnv.New64a(),
		oracle: newOracle(),
	}
	w.run()
	r := w.result
	r.Seed, r.Time, r.Hash = opts.Seed, w.now, w.hash.Sum64()
	if w.violation != nil {
		r.Err = fmt.Errorf("sim: seed %d: %w\nthe last events:\n%s", opts.Seed, w.violation, strings.Join(w.trace, "\n"))
	}
	return r
}
