package hint_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"syntropy/hint"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/memstore"
	"syntropy/storage/pebblestore"
	"syntropy/storage/storagetest"
)

var start = hlc.FromTime(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))

// at returns a moment some seconds after the start.
func at(seconds int) hlc.Stamp { return start.Add(time.Duration(seconds) * time.Second) }

func value(key string, stamp hlc.Stamp, size int) lww.Entry {
	return lww.Entry{Key: []byte(key), Value: make([]byte, size), Version: lww.Version{Stamp: stamp, Node: 1}}
}

func open(t testing.TB, e storage.Engine, o hint.Options) *hint.Queue {
	t.Helper()
	q, err := hint.Open(e, o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func add(t testing.TB, q *hint.Queue, target hlc.NodeID, entries ...lww.Entry) {
	t.Helper()
	if err := q.Add(target, entries); err != nil {
		t.Fatal(err)
	}
}

// keys returns the keys of a batch in their order.
func keys(b hint.Batch) string {
	var keys []string
	for _, e := range b.Entries {
		keys = append(keys, string(e.Key))
	}
	return strings.Join(keys, " ")
}

// expectNext checks the keys that Next returns and returns its batch.
func expectNext(t testing.TB, q *hint.Queue, target hlc.NodeID, now hlc.Stamp, bytesMax int, want string) hint.Batch {
	t.Helper()
	b, err := q.Next(target, now, bytesMax)
	if err != nil {
		t.Fatal(err)
	}
	if keys(b) != want {
		t.Fatalf("Next(%v) is %q, want %q", target, keys(b), want)
	}
	return b
}

func deliver(t testing.TB, q *hint.Queue, b hint.Batch) {
	t.Helper()
	if err := q.Delivered(b); err != nil {
		t.Fatal(err)
	}
}

func TestReplayIsOldestFirstAndOncePerDelivery(t *testing.T) {
	q := open(t, memstore.New(), hint.Options{})
	// One stamp for two keys, one key twice, and a touch that is newer than the
	// value that it carries.
	touched := value("touched", at(0), 1)
	touched.ExpiryStamp, touched.ExpiryNode = at(9), 1
	add(t, q, 2, value("late", at(8), 1), touched)
	add(t, q, 2, value("b", at(1), 1), value("a", at(1), 1))
	add(t, q, 2, value("a", at(2), 1))
	add(t, q, 3, value("other", at(0), 1))

	small := expectNext(t, q, 2, at(10), 0, "b")
	deliver(t, q, small)
	all := expectNext(t, q, 2, at(10), 1<<20, "a a late touched")
	expectNext(t, q, 2, at(10), 1<<20, "a a late touched") // until it is delivered
	deliver(t, q, all)
	deliver(t, q, all)
	expectNext(t, q, 2, at(10), 1<<20, "")
	expectNext(t, q, 3, at(10), 1<<20, "other")
	if s := q.Stats(); s.Added != 6 || s.Delivered != 5 || s.Pending[3].Count != 1 || len(s.Pending) != 1 {
		t.Errorf("stats %+v", s)
	}
}

// A batch is on its way to its target when hints arrive that belong between its
// own, and some of its own are dropped.
func TestADeliveryForgetsWhatItCarriedAndNoMore(t *testing.T) {
	q := open(t, memstore.New(), hint.Options{Window: 10 * time.Second})
	add(t, q, 2, value("a", at(1), 1), value("b", at(3), 1), value("c", at(5), 1))
	b := expectNext(t, q, 2, at(6), 1<<20, "a b c")
	add(t, q, 2, value("late", at(2), 1), value("tie", at(5), 1))
	if err := q.Expire(at(12)); err != nil { // a is gone
		t.Fatal(err)
	}
	deliver(t, q, b)
	expectNext(t, q, 2, at(12), 1<<20, "late tie")
	if s := q.Stats(); s.Expired != 1 || s.Delivered != 2 || s.Pending[2].Count != 2 || s.Pending[2].Oldest != at(2) {
		t.Errorf("stats %+v", s)
	}
}

func TestWhatIsOutsideTheWindowIsNotSent(t *testing.T) {
	q := open(t, memstore.New(), hint.Options{Window: 10 * time.Second})
	add(t, q, 2, value("old", at(0), 1), value("edge", at(5), 1), value("young", at(6), 1))
	expectNext(t, q, 2, at(15), 1<<20, "edge young")
	if s := q.Stats(); s.Expired != 1 || s.Pending[2].Oldest != at(5) {
		t.Errorf("stats %+v", s)
	}
	// A target that never returns.
	if err := q.Expire(at(100)); err != nil {
		t.Fatal(err)
	}
	if s := q.Stats(); s.Expired != 3 || len(s.Pending) != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A hint counts 19 bytes for its key, 2 for two lengths below 128, 11 for the
// head of the row, and the entry's key and value.
func TestTheFattestTargetMakesRoom(t *testing.T) {
	q := open(t, memstore.New(), hint.Options{BytesMax: 1000})
	for i := range 8 { // 100 bytes each
		add(t, q, 2, value(fmt.Sprintf("big%d", i), at(i), 64))
	}
	add(t, q, 3, value("tiny", at(0), 64))
	for i := range 4 {
		add(t, q, 4, value(fmt.Sprintf("new%d", i), at(10+i), 64))
	}
	expectNext(t, q, 2, at(20), 1<<20, "big3 big4 big5 big6 big7")
	expectNext(t, q, 3, at(20), 1<<20, "tiny")
	expectNext(t, q, 4, at(20), 1<<20, "new0 new1 new2 new3")

	// What is larger than the whole bound is dropped, and only that.
	add(t, q, 5, value("huge", at(30), 1000), value("fits", at(30), 64))
	expectNext(t, q, 5, at(30), 1<<20, "fits")
	expectNext(t, q, 2, at(30), 1<<20, "big4 big5 big6 big7")
	if s := q.Stats(); s.Dropped != 5 || s.Added != 15 {
		t.Errorf("stats %+v", s)
	}
	// One that takes nearly all.
	add(t, q, 5, value("almost", at(40), 930))
	if s := q.Stats(); len(s.Pending) != 1 || s.Pending[5].Count != 1 || s.Pending[5].Bytes > 1000 {
		t.Errorf("stats %+v", s)
	}
}

func TestALowerBoundHoldsAtOnce(t *testing.T) {
	engine := memstore.New()
	q := open(t, engine, hint.Options{})
	for i := range 30 {
		add(t, q, 2, value(fmt.Sprintf("%04d", i), at(i), 200_000))
	}
	add(t, q, 3, value("spared", at(0), 1))
	q = open(t, engine, hint.Options{BytesMax: 500_000})
	if s := q.Stats(); s.Dropped != 28 || s.Pending[2].Count != 2 || s.Pending[2].Oldest != at(28) || s.Pending[3].Count != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestADamagedRowDoesNotBlockTheQueue(t *testing.T) {
	engine := memstore.New()
	q := open(t, engine, hint.Options{})
	const good = 3
	for i := range good {
		add(t, q, 2, value(fmt.Sprintf("good%d", i), at(10*i), 1))
	}
	// Every row of a few thousand between the first and the second is rot: no
	// entry, another entry's stamp, more than an entry.
	wrongStamp := lww.AppendEntry(nil, value("x", at(999), 1))
	const rot = 3000
	b := engine.NewBatch()
	for i := range rot {
		b.Set(rowKey(2, at(5), uint64(1000+i)), [][]byte{nil, wrongStamp, append(lww.AppendEntry(nil, value("x", at(5), 1)), 0)}[i%3])
	}
	for _, key := range []string{"h", "h\x00\x02", "h\x00\x02zz", "hello, I am not a hint", string(rowKey(0, at(0), 1))} {
		b.Set([]byte(key), nil) // no queue writes such a key
	}
	b.Set([]byte("g"), nil) // and these are not the queue's
	b.Set([]byte("i"), nil)
	if _, err := engine.Commit(b, true); err != nil {
		t.Fatal(err)
	}

	q = open(t, engine, hint.Options{})
	if s := q.Stats(); s.Damaged != 5 || s.Pending[2].Count != good+rot || len(s.Pending) != 1 {
		t.Fatalf("stats %+v", s)
	}
	deliver(t, q, expectNext(t, q, 2, at(30), 1, "good0"))
	deliver(t, q, expectNext(t, q, 2, at(30), 1, "good1"))
	deliver(t, q, expectNext(t, q, 2, at(30), 1, "good2"))
	expectNext(t, q, 2, at(30), 1, "")
	if s := q.Stats(); s.Damaged != 5+rot || s.Delivered != good || len(s.Pending) != 0 {
		t.Errorf("stats %+v", s)
	}
	rest := ""
	if err := engine.Scan(nil, []byte{0xff}, func(k, _ []byte) bool { rest += string(k); return true }); err != nil || rest != "gi" {
		t.Errorf("the engine holds %q, %v", rest, err)
	}
}

// rowKey is the layout of a row key, written down a second time.
func rowKey(target hlc.NodeID, stamp hlc.Stamp, sequence uint64) []byte {
	key := binary.BigEndian.AppendUint16([]byte{'h'}, uint16(target))
	key = binary.BigEndian.AppendUint64(key, uint64(stamp))
	return binary.BigEndian.AppendUint64(key, sequence)
}

func TestBadInputIsRefused(t *testing.T) {
	engine := memstore.New()
	for _, o := range []hint.Options{{Window: -1}, {BytesMax: -1}} {
		if _, err := hint.Open(engine, o); err == nil {
			t.Errorf("options %+v are taken", o)
		}
	}
	q := open(t, engine, hint.Options{})
	if err := q.Add(0, []lww.Entry{value("k", at(0), 1)}); err == nil {
		t.Error("a hint for node 0 is taken")
	}
	if err := q.Add(2, []lww.Entry{value("k", at(0), 1), value("", at(0), 1)}); !errors.Is(err, lww.ErrMalformed) {
		t.Errorf("a malformed entry: %v", err)
	}
	if s := q.Stats(); s.Added != 0 || len(s.Pending) != 0 {
		t.Errorf("stats %+v", s)
	}
}

// applies is an engine whose commits say that they failed although they did not:
// of a failed commit nobody knows.
type applies struct {
	storage.Engine
	err error
}

func (a *applies) Commit(b storage.Batch, sync bool) (func() error, error) {
	wait, err := a.Engine.Commit(b, sync)
	if err == nil && a.err != nil {
		return nil, errors.Join(a.err, wait())
	}
	return wait, err
}

func TestCountsStayTrueWhenTheEngineFails(t *testing.T) {
	errDisk := errors.New("the disk is on fire")
	inner := &applies{Engine: memstore.New()}
	engine := &storagetest.Intercept{Engine: inner}
	q := open(t, engine, hint.Options{BytesMax: 300})
	fail := func() error { return errDisk }
	heal := func() { inner.err, engine.OnCommit, engine.OnWait, engine.OnScan = nil, nil, nil, nil }
	faults := map[string]func(){
		"commit, not applied": func() { engine.OnCommit = fail },
		"commit, applied":     func() { inner.err = errDisk },
		"wait":                func() { engine.OnWait = fail },
		"scan":                func() { engine.OnScan = func(_, _ []byte) error { return errDisk } },
	}
	calls := map[string]func() error{
		"add":    func() error { return q.Add(2, []lww.Entry{value("more", at(50), 10)}) },
		"expire": func() error { return q.Expire(start.Add(3*time.Hour + time.Second)) },
		"next":   func() error { _, err := q.Next(2, start.Add(3*time.Hour+2*time.Second), 1); return err },
		"forget": func() error { _, err := q.Forget(2); return err },
	}
	for fault, arm := range faults {
		for call, do := range calls {
			t.Run(fault+"/"+call, func(t *testing.T) {
				for _, target := range []hlc.NodeID{2, 3} {
					if _, err := q.Forget(target); err != nil {
						t.Fatal(err)
					}
				}
				for i := range 3 { // 300 bytes: another makes room
					add(t, q, 2, value(fmt.Sprintf("key%d", i), at(i), 64))
				}
				arm()
				err := do()
				heal()
				if !errors.Is(err, errDisk) {
					t.Fatalf("%s with a failing %s: %v", call, fault, err)
				}
				add(t, q, 3, value("after", at(60), 1)) // the queue goes on
				got, fresh := q.Stats().Pending, open(t, engine, hint.Options{}).Stats().Pending
				if fmt.Sprint(got) != fmt.Sprint(fresh) {
					t.Errorf("pending %v, counted anew %v", got, fresh)
				}
			})
		}
	}
}

// TestManyAtOnce lets writers, replays and cleaners loose on one small queue. In
// the end every hint is accounted for.
func TestManyAtOnce(t *testing.T) {
	engine := memstore.New()
	q := open(t, engine, hint.Options{BytesMax: 20_000, Window: time.Minute})
	const writers, each = 4, 400
	var writing, cleaning sync.WaitGroup
	done := make(chan struct{})
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				target := hlc.NodeID(2 + (w+i)%3)
				if err := q.Add(target, []lww.Entry{value(fmt.Sprint(w, i), at(i%120), 50)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range 6 {
		cleaning.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				var err error
				switch {
				case n < 5:
					var b hint.Batch
					if b, err = q.Next(hlc.NodeID(2+n%3), at(60), 1000); err == nil {
						err = q.Delivered(b)
					}
				case i%2 == 0:
					err = q.Expire(at(90))
				default:
					_, err = q.Forget(4)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	close(done)
	cleaning.Wait()

	s := q.Stats()
	var pending int64
	for _, p := range s.Pending {
		pending += p.Count
	}
	if s.Added != writers*each || pending != s.Added-s.Delivered-s.Expired-s.Dropped-s.Forgotten || s.Damaged != 0 {
		t.Errorf("%d pending, stats %+v", pending, s)
	}
	if fresh := open(t, engine, hint.Options{}).Stats().Pending; fmt.Sprint(fresh) != fmt.Sprint(s.Pending) {
		t.Errorf("pending %v, counted anew %v", s.Pending, fresh)
	}
	t.Logf("%+v", s)
}

// TestOnDisk: a store and a queue in one engine, over a restart.
func TestOnDisk(t *testing.T) {
	dir := t.TempDir()
	opts := storage.Options{Shards: 4}
	session := func(do func(*storage.Store, *hint.Queue)) {
		t.Helper()
		engine, err := pebblestore.Open(dir, pebblestore.Options{CacheBytes: 1 << 20, MemTableBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		store, err := storage.Open(engine, opts)
		if err != nil {
			t.Fatal(err)
		}
		do(store, open(t, engine, hint.Options{}))
		storagetest.Check(t, engine, store, opts)
		if err := errors.Join(store.Close(), engine.Close()); err != nil {
			t.Fatal(err)
		}
	}
	session(func(s *storage.Store, q *hint.Queue) {
		for i := range 200 {
			e := value(fmt.Sprintf("key%03d", i), at(i), 1000)
			if _, err := s.Apply([]lww.Entry{e}); err != nil {
				t.Fatal(err)
			}
			add(t, q, 2, e)
		}
		deliver(t, q, expectNext(t, q, 2, at(200), 2500, "key000 key001"))
	})
	session(func(s *storage.Store, q *hint.Queue) {
		if p := q.Stats().Pending[2]; p.Count != 198 || p.Bytes != 198*(19+2+6+1+11+1000) || p.Oldest != at(2) {
			t.Errorf("pending %+v", p)
		}
		if n := s.Stats().Entries; n != 200 {
			t.Errorf("the store has %d entries", n)
		}
		expectNext(t, q, 2, at(200), 1, "key002")
		add(t, q, 2, value("first", at(1), 1))
		expectNext(t, q, 2, at(200), 1, "first")
	})
}
