package storage

import (
	"errors"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// resize lets the tree of a shard follow its count after some writes. The caller
// holds s.mu and has committed the writes, which stand whatever happens here.
//
// A split has to read the rows that the writes have put, so it comes after their
// commit; the next row of the tree log says that it was made. Until then, and
// after a crash in between, the tree on disk is as exact, with one leaf larger.
//
// Each leaf of LeafKeys entries is split once per LeafKeys new entries, so two
// splits for as many writes keep up, and one split per batch and shard brings a
// store that was opened with a smaller LeafKeys to it in time. Merges read
// nothing; four of them a write keep up with deletes.
func (s *Store) resize(shard, writes int) {
	for splits := 1 + 2*writes/s.opts.LeafKeys; splits > 0 && s.split(shard); splits-- {
	}
	for merges := 4 * writes; merges > 0 && s.merge(shard); merges-- {
	}
}

// split splits a leaf if one is due and its rows can be read. If they cannot,
// the leaf stays as it is, larger than it should be and exact, until as many
// entries have come as would ask for another split.
func (s *Store) split(shard int) (done bool) {
	sh := &s.shards[shard]
	leaf, due := sh.tree.SplitDue()
	if !due || sh.tree.Root().Count < sh.splitAt {
		return false
	}
	left, err := s.leftHalf(shard, leaf)
	if err != nil {
		sh.splitAt = sh.tree.Root().Count + uint64(s.opts.LeafKeys)
		return false
	}
	s.shapes.add(shard, shapeSplit, sh.tree.Leaves())
	s.shapes.bytes = left.Append(s.shapes.bytes)
	sh.tree.Split(left)
	return true
}

var errRottenLeaf = errors.New("the rows of a leaf do not add up to it")

// leftHalf sums the rows under the left half of a leaf.
//
// It reads the right half too, because of rows that changed by themselves: the
// tree stands for what was written, and the difference belongs to the half in
// which the row is. Left to the other, it would be out of place, and no repair
// would ever find it there.
func (s *Store) leftHalf(shard int, leaf merkle.Node) (left merkle.Syndrome, err error) {
	var halves [2]merkle.Syndrome
	sum := merkle.NewSummer(leaf, 1, halves[:])
	err = scanNode(s.engine, s.opts.Shards, leaf, func(t ring.Token, e lww.Entry) bool {
		sum.Add(ring.At(shard, t, s.opts.Shards), s.hasher.Entry(e).Fingerprint(0))
		return true
	})
	if err != nil {
		return left, err
	}
	rot := s.shards[shard].tree.LeafSyndrome(leaf).Minus(halves[0]).Minus(halves[1])
	changes, n, ok := rot.Decode(leaf)
	if !ok {
		return left, errRottenLeaf
	}
	left = halves[0]
	for _, c := range changes[:n] {
		if leaf.Down(1, 0).Contains(c.X) {
			left = left.Plus(merkle.SyndromeOf(c.X, c.F))
		}
	}
	return left, nil
}

// merge makes one leaf of two if that is due.
func (s *Store) merge(shard int) (done bool) {
	tree := s.shards[shard].tree
	if _, due := tree.MergeDue(); !due {
		return false
	}
	s.shapes.add(shard, shapeMerge, tree.Leaves())
	tree.Merge()
	return true
}
