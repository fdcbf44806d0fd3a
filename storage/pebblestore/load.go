package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"syntropy/storage"
)

// loadDir is where tables are built before Pebble takes them over. What a crash
// leaves there is removed at the next opening.
const loadDir = "load"

// loadTableBytes is the size at which a table is closed and the next one begun,
// that of the tables which Pebble itself writes to its last level.
const loadTableBytes = 64 << 20

type loads struct {
	fs   vfs.FS
	dir  string
	next atomic.Uint64
}

// load builds tables that Pebble ingests, all or none.
//
// A table holds rows of one kind, by the first byte of their keys. One that
// reached from the first kind to the last would overlap with all that there is, and
// end up in the first level instead of the last.
type load struct {
	engine *Engine
	paths  []string
	writer *sstable.Writer // nil before the first row
	last   []byte          // key
	bytes  int
}

// NewLoad implements storage.Engine.
func (e *Engine) NewLoad() (storage.Load, error) {
	if err := e.loads.fs.MkdirAll(e.loads.dir, 0o700); err != nil {
		return nil, fmt.Errorf("pebblestore: %w", err)
	}
	return &load{engine: e}, nil
}

func (l *load) Set(key, value []byte) error {
	// A table checks its own order, but not that of its neighbours.
	if bytes.Compare(l.last, key) >= 0 {
		return fmt.Errorf("pebblestore: row %x of a load is not behind row %x", key, l.last)
	}
	if l.writer == nil || l.last[0] != key[0] || l.bytes > loadTableBytes {
		if err := l.begin(); err != nil {
			return err
		}
	}
	l.last = append(l.last[:0], key...)
	l.bytes += len(key) + len(value)
	return l.writer.Set(key, value)
}

func (l *load) begin() error {
	if err := l.finish(); err != nil {
		return err
	}
	at := &l.engine.loads
	path := at.fs.PathJoin(at.dir, fmt.Sprintf("%d.sst", at.next.Add(1)))
	file, err := at.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	l.paths = append(l.paths, path)
	last := len(l.engine.opts.Levels) - 1
	l.writer = sstable.NewWriter(objstorageprovider.NewFileWritable(file), l.engine.opts.MakeWriterOptions(last, l.engine.db.TableFormat()))
	l.bytes = 0
	return nil
}

// finish completes a table, which is durable then.
func (l *load) finish() error {
	if l.writer == nil {
		return nil
	}
	err := l.writer.Close()
	l.writer = nil
	return err
}

// Commit implements storage.Load. What was committed before must not be lost in a
// crash that the tables survive, so it is synced first.
func (l *load) Commit() error {
	if err := l.finish(); err != nil {
		return err
	}
	if err := l.engine.db.LogData([]byte("sync"), pebble.Sync); err != nil {
		return err
	}
	return l.engine.db.Ingest(context.Background(), l.paths)
}

// Abort implements storage.Load.
func (l *load) Abort() error {
	err := l.finish()
	for _, path := range l.paths {
		if e := l.engine.loads.fs.Remove(path); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
