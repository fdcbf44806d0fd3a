package storage

import (
	"errors"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// resize lets the trees of the shards that a write has changed follow their
// counts. The caller holds s.mu and has committed the write, which stands
// whatever happens here.
//
// The changed leaves are a batch of their own: a split has to read the rows that
// the write has put. No later commit survives a crash without it, and after a
// crash between the two the tree is as exact as before, with one leaf larger.
// It is not synced, since nobody waits for it.
//
// Each leaf of LeafKeys entries is split once per LeafKeys new entries, so two
// splits for as many writes keep up, and one split per write and shard brings a
// store that was opened with a smaller LeafKeys to it in time. Merges read
// nothing; four of them a write keep up with deletes.
func (s *Store) resize(changes map[int]*shardChange) {
	r := resizing{store: s}
	for shard, c := range changes {
		before := s.shards[shard].tree.Leaves()
		for splits := 1 + 2*c.writes/s.opts.LeafKeys; splits > 0 && r.split(shard); splits-- {
		}
		for merges := 4 * c.writes; merges > 0 && r.merge(shard); merges-- {
		}
		if s.shards[shard].tree.Leaves() != before {
			r.batch.Set(appendTotalsKey(nil, shard), s.totals(shard).append(nil))
		}
	}
	if r.batch == nil {
		return
	}
	wait, err := s.engine.Commit(r.batch, false)
	if err == nil {
		err = wait()
	}
	if err != nil {
		// The write is committed, and its own wait says whether it is durable.
		// But the leaf rows may be those of a tree of another shape.
		_ = s.commitFailed(err)
	}
}

type resizing struct {
	store *Store
	batch Batch // nil as long as it is empty
}

func (r *resizing) put(shard int, leaf merkle.Node, s merkle.Syndrome) {
	if r.batch == nil {
		r.batch = r.store.engine.NewBatch()
	}
	putLeaf(r.batch, shard, leaf, s)
}

// split splits a leaf if one is due and its rows can be read. If they cannot,
// the leaf stays as it is, larger than it should be and exact, until as many
// entries have come as would ask for another split.
func (r *resizing) split(shard int) (done bool) {
	sh := &r.store.shards[shard]
	leaf, due := sh.tree.SplitDue()
	if !due || sh.tree.Root().Count < sh.splitAt {
		return false
	}
	left, err := r.store.leftHalf(shard, leaf)
	if err != nil {
		sh.splitAt = sh.tree.Root().Count + uint64(r.store.opts.LeafKeys)
		return false
	}
	sh.tree.Split(left)
	r.put(shard, leaf, merkle.Syndrome{})
	for i := range 2 {
		half := leaf.Down(1, i)
		r.put(shard, half, sh.tree.LeafSyndrome(half))
	}
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
func (r *resizing) merge(shard int) (done bool) {
	tree := r.store.shards[shard].tree
	leaf, due := tree.MergeDue()
	if !due {
		return false
	}
	tree.Merge()
	r.put(shard, leaf, tree.LeafSyndrome(leaf))
	for i := range 2 {
		r.put(shard, leaf.Down(1, i), merkle.Syndrome{})
	}
	return true
}
