package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// ErrNotEmpty is returned by Store.Load if the shard holds entries.
var ErrNotEmpty = errors.New("storage: the shard is not empty")

// maxLoadIndex bounds the tombstones and expiring entries of one load: their index
// rows are sorted in memory, about 64 bytes each.
const maxLoadIndex = 1 << 24

// Load fills an empty shard with entries, which next returns in the order of
// token and key until ok is false. It is several times faster than writing: tables
// are built in order, beside what else is written, and taken over as they are. The
// tree is built on the way. An entry is the caller's again when next is called.
//
// When Load returns, all is durable; after an error or a crash the shard is as
// empty as before. ErrNotEmpty says that somebody wrote to the shard before Load
// was done.
//
// about is the number of entries to come. The tree is given leaves for so many; if
// they are more or fewer, it is as exact, and later writes adapt it.
func (s *Store) Load(shard int, about uint64, next func() (e lww.Entry, ok bool, err error)) (loaded uint64, err error) {
	if shard < 0 || shard >= len(s.shards) {
		return 0, fmt.Errorf("storage: there is no shard %d", shard)
	}
	engine, err := s.engine.NewLoad()
	if err != nil {
		return 0, fmt.Errorf("storage: loading shard %d: %w", shard, err)
	}
	l := &load{store: s, shard: shard, rows: engine}
	l.tree = merkle.NewTreeOf(s.under(shard), s.opts.LeafKeys, min(about/uint64(s.opts.LeafKeys), 1<<merkle.MaxDepth))
	if err = l.takeRows(next); err == nil {
		err = l.commit()
	}
	if err != nil {
		return 0, fmt.Errorf("storage: loading shard %d: %w", shard, errors.Join(err, engine.Abort()))
	}
	return l.tree.Root().Count, nil
}

type load struct {
	store      *Store
	shard      int
	rows       Load
	tree       *merkle.Tree
	tombstones uint64
	newest     hlc.Stamp
	last       []byte   // key of the last row
	index      [][]byte // keys of the garbage index
	expiring   []expiring
}

// takeRows writes the rows of the entries, and the index behind them.
func (l *load) takeRows(next func() (lww.Entry, bool, error)) error {
	var key, row []byte
	for {
		e, ok, err := next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := e.Validate(); err != nil {
			return fmt.Errorf("refusing entry %q: %w", e.Key, err)
		}
		shard, token := l.store.Locate(e.Key)
		if shard != l.shard {
			return fmt.Errorf("key %q belongs to shard %d", e.Key, shard)
		}
		key = appendDataKey(key[:0], shard, token, e.Key)
		if bytes.Compare(l.last, key) >= 0 {
			return fmt.Errorf("key %q comes out of order", e.Key)
		}
		l.last = append(l.last[:0], key...)
		row = lww.AppendRow(row[:0], e)
		if err := l.rows.Set(key, row); err != nil {
			return err
		}
		x := ring.At(shard, token, l.store.opts.Shards)
		l.tree.Adjust(x, merkle.DigestOf(x, l.store.hasher.Entry(e)))
		l.newest = max(l.newest, e.Newest())
		if e.Tombstone {
			l.tombstones++
		}
		if k, ok := appendGarbageKey(nil, shard, token, e.Key, e.Version); ok {
			l.index = append(l.index, k)
			if at, _ := purgeableAt(e.Version); !e.Tombstone {
				l.expiring = append(l.expiring, expiring{at, 1})
			}
		}
		if len(l.index) > maxLoadIndex {
			return fmt.Errorf("more than %d tombstones and expiring entries", maxLoadIndex)
		}
	}
	slices.SortFunc(l.index, bytes.Compare)
	for _, k := range l.index {
		if err := l.rows.Set(k, nil); err != nil {
			return err
		}
	}
	return nil
}

// commit adds the rows of the tree, under the number of the next row of the log,
// and that row. All become visible at once.
func (l *load) commit() error {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	sh := &s.shards[l.shard]
	before := sh.tree.Root()
	switch {
	case before.Count > 0:
		return ErrNotEmpty
	case l.tree.Root().Count == 0:
		return l.rows.Abort()
	}
	number, count := s.logNumber+1, l.tree.Root().Count
	t := totals{l.tree.Root().Sum, count, l.tombstones, l.tree.Leaves()}
	for walk := (leafWalk{}); walk.index < t.leaves; {
		if err := l.rows.Set(walk.row(number, l.shard, l.tree)); err != nil {
			return err
		}
	}
	if err := l.rows.Set(appendTotalsKey(nil, number, l.shard), t.append(nil)); err != nil {
		return err
	}
	made := shapes{s.shapes.count, slices.Clone(s.shapes.bytes)}
	made.add(l.shard, shapeLoad, sh.tree.Leaves())
	if err := l.rows.Set(appendNumbered(nil, prefixTreeLog, number), made.appendLogRow(nil, l.newest, 0)); err != nil {
		return err
	}
	if err := l.rows.Commit(); err != nil {
		return s.commitFailed(err)
	}
	s.logNumber = number
	s.logged += made.count
	s.shapes = shapes{}
	s.newest = max(s.newest, l.newest)
	s.recent.floor = max(s.recent.floor, l.newest) // what was loaded is not remembered
	sh.tree, sh.tombstones, sh.splitAt = l.tree, l.tombstones, 0
	s.stats.entries.Add(count)
	s.stats.tombstones.Add(l.tombstones)
	for _, e := range l.expiring {
		s.expiries.add(e)
	}
	for i := range s.stripes {
		s.stripes[i].writes.Add(1) // whoever has read that a row is not there, reads again
	}
	return nil
}
