// Package storage keeps the entries of one replica, the Merkle trees over them
// and the garbage index, so that the three never disagree.
//
// # Problem
//
// A tree of digests is worth only as much as its exactness. A tree updated
// after the data is wrong in between; one updated by a background task is wrong
// under load; one trusted after a crash is wrong for ever.
//
// # Idea
//
// A write reads the old version, decides by the one conflict rule (package lww),
// and is one batch: the new version, its index row, and a row of the tree log,
// which says what the batch does to the trees. The batch is atomic, so data and
// log agree after any crash. The trees live in memory; writes adjust them under
// the lock under which they commit, and a [Snapshot] takes both under that lock.
// Now and then the trees are written to disk, and the log before that is cut.
// Opening a store reads them and replays the log; it never reads the data.
//
// Concurrent writes are committed in groups, one batch and one fsync for all.
//
// The trees grow with the data, one leaf at a time: after a write that makes a
// split due, the rows of one leaf are read.
//
// Replicas that are written to never hold the same at one instant, for some
// writes are on their way. [Store.SnapshotAsOf] shows a store as of a moment, as
// if nothing stamped later had been written: two replicas that have received
// everything up to then have equal trees as of then, whatever else they have
// received. It takes the present and, from a bounded memory of the latest
// arrivals, undoes what is later:
//
//	arrivals of a key    5, then 9, then 7 (shadowed)
//	present              9
//	as of 8              7, and the row of 9 is marked as late
//
// # Caveats
//
// Reading before writing is the price of an exact tree.
//
// What is later than a moment is known only as far back as the memory reaches
// ([Store.RecentFloor]), and not at all before the store was opened.
//
// A deleted key stays as a tombstone. This version never drops one.
package storage

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Options configure a store.
type Options struct {
	// Shards is the number of shards, a power of two. It belongs to the cluster
	// and is the same at every opening.
	Shards int
	// Secret keys tokens and digests. It belongs to the cluster too.
	Secret [32]byte
	// LeafKeys is the number of entries for each stored leaf of a tree. Zero
	// means merkle.DefaultLeafKeys. Fewer cost memory, more cost a longer scan
	// for each split and each node below the leaves. It may differ from opening
	// to opening and between replicas; the trees follow it as they are written
	// to.
	LeafKeys int
	// RecentEntries is the number of writes that are remembered in memory for
	// SnapshotAsOf, about 140 bytes each. Zero means DefaultRecentEntries,
	// negative none: then a view as of a moment shows the present, unless
	// nothing was written since. With too few, so it does under load.
	RecentEntries int
	// CheckpointWrites is the number of writes after which the trees are written
	// to disk anew. Zero means DefaultCheckpointWrites. More make opening slower,
	// by some 0.3 seconds a million; fewer cost writing.
	CheckpointWrites int
	// VersionBytes is the memory in which the present versions of written keys are
	// remembered, 48 bytes each, so that the next write of the key reads nothing.
	// Zero means DefaultVersionBytes, negative none. Memory is taken as it is used.
	VersionBytes int64
	// NoSync returns from writes before they are durable. The owner calls Sync
	// at the interval that it wants to risk.
	NoSync bool
	// PhysicalDelete forgets a deleted key instead of keeping a tombstone. It
	// exists to show, in tests, how deleted data then comes back.
	PhysicalDelete bool
	// WithoutTree keeps no trees, no recent writes and no statistics. It exists to
	// measure what those cost; what was written so cannot be opened otherwise.
	WithoutTree bool
}

// Outcome says what became of an entry offered to a store.
type Outcome uint8

const (
	// Applied: the entry is now the store's version of the key.
	Applied Outcome = iota
	// Unchanged: the store held exactly this entry already.
	Unchanged
	// Shadowed: the store holds a newer version and keeps it.
	Shadowed
)

// String names the outcome.
func (o Outcome) String() string {
	return [...]string{"applied", "unchanged", "shadowed"}[o]
}

// Result is the outcome for one entry, with the version that the store now has.
type Result struct {
	Outcome Outcome
	Version lww.Version
}

// Store is one replica's entries and trees. It is safe for concurrent use.
type Store struct {
	engine Engine
	opts   Options
	tokens ring.Tokens
	hasher *merkle.Hasher

	// mu is held from reading the old versions to committing the batch and
	// adjusting the trees, so that neither of two writes to one key misses the
	// other, and that a snapshot sees data and trees of the same moment. It is
	// not held while a batch becomes durable.
	mu     sync.Mutex
	shards []shard
	newest hlc.Stamp // of all entries that the store ever had
	recent recent

	quarantine *quarantine

	groups uint64 // committed so far
	change change // the group that is being committed, or was the last
	// The tree log: the number of its last row, how many writes and shapes it has
	// since the last checkpoint, what is to go into the next row, and room for it.
	logNumber uint64
	logged    int
	shapes    shapes
	logRow    []byte
	writing   *checkpoint                                 // nil if none is being written
	stats     struct{ entries, tombstones atomic.Uint64 } // over all shards
	expiries  expiries
	failed    error // a commit whose outcome is unknown: the store takes no more writes
	broken    chan struct{}

	queue    queue
	stripes  []stripe  // of keys, by their token
	versions *versions // nil if none are remembered
}

// shard is what memory holds of a shard.
type shard struct {
	tree       *merkle.Tree
	tombstones uint64
	splitAt    uint64 // after a split that failed: the count at which to try again

	// Of the batch under construction: how many writes, and what they add to the
	// sum of all hashes.
	writes int
	sum    merkle.Sum
}

// totals returns what is known of a shard besides its leaves. The caller holds
// s.mu.
func (s *Store) totals(shard int) totals {
	sh := s.shards[shard]
	d := sh.tree.Root()
	return totals{d.Sum, d.Count, sh.tombstones, sh.tree.Leaves()}
}

// under returns the node that the tree of a shard is over.
func (s *Store) under(shard int) merkle.Node {
	return merkle.Node{Bits: uint8(ring.ShardBits(len(s.shards))), Path: uint64(shard)}
}

// ErrClosed is returned by a store after Close.
var ErrClosed = errors.New("storage: the store is closed")

// Close makes every write durable, and the next opening short. The store must not
// be used afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	err := s.failed
	if err == nil {
		err = s.closeCheckpoint()
	}
	s.mu.Unlock()
	if err == nil {
		err = s.Sync()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = ErrClosed
	}
	return err
}

// Broken is closed when a commit failed or did not become durable. From then on
// the store refuses writes, and what it shows may be gone after a restart: its
// owner should stop.
func (s *Store) Broken() <-chan struct{} { return s.broken }

// Sync returns when everything written before is durable.
func (s *Store) Sync() error { return s.commitSynced(s.engine.NewBatch()) }

// commitSynced commits a batch that changes no entries and waits until it is
// durable. It fails as Apply does: a Sync that succeeds after one that failed
// would claim that what was lost in between is durable.
func (s *Store) commitSynced(b Batch) error {
	s.mu.Lock()
	if err := s.failed; err != nil {
		s.mu.Unlock()
		return err
	}
	wait, err := s.engine.Commit(b, true)
	if err != nil {
		err = s.commitFailed(err)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := wait(); err != nil {
		return s.fail(err)
	}
	return nil
}

// Shards returns the number of shards.
func (s *Store) Shards() int { return s.opts.Shards }

// Locate returns the shard and the token of a key.
func (s *Store) Locate(key []byte) (shard int, token ring.Token) {
	return ring.ShardOf(ring.Slot(key), s.opts.Shards), s.tokens.Of(key)
}

// Position returns the place of a key in the Merkle trees.
func (s *Store) Position(key []byte) ring.Position {
	shard, token := s.Locate(key)
	return ring.At(shard, token, s.opts.Shards)
}

// Sum returns the hash of an entry under the cluster's secret.
func (s *Store) Sum(e lww.Entry) merkle.Sum { return s.hasher.Entry(e) }

// Get returns the entry of a key, which may be a tombstone or expired. The
// caller owns it. The error wraps ErrQuarantined, ErrRot or lww.ErrMalformed where
// this replica cannot tell.
func (s *Store) Get(key []byte) (e lww.Entry, found bool, err error) {
	shard, token := s.Locate(key)
	row, found, err := s.engine.Get(appendDataKey(nil, shard, token, key))
	if err == nil && found {
		e, err = lww.DecodeRow(key, row)
	}
	x := ring.At(shard, token, s.opts.Shards)
	if err != nil {
		s.noteUnreadable(x, err)
	} else {
		err = s.quarantine.refuses(x, found)
	}
	if err != nil {
		return lww.Entry{}, false, fmt.Errorf("storage: reading %q: %w", key, err)
	}
	return e, found, nil
}

// Scan visits the entries of a shard from a token on, in the order of token and
// key, until visit returns false. Tombstones and expired entries are visited
// too. The entry belongs to the store and changes after visit returns. Where a part
// in quarantine begins, the scan ends with an error that wraps ErrQuarantined.
func (s *Store) Scan(shard int, from ring.Token, visit func(ring.Token, lww.Entry) (more bool)) error {
	return s.ScanTo(shard, from, 0, visit)
}

// ScanTo is Scan up to a token, which is left out; zero is the end of the shard.
func (s *Store) ScanTo(shard int, from, before ring.Token, visit func(ring.Token, lww.Entry) (more bool)) error {
	to := ring.MaxToken
	if before != 0 {
		to = before - 1
	}
	at, bad, found := s.quarantine.first(ring.At(shard, from, s.opts.Shards), ring.At(shard, to, s.opts.Shards))
	if found {
		if first, _ := at.Tokens(s.opts.Shards); first <= from {
			return fmt.Errorf("%w: %s", ErrQuarantined, bad.Reason)
		} else {
			to = first - 1
		}
	}
	stopped := false
	err := scan(s.engine, shard, from, to, func(t ring.Token, e lww.Entry) bool {
		stopped = !visit(t, e)
		return !stopped
	})
	if err == nil && found && !stopped {
		return fmt.Errorf("%w: %s", ErrQuarantined, bad.Reason)
	}
	return err
}

func scan(r Reader, shard int, from, to ring.Token, visit func(ring.Token, lww.Entry) bool) error {
	lower, upper := dataRange(shard, from, to)
	var bad error
	err := r.Scan(lower, upper, func(k, v []byte) bool {
		token, key, err := splitDataKey(k)
		if err != nil {
			bad = err
			return false
		}
		e, err := lww.DecodeRow(key, v)
		if err != nil {
			bad = fmt.Errorf("row of key %q: %w", key, err)
			return false
		}
		return visit(token, e)
	})
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("storage: scanning shard %d: %w", shard, err)
	}
	return nil
}

// scanNode visits the rows under a node, which is that of a shard or below it.
func scanNode(r Reader, shards int, n merkle.Node, visit func(ring.Token, lww.Entry) bool) error {
	from, _ := n.First().Tokens(shards)
	_, to := n.Last().Tokens(shards)
	return scan(r, n.First().Shard(shards), from, to, visit)
}

// Stats counts what a store holds.
type Stats struct {
	Entries    uint64 // tombstones included
	Tombstones uint64
}

// Stats returns the present counts, from memory. It waits for nothing: heartbeats
// carry them, and must not stop because a disk is slow.
func (s *Store) Stats() (st Stats) {
	return Stats{Entries: s.stats.entries.Load(), Tombstones: s.stats.tombstones.Load()}
}

// Meta returns a value stored with PutMeta.
func (s *Store) Meta(name string) (value []byte, found bool, err error) {
	value, found, err = s.engine.Get(appendMetaKey(nil, name))
	if err != nil {
		return nil, false, fmt.Errorf("storage: reading %q: %w", name, err)
	}
	return value, found, nil
}

// PutMeta stores a small value of the owner's under a name, durably.
func (s *Store) PutMeta(name string, value []byte) error {
	b := s.engine.NewBatch()
	b.Set(appendMetaKey(nil, name), value)
	if err := s.commitSynced(b); err != nil {
		return fmt.Errorf("storage: writing %q: %w", name, err)
	}
	return nil
}
