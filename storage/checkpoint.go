package storage

import (
	"encoding/binary"
	"errors"

	"syntropy/hlc"
	"syntropy/merkle"
	"syntropy/ring"
)

// DefaultCheckpointWrites is the least number of writes after which the trees are
// written anew. So many rows of the log fit into a memtable, and those that are
// deleted before it is flushed are never in a table: the log costs its share of
// Pebble's own log and of memory, and no compaction.
const DefaultCheckpointWrites = 1 << 16

// checkpoint is one that is being written: all trees as they were at one row of
// the log, which is cut when the last of them is on disk.
//
// The trees of that moment are copies that share whatever was not written to
// since, and each commit carries a few of their leaves with it. So there is no
// goroutine to wait for, no write waits for more than its share, and what survives
// a crash is what came first. Until the row 'c' has its number, a checkpoint is
// rows that nobody reads; the next one deletes them.
//
// All leaves are written, changed or not: writes are spread evenly, so between two
// checkpoints most of them change.
type checkpoint struct {
	number uint64
	newest hlc.Stamp
	logged int         // how much of Store.logged is before it
	rate   uint64      // leaves to write for each write to the store
	trees  []shardTree // that are still to be written
	leaf   leafWalk    // in the first of them
}

type shardTree struct {
	shard  int
	tree   *merkle.Tree
	totals totals
}

// rowLeaves is the number of leaves in a row, which makes it 2 KB.
const rowLeaves = 64

// A checkpoint is written within a quarter of the writes after which the next is
// due.
const checkpointShare = 4

// logShare is the part of the number of entries that the log may have: of leaves of
// the default size four writes each, so that writing the leaves costs 8 bytes a write.
// Replaying as many writes as make a checkpoint of ten million entries due takes some
// tenths of a second.
const logShare = 18

// checkpointWrites returns how long the log becomes before it is cut.
func (s *Store) checkpointWrites() uint64 {
	return max(uint64(s.opts.CheckpointWrites), s.leaves()*uint64(s.opts.LeafKeys)/logShare)
}

func (s *Store) checkpointDue() bool {
	return s.logged >= s.opts.CheckpointWrites && uint64(s.logged) >= s.checkpointWrites()
}

// leaves returns the number of leaves of all trees.
func (s *Store) leaves() (n uint64) {
	for _, sh := range s.shards {
		n += sh.tree.Leaves()
	}
	return n
}

// beginCheckpoint begins one of the trees as they are. Its first row is in the
// batch, which holds no writes yet. The caller holds s.mu.
func (s *Store) beginCheckpoint(b Batch) {
	s.putLogRow(b, s.shapes.appendLogRow(nil, 0, 0), 0)
	c := &checkpoint{number: s.logNumber, newest: s.newest, logged: s.logged}
	for i := range s.shards {
		if t := s.totals(i); t.entries > 0 || t.leaves > 1 {
			c.trees = append(c.trees, shardTree{i, s.shards[i].tree.Snapshot(), t})
		}
	}
	c.rate = 1 + checkpointShare*s.leaves()/s.checkpointWrites()
	s.writing = c
}

// carry adds the next leaves of the checkpoint to a batch, at least as many as
// are given if there are, and what makes it the valid one when they were the last.
// The caller holds s.mu.
func (s *Store) carry(b Batch, leaves uint64) {
	c := s.writing
	for written := uint64(0); written < leaves && len(c.trees) > 0; {
		t := c.trees[0]
		first := c.leaf.index
		b.Set(c.leaf.row(c.number, t.shard, t.tree))
		written += c.leaf.index - first
		if c.leaf.index == t.totals.leaves {
			b.Set(appendTotalsKey(nil, c.number, t.shard), t.totals.append(nil))
			c.trees, c.leaf = c.trees[1:], leafWalk{}
		}
	}
	if len(c.trees) > 0 {
		return
	}
	row := binary.BigEndian.AppendUint64(nil, c.number)
	b.Set([]byte{prefixCheckpoint}, binary.BigEndian.AppendUint64(row, uint64(c.newest)))
	b.DeleteRange([]byte{prefixTreeLog}, appendNumbered(nil, prefixTreeLog, c.number+1))
	b.DeleteRange([]byte{prefixLeaves}, appendNumbered(nil, prefixLeaves, c.number))
	b.DeleteRange([]byte{prefixTotals}, appendNumbered(nil, prefixTotals, c.number))
	s.logged -= c.logged
	s.writing = nil
}

// closingLeaves is the number of leaves in a batch of the last checkpoint: 2 MB.
const closingLeaves = 1 << 16

// closeCheckpoint writes a checkpoint of all that there is, so that the next
// opening replays nothing. The caller holds s.mu and syncs afterwards.
func (s *Store) closeCheckpoint() error {
	if s.logged == 0 && s.shapes.count == 0 {
		return nil
	}
	b := s.engine.NewBatch()
	for s.beginCheckpoint(b); s.writing != nil; b = s.engine.NewBatch() {
		s.carry(b, closingLeaves)
		wait, err := s.engine.Commit(b, false)
		if err == nil {
			err = wait()
		}
		if err != nil {
			return s.commitFailed(err)
		}
	}
	return nil
}

// leafWalk visits the leaves of a tree in the order of positions.
type leafWalk struct {
	index uint64
	at    ring.Position
}

func (w *leafWalk) next(t *merkle.Tree) (leaf merkle.Node, ok bool) {
	if w.index == t.Leaves() {
		return leaf, false
	}
	if w.index == 0 {
		w.at = t.Under().First()
	}
	leaf = t.Leaf(w.at)
	w.index, w.at = w.index+1, leaf.Last()+1
	return leaf, true
}

// row returns the row of the next leaves.
func (w *leafWalk) row(number uint64, shard int, t *merkle.Tree) (key, value []byte) {
	key = appendLeavesKey(nil, number, shard, w.index)
	value = make([]byte, 0, rowLeaves*merkle.SyndromeBytes)
	for range rowLeaves {
		leaf, ok := w.next(t)
		if !ok {
			break
		}
		value = t.LeafSyndrome(leaf).Append(value)
	}
	return key, value
}

// loadCheckpoint brings the trees to where the last checkpoint has them.
func (s *Store) loadCheckpoint() error {
	for i := range s.shards {
		s.shards[i].tree = merkle.NewTree(s.under(i), s.opts.LeafKeys)
	}
	row, found, err := s.engine.Get([]byte{prefixCheckpoint})
	if err != nil || !found {
		return err
	}
	if len(row) != 8+8 {
		return damaged("the row of the checkpoint is malformed")
	}
	s.logNumber = binary.BigEndian.Uint64(row)
	s.newest = hlc.Stamp(binary.BigEndian.Uint64(row[8:]))
	shards, err := s.shardsIn(s.logNumber)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		if err := s.loadTree(s.logNumber, shard); err != nil {
			return err
		}
	}
	return nil
}

// shardsIn lists the shards that have a tree under a number.
func (s *Store) shardsIn(number uint64) (shards []int, err error) {
	var bad error
	lower, upper := appendNumbered(nil, prefixTotals, number), appendNumbered(nil, prefixTotals, number+1)
	err = s.engine.Scan(lower, upper, func(k, _ []byte) bool {
		shard := len(s.shards)
		if len(k) == 1+8+2 {
			shard = int(binary.BigEndian.Uint16(k[9:]))
		}
		if shard >= len(s.shards) {
			bad = damaged("there is a totals row %x", k)
			return false
		}
		shards = append(shards, shard)
		return true
	})
	return shards, errors.Join(err, bad)
}

// loadTree replaces the tree of a shard by the one that is stored under a number.
func (s *Store) loadTree(number uint64, shard int) error {
	row, found, err := s.engine.Get(appendTotalsKey(nil, number, shard))
	if err != nil {
		return err
	}
	t, ok := decodeTotals(row)
	if !found || !ok {
		return damaged("the totals row of shard %d is malformed or missing", shard)
	}
	tree := merkle.NewTreeOf(s.under(shard), s.opts.LeafKeys, t.leaves)
	var walk leafWalk
	var bad error
	lower, upper := appendLeavesKey(nil, number, shard, 0), appendTotalsKey(nil, number, shard+1)
	upper[0] = prefixLeaves
	err = s.engine.Scan(lower, upper, func(k, v []byte) bool {
		if len(k) != len(lower) || uint64(binary.BigEndian.Uint32(k[len(k)-4:])) != walk.index || len(v) == 0 || len(v)%merkle.SyndromeBytes != 0 {
			bad = damaged("shard %d has a malformed row of leaves, or lacks the one before", shard)
			return false
		}
		for ; len(v) > 0; v = v[merkle.SyndromeBytes:] {
			leaf, ok := walk.next(tree)
			syndrome := merkle.SyndromeFrom(v)
			if !ok || !syndrome.Valid() {
				bad = damaged("shard %d has a leaf that cannot be", shard)
				return false
			}
			tree.Load(leaf, syndrome)
		}
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return err
	}
	if walk.index != t.leaves || t.entries == 0 && !tree.Root().Syndrome.IsZero() {
		return damaged("shard %d has %d leaves, its totals row says %d for %d entries", shard, walk.index, t.leaves, t.entries)
	}
	tree.AdjustTotals(t.sum, t.entries)
	s.shards[shard].tree, s.shards[shard].tombstones = tree, t.tombstones
	return nil
}
