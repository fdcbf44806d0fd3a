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
			s = open(t, engine, storagetest.Options) // which has met no key yet
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
	failScan := func(prefix string) func() {
		return func() {
			engine.OnScan = func(lower, _ []byte) error {
				if string(lower[:1]) == prefix {
					return errDisk
				}
				return nil
			}
		}
	}
	written := memstore.New()
	s := open(t, written, storagetest.Options)
	if _, err := s.Apply(someEntries(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, arm := range map[string]func(){
		"reading the layout":    func() { engine.OnGet = func([]byte) error { return errDisk } },
		"committing the layout": func() { engine.OnCommit = fail },
		"syncing the layout":    func() { engine.OnWait = fail },
		"looking for rows":      failScan("t"),
		"reading the checkpoint": func() {
			engine.Engine = written
			engine.OnGet = func(key []byte) error {
				if key[0] == 'c' {
					return errDisk
				}
				return nil
			}
		},
		"reading the totals": func() { engine.Engine = written; failScan("s")() },
		"reading the leaves": func() { engine.Engine = written; failScan("l")() },
		"reading the log":    func() { engine.Engine = written; failScan("t")() },
	} {
		engine.Engine = memstore.New()
		arm()
		if _, err := storage.Open(engine, storagetest.Options); !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", name, err)
		}
		*engine = storagetest.Intercept{}
	}
}

// many returns n entries, which make several splits due with the leaves of the
// suite.
func many(n int, stamp hlc.Stamp) (entries []lww.Entry) {
	for i := range n {
		entries = append(entries, entry(fmt.Sprintf("many%d", i), stamp))
	}
	return entries
}

func leaves(s *storage.Store) (n int) {
	for shard := range s.Shards() {
		n += len(storagetest.Leaves(s, shard))
	}
	return n
}

// TestFailingSplit: a split that cannot read its rows is left for later. The
// write stands, the trees are exact with larger leaves, and the disk is not asked
// again for every write.
func TestFailingSplit(t *testing.T) {
	engine := &storagetest.Intercept{Engine: memstore.New()}
	s := open(t, engine, storagetest.Options)
	scans := 0
	engine.OnScan = func(_, _ []byte) error { scans++; return errDisk }
	for _, e := range many(400, 1) {
		if _, err := s.Apply([]lww.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	if scans == 0 || scans > 400/storagetest.Options.LeafKeys {
		t.Errorf("%d scans of a disk that cannot be read", scans)
	}
	engine.OnScan = nil
	if n := leaves(s); n != 4 {
		t.Errorf("%d leaves, without having read a row", n)
	}
	storagetest.Check(t, engine, s, storagetest.Options)
	for _, e := range many(400, 2) {
		if _, err := s.Apply([]lww.Entry{e, entry(string(e.Key)+"+", 2)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := leaves(s); n < 400 {
		t.Errorf("%d leaves for 800 entries: the splits were not made up for", n)
	}
	storagetest.Check(t, engine, s, storagetest.Options)
}

// TestCrashBeforeASplitIsLogged: a split is on disk with the write after it. After
// a crash the tree has the shape from before it and the entries from after, and
// grows on.
func TestCrashBeforeASplitIsLogged(t *testing.T) {
	engine := memstore.New()
	n := 0
	for life := range 50 {
		s := open(t, engine, storagetest.Options)
		for range 1 + life%4 {
			n++
			if _, err := s.Apply([]lww.Entry{entry(fmt.Sprintf("key%d", n), 1)}); err != nil {
				t.Fatal(err)
			}
		}
		grown := leaves(s)
		engine = engine.Crash()
		s = open(t, engine, storagetest.Options)
		if leaves(s) > grown {
			t.Fatal("a crash adds leaves")
		}
		if held := storagetest.Check(t, engine, s, storagetest.Options); len(held) != n {
			t.Fatalf("life %d: %d entries of %d", life, len(held), n)
		}
	}
	if l := leaves(open(t, engine, storagetest.Options)); l < n/4 {
		t.Errorf("%d leaves for %d entries: no split ever survived", l, n)
	}
}

// TestRotDoesNotSpreadWhenLeavesSplit: a row that changed by itself makes its own
// leaf wrong, in whichever half of the leaf it is. Were the difference booked on
// the other half, no repair would find it.
func TestRotDoesNotSpreadWhenLeavesSplit(t *testing.T) {
	for rotten := range 10 {
		engine := memstore.New()
		s := open(t, engine, storage.Options{Shards: 1, LeafKeys: 100})
		if _, err := s.Apply(many(20, 1)); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprintf("many%d", rotten)
		for k, v := range rows(t, engine) {
			if k[0] == 'd' && strings.HasSuffix(k, key) && len(k) == 11+len(key) {
				b := engine.NewBatch()
				b.Set([]byte(k), []byte(v[:len(v)-1]+"w"))
				if _, err := engine.Commit(b, true); err != nil {
					t.Fatal(err)
				}
			}
		}
		s = open(t, engine, storage.Options{Shards: 1, LeafKeys: 2})
		if _, err := s.Apply(many(200, 1)[20:]); err != nil {
			t.Fatal(err)
		}
		x := s.Position([]byte(key))
		snapshot := s.Snapshot()
		audit, err := snapshot.Recompute(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(audit.Wrong) != 1 || !audit.Wrong[0].Contains(x) || audit.Wrong[0].Bits < 4 {
			t.Errorf("the row at %v is rotten, the audit says %v", x, audit.Wrong)
		}
		if err := snapshot.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFailingReadFailsAlone: of calls that are made at the same time, only those
// whose old versions cannot be read fail.
func TestFailingReadFailsAlone(t *testing.T) {
	engine := &storagetest.Intercept{Engine: memstore.New()}
	s := open(t, engine, storagetest.Options)
	engine.OnGet = func(key []byte) error {
		if strings.HasSuffix(string(key), "bad") {
			return errDisk
		}
		return nil
	}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := range 30 {
				good := entry(fmt.Sprintf("key%d-%d", w, i), 1)
				if w%2 == 0 {
					if results, err := s.Apply([]lww.Entry{good}); err != nil || results[0].Outcome != storage.Applied {
						t.Errorf("a call beside those that fail: %v, %v", results, err)
					}
				} else if results, err := s.Apply([]lww.Entry{good, entry("bad", 1)}); !errors.Is(err, errDisk) || results != nil {
					t.Errorf("a call that cannot read: %v, %v", results, err)
				}
			}
		})
	}
	wg.Wait()
	engine.OnGet = nil
	if held := storagetest.Check(t, engine, s, storagetest.Options); len(held) != 3*30 {
		t.Errorf("%d entries, want those of the calls that succeeded", len(held))
	}
}
