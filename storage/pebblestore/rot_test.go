package pebblestore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/ring"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
	"syntropy/storage/storagetest"
)

// written is a disk with a store on it, in tables and in the log, and what was written
// to it, in order.
type written struct {
	disk   *vfs.MemFS
	writes []lww.Entry
}

// write makes a disk that holds some tables and a log.
func write(t *testing.T, rng *rand.Rand) written {
	t.Helper()
	w := written{disk: vfs.NewMem()}
	engine, store := openOn(t, w.disk)
	for i := range 700 {
		e := lww.Entry{Key: fmt.Appendf(nil, "key%d", rng.IntN(300)), Version: lww.Version{Stamp: hlc.Stamp(i+1) << 20, Node: 1}}
		switch rng.IntN(8) {
		case 0:
			e.Tombstone = true
		case 1:
			e.Expires, e.ExpiryStamp, e.ExpiryNode = 1<<41, e.Stamp, 1
			fallthrough
		default:
			e.Value = make([]byte, rng.IntN(700))
			for j := range e.Value {
				e.Value[j] = byte(rng.Uint32())
			}
		}
		if _, err := store.Apply([]lww.Entry{e}); err != nil {
			t.Fatal(err)
		}
		w.writes = append(w.writes, e)
	}
	if err := errors.Join(store.Close(), engine.Close()); err != nil {
		t.Fatal(err)
	}
	return w
}

// smallBlocks are the options of these tests: when a checksum does not match, Pebble
// looks for the bit that has flipped, which takes the square of the size of a block.
func smallBlocks(disk vfs.FS) pebblestore.Options {
	opts := small(disk)
	opts.BlockBytes = 512
	return opts
}

func openOn(t *testing.T, disk vfs.FS) (*pebblestore.Engine, *storage.Store) {
	t.Helper()
	engine, err := pebblestore.Open("store", smallBlocks(disk))
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(engine, storagetest.Options)
	if err != nil {
		t.Fatal(err)
	}
	return engine, store
}

// after returns what a store holds after the first n writes.
func (w written) after(n int) map[string]lww.Entry {
	held := make(map[string]lww.Entry)
	for _, e := range w.writes[:n] {
		held[string(e.Key)] = e
	}
	return held
}

// files returns the files of the store of one kind, by how their names begin or end.
func (w written) files(t *testing.T, kind string) (files []string) {
	t.Helper()
	all, err := w.disk.List("store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if path := w.disk.PathJoin("store", name); strings.HasSuffix(name, kind) || strings.HasPrefix(name, kind) {
			if info, err := w.disk.Stat(path); err == nil && info.Size() > 0 {
				files = append(files, path)
			}
		}
	}
	slices.Sort(files)
	if kind == "MANIFEST" {
		files = files[len(files)-1:] // the one before it is not read any more
	}
	if len(files) == 0 {
		t.Fatalf("the store has no %s", kind)
	}
	return files
}

// flip returns a copy of the disk in which one bit of a file has changed.
func (w written) flip(t *testing.T, path string, rng *rand.Rand) (disk *vfs.MemFS, what string) {
	t.Helper()
	disk = vfs.NewMem()
	if _, err := vfs.Clone(w.disk, disk, "store", "store"); err != nil {
		t.Fatal(err)
	}
	f, err := disk.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	at, bit := rng.Int64N(info.Size()), byte(1)<<rng.IntN(8)
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= bit
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return disk, fmt.Sprintf("%s, bit %02x of byte %d of %d", filepath.Base(path), bit, at, info.Size())
}

// TestBitFlips changes one bit of a disk, 600 times, in tables, logs and manifests, and
// opens a store on it. It opens, or it says what is damaged and what can be done.
// Whatever it then reads is what was written, or an error, and never an older version
// or nothing in its place (I8); only the end of the log may be missing, as after a power
// failure. What cannot be read the scrub finds, and from another replica it is healed:
// disk and tree agree afterwards, and everything is there (I5).
func TestBitFlips(t *testing.T) {
	const flips = 200 / few
	rng := storagetest.Rand(t)
	w := write(t, rng)
	truth := w.after(len(w.writes))
	for _, kind := range []string{".sst", ".log", "MANIFEST"} {
		t.Run(strings.TrimPrefix(kind, "."), func(t *testing.T) {
			files := w.files(t, kind)
			outcomes := make(map[string]int)
			for range flips {
				disk, what := w.flip(t, files[rng.IntN(len(files))], rng)
				outcomes[w.survive(t, disk, what, truth, kind == ".log")]++
				if t.Failed() {
					return
				}
			}
			t.Logf("%d files: %v", len(files), outcomes)
		})
	}
}

// survive opens a damaged disk and returns what came of it.
func (w written) survive(t *testing.T, disk *vfs.MemFS, what string, truth map[string]lww.Entry, mayLoseTail bool) (outcome string) {
	t.Helper()
	opts := smallBlocks(disk)
	opts.OnFatal = func(err error) { t.Errorf("%s: %v", what, err) }
	engine, err := pebblestore.Open("store", opts)
	if err != nil {
		if !errors.Is(err, pebblestore.ErrDamaged) || !strings.Contains(err.Error(), "start with an empty data directory") {
			t.Errorf("%s: refused without saying why: %v", what, err)
		}
		return "refused"
	}
	defer func() {
		if err := engine.Close(); err != nil && outcome != "refused" {
			t.Errorf("%s: closing: %v", what, err)
		}
	}()
	store, err := storage.Open(engine, storagetest.Options)
	if err != nil {
		if !errors.Is(err, storage.ErrRot) && !strings.Contains(err.Error(), "damaged") && !strings.Contains(err.Error(), "malformed") {
			t.Errorf("%s: refused without saying why: %v", what, err)
		}
		return "refused"
	}
	outcome = "unseen"
	want := truth
	if mayLoseTail {
		n := w.prefix(t, store, what)
		if want = w.after(n); n < len(w.writes) {
			outcome = "short"
		}
	}
	unread := readAll(t, store, what, want)
	problems, unhealed := scrub(t, store, what, want)
	if unread > 0 && problems == 0 {
		t.Errorf("%s: %d keys could not be read, and the scrub found nothing", what, unread)
	}
	if unhealed > 0 {
		readAll(t, store, what, want)
		return "unhealed"
	}
	if problems > 0 {
		outcome = "healed"
	}
	for shard := range storagetest.Options.Shards {
		store.Release(store.ShardNode(shard))
	}
	if unread := readAll(t, store, what, want); unread > 0 {
		t.Errorf("%s: %d keys cannot be read after all was healed", what, unread)
	}
	if held := storagetest.Check(t, engine, store, storagetest.Options); len(held) != len(want) {
		t.Errorf("%s: %d entries of %d", what, len(held), len(want))
	}
	return outcome
}

// prefix returns after how many writes the store is, which must be after all of them
// but some of the last.
func (w written) prefix(t *testing.T, store *storage.Store, what string) (n int) {
	t.Helper()
	for key := range w.after(len(w.writes)) {
		if e, found, err := store.Get([]byte(key)); err == nil && found {
			n = max(n, int(e.Stamp>>20))
		}
	}
	return n
}

// readAll reads every key, each shard as a whole, and each as a session does. What it
// gets must be what was written; it counts what it does not get.
func readAll(t *testing.T, store *storage.Store, what string, want map[string]lww.Entry) (unread int) {
	t.Helper()
	for i := range 300 {
		key := fmt.Appendf(nil, "key%d", i)
		e, found, err := store.Get(key)
		if held, ok := want[string(key)]; err == nil && (found != ok || ok && lww.Compare(e, held) != 0) {
			t.Errorf("%s: %s is %v %+v, and was written as %v %+v", what, key, found, e.Version, ok, held.Version)
		}
		if err != nil {
			unread++
		}
	}
	for shard := range store.Shards() {
		seen := 0
		err := store.Scan(shard, 0, func(_ ring.Token, e lww.Entry) bool {
			seen++
			if lww.Compare(e, want[string(e.Key)]) != 0 {
				t.Errorf("%s: a scan shows %s as %+v", what, e.Key, e.Version)
			}
			return true
		})
		all := 0
		for key := range want {
			if s, _ := store.Locate([]byte(key)); s == shard {
				all++
			}
		}
		if err == nil && seen != all {
			t.Errorf("%s: a scan of shard %d shows %d entries of %d", what, shard, seen, all)
		}
	}
	return unread
}

// scrub scrubs all shards and heals what is wrong from the truth. It counts the shards
// in which something was wrong, and those that could not be healed.
func scrub(t *testing.T, store *storage.Store, what string, truth map[string]lww.Entry) (problems, unhealed int) {
	t.Helper()
	for shard := range store.Shards() {
		first := look(t, store, shard)
		if first.Healthy() {
			continue
		}
		problems++
		err := heal(store, truth, first.Parts(2)...)
		if wider := (*storage.WiderError)(nil); errors.As(err, &wider) {
			var all []storage.Findings // the whole store
			for shard := range store.Shards() {
				all = append(all, look(t, store, shard))
			}
			if err = heal(store, truth, all...); errors.As(err, &wider) {
				unhealed++ // the block holds other things than rows, too
				continue
			}
		}
		if err != nil {
			t.Fatalf("%s: healing shard %d: %v", what, shard, err)
		}
		f := look(t, store, shard)
		if f.IndexWrong {
			_, err := store.HealIndex(context.Background(), shard)
			if errors.Is(err, storage.ErrRot) { // as above
				unhealed++
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			f = look(t, store, shard)
		}
		if !f.Healthy() {
			t.Errorf("%s: shard %d is not well after it was healed: %+v", what, shard, f)
		}
	}
	return problems, unhealed
}

// heal heals from the truth: parts of one shard after the other, shards together.
func heal(store *storage.Store, truth map[string]lww.Entry, findings ...storage.Findings) error {
	var theirs []lww.Entry
	for _, e := range truth {
		theirs = append(theirs, e)
	}
	if len(findings) > 1 && findings[0].Shard == findings[1].Shard {
		for _, part := range findings {
			if _, err := store.Heal(theirs, part); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := store.Heal(theirs, findings...)
	return err
}

func look(t *testing.T, store *storage.Store, shard int) storage.Findings {
	t.Helper()
	view := store.Snapshot()
	defer view.Close()
	f, err := view.Scrub(context.Background(), shard, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
