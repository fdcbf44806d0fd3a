package pebblestore_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"syntropy/storage/pebblestore"
	"syntropy/storage/storagetest"
)

// small makes memtables flush and tables compact within a short test.
func small(fs vfs.FS) pebblestore.Options {
	return pebblestore.Options{FS: fs, CacheBytes: 1 << 20, MemTableBytes: 64 << 10}
}

func TestConformance(t *testing.T) {
	for _, tc := range []struct {
		name     string
		unsynced int
	}{
		{"a crash loses all that was not synced", 0},
		{"a crash loses half of what was not synced", 50},
	} {
		t.Run(tc.name, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storagetest.EngineUnderTest {
				rng := storagetest.Rand(t)
				return underTest(t, vfs.NewCrashableMem(), func() vfs.CrashCloneCfg {
					return vfs.CrashCloneCfg{UnsyncedDataPercent: tc.unsynced, RNG: rng}
				})
			})
		})
	}
}

func underTest(t *testing.T, fs *vfs.MemFS, cfg func() vfs.CrashCloneCfg) storagetest.EngineUnderTest {
	t.Helper()
	e, err := pebblestore.Open("store", small(fs))
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	shut := func() {
		if !closed {
			closed = true
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(shut)
	return storagetest.EngineUnderTest{Engine: e, Crash: func(t *testing.T) storagetest.EngineUnderTest {
		disk := fs.CrashClone(cfg())
		shut() // what it still writes goes to the old disk
		return underTest(t, disk, cfg)
	}}
}
