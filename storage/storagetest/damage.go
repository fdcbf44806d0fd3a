package storagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

func storeRecompute(t *testing.T, e EngineUnderTest) {
	s := openStore(t, e, Options)
	for i := range 100 {
		apply(t, s, value(fmt.Sprintf("key%d", i), 1, "value"))
	}
	shard, token := s.Locate([]byte("key7"))
	snap := s.Snapshot()
	leaf := snap.Leaf(s.Position([]byte("key7")))
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}

	// A data row that changes by itself is found in its leaf, and only there;
	// all other shards are well.
	row := binary.BigEndian.AppendUint16([]byte("d"), uint16(shard))
	row = append(binary.BigEndian.AppendUint64(row, uint64(token)), "key7"...)
	held, found, err := e.Get(row)
	if err != nil || !found {
		t.Fatalf("the data row is not where the layout says: %v", err)
	}
	rotten := bytes.Clone(held)
	rotten[len(rotten)-1] ^= 1
	commit(t, e, true, func(b storage.Batch) { b.Set(row, rotten) })
	wrong(t, s, shard, leaf)
	commit(t, e, true, func(b storage.Batch) { b.Delete(row) })
	wrong(t, s, shard, leaf)
	commit(t, e, true, func(b storage.Batch) { b.Set(row, held) })
	Check(t, e, s, Options)

	// A row that is no entry is an error and not just a difference.
	commit(t, e, true, func(b storage.Batch) { b.Set(row, []byte("garbage")) })
	snapshot := s.Snapshot()
	if _, err := snapshot.Recompute(context.Background(), shard); !errors.Is(err, lww.ErrMalformed) {
		t.Errorf("recomputing over garbage: %v", err)
	}
	if _, _, err := s.Get([]byte("key7")); !errors.Is(err, lww.ErrMalformed) {
		t.Errorf("garbage was read: %v", err)
	}
	if err := s.Scan(shard, 0, func(ring.Token, lww.Entry) bool { return true }); !errors.Is(err, storage.ErrQuarantined) {
		t.Errorf("garbage was scanned: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := snapshot.Recompute(cancelled, (shard+1)%4); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled audit: %v", err)
	}
	if err := snapshot.Close(); err != nil {
		t.Fatal(err)
	}
	commit(t, e, true, func(b storage.Batch) { b.Set(row, held) })

	// A leaf that is wrong on disk is trusted at opening, and found.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	at := slices.Index(Leaves(s, shard), leaf)
	prefix := binary.BigEndian.AppendUint16(append([]byte("l"), checkpointNumber(t, e)...), uint16(shard))
	leafKey := binary.BigEndian.AppendUint32(prefix, uint32(at/64*64))
	leaves, found, err := e.Get(leafKey)
	if err != nil || !found {
		t.Fatalf("the leaves are not where the layout says: %v", err)
	}
	leaves[at%64*merkle.SyndromeBytes+3] ^= 1
	commit(t, e, true, func(b storage.Batch) { b.Set(leafKey, leaves) })
	wrong(t, openStore(t, e, Options), shard, leaf)
}

// checkpointNumber returns the bytes under which the rows of the checkpoint are.
func checkpointNumber(t *testing.T, e storage.Reader) []byte {
	t.Helper()
	row, found, err := e.Get([]byte("c"))
	if err != nil || !found || len(row) != 16 {
		t.Fatalf("the row of the checkpoint is %x, %v", row, err)
	}
	return row[:8]
}

func wrong(t *testing.T, s *storage.Store, shard int, leaf merkle.Node) {
	t.Helper()
	snapshot := s.Snapshot()
	defer snapshot.Close()
	for i := range snapshot.Shards() {
		audit, err := snapshot.Recompute(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case i != shard && (len(audit.Wrong) > 0 || audit.Tree != audit.Rows):
			t.Errorf("shard %d is well, the audit says %+v", i, audit)
		case i == shard && (len(audit.Wrong) != 1 || audit.Wrong[0] != leaf || audit.Tree == audit.Rows):
			t.Errorf("leaf %q of shard %d is wrong, the audit says %+v", leaf, i, audit)
		}
	}
}

func storeOptions(t *testing.T, e EngineUnderTest) {
	for _, bad := range []storage.Options{
		{Shards: 0}, {Shards: -4}, {Shards: 3}, {Shards: 2 * ring.Slots},
		{Shards: 4, LeafKeys: -1}, {Shards: 4, CheckpointWrites: -1},
	} {
		if _, err := storage.Open(e, bad); err == nil {
			t.Errorf("opened with %+v", bad)
		}
	}
	if rows := all(t, e); len(rows) != 0 {
		t.Fatalf("refused options left %d rows", len(rows))
	}
	s := openStore(t, e, Options)
	apply(t, s, value("k", 1, "v"))
	before := all(t, e)

	for name, tc := range map[string]struct {
		change func(*storage.Options)
		says   string
	}{
		"shards": {func(o *storage.Options) { o.Shards = 8 }, "created with 4 shards, not 8"},
		"secret": {func(o *storage.Options) { o.Secret[0]++ }, "another cluster's secret"},
	} {
		opts := Options
		tc.change(&opts)
		if _, err := storage.Open(e, opts); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("other %s: %v", name, err)
		}
	}
	layout := []byte(before["mlayout"])
	for name, tc := range map[string]struct {
		row  func([]byte) []byte
		says string
	}{
		"a newer layout":  {func(b []byte) []byte { b[0]++; return b }, "layout version 4, this program reads version 3"},
		"an older layout": {func(b []byte) []byte { b[0]--; return b }, "layout version 2, this program reads version 3"},
		"another digest":  {func(b []byte) []byte { b[1]++; return b }, "digests of version 3"},
		"no bytes":        {func([]byte) []byte { return nil }, "layout version 0"},
		"bytes cut off":   {func(b []byte) []byte { return b[:11] }, "malformed"},
		"bytes too many":  {func(b []byte) []byte { return append(b, 0) }, "malformed"},
	} {
		commit(t, e, true, func(b storage.Batch) { b.Set([]byte("mlayout"), tc.row(bytes.Clone(layout))) })
		if _, err := storage.Open(e, Options); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	commit(t, e, true, func(b storage.Batch) { b.Set([]byte("mlayout"), layout) })
	if got := all(t, e); !maps.Equal(got, before) {
		t.Error("a refused opening changed rows")
	}
	Check(t, e, openStore(t, e, Options), Options)
}

// storeDamaged: an error while opening says that the store is damaged, and
// nothing is made up in place of what cannot be.
func storeDamaged(t *testing.T, e EngineUnderTest) {
	s := openStore(t, e, Options)
	for i := range 40 {
		apply(t, s, value(fmt.Sprintf("key%d", i), 1, "v"))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, e, Options)
	for i := range 20 { // too few for the next checkpoint
		apply(t, s, value(fmt.Sprintf("more%d", i), 1, "v"))
	}
	good := all(t, e)
	number := string(checkpointNumber(t, e))
	var rows [][]byte // of the tree log, in their order
	for _, k := range slices.Sorted(maps.Keys(good)) {
		if k[0] == 't' {
			rows = append(rows, []byte(k))
		}
	}
	if len(rows) != 20 {
		t.Fatalf("%d rows of the tree log", len(rows))
	}
	var split []byte // the key of a row that begins with a split
	for _, k := range rows {
		if good[string(k)][11] == 1 && good[string(k)][18] == 1 {
			split = k
		}
	}
	if split == nil {
		t.Fatal("no row of the tree log has a split")
	}
	totals, leaves := "s"+number+"\x00\x00", "l"+number+"\x00\x00\x00\x00\x00\x00"
	numbers := func(sum byte, numbers ...uint64) string {
		b := make([]byte, 16)
		b[0] = sum
		for _, n := range numbers {
			b = binary.AppendUvarint(b, n)
		}
		return string(b)
	}
	edit := func(key []byte, at int, b ...byte) func(map[string]string) {
		return func(rows map[string]string) {
			v := []byte(rows[string(key)])
			copy(v[at:], b)
			rows[string(key)] = string(v)
		}
	}
	set := func(key, value string) func(map[string]string) {
		return func(rows map[string]string) { rows[key] = value }
	}
	without := func(key string) func(map[string]string) {
		return func(rows map[string]string) { delete(rows, key) }
	}
	last := rows[19] // one write: it has no shapes, or they are before it
	write := len(good[string(last)]) - 16 - 18
	for name, damage := range map[string]func(map[string]string){
		"a checkpoint's row is short":     set("c", number),
		"a checkpoint of nothing":         set("c", "\x00\x00\x00\x00\x00\x00\x00\x01"+number),
		"no checkpoint":                   without("c"),
		"half of the totals":              set(totals, good[totals][:10]),
		"totals without leaves":           set(totals, numbers(0, 5, 5)),
		"totals of no leaves":             set(totals, numbers(0, 5, 5, 0)),
		"totals of too many leaves":       set(totals, numbers(0, 5, 5, 1<<40)),
		"totals of another tree":          set(totals, numbers(0, 5, 5, 1)),
		"totals with too many deletes":    set(totals, numbers(0, 5, 6, 4)),
		"totals of nothing with a sum":    set(totals, numbers(1, 0, 0, 4)),
		"totals of nothing with leaves":   set(totals, numbers(0, 0, 0, uint64(len(good[leaves])/31))),
		"totals and more":                 set(totals, good[totals]+"\x00"),
		"a number without end":            set(totals, good[totals][:16]+"\x80\x80"),
		"a totals' key is long":           set(totals+"\x00", good[totals]),
		"totals of no shard":              set("s"+number+"\x00\x04", good[totals]),
		"no leaves":                       without(leaves),
		"a leaf is missing":               set(leaves, good[leaves][31:]),
		"half a leaf":                     set(leaves, good[leaves][16:]),
		"a leaf too many":                 set(leaves, good[leaves]+good[leaves][:31]),
		"a leaf outside the field":        set(leaves, strings.Repeat("\xff", len(good[leaves]))),
		"an empty row of leaves":          set(leaves, ""),
		"leaves that begin later":         set(leaves[:len(leaves)-1]+"\x40", good[leaves]),
		"a row of leaves has a long key":  set(leaves+"\x00", good[leaves]),
		"the log lacks its first row":     without(string(rows[0])),
		"the log lacks a row":             without(string(rows[7])),
		"the log has a row with long key": set(string(rows[7])+"\x00", ""),
		"a row without a head":            set(string(rows[7]), good[string(rows[7])][:12]),
		"a row is cut off":                set(string(last), good[string(last)][:len(good[string(last)])-1]),
		"a row lacks its sums":            set(string(last), good[string(last)][:write+8]),
		"more writes than a row has":      edit(last, 12, 0xff, 0xff),
		"more shapes than a row has":      edit(last, 8, 0xff, 0xff),
		"a write that cannot be":          edit(last, write, 0xff),
		"a fingerprint outside the field": edit(last, write+8, 0xff),
		"a delete of nothing":             edit(last, write, 0x00),
		"a sum of no shard":               edit(last, write+16, 0x00, 0x04),
		"a split of no shard":             edit(split, 16, 0x00, 0x04),
		"a shape of no kind":              edit(split, 18, 7),
		"a merge that was a split":        edit(split, 18, 0),
		"a load into a shard with rows":   edit(split, 18, 2),
		"a split of another tree":         edit(split, 19, 0, 0, 0, 1),
		"a split outside the field":       edit(split, 23, bytes.Repeat([]byte{0xff}, 31)...),
		"no layout":                       without("mlayout"),
		"no layout and no checkpoint": func(rows map[string]string) {
			for k := range rows {
				if k == "c" || k == "mlayout" || k[0] == 's' || k[0] == 'l' {
					delete(rows, k)
				}
			}
		},
		"no layout and no log": func(rows map[string]string) {
			for k := range rows {
				if k == "mlayout" || k[0] == 't' {
					delete(rows, k)
				}
			}
		},
	} {
		bad := maps.Clone(good)
		damage(bad)
		replaceRows(t, e, bad)
		if _, err := storage.Open(e, Options); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
		if !maps.Equal(all(t, e), bad) {
			t.Errorf("%s: a refused opening changed rows", name)
		}
	}
	replaceRows(t, e, good)
	Check(t, e, openStore(t, e, Options), Options)
}

func replaceRows(t *testing.T, e storage.Engine, rows map[string]string) {
	t.Helper()
	commit(t, e, true, func(b storage.Batch) {
		b.DeleteRange(nil, everything)
		for k, v := range rows {
			b.Set([]byte(k), []byte(v))
		}
	})
}

func storeMalformed(t *testing.T, e EngineUnderTest) {
	s := openStore(t, e, Options)
	apply(t, s, value("k", 1, "v"))
	before, roots := all(t, e), rootsOf(s)
	good := value("k", 2, "w")
	for name, bad := range map[string]lww.Entry{
		"no key":              value("", 1, "v"),
		"no stamp":            value("x", 0, "v"),
		"a huge key":          value(strings.Repeat("k", lww.MaxKeyBytes+1), 1, "v"),
		"a huge value":        {Key: []byte("x"), Value: make([]byte, lww.MaxValueBytes+1), Version: lww.Version{Stamp: 1}},
		"a tombstone's value": {Key: []byte("x"), Value: []byte("v"), Version: lww.Version{Stamp: 1, Tombstone: true}},
		"expiry before 1970":  expiring(value("x", 1, "v"), 1, -1),
	} {
		results, err := s.Apply([]lww.Entry{good, bad, good})
		if !errors.Is(err, lww.ErrMalformed) || results != nil {
			t.Errorf("%s: %v, %v", name, results, err)
		}
	}
	if got := all(t, e); !maps.Equal(got, before) || fmt.Sprint(rootsOf(s)) != fmt.Sprint(roots) {
		t.Error("refused entries changed something")
	}
	if r := apply(t, s, good); r[0].Outcome != storage.Applied {
		t.Errorf("afterwards a good entry is %v", r[0].Outcome)
	}
}
