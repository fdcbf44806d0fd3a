package hint_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syntropy/hint"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage/memstore"
)

// modelHint is a hint as the obvious queue keeps it: in a sorted slice.
type modelHint struct {
	entry    lww.Entry
	sequence int
	bytes    int64
}

type modelQueue struct {
	max      int64
	sequence int
	targets  map[hlc.NodeID][]modelHint
}

func (m *modelQueue) bytesOf(target hlc.NodeID) (n int64) {
	for _, h := range m.targets[target] {
		n += h.bytes
	}
	return n
}

func (m *modelQueue) add(target hlc.NodeID, entries []lww.Entry) (dropped int64) {
	var kept []modelHint
	var size, total int64
	for _, e := range slices.Backward(entries) {
		h := modelHint{entry: e, bytes: int64(19 + lww.EncodedLen(e))}
		if size+h.bytes > m.max {
			dropped++
			continue
		}
		size += h.bytes
		kept = append(kept, h)
	}
	for id := range m.targets {
		total += m.bytesOf(id)
	}
	for total+size > m.max {
		ids := slices.SortedFunc(maps.Keys(m.targets), func(a, b hlc.NodeID) int {
			return cmp.Or(cmp.Compare(m.bytesOf(b), m.bytesOf(a)), cmp.Compare(a, b))
		})
		hints := m.targets[ids[0]]
		for len(hints) > 0 && total+size > m.max {
			total -= hints[0].bytes
			hints = hints[1:]
			dropped++
		}
		m.set(ids[0], hints)
	}
	hints := slices.Clone(m.targets[target])
	for _, h := range slices.Backward(kept) {
		m.sequence++
		h.sequence = m.sequence
		hints = append(hints, h)
	}
	slices.SortStableFunc(hints, func(a, b modelHint) int { return cmp.Compare(a.entry.Newest(), b.entry.Newest()) })
	m.set(target, hints)
	return dropped
}

func (m *modelQueue) set(target hlc.NodeID, hints []modelHint) {
	if len(hints) == 0 {
		delete(m.targets, target)
	} else {
		m.targets[target] = hints
	}
}

func (m *modelQueue) removeIf(target hlc.NodeID, gone func(modelHint) bool) (removed int64) {
	var left []modelHint
	for _, h := range m.targets[target] {
		if gone(h) {
			removed++
		} else {
			left = append(left, h)
		}
	}
	m.set(target, left)
	return removed
}

// next returns what a Next with bytesMax must return once all that is expired
// is gone.
func (m *modelQueue) next(target hlc.NodeID, bytesMax int64) (batch []modelHint) {
	var total int64
	for _, h := range m.targets[target] {
		if total += h.bytes; len(batch) > 0 && total > bytesMax {
			break
		}
		batch = append(batch, h)
	}
	return batch
}

func (m *modelQueue) pending() map[hlc.NodeID]hint.Pending {
	pending := make(map[hlc.NodeID]hint.Pending)
	for id, hints := range m.targets {
		pending[id] = hint.Pending{Count: int64(len(hints)), Bytes: m.bytesOf(id), Oldest: hints[0].entry.Newest()}
	}
	return pending
}

// TestQueueAgainstTheObvious drives a queue and a slice with the same calls:
// batches delivered late, twice, or after their hints were dropped, reopening,
// and losing the power. After each call the counts are exact and those of a
// fresh count.
func TestQueueAgainstTheObvious(t *testing.T) {
	type taken struct {
		hint.Batch
		hints []modelHint
	}
	target := rapid.SampledFrom([]hlc.NodeID{1, 2, 3, 0xffff})
	entry := rapid.Custom(func(t *rapid.T) lww.Entry {
		e := lww.Entry{Key: []byte(rapid.SampledFrom([]string{"a", "b", "cc"}).Draw(t, "key"))}
		e.Stamp = start.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "stamp")) * time.Second)
		e.Node = 1
		if rapid.Bool().Draw(t, "touched") {
			e.ExpiryStamp, e.ExpiryNode, e.Expires = e.Stamp+hlc.Stamp(rapid.IntRange(0, 2).Draw(t, "later")), 2, 1
		}
		e.Value = make([]byte, rapid.SampledFrom([]int{0, 10, 10, 10, 120, 700}).Draw(t, "size"))
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		opts := hint.Options{
			Window:   4 * time.Second,
			BytesMax: rapid.SampledFrom([]int64{1, 100, 600, 100_000}).Draw(t, "bytes max"),
			NoSync:   rapid.Bool().Draw(t, "no sync"),
		}
		engine := memstore.New()
		m := modelQueue{max: opts.BytesMax, targets: make(map[hlc.NodeID][]modelHint)}
		durable := maps.Clone(m.targets)
		var want hint.Stats
		var batches []taken
		var q *hint.Queue
		reopen := func() {
			var err error
			if q, err = hint.Open(engine, opts); err != nil {
				t.Fatal(err)
			}
			want, batches = hint.Stats{}, nil
		}
		reopen()
		now := func(t *rapid.T) hlc.Stamp {
			return start.Add(time.Duration(rapid.IntRange(0, 15).Draw(t, "now")) * time.Second)
		}
		expire := func(target hlc.NodeID, now hlc.Stamp) {
			want.Expired += m.removeIf(target, func(h modelHint) bool {
				return h.entry.Newest() < now.Add(-opts.Window)
			})
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				to := target.Draw(t, "target")
				entries := rapid.SliceOfN(entry, 0, 4).Draw(t, "entries")
				if err := q.Add(to, entries); err != nil {
					t.Fatal(err)
				}
				want.Added += int64(len(entries))
				want.Dropped += m.add(to, entries)
				if !opts.NoSync && len(entries) > 0 {
					durable = maps.Clone(m.targets)
				}
			},
			"next": func(t *rapid.T) {
				to, now := target.Draw(t, "target"), now(t)
				bytesMax := rapid.IntRange(0, 300).Draw(t, "bytes")
				b, err := q.Next(to, now, bytesMax)
				if err != nil {
					t.Fatal(err)
				}
				expire(to, now)
				hints := m.next(to, int64(bytesMax))
				if !slices.EqualFunc(b.Entries, hints, func(e lww.Entry, h modelHint) bool {
					return string(e.Key) == string(h.entry.Key) && lww.Compare(e, h.entry) == 0
				}) || b.Target != to {
					t.Fatalf("Next(%v) is %+v, want %+v", to, b, hints)
				}
				batches = append(batches, taken{b, hints})
			},
			"delivered": func(t *rapid.T) {
				if len(batches) == 0 {
					return
				}
				b := rapid.SampledFrom(batches).Draw(t, "batch")
				if err := q.Delivered(b.Batch); err != nil {
					t.Fatal(err)
				}
				want.Delivered += m.removeIf(b.Target, func(h modelHint) bool {
					return slices.ContainsFunc(b.hints, func(o modelHint) bool { return o.sequence == h.sequence })
				})
			},
			"expire": func(t *rapid.T) {
				now := now(t)
				if err := q.Expire(now); err != nil {
					t.Fatal(err)
				}
				for _, id := range slices.Collect(maps.Keys(m.targets)) {
					expire(id, now)
				}
			},
			"forget": func(t *rapid.T) {
				to := target.Draw(t, "target")
				dropped, err := q.Forget(to)
				if n := m.removeIf(to, func(modelHint) bool { return true }); err != nil || dropped != n {
					t.Fatalf("Forget(%v) is %d, %v; want %d", to, dropped, err, n)
				}
				want.Forgotten += dropped
			},
			"reopen": func(*rapid.T) { reopen() },
			"crash": func(*rapid.T) {
				engine = engine.Crash()
				m.targets = maps.Clone(durable)
				reopen()
			},
			"": func(t *rapid.T) {
				want.Pending = m.pending()
				if got := q.Stats(); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
					t.Fatalf("stats %+v\nwant  %+v", got, want)
				}
				fresh, err := hint.Open(engine, opts)
				if err != nil {
					t.Fatal(err)
				}
				if got := fresh.Stats().Pending; !maps.Equal(got, want.Pending) {
					t.Fatalf("counted anew %+v\nwant          %+v", got, want.Pending)
				}
				var total int64
				for _, p := range want.Pending {
					total += p.Bytes
				}
				if total > opts.BytesMax {
					t.Fatalf("%d bytes are kept, the bound is %d", total, opts.BytesMax)
				}
			},
		})
	})
}
