package hint

import (
	"fmt"

	"syntropy/hlc"
	"syntropy/storage"
)

// eviction is what one target gives up.
type eviction struct {
	gone   Pending
	oldest hlc.Stamp // of what is left
}

// makeRoom adds to the batch the deletion of at least need bytes of hints. The
// target that has the most gives all of it, its oldest first, as long as it has
// any: a target that is away for hours must not cost a neighbour that is away for
// a minute its few hints. Of two with as many bytes it is the lower id.
//
// The counts are the caller's to change once the batch is committed. The caller
// holds q.mu.
func (q *Queue) makeRoom(batch storage.Batch, need int64) (map[hlc.NodeID]eviction, error) {
	if need <= 0 {
		return nil, nil
	}
	evicted := make(map[hlc.NodeID]eviction)
	for need > 0 {
		fattest, found := q.fattest(evicted)
		if !found {
			break // nothing is left, and what is to be added fits by itself
		}
		var e eviction
		lower := rowKey(fattest, place{stamp: q.targets[fattest].Oldest})
		err := q.engine.Scan(lower, afterTarget(fattest), func(k, v []byte) bool {
			if need <= 0 {
				_, p, _ := splitKey(k)
				e.oldest = p.stamp
				return false
			}
			batch.Delete(k)
			e.gone.Count++
			e.gone.Bytes += rowBytes(k, v)
			need -= rowBytes(k, v)
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("making room: %w", err)
		}
		evicted[fattest] = e
	}
	return evicted, nil
}

// evict counts what makeRoom deleted. The caller holds q.mu.
func (q *Queue) evict(evicted map[hlc.NodeID]eviction) {
	for id, e := range evicted {
		q.stats.Dropped += e.gone.Count
		q.take(id, e.gone, e.oldest)
	}
}

// shrink drops what is over the bound, in chunks. The caller has q to itself.
func (q *Queue) shrink() error {
	for q.bytes > q.opts.BytesMax {
		batch := q.engine.NewBatch()
		evicted, err := q.makeRoom(batch, min(q.bytes-q.opts.BytesMax, chunkBytes))
		if err != nil {
			return fmt.Errorf("hint: %w", err)
		}
		wait, err := q.engine.Commit(batch, false)
		if err == nil {
			err = wait()
		}
		if err != nil {
			return fmt.Errorf("hint: making room: %w", err)
		}
		q.evict(evicted)
	}
	return nil
}

// fattest returns the target with the most bytes among those that are not in
// done.
func (q *Queue) fattest(done map[hlc.NodeID]eviction) (fattest hlc.NodeID, found bool) {
	var most int64
	for id, t := range q.targets {
		if _, gave := done[id]; gave {
			continue
		}
		if !found || t.Bytes > most || t.Bytes == most && id < fattest {
			fattest, most, found = id, t.Bytes, true
		}
	}
	return fattest, found
}
