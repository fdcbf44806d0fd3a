package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
)

func engineLoad(t *testing.T, e EngineUnderTest) {
	want := make(map[string]string)
	for life := range 3 {
		before := fmt.Sprintf("%d-", life)
		commit(t, e, false, func(b storage.Batch) { b.Set([]byte(before), nil) }) // durable with the load
		want[before] = ""
		l, err := e.NewLoad()
		if err != nil {
			t.Fatal(err)
		}
		dropped, err := e.NewLoad()
		if err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			k, v := fmt.Appendf(nil, "%c%d-%04d", 'p'+i/200, life, i), []byte("value")
			if err := errors.Join(l.Set(k, v), dropped.Set(append(k, '+'), v)); err != nil {
				t.Fatal(err)
			}
			want[string(k)] = "value"
			copy(k, "xxxx") // ours again
			copy(v, "xxxx")
		}
		if err := l.Set([]byte("a"), nil); err == nil {
			t.Error("a row came before another one, and was taken")
		}
		l2, err := e.NewLoad()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if k[0] >= 'p' && k[1:3] == before {
				if err := l2.Set([]byte(k), []byte(want[k])); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := all(t, e); len(got) >= len(want) {
			t.Fatalf("%d rows are seen before they were committed", len(got))
		}
		if err := errors.Join(l.Abort(), l2.Commit(), dropped.Abort()); err != nil {
			t.Fatal(err)
		}
		if got := all(t, e); !maps.Equal(got, want) {
			t.Fatalf("%d rows after a load, want %d", len(got), len(want))
		}
		e = e.Crash(t)
		if got := all(t, e); !maps.Equal(got, want) {
			t.Fatalf("%d rows after a crash, want %d", len(got), len(want))
		}
	}
	empty, err := e.NewLoad()
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Commit(); err != nil {
		t.Errorf("a load of nothing: %v", err)
	}
}

// InOrder returns the entries of one shard in the order that a load asks for.
func InOrder(s *storage.Store, shard int, entries []lww.Entry) (sorted []lww.Entry) {
	for _, e := range entries {
		if at, _ := s.Locate(e.Key); at == shard {
			sorted = append(sorted, e)
		}
	}
	slices.SortFunc(sorted, func(a, b lww.Entry) int {
		if x, y := s.Position(a.Key), s.Position(b.Key); x != y {
			return int(int64(x) - int64(y))
		}
		return bytes.Compare(a.Key, b.Key)
	})
	return sorted
}

// Each returns the entries one by one, as Store.Load takes them.
func Each(entries []lww.Entry) func() (lww.Entry, bool, error) {
	return func() (e lww.Entry, ok bool, err error) {
		if len(entries) == 0 {
			return e, false, nil
		}
		e, entries = entries[0], entries[1:]
		return e, true, nil
	}
}

func storeLoad(t *testing.T, e EngineUnderTest) {
	rng := Rand(t)
	s := openStore(t, e, Options)
	var entries []lww.Entry
	model := make(map[string]lww.Entry)
	for i := range 600 {
		entry := RandomEntry(rng, 1)
		entry.Key = fmt.Appendf(nil, "load%d", i)
		entries = append(entries, entry)
	}
	load := func(shard int, about uint64) {
		t.Helper()
		rows := InOrder(s, shard, entries)
		n, err := s.Load(shard, about, Each(rows))
		if err != nil || int(n) != len(rows) || n < 50 {
			t.Fatalf("loaded %d of %d, %v", n, len(rows), err)
		}
		for _, e := range rows {
			model[string(e.Key)] = e
		}
	}
	same := func() {
		t.Helper()
		if held := Check(t, e, s, Options); !maps.EqualFunc(held, model, func(a, b lww.Entry) bool { return lww.Compare(a, b) == 0 }) {
			t.Fatalf("the store holds %d entries, want %d", len(held), len(model))
		}
	}
	write := func(key string, stamp hlc.Stamp) {
		t.Helper()
		entry := value(key, stamp, "written")
		outcome := apply(t, s, entry)[0].Outcome
		if old, ok := model[key]; !ok || lww.Compare(old, entry) < 0 {
			model[key] = entry
		} else if outcome == storage.Applied {
			t.Errorf("%q was loaded as %+v, and %v at %v", key, old.Version, outcome, stamp)
		}
	}
	load(0, 150)
	same()
	load(1, 3) // far too few leaves
	load(2, 5000)
	same()
	if floor := s.RecentFloor(); floor < 40<<20 {
		t.Errorf("what was loaded is not remembered, and the floor is %v", floor)
	}
	for i := range 300 { // over what was loaded, older and newer, and through a checkpoint
		if shard, _ := s.Locate(entries[i].Key); shard < 3 {
			write(string(entries[i].Key), hlc.Stamp(rng.IntN(100)<<20+1))
		}
	}
	same()
	e = e.Crash(t)
	s = openStore(t, e, Options)
	same()

	// What is refused leaves nothing behind.
	rows := InOrder(s, 3, entries)
	stranger := InOrder(s, 0, entries)[0]
	for name, next := range map[string]func() (lww.Entry, bool, error){
		"out of order":      Each([]lww.Entry{rows[1], rows[0]}),
		"twice":             Each([]lww.Entry{rows[0], rows[0]}),
		"of another shard":  Each([]lww.Entry{rows[0], stranger}),
		"malformed":         Each(append(slices.Clone(rows[:20]), lww.Entry{})),
		"that end in error": func() (lww.Entry, bool, error) { return lww.Entry{}, false, errReadOnly },
	} {
		if n, err := s.Load(3, 100, next); err == nil || n != 0 {
			t.Errorf("entries %s: %d, %v", name, n, err)
		}
	}
	for _, shard := range []int{-1, 4} {
		if _, err := s.Load(shard, 1, Each(nil)); err == nil {
			t.Errorf("loaded shard %d of 4", shard)
		}
	}
	if n, err := s.Load(3, 100, Each(nil)); n != 0 || err != nil {
		t.Errorf("a load of nothing: %d, %v", n, err)
	}
	if _, err := s.Load(0, 1, Each(InOrder(s, 0, entries))); !errors.Is(err, storage.ErrNotEmpty) {
		t.Errorf("a load into what was loaded: %v", err)
	}
	same()
	load(3, 100)
	same()
}
