package topology

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"syntropy/hlc"
)

func TestTable(t *testing.T) {
	r := founded(t, "a", "a", "b", "b", "c")
	table := FirstTable(r)
	back, err := ParseTable(table.Encode())
	if err != nil || !reflect.DeepEqual(back, table) {
		t.Fatalf("%+v, %v", back, err)
	}
	if err := table.fits(r); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, m := range table.Members {
		total += len(table.HeldBy(m.ID))
		for _, other := range table.Members {
			shared := table.Shared(m.ID, other.ID)
			if partner := slices.Contains(table.Partners(m.ID), other.ID); partner != (m != other && len(shared) > 0) {
				t.Errorf("%v and %v share %d shards, partners: %v", m, other, len(shared), partner)
			}
			for _, shard := range shared {
				if !table.Holds(m.ID, shard) || !slices.Contains(table.Replicas(shard), other.ID) {
					t.Errorf("%v and %v do not share shard %d", m, other, shard)
				}
			}
		}
	}
	if total != 256*3 {
		t.Errorf("%d replicas of 256 shards", total)
	}
	if m, ok := table.MemberByAddr(addr(4)); !ok || m.ID != 5 || m.Zone != "c" {
		t.Error(m, ok)
	}
	if _, ok := table.Member(6); ok {
		t.Error("found a stranger")
	}
}

func TestParseTableRefuses(t *testing.T) {
	good := func() *Table { return FirstTable(founded(t, "", "")) }
	for _, test := range []struct {
		change func(*Table)
		want   string
	}{
		{func(t *Table) { t.Version = 0 }, "a version above zero"},
		{func(t *Table) { t.Members = nil }, "0 members"},
		{func(t *Table) { t.Members[1].Addr = t.Members[0].Addr }, "one address"},
		{func(t *Table) { t.Shards = t.Shards[:3] }, "power of two"},
		{func(t *Table) { t.Shards[1] = nil }, "shard 1 has no replica"},
		{func(t *Table) { t.Shards[1] = []hlc.NodeID{2, 1} }, "not in ascending order"},
		{func(t *Table) { t.Shards[1] = []hlc.NodeID{1, 7} }, "on n7, which is no member"},
		{func(t *Table) { t.Format = 9 }, "written by a newer version"},
	} {
		table := good()
		test.change(table)
		_, err := ParseTable(table.Encode())
		wantError(t, err, test.want)
	}
	_, err := ParseTable([]byte(strings.Replace(string(good().Encode()), `"version"`, `"pending":[],"version"`, 1)))
	wantError(t, err, "pending")
}
