package hint

import (
	"bytes"
	"fmt"

	"syntropy/hlc"
	"syntropy/lww"
)

// Batch is a piece of the hints of one target, oldest first. Its memory is its
// own.
type Batch struct {
	Target  hlc.NodeID
	Entries []lww.Entry

	rows []row // where the entries came from, in the order of their keys
}

// row names a hint and says how many bytes it counts.
type row struct {
	place
	bytes int64
}

// Next returns the oldest hints of a target that are still worth sending at now:
// as many as bytesMax holds, at least one if there is any. The batch is empty
// when there is none. It stays in the queue until Delivered; the same call again
// returns the same hints.
//
// Hints outside the window and rows that cannot be decoded are dropped on the
// way. An error is the engine's.
func (q *Queue) Next(target hlc.NodeID, now hlc.Stamp, bytesMax int) (Batch, error) {
	if err := q.expire(target, now); err != nil {
		return Batch{}, err
	}
	for {
		b, damaged, err := q.read(target, int64(bytesMax))
		if err == nil {
			err = q.remove(target, damaged, damagedHints)
		}
		if err != nil {
			return Batch{}, err
		}
		if len(b.Entries) > 0 || len(damaged) == 0 {
			return b, nil
		}
		// Only damaged rows so far. Each turn leaves fewer of them.
	}
}

// read reads the front of a target's hints: those that can be decoded, and the
// rows that cannot.
func (q *Queue) read(target hlc.NodeID, bytesMax int64) (b Batch, damaged []row, err error) {
	b.Target = target
	lower, found := q.front(target)
	if !found {
		return b, nil, nil
	}
	var total int64
	err = q.engine.Scan(lower, afterTarget(target), func(k, v []byte) bool {
		_, p, ok := splitKey(k)
		if !ok {
			return true // removed at the next opening
		}
		r := row{p, rowBytes(k, v)}
		if len(b.Entries) > 0 && total+r.bytes > bytesMax {
			return false
		}
		// The entry points into this copy.
		e, err := decodeRow(p, bytes.Clone(v))
		if err != nil {
			damaged = append(damaged, r)
			return len(damaged) < chunkRows
		}
		b.Entries = append(b.Entries, e)
		b.rows = append(b.rows, r)
		total += r.bytes
		return true
	})
	if err != nil {
		return Batch{}, nil, fmt.Errorf("hint: reading the hints for %v: %w", target, err)
	}
	return b, damaged, nil
}

// Delivered forgets the hints of a batch that its target has taken over. Hints
// that were dropped meanwhile, or delivered already, are passed over. An error
// is the engine's: some of the batch may then come again.
func (q *Queue) Delivered(b Batch) error { return q.remove(b.Target, b.rows, delivered) }

// front returns the lower bound of the hints of a target, if there are any.
// Reading begins at the oldest and not at the start of the range, since deleted
// rows are in the way of an iterator until they are compacted away: a queue that
// was always read from its start would become slower the more it has delivered.
func (q *Queue) front(target hlc.NodeID) (lower []byte, found bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t, found := q.targets[target]
	return rowKey(target, place{stamp: t.Oldest}), found
}
