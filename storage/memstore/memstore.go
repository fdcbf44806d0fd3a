// Package memstore is a storage engine in memory, for tests, for the simulator
// and for reading what an engine must do. It knows which commits are durable,
// so that a test can take the power away ([Engine.Crash]).
package memstore

import (
	"bytes"
	"errors"
	"sync"

	"github.com/tidwall/btree"

	"syntropy/storage"
)

type row struct{ key, value []byte }

func less(a, b row) bool { return bytes.Compare(a.key, b.key) < 0 }

// rows is a copy-on-write B-tree: copying it is O(1), and the copies share what
// neither has changed.
type rows = btree.BTreeG[row]

// Engine is an engine in memory. It is safe for concurrent use.
type Engine struct {
	mu      sync.RWMutex
	rows    *rows
	durable *rows // what a crash leaves
	closed  bool
}

var _ storage.Engine = (*Engine)(nil)

// New returns an empty engine.
func New() *Engine {
	r := btree.NewBTreeG(less)
	return &Engine{rows: r, durable: r.Copy()}
}

// Crash returns the engine that a restart finds after the power failed: all
// that was synced, and nothing that came after. The old engine fails from now
// on.
func (e *Engine) Crash() *Engine {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	return &Engine{rows: e.durable.Copy(), durable: e.durable}
}

var errClosed = errors.New("memstore: the engine is closed")

// Get implements storage.Reader.
func (e *Engine) Get(key []byte) ([]byte, bool, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return nil, false, errClosed
	}
	return get(e.rows, key)
}

func get(r *rows, key []byte) ([]byte, bool, error) {
	found, ok := r.Get(row{key: key})
	return bytes.Clone(found.value), ok, nil
}

// Scan implements storage.Reader. It reads a snapshot, so visit may write.
func (e *Engine) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	s := e.Snapshot()
	defer s.Close()
	return s.Scan(lower, upper, visit)
}

// Lookup implements storage.Engine.
func (e *Engine) Lookup(keys [][]byte, visit func(i int, value []byte, found bool)) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return errClosed
	}
	for i, key := range keys {
		found, ok := e.rows.Get(row{key: key})
		visit(i, found.value, ok)
	}
	return nil
}

// Snapshot implements storage.Engine.
func (e *Engine) Snapshot() storage.Reader {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return snapshot{}
	}
	return snapshot{e.rows.Copy()}
}

type snapshot struct{ rows *rows }

func (s snapshot) Get(key []byte) ([]byte, bool, error) {
	if s.rows == nil {
		return nil, false, errClosed
	}
	return get(s.rows, key)
}

func (s snapshot) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	if s.rows == nil {
		return errClosed
	}
	s.rows.Ascend(row{key: lower}, func(r row) bool {
		return bytes.Compare(r.key, upper) < 0 && visit(r.key, r.value)
	})
	return nil
}

func (s snapshot) Close() error { return nil }

type batch struct{ changes []change }

type change struct {
	row
	delete bool
	upper  []byte // of a range that is deleted; row.key is the lower bound
}

func (b *batch) Set(key, value []byte) {
	b.changes = append(b.changes, change{row: row{bytes.Clone(key), append([]byte{}, value...)}})
}

func (b *batch) Delete(key []byte) {
	b.changes = append(b.changes, change{row: row{key: bytes.Clone(key)}, delete: true})
}

func (b *batch) DeleteRange(lower, upper []byte) {
	b.changes = append(b.changes, change{row: row{key: bytes.Clone(lower)}, upper: bytes.Clone(upper)})
}

// NewBatch implements storage.Engine.
func (e *Engine) NewBatch() storage.Batch { return new(batch) }

// Commit implements storage.Engine. A synced commit is durable at once, with
// all before it.
func (e *Engine) Commit(b storage.Batch, sync bool) (func() error, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	for _, c := range b.(*batch).changes {
		switch {
		case c.upper != nil:
			deleteRange(e.rows, c.key, c.upper)
		case c.delete:
			e.rows.Delete(c.row)
		default:
			e.rows.Set(c.row)
		}
	}
	if sync {
		e.durable = e.rows.Copy()
	}
	return func() error { return nil }, nil
}

func deleteRange(r *rows, lower, upper []byte) {
	var doomed []row
	r.Ascend(row{key: lower}, func(found row) bool {
		if bytes.Compare(found.key, upper) >= 0 {
			return false
		}
		doomed = append(doomed, found)
		return true
	})
	for _, d := range doomed {
		r.Delete(d)
	}
}

// NewLoad implements storage.Engine.
func (e *Engine) NewLoad() (storage.Load, error) { return &load{engine: e}, nil }

type load struct {
	engine *Engine
	batch  batch
}

var errOrder = errors.New("memstore: a row of a load is not behind the one before")

func (l *load) Set(key, value []byte) error {
	if n := len(l.batch.changes); n > 0 && bytes.Compare(l.batch.changes[n-1].key, key) >= 0 {
		return errOrder
	}
	l.batch.Set(key, value)
	return nil
}

func (l *load) Commit() error {
	_, err := l.engine.Commit(&l.batch, true)
	return err
}

func (l *load) Abort() error { return nil }

// Close implements storage.Reader.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	return nil
}
