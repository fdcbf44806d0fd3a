package hint_test

import (
	"fmt"
	"testing"
	"time"

	"syntropy/hint"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
)

// BenchmarkAdd compares keeping one entry of 100 bytes with a bare commit of as
// many bytes to the same engine, durable and not, with room and without.
func BenchmarkAdd(b *testing.B) {
	for _, sync := range []bool{true, false} {
		engine := func(b *testing.B) storage.Engine {
			e, err := pebblestore.Open(b.TempDir(), pebblestore.Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = e.Close() }) // of no account: the directory goes
			return e
		}
		b.Run(fmt.Sprintf("commit/sync=%v", sync), func(b *testing.B) {
			e, n := engine(b), 0
			for b.Loop() {
				batch := e.NewBatch()
				batch.Set(fmt.Appendf(nil, "h%018d", n), make([]byte, 120))
				wait, err := e.Commit(batch, sync)
				if err == nil {
					err = wait()
				}
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
		for _, bytesMax := range []int64{1 << 30, 1 << 20} {
			b.Run(fmt.Sprintf("add/sync=%v/max=%dMiB", sync, bytesMax>>20), func(b *testing.B) {
				q := open(b, engine(b), hint.Options{BytesMax: bytesMax, NoSync: !sync})
				n := 0
				for b.Loop() {
					if err := q.Add(2, []lww.Entry{value(fmt.Sprintf("key%06d", n), at(n), 98)}); err != nil {
						b.Fatal(err)
					}
					n++
				}
			})
		}
	}
}

// BenchmarkReplay takes 256 KiB of entries of 100 bytes out of a long queue, as a
// replay does.
func BenchmarkReplay(b *testing.B) {
	e, err := pebblestore.Open(b.TempDir(), pebblestore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	q := open(b, e, hint.Options{NoSync: true, Window: 1000 * time.Hour})
	added := 0
	for b.Loop() {
		b.StopTimer()
		for added < 2000 || q.Stats().Pending[2].Count < 20_000 {
			entries := make([]lww.Entry, 1000)
			for i := range entries {
				entries[i] = value(fmt.Sprintf("key%06d", added), at(added), 98)
				added++
			}
			add(b, q, 2, entries...)
		}
		b.StartTimer()
		batch, err := q.Next(2, at(added), 256<<10)
		if err != nil || len(batch.Entries) < 1000 {
			b.Fatal(len(batch.Entries), err)
		}
		if err := q.Delivered(batch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens an engine with 256 MiB of hints, all of them on disk.
func BenchmarkOpen(b *testing.B) {
	e, err := pebblestore.Open(b.TempDir(), pebblestore.Options{CacheBytes: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	q := open(b, e, hint.Options{NoSync: true, Window: 1000 * time.Hour})
	for i := 0; q.Stats().Pending[2].Bytes < 256<<20; i++ {
		entries := make([]lww.Entry, 1000)
		for j := range entries {
			entries[j] = value(fmt.Sprintf("key%06d", 1000*i+j), at(i), 98)
		}
		add(b, q, 2, entries...)
	}
	for b.Loop() {
		open(b, e, hint.Options{})
	}
}
