package antientropy

import (
	"math"

	"syntropy/merkle"
)

// This file answers: how many keys differ, roughly, before any of them is
// known? The descent begins at the level where a node has two or three of them, or a few more.
// From higher up it would take more rounds, from lower down more bytes.

const (
	// maxLevelNodes bounds the nodes whose digests travel at once, when a
	// descent begins: half a mebibyte. More differences than four times as many
	// are reached by descending from there.
	maxLevelNodes = 1 << 14
	// A descent begins where a node has 12/5 differing keys on average, up to
	// twice as many. What it costs is nearly the same from one key to eight: this
	// is far enough from both ends for an estimate that is wrong by three.
	startKeys, startNodes = 12, 5
	// sampleNodes is the number of nodes sampled on each level, and
	// sampleStep the bits between two levels: trees keep each fourth level, so
	// these cost least, and with as many nodes four estimates of five are right
	// within a factor of 1.5, and nearly all within two (TestEstimate).
	sampleNodes = 24
	sampleStep  = 4
	// rowsPerNode is the least number of rows under a node that a descent begins
	// with, or that is sampled: as many as under a stored leaf, since to sum the
	// nodes below means to read all rows.
	rowsPerNode = 96
)

// startLevel returns the level at which a descent begins when that many keys are
// expected to differ.
func (s *scope) startLevel(expected, count uint64) int {
	bits := 1
	for bits < merkle.MaxBits-1 {
		nodes := uint64(s.level(bits + 1))
		if nodes > maxLevelNodes || nodes*startKeys > expected*startNodes || nodes*rowsPerNode > count {
			break
		}
		bits++
	}
	return bits
}

// sampleLevels returns the levels that are sampled: each fourth one, and the
// lowest that has enough rows under a node, unless it is right below another.
func (s *scope) sampleLevels(count uint64) (levels []int) {
	most := count / rowsPerNode
	for bits := sampleStep; ; bits += sampleStep {
		if len(levels) == 0 || bits <= merkle.MaxBits && uint64(s.level(bits)) <= most {
			levels = append(levels, bits)
			continue
		}
		last := levels[len(levels)-1]
		for bits > last && (bits > merkle.MaxBits || uint64(s.level(bits)) > most) {
			bits--
		}
		if bits > last+1 {
			levels = append(levels, bits)
		}
		return levels
	}
}

// sample returns a byte of the syndrome of some nodes of each level, the same
// nodes on both sides. A byte is enough to see that a node differs, and seen as
// equal once in 256 it does no harm.
func (s *scope) sample(levels []int) (out []byte, err error) {
	var d [1]merkle.Syndrome
	out = make([]byte, 0, len(levels)*sampleNodes)
	s.sampleNodes(levels, func(_ int, n merkle.Node) {
		if e := s.syndromes(n, 0, d[:]); e != nil {
			err = e
		}
		out = append(out, byte(d[0][0]))
	})
	return out, err
}

// sampleNodes calls visit for each node that is sampled, with the index of its
// level.
func (s *scope) sampleNodes(levels []int, visit func(level int, n merkle.Node)) {
	for level, bits := range levels {
		nodes := s.level(bits)
		for j := range min(nodes, sampleNodes) {
			// One node in each part of the level, not always the first.
			lo, hi := j*nodes/sampleNodes, (j+1)*nodes/sampleNodes
			if nodes <= sampleNodes {
				lo, hi = j, j+1
			}
			visit(level, s.levelNode(bits, lo+(j*7919)%(hi-lo)))
		}
	}
}

// outlineNodes is the number of nodes of an outline: a byte of the syndrome of
// each node of one level. Where many keys are expected to differ, the initiator
// sends one along, so that neighbours, which differ under a few of these nodes, are
// not looked for everywhere.
const outlineNodes = 64

// outlineMost is the number of differing nodes of an outline up to which only
// their part of a level is sent.
const outlineMost = outlineNodes * 3 / 4

// outlineBits returns the level that has as many nodes as an outline.
func (s *scope) outlineBits() (bits int, ok bool) {
	for bits := range merkle.MaxBits {
		if n := s.level(bits); n >= outlineNodes {
			return bits, n == outlineNodes
		}
	}
	return 0, false
}

// outline returns the low byte of each node's syndrome.
func (s *scope) outline(bits int) ([]byte, error) {
	level, err := s.levelSyndromes(bits)
	out := make([]byte, len(level))
	for i := range level {
		out[i] = byte(level[i][0])
	}
	return out, err
}

// outlineFew is the number of differing nodes of an outline up to which the keys are
// taken for neighbours: then they are close to each other under these nodes as well,
// and most of a part as large as for spread keys would be of nodes that do not
// differ.
const outlineFew = 8

// partLevel returns the level at which a descent begins when as many keys are
// expected to differ below some nodes of an outline.
func (s *scope) partLevel(outline, marked int, expected, count uint64) int {
	if marked <= outlineFew {
		expected /= 10
	}
	bits := outline
	for bits < merkle.MaxBits-1 {
		nodes := uint64(marked) << (bits + 1 - outline)
		if nodes > maxLevelNodes || nodes*startKeys > expected*startNodes || uint64(s.level(bits+1))*rowsPerNode > count {
			break
		}
		bits++
	}
	return bits
}

// partNodes calls visit for the marked nodes of an outline.
func (s *scope) partNodes(outline int, marked uint64, visit func(merkle.Node) error) (err error) {
	i := 0
	s.levelNodes(outline, func(n merkle.Node) {
		if marked>>i&1 != 0 && err == nil {
			err = visit(n)
		}
		i++
	})
	return err
}

// part returns the syndromes of the nodes of a level that are below marked nodes
// of an outline, in order, and their sum.
func (s *scope) part(outline, bits int, marked uint64) (out []merkle.Syndrome, sum merkle.Syndrome, err error) {
	down := bits - outline
	err = s.partNodes(outline, marked, func(n merkle.Node) error {
		out = append(out, make([]merkle.Syndrome, 1<<down)...)
		return s.syndromes(n, down, out[len(out)-1<<down:])
	})
	for _, d := range out {
		sum = sum.Plus(d)
	}
	return out, sum, err
}

// levelNode returns the i-th node of a level.
func (s *scope) levelNode(bits, i int) (n merkle.Node) {
	if bits >= s.bits {
		down := bits - s.bits
		return s.node(s.shards[i>>down]).Down(down, i&(1<<down-1))
	}
	s.levelNodes(bits, func(m merkle.Node) {
		if i == 0 {
			n = m
		}
		i--
	})
	return n
}

// estimate returns the number of differing keys that makes two samples most
// likely. With d keys that differ, spread evenly, a node of a level of N is equal
// with the probability exp(-d/N).
func (s *scope) estimate(levels []int, mine, theirs []byte) uint64 {
	type count struct{ nodes, equal, differ float64 }
	var counts []count
	differ, deepest := 0.0, 0.0
	for _, bits := range levels {
		nodes := s.level(bits)
		c := count{nodes: float64(nodes)}
		for range min(nodes, sampleNodes) {
			if mine[0] == theirs[0] {
				c.equal++
			} else {
				c.differ++
			}
			mine, theirs = mine[1:], theirs[1:]
		}
		differ, deepest = differ+c.differ, c.nodes
		counts = append(counts, c)
	}
	if differ == 0 {
		return 3 // more than two, or they had been named, and hardly many more
	}
	// The derivative of the log-likelihood falls with d, so its zero is found by
	// halving, here in the logarithm of d.
	lo, hi := 0.0, 40*math.Ln2
	for range 16 {
		d := math.Exp((lo + hi) / 2)
		slope := 0.0
		for _, c := range counts {
			slope += c.differ/c.nodes/math.Expm1(d/c.nodes) - c.equal/c.nodes
		}
		if slope > 0 {
			lo = (lo + hi) / 2
		} else {
			hi = (lo + hi) / 2
		}
	}
	// If every node of the deepest level differs, the likeliest number has no
	// bound, but from that level on a descent finds its way.
	return uint64(min(math.Exp(lo), 4*deepest))
}
