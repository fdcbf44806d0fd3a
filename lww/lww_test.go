package lww_test

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/lww"
)

// entries draws entries of one key from so small a domain that ties in every
// field, and equal entries, are common.
var entries = rapid.Custom(func(t *rapid.T) lww.Entry {
	small := func(name string, n int) int { return rapid.IntRange(0, n).Draw(t, name) }
	e := lww.Entry{Key: []byte("k"), Version: lww.Version{
		Stamp:     hlc.Stamp(1 + small("stamp", 1)),
		Node:      hlc.NodeID(1 + small("node", 1)),
		Tombstone: rapid.Bool().Draw(t, "tombstone"),
	}}
	if !e.Tombstone {
		e.Value = []byte(rapid.SampledFrom([]string{"", "a", "b", "ab"}).Draw(t, "value"))
	}
	if rapid.Bool().Draw(t, "expiry") {
		e.ExpiryStamp = hlc.Stamp(1 + small("expiry stamp", 2))
		e.ExpiryNode = hlc.NodeID(1 + small("expiry node", 1))
		e.Expires = int64(small("expires", 2))
	}
	return e
})

func equal(a, b lww.Entry) bool {
	return bytes.Equal(a.Key, b.Key) && a.Version == b.Version && bytes.Equal(a.Value, b.Value)
}

// TestOrderIsTotal: any two versions are comparable, the order has no cycles,
// and only equal entries are of equal rank. Without the last, two replicas
// could hold different bytes and both be content.
func TestOrderIsTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := entries.Draw(t, "a"), entries.Draw(t, "b"), entries.Draw(t, "c")
		if ab, ba := lww.Compare(a, b), lww.Compare(b, a); ab != -ba {
			t.Fatalf("a to b is %d, b to a is %d", ab, ba)
		}
		if (lww.Compare(a, b) == 0) != equal(a, b) {
			t.Fatalf("of equal rank: %v, equal: %v", lww.Compare(a, b) == 0, equal(a, b))
		}
		if lww.Compare(a, b) <= 0 && lww.Compare(b, c) <= 0 && lww.Compare(a, c) > 0 {
			t.Fatal("a <= b <= c < a")
		}
	})
}

// TestMergeIsAMaximum: replicas may learn of versions in any order, grouping
// and number, and come to the same entry.
func TestMergeIsAMaximum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := entries.Draw(t, "a"), entries.Draw(t, "b"), entries.Draw(t, "c")
		if !equal(lww.Merge(a, b), lww.Merge(b, a)) {
			t.Fatal("not commutative")
		}
		if !equal(lww.Merge(lww.Merge(a, b), c), lww.Merge(a, lww.Merge(b, c))) {
			t.Fatal("not associative")
		}
		if !equal(lww.Merge(a, a), a) {
			t.Fatal("not idempotent")
		}
		if m := lww.Merge(a, b); !equal(m, a) && !equal(m, b) {
			t.Fatal("the result is neither of the two")
		}

		versions := rapid.SliceOfN(entries, 1, 8).Draw(t, "versions")
		order := rapid.Permutation(append(append([]lww.Entry{}, versions...), versions...)).Draw(t, "order")
		here, there := versions[0], order[0]
		for _, v := range versions {
			here = lww.Merge(here, v)
		}
		for _, v := range order {
			there = lww.Merge(there, v)
		}
		if !equal(here, there) {
			t.Fatalf("one replica holds %+v, the other %+v", here, there)
		}
	})
}

// TestCompareVersionsAgrees: what can be decided without the values is decided
// as with them; what is left open does hang on the values.
func TestCompareVersionsAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := entries.Draw(t, "a"), entries.Draw(t, "b")
		same := bytes.Equal(a.Value, b.Value)
		order, decided := lww.CompareVersions(a.Version, b.Version, same)
		switch {
		case decided && order != lww.Compare(a, b):
			t.Fatalf("without values %d, with values %d", order, lww.Compare(a, b))
		case !decided && (same || a.Stamp != b.Stamp || a.Node != b.Node || a.Tombstone != b.Tombstone):
			t.Fatal("left open, though the versions tell")
		case !decided && order != 0:
			t.Fatalf("not decided, yet ordered %d", order)
		}
	})
}

// TestExpiryNeverUndoesAWrite: setting or removing an expiry, however late its
// stamp, loses against any newer write and any newer delete, and wins against
// the version that it touched.
func TestExpiryNeverUndoesAWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old := entries.Filter(func(e lww.Entry) bool { return !e.Tombstone }).Draw(t, "old")
		touched := old
		touched.ExpiryStamp = old.Newest() + hlc.Stamp(rapid.IntRange(1, 1000).Draw(t, "later"))
		touched.ExpiryNode = hlc.NodeID(rapid.IntRange(1, 2).Draw(t, "by"))
		touched.Expires = rapid.Int64Range(0, 10).Draw(t, "expires")
		if !equal(lww.Merge(old, touched), touched) {
			t.Fatal("the touch does not take effect")
		}
		newer := entries.Draw(t, "newer")
		newer.Stamp = old.Stamp + 1
		if !equal(lww.Merge(touched, newer), newer) {
			t.Fatalf("touching the expiry of %+v undid %+v", old, newer)
		}
	})
}

// TestOrderOfTies spells the order out, one field at a time, least first.
func TestOrderOfTies(t *testing.T) {
	v := func(stamp hlc.Stamp, node hlc.NodeID, tombstone bool, value string, es hlc.Stamp, en hlc.NodeID, ex int64) lww.Entry {
		return lww.Entry{Key: []byte("k"), Value: []byte(value), Version: lww.Version{
			Stamp: stamp, Node: node, Tombstone: tombstone, ExpiryStamp: es, ExpiryNode: en, Expires: ex}}
	}
	ascending := []lww.Entry{
		v(1, 9, true, "", 9, 9, 9),
		v(2, 1, true, "", 9, 9, 9),   // a later stamp beats all
		v(2, 2, false, "", 9, 9, 9),  // then the greater node
		v(2, 2, false, "a", 9, 9, 9), // then the greater value
		v(2, 2, false, "a\x00", 1, 9, 9),
		v(2, 2, false, "b", 1, 9, 9),
		v(2, 2, false, "b", 2, 1, 9), // then the expiry's stamp
		v(2, 2, false, "b", 2, 2, 0), // then who stamped it
		v(2, 2, false, "b", 2, 2, 1), // then the later expiry
		v(2, 2, true, "", 0, 0, 0),   // but a tombstone beats every value of its stamp
	}
	for i, a := range ascending {
		for j, b := range ascending {
			if got := lww.Compare(a, b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%d to %d: %d", i, j, got)
			}
		}
	}
}

func TestLive(t *testing.T) {
	at := time.UnixMilli(1000)
	for _, tc := range []struct {
		name    string
		version lww.Version
		want    bool
	}{
		{"a value", lww.Version{Stamp: 1}, true},
		{"a tombstone", lww.Version{Stamp: 1, Tombstone: true}, false},
		{"expires later", lww.Version{Stamp: 1, Expires: 1001}, true},
		{"expires now", lww.Version{Stamp: 1, Expires: 1000}, false},
		{"expired", lww.Version{Stamp: 1, Expires: 999}, false},
		{"never expires, once did", lww.Version{Stamp: 1, ExpiryStamp: 5}, true},
	} {
		if got := tc.version.Live(at); got != tc.want {
			t.Errorf("%s: live is %v", tc.name, got)
		}
	}
	if _, ok := (lww.Version{Stamp: 1, ExpiryStamp: 5}).ExpiresAt(); ok {
		t.Error("an entry without expiry has one")
	}
	if when, ok := (lww.Version{Expires: 1500}).ExpiresAt(); !ok || !when.Equal(time.UnixMilli(1500)) {
		t.Errorf("expires at %v, %v", when, ok)
	}
	if got := (lww.Version{Stamp: 3, ExpiryStamp: 7}).Newest(); got != 7 {
		t.Errorf("newest is %v", got)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	e := lww.Entry{Key: []byte("key"), Value: []byte("value"), Version: lww.Version{Stamp: 1}}
	c := e.Clone()
	copy(e.Key, "xxx")
	copy(e.Value, "xxxxx")
	if string(c.Key) != "key" || string(c.Value) != "value" {
		t.Errorf("the clone changed with its origin: %q %q", c.Key, c.Value)
	}
}
