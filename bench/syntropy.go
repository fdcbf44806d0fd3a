package bench

import (
	"math"

	"syntropy/internal/reconcile"
	"syntropy/merkle"
	"syntropy/ring"
)

// Syntropy is the session of package antientropy over the trees of package
// merkle.
//
// Unlike the others it also moves the entries. Those are taken off its bytes, and
// its CPU time is that of a dry run, which moves none.
type Syntropy struct {
	Label string
	// Hint is how many keys the session is told to expect, as a multiple of those
	// that do differ. Zero means that it is told nothing.
	Hint float64
}

// Name returns "syntropy", "syntropy/hint", or the label of a hint that is
// wrong.
func (p Syntropy) Name() string { return "syntropy" + p.Label }

func (Syntropy) Limit(reconcile.Workload) string { return "" }

type syntropySide struct {
	rows     *reconcile.Replica
	expected int
	dry      bool
}

// Finding implements Finder.
func (s syntropySide) Finding() Side {
	s.dry = true
	return s
}

func (p Syntropy) Build(rows *reconcile.Replica) (Side, error) {
	for shard := range rows.Shards() {
		rows.Tree(shard)
	}
	s := syntropySide{rows: rows}
	if p.Hint > 0 {
		s.expected = max(1, int(math.Round(p.Hint*float64(rows.Workload().Diverged))))
	}
	return s, nil
}

// Bytes returns the memory of the trees: all peers of this kind share them, so
// the heap would show them for the first one only.
func (s syntropySide) Bytes() int { return s.rows.TreeBytes() }

// Update includes the digests of the old and of the new row.
func (s syntropySide) Update(x ring.Position, before, after merkle.Sum) {
	shard := 0
	if n := s.rows.Shards(); n > 1 {
		shard = int(merkle.NodeAt(x, ring.ShardBits(n)).Path)
	}
	s.rows.Tree(shard).Adjust(x, merkle.DigestOf(x, after).Minus(merkle.DigestOf(x, before)))
}

func (s syntropySide) Initiate() Initiator {
	if s.dry {
		return syntropyInitiator{s.rows.Find(s.expected)}
	}
	return syntropyInitiator{s.rows.Initiate(s.expected)}
}

func (s syntropySide) Answer() Party { return syntropyPartner{s.rows.Answer()} }

type syntropyInitiator struct{ *reconcile.Initiator }

// Comparisons are those of both sides: the partner tells its own in the end.
func (i syntropyInitiator) Comparisons() int { return int(i.Report().Compared) }

func (i syntropyInitiator) Repaired() Repair {
	sent, received := i.EntryBytes()
	r := i.Report()
	return Repair{
		EntriesSent: int(sent), EntriesReceived: int(received),
		NamingRounds: r.NamingRounds, NamingBytes: int(r.NamingBytes),
	}
}

type syntropyPartner struct{ *reconcile.Partner }

func (syntropyPartner) Comparisons() int { return 0 }
