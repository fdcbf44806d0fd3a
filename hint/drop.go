package hint

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"syntropy/hlc"
	"syntropy/storage"
)

// Hints are removed in chunks: the rows of one are read again under the lock,
// and no Add should wait for more than a moment.
const (
	chunkRows  = 1024
	chunkBytes = 1 << 20 // the row that reaches it is the last
)

// reason says as what removed hints are counted.
type reason uint8

const (
	delivered reason = iota
	expired
	forgotten
	damagedHints
)

// Expire drops the hints of all targets that are outside the window at now, so
// that a target that never returns does not keep the disk full. It is cheap when
// nothing has expired.
func (q *Queue) Expire(now hlc.Stamp) error {
	var failed error
	for _, target := range q.pendingTargets() {
		failed = errors.Join(failed, q.expire(target, now))
	}
	return failed
}

func (q *Queue) pendingTargets() []hlc.NodeID {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Sorted(maps.Keys(q.targets))
}

// expire drops what is outside the window of one target.
func (q *Queue) expire(target hlc.NodeID, now hlc.Stamp) error {
	cutoff := now.Add(-q.opts.Window) // the first stamp that is still worth sending
	q.mu.Lock()
	t, found := q.targets[target]
	q.mu.Unlock()
	if !found || t.Oldest >= cutoff {
		return nil
	}
	_, err := q.drop(target, t.Oldest, rowKey(target, place{stamp: cutoff}), expired)
	return err
}

// Forget drops all hints that were there for a target when it was called: the
// target is gone for good, or was filled by other means. It returns how many,
// also with an error, which is the engine's.
func (q *Queue) Forget(target hlc.NodeID) (dropped int64, err error) {
	q.mu.Lock()
	t, found := q.targets[target]
	q.mu.Unlock()
	if !found {
		return 0, nil
	}
	return q.drop(target, t.Oldest, afterTarget(target), forgotten)
}

// drop removes the rows of a target from a stamp on and below upper. The scan
// shows one moment, so hints that are added meanwhile do not prolong it.
func (q *Queue) drop(target hlc.NodeID, from hlc.Stamp, upper []byte, why reason) (dropped int64, err error) {
	var c chunk
	var failed error
	flush := func() {
		var n int64
		n, failed = q.removeChunk(target, c.rows, why)
		dropped += n
		c.clear()
	}
	err = q.engine.Scan(rowKey(target, place{stamp: from}), upper, func(k, v []byte) bool {
		_, p, ok := splitKey(k)
		if !ok {
			return true // removed at the next opening
		}
		if c.add(row{p, rowBytes(k, v)}); c.full() {
			flush()
		}
		return failed == nil
	})
	if err != nil {
		err = fmt.Errorf("hint: reading the hints for %v: %w", target, err)
	} else if failed == nil {
		flush()
	}
	return dropped, errors.Join(err, failed)
}

// remove removes rows, sorted by place, in chunks.
func (q *Queue) remove(target hlc.NodeID, rows []row, why reason) error {
	var c chunk
	for i, r := range rows {
		if c.add(r); c.full() || i == len(rows)-1 {
			if _, err := q.removeChunk(target, c.rows, why); err != nil {
				return err
			}
			c.clear()
		}
	}
	return nil
}

// chunk collects rows to be removed in one commit.
type chunk struct {
	rows  []row
	bytes int64
}

func (c *chunk) add(r row) {
	c.rows = append(c.rows, r)
	c.bytes += r.bytes
}

func (c *chunk) full() bool { return len(c.rows) >= chunkRows || c.bytes >= chunkBytes }

func (c *chunk) clear() { c.rows, c.bytes = c.rows[:0], 0 }

// removeChunk removes those rows that are still there. They were read without
// the lock, and may since have been evicted, expired or delivered; the counts
// stay true only if every row is taken off once. The commit is not synced: what
// a crash brings back is removed again.
func (q *Queue) removeChunk(target hlc.NodeID, rows []row, why reason) (removed int64, err error) {
	if len(rows) == 0 {
		return 0, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.sure(); err != nil {
		return 0, err
	}
	batch := q.engine.NewBatch()
	var gone Pending
	after := append(rowKey(target, rows[len(rows)-1].place), 0)
	err = q.engine.Scan(rowKey(target, rows[0].place), after, func(k, v []byte) bool {
		_, p, _ := splitKey(k)
		for len(rows) > 0 && rows[0].compare(p) < 0 {
			rows = rows[1:] // it is gone already
		}
		if len(rows) > 0 && rows[0].compare(p) == 0 {
			batch.Delete(k)
			gone.Count++
			gone.Bytes += rowBytes(k, v)
		}
		return true
	})
	if err == nil && gone.Count > 0 {
		err = q.commitGone(batch, target, gone, why)
	}
	if err != nil {
		return 0, fmt.Errorf("hint: removing hints for %v: %w", target, err)
	}
	return gone.Count, nil
}

// commitGone commits the deletion of rows and counts it. The caller holds q.mu.
func (q *Queue) commitGone(batch storage.Batch, target hlc.NodeID, gone Pending, why reason) error {
	wait, err := q.engine.Commit(batch, false)
	if err == nil {
		err = wait()
	}
	if err != nil {
		q.unsure = true
		return err
	}
	q.stats.count(why, gone.Count)
	oldest := q.targets[target].Oldest
	err = q.engine.Scan(rowKey(target, place{stamp: oldest}), afterTarget(target), func(k, _ []byte) bool {
		_, p, _ := splitKey(k)
		oldest = p.stamp
		return false
	})
	if err != nil {
		q.unsure = true // the counts are true, but not the oldest stamp
	}
	q.take(target, gone, oldest)
	return err
}
