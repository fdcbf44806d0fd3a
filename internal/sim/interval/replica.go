package main

import (
	"fmt"
	"strconv"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/memstore"
)

var secret = [32]byte{'i', 'n', 't', 'e', 'r', 'v', 'a', 'l'}

// healer says by what a replica came to hold a write that it had missed.
type healer int

const (
	byNewer       healer = iota // a newer write of the key, or the hint of one
	byReadRepair                // a quorum read
	byAntiEntropy               // a session
	byNothing                   // the run ended first
	healers
)

// cause says why a replica missed a write.
type cause int

const (
	// whileUp: the replica was there, but the message and its hint were lost.
	whileUp cause = iota
	// whileAway: the replica was away for longer than hints live.
	whileAway
	causes
)

// miss is an acknowledged write that a replica did not get and for which no hint
// will come.
type miss struct {
	cause  cause
	stamp  hlc.Stamp
	at     time.Duration // when it was written
	served time.Duration // for how long the replica had been up by then
}

// replica is one node: a real store, and beside it what the study knows about it.
type replica struct {
	id    hlc.NodeID
	store *storage.Store
	up    bool
	// held is the stamp of the version that the store holds of each key. It
	// must be what the store says, and each session checks that it is.
	held   []hlc.Stamp
	stale  int // keys of which a newer version was acknowledged
	misses map[int][]miss
	hints  []lww.Entry // kept by the others for this replica while it is down
	served time.Duration
}

func newReplica(id hlc.NodeID, s scenario) (*replica, error) {
	// Nothing crashes here in the sense of losing what it had; an outage takes
	// a node away and brings it back with its disk.
	store, err := storage.Open(memstore.New(), storage.Options{Shards: s.Shards, Secret: secret, NoSync: true})
	if err != nil {
		return nil, err
	}
	return &replica{
		id: id, store: store, up: true,
		held: make([]hlc.Stamp, s.Keys), misses: make(map[int][]miss),
	}, nil
}

// Keys are numbers, so that the study keeps what it knows in slices.
func keyOf(number int) []byte { return fmt.Appendf(nil, "key-%012d", number) }

func numberOf(key []byte) int {
	n, err := strconv.Atoi(string(key[len("key-"):]))
	if err != nil {
		panic(fmt.Sprintf("interval: %q is not a key of this study", key))
	}
	return n
}

// apply offers entries to the store and closes the misses that they heal.
func (c *cluster) apply(r *replica, entries []lww.Entry, by healer) error {
	if len(entries) == 0 {
		return nil
	}
	results, err := r.store.Apply(entries)
	if err != nil {
		return err
	}
	for i, res := range results {
		if res.Outcome != storage.Applied {
			continue
		}
		key := numberOf(entries[i].Key)
		c.holds(r, key, entries[i].Stamp)
		open := r.misses[key]
		if len(open) == 0 {
			continue
		}
		kept := open[:0]
		for _, m := range open {
			if m.stamp > entries[i].Stamp {
				kept = append(kept, m)
				continue
			}
			c.tally.healed(m.cause, by, c.now-m.at, r.served-m.served)
		}
		if len(kept) == 0 {
			delete(r.misses, key)
		} else {
			r.misses[key] = kept
		}
	}
	return nil
}

// holds notes the version that a replica has now.
func (c *cluster) holds(r *replica, key int, stamp hlc.Stamp) {
	if r.held[key] < c.acked[key] && stamp >= c.acked[key] {
		r.stale--
	}
	r.held[key] = stamp
}

// acknowledge notes that a quorum has a version. It is called after the replicas
// that got the write have applied it.
func (c *cluster) acknowledge(key int, stamp hlc.Stamp) {
	for _, r := range c.nodes {
		if r.held[key] >= c.acked[key] && r.held[key] < stamp {
			r.stale++
		}
	}
	c.acked[key] = stamp
}

// missed notes a write that only a repair, or a newer write, can bring.
func (r *replica) missed(key int, m miss) { r.misses[key] = append(r.misses[key], m) }
