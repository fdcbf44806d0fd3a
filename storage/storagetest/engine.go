package storagetest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"syntropy/storage"
)

func runEngine(t *testing.T, open func(t *testing.T) EngineUnderTest) {
	for _, tc := range []struct {
		name string
		test func(t *testing.T, e EngineUnderTest)
	}{
		{"rows come in the order of their keys", engineOrder},
		{"nothing and an empty value are two things", engineEmptyValue},
		{"bytes have owners", engineOwnership},
		{"the last change of a batch wins", engineBatchOrder},
		{"a range is deleted with what the batch set before", engineDeleteRange},
		{"a lookup sees what is there and what is not", engineLookup},
		{"a scan may write", engineScanMayWrite},
		{"a snapshot stands still", engineSnapshot},
		{"a batch is seen as a whole", engineAtomicity},
		{"a synced commit survives", engineDurability},
		{"an empty synced commit makes durable what came before", engineEmptySync},
		{"commits survive in their order", engineCrashOrder},
		{"commits run concurrently", engineConcurrentCommits},
		{"a batch may be large", engineLargeBatch},
		{"a load is seen as a whole and survives", engineLoad},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, open(t)) })
	}
}

func commit(t testing.TB, e storage.Engine, sync bool, change func(storage.Batch)) {
	t.Helper()
	b := e.NewBatch()
	change(b)
	wait, err := e.Commit(b, sync)
	if err == nil {
		err = wait()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rowsOf reads a range into a map and checks that its keys rise.
func rowsOf(t testing.TB, r storage.Reader, lower, upper []byte) map[string]string {
	t.Helper()
	rows := make(map[string]string)
	var last []byte
	err := r.Scan(lower, upper, func(k, v []byte) bool {
		if last != nil && bytes.Compare(last, k) >= 0 {
			t.Errorf("key %q after %q", k, last)
		}
		last = append([]byte{}, k...)
		rows[string(k)] = string(v)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

var everything = []byte{0xff, 0xff, 0xff, 0xff}

func all(t testing.TB, r storage.Reader) map[string]string { return rowsOf(t, r, nil, everything) }

func engineOrder(t *testing.T, e EngineUnderTest) {
	rng := Rand(t)
	model := make(map[string]string)
	key := func() []byte {
		k := make([]byte, 1+rng.IntN(4))
		for i := range k {
			k[i] = []byte{0, 1, 'a', 'b', 0xfe}[rng.IntN(5)]
		}
		return k
	}
	for range 60 {
		commit(t, e, false, func(b storage.Batch) {
			for range rng.IntN(8) {
				k := key()
				if rng.IntN(3) == 0 {
					b.Delete(k)
					delete(model, string(k))
				} else {
					v := fmt.Sprint(rng.IntN(1000))
					b.Set(k, []byte(v))
					model[string(k)] = v
				}
			}
		})
		// The bounds: lower is in, upper is out, and upside down there is nothing.
		lower, upper := key(), key()
		want := make(map[string]string)
		for k, v := range model {
			if string(lower) <= k && k < string(upper) {
				want[k] = v
			}
		}
		if got := rowsOf(t, e, lower, upper); !maps.Equal(got, want) {
			t.Fatalf("rows in [%q, %q): %v, want %v", lower, upper, got, want)
		}
		// A visitor that has enough is not called again.
		calls := 0
		if err := e.Scan(lower, upper, func(k, v []byte) bool { calls++; return calls < 2 }); err != nil {
			t.Fatal(err)
		}
		if calls > 2 || calls != min(2, len(want)) {
			t.Fatalf("a scan over %d rows, stopped at the second, called %d times", len(want), calls)
		}
		k := key()
		v, found, err := e.Get(k)
		if wantV, ok := model[string(k)]; err != nil || found != ok || string(v) != wantV {
			t.Fatalf("Get(%q) is %q, %v, %v; want %q, %v", k, v, found, err, wantV, ok)
		}
	}
	if got := all(t, e); !maps.Equal(got, model) {
		t.Fatalf("%d rows, want %d", len(got), len(model))
	}
}

func engineEmptyValue(t *testing.T, e EngineUnderTest) {
	commit(t, e, false, func(b storage.Batch) {
		b.Set([]byte("nil"), nil)
		b.Set([]byte("empty"), []byte{})
		b.Delete([]byte("never there"))
	})
	for key, want := range map[string]bool{"nil": true, "empty": true, "never there": false, "ni": false, "nil ": false} {
		if v, found, err := e.Get([]byte(key)); found != want || len(v) != 0 || err != nil {
			t.Errorf("Get(%q): %q, %v, %v", key, v, found, err)
		}
	}
}

func engineOwnership(t *testing.T, e EngineUnderTest) {
	key, value := []byte("key"), []byte("value")
	commit(t, e, false, func(b storage.Batch) {
		b.Set(key, value)
		copy(key, "xxx") // ours again, as soon as Set returns
		copy(value, "xxxxx")
		doomed := []byte("other")
		b.Set(doomed, nil)
		b.Delete(doomed)
		copy(doomed, "xxxxx")
	})
	want := map[string]string{"key": "value"}
	if got := all(t, e); !maps.Equal(got, want) {
		t.Fatalf("the engine holds %v, want %v", got, want)
	}
	s := e.Snapshot()
	defer s.Close()
	for _, r := range []storage.Reader{e, s} {
		got, _, err := r.Get([]byte("key"))
		if err != nil {
			t.Fatal(err)
		}
		copy(got, "xxxxx") // ours too
		_ = append(got, "xxxxx"...)
		if again, _, _ := r.Get([]byte("key")); string(again) != "value" {
			t.Fatalf("writing to what Get returned changed the row to %q", again)
		}
	}
	lower, upper := []byte("a"), []byte("z")
	err := e.Scan(lower, upper, func(k, v []byte) bool {
		if string(k) != "key" || string(v) != "value" {
			t.Errorf("row %q %q", k, v)
		}
		copy(lower, "x")
		copy(upper, "x")
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

func engineBatchOrder(t *testing.T, e EngineUnderTest) {
	a, b := []byte("a"), []byte("b")
	commit(t, e, false, func(batch storage.Batch) {
		batch.Set(a, []byte("1"))
		batch.Delete(a)
		batch.Set(a, []byte("2"))
		batch.Set(b, []byte("1"))
		batch.Set(b, []byte("2"))
		batch.Delete(b)
	})
	if got, want := all(t, e), map[string]string{"a": "2"}; !maps.Equal(got, want) {
		t.Fatalf("the engine holds %v, want %v", got, want)
	}
}

func engineDeleteRange(t *testing.T, e EngineUnderTest) {
	want := make(map[string]string)
	for i := range 20 {
		k := fmt.Sprintf("k%02d", i)
		commit(t, e, false, func(b storage.Batch) { b.Set([]byte(k), nil) })
		want[k] = ""
	}
	remove := func(lower, upper string) {
		maps.DeleteFunc(want, func(k, _ string) bool { return lower <= k && k < upper })
	}
	commit(t, e, true, func(b storage.Batch) {
		lower, upper := []byte("k03"), []byte("k07")
		b.Set([]byte("k033"), []byte("set before"))
		b.DeleteRange(lower, upper)
		copy(lower, "xxx") // ours again
		copy(upper, "xxx")
		b.Set([]byte("k05"), []byte("set after"))
		b.DeleteRange([]byte("k09"), []byte("k09")) // nothing
		b.DeleteRange([]byte("k18"), []byte("z"))
	})
	remove("k03", "k07")
	remove("k18", "z")
	want["k05"] = "set after"
	if got := all(t, e); !maps.Equal(got, want) {
		t.Fatalf("the engine holds %v, want %v", got, want)
	}
	if _, found, err := e.Get([]byte("k04")); found || err != nil {
		t.Errorf("Get of a deleted row: %v, %v", found, err)
	}
	if got := all(t, e.Crash(t)); !maps.Equal(got, want) {
		t.Errorf("after a crash the engine holds %v, want %v", got, want)
	}
}

func engineLookup(t *testing.T, e EngineUnderTest) {
	rng := Rand(t)
	model := make(map[string]string)
	for range 40 {
		commit(t, e, false, func(b storage.Batch) {
			for range rng.IntN(20) {
				k := fmt.Sprintf("k%d", rng.IntN(100))
				if rng.IntN(3) == 0 {
					b.Delete([]byte(k))
					delete(model, k)
				} else {
					model[k] = fmt.Sprint(rng.IntN(1000))
					b.Set([]byte(k), []byte(model[k]))
				}
			}
		})
		keys := make([][]byte, rng.IntN(30)) // in no order, some twice, some prefixes of others
		for i := range keys {
			keys[i] = fmt.Appendf(nil, "k%d", rng.IntN(100))
		}
		visited := 0
		err := e.Lookup(keys, func(i int, v []byte, found bool) {
			if want, ok := model[string(keys[i])]; i != visited || found != ok || string(v) != want {
				t.Fatalf("lookup %d: visited as number %d, %q is %q, %v; want %q, %v", visited, i, keys[i], v, found, want, ok)
			}
			visited++
		})
		if err != nil || visited != len(keys) {
			t.Fatalf("a lookup of %d keys visited %d: %v", len(keys), visited, err)
		}
	}
}

func engineScanMayWrite(t *testing.T, e EngineUnderTest) {
	commit(t, e, false, func(b storage.Batch) {
		for i := range 10 {
			b.Set(fmt.Appendf(nil, "k%d", i), nil)
		}
	})
	visited := 0
	err := e.Scan(nil, everything, func(k, _ []byte) bool {
		visited++
		next := append([]byte{}, k...)
		commit(t, e, false, func(b storage.Batch) {
			b.Delete(next)
			b.Set(append(next, '+'), nil)
		})
		return visited < 1000
	})
	if err != nil || visited != 10 {
		t.Fatalf("a scan of 10 rows visited %d, %v: it sees what was there when it began", visited, err)
	}
	if got := all(t, e); len(got) != 10 || got["k0"] != "" {
		t.Fatalf("afterwards the engine holds %v", got)
	}
}

func engineSnapshot(t *testing.T, e EngineUnderTest) {
	rng := Rand(t)
	type frozen struct {
		storage.Reader
		rows map[string]string
	}
	var snapshots []frozen
	model := make(map[string]string)
	for i := range 40 {
		snapshots = append(snapshots, frozen{e.Snapshot(), maps.Clone(model)})
		commit(t, e, i%2 == 0, func(b storage.Batch) {
			for range 6 {
				k := fmt.Sprintf("k%02d", rng.IntN(30))
				if rng.IntN(2) == 0 {
					b.Delete([]byte(k))
					delete(model, k)
				} else {
					v := fmt.Sprint(i)
					b.Set([]byte(k), []byte(v))
					model[k] = v
				}
			}
		})
		s := snapshots[rng.IntN(len(snapshots))]
		if got := all(t, s); !maps.Equal(got, s.rows) {
			t.Fatalf("a snapshot shows %v, when it was taken there was %v", got, s.rows)
		}
		k := fmt.Sprintf("k%02d", rng.IntN(30))
		v, found, err := s.Get([]byte(k))
		if want, ok := s.rows[k]; err != nil || found != ok || string(v) != want {
			t.Fatalf("a snapshot has %q as %q, %v, %v; want %q, %v", k, v, found, err, want, ok)
		}
	}
	for _, s := range snapshots {
		if got := all(t, s); !maps.Equal(got, s.rows) {
			t.Fatalf("a snapshot shows %v, when it was taken there was %v", got, s.rows)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := all(t, e); !maps.Equal(got, model) {
		t.Fatalf("the engine holds %v, want %v", got, model)
	}
}

func engineAtomicity(t *testing.T, e EngineUnderTest) {
	keys := [][]byte{[]byte("a"), []byte("m"), []byte("z")}
	var stop atomic.Bool
	var wg sync.WaitGroup
	check := func(name string, r storage.Reader) bool {
		rows := all(t, r)
		if rows["a"] != rows["m"] || rows["a"] != rows["z"] || len(rows) != 0 && len(rows) != 3 {
			t.Errorf("%s shows part of a batch: %v", name, rows)
			return false
		}
		return true
	}
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				s := e.Snapshot()
				ok := check("a snapshot", s) && check("a scan", e)
				if err := s.Close(); err != nil || !ok {
					t.Errorf("closing a snapshot: %v", err)
					return
				}
			}
		})
	}
	for i := range 300 {
		commit(t, e, i%50 == 0, func(b storage.Batch) {
			for _, k := range keys {
				if i%7 == 0 {
					b.Delete(k)
				} else {
					b.Set(k, fmt.Append(nil, i))
				}
			}
		})
		// Visible when Commit returns.
		if v, found, _ := e.Get(keys[1]); found != (i%7 != 0) || found && string(v) != fmt.Sprint(i) {
			t.Errorf("after commit %d the engine has %q, %v", i, v, found)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
}

func engineDurability(t *testing.T, e EngineUnderTest) {
	want := make(map[string]string)
	for life := range 4 {
		for i := range 10 {
			k := fmt.Sprintf("k%d-%d", life, i)
			commit(t, e, true, func(b storage.Batch) {
				b.Set([]byte(k), []byte("v"))
				b.Delete(fmt.Appendf(nil, "k%d-%d", life-1, i))
			})
			want[k] = "v"
			delete(want, fmt.Sprintf("k%d-%d", life-1, i))
		}
		e = e.Crash(t)
		if got := all(t, e); !maps.Equal(got, want) {
			t.Fatalf("after crash %d: %v, want %v", life, got, want)
		}
	}
}

func engineEmptySync(t *testing.T, e EngineUnderTest) {
	for life := range 8 {
		k := fmt.Appendf(nil, "k%d", life)
		commit(t, e, false, func(b storage.Batch) { b.Set(k, nil) })
		commit(t, e, true, func(storage.Batch) {})
		e = e.Crash(t)
		if got := all(t, e); len(got) != life+1 {
			t.Fatalf("after crash %d: %v", life, got)
		}
	}
	// On an engine to which nothing was written in this life, too.
	commit(t, e, true, func(storage.Batch) {})
	commit(t, e, false, func(storage.Batch) {})
}

func engineCrashOrder(t *testing.T, e EngineUnderTest) {
	rng := Rand(t)
	for life := range 20 {
		prefix := fmt.Sprintf("%02d-", life)
		n, synced := 1+rng.IntN(30), -1
		for i := range n {
			sync := rng.IntN(10) == 0
			commit(t, e, sync, func(b storage.Batch) {
				b.Set(fmt.Appendf(nil, "%s%03d", prefix, i), bytes.Repeat([]byte("v"), rng.IntN(300)))
			})
			if sync {
				synced = i
			}
		}
		e = e.Crash(t)
		rows := rowsOf(t, e, []byte(prefix), []byte(prefix+"x"))
		if len(rows) <= synced {
			t.Fatalf("life %d: commit %d was synced, %d survived", life, synced, len(rows))
		}
		for i, k := range slices.Sorted(maps.Keys(rows)) {
			if want := fmt.Sprintf("%s%03d", prefix, i); k != want {
				t.Fatalf("life %d: commit %s survived, commit %s did not", life, k, want)
			}
		}
	}
}

func engineConcurrentCommits(t *testing.T, e EngineUnderTest) {
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b := e.NewBatch()
				b.Set(fmt.Appendf(nil, "k%d-%d", w, i), []byte("v"))
				b.Set(fmt.Appendf(nil, "last%d", w), fmt.Append(nil, i))
				wait, err := e.Commit(b, i%3 != 0 || i == each-1)
				if err == nil {
					err = wait()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	e = e.Crash(t)
	rows := all(t, e)
	for w := range writers {
		if got := rows[fmt.Sprintf("last%d", w)]; got != fmt.Sprint(each-1) {
			t.Errorf("writer %d ended at %q", w, got)
		}
	}
	if len(rows) != writers*each+writers {
		t.Errorf("%d rows", len(rows))
	}
}

func engineLargeBatch(t *testing.T, e EngineUnderTest) {
	value := bytes.Repeat([]byte("0123456789abcdef"), 8<<10) // 128 KiB
	for round := range 3 {
		commit(t, e, true, func(b storage.Batch) {
			for i := range 8 {
				b.Set(fmt.Appendf(nil, "k%d", i), append(value, byte(round)))
			}
		})
	}
	e = e.Crash(t)
	rows := all(t, e)
	for i := range 8 {
		if got := rows[fmt.Sprintf("k%d", i)]; got != string(value)+"\x02" {
			t.Errorf("k%d has %d bytes", i, len(got))
		}
	}
}
