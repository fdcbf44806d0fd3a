package pebblestore_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
	"syntropy/storage/storagetest"
)

// TestCrashes photographs the disk at 60 random moments while four goroutines
// write, as it would be found after a power failure: all that was synced, and a
// random share of the blocks that were not. From every photograph the store
// opens without reading a row of data, holds every write that was acknowledged
// before it was taken and nothing that was never written, and its trees,
// index and counts are those of its rows (I1, I5).
//
// The last photograph of each life is the disk of the next one.
func TestCrashes(t *testing.T) {
	const lives, photographs = 6, 10
	rng := storagetest.Rand(t)
	disk := vfs.NewCrashableMem()
	acked := make(map[string]lww.Entry) // the newest acknowledged version of each key
	offered := make(map[string]bool)    // every entry that was ever written, encoded
	flushed := 0
	for life := range lives {
		engine, store := openCrashed(t, disk)
		w := workload{store: store, rng: rand.New(rand.NewPCG(rng.Uint64(), 1)), life: life, acked: acked, offered: offered}
		w.start(t, 4)
		var photos []photo
		for range photographs {
			w.waitAcks(1 + rng.IntN(8))
			photos = append(photos, w.photograph(disk, rng))
		}
		w.stop()
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
		for i, p := range photos {
			p.check(t, fmt.Sprintf("life %d, photograph %d", life, i), offered)
		}
		last := photos[len(photos)-1]
		disk, acked = last.disk, last.acked
		flushed += tables(t, last.disk)
	}
	if len(acked) < 100 {
		t.Errorf("only %d keys were ever acknowledged", len(acked))
	}
	if flushed == 0 {
		t.Error("no memtable was ever flushed: the test crashed nothing but logs")
	}
}

func openCrashed(t *testing.T, disk vfs.FS) (*pebblestore.Engine, *storage.Store) {
	t.Helper()
	engine, store, err := reopen(disk)
	if err != nil {
		t.Fatal(err)
	}
	return engine, store
}

// reopen opens a store, and fails if that reads rows of data.
func reopen(disk vfs.FS) (*pebblestore.Engine, *storage.Store, error) {
	engine, err := pebblestore.Open("store", small(disk))
	if err != nil {
		return nil, nil, err
	}
	watched := &storagetest.Intercept{Engine: engine,
		OnGet: func(k []byte) error {
			if k[0] == 'd' {
				return errors.New("opening read a row of data")
			}
			return nil
		},
		OnScan: func(lower, upper []byte) error {
			if string(lower) < "e" && string(upper) > "d" {
				return errors.New("opening scanned rows of data")
			}
			return nil
		},
	}
	store, err := storage.Open(watched, storagetest.Options)
	if err != nil {
		return nil, nil, errors.Join(err, engine.Close())
	}
	watched.OnGet, watched.OnScan = nil, nil
	return engine, store, nil
}

// workload writes from several goroutines and remembers what was acknowledged.
type workload struct {
	store *storage.Store
	life  int

	mu      sync.Mutex
	ack     sync.Cond
	rng     *rand.Rand
	acked   map[string]lww.Entry
	offered map[string]bool
	acks    int

	stopping atomic.Bool
	writers  sync.WaitGroup
}

func (w *workload) start(t *testing.T, writers int) {
	w.ack.L = &w.mu
	w.acked = maps.Clone(w.acked)
	for range writers {
		w.writers.Go(func() {
			for !w.stopping.Load() {
				offers := w.draw()
				_, err := w.store.Apply(offers)
				if err != nil {
					t.Error(err)
					w.stopping.Store(true)
				}
				w.acknowledge(offers, err == nil)
			}
		})
	}
}

func (w *workload) draw() (offers []lww.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range 1 + w.rng.IntN(6) {
		e := storagetest.RandomEntry(w.rng, 300)
		e.Stamp += hlc.Stamp(w.life*400+w.acks) << 20 // newer and newer, with some late ones
		if !e.Tombstone && w.rng.IntN(4) == 0 {
			e.Value = []byte(strings.Repeat("0123456789", w.rng.IntN(400)))
		}
		offers = append(offers, e)
		w.offered[string(lww.AppendEntry(nil, e))] = true
	}
	return offers
}

func (w *workload) acknowledge(offers []lww.Entry, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ok {
		for _, e := range offers {
			if old, found := w.acked[string(e.Key)]; !found || lww.Compare(old, e) < 0 {
				w.acked[string(e.Key)] = e
			}
		}
	}
	w.acks++
	w.ack.Broadcast()
}

func (w *workload) waitAcks(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for until := w.acks + n; w.acks < until && !w.stopping.Load(); {
		w.ack.Wait()
	}
}

func (w *workload) stop() {
	w.stopping.Store(true)
	w.writers.Wait()
}

// photo is a disk after a crash, with what had been acknowledged before it.
type photo struct {
	disk  *vfs.MemFS
	acked map[string]lww.Entry
}

func (w *workload) photograph(disk *vfs.MemFS, rng *rand.Rand) photo {
	w.mu.Lock()
	acked := maps.Clone(w.acked) // first: what is acknowledged later may be on disk or not
	w.mu.Unlock()
	return photo{disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng}), acked}
}

func (p photo) check(t *testing.T, name string, offered map[string]bool) {
	t.Helper()
	// Opened from a copy: the next life begins from the photograph as it is.
	engine, store := openCrashed(t, p.disk.CrashClone(vfs.CrashCloneCfg{}))
	held := storagetest.Check(t, engine, store, storagetest.Options)
	for key, e := range p.acked {
		if got, ok := held[key]; !ok || lww.Compare(got, e) < 0 {
			t.Errorf("%s: %q was acknowledged as %+v, the store holds %+v", name, key, e.Version, got.Version)
		}
	}
	for key, e := range held {
		if !offered[string(lww.AppendEntry(nil, e))] {
			t.Errorf("%s: %q holds %+v, which nobody wrote", name, key, e.Version)
		}
	}
	if err := errors.Join(store.Close(), engine.Close()); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if t.Failed() {
		t.Fatalf("%s failed", name)
	}
}

func tables(t *testing.T, disk vfs.FS) (n int) {
	t.Helper()
	files, err := disk.List("store")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, ".sst") {
			n++
		}
	}
	return n
}

// TestFailingFsync: the disk refuses to sync the log. The write is not
// acknowledged, the store takes no more, and the process lives to say so.
func TestFailingFsync(t *testing.T) {
	var broken atomic.Bool
	disk := vfs.NewCrashableMem()
	faulty := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			if broken.Load() && strings.HasSuffix(op.Path, ".log") {
				return errorfs.ErrInjected
			}
		}
		return nil
	}))
	engine, err := pebblestore.Open("store", small(faulty))
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(engine, storagetest.Options)
	if err != nil {
		t.Fatal(err)
	}
	entry := func(key string) []lww.Entry {
		return []lww.Entry{{Key: []byte(key), Value: []byte("v"), Version: lww.Version{Stamp: 1, Node: 1}}}
	}
	if _, err := store.Apply(entry("before")); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if _, err := store.Apply(entry("lost")); !errors.Is(err, errorfs.ErrInjected) {
		t.Fatalf("a write whose fsync failed: %v", err)
	}
	broken.Store(false) // the next fsync might succeed, and would prove nothing
	_, err = store.Apply(entry("after"))
	for name, err := range map[string]error{"Apply": err, "Sync": store.Sync(), "PutMeta": store.PutMeta("m", nil)} {
		if !errors.Is(err, errorfs.ErrInjected) || !strings.Contains(err.Error(), "takes no more writes") {
			t.Errorf("%s afterwards: %v", name, err)
		}
	}
	if _, found, err := store.Get([]byte("before")); !found || err != nil {
		t.Errorf("reads go on: %v, %v", found, err)
	}
	after := disk.CrashClone(vfs.CrashCloneCfg{})
	if err := engine.Close(); err == nil {
		t.Log("the engine closed without complaint")
	}
	engine, store = openCrashed(t, after)
	held := storagetest.Check(t, engine, store, storagetest.Options)
	if _, ok := held["before"]; !ok || len(held) != 1 {
		t.Errorf("after the crash: %v", held)
	}
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
}

// TestRottenBlock: bytes that rot on disk fail the read that meets them, are
// reported, and neither end the process nor reach anybody (I8).
func TestRottenBlock(t *testing.T) {
	disk := vfs.NewMem()
	var reports atomic.Int64
	opts := small(disk)
	opts.OnCorruption = func(pebblestore.Corruption) { reports.Add(1) }
	engine, err := pebblestore.Open("store", opts)
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(engine, storagetest.Options)
	if err != nil {
		t.Fatal(err)
	}
	rng := storagetest.Rand(t)
	for i := range 200 {
		value := make([]byte, 4096) // incompressible: it fills memtables and blocks
		for j := range value {
			value[j] = byte(rng.Uint32())
		}
		if _, err := store.Apply([]lww.Entry{{Key: fmt.Appendf(nil, "key%d", i), Value: value, Version: lww.Version{Stamp: 1, Node: 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(store.Close(), engine.Close()); err != nil {
		t.Fatal(err)
	}
	rotten := 0
	files, err := disk.List("store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		f, err := disk.OpenReadWrite(disk.PathJoin("store", name), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := f.ReadAt(b[:], 2000); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b[:], 2000); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		rotten++
	}
	if rotten == 0 {
		t.Fatal("no table to spoil")
	}
	if engine, err = pebblestore.Open("store", opts); err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	if store, err = storage.Open(engine, storagetest.Options); err != nil {
		// What rotted holds leaf rows: opening must say so.
		if reports.Load() == 0 {
			t.Errorf("opening fails, but nobody was told of corruption: %v", err)
		}
		return
	}
	failed := 0
	for i := range 200 {
		if _, _, err := store.Get(fmt.Appendf(nil, "key%d", i)); err != nil {
			failed++
		}
	}
	if failed == 0 || reports.Load() == 0 {
		t.Errorf("%d tables rotted, %d reads failed, %d reports", rotten, failed, reports.Load())
	}
}

// TestRealDisk opens, closes and opens again in a directory of the operating
// system that is not there yet.
func TestRealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	for life := range 3 {
		engine, err := pebblestore.Open(dir, pebblestore.Options{CacheBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		store, err := storage.Open(engine, storagetest.Options)
		if err != nil {
			t.Fatal(err)
		}
		if n := store.Stats().Entries; n != uint64(life) {
			t.Errorf("life %d begins with %d entries", life, n)
		}
		if _, err := store.Apply([]lww.Entry{{Key: fmt.Append(nil, life), Version: lww.Version{Stamp: 1, Node: 1}}}); err != nil {
			t.Fatal(err)
		}
		storagetest.Check(t, engine, store, storagetest.Options)
		if err := errors.Join(store.Close(), engine.Close()); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "under")} {
		if _, err := pebblestore.Open(dir, pebblestore.Options{}); err == nil {
			t.Errorf("opened %s", dir)
		}
	}
}
