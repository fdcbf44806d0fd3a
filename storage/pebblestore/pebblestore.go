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
//   - What Pebble takes for fatal is reported to Options.OnFatal, so that the node can
//     stop in its own way, and whatever met it never goes on.
//   - A full disk is waited out where Pebble would end the process, and retried at
//     leisure where it would spin. Memtables are smaller on small disks.
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
	// them exist at a time. Zero means 32 MiB, and less on a disk below 2 GiB.
	MemTableBytes uint64
	// BlockBytes is the size of the blocks that tables are made of, each with a
	// checksum: the least that is read, and that is lost to a flipped bit. Zero means
	// Pebble's default of 4 KiB.
	BlockBytes int
	// Logger receives what Pebble has to say; nil discards it.
	Logger *slog.Logger
	// OnCorruption is called, from the goroutine that reads, when bytes on disk
	// fail their checksum. It must not block.
	OnCorruption func(Corruption)
	// OnFatal is called once when Pebble cannot go on, such as with a log that cannot be
	// synced or a manifest that cannot be written. The goroutine that met it stands still for ever, with
	// Pebble's locks: no other call is sure to return, and what the owner has to do is
	// to end the process. Nil panics, but for what fails commits alone.
	OnFatal func(error)
}

// Engine is a Pebble database. It is safe for concurrent use.
type Engine struct {
	db    *pebble.DB
	dir   string
	opts  *pebble.Options
	disk  *disk
	fatal *fatal
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
	if opts.MemTableBytes == 0 {
		opts.MemTableBytes = memTableBytes(opts.FS, dir)
	}
	f := newFatal(opts)
	d := newDisk(opts.FS, f)
	if err != nil || !desc.Exists {
		db, err := openPebble(dir, opts, d, f)
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
	db, err := openPebble(dir, opts, d, f)
	if err != nil {
		return nil, fmt.Errorf("pebblestore: opening %s: %w", dir, err)
	}
	if !f.opened() {
		return nil, fmt.Errorf("pebblestore: opening %s: %w", dir, f.met())
	}
	d.opened()
	return &Engine{db, dir, opts.settings(d, f), d, f, loads{fs: d, dir: scratch}}, nil
}

// Pebble returns the settings that Open uses, for those who want to compare with
// Pebble alone.
func (opts Options) Pebble() *pebble.Options {
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	f := newFatal(opts)
	o := opts.settings(newDisk(opts.FS, f), f)
	o.FS = opts.FS
	return o
}

func (opts Options) settings(d *disk, f *fatal) *pebble.Options {
	if opts.CacheBytes == 0 {
		opts.CacheBytes = 256 << 20
	}
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	o := &pebble.Options{
		FS:                          d,
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   opts.CacheBytes,
		MemTableSize:                opts.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		Logger:                      pebbleLogger{logger, f},
		EventListener: &pebble.EventListener{
			DataCorruption:  func(info pebble.DataCorruptionInfo) { corrupted(opts.OnCorruption, info) },
			BackgroundError: d.backgroundError(logger),
			CompactionEnd:   func(info pebble.CompactionInfo) { d.compacted(info.Err) },
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = opts.BlockBytes
	}
	o.EnsureDefaults()
	return o
}

// Get implements storage.Reader.
func (e *Engine) Get(key []byte) ([]byte, bool, error) { return get(e.db, key) }

func get(r pebble.Reader, key []byte) ([]byte, bool, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, rotten(err)
	}
	owned := append([]byte{}, value...)
	return owned, true, closer.Close()
}

// Lookup implements storage.Engine.
func (e *Engine) Lookup(keys [][]byte, visit func(i int, value []byte, found bool)) (err error) {
	// Get skips the filters of the last level, where nearly all tables are.
	it, err := e.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return rotten(err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for i, key := range keys {
		if !it.SeekPrefixGE(key) {
			if err := it.Error(); err != nil {
				return rotten(err)
			}
			visit(i, nil, false)
			continue
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return rotten(err)
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
		return rotten(err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return rotten(err)
		}
		if !visit(it.Key(), v) {
			break
		}
	}
	return rotten(it.Error())
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
func (e *Engine) Close() error {
	e.disk.closed()
	if err := e.fatal.met(); err != nil {
		return err // Pebble's locks are held for ever
	}
	closed := make(chan error, 1)
	go func() { closed <- e.db.Close() }()
	select {
	case err := <-closed:
		return err
	case <-e.fatal.done: // meanwhile
		return e.fatal.met()
	}
}

// DB returns the database, for those who measure it.
func (e *Engine) DB() *pebble.DB { return e.db }
