package storagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
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
	leaf := TotalsOf(t, e, shard).Leaf(shard, s.Position([]byte("key7")), Options.Shards)

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

	// A leaf row that is wrong on disk is trusted at opening, and found.
	leafKey := []byte(leafRow(shard, leaf))
	digest, found, err := e.Get(leafKey)
	if err != nil || !found {
		t.Fatalf("the leaf row is not where the layout says: %v", err)
	}
	digest[3] ^= 1
	commit(t, e, true, func(b storage.Batch) { b.Set(leafKey, digest) })
	wrong(t, openStore(t, e, Options), shard, leaf)
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
		{Shards: 4, LeafKeys: -1},
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
		"a newer layout":  {func(b []byte) []byte { b[0]++; return b }, "layout version 3, this program reads version 2"},
		"an older layout": {func(b []byte) []byte { b[0]--; return b }, "layout version 1, this program reads version 2"},
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
	var deep merkle.Node // a leaf that is not the whole shard
	totals := TotalsOf(t, e, 0)
	if totals.Leaves < 2 {
		t.Fatal("shard 0 has but one leaf")
	}
	deep = totals.Leaf(0, 0, Options.Shards)
	one := merkle.SyndromeOf(0, 1).Append(nil)
	zero := make([]byte, merkle.SyndromeBytes)
	invalid := bytes.Repeat([]byte{0xff}, merkle.SyndromeBytes) // not in the field
	row, _, err := e.Get([]byte("s\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	numbers := func(sum byte, numbers ...uint64) []byte {
		b := make([]byte, 24)
		b[0] = sum
		for _, n := range numbers {
			b = binary.AppendUvarint(b, n)
		}
		return b
	}
	for name, bad := range map[string]struct {
		key   string
		value []byte
	}{
		"a leaf's key is short":         {"l\x00\x00", one},
		"a leaf's key is long":          {leafRow(0, deep) + "\x00", one},
		"a leaf of no shard":            {leafRow(4, deep), one},
		"a leaf of another shard":       {leafRow(1, deep), one},
		"a leaf above leaves":           {leafRow(0, deep.Up(1)), one},
		"a leaf below a leaf":           {leafRow(0, deep.Down(1, 0)), one},
		"a leaf that is no node":        {leafRow(0, merkle.Node{Bits: 1, Path: 2}), one},
		"a leaf deeper than a position": {leafRow(0, merkle.Node{Bits: 61}), one},
		"an empty leaf row":             {leafRow(0, deep), nil},
		"half a leaf":                   {leafRow(0, deep), one[:16]},
		"a leaf and more":               {leafRow(0, deep), append(one[:31:31], 0)},
		"a leaf of zeros":               {leafRow(0, deep), zero},
		"a leaf outside the field":      {leafRow(0, deep), invalid},
		"no totals":                     {"s\x00\x00", nil},
		"a totals' key is long":         {"s\x00\x00\x00", row},
		"totals of no shard":            {"s\x00\x04", row},
		"half of the totals":            {"s\x00\x00", row[:20]},
		"totals without leaves":         {"s\x00\x00", numbers(0, 5, 5)},
		"totals of no leaves":           {"s\x00\x00", numbers(0, 5, 5, 0)},
		"totals of too many leaves":     {"s\x00\x00", numbers(0, 5, 5, 1<<40)},
		"totals of another tree":        {"s\x00\x00", numbers(0, 5, 5, 1)},
		"totals with too many deletes":  {"s\x00\x00", numbers(0, 5, 6, totals.Leaves)},
		"totals of nothing with a sum":  {"s\x00\x00", numbers(1, 0, 0, totals.Leaves)},
		"totals of nothing with leaves": {"s\x00\x00", numbers(0, 0, 0, totals.Leaves)},
		"totals and more":               {"s\x00\x00", append(bytes.Clone(row), 0)},
		"a number without end":          {"s\x00\x00", append(make([]byte, 24), 0x80, 0x80)},
		"a number out of range":         {"s\x00\x00", append(make([]byte, 24), bytes.Repeat([]byte{0xff}, 12)...)},
	} {
		before, found, err := e.Get([]byte(bad.key))
		if err != nil {
			t.Fatal(err)
		}
		commit(t, e, true, func(b storage.Batch) { b.Set([]byte(bad.key), bad.value) })
		if _, err := storage.Open(e, Options); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
		commit(t, e, true, func(b storage.Batch) {
			if b.Delete([]byte(bad.key)); found {
				b.Set([]byte(bad.key), before)
			}
		})
	}
	// Totals that are gone are missed if there are leaves.
	commit(t, e, true, func(b storage.Batch) { b.Delete([]byte("s\x00\x00")) })
	if _, err := storage.Open(e, Options); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("totals are missing: %v", err)
	}
	commit(t, e, true, func(b storage.Batch) { b.Set([]byte("s\x00\x00"), row) })
	// So is the layout, be it with the one or the other.
	for _, prefix := range []string{"l", "s"} {
		rows := all(t, e)
		commit(t, e, true, func(b storage.Batch) {
			for k := range rows {
				if strings.HasPrefix(k, prefix) || k == "mlayout" {
					b.Delete([]byte(k))
				}
			}
		})
		left := all(t, e)
		if _, err := storage.Open(e, Options); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("the layout and the %q rows are missing: %v", prefix, err)
		}
		if !maps.Equal(all(t, e), left) {
			t.Errorf("the layout and the %q rows are missing, and rows were written", prefix)
		}
		commit(t, e, true, func(b storage.Batch) {
			for k, v := range rows {
				b.Set([]byte(k), []byte(v))
			}
		})
	}
	Check(t, e, openStore(t, e, Options), Options)
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
