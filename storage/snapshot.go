package storage

import (
	"context"
	"fmt"

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
	tokens ring.Tokens
	hasher *merkle.Hasher
}

// Snapshot takes a snapshot of all shards.
func (s *Store) Snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := &Snapshot{
		reader: s.engine.Snapshot(),
		trees:  make([]*merkle.Tree, len(s.trees)),
		tokens: s.tokens,
		hasher: s.hasher,
	}
	for i, t := range s.trees {
		snap.trees[i] = t.Snapshot()
	}
	return snap
}

// Close releases the snapshot.
func (s *Snapshot) Close() error { return s.reader.Close() }

// Shards returns the number of shards.
func (s *Snapshot) Shards() int { return len(s.trees) }

// Root returns the digest of a whole shard.
func (s *Snapshot) Root(shard int) merkle.Digest { return s.trees[shard].Root() }

// Children returns the digests of the children of a node above MaxLevel: from
// the tree, or below its leaves from the rows.
func (s *Snapshot) Children(shard int, n merkle.Node) ([merkle.Fanout]merkle.Digest, error) {
	if c, ok := s.trees[shard].Children(n); ok {
		return c, nil
	}
	return merkle.ChildrenByScan(n, func(visit func(ring.Token, merkle.Digest)) error {
		return s.Rows(shard, n, func(t ring.Token, _ lww.Entry, d merkle.Digest) bool {
			visit(t, d)
			return true
		})
	})
}

// Rows visits the entries under a node with their digests, in the order of
// token and key, until visit returns false. The entry belongs to the snapshot
// and changes after visit returns.
func (s *Snapshot) Rows(shard int, n merkle.Node, visit func(ring.Token, lww.Entry, merkle.Digest) (more bool)) error {
	return scan(s.reader, shard, n.First(), n.Last(), func(t ring.Token, e lww.Entry) bool {
		return visit(t, e, s.hasher.Entry(e))
	})
}

// ValueHash returns the keyed hash of a value (merkle.Hasher.Value).
func (s *Snapshot) ValueHash(value []byte) uint64 { return s.hasher.Value(value) }

// Audit is the result of recomputing the tree of a shard from its rows.
type Audit struct {
	Tree merkle.Digest // root as the tree has it
	Rows merkle.Digest // root as the rows add up
	// Wrong are the leaves whose digest differs from the sum of their rows.
	Wrong []merkle.Node
}

// Recompute reads all rows of a shard and compares their digests with the tree,
// leaf by leaf. It is the slow truth that the tree is checked against; nothing
// in normal operation needs it.
func (s *Snapshot) Recompute(ctx context.Context, shard int) (Audit, error) {
	tree := s.trees[shard]
	rows := merkle.New(tree.LeafLevel())
	visited := 0
	err := s.Rows(shard, merkle.Node{}, func(t ring.Token, _ lww.Entry, d merkle.Digest) bool {
		rows.Adjust(t, d, merkle.Digest{})
		visited++
		return visited%1024 != 0 || ctx.Err() == nil
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return Audit{}, fmt.Errorf("recomputing shard %d: %w", shard, err)
	}
	a := Audit{Tree: tree.Root(), Rows: rows.Root()}
	for path := range uint64(1) << (4 * tree.LeafLevel()) {
		leaf := merkle.Node{Level: uint8(tree.LeafLevel()), Path: path}
		want, _ := rows.Digest(leaf)
		if got, _ := tree.Digest(leaf); got != want {
			a.Wrong = append(a.Wrong, leaf)
		}
	}
	return a, nil
}

// Locate returns the shard and the token of a key.
func (s *Snapshot) Locate(key []byte) (shard int, token ring.Token) {
	return ring.ShardOf(ring.Slot(key), len(s.trees)), s.tokens.Of(key)
}

// Digest returns the digest of an entry under the cluster's secret.
func (s *Snapshot) Digest(e lww.Entry) merkle.Digest { return s.hasher.Entry(e) }
