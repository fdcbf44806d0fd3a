package storage_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/storage"
	"syntropy/storage/memstore"
	"syntropy/storage/storagetest"
)

var errDisk = errors.New("the disk is on fire")

func open(t *testing.T, e storage.Engine, opts storage.Options) *storage.Store {
	t.Helper()
	s, err := storage.Open(e, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entry(key string, stamp hlc.Stamp) lww.Entry {
	return lww.Entry{Key: []byte(key), Value: []byte("v"), Version: lww.Version{Stamp: stamp, Node: 1}}
}

func someEntries(stamp hlc.Stamp) (entries []lww.Entry) {
	for i := range 5 {
		entries = append(entries, entry(fmt.Sprintf("key%d", i), stamp))
	}
	entries[3].Tombstone, entries[3].Value = true, nil
	return append(entries, entries[0], entry("key1", stamp+1))
}

func roots(s *storage.Store) (roots []merkle.Digest) {
	snapshot := s.Snapshot()
	defer snapshot.Close()
	for shard := range snapshot.Shards() {
		roots = append(roots, snapshot.Root(shard))
	}
	return roots
}

func rows(t *testing.T, e storage.Reader) map[string]string {
	t.Helper()
	rows := make(map[string]string)
	if err := e.Scan(nil, []byte{0xff}, func(k, v []byte) bool { rows[string(k)] = string(v); return true }); err != nil {
		t.Fatal(err)
	}
	return rows
}

// refusesWrites checks that a failed store says so, whatever is tried, and
// writes nothing.
func refusesWrites(t *testing.T, s *storage.Store, e storage.Reader) {
	t.Helper()
	before := rows(t, e)
	_, apply := s.Apply(someEntries(100))
	for name, err := range map[string]error{
		"Apply": apply, "PutMeta": s.PutMeta("m", nil), "Sync": s.Sync(), "Close": s.Close(),
	} {
		if !errors.Is(err, errDisk) || !strings.Contains(fmt.Sprint(err), "takes no more writes") {
			t.Errorf("%s on a failed store: %v", name, err)
		}
	}
	if !maps.Equal(rows(t, e), before) {
		t.Error("a failed store was written to")
	}
}

// TestFailingReadLeavesNothingHalfDone: Apply reads old versions before it
// writes. Whichever read fails, nothing has happened, and the store goes on.
func TestFailingReadLeavesNothingHalfDone(t *testing.T) {
	for fail := range 5 { // five keys, each is read once
		t.Run(fmt.Sprintf("read %d", fail), func(t *testing.T) {
			engine := &storagetest.Intercept{Engine: memstore.New()}
			s := open(t, engine, storagetest.Options)
			if _, err := s.Apply(someEntries(1)); err != nil {
				t.Fatal(err)
			}
			rowsBefore, rootsBefore, statsBefore := rows(t, engine), roots(s), s.Stats()

			reads := 0
			engine.OnGet = func([]byte) error {
				if reads++; reads > fail {
					return errDisk
				}
				return nil
			}
			results, err := s.Apply(someEntries(10))
			if !errors.Is(err, errDisk) || results != nil {
				t.Fatalf("Apply over a failing read: %v, %v", results, err)
			}
			if _, _, err := s.Get([]byte("key1")); !errors.Is(err, errDisk) {
				t.Errorf("Get over a failing read: %v", err)
			}
			engine.OnGet = nil
			if !maps.Equal(rows(t, engine), rowsBefore) || fmt.Sprint(roots(s)) != fmt.Sprint(rootsBefore) || s.Stats() != statsBefore {
				t.Error("the failed write left something behind")
			}
			if _, err := s.Apply(someEntries(10)); err != nil {
				t.Errorf("the store is not usable any more: %v", err)
			}
			storagetest.Check(t, engine, s, storagetest.Options)
		})
	}
}

// lossy is an engine whose commits fail once armed, applied or not.
type lossy struct {
	*memstore.Engine
	armed, applies bool
}

func (e *lossy) Commit(b storage.Batch, sync bool) (func() error, error) {
	if !e.armed {
		return e.Engine.Commit(b, sync)
	}
	if e.applies {
		if _, err := e.Engine.Commit(b, sync); err != nil {
			return nil, err
		}
	}
	return nil, errDisk
}

// TestFailingCommit: nobody knows whether a commit that failed was applied. The
// trees stay where they were, nothing more is written, and opening again finds
// the truth, whichever it is.
func TestFailingCommit(t *testing.T) {
	for name, applies := range map[string]bool{"and was not applied": false, "but was applied": true} {
		t.Run(name, func(t *testing.T) {
			engine := &lossy{Engine: memstore.New(), applies: applies}
			s := open(t, engine, storagetest.Options)
			if _, err := s.Apply(someEntries(1)); err != nil {
				t.Fatal(err)
			}
			before := roots(s)
			engine.armed = true
			results, err := s.Apply(someEntries(10))
			if !errors.Is(err, errDisk) || results != nil {
				t.Fatalf("Apply over a failing commit: %v, %v", results, err)
			}
			engine.armed = false
			if fmt.Sprint(roots(s)) != fmt.Sprint(before) {
				t.Error("the trees moved")
			}
			refusesWrites(t, s, engine)

			s = open(t, engine, storagetest.Options)
			if moved := fmt.Sprint(roots(s)) != fmt.Sprint(before); moved != applies {
				t.Errorf("opened again, the trees moved: %v", moved)
			}
			storagetest.Check(t, engine, s, storagetest.Options)
		})
	}
}

// TestFailingSync: a write that is applied and may not survive is not
// acknowledged, and neither is any later one: after one fsync that failed, one
// that succeeds proves nothing.
func TestFailingSync(t *testing.T) {
	writes := map[string]func(*storage.Store) error{
		"Apply": func(s *storage.Store) error { _, err := s.Apply(someEntries(10)); return err },
		// It changes nothing, but what it finds may be what was not synced.
		"Apply of what is there": func(s *storage.Store) error { _, err := s.Apply([]lww.Entry{entry("key2", 1)}); return err },
		"PutMeta":                func(s *storage.Store) error { return s.PutMeta("m", nil) },
		"Sync":                   func(s *storage.Store) error { return s.Sync() },
		"Close":                  func(s *storage.Store) error { return s.Close() },
	}
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			engine := &storagetest.Intercept{Engine: memstore.New()}
			s := open(t, engine, storagetest.Options)
			if _, err := s.Apply(someEntries(1)); err != nil {
				t.Fatal(err)
			}
			engine.OnWait = func() error { return errDisk }
			if err := write(s); !errors.Is(err, errDisk) {
				t.Fatalf("%s over a failing sync: %v", name, err)
			}
			engine.OnWait = nil
			refusesWrites(t, s, engine)
			// What is in memory is still true of what the engine shows.
			storagetest.Check(t, engine, s, storagetest.Options)
		})
	}
}

// TestFailingSyncUnderLoad: of many concurrent writes, none that began after the
// failure was reported is acknowledged.
func TestFailingSyncUnderLoad(t *testing.T) {
	engine := &storagetest.Intercept{Engine: memstore.New()}
	s := open(t, engine, storagetest.Options)
	var mu sync.Mutex
	waits := 0
	engine.OnWait = func() error {
		mu.Lock()
		defer mu.Unlock()
		if waits++; waits > 20 {
			return errDisk
		}
		return nil
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			failed := false
			for i := range 20 {
				_, err := s.Apply([]lww.Entry{entry(fmt.Sprintf("key%d-%d", w, i), 1)})
				if failed && err == nil {
					t.Error("acknowledged after a failure")
				}
				if err != nil && !errors.Is(err, errDisk) {
					t.Error(err)
				}
				failed = err != nil
			}
		})
	}
	wg.Wait()
	refusesWrites(t, s, engine)
	storagetest.Check(t, engine, s, storagetest.Options)
}

// TestOpenReportsFailures: an error while a store is opened is reported, and
// never taken for an empty store.
func TestOpenReportsFailures(t *testing.T) {
	engine := &storagetest.Intercept{Engine: memstore.New()}
	fail := func() error { return errDisk }
	for name, arm := range map[string]func(){
		"reading the layout":    func() { engine.OnGet = func([]byte) error { return errDisk } },
		"committing the layout": func() { engine.OnCommit = fail },
		"syncing the layout":    func() { engine.OnWait = fail },
		"reading the leaves":    func() { engine.OnScan = func(_, _ []byte) error { return errDisk } },
	} {
		engine.Engine = memstore.New()
		arm()
		if _, err := storage.Open(engine, storagetest.Options); !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", name, err)
		}
		*engine = storagetest.Intercept{}
	}
}
