package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
)

// start is the true time at which every run begins.
var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// never is a moment after every run.
const never = time.Duration(math.MaxInt64)

// cluster is one run: three stores, the writes and reads of a month, and the
// outages of the nodes, in virtual time.
//
// Each cause of events draws from a generator of its own, and draws alike
// whatever the others do. So two runs of one seed with different intervals see
// the same history, and what differs between them is the interval.
type cluster struct {
	scenario
	interval time.Duration
	now      time.Duration // since start
	nodes    []*replica
	acked    []hlc.Stamp // of each key: the newest write that a quorum has
	stamp    hlc.Stamp   // the last one given out: clocks are perfect here
	sessions *sessions
	tally    *tally

	writes, losses, reads *rand.Rand
	outages               [replicas]*rand.Rand
	nextWrite, nextRead   time.Duration
	nextTurn              [replicas]time.Duration // a node goes away or comes back
}

func newCluster(s scenario, interval time.Duration, seed uint64) (*cluster, error) {
	stream := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
	c := &cluster{
		scenario: s, interval: interval, acked: make([]hlc.Stamp, s.Keys), tally: new(tally),
		writes: stream(1), losses: stream(2), reads: stream(3),
	}
	for i := range replicas {
		r, err := newReplica(hlc.NodeID(i+1), s)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, r)
		c.outages[i] = stream(10 + uint64(i))
		c.nextTurn[i] = exponential(c.outages[i], s.OutageEvery)
	}
	c.nextWrite = exponential(c.writes, perSecond(s.WritesPerSecond))
	c.nextRead = exponential(c.reads, perSecond(s.ReadsPerSecond))
	if err := c.load(); err != nil {
		return nil, err
	}
	c.sessions = newSessions(c, seed)
	return c, nil
}

// load gives every replica the same version of every key.
func (c *cluster) load() error {
	// A batch of this many is long enough that its overhead does not show.
	const batch = 2000
	for from := 0; from < c.Keys; from += batch {
		var entries []lww.Entry
		for key := from; key < min(from+batch, c.Keys); key++ {
			e := c.entry(key, c.nodes[0].id)
			entries = append(entries, e)
		}
		for _, r := range c.nodes {
			if err := c.apply(r, entries, byNewer); err != nil {
				return err
			}
		}
		for i, e := range entries {
			c.acknowledge(from+i, e.Stamp)
		}
	}
	return nil
}

// entry makes the next version of a key.
func (c *cluster) entry(key int, coordinator hlc.NodeID) lww.Entry {
	c.stamp = max(c.stamp+1, hlc.FromTime(start.Add(c.now)))
	value := make([]byte, c.ValueBytes)
	binary.BigEndian.PutUint64(value, uint64(c.stamp))
	return lww.Entry{Key: keyOf(key), Value: value, Version: lww.Version{Stamp: c.stamp, Node: coordinator}}
}

// run lives through the days, one event after the other.
func (c *cluster) run() error {
	end := time.Duration(c.Days) * 24 * time.Hour
	for {
		at, do := c.nextWrite, c.write
		if c.nextRead < at {
			at, do = c.nextRead, c.read
		}
		for i, turn := range c.nextTurn {
			if turn < at {
				at, do = turn, func() error { return c.turn(i) }
			}
		}
		if due := c.sessions.due(); due < at {
			at, do = due, c.sessions.run
		}
		if at >= end {
			c.advance(end)
			c.finish()
			return nil
		}
		c.advance(at)
		if err := do(); err != nil {
			return fmt.Errorf("after %v: %w", c.now, err)
		}
	}
}

// advance moves time on and adds up what is counted by its length.
func (c *cluster) advance(to time.Duration) {
	passed := to - c.now
	for _, r := range c.nodes {
		if r.up {
			r.served += passed
			c.tally.serving += passed.Seconds() * float64(c.Keys)
			c.tally.servingStale += passed.Seconds() * float64(r.stale)
		}
	}
	c.sessions.pass(passed)
	c.now = to
}

func (c *cluster) live() (up []*replica) {
	for _, r := range c.nodes {
		if r.up {
			up = append(up, r)
		}
	}
	return up
}

func (c *cluster) write() error {
	c.nextWrite = c.now + exponential(c.writes, perSecond(c.WritesPerSecond))
	key, who := c.pick(c.writes), c.writes.IntN(replicas)
	lost, loser := c.losses.Float64() < c.LostPerMillion/1e6, c.losses.IntN(replicas)
	up := c.live()
	if len(up) < quorum {
		c.tally.refused++
		return nil
	}
	if len(up) < replicas {
		lost = false // with the other replica down, the quorum needs this one
	}
	e := c.entry(key, up[who%len(up)].id)
	c.tally.writes++
	for i, r := range c.nodes {
		var err error
		switch {
		case !r.up:
			r.hints = append(r.hints, e)
		case lost && i == loser:
			r.missed(key, miss{whileUp, e.Stamp, c.now, r.served})
		default:
			err = c.apply(r, []lww.Entry{e}, byNewer)
		}
		if err != nil {
			return err
		}
	}
	c.acknowledge(key, e.Stamp)
	return nil
}

// turn takes a node away or brings it back. Back again, it gets the hints that
// are still in their window; what is older it has missed.
func (c *cluster) turn(i int) error {
	r, rand := c.nodes[i], c.outages[i]
	if r.up {
		r.up = false
		median := float64(c.OutageMedian)
		away := time.Duration(median * math.Exp(c.OutageSigma*rand.NormFloat64()))
		c.nextTurn[i] = c.now + min(away, outageMax)
		return nil
	}
	r.up = true
	c.nextTurn[i] = c.now + exponential(rand, c.OutageEvery)
	c.tally.outages++
	oldest := hlc.FromTime(start.Add(c.now - c.HintWindow))
	late := 0
	for late < len(r.hints) && r.hints[late].Stamp < oldest {
		e := r.hints[late]
		r.missed(numberOf(e.Key), miss{whileAway, e.Stamp, e.Stamp.Time().Sub(start), r.served})
		late++
	}
	if late > 0 {
		c.tally.longOutages++
	}
	c.tally.hinted += len(r.hints) - late
	hints := r.hints[late:]
	r.hints = nil
	c.sessions.returned()
	return c.apply(r, hints, byNewer)
}

// errStaleQuorum would mean that the study and the stores disagree on what a
// quorum is.
var errStaleQuorum = errors.New("a quorum read missed an acknowledged write")

// read asks one replica, or a quorum of them and repairs the older ones.
func (c *cluster) read() error {
	c.nextRead = c.now + exponential(c.reads, perSecond(c.ReadsPerSecond))
	key, atQuorum, who := c.pick(c.reads), c.reads.Float64() < c.QuorumShare, c.reads.IntN(6)
	up := c.live()
	if len(up) == 0 {
		return nil
	}
	a := up[who%len(up)]
	if !atQuorum {
		c.tally.readsOne++
		if a.held[key] < c.acked[key] {
			c.tally.readsStale++
		}
		return nil
	}
	if len(up) < quorum {
		return nil
	}
	// The other one is the next or the one before, as the coin fell.
	b := up[(who%len(up)+1+who/3%(len(up)-1))%len(up)]
	if a.held[key] < b.held[key] {
		a, b = b, a
	}
	if a.held[key] != c.acked[key] {
		return errStaleQuorum
	}
	if a.held[key] == b.held[key] {
		return nil
	}
	newer, _, err := a.store.Get(keyOf(key))
	if err != nil {
		return err
	}
	return c.apply(b, []lww.Entry{newer}, byReadRepair)
}

// finish closes what is still open, with the age that it has reached.
func (c *cluster) finish() {
	for _, r := range c.nodes {
		for _, key := range slices.Sorted(maps.Keys(r.misses)) {
			for _, m := range r.misses[key] {
				c.tally.healed(m.cause, byNothing, c.now-m.at, r.served-m.served)
			}
		}
	}
	c.sessions.finish()
}

// pick draws a key: the hot ones are the first.
func (c *cluster) pick(r *rand.Rand) int {
	hot := max(1, int(c.HotKeys*float64(c.Keys)))
	if r.Float64() < c.HotShare || hot == c.Keys {
		return r.IntN(hot)
	}
	return hot + r.IntN(c.Keys-hot)
}

func perSecond(rate float64) time.Duration {
	return time.Duration(float64(time.Second) / rate)
}

func exponential(r *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(r.ExpFloat64() * float64(mean))
}
