package storage

import (
	"errors"
	"fmt"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// offer is an entry on its way into the store, with all that can be computed
// before the lock is taken.
type offer struct {
	lww.Entry
	shard  int
	token  ring.Token
	digest merkle.Digest
	rowKey []byte
}

// Apply offers entries to the store. Each replaces the version that the store
// has if it is newer. All changes of one call are one atomic batch, durable when
// Apply returns (unless Options.NoSync). The entries remain the caller's.
//
// A malformed entry, or an old version that cannot be read, is an error before
// anything happens. Any other error means that nothing can be said of any of the
// entries; the store then refuses every further write, since memory and disk may
// differ until it is opened again.
func (s *Store) Apply(entries []lww.Entry) ([]Result, error) {
	offers := make([]offer, len(entries))
	for i, e := range entries {
		if err := e.Validate(); err != nil {
			return nil, fmt.Errorf("storage: refusing entry %q: %w", e.Key, err)
		}
		o := offer{Entry: e, digest: s.hasher.Entry(e)}
		o.shard, o.token = s.Locate(e.Key)
		o.rowKey = appendDataKey(nil, o.shard, o.token, e.Key)
		offers[i] = o
	}
	results, wait, err := s.commit(offers)
	if err != nil {
		return nil, err
	}
	if err := wait(); err != nil {
		return nil, s.fail(err)
	}
	return results, nil
}

// commit decides and commits under the lock.
func (s *Store) commit(offers []offer) ([]Result, func() error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return nil, nil, s.failed
	}
	c := change{
		store:  s,
		batch:  s.engine.NewBatch(),
		rows:   make(map[string]held),
		leaves: make(map[leafID]*leafChange),
	}
	results := make([]Result, len(offers))
	for i, o := range offers {
		r, err := c.offer(o)
		if err != nil {
			return nil, nil, err // nothing was committed
		}
		results[i] = r
	}
	c.putLeaves()
	wait, err := s.engine.Commit(c.batch, !s.opts.NoSync)
	if err != nil {
		return nil, nil, s.commitFailed(err)
	}
	c.adjustTrees()
	return results, wait, nil
}

// commitFailed is for a batch of which nobody knows whether it was applied. The
// caller holds s.mu.
func (s *Store) commitFailed(err error) error {
	return s.failWith(fmt.Errorf("storage: a commit failed, the store takes no more writes: %w", err))
}

// fail is for a batch that was applied and may not survive.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failWith(fmt.Errorf("storage: a commit did not become durable, the store takes no more writes: %w", err))
}

// failWith keeps the first failure. The caller holds s.mu.
func (s *Store) failWith(err error) error {
	if s.failed == nil || errors.Is(s.failed, ErrClosed) {
		s.failed = err
		close(s.broken)
	}
	return s.failed
}

// change is the batch under construction: what it will have done to rows and
// leaves once committed.
type change struct {
	store  *Store
	batch  Batch
	rows   map[string]held // versions put by this batch, for a key that occurs twice
	leaves map[leafID]*leafChange
}

// held is the version of a key that an offer meets.
type held struct {
	entry  lww.Entry
	digest merkle.Digest
	found  bool
}

type leafChange struct {
	plus, minus merkle.Digest
	tombstones  uint64 // after the change
}

func (c *change) offer(o offer) (Result, error) {
	old, err := c.lookup(o)
	if err != nil {
		return Result{}, err
	}
	if old.found {
		switch order := lww.Compare(o.Entry, old.entry); {
		case order == 0:
			return Result{Unchanged, old.entry.Version}, nil
		case order < 0:
			return Result{Shadowed, old.entry.Version}, nil
		}
	}
	c.replace(o, old)
	return Result{Applied, o.Version}, nil
}

func (c *change) lookup(o offer) (held, error) {
	if h, ok := c.rows[string(o.rowKey)]; ok {
		return h, nil
	}
	row, found, err := c.store.engine.Get(o.rowKey)
	if err != nil {
		return held{}, fmt.Errorf("storage: reading the old version of %q: %w", o.Key, err)
	}
	if !found {
		return held{}, nil
	}
	e, err := lww.DecodeRow(o.Key, row)
	if err != nil {
		return held{}, fmt.Errorf("storage: the old version of %q: %w", o.Key, err)
	}
	return held{e, c.store.hasher.Entry(e), true}, nil
}

// replace puts the new version in place of the old one in data, index and leaf.
func (c *change) replace(o offer, old held) {
	leaf := c.leaf(o)
	if old.found {
		leaf.minus = leaf.minus.Plus(old.digest)
		if old.entry.Tombstone {
			leaf.tombstones--
		}
		if k, ok := appendGarbageKey(nil, o.shard, o.token, old.entry); ok {
			c.batch.Delete(k)
		}
	}
	if o.Tombstone && c.store.opts.PhysicalDelete {
		c.batch.Delete(o.rowKey)
		c.rows[string(o.rowKey)] = held{}
		return
	}
	c.batch.Set(o.rowKey, lww.AppendRow(nil, o.Entry))
	if k, ok := appendGarbageKey(nil, o.shard, o.token, o.Entry); ok {
		c.batch.Set(k, nil)
	}
	leaf.plus = leaf.plus.Plus(o.digest)
	if o.Tombstone {
		leaf.tombstones++
	}
	c.rows[string(o.rowKey)] = held{o.Entry, o.digest, true}
}

func (c *change) leaf(o offer) *leafChange {
	id := leafID{o.shard, c.store.trees[o.shard].Leaf(o.token)}
	l := c.leaves[id]
	if l == nil {
		l = &leafChange{tombstones: c.store.tombstones[id]}
		c.leaves[id] = l
	}
	return l
}

// putLeaves adds the changed leaves to the batch.
func (c *change) putLeaves() {
	for id, l := range c.leaves {
		d, _ := c.store.trees[id.shard].Digest(id.leaf)
		row := leafRow{d.Plus(l.plus).Minus(l.minus), l.tombstones}
		c.batch.Set(appendLeafKey(nil, id.shard, id.leaf), row.append(nil))
	}
}

// adjustTrees brings memory to where the committed batch is.
func (c *change) adjustTrees() {
	for id, l := range c.leaves {
		c.store.trees[id.shard].Adjust(id.leaf.First(), l.plus, l.minus)
		c.store.stats.entries.Add(l.plus.Count - l.minus.Count)
		c.store.stats.tombstones.Add(l.tombstones - c.store.tombstones[id])
		if l.tombstones == 0 {
			delete(c.store.tombstones, id)
		} else {
			c.store.tombstones[id] = l.tombstones
		}
	}
}
