package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"syntropy/hlc"
)

// expiries counts entries by when they expire, so that the number of those that have
// expired is known without looking at them: a key that nobody will see again should
// not count, and nothing removes it at that moment. It is exact to a span of time that
// begins at a second and doubles when there are too many of them.
//
// Counting begins with Store.LearnExpiries, since what is on disk has to be read once,
// and opening a store does not wait for that. Rows that a scrub heals are counted as
// they were until the store is opened again.
type expiries struct {
	mu      sync.Mutex
	began   bool
	learned bool // counts are whole
	// past counts what expired at floor (ms since 1970) or before, and spans what
	// expires later, by floor of the moment over width.
	past  int64
	floor int64
	width int64 // ms
	spans map[int64]int64
}

// maxSpans bounds the memory of expiries to some hundred KiB.
const maxSpans = 8192

// expiring is what a commit changes: so many more entries expire then, or fewer.
type expiring struct {
	at   hlc.Stamp
	more int64
}

func (e *expiries) add(x expiring) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.began {
		return
	}
	ms := x.at.Time().UnixMilli()
	if ms <= e.floor {
		e.past += x.more
		return
	}
	span := ms / e.width
	if e.spans[span] += x.more; e.spans[span] == 0 {
		delete(e.spans, span)
	}
	for len(e.spans) > maxSpans {
		e.width *= 2
		wider := make(map[int64]int64, maxSpans)
		for span, n := range e.spans {
			wider[span/2] += n
		}
		e.spans = wider
	}
}

// expired returns how many entries have expired, as far as is known.
func (e *expiries) expired(now time.Time) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.learned {
		return 0
	}
	for span, n := range e.spans {
		if end := (span+1)*e.width - 1; end <= now.UnixMilli() {
			e.past += n
			e.floor = max(e.floor, end)
			delete(e.spans, span)
		}
	}
	return max(0, e.past)
}

// LearnExpiries reads the garbage index, after which Expired knows what there was
// before. It takes some seconds for ten million rows of it; writes go on.
func (s *Store) LearnExpiries(ctx context.Context, now time.Time) error {
	s.mu.Lock()
	view := s.engine.Snapshot()
	tombstones := int64(s.stats.tombstones.Load())
	e := &s.expiries
	e.mu.Lock()
	e.began, e.learned, e.past, e.floor = true, false, 0, now.UnixMilli()
	e.width, e.spans = time.Second.Milliseconds(), make(map[int64]int64)
	e.mu.Unlock()
	s.mu.Unlock()

	// The index does not tell tombstones from expiring entries. But tombstones lie in
	// the past, and how many there are is known.
	err := view.Scan([]byte{prefixGarbage}, []byte{prefixGarbage + 1}, func(key, _ []byte) bool {
		if len(key) >= garbageHead {
			e.add(expiring{hlc.Stamp(binary.BigEndian.Uint64(key[garbageHead-8:])), 1})
		}
		return ctx.Err() == nil
	})
	if err = errors.Join(err, view.Close(), ctx.Err()); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.past -= tombstones
	e.learned = true
	return nil
}

// garbageHead is what comes before the token in a key of the garbage index.
const garbageHead = 1 + 2 + 8

// Expired returns how many entries have expired and still take room: zero before
// LearnExpiries has returned, and some seconds late after it.
func (s *Store) Expired(now time.Time) int64 { return s.expiries.expired(now) }
