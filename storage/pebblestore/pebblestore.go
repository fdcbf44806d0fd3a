// Package pebblestore is the storage engine on disk: Pebble, with the settings
// and precautions that a replica needs.
//
// Departures from Pebble's defaults, and why:
//
//   - A detected corruption is reported to Options.OnCorruption and fails the
//     read. Pebble's default ends the process, which turns one rotten block
//     into a lost node.
//   - A new store is opened, closed and opened again. The first log of a fresh
//     store can lose its tail unnoticed when a bit flips; later logs are
//     checked.
//   - Bloom filters, a larger cache and memtable, two concurrent compactions:
//     every write reads its old version first.
package pebblestore

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"syntropy/storage"
)

// Options configure an engine; the zero value works.
type Options struct {
	// FS is the file system; nil means the operating system's.
	FS vfs.FS
	// CacheBytes bounds the block cache. Zero means 256 MiB.
	CacheBytes int64
	// MemTableBytes is the size at which a memtable is flushed; up to four of
	// them exist at a time. Zero means 32 MiB.
	MemTableBytes uint64
	// Logger receives what Pebble has to say; nil discards it.
	Logger *slog.Logger
	// OnCorruption is called, from the goroutine that reads, when bytes on disk
	// fail their checksum. It must not block.
	OnCorruption func(file string, err error)
}

// Engine is a Pebble database. It is safe for concurrent use.
type Engine struct {
	db    *pebble.DB
	opts  *pebble.Options
	loads loads
}

var _ storage.Engine = (*Engine)(nil)

// Open opens or creates the database in dir.
func Open(dir string, opts Options) (*Engine, error) {
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	if err := opts.FS.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pebblestore: %w", err)
	}
	desc, err := pebble.Peek(dir, opts.FS)
	// A missing directory is left to Pebble, which makes it and syncs its
	// parents: one that is there already would not be synced, and a crash could
	// take it away.
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pebblestore: looking at %s: %w", dir, err)
	}
	if err != nil || !desc.Exists {
		db, err := pebble.Open(dir, opts.Pebble())
		if err != nil {
			return nil, fmt.Errorf("pebblestore: creating %s: %w", dir, err)
		}
		if err := db.Close(); err != nil {
			return nil, fmt.Errorf("pebblestore: creating %s: %w", dir, err)
		}
	}
	scratch := opts.FS.PathJoin(dir, loadDir)
	if err := opts.FS.RemoveAll(scratch); err != nil {
		return nil, fmt.Errorf("pebblestore: removing what a load left: %w", err)
	}
	settings := opts.Pebble()
	db, err := pebble.Open(dir, settings)
	if err != nil {
		return nil, fmt.Errorf("pebblestore: opening %s: %w", dir, err)
	}
	return &Engine{db: db, opts: settings, loads: loads{fs: opts.FS, dir: scratch}}, nil
}

// Pebble returns the settings that Open uses, for those who want to compare with
// Pebble alone.
func (opts Options) Pebble() *pebble.Options {
	if opts.CacheBytes == 0 {
		opts.CacheBytes = 256 << 20
	}
	if opts.MemTableBytes == 0 {
		opts.MemTableBytes = 32 << 20
	}
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	o := &pebble.Options{
		FS:                          opts.FS,
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   opts.CacheBytes,
		MemTableSize:                opts.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		Logger:                      pebbleLogger{logger},
		EventListener: &pebble.EventListener{
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				logger.Error("bytes on disk fail their checksum", "file", info.Path, "error", info.Details)
				if opts.OnCorruption != nil {
					opts.OnCorruption(info.Path, info.Details)
				}
			},
			BackgroundError: func(err error) { logger.Error("storage background work failed", "error", err) },
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	o.EnsureDefaults()
	return o
}

// pebbleLogger forwards Pebble's log. What Pebble calls fatal must not return:
// the state on disk is unknown, so the node stops rather than acknowledge a write
// that may be gone. An fsync of the log that failed is not among it: that error,
// and the same one for every later commit, is returned by wait.
type pebbleLogger struct{ *slog.Logger }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.Debug("pebble", "message", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.Error("pebble", "message", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	l.Error("the disk failed, this node stops", "message", msg)
	panic("pebblestore: the disk failed: " + msg)
}

// Get implements storage.Reader.
func (e *Engine) Get(key []byte) ([]byte, bool, error) { return get(e.db, key) }

func get(r pebble.Reader, key []byte) ([]byte, bool, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	owned := append([]byte{}, value...)
	return owned, true, closer.Close()
}

// Lookup implements storage.Engine.
func (e *Engine) Lookup(keys [][]byte, visit func(i int, value []byte, found bool)) (err error) {
	// Get skips the filters of the last level, where nearly all tables are.
	it, err := e.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for i, key := range keys {
		if !it.SeekPrefixGE(key) {
			if err := it.Error(); err != nil {
				return err
			}
			visit(i, nil, false)
			continue
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		visit(i, value, true)
	}
	return nil
}

// Scan implements storage.Reader.
func (e *Engine) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	return scan(e.db, lower, upper, visit)
}

func scan(r pebble.Reader, lower, upper []byte, visit func(k, v []byte) bool) (err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !visit(it.Key(), v) {
			break
		}
	}
	return it.Error()
}

type snapshot struct{ *pebble.Snapshot }

// Snapshot implements storage.Engine.
func (e *Engine) Snapshot() storage.Reader { return snapshot{e.db.NewSnapshot()} }

func (s snapshot) Get(key []byte) ([]byte, bool, error) { return get(s.Snapshot, key) }

func (s snapshot) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	return scan(s.Snapshot, lower, upper, visit)
}

// batch adds what pebble.Batch lacks: a first error kept until commit.
type batch struct {
	*pebble.Batch
	err error
}

func (b *batch) Set(key, value []byte) {
	b.err = errors.Join(b.err, b.Batch.Set(key, value, nil))
}

func (b *batch) Delete(key []byte) { b.err = errors.Join(b.err, b.Batch.Delete(key, nil)) }

func (b *batch) DeleteRange(lower, upper []byte) {
	b.err = errors.Join(b.err, b.Batch.DeleteRange(lower, upper, nil))
}

// NewBatch implements storage.Engine.
func (e *Engine) NewBatch() storage.Batch { return &batch{Batch: e.db.NewBatch()} }

// Commit implements storage.Engine. Concurrent waits share their fsyncs.
func (e *Engine) Commit(sb storage.Batch, sync bool) (func() error, error) {
	b := sb.(*batch)
	if b.err != nil {
		return nil, errors.Join(b.err, b.Close())
	}
	if !sync {
		if err := e.db.Apply(b.Batch, pebble.NoSync); err != nil {
			return nil, err
		}
		return b.Close, nil
	}
	if b.Empty() {
		// An empty batch writes nothing to the log, so nothing would be synced.
		if err := b.LogData([]byte("sync"), nil); err != nil {
			return nil, err
		}
	}
	if err := e.db.ApplyNoSyncWait(b.Batch, pebble.Sync); err != nil {
		return nil, err
	}
	return func() error { return errors.Join(b.SyncWait(), b.Close()) }, nil
}

// Close implements storage.Reader.
func (e *Engine) Close() error { return e.db.Close() }

// DB returns the database, for those who measure it.
func (e *Engine) DB() *pebble.DB { return e.db }
