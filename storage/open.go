package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"syntropy/merkle"
	"syntropy/ring"
)

// layoutVersion changes with the layout of rows. A store of another version is
// refused.
const layoutVersion = 3

const metaLayout = "layout"

// Open opens the store on an engine, creating it if the engine is empty. The
// caller keeps the ownership of the engine and closes it after the store.
func Open(engine Engine, opts Options) (*Store, error) {
	if opts.Shards < 1 || opts.Shards > ring.Slots || opts.Shards&(opts.Shards-1) != 0 {
		return nil, fmt.Errorf("storage: %d shards: the number must be a power of two between 1 and %d", opts.Shards, ring.Slots)
	}
	if opts.LeafKeys < 0 {
		return nil, fmt.Errorf("storage: %d entries for each leaf: the number must be positive, or zero for the default", opts.LeafKeys)
	}
	if opts.CheckpointWrites < 0 {
		return nil, fmt.Errorf("storage: a checkpoint after %d writes: the number must be positive, or zero for the default", opts.CheckpointWrites)
	}
	if opts.CheckpointWrites == 0 {
		opts.CheckpointWrites = DefaultCheckpointWrites
	}
	if opts.LeafKeys == 0 {
		opts.LeafKeys = merkle.DefaultLeafKeys
	}
	if opts.PhysicalDelete {
		opts.RecentEntries = -1 // a row that is gone cannot be shown as late
	}
	s := &Store{
		engine: engine,
		opts:   opts,
		tokens: ring.NewTokens(opts.Secret),
		hasher: merkle.NewHasher(opts.Secret),
		shards: make([]shard, opts.Shards),
		broken: make(chan struct{}),

		quarantine: newQuarantine(),

		queue:   queue{flying: make(chan struct{}, maxFlying)},
		stripes: make([]stripe, stripes),
	}
	if opts.VersionBytes == 0 {
		opts.VersionBytes = DefaultVersionBytes
	}
	if opts.VersionBytes > 0 && !opts.PhysicalDelete { // which forgets versions
		s.versions = newVersions(opts.VersionBytes)
	}
	if err := s.openLayout(); err != nil {
		return nil, err
	}
	if err := s.loadCheckpoint(); err != nil {
		return nil, err
	}
	if err := s.replayLog(); err != nil {
		return nil, err
	}
	for _, sh := range s.shards {
		s.stats.entries.Add(sh.tree.Root().Count)
		s.stats.tombstones.Add(sh.tombstones)
	}
	s.recent = newRecent(opts.RecentEntries, s.newest)
	return s, nil
}

// openLayout checks, or writes in a new store, what the rows depend on: layout
// version, shards, digest version, and a check of the secret.
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
		row := []byte{layoutVersion, merkle.DigestVersion}
		row = binary.BigEndian.AppendUint16(row, uint16(s.opts.Shards))
		return s.PutMeta(metaLayout, append(row, check[:8]...))
	}
	if len(raw) == 0 || raw[0] != layoutVersion {
		return fmt.Errorf("storage: the store has layout version %d, this program reads version %d: use the release that wrote it, or a newer one", first(raw), layoutVersion)
	}
	if len(raw) != 12 {
		return errors.New("storage: the layout row is malformed")
	}
	if v := raw[1]; v != merkle.DigestVersion {
		return fmt.Errorf("storage: the store has digests of version %d, this program computes version %d", v, merkle.DigestVersion)
	}
	if n := int(binary.BigEndian.Uint16(raw[2:])); n != s.opts.Shards {
		return fmt.Errorf("storage: the store was created with %d shards, not %d: the number of shards is fixed", n, s.opts.Shards)
	}
	if !bytes.Equal(raw[4:], check[:8]) {
		return errors.New("storage: the store was written with another cluster's secret")
	}
	return nil
}

// checkEmpty makes sure that a store without a layout row is a new one, and not
// one that lost it. Where there are entries, there are rows of trees.
func (s *Store) checkEmpty() error {
	empty := true
	for _, prefix := range []byte{prefixCheckpoint, prefixLeaves, prefixTotals, prefixTreeLog} {
		err := s.engine.Scan([]byte{prefix}, []byte{prefix + 1}, func(_, _ []byte) bool {
			empty = false
			return false
		})
		if err != nil {
			return err
		}
	}
	if !empty {
		return damaged("there are rows but no layout row")
	}
	return nil
}

func first(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return int(b[0])
}
