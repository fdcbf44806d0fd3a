package syntropy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"syntropy"
	"syntropy/hlc"
	"syntropy/report"
	"syntropy/syntropytest"
)

// Values larger than one answer between nodes may hold: MultiGet asks again, GetSome
// leaves that to the caller.
func TestMultiGetOfLargeValues(t *testing.T) {
	c := syntropytest.NewCluster(t, 3)
	var keys [][]byte
	for i := range 4 {
		key := []byte(strconv.Itoa(i))
		// At ALL, or a read at ONE may ask the replica that does not have it yet.
		check(t, c.DB(0).At(syntropy.All).Put(bg(), key, bytes.Repeat(key, 3<<20)))
		keys = append(keys, key, absent)
	}
	for _, level := range []syntropy.Level{syntropy.One, syntropy.Quorum, syntropy.All} {
		db := c.DB(1).At(level)
		check(t, db.Ready(bg()))
		values, err := db.MultiGet(bg(), keys...)
		check(t, err)
		for i, v := range values {
			if i%2 == 1 && v != nil || i%2 == 0 && !bytes.Equal(v, bytes.Repeat(keys[i], 3<<20)) {
				t.Errorf("at %v: the value of key %q is wrong (%d bytes)", level, keys[i], len(v))
			}
		}
		some, err := db.GetSome(bg(), keys...)
		if err != nil || len(some) < 1 || len(some) == len(keys) {
			t.Errorf("at %v: GetSome returns %d values of %d, %v", level, len(some), len(keys), err)
		}
	}
}

func TestExpiry(t *testing.T) {
	c := syntropytest.NewCluster(t, 3)
	a, b := c.DB(0), c.DB(1)
	hour := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	set := func(db *syntropy.DB, at time.Time, want bool) {
		t.Helper()
		if ok, err := db.Expire(bg(), k, at); err != nil || ok != want {
			t.Errorf("Expire: %v, %v, want %v", ok, err, want)
		}
	}
	is := func(db *syntropy.DB, want time.Time) {
		t.Helper()
		at, expires, err := db.Expiry(bg(), k)
		if err != nil || !at.Equal(want) || expires == want.IsZero() {
			t.Errorf("Expiry: %v, %v, %v, want %v", at, expires, err, want)
		}
	}
	set(a, hour, false)
	if _, _, err := a.Expiry(bg(), k); !errors.Is(err, syntropy.ErrNotFound) {
		t.Errorf("the expiry of no key: %v", err)
	}
	if ok, err := a.Persist(bg(), k); ok || err != nil {
		t.Errorf("Persist of no key: %v, %v", ok, err)
	}
	check(t, a.PutAll(bg(), syntropy.Pair{Key: k, Value: []byte("v"), Expires: hour}))
	is(b, hour)
	set(b, hour.Add(time.Hour), true)
	is(a, hour.Add(time.Hour))
	var seen time.Time
	if ok, err := a.ExpireIf(bg(), k, hour, func(now time.Time) bool { seen = now; return false }); ok || err != nil || !seen.Equal(hour.Add(time.Hour)) {
		t.Errorf("ExpireIf: %v, %v, was told %v", ok, err, seen)
	}
	is(b, hour.Add(time.Hour))
	for i, want := range []bool{true, false} {
		if ok, err := b.Persist(bg(), k); ok != want || err != nil {
			t.Errorf("Persist, time %d: %v, %v", i+1, ok, err)
		}
	}
	is(a, time.Time{})
	if v, err := a.Get(bg(), k); err != nil || string(v) != "v" {
		t.Errorf("the value is now %q, %v", v, err)
	}
	set(a, time.Unix(-5, 0), true) // long ago: it is gone at once
	if _, err := b.Get(bg(), k); !errors.Is(err, syntropy.ErrNotFound) {
		t.Errorf("it should have expired: %v", err)
	}
	set(b, hour, false)
	check(t, b.PutAll(bg(), syntropy.Pair{Key: k, Value: []byte("w"), Expires: hour}))
	check(t, a.Put(bg(), k, []byte("x")))
	is(b, time.Time{}) // a write replaces the whole entry
}

func TestScan(t *testing.T) {
	c := syntropytest.NewCluster(t, 3)
	want := make(map[string]bool)
	var pairs []syntropy.Pair
	for i := range 1000 {
		key := "key " + strconv.Itoa(i)
		want[key] = true
		pairs = append(pairs, syntropy.Pair{Key: []byte(key), Value: []byte(key)})
	}
	check(t, c.DB(0).PutAll(bg(), pairs...))
	check(t, c.DB(0).Delete(bg(), []byte("key 7")))
	delete(want, "key 7")

	got := make(map[string]bool)
	add := func(p syntropy.Pair) {
		t.Helper()
		if got[string(p.Key)] {
			t.Errorf("%q is returned twice", p.Key)
		}
		got[string(p.Key)] = true
	}
	same := func(what string) {
		t.Helper()
		if len(got) != len(want) {
			t.Errorf("%s: %d keys, want %d", what, len(got), len(want))
		}
		for key := range got {
			if !want[key] {
				t.Errorf("%s: %q is returned and should not be there", what, key)
			}
		}
		clear(got)
	}
	for p, err := range c.DB(1).Scan(bg()) {
		check(t, err)
		if !bytes.Equal(p.Key, p.Value) {
			t.Errorf("the value of %q is %q", p.Key, p.Value)
		}
		add(p)
	}
	same("Scan")

	from, pages := syntropy.Cursor(0), 0
	for first := true; first || from != 0; first = false {
		page, err := c.DB(pages%3).Page(bg(), syntropy.PageOptions{From: from, Count: 100, KeysOnly: true}) // a cursor is valid everywhere
		check(t, err)
		for _, p := range page.Pairs {
			if p.Value != nil {
				t.Errorf("%q comes with a value", p.Key)
			}
			add(p)
		}
		from = page.Next
		pages++
	}
	same("Page")
	if pages < 5 {
		t.Errorf("1000 keys came in %d pages of about 100", pages)
	}

	n := 0
	for _, err := range c.DB(2).Scan(bg()) {
		check(t, err)
		if n++; n == 3 {
			break
		}
	}
	ctx, cancel := context.WithCancel(bg())
	defer cancel()
	n = 0
	var failed []error
	for _, err := range c.DB(2).Scan(ctx) {
		if err != nil {
			failed = append(failed, err)
		}
		if n++; n == 3 {
			cancel()
		}
	}
	if len(failed) != 1 || !errors.Is(failed[0], context.Canceled) {
		t.Errorf("a scan that is cancelled ends with one error: %v", failed)
	}
	if size, err := c.DB(0).Size(bg()); err != nil || size != int64(len(want)) {
		t.Errorf("Size: %d, %v, want %d", size, err, len(want))
	}
}

// recorder is told of events.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, fmt.Sprintf(format, args...))
}

func (r *recorder) waitFor(t *testing.T, want string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		r.mu.Lock()
		seen := slices.Clone(r.seen)
		r.mu.Unlock()
		if slices.Contains(seen, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never told that %q; told: %q", want, seen)
		}
	}
}

// What one node misses, and how it gets it, as its neighbour tells the program.
func TestEvents(t *testing.T) {
	var told recorder
	c := syntropytest.NewClusterWith(t, 3, func(i int, o *syntropy.Options) {
		if i > 0 {
			o.NoHints = true
			return
		}
		o.Events = syntropy.Events{
			PeerUp:        func(peer hlc.NodeID) { told.note("%v up", peer) },
			PeerDown:      func(peer hlc.NodeID, reason error) { told.note("%v down: %t", peer, reason != nil) },
			StateChanged:  func(state, _ string) { told.note("state %s", state) },
			HintsReplayed: func(peer hlc.NodeID, count int) { told.note("%d hints to %v", count, peer) },
			ReadRepaired:  func(replica hlc.NodeID, key []byte) { told.note("read repaired %s on %v", key, replica) },
			Repaired:      func(r report.Repair) { told.note("repaired %v: pushed %d", r.Partner, r.KeysPushed) },
		}
	})
	id := c.DB(2).ID()
	told.waitFor(t, fmt.Sprintf("%v up", id))
	c.Stop(2)
	told.waitFor(t, fmt.Sprintf("%v down: true", id))
	check(t, c.DB(0).Put(bg(), []byte("hinted"), nil))
	check(t, c.DB(1).Put(bg(), []byte("read"), nil)) // that node keeps no hints
	check(t, c.DB(1).Put(bg(), []byte("repaired"), nil))
	c.Start(2)
	c.WaitConnected()
	told.waitFor(t, fmt.Sprintf("1 hints to %v", id))
	if _, err := c.DB(0).At(syntropy.All).Get(bg(), []byte("read")); err != nil {
		t.Fatal(err)
	}
	told.waitFor(t, fmt.Sprintf("read repaired read on %v", id))
	reports, err := c.DB(0).Repair(bg(), report.RepairOptions{Node: id})
	if err != nil || len(reports) != 2 {
		t.Fatalf("%+v, %v", reports, err)
	}
	told.waitFor(t, fmt.Sprintf("repaired %v: pushed 1", id))

	in, err := c.DB(2).Inspect(bg(), []byte("repaired"))
	if err != nil || !in.Agree || len(in.Replicas) != 3 {
		t.Errorf("Inspect: %+v, %v", in, err)
	}
	roots, err := c.DB(1).Roots(bg(), true)
	if err != nil || !roots.Equal {
		t.Errorf("the replicas differ: %v, %v", roots.Errors, err)
	}
	if n, err := c.DB(0).CancelRepair(bg()); n != 0 || err != nil {
		t.Errorf("nothing is left to cancel: %d, %v", n, err)
	}
	if _, err := c.DB(0).Repair(bg(), report.RepairOptions{Node: 9}); !errors.Is(err, syntropy.ErrInvalid) {
		t.Errorf("repairing a stranger: %v", err)
	}
}

// A node's clock that is far ahead is fenced, and the library says so.
func TestClock(t *testing.T) {
	c := syntropytest.NewClusterWith(t, 3, func(i int, o *syntropy.Options) {
		if i == 0 {
			o.ClockOffset = 10 * time.Second
		}
	})
	if ahead := time.Until(c.DB(0).Now()); ahead < 9*time.Second {
		t.Errorf("Now is %v ahead", ahead)
	}
	wants(t, "Put", c.DB(0).Put(bg(), k, nil), syntropy.ErrClock)
	check(t, c.DB(1).Put(bg(), k, nil))
}

// Every node learns where the clients of every other one go, and who does not serve at
// the moment.
func TestWhereabouts(t *testing.T) {
	clients := func(i int) string { return fmt.Sprintf("client-%d.example:7001", i) }
	c := syntropytest.NewClusterWith(t, 4, func(i int, o *syntropy.Options) { o.ClientAddr = clients(i) })
	know := func(asked int, serving ...int) {
		t.Helper()
		soon(t, func() error {
			w, err := c.DB(asked).Whereabouts(bg())
			if err != nil {
				return err
			}
			if w.Self != c.DB(asked).ID() || len(w.Members) != 4 || len(w.Replicas) != 16 || w.Cluster == "" {
				return fmt.Errorf("node %d tells %+v", asked, w)
			}
			for _, m := range w.Members {
				i := slices.IndexFunc([]int{0, 1, 2, 3}, func(i int) bool { return c.Addr(i) == m.PeerAddr })
				if m.ClientAddr != clients(i) || m.Serves != slices.Contains(serving, i) {
					return fmt.Errorf("node %d says of node %d: %+v", asked, i, m)
				}
			}
			for shard, ids := range w.Replicas {
				if len(ids) != 3 || !slices.IsSorted(ids) {
					return fmt.Errorf("shard %d is on %v", shard, ids)
				}
			}
			return nil
		})
	}
	for i := range 4 {
		know(i, 0, 1, 2, 3)
	}
	c.Stop(2)
	know(0, 0, 1, 3)
	c.Start(2)
	for i := range 4 {
		know(i, 0, 1, 2, 3)
	}
}

// soon asks until there is no error, or long enough.
func soon(t *testing.T, ask func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(30 * time.Second)
	for err := ask(); err != nil; err = ask() {
		if time.Now().After(end) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

// The stamp of a value is that of its write, whatever happens to its expiry, and grows.
func TestStamp(t *testing.T) {
	c := syntropytest.NewCluster(t, 3)
	db := c.DB(0)
	_, _, err := db.Stamp(bg(), k)
	wants(t, "the stamp of no key", err, syntropy.ErrNotFound)
	check(t, db.Put(bg(), k, nil))
	first, writer, err := db.Stamp(bg(), k)
	check(t, err)
	if writer != db.ID() || time.Since(first.Time()).Abs() > time.Hour {
		t.Errorf("stamped by %v at %v", writer, first)
	}
	if _, err := c.DB(1).Expire(bg(), k, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if again, writer, err := db.Stamp(bg(), k); again != first || writer != db.ID() || err != nil {
		t.Errorf("after Expire: %v of %v, %v; was %v", again, writer, err, first)
	}
	check(t, c.DB(1).Put(bg(), k, nil))
	if later, writer, err := db.Stamp(bg(), k); later <= first || writer != c.DB(1).ID() || err != nil {
		t.Errorf("after Put: %v of %v, %v; was %v", later, writer, err, first)
	}
}
