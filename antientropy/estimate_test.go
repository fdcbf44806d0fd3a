package antientropy

import (
	"math"
	"math/rand/v2"
	"testing"

	"syntropy/merkle"
	"syntropy/ring"
)

// TestEstimate draws keys that differ and estimates how many they are: nine
// estimates of ten must be right within a factor of two, which is as much as a
// descent takes without costing more.
func TestEstimate(t *testing.T) {
	const count, trials = 1_000_000, 400
	s := &scope{shards: []int{0}}
	levels := s.sampleLevels(count)
	for _, d := range []int{10, 30, 100, 300, 1000, 3000, 10_000, 30_000} {
		rng := rand.New(rand.NewPCG(1, uint64(d)))
		near, half := 0, 0
		for range trials {
			differ := make([]map[uint64]bool, len(levels))
			for i := range differ {
				differ[i] = make(map[uint64]bool)
			}
			for range d {
				x := ring.Position(rng.Uint64N(uint64(ring.MaxPosition) + 1))
				for i, bits := range levels {
					differ[i][merkle.NodeAt(x, bits).Path] = true
				}
			}
			var mine, theirs []byte
			s.sampleNodes(levels, func(level int, n merkle.Node) {
				mine = append(mine, 0)
				if differ[level][n.Path] {
					theirs = append(theirs, 1)
				} else {
					theirs = append(theirs, 0)
				}
			})
			off := math.Abs(math.Log2(float64(s.estimate(levels, mine, theirs)) / float64(d)))
			if off <= 1 {
				near++
			}
			if off <= math.Log2(1.5) {
				half++
			}
		}
		t.Logf("%d keys, %d bytes: within 1.5 times %d%%, within 2 times %d%%", d, sampleSize(s, levels), 100*half/trials, 100*near/trials)
		if near*10 < trials*9 {
			t.Errorf("%d keys: only %d of %d estimates are within a factor of two", d, near, trials)
		}
	}
}

func sampleSize(s *scope, levels []int) (n int) {
	s.sampleNodes(levels, func(int, merkle.Node) { n++ })
	return n
}
