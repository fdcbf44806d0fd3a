package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
)

// figures are the outcome.
type figures struct {
	Rows       int    `json:"rows"`
	Shards     int    `json:"shards"`
	ValueBytes int    `json:"value_bytes"`
	Machine    string `json:"machine"`
	Command    string `json:"command"`

	ArrangeSeconds float64 `json:"arrange_seconds"` // to sort the rows, before the load
	LoadSeconds    float64 `json:"load_seconds"`
	LoadCPU        float64 `json:"load_cpu_seconds"`
	DiskBytes      int64   `json:"disk_bytes"`
	TreeBytes      int     `json:"tree_bytes"`
	OpenSeconds    float64 `json:"open_seconds"`        // the store, with its trees
	EngineSeconds  float64 `json:"engine_open_seconds"` // of that, Pebble
	MemoryBytes    int64   `json:"memory_bytes"`        // resident, with one store open
	PeakBytes      int64   `json:"peak_bytes"`          // resident at most, the sorted rows included

	Sessions []session `json:"sessions"`
}

// session is what it took two replicas to become equal.
type session struct {
	Diverged int     `json:"diverged"`
	Found    int     `json:"found"`
	Seconds  float64 `json:"seconds"`
	CPU      float64 `json:"cpu_seconds"` // both sides
	Bytes    int64   `json:"bytes"`       // both ways, entries included
	Rounds   int     `json:"rounds"`
	RowsRead uint64  `json:"rows_read"` // on both sides
}

// secret is the cluster's. It is the same each time, and so are the figures that do
// not depend on the machine.
var secret = [32]byte{0: 's', 31: 'y'}

func open(o options, dir string) (*storage.Store, *pebblestore.Engine, error) {
	engine, err := pebblestore.Open(dir, pebblestore.Options{CacheBytes: int64(o.cacheMiB) << 20})
	if err != nil {
		return nil, nil, err
	}
	store, err := storage.Open(engine, storage.Options{Shards: o.shards, Secret: secret})
	if err != nil {
		return nil, nil, errors.Join(err, engine.Close())
	}
	return store, engine, nil
}

func closeBoth(store *storage.Store, engine *pebblestore.Engine) error {
	return errors.Join(store.Close(), engine.Close())
}

func measure(o options, say func(string, ...any)) (f figures, err error) {
	f = figures{Rows: o.rows, Shards: o.shards, ValueBytes: o.valueBytes, Machine: machine(),
		Command: fmt.Sprintf("go run ./large -rows %d -shards %d -value-bytes %d -cache-mib %d", o.rows, o.shards, o.valueBytes, o.cacheMiB)}
	dirA, dirB := filepath.Join(o.dir, "a"), filepath.Join(o.dir, "b")
	if err := f.load(o, dirA, say); err != nil {
		return f, err
	}
	if err := f.reopen(o, dirA, say); err != nil {
		return f, err
	}
	say("copying the replica")
	if err := copyStore(dirA, dirB); err != nil {
		return f, err
	}
	a, engineA, err := open(o, dirA)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, closeBoth(a, engineA)) }()
	b, engineB, err := open(o, dirB)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, closeBoth(b, engineB)) }()
	r := rows{valueBytes: o.valueBytes}
	for version, d := range append([]int{0}, o.diverged...) {
		if err := diverge(a, b, r, o.rows, d, version); err != nil {
			return f, err
		}
		say("a session with %d rows that differ", d)
		s, err := repair(a, b)
		if err != nil {
			return f, err
		}
		s.Diverged = d
		if s.Found != d {
			return f, fmt.Errorf("%d rows differ, and the session found %d", d, s.Found)
		}
		f.Sessions = append(f.Sessions, s)
	}
	again, err := repair(a, b)
	if err != nil || again.Found != 0 {
		return f, fmt.Errorf("the session after that found %d rows: %w", again.Found, err)
	}
	f.PeakBytes = memory("VmHWM")
	return f, nil
}

// load fills the first replica.
func (f *figures) load(o options, dir string, say func(string, ...any)) (err error) {
	store, engine, err := open(o, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBoth(store, engine)) }()
	if n := store.Stats().Entries; n > 0 {
		return fmt.Errorf("%s has %d rows already: give another directory", dir, n)
	}
	say("sorting %d rows", o.rows)
	began := time.Now()
	r := arrange(o, store.Locate)
	f.ArrangeSeconds = time.Since(began).Seconds()
	began, cpu := time.Now(), cpuTime()
	told := began
	done := 0
	for shard, list := range r.shards {
		if err := loadShard(store, r, shard, list); err != nil {
			return err
		}
		r.shards[shard] = nil
		if done += len(list); time.Since(told) > 10*time.Second {
			told = time.Now()
			say("%d rows, %.0f a second", done, float64(done)/time.Since(began).Seconds())
		}
	}
	f.LoadSeconds, f.LoadCPU = time.Since(began).Seconds(), (cpuTime() - cpu).Seconds()
	if n := store.Stats().Entries; n != uint64(o.rows) {
		return fmt.Errorf("%d rows were loaded, and the store has %d", o.rows, n)
	}
	return nil
}

// reopen opens the directory as after a stop.
func (f *figures) reopen(o options, dir string, say func(string, ...any)) error {
	say("opening it again")
	runtime.GC()
	began := time.Now()
	engine, err := pebblestore.Open(dir, pebblestore.Options{CacheBytes: int64(o.cacheMiB) << 20})
	if err != nil {
		return err
	}
	f.EngineSeconds = time.Since(began).Seconds()
	store, err := storage.Open(engine, storage.Options{Shards: o.shards, Secret: secret})
	if err != nil {
		return errors.Join(err, engine.Close())
	}
	f.OpenSeconds = time.Since(began).Seconds()
	snapshot := store.Snapshot()
	f.TreeBytes = snapshot.TreeBytes()
	f.MemoryBytes = memory("VmRSS")
	f.DiskBytes, err = diskBytes(dir)
	return errors.Join(err, snapshot.Close(), closeBoth(store, engine))
}

// diverge overwrites d rows, spread over all, on one of the replicas.
func diverge(a, b *storage.Store, r rows, all, d, version int) error {
	for i := range d {
		number := uint32(int64(i)*int64(all)/int64(d)) + uint32(version)
		e := r.entry(new(buffers), number, version)
		if _, err := []*storage.Store{a, b}[i%2].Apply([]lww.Entry{e}); err != nil {
			return err
		}
	}
	return nil
}

// repair runs one session between two stores, messages encoded, until both hold the
// same.
func repair(a, b *storage.Store) (s session, err error) {
	began, cpu := time.Now(), cpuTime()
	mine, theirs := a.Snapshot(), b.Snapshot()
	defer func() { err = errors.Join(err, mine.Close(), theirs.Close()) }()
	init := antientropy.NewInitiator(mine, antientropy.Config{Now: hlc.FromTime(time.Now())})
	resp := antientropy.NewResponder(func(hlc.Stamp) (antientropy.View, error) { return theirs, nil })
	for {
		msg, err := init.Next()
		if err != nil {
			return s, err
		}
		if msg == nil {
			break
		}
		pushed, err := resp.Receive(msg)
		if err == nil && len(pushed) > 0 {
			_, err = b.Apply(pushed)
		}
		pulled, err := init.Receive(resp.Reply(err))
		if err != nil {
			return s, err
		}
		if len(pulled) > 0 {
			_, err = a.Apply(pulled)
		}
		init.Applied(err)
	}
	r := init.Report()
	if !r.Complete {
		return s, errors.New("the session is not complete")
	}
	frames := 2 * int64(r.Rounds) * reconcile.FrameBytes
	return session{
		Found: r.Diverged, Seconds: time.Since(began).Seconds(), CPU: (cpuTime() - cpu).Seconds(),
		Bytes: r.BytesSent + r.BytesReceived + frames, Rounds: r.Rounds, RowsRead: r.RowsRead,
	}, nil
}

// copyStore copies a closed store. Its tables never change, so they are linked.
func copyStore(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case strings.HasSuffix(name, ".sst"):
			return os.Link(path, target)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
}

// diskBytes adds up the files of a store that is open: some of them may go meanwhile.
func diskBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
