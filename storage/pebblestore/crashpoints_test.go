package pebblestore_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/storagetest"
)

// crashPoints is the number of moments at which TestEveryWritePoint takes the
// power away; the race detector sees some of them.
const crashPoints = 5000

// raceEnabled says that everything takes ten times as long.
var raceEnabled bool

// TestEveryWritePoint takes the power away before everything that the store does
// to its disk: each write, sync, creation, link, renaming and removal, while three
// goroutines write in groups, trees split, checkpoints are written, memtables are
// flushed, tables compacted, and shards loaded in bulk. What a restart finds then,
// all that was synced and a random share of what was not, opens without reading
// data, holds every acknowledged write, nothing that nobody wrote, all of a load or
// nothing of it, and trees that are those of its rows (I1, I5).
func TestEveryWritePoint(t *testing.T) {
	rng := storagetest.Rand(t)
	points := crashPoints
	if testing.Short() || raceEnabled {
		points /= 50
	}
	c := &crashes{t: t, photos: make(chan crashPhoto, 8)}
	c.left.Store(int64(points))
	var checkers sync.WaitGroup
	for range 2 {
		checkers.Go(func() {
			for p := range c.photos {
				c.check(p)
			}
		})
	}
	lives := 0
	for ; c.left.Load() > 0 && !t.Failed(); lives++ {
		c.live(rand.New(rand.NewPCG(rng.Uint64(), 0)))
	}
	close(c.photos)
	checkers.Wait()
	t.Logf("%d crashes in %d lives, %d of them with a shard that was loaded, %d with a checkpoint", points, lives, c.loaded.Load(), c.checkpoints.Load())
	if c.loaded.Load() < int64(points/100) || c.checkpoints.Load() < int64(points/4) {
		t.Error("too few crashes came after a load or a checkpoint")
	}
}

type crashes struct {
	t                   *testing.T
	left                atomic.Int64
	photos              chan crashPhoto
	loaded, checkpoints atomic.Int64 // photographs that show one
}

type crashPhoto struct {
	disk  *vfs.MemFS
	point string
	life  *crashLife
	acked map[string]lww.Entry
	load  bool // acknowledged
}

// crashLife is a store from its first opening to the last of its crashes.
type crashLife struct {
	*crashes
	disk  *vfs.MemFS
	loads []lww.Entry // what is loaded into shard 3, where nobody writes

	mu      sync.Mutex
	rng     *rand.Rand
	armed   bool
	acked   map[string]lww.Entry
	offered map[string]bool
	load    bool
}

const loadedShard = 3

func (c *crashes) live(rng *rand.Rand) {
	l := &crashLife{crashes: c, disk: vfs.NewCrashableMem(), rng: rng, acked: make(map[string]lww.Entry), offered: make(map[string]bool)}
	engine, store := openCrashed(c.t, errorfs.Wrap(l.disk, errorfs.InjectorFunc(l.before)))
	for i := range 150 {
		e := storagetest.RandomEntry(rng, 1)
		e.Key = fmt.Appendf(nil, "load%d", i)
		l.loads = append(l.loads, e)
		l.offered[string(lww.AppendEntry(nil, e))] = true
	}
	l.loads = storagetest.InOrder(store, loadedShard, l.loads)
	l.mu.Lock()
	l.armed = true
	l.mu.Unlock()
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			for i := 0; i < 60 && c.left.Load() > 0; i++ {
				l.write(store, i)
			}
		})
	}
	writers.Go(func() {
		n, err := store.Load(loadedShard, 40, storagetest.Each(l.loads))
		if err != nil || int(n) != len(l.loads) {
			c.t.Errorf("loaded %d of %d: %v", n, len(l.loads), err)
		}
		l.mu.Lock()
		l.load = true
		l.mu.Unlock()
	})
	writers.Wait()
	if err := errors.Join(store.Close(), engine.Close()); err != nil {
		c.t.Error(err)
	}
}

func (l *crashLife) write(store *storage.Store, i int) {
	l.mu.Lock()
	var offers []lww.Entry
	for len(offers) < 1+l.rng.IntN(4) {
		e := storagetest.RandomEntry(l.rng, 200)
		if shard, _ := store.Locate(e.Key); shard == loadedShard {
			continue
		}
		e.Stamp += hlc.Stamp(i) << 20
		if !e.Tombstone && l.rng.IntN(8) == 0 {
			e.Value = make([]byte, 3000) // memtables fill
		}
		offers = append(offers, e)
		l.offered[string(lww.AppendEntry(nil, e))] = true
	}
	l.mu.Unlock()
	if _, err := store.Apply(offers); err != nil {
		l.t.Error(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range offers {
		if old, found := l.acked[string(e.Key)]; !found || lww.Compare(old, e) < 0 {
			l.acked[string(e.Key)] = e
		}
	}
}

// before is called before each operation on the disk.
func (l *crashLife) before(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	l.mu.Lock()
	if !l.armed || l.left.Add(-1) < 0 {
		l.mu.Unlock()
		return nil
	}
	p := crashPhoto{point: fmt.Sprintf("before operation %v on %s", op.Kind, op.Path), life: l, acked: maps.Clone(l.acked), load: l.load}
	rng := rand.New(rand.NewPCG(l.rng.Uint64(), 0))
	l.mu.Unlock()
	p.disk = l.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng})
	l.photos <- p
	return nil
}

func (c *crashes) check(p crashPhoto) {
	if c.t.Failed() {
		return
	}
	engine, store, err := reopen(p.disk)
	if err != nil {
		c.t.Errorf("%s: %v", p.point, err)
		return
	}
	held := storagetest.Check(c.t, engine, store, storagetest.Options)
	for key, e := range p.acked {
		if got, ok := held[key]; !ok || lww.Compare(got, e) < 0 {
			c.t.Errorf("%s: %q was acknowledged as %+v, the store holds %+v", p.point, key, e.Version, got.Version)
		}
	}
	p.life.mu.Lock()
	for key, e := range held {
		if !p.life.offered[string(lww.AppendEntry(nil, e))] {
			c.t.Errorf("%s: %q holds %+v, which nobody wrote", p.point, key, e.Version)
		}
	}
	p.life.mu.Unlock()
	loaded := 0
	for _, e := range p.life.loads {
		if _, ok := held[string(e.Key)]; ok {
			loaded++
		}
	}
	if loaded != 0 && loaded != len(p.life.loads) || p.load && loaded == 0 {
		c.t.Errorf("%s: %d of %d rows of a load, acknowledged: %v", p.point, loaded, len(p.life.loads), p.load)
	}
	if loaded > 0 {
		c.loaded.Add(1)
	}
	if _, found, _ := engine.Get([]byte("c")); found {
		c.checkpoints.Add(1)
	}
	if err := engine.Close(); err != nil {
		c.t.Errorf("%s: %v", p.point, err)
	}
	if c.t.Failed() {
		c.t.Errorf("%s failed", p.point)
	}
}
