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
// A write is one batch: read the old version, decide by the one conflict rule
// (package lww), put the new version, adjust the leaf of the tree, move the
// index row. The batch is atomic, so data and tree agree after any crash, and
// opening a store reads the leaves, never the data. The digests live in memory
// besides; writes adjust them under the lock under which they commit, and a
// [Snapshot] takes both under that lock.
//
// # Caveats
//
// Reading before writing is the price of an exact tree.
//
// A deleted key stays as a tombstone. This version never drops one.
package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Options configure a store. All fields but the last two belong to the cluster and must
// be the same at every opening.
type Options struct {
	// Shards is the number of shards, a power of two.
	Shards int
	// Secret keys tokens and digests.
	Secret [32]byte
	// LeafLevel is the level of the stored leaves of a new store: 16^LeafLevel
	// of them a shard. Zero means DefaultLeafLevel. An existing store keeps
	// the level it was created with.
	LeafLevel int
	// NoSync returns from writes before they are durable. The owner calls Sync
	// at the interval that it wants to risk.
	NoSync bool
	// PhysicalDelete forgets a deleted key instead of keeping a tombstone. It
	// exists to show, in tests, how deleted data then comes back.
	PhysicalDelete bool
}

// DefaultLeafLevel gives 256 leaves a shard: with 256 shards, 64 keys a leaf at
// 4 million keys. Leaves with more keys cost a longer scan in a session, leaves
// with fewer cost memory (24 bytes each, once touched).
const DefaultLeafLevel = 2

// layoutVersion changes with the layout of rows. A store of another version is
// refused.
const layoutVersion = 1

const metaLayout = "layout"

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
	mu         sync.Mutex
	trees      []*merkle.Tree
	tombstones map[leafID]uint64
	stats      struct{ entries, tombstones atomic.Uint64 } // sums of the two above
	failed     error                                       // a commit whose outcome is unknown: the store takes no more writes
	broken     chan struct{}
}

// leafID names a leaf over all shards.
type leafID struct {
	shard int
	leaf  merkle.Node
}

// ErrClosed is returned by a store after Close.
var ErrClosed = errors.New("storage: the store is closed")

// Open opens the store on an engine, creating it if the engine is empty. The
// caller keeps the ownership of the engine and closes it after the store.
func Open(engine Engine, opts Options) (*Store, error) {
	if opts.Shards < 1 || opts.Shards > ring.Slots || opts.Shards&(opts.Shards-1) != 0 {
		return nil, fmt.Errorf("storage: %d shards: the number must be a power of two between 1 and %d", opts.Shards, ring.Slots)
	}
	if opts.LeafLevel == 0 {
		opts.LeafLevel = DefaultLeafLevel
	}
	if opts.LeafLevel < 0 || opts.LeafLevel > merkle.MaxLeafLevel {
		return nil, fmt.Errorf("storage: leaf level %d is not in 1..%d", opts.LeafLevel, merkle.MaxLeafLevel)
	}
	s := &Store{
		engine:     engine,
		opts:       opts,
		tokens:     ring.NewTokens(opts.Secret),
		hasher:     merkle.NewHasher(opts.Secret),
		tombstones: make(map[leafID]uint64),
		broken:     make(chan struct{}),
	}
	if err := s.openLayout(); err != nil {
		return nil, err
	}
	s.trees = make([]*merkle.Tree, opts.Shards)
	for i := range s.trees {
		s.trees[i] = merkle.New(s.opts.LeafLevel)
	}
	return s, s.loadLeaves()
}

// openLayout checks, or writes in a new store, what the rows depend on: layout
// version, shards, leaf level, digest version, and a check of the secret.
func (s *Store) openLayout() error {
	check := sha256.Sum256(append([]byte("syntropy store check\x00"), s.opts.Secret[:]...))
	raw, found, err := s.Meta(metaLayout)
	if err != nil {
		return err
	}
	if !found {
		if err := s.checkEmpty(); err != nil {
			return err
		}
		row := []byte{layoutVersion, byte(s.opts.LeafLevel), merkle.DigestVersion}
		row = binary.BigEndian.AppendUint16(row, uint16(s.opts.Shards))
		return s.PutMeta(metaLayout, append(row, check[:8]...))
	}
	if len(raw) == 0 || raw[0] != layoutVersion {
		return fmt.Errorf("storage: the store has layout version %d, this program reads version %d: use the release that wrote it, or a newer one", first(raw), layoutVersion)
	}
	if len(raw) != 13 {
		return errors.New("storage: the layout row is malformed")
	}
	if v := raw[2]; v != merkle.DigestVersion {
		return fmt.Errorf("storage: the store has digests of version %d, this program computes version %d", v, merkle.DigestVersion)
	}
	if n := int(binary.BigEndian.Uint16(raw[3:])); n != s.opts.Shards {
		return fmt.Errorf("storage: the store was created with %d shards, not %d: the number of shards is fixed", n, s.opts.Shards)
	}
	if !bytes.Equal(raw[5:], check[:8]) {
		return errors.New("storage: the store was written with another cluster's secret")
	}
	s.opts.LeafLevel = int(raw[1])
	if s.opts.LeafLevel < 1 || s.opts.LeafLevel > merkle.MaxLeafLevel {
		return errors.New("storage: the layout row is malformed")
	}
	return nil
}

// checkEmpty makes sure that a store without a layout row is a new one, and not
// one that lost it. Where there are entries, there are leaves.
func (s *Store) checkEmpty() error {
	empty := true
	err := s.engine.Scan([]byte{prefixLeaf}, []byte{prefixLeaf + 1}, func(_, _ []byte) bool {
		empty = false
		return false
	})
	if err == nil && !empty {
		err = errors.New("storage: there are rows but no layout row: the store is damaged, restore it or start from an empty directory")
	}
	return err
}

func first(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return int(b[0])
}

// loadLeaves fills the trees from the stored leaves.
func (s *Store) loadLeaves() error {
	var bad error
	err := s.engine.Scan([]byte{prefixLeaf}, []byte{prefixLeaf + 1}, func(k, v []byte) bool {
		if len(k) != 7 {
			bad = errLeafRow
			return false
		}
		shard := int(binary.BigEndian.Uint16(k[1:]))
		leaf := merkle.Node{Level: uint8(s.opts.LeafLevel), Path: uint64(binary.BigEndian.Uint32(k[3:]))}
		row, err := decodeLeafRow(v)
		if err != nil || shard >= s.opts.Shards || !leaf.Valid() {
			bad = errLeafRow
			return false
		}
		s.trees[shard].Adjust(leaf.First(), row.digest, merkle.Digest{})
		s.stats.entries.Add(row.digest.Count)
		s.stats.tombstones.Add(row.tombstones)
		if row.tombstones > 0 {
			s.tombstones[leafID{shard, leaf}] = row.tombstones
		}
		return true
	})
	return errors.Join(err, bad)
}

// Close makes every write durable. The store must not be used afterwards.
func (s *Store) Close() error {
	err := s.Sync()
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

// Digest returns the digest of an entry under the cluster's secret.
func (s *Store) Digest(e lww.Entry) merkle.Digest { return s.hasher.Entry(e) }

// Get returns the entry of a key, which may be a tombstone or expired. The
// caller owns it.
func (s *Store) Get(key []byte) (e lww.Entry, found bool, err error) {
	shard, token := s.Locate(key)
	row, found, err := s.engine.Get(appendDataKey(nil, shard, token, key))
	if err != nil {
		return lww.Entry{}, false, fmt.Errorf("storage: reading %q: %w", key, err)
	}
	if !found {
		return lww.Entry{}, false, nil
	}
	e, err = lww.DecodeRow(key, row)
	if err != nil {
		return lww.Entry{}, false, fmt.Errorf("storage: reading %q: %w", key, err)
	}
	return e, true, nil
}

// Scan visits the entries of a shard from a token on, in the order of token and
// key, until visit returns false. Tombstones and expired entries are visited
// too. The entry belongs to the store and changes after visit returns.
func (s *Store) Scan(shard int, from ring.Token, visit func(ring.Token, lww.Entry) (more bool)) error {
	return scan(s.engine, shard, from, ring.MaxToken, visit)
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
