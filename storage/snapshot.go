package storage

import (
	"context"
	"fmt"
	"slices"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Snapshot is a view of a store in which data and trees are those of one
// moment, and stay so. It is safe for concurrent use and must be closed: while
// it is open, the engine keeps every row that it shows.
type Snapshot struct {
	reader Reader
	trees  []*merkle.Tree

	tombstones []uint64 // of each shard, at present
	late       map[rowID]lateRow
	asOf       hlc.Stamp
	tokens     ring.Tokens
	hasher     *merkle.Hasher
}

// Snapshot takes a snapshot of all shards at present.
func (s *Store) Snapshot() *Snapshot { return s.SnapshotAsOf(hlc.Max) }

// SnapshotAsOf takes a snapshot as of a stamp: as if nothing had been written
// with a later Version.Newest. Its trees are those of that moment. Its rows are
// the present ones, those written since marked as late, with the hash of what
// they replaced.
//
// If t is before RecentFloor, the snapshot shows the present, and AsOf says so.
func (s *Store) SnapshotAsOf(t hlc.Stamp) *Snapshot {
	snap, arrivals := s.freeze(t)
	snap.late = lateRows(arrivals, t)
	forked := make([]bool, len(snap.trees))
	for id, row := range snap.late {
		if !forked[id.shard] {
			snap.trees[id.shard], forked[id.shard] = snap.trees[id.shard].Fork(), true
		}
		x := ring.At(id.shard, id.token, len(snap.trees))
		delta := digestOf(x, row.then).Minus(digestOf(x, row.now))
		snap.trees[id.shard].Adjust(x, delta)
	}
	return snap
}

// freeze does what must be done under the lock: it takes data, trees and the
// arrivals, if they are needed and reach back to t.
func (s *Store) freeze(t hlc.Stamp) (*Snapshot, []chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := &Snapshot{
		reader: s.engine.Snapshot(),
		trees:  make([]*merkle.Tree, len(s.shards)),

		tombstones: make([]uint64, len(s.shards)),
		asOf:       hlc.Max,
		tokens:     s.tokens,
		hasher:     s.hasher,
	}
	for i, sh := range s.shards {
		snap.trees[i] = sh.tree.Snapshot()
		snap.tombstones[i] = sh.tombstones
	}
	if t == hlc.Max || t < s.recent.floor {
		return snap, nil
	}
	snap.asOf = t
	return snap, slices.Clone(s.recent.chunks)
}

// digestOf is the digest of an entry by its hash, zero if there is none.
func digestOf(x ring.Position, s merkle.Sum) merkle.Digest {
	if s == (merkle.Sum{}) {
		return merkle.Digest{}
	}
	return merkle.DigestOf(x, s)
}

// Close releases the snapshot.
func (s *Snapshot) Close() error { return s.reader.Close() }

// AsOf returns the stamp that the snapshot was taken as of; hlc.Max is the
// present.
func (s *Snapshot) AsOf() hlc.Stamp { return s.asOf }

// Shards returns the number of shards.
func (s *Snapshot) Shards() int { return len(s.trees) }

// Root returns the digest of a whole shard.
func (s *Snapshot) Root(shard int) merkle.Digest { return s.trees[shard].Root() }

// Syndromes fills dst with the syndromes of the 2^bits nodes that are bits below
// n, which is the node of a shard or below it. ok is false if one of them is
// below a stored leaf: then they are to be summed from Rows.
func (s *Snapshot) Syndromes(n merkle.Node, bits int, dst []merkle.Syndrome) (ok bool) {
	return s.trees[s.shardOf(n)].Syndromes(n, bits, dst)
}

// Leaf returns the leaf above a position as the tree of its shard has it. Leaves
// follow the number of entries; what is below them is summed from Rows.
func (s *Snapshot) Leaf(x ring.Position) merkle.Node {
	return s.trees[x.Shard(len(s.trees))].Leaf(x)
}

func (s *Snapshot) shardOf(n merkle.Node) int { return n.First().Shard(len(s.trees)) }

// Rows visits the rows under n, which is the node of a shard or below it, in the
// order of position, token and key, until visit returns false. Row and entry belong
// to the snapshot and change after visit returns.
func (s *Snapshot) Rows(n merkle.Node, visit func(*merkle.Row) (more bool)) error {
	shard := s.shardOf(n)
	var row merkle.Row
	return scanNode(s.reader, len(s.trees), n, func(t ring.Token, e lww.Entry) bool {
		row = merkle.Row{Position: ring.At(shard, t, len(s.trees)), Entry: e, Sum: s.hasher.Entry(e)}
		// The hash tells the row from another one under its token.
		if late, ok := s.late[rowID{shard, t}]; ok && late.now == row.Sum {
			row.Late, row.Sum = true, late.then
		}
		return visit(&row)
	})
}

// Locate returns the shard and the token of a key.
func (s *Snapshot) Locate(key []byte) (shard int, token ring.Token) {
	return ring.ShardOf(ring.Slot(key), len(s.trees)), s.tokens.Of(key)
}

// Position returns the place of a key in the trees.
func (s *Snapshot) Position(key []byte) ring.Position {
	shard, token := s.Locate(key)
	return ring.At(shard, token, len(s.trees))
}

// Sum returns the hash of an entry under the cluster's secret.
func (s *Snapshot) Sum(e lww.Entry) merkle.Sum { return s.hasher.Entry(e) }

// Hash returns the keyed hash of a key or a value alone (merkle.Hasher.Bytes).
func (s *Snapshot) Hash(b []byte) uint64 { return s.hasher.Bytes(b) }

// Audit is the result of recomputing the tree of a shard from its rows.
type Audit struct {
	Tree merkle.Digest // root as the tree has it
	Rows merkle.Digest // root as the rows add up
	// Wrong are the leaves whose syndrome differs from the sum of their rows.
	Wrong []merkle.Node
}

// Recompute reads all rows of a shard and compares their digests with the tree,
// leaf by leaf. It is the slow truth that the tree is checked against; nothing
// in normal operation needs it. Rows that cannot be read are an error; see Scrub.
func (s *Snapshot) Recompute(ctx context.Context, shard int) (Audit, error) {
	f, err := s.Scrub(ctx, shard, nil)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && f.Err != nil {
		err = fmt.Errorf("recomputing shard %d: %w", shard, f.Err)
	}
	if err != nil {
		return Audit{}, err
	}
	return f.Audit, nil
}

// TreeBytes returns the memory that the trees of all shards take, about.
func (s *Snapshot) TreeBytes() (n int) {
	for _, t := range s.trees {
		n += t.Bytes()
	}
	return n
}
