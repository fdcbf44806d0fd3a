// Package reconcile makes pairs of replicas that are known to differ in so many
// keys, to measure how they find out.
//
// # Problem
//
// What a comparison costs is only worth knowing at sizes that hurt: ten million
// keys, of which a thousand differ. Two stores of that size take minutes to fill
// and gigabytes to hold, and then nobody knows for sure which keys differ.
//
// # Idea
//
// Of a row only its position and its number are kept, in one sorted list that
// both replicas share. Key, value and stamp are derived from the number whenever
// a row is read, and hashed then, as a store would hash what it has read from
// disk. What differs is a short list beside it:
//
//	rows   | x0 n0 | x1 n1 | x2 n2 | x3 n3 | x4 n4 | ...    shared
//	diffs            1: a is newer   3: b lacks it
//
// So a workload of ten million keys takes 160 MB and a few seconds, and its
// [Replica.Truth] is exact.
//
// Everything follows from the seed.
package reconcile

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"syntropy/hlc"
	"syntropy/ring"
)

// The cases: in which way the diverged keys differ. The replica that [Generate]
// returns first is the one that is going to open the session, the other one its
// partner.
const (
	// Mixed is a quarter each of: newer here, newer there, missing here, missing
	// there, of keys all over the replica.
	Mixed = "mixed"
	// Stale is that the partner holds an older version.
	Stale = "stale"
	// Missing is that the partner lacks the key.
	Missing = "missing"
	// Neighbours is as Mixed, but of rows that follow each other, as when a disk
	// lost a block.
	Neighbours = "neighbours"
)

// Cases lists the cases.
func Cases() []string { return []string{Mixed, Stale, Missing, Neighbours} }

// DefaultValueBytes is the length of a value when a workload does not say.
const DefaultValueBytes = 100

// MaxKeys bounds a workload: a row number has 32 bits.
const MaxKeys = 1<<32 - 1

// Now is the moment at which the replicas are compared. All stamps lie hours
// before it, so nothing passes for a write on its way.
var Now = time.Date(2026, time.November, 1, 12, 0, 0, 0, time.UTC)

// Workload says what to generate.
type Workload struct {
	// Keys is the number of different keys on both replicas together.
	Keys int
	// Diverged is the number of keys that differ, at most Keys.
	Diverged int
	// Case is one of Cases; empty means Mixed.
	Case string
	// Shards is a power of two, at most ring.Slots; 0 means 1.
	Shards int
	Seed   uint64
	// ValueBytes is the length of each value; 0 means DefaultValueBytes.
	ValueBytes int
}

// Validate says what is wrong with a workload.
func (w Workload) Validate() error {
	w = w.withDefaults()
	switch {
	case w.Keys < 0 || w.Keys > MaxKeys:
		return fmt.Errorf("%d keys: a workload has 0 to %d", w.Keys, MaxKeys)
	case w.Diverged < 0 || w.Diverged > w.Keys:
		return fmt.Errorf("%d diverged keys of %d: give no more than there are", w.Diverged, w.Keys)
	case !slices.Contains(Cases(), w.Case):
		return fmt.Errorf("there is no case %q: it is one of %v", w.Case, Cases())
	case w.Shards < 1 || w.Shards > ring.Slots || w.Shards&(w.Shards-1) != 0:
		return fmt.Errorf("%d shards: give a power of two up to %d", w.Shards, ring.Slots)
	case w.ValueBytes < 0:
		return errors.New("the length of values is negative")
	}
	return nil
}

func (w Workload) withDefaults() Workload {
	w.Case = cmp.Or(w.Case, Mixed)
	w.Shards = cmp.Or(w.Shards, 1)
	w.ValueBytes = cmp.Or(w.ValueBytes, DefaultValueBytes)
	return w
}

// row is what is kept of a row. Keys are numbers with leading zeros, so rows in
// the order of position and number are in the order of position and key.
type row struct {
	x ring.Position
	n uint32
}

func compareRows(a, b row) int { return cmp.Or(cmp.Compare(a.x, b.x), cmp.Compare(a.n, b.n)) }

// kind is how a key differs.
type kind uint8

const (
	newerA kind = iota
	newerB
	missingA
	missingB
	kinds
)

// diff is one diverged key, by the index of its row.
type diff struct {
	row  uint32
	kind kind
}

// Generate makes the two replicas of a workload. It panics if the workload is
// not valid.
func Generate(w Workload) (a, b *Replica) { return NewKeys(w).Diverge(w.Diverged, w.Case) }

// Keys are the keys of a workload, of which any number may be made to differ, in
// any way: to make and sort them, and to hash all rows, takes longest.
type Keys struct{ s *shared }

// NewKeys makes the keys of a workload. It panics if the workload is not valid.
func NewKeys(w Workload) *Keys {
	mustBeValid(w)
	w = w.withDefaults()
	// Two streams, so that the keys of a seed are the same however many differ.
	rng := rand.New(rand.NewPCG(w.Seed, 0))
	var secret [32]byte
	for i := range 4 {
		binary.LittleEndian.PutUint64(secret[8*i:], rng.Uint64())
	}
	return &Keys{newShared(w, secret, rng.Uint64())}
}

// Diverge makes two replicas that differ in d of the keys. It panics if there
// are no such.
func (k *Keys) Diverge(d int, kind string) (a, b *Replica) {
	w := k.s.w
	w.Diverged, w.Case = d, kind
	mustBeValid(w)
	w = w.withDefaults()
	diffs := diverge(w, rand.New(rand.NewPCG(w.Seed, 1)))
	return newReplica(k.s, w, diffs, newerA, missingA), newReplica(k.s, w, diffs, newerB, missingB)
}

func mustBeValid(w Workload) {
	if err := w.Validate(); err != nil {
		panic("reconcile: " + err.Error())
	}
}

// diverge draws the keys that differ, and how.
func diverge(w Workload, rng *rand.Rand) []diff {
	diffs := make([]diff, 0, w.Diverged)
	if w.Case == Neighbours {
		first := rng.IntN(w.Keys - w.Diverged + 1)
		for i := range w.Diverged {
			diffs = append(diffs, diff{row: uint32(first + i)})
		}
	} else {
		// Floyd's way to draw a sample without replacement.
		drawn := make(map[uint32]struct{}, w.Diverged)
		for j := w.Keys - w.Diverged; j < w.Keys; j++ {
			r := uint32(rng.IntN(j + 1))
			if _, ok := drawn[r]; ok {
				r = uint32(j)
			}
			drawn[r] = struct{}{}
			diffs = append(diffs, diff{row: r})
		}
	}
	// The kinds are dealt in turn to shuffled keys, so that their numbers are
	// exact; which one is first is chance, or a single key would always be newer
	// on the same side.
	rng.Shuffle(len(diffs), func(i, j int) { diffs[i], diffs[j] = diffs[j], diffs[i] })
	first := rng.IntN(int(kinds))
	for i := range diffs {
		switch w.Case {
		case Stale:
			diffs[i].kind = newerA
		case Missing:
			diffs[i].kind = missingB
		default:
			diffs[i].kind = kind((first + i) % int(kinds))
		}
	}
	slices.SortFunc(diffs, func(a, b diff) int { return cmp.Compare(a.row, b.row) })
	return diffs
}

// firstWrite is before every stamp of a workload.
var firstWrite = hlc.FromTime(Now.Add(-72 * time.Hour))

// stamps returns when a key was first written, and by which node; or, for the
// newer version, written again.
func stamps(random uint64, newer bool) (hlc.Stamp, hlc.NodeID) {
	const (
		spread = 48 * time.Hour // of the first writes
		soon   = time.Hour      // the least that a second write comes behind the first
		late   = 12 * time.Hour // and the most
	)
	hi, lo := random>>32, random&(1<<32-1)
	after := time.Duration(hi*uint64(spread/time.Microsecond)>>32) * time.Microsecond
	node := hlc.NodeID(1 + lo%3)
	if newer {
		after += soon + time.Duration(lo*uint64((late-soon)/time.Microsecond)>>32)*time.Microsecond
		node = hlc.NodeID(1 + lo/3%3)
	}
	// The counter is rarely anything but zero on a real node, either.
	return firstWrite.Add(after) + hlc.Stamp(lo>>3%4), node
}
