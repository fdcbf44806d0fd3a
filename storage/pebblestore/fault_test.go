package pebblestore_test

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
	"syntropy/storage/storagetest"
)

// TestFaults lets operations on the disk fail at many points of a store's life. For
// lack of space, for a while: everything waits, nothing is lost, and it goes on by
// itself. Slowly: the same. With an I/O error, once: the write fails, or the engine says
// that it cannot go on, or the work is done again. In each case what was acknowledged
// is on the disk after a power failure, and the trees are exact.
func TestFaults(t *testing.T) {
	const points = 40 / few
	rng := storagetest.Rand(t)
	total := int64(countWrites(t))
	for name, f := range map[string]fault{
		"no space for a while": {err: syscall.ENOSPC, times: 4},
		"slow":                 {delay: 20 * time.Millisecond, times: 5},
		"an I/O error":         {err: syscall.EIO, times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var outcomes sync.Map
			limit := make(chan struct{}, 8) // most of the time is spent waiting
			var running sync.WaitGroup
			for range points {
				f := f
				f.at = 1 + rng.Int64N(total)
				limit <- struct{}{}
				running.Go(func() {
					defer func() { <-limit }()
					outcome := f.live(t)
					n, _ := outcomes.LoadOrStore(outcome, new(atomic.Int64))
					n.(*atomic.Int64).Add(1)
				})
			}
			running.Wait()
			outcomes.Range(func(outcome, n any) bool { t.Logf("%v: %d", outcome, n.(*atomic.Int64).Load()); return true })
			if f.err == syscall.EIO {
				return
			}
			for _, bad := range []string{"failed", "stopped"} {
				if n, ok := outcomes.Load(bad); ok {
					t.Errorf("%d lives ended: %s", n.(*atomic.Int64).Load(), bad)
				}
			}
		})
	}
}

// fault is what happens to some operations that change the disk, from the at-th on.
type fault struct {
	at, times int64
	err       error
	delay     time.Duration
}

func (f fault) inject(op errorfs.Op, n int64) error {
	if f.err == syscall.ENOSPC && op.Kind != errorfs.OpFileWrite && op.Kind != errorfs.OpCreate {
		return nil // a sync that fails is another matter, whatever the reason
	}
	if n < f.at || n >= f.at+f.times {
		return nil
	}
	time.Sleep(f.delay)
	return f.err
}

// changes tells operations that change the disk.
func changes(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpRename, errorfs.OpReuseForWrite, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpLink:
		return true
	}
	return false
}

// countWrites returns how many operations change the disk in a life without faults,
// after it was opened.
func countWrites(t *testing.T) int {
	t.Helper()
	f := fault{at: 1 << 40}
	f.live(t)
	return int(faultsSeen.Load())
}

var faultsSeen atomic.Int64

// live lets a store live through the fault, takes the power away, and checks what is
// left.
func (f fault) live(t *testing.T) (outcome string) {
	disk := vfs.NewCrashableMem()
	var armed atomic.Bool
	var n atomic.Int64
	faulty := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && changes(op) {
			return f.inject(op, n.Add(1))
		}
		return nil
	}))
	fatal := make(chan error, 1)
	opts := small(faulty)
	opts.OnFatal = func(err error) { fatal <- err }
	engine, err := pebblestore.Open("store", opts)
	if err != nil {
		t.Error(err)
		return "refused"
	}
	store, err := storage.Open(engine, storagetest.Options)
	if err != nil {
		t.Error(err)
		return "refused"
	}
	armed.Store(true)
	acked := make(map[string]lww.Entry)
	var mu sync.Mutex
	ended := make(chan error, 1)
	go func() {
		for i := range 150 {
			e := lww.Entry{Key: fmt.Appendf(nil, "key%d", i%100), Value: make([]byte, 3000), Version: lww.Version{Stamp: hlc.Stamp(i + 1), Node: 1}}
			for j := range e.Value {
				e.Value[j] = byte(i * (j + 7) >> 3)
			}
			if _, err := store.Apply([]lww.Entry{e}); err != nil {
				ended <- err
				return
			}
			mu.Lock()
			acked[string(e.Key)] = e
			mu.Unlock()
		}
		ended <- nil
	}()
	select {
	case err = <-ended:
		outcome = "went on"
		if err != nil {
			outcome = "failed"
			select {
			case <-store.Broken():
			case <-time.After(10 * time.Second):
				t.Errorf("operation %d: %v, but the store is not broken", f.at, err)
			}
		}
	case <-fatal:
		outcome = "stopped"
	}
	armed.Store(false)
	faultsSeen.Store(n.Load())
	mu.Lock()
	want := maps.Clone(acked)
	mu.Unlock()
	left := disk.CrashClone(vfs.CrashCloneCfg{})
	if outcome == "went on" {
		if err := errors.Join(store.Close(), engine.Close()); err != nil {
			t.Errorf("operation %d: closing: %v", f.at, err)
		}
	} else {
		_ = engine.Close() // it may complain
	}
	after, err := pebblestore.Open("store", small(left))
	if err != nil {
		t.Errorf("operation %d, %s: after the crash: %v", f.at, outcome, err)
		return outcome
	}
	defer after.Close()
	reopened, err := storage.Open(after, storagetest.Options)
	if err != nil {
		t.Errorf("operation %d, %s: after the crash: %v", f.at, outcome, err)
		return outcome
	}
	held := storagetest.Check(t, after, reopened, storagetest.Options)
	for key, e := range want {
		if got, ok := held[key]; !ok || lww.Compare(got, e) < 0 {
			t.Errorf("operation %d, %s: %s was acknowledged as %v, and is %v", f.at, outcome, key, e.Stamp, got.Stamp)
		}
	}
	return outcome
}
