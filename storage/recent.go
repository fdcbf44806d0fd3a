package storage

import (
	"cmp"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// DefaultRecentEntries is enough for several seconds of a replica's writes, and
// takes 9 MB when full.
const DefaultRecentEntries = 65536

// version is a version of some entry, and the hash of that entry. The zero
// version is none.
type version struct {
	lww.Version
	sum merkle.Sum
}

// after reports whether v is after o in the order of package lww, but for the
// values, which are not here. They would only matter between two writes of one
// stamp and one node, which clocks that work do not make; then the hash decides,
// so that replicas that have to choose at least choose alike.
func (v version) after(o version) bool {
	c, _ := lww.CompareVersions(v.Version, o.Version, true)
	return cmp.Or(c, cmp.Compare(v.sum.Hi, o.sum.Hi), cmp.Compare(v.sum.Lo, o.sum.Lo)) > 0
}

// value returns the write of the value alone.
func (v version) value() version {
	return version{Version: lww.Version{Stamp: v.Stamp, Node: v.Node, Tombstone: v.Tombstone}}
}

// rowID stands for a key. Two keys may share it, once in 2^60 pairs; then the view
// as of a moment shows one difference too many until the moment has passed.
type rowID struct {
	shard int
	token ring.Token
}

// arrival is an offer that the store did not hold already, with the version that
// it met: applied in its place, or shadowed by it.
type arrival struct {
	row          rowID
	applied      bool
	met, offered version
}

// recent remembers the latest arrivals, so that a snapshot can leave out what was
// written after a moment. The caller holds the store's lock.
//
// It grows by whole chunks that are only ever appended to: a snapshot copies the
// slice headers under the lock and reads the arrivals without it.
type recent struct {
	limit  int // arrivals
	length int
	chunks []chunk
	floor  hlc.Stamp // see Store.RecentFloor
}

type chunk struct {
	arrivals []arrival
	newest   hlc.Stamp // of what was offered
}

// chunkArrivals is the most that a chunk holds: with the default limit, 64 chunk
// headers are copied under the lock, and a 64th of the memory is forgotten at a
// time.
const chunkArrivals = 1024

func newRecent(limit int, floor hlc.Stamp) recent {
	if limit == 0 {
		limit = DefaultRecentEntries
	}
	return recent{limit: max(limit, 0), floor: floor}
}

func (r *recent) add(a arrival) {
	if r.limit == 0 {
		r.floor = max(r.floor, a.offered.Newest())
		return
	}
	size := min(max(r.limit/16, 1), chunkArrivals)
	if n := len(r.chunks); n == 0 || len(r.chunks[n-1].arrivals) == size {
		r.chunks = append(r.chunks, chunk{arrivals: make([]arrival, 0, size)})
	}
	last := &r.chunks[len(r.chunks)-1]
	last.arrivals = append(last.arrivals, a)
	last.newest = max(last.newest, a.offered.Newest())
	if r.length++; r.length > r.limit {
		r.length -= len(r.chunks[0].arrivals)
		r.floor = max(r.floor, r.chunks[0].newest)
		r.chunks[0] = chunk{} // for the garbage collector
		r.chunks = r.chunks[1:]
	}
}

// lateRow is a row that was written after the moment of a view: the hash that it
// has now, and the one that it had then, zero if it was not there.
type lateRow struct{ now, then merkle.Sum }

// lateRows returns the rows that differ between the moment t, not before the
// floor, and the arrivals' end.
//
// The state as of t is the newest of all versions stamped t or before that ever
// reached the store, also of those that came after a later one and were shadowed
// by it. A row is worth a look only if something later than t was offered. What
// its first arrival here met was then the newest of all that came before: what
// was forgotten is not later than the floor.
func lateRows(chunks []chunk, t hlc.Stamp) map[rowID]lateRow {
	// All before the first late arrival can be passed over: it was no later than
	// t, so the newest of it is what the next arrival met.
	for len(chunks) > 0 && chunks[0].newest <= t {
		chunks = chunks[1:]
	}
	type candidate struct {
		now     merkle.Sum
		then    version
		touched version // a value from before t, its expiry from after
	}
	rows := make(map[rowID]*candidate)
	for _, c := range chunks {
		for _, a := range c.arrivals {
			if a.offered.Newest() > t {
				rows[a.row] = new(candidate)
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	for _, c := range chunks {
		for _, a := range c.arrivals {
			row := rows[a.row]
			if row == nil {
				continue
			}
			for _, v := range []version{a.met, a.offered} {
				switch {
				case v.Stamp == 0 || v.Stamp > t:
				case v.Newest() <= t:
					if row.then.Stamp == 0 || v.after(row.then) {
						row.then = v
					}
				case row.touched.Stamp == 0 || v.value().after(row.touched.value()) ||
					v.value() == row.touched.value() && row.touched.after(v):
					row.touched = v // of one value, the earliest expiry
				}
			}
			if row.now = a.met.sum; a.applied {
				row.now = a.offered.sum
			}
		}
	}
	late := make(map[rowID]lateRow, len(rows))
	for id, row := range rows {
		if row.touched.Stamp != 0 && (row.then.Stamp == 0 || row.touched.value().after(row.then.value())) {
			row.then = row.touched
		}
		if row.now != row.then.sum {
			late[id] = lateRow{row.now, row.then.sum}
		}
	}
	return late
}

// RecentFloor returns the earliest moment that SnapshotAsOf can show. It is the
// greatest stamp among the arrivals that were forgotten and the entries that were
// there when the store was opened, which its totals remember: what of a key came
// before the arrivals in memory is then never after the moment asked for.
//
// An entry with a stamp of the future holds it up until then.
func (s *Store) RecentFloor() hlc.Stamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recent.floor
}
