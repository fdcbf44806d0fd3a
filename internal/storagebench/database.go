package storagebench

import (
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
)

// The ways to write.
const (
	Plain  = "plain"   // Pebble alone: one Set for each write, the last one wins
	Merge  = "merge"   // Pebble alone: one Merge for each write, the newest one wins
	NoTree = "no-tree" // the store without trees: the old version is read, the newer one kept
	Full   = "full"    // the store
)

// Ways lists the ways to write, each with one thing more than the one before.
func Ways() []string { return []string{Plain, Merge, NoTree, Full} }

// shards is the number of shards of the stores, that of a cluster by default.
const shards = 256

// database is written to in one of these ways. It is safe for concurrent use.
type database struct {
	way  string
	dir  string
	sync bool

	db     *pebble.DB
	engine *pebblestore.Engine // of the others
	store  *storage.Store
}

// openDatabase opens or creates a database. With sync, a write returns when it is
// durable.
func openDatabase(way, dir string, opts pebblestore.Options, versions int64, sync bool) (*database, error) {
	d := &database{way: way, dir: dir, sync: sync}
	var err error
	if way == Plain || way == Merge {
		settings := opts.Pebble()
		settings.Merger = newestWins
		d.db, err = pebble.Open(dir, settings)
		return d, err
	}
	if d.engine, err = pebblestore.Open(dir, opts); err != nil {
		return nil, err
	}
	d.store, err = storage.Open(d.engine, storage.Options{Shards: shards, NoSync: !sync, WithoutTree: way == NoTree, VersionBytes: versions})
	if err != nil {
		return nil, errors.Join(err, d.engine.Close())
	}
	d.db = d.engine.DB()
	return d, nil
}

// keyHead stands for what the store puts before a key, so that all keys are of one
// size.
const keyHead = "d2345678901"

// put writes entries in one call.
func (d *database) put(entries []lww.Entry) error {
	if d.store != nil {
		_, err := d.store.Apply(entries)
		return err
	}
	b := d.db.NewBatchWithSize(256 * len(entries))
	for _, e := range entries {
		key := append([]byte(keyHead), e.Key...)
		var err error
		if row := lww.AppendRow(nil, e); d.way == Plain {
			err = b.Set(key, row, nil)
		} else {
			err = b.Merge(key, row, nil)
		}
		if err != nil {
			return err
		}
	}
	opts := pebble.NoSync
	if d.sync {
		opts = pebble.Sync
	}
	return errors.Join(b.Commit(opts), b.Close())
}

// get reads the entry of a key, which is the caller's.
func (d *database) get(key []byte) (found bool, err error) {
	if d.store != nil {
		_, found, err = d.store.Get(key)
		return found, err
	}
	row, closer, err := d.db.Get(append([]byte(keyHead), key...))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = lww.DecodeRow(key, append([]byte(nil), row...))
	return true, errors.Join(err, closer.Close())
}

func (d *database) close() error {
	if d.store != nil {
		return errors.Join(d.store.Close(), d.engine.Close())
	}
	return d.db.Close()
}

// newestWins is the merge operator of a store that never reads: it keeps the
// greater row, which begins with flags and stamp.
var newestWins = &pebble.Merger{
	Name: "syntropy.newest",
	Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		return &newestRow{append([]byte(nil), value...)}, nil
	},
}

type newestRow struct{ row []byte }

func (n *newestRow) MergeNewer(value []byte) error {
	if string(value[1:]) > string(n.row[1:]) {
		n.row = append(n.row[:0], value...)
	}
	return nil
}

func (n *newestRow) MergeOlder(value []byte) error { return n.MergeNewer(value) }

func (n *newestRow) Finish(bool) ([]byte, io.Closer, error) { return n.row, nil, nil }
