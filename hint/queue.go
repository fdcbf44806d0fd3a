package hint

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
)

const (
	// DefaultWindow is long enough for a reboot, an upgrade or a walk to the
	// machine, and short enough that deletes can be forgotten after days.
	DefaultWindow = 3 * time.Hour
	// DefaultBytesMax holds some seven million writes of 100 bytes: three hours
	// of 650 writes a second. A node that missed more is better served by
	// anti-entropy, which moves each key once however often it was written.
	DefaultBytesMax = 1 << 30
)

// Options configure a queue; the zero value works.
type Options struct {
	// Window is the age at which hints are worthless, by the newest stamp of
	// their entry. It belongs to the cluster: receivers refuse what is older.
	// Zero means DefaultWindow. A short one leaves more to anti-entropy.
	Window time.Duration
	// BytesMax bounds the rows of all targets together, keys included. Zero
	// means DefaultBytesMax. When it is reached the oldest hints of the target
	// that has the most bytes make room.
	BytesMax int64
	// NoSync returns from Add before hints are durable, as storage.Options.NoSync
	// does for writes.
	NoSync bool
}

// Queue holds the hints of one node for all other nodes. It is safe for
// concurrent use.
type Queue struct {
	engine storage.Engine
	opts   Options

	sequence atomic.Uint64 // the last one given away

	// mu is held while rows appear and disappear, so that counts and rows agree.
	// It is not held while hints become durable or are read for sending.
	mu      sync.Mutex
	targets map[hlc.NodeID]Pending // those with hints
	bytes   int64                  // over all targets
	// unsure is set by a commit of which nobody knows whether it was applied. The
	// rows are counted anew before the next change.
	unsure bool
	stats  Stats // all but Pending
}

// Open opens the queue on the engine, which stays the caller's, and counts the
// hints that are there: it reads all of them, one at a time. At most one queue
// may be open on an engine.
//
// Rows that no queue can have written are removed and counted as damaged. Hints
// over the bound, which was higher before, are dropped.
func Open(engine storage.Engine, o Options) (*Queue, error) {
	switch {
	case o.Window < 0:
		return nil, fmt.Errorf("hint: a window of %v is negative: leave it 0 for %v", o.Window, DefaultWindow)
	case o.BytesMax < 0:
		return nil, fmt.Errorf("hint: a bound of %d bytes is negative: leave it 0 for %d", o.BytesMax, int64(DefaultBytesMax))
	}
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	if o.BytesMax == 0 {
		o.BytesMax = DefaultBytesMax
	}
	q := &Queue{engine: engine, opts: o}
	if err := q.removeForeign(); err != nil {
		return nil, err
	}
	if err := q.recount(); err != nil {
		return nil, err
	}
	return q, q.shrink()
}

// removeForeign deletes rows with keys that no target could ever reach.
func (q *Queue) removeForeign() error {
	var chunk [][]byte
	var failed error
	remove := func() {
		b := q.engine.NewBatch()
		for _, k := range chunk {
			b.Delete(k)
		}
		wait, err := q.engine.Commit(b, false)
		if err == nil {
			err = wait()
		}
		failed = err
		q.stats.Damaged += int64(len(chunk))
		chunk = chunk[:0]
	}
	err := q.engine.Scan([]byte{prefix}, []byte{prefix + 1}, func(k, _ []byte) bool {
		if _, _, ok := splitKey(k); !ok {
			if chunk = append(chunk, bytes.Clone(k)); len(chunk) == chunkRows {
				remove()
			}
		}
		return failed == nil
	})
	if err == nil && failed == nil && len(chunk) > 0 {
		remove()
	}
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("hint: reading the queue: %w", err)
	}
	return nil
}

// recount sets the counts from the rows. The caller holds q.mu, or has q to
// itself.
func (q *Queue) recount() error {
	targets := make(map[hlc.NodeID]Pending)
	var total int64
	var last uint64
	err := q.engine.Scan([]byte{prefix}, []byte{prefix + 1}, func(k, v []byte) bool {
		target, p, ok := splitKey(k)
		if !ok {
			return true // removed at the next opening
		}
		t, found := targets[target]
		if !found {
			t.Oldest = p.stamp // rows come in the order of their stamps
		}
		t.Count++
		t.Bytes += rowBytes(k, v)
		targets[target] = t
		total += rowBytes(k, v)
		last = max(last, p.sequence)
		return true
	})
	if err != nil {
		return fmt.Errorf("hint: counting the queue: %w", err)
	}
	q.targets, q.bytes, q.unsure = targets, total, false
	if last > q.sequence.Load() {
		q.sequence.Store(last)
	}
	return nil
}

// sure makes the counts true again after a failed commit. The caller holds q.mu.
func (q *Queue) sure() error {
	if !q.unsure {
		return nil
	}
	return q.recount()
}

// Add keeps entries for a target. They are durable when it returns (unless
// Options.NoSync). The entries remain the caller's.
//
// Add never fails for lack of room: older hints make way, and an entry that is
// larger than the whole bound is dropped at once, both counted in Stats. A
// malformed entry, or a target of 0, is an error before anything happens; any
// other error is the engine's and says nothing of whether the hints are kept.
func (q *Queue) Add(target hlc.NodeID, entries []lww.Entry) error {
	if target == 0 {
		return errors.New("hint: a hint needs a target: node 0 is no node")
	}
	for _, e := range entries {
		if err := e.Validate(); err != nil {
			return fmt.Errorf("hint: refusing entry %q: %w", e.Key, err)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	kept := q.fitting(entries)
	batch := q.engine.NewBatch()
	var added Pending
	var row []byte
	for _, e := range kept {
		p := place{e.Newest(), q.sequence.Add(1)}
		key := rowKey(target, p)
		row = lww.AppendEntry(row[:0], e)
		batch.Set(key, row)
		if added.Count == 0 || p.stamp < added.Oldest {
			added.Oldest = p.stamp
		}
		added.Count++
		added.Bytes += rowBytes(key, row)
	}
	wait, err := q.commitAdded(batch, target, added, len(entries))
	if err == nil {
		err = wait()
	}
	if err != nil {
		return fmt.Errorf("hint: keeping %d writes for %v: %w", len(entries), target, err)
	}
	return nil
}

// fitting returns the entries that fit into the whole bound together, the last
// ones first. Only a bound of a few MiB ever drops one here.
func (q *Queue) fitting(entries []lww.Entry) []lww.Entry {
	var total int64
	var kept []lww.Entry
	for _, e := range slices.Backward(entries) {
		if size := int64(keyBytes + lww.EncodedLen(e)); total+size <= q.opts.BytesMax {
			kept = append(kept, e)
			total += size
		}
	}
	slices.Reverse(kept)
	return kept
}

// commitAdded makes room for what the batch holds and commits it. offered is the
// number of entries that the caller of Add had.
func (q *Queue) commitAdded(batch storage.Batch, target hlc.NodeID, added Pending, offered int) (func() error, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.sure(); err != nil {
		return nil, err
	}
	evicted, err := q.makeRoom(batch, q.bytes+added.Bytes-q.opts.BytesMax)
	if err != nil {
		return nil, err
	}
	wait, err := q.engine.Commit(batch, !q.opts.NoSync)
	if err != nil {
		q.unsure = true
		return nil, err
	}
	q.stats.Added += int64(offered)
	q.stats.Dropped += int64(offered) - added.Count
	q.evict(evicted)
	q.put(target, added)
	return wait, nil
}

// put counts new hints. The caller holds q.mu.
func (q *Queue) put(target hlc.NodeID, added Pending) {
	if added.Count == 0 {
		return
	}
	t, found := q.targets[target]
	if !found || added.Oldest < t.Oldest {
		t.Oldest = added.Oldest
	}
	t.Count += added.Count
	t.Bytes += added.Bytes
	q.targets[target] = t
	q.bytes += added.Bytes
}

// take counts hints that are gone; oldest is the stamp of the first that is left.
// The caller holds q.mu.
func (q *Queue) take(target hlc.NodeID, gone Pending, oldest hlc.Stamp) {
	t := q.targets[target]
	t.Count -= gone.Count
	t.Bytes -= gone.Bytes
	t.Oldest = oldest
	q.bytes -= gone.Bytes
	if t.Count == 0 {
		delete(q.targets, target)
	} else {
		q.targets[target] = t
	}
}
