package storage

import (
	"errors"
	"fmt"

	"syntropy/hlc"
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
	sum    merkle.Sum
	rowKey []byte
}

// Apply offers entries to the store. Each replaces the version that the store
// has if it is newer. All changes of one call are one atomic batch, durable when
// Apply returns (unless Options.NoSync). The entries remain the caller's.
//
// A malformed entry, or an old version that cannot be read, is an error before
// anything happens; one that has rotted is replaced, and its place in quarantine from
// then on. Any other error means that nothing can be said of any of the
// entries; the store then refuses every further write, since memory and disk may
// differ until it is opened again.
func (s *Store) Apply(entries []lww.Entry) ([]Result, error) {
	offers := make([]offer, len(entries))
	for i, e := range entries {
		if err := e.Validate(); err != nil {
			return nil, fmt.Errorf("storage: refusing entry %q: %w", e.Key, err)
		}
		o := offer{Entry: e, sum: s.hasher.Entry(e)}
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
		leaves: make(map[leafID]merkle.Digest),
		shards: make(map[int]*shardChange),
	}
	results := make([]Result, len(offers))
	for i, o := range offers {
		r, err := c.offer(o)
		if err != nil {
			return nil, nil, err // nothing was committed
		}
		results[i] = r
	}
	c.putTrees()
	wait, err := s.engine.Commit(c.batch, !s.opts.NoSync)
	if err != nil {
		return nil, nil, s.commitFailed(err)
	}
	c.adjustTrees()
	for _, a := range c.arrivals {
		s.recent.add(a)
	}
	s.resize(c.shards)
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

// change is the batch under construction: what it will have done to rows, leaves
// and totals once committed.
type change struct {
	store    *Store
	batch    Batch
	rows     map[string]held // versions put by this batch, for a key that occurs twice
	leaves   map[leafID]merkle.Digest
	shards   map[int]*shardChange
	arrivals []arrival
}

// held is the version of a key that an offer meets.
type held struct {
	entry lww.Entry
	sum   merkle.Sum
	found bool
}

// leafID names a leaf: the node says the shard too, but not by itself.
type leafID struct {
	shard int
	leaf  merkle.Node
}

type shardChange struct {
	digest     merkle.Digest
	tombstones uint64 // more than before, modulo 2^64
	newest     hlc.Stamp
	writes     int
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
			c.arrive(o, old, false)
			return Result{Shadowed, old.entry.Version}, nil
		}
	}
	c.arrive(o, old, true)
	c.replace(o, old)
	return Result{Applied, o.Version}, nil
}

func (c *change) lookup(o offer) (held, error) {
	if h, ok := c.rows[string(o.rowKey)]; ok {
		return h, nil
	}
	row, found, err := c.store.engine.Get(o.rowKey)
	var e lww.Entry
	if err == nil && found {
		e, err = lww.DecodeRow(o.Key, row)
	}
	if err != nil && c.store.noteUnreadable(ring.At(o.shard, o.token, c.store.opts.Shards), err) {
		// What has rotted is lost here, as on a disk that was replaced, and the write
		// is taken as there. Its leaf still counts the old row: it is in quarantine
		// until it is healed.
		return held{}, nil
	}
	if err != nil {
		return held{}, fmt.Errorf("storage: reading the old version of %q: %w", o.Key, err)
	}
	if !found {
		return held{}, nil
	}
	return held{e, c.store.hasher.Entry(e), true}, nil
}

func (c *change) arrive(o offer, old held, applied bool) {
	a := arrival{row: rowID{o.shard, o.token}, applied: applied, offered: version{o.Version, o.sum}}
	if old.found {
		a.met = version{old.entry.Version, old.sum}
	}
	c.arrivals = append(c.arrivals, a)
}

// replace puts the new version in place of the old one in data, index, leaf and
// totals.
func (c *change) replace(o offer, old held) {
	x := ring.At(o.shard, o.token, c.store.opts.Shards)
	sc := c.shards[o.shard]
	if sc == nil {
		sc = new(shardChange)
		c.shards[o.shard] = sc
	}
	sc.writes++
	sc.newest = max(sc.newest, o.Newest())
	var delta merkle.Digest
	if old.found {
		delta = delta.Minus(merkle.DigestOf(x, old.sum))
		if old.entry.Tombstone {
			sc.tombstones--
		}
		if k, ok := appendGarbageKey(nil, o.shard, o.token, old.entry); ok {
			c.batch.Delete(k)
		}
	}
	if o.Tombstone && c.store.opts.PhysicalDelete {
		c.batch.Delete(o.rowKey)
		c.rows[string(o.rowKey)] = held{}
	} else {
		c.batch.Set(o.rowKey, lww.AppendRow(nil, o.Entry))
		if k, ok := appendGarbageKey(nil, o.shard, o.token, o.Entry); ok {
			c.batch.Set(k, nil)
		}
		delta = delta.Plus(merkle.DigestOf(x, o.sum))
		if o.Tombstone {
			sc.tombstones++
		}
		c.rows[string(o.rowKey)] = held{o.Entry, o.sum, true}
	}
	id := leafID{o.shard, c.store.shards[o.shard].tree.Leaf(x)}
	c.leaves[id] = c.leaves[id].Plus(delta)
	sc.digest = sc.digest.Plus(delta)
}

// putTrees adds the changed leaves and totals to the batch.
func (c *change) putTrees() {
	for id, delta := range c.leaves {
		s := c.store.shards[id.shard].tree.LeafSyndrome(id.leaf)
		putLeaf(c.batch, id.shard, id.leaf, s.Plus(delta.Syndrome))
	}
	for shard, sc := range c.shards {
		t := c.store.totals(shard)
		t.sum = t.sum.Plus(sc.digest.Sum)
		t.newest = max(t.newest, sc.newest)
		t.entries += sc.digest.Count
		t.tombstones += sc.tombstones
		c.batch.Set(appendTotalsKey(nil, shard), t.append(nil))
	}
}

func putLeaf(b Batch, shard int, leaf merkle.Node, s merkle.Syndrome) {
	if k := appendLeafKey(nil, shard, leaf); s.IsZero() {
		b.Delete(k)
	} else {
		b.Set(k, s.Append(nil))
	}
}

// adjustTrees brings memory to where the committed batch is.
func (c *change) adjustTrees() {
	for id, delta := range c.leaves {
		c.store.shards[id.shard].tree.Adjust(id.leaf.First(), delta)
	}
	for shard, sc := range c.shards {
		sh := &c.store.shards[shard]
		sh.tombstones += sc.tombstones
		sh.newest = max(sh.newest, sc.newest)
		c.store.stats.entries.Add(sc.digest.Count)
		c.store.stats.tombstones.Add(sc.tombstones)
	}
}
