package storage

import (
	"bytes"
	"sync/atomic"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// stripes is the number of stripes that keys are spread over. A write makes those
// that met an older version of a key of its stripe read again, so there are far
// more stripes than writes under way. 16,384 take half a megabyte.
const stripes = 1 << 14

// stripe counts the writes to some of the keys.
type stripe struct {
	// writes grows after a write is committed. Whoever reads it, then a row, and
	// finds it the same under the lock, has the present version of the row.
	writes atomic.Uint64
	// last is the latest write of the group under construction, if group is that.
	group uint64
	last  *offer
}

func (s *Store) stripe(t ring.Token) *stripe { return &s.stripes[t%stripes] }

// change is a batch under construction: what it will have done to rows and trees
// once committed. Whoever has it holds s.mu.
type change struct {
	store    *Store
	batch    Batch
	writes   []*offer
	arrivals []arrival
	deltas   []delta
	expiring []expiring
	shards   []int // those that are written to
	newest   hlc.Stamp
	scratch  []byte
}

// delta is what a write does to the tree of its shard.
type delta struct {
	shard      int
	x          ring.Position
	digest     merkle.Digest
	tombstones uint64 // more than before, modulo 2^64
}

// commit decides and commits a group under the lock. The outcomes are in the
// calls; err is for all of them.
func (s *Store) commit(group []*call) (wait func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return nil, s.failed
	}
	s.groups++
	c := &s.change // its slices are used again
	*c = change{
		store: s, batch: s.engine.NewBatch(), scratch: c.scratch,
		writes: c.writes[:0], arrivals: c.arrivals[:0], deltas: c.deltas[:0], shards: c.shards[:0],
	}
	defer c.release()
	if s.writing == nil && s.checkpointDue() {
		s.beginCheckpoint(c.batch)
	}
	for _, call := range group {
		call.err = c.add(call)
	}
	c.log()
	if n := uint64(len(c.deltas)); n > 0 && s.writing != nil {
		s.carry(c.batch, n*s.writing.rate)
	}
	wait, err = s.engine.Commit(c.batch, !s.opts.NoSync)
	if err != nil {
		return nil, s.commitFailed(err)
	}
	c.committed()
	return wait, nil
}

// maxKept is the number of writes of which the slices are kept for the next group.
const maxKept = 2 * maxGroup

// release lets go of what the group is made of.
func (c *change) release() {
	if cap(c.writes) > maxKept {
		*c = change{}
		return
	}
	clear(c.writes)
	c.batch = nil
}

// add decides on the offers of a call. If an old version cannot be read, nothing
// of the call is added.
func (c *change) add(call *call) error {
	for i := range call.offers {
		if o := &call.offers[i]; c.store.stripe(o.token).writes.Load() != o.seen {
			if err := c.store.meet(call.offers[i : i+1]); err != nil {
				return err
			}
		}
	}
	call.results = make([]Result, len(call.offers))
	for i := range call.offers {
		call.results[i] = c.offer(&call.offers[i])
	}
	return nil
}

func (c *change) offer(o *offer) Result {
	old := c.meet(o)
	if old.found && old.order == 0 {
		return Result{Unchanged, old.Version}
	}
	applied := !old.found || old.order > 0
	c.arrive(o, old, applied)
	if !applied {
		return Result{Shadowed, old.Version}
	}
	c.replace(o, old)
	return Result{Applied, o.Version}
}

// meet returns what an offer meets: the last write to the key in this group, or
// what was there before it.
func (c *change) meet(o *offer) held {
	st := c.store.stripe(o.token)
	if st.group != c.store.groups {
		return o.met
	}
	for w := st.last; w != nil; w = w.below {
		if !bytes.Equal(w.rowKey, o.rowKey) {
			continue
		}
		if w.Tombstone && c.store.opts.PhysicalDelete {
			return held{}
		}
		return held{found: true, order: lww.Compare(o.Entry, w.Entry), Version: w.Version, sum: w.sum}
	}
	return o.met
}

func (c *change) arrive(o *offer, old held, applied bool) {
	if c.store.opts.WithoutTree {
		return
	}
	a := arrival{row: rowID{o.shard, o.token}, applied: applied, offered: version{o.Version, o.sum}}
	if old.found {
		a.met = version{old.Version, old.sum}
	}
	c.arrivals = append(c.arrivals, a)
}

// replace puts the new version in place of the old one in data, index and tree.
func (c *change) replace(o *offer, old held) {
	d := delta{shard: o.shard, x: ring.At(o.shard, o.token, c.store.opts.Shards)}
	if old.found {
		d.digest = d.digest.Minus(merkle.DigestOf(d.x, old.sum))
		if old.Tombstone {
			d.tombstones--
		}
		if k, ok := appendGarbageKey(c.scratch[:0], o.shard, o.token, o.Key, old.Version); ok {
			c.batch.Delete(k)
			c.scratch = k
			c.noteExpiry(old.Version, -1)
		}
	}
	if o.Tombstone && c.store.opts.PhysicalDelete {
		c.batch.Delete(o.rowKey)
	} else {
		c.batch.Set(o.rowKey, o.row)
		if k, ok := appendGarbageKey(c.scratch[:0], o.shard, o.token, o.Key, o.Version); ok {
			c.batch.Set(k, nil)
			c.scratch = k
			c.noteExpiry(o.Version, 1)
		}
		d.digest = d.digest.Plus(merkle.DigestOf(d.x, o.sum))
		if o.Tombstone {
			d.tombstones++
		}
	}
	st := c.store.stripe(o.token)
	if st.group != c.store.groups {
		st.group, st.last = c.store.groups, nil
	}
	o.below, st.last = st.last, o
	c.writes = append(c.writes, o)
	c.newest = max(c.newest, o.Newest())
	if c.store.opts.WithoutTree {
		return
	}
	c.deltas = append(c.deltas, d)
	sh := &c.store.shards[o.shard]
	if sh.writes == 0 {
		c.shards = append(c.shards, o.shard)
		sh.sum = merkle.Sum{}
	}
	sh.writes++
	sh.sum = sh.sum.Plus(d.digest.Sum)
}

// noteExpiry notes a version that has a row in the garbage index, if it expires.
func (c *change) noteExpiry(v lww.Version, n int64) {
	if at, ok := purgeableAt(v); ok && !v.Tombstone {
		c.expiring = append(c.expiring, expiring{at, n})
	}
}

// committed brings memory to where the batch is.
func (c *change) committed() {
	s := c.store
	for _, o := range c.writes {
		if s.versions != nil {
			s.versions.put(o, o.Version, o.sum)
		}
		st := s.stripe(o.token)
		st.writes.Add(1)
		st.last = nil // for the garbage collector
	}
	var total delta
	for _, d := range c.deltas {
		sh := &s.shards[d.shard]
		sh.tree.Adjust(d.x, d.digest)
		sh.tombstones += d.tombstones
		total.digest.Count += d.digest.Count
		total.tombstones += d.tombstones
	}
	s.stats.entries.Add(total.digest.Count)
	s.stats.tombstones.Add(total.tombstones)
	for _, e := range c.expiring {
		s.expiries.add(e)
	}
	s.newest = max(s.newest, c.newest)
	for _, a := range c.arrivals {
		s.recent.add(a)
	}
	for _, shard := range c.shards {
		s.resize(shard, s.shards[shard].writes)
		s.shards[shard].writes = 0
	}
}
