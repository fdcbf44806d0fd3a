package topology

import (
	"math"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"syntropy/hlc"
)

// founded returns the record of a cluster whose members are in the given zones
// and have the disks 1, 2, ...; a zone "-" is that of a member without a disk.
func founded(t *testing.T, zones ...string) *Record {
	t.Helper()
	var addrs []string
	for i := range zones {
		addrs = append(addrs, addr(i))
	}
	r, err := NewRecord(DefaultSettings(), addrs, newSeeded(1), epoch)
	if err != nil {
		t.Fatal(err)
	}
	for i, zone := range zones {
		if zone == "-" {
			continue
		}
		r.Members[i].Founder, r.Members[i].Zone = incarnation(uint64(i+1)), zone
	}
	return r
}

func TestRaftIDs(t *testing.T) {
	if got := raftID("00000000000000f00000000000000001"); got != 0xf1 {
		t.Errorf("%x", got)
	}
	for _, reserved := range []string{strings.Repeat("00", 16), strings.Repeat("ff", 8) + strings.Repeat("00", 8), strings.Repeat("ff", 7) + "fe" + strings.Repeat("00", 8)} {
		if got := raftID(reserved); got == 0 || got >= math.MaxUint64-1 {
			t.Errorf("%s: %x belongs to the library", reserved, got)
		}
	}
}

// TestWantedVoters: one voter less costs nothing where the number would be even.
func TestWantedVoters(t *testing.T) {
	for disks, want := range []int{1: 1, 2: 1, 3: 3, 4: 3, 5: 5, 6: 5, 64: 5} {
		if got := wantedVoters(disks); want != 0 && got != want {
			t.Errorf("%d disks: %d voters, want %d", disks, got, want)
		}
	}
}

func TestFirstVoters(t *testing.T) {
	for _, test := range []struct {
		zones            []string
		voters, learners []uint64
	}{
		{[]string{""}, []uint64{1}, nil},
		{[]string{"", ""}, []uint64{1}, []uint64{2}},
		{[]string{"", "", "", ""}, []uint64{1, 2, 3}, []uint64{4}},
		{[]string{"-", "", "-"}, []uint64{2}, nil},
		{[]string{"a", "a", "a", "b", "c"}, []uint64{1, 2, 3, 4, 5}, nil},
		{[]string{"a", "a", "a", "b"}, []uint64{1, 2, 4}, []uint64{3}},
		{[]string{"a", "a", "a", "a", "b", "b", "c", "c"}, []uint64{1, 2, 5, 6, 7}, []uint64{3, 4, 8}},
	} {
		conf, err := firstVoters(founded(t, test.zones...))
		if err != nil || !slices.Equal(conf.Voters, test.voters) || !slices.Equal(conf.Learners, test.learners) {
			t.Errorf("zones %q: voters %v, learners %v, %v; want %v and %v", test.zones, conf.Voters, conf.Learners, err, test.voters, test.learners)
		}
	}
	_, err := firstVoters(founded(t, "-", "-"))
	wantError(t, err, "names no disk of any member", "syntropy init")
}

func TestPromotion(t *testing.T) {
	for _, test := range []struct {
		name             string
		zones            []string
		voters, learners []uint64
		behind           []uint64
		want             []uint64
	}{
		{"enough", []string{"", "", "", ""}, []uint64{1, 2, 3}, []uint64{4}, nil, nil},
		{"two are no better than one", []string{"", ""}, []uint64{1}, []uint64{2}, nil, nil},
		{"three at once", []string{"", "", ""}, []uint64{1}, []uint64{2, 3}, nil, []uint64{2, 3}},
		{"one is behind", []string{"", "", ""}, []uint64{1}, []uint64{2, 3}, []uint64{3}, nil},
		{"a replaced voter", []string{"", "", ""}, []uint64{1, 3}, []uint64{2}, nil, []uint64{2}},
		{"another instead", []string{"", "", "", ""}, []uint64{1, 3}, []uint64{2, 4}, []uint64{2}, []uint64{4}},
		{"nobody", []string{"", "", ""}, []uint64{1, 3}, []uint64{2}, []uint64{2}, nil},
		{"to five, of other zones first", []string{"a", "b", "c", "a", "b", "d", "d"}, []uint64{1, 2, 3}, []uint64{4, 5, 6, 7}, nil, []uint64{6, 4}},
	} {
		members := founded(t, test.zones...).Members
		conf := raftpb.ConfState{Voters: test.voters, Learners: test.learners}
		current := func(id uint64) bool { return !slices.Contains(test.behind, id) }
		if got := promotion(members, conf, current); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
		conf.VotersOutgoing = []uint64{9}
		if got := promotion(members, conf, current); got != nil {
			t.Errorf("%s: %v before the last change is complete", test.name, got)
		}
	}
}

// entry makes an entry of the log as the library would.
func entry(t *testing.T, p proposal) raftpb.Entry {
	t.Helper()
	if p.voters == nil {
		return raftpb.Entry{Index: 7, Data: p.data}
	}
	b, err := p.voters.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raftpb.Entry{Index: 7, Type: raftpb.EntryConfChangeV2, Data: b}
}

func TestDecideEnrolments(t *testing.T) {
	r := founded(t, "a", "b", "-")
	first := FirstTable(r)
	conf := raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}
	for _, test := range []struct {
		name    string
		e       enrollment
		members []Member // nil: no effect
		voters  []raftpb.ConfChangeSingle
		why     string
	}{
		{
			"a newcomer", enrollment{addr(7), incarnation(7), "b", ""},
			append(slices.Clone(r.Members), Member{4, addr(7), incarnation(7), "b"}),
			[]raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode, NodeID: 7}}, "",
		},
		{
			"a new disk", enrollment{addr(1), incarnation(8), "", incarnation(2)},
			[]Member{r.Members[0], {2, addr(1), incarnation(8), "b"}, r.Members[2]},
			[]raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeRemoveNode, NodeID: 2}, {Type: raftpb.ConfChangeAddLearnerNode, NodeID: 8}}, "",
		},
		{
			"the first disk", enrollment{addr(2), incarnation(9), "", ""},
			[]Member{r.Members[0], r.Members[1], {3, addr(2), incarnation(9), ""}},
			[]raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode, NodeID: 9}}, "",
		},
		{"too late", enrollment{addr(1), incarnation(8), "", incarnation(6)}, nil, nil, "n2 (127.0.0.1:7102) has the disk 00000000 by now"},
		{"of nobody", enrollment{addr(5), incarnation(8), "", incarnation(6)}, nil, nil, "not a member's address"},
		{"a copied disk", enrollment{addr(5), incarnation(2), "", ""}, nil, nil, "is that of n2 (127.0.0.1:7102) already: was a data directory copied"},
		{"the only voter", enrollment{addr(0), incarnation(8), "", incarnation(1)}, nil, nil, "the only voter"},
		{"nonsense", enrollment{"x", incarnation(8), "", ""}, nil, nil, "not a peer address"},
	} {
		does, err := decide(r, first, conf, entry(t, proposeEnroll(test.e)))
		if err != nil {
			t.Fatal(test.name, err)
		}
		if test.members == nil {
			if does.table != nil || does.voters != nil || does.because == nil || !strings.Contains(does.because.Error(), test.why) {
				t.Errorf("%s: %+v", test.name, does)
			}
			continue
		}
		if does.table == nil || does.table.Version != 2 || !slices.Equal(does.table.Members, test.members) || !slices.Equal(does.voters.Changes, test.voters) {
			t.Errorf("%s: %+v, %+v", test.name, does.table, does.voters)
		}
	}
	if first.Version != 1 || !slices.Equal(first.Members, r.Members) {
		t.Error("a table was modified")
	}
	does, err := decide(r, nil, conf, entry(t, proposeEnroll(enrollment{addr(7), incarnation(7), "", ""})))
	if err != nil || does.table != nil || does.because == nil {
		t.Error("before the first table:", does, err)
	}
	joint := raftpb.ConfState{Voters: []uint64{1}, VotersOutgoing: []uint64{1, 2}}
	does, err = decide(r, first, joint, entry(t, proposeEnroll(enrollment{addr(7), incarnation(7), "", ""})))
	if err != nil || does.table != nil || does.voters != nil {
		t.Error("during another change:", does, err)
	}
}

func TestDecideTheFirstTable(t *testing.T) {
	r := founded(t, "a", "b", "c")
	conf := raftpb.ConfState{Voters: []uint64{1, 2, 3}}
	does, err := decide(r, nil, conf, entry(t, proposeFirst(r)))
	if err != nil || does.table == nil || does.table.Version != 1 || !slices.Equal(does.table.Replicas(3), []hlc.NodeID{1, 2, 3}) {
		t.Fatal(does, err)
	}
	again, err := decide(r, does.table, conf, entry(t, proposeFirst(r)))
	if err != nil || again.table != nil || again.because == nil {
		t.Error("a second first table:", again, err)
	}
	for _, change := range []func(*Table){
		func(t *Table) { t.Version = 2 },
		func(t *Table) { t.Shards = t.Shards[:128] },
		func(t *Table) { t.Members[1].Addr = addr(9) },
		func(t *Table) { t.Shards[4] = nil },
	} {
		strange := FirstTable(r)
		change(strange)
		does, err := decide(r, nil, conf, entry(t, proposal{data: change1(strange)}))
		if err != nil || does.table != nil || does.because == nil {
			t.Error("a strange first table:", does, err)
		}
	}
}

func change1(first *Table) []byte { return change{First: first}.encode() }

func TestDecideVoters(t *testing.T) {
	r := founded(t, "", "", "")
	conf := raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2, 3}}
	joint := raftpb.ConfState{Voters: []uint64{1, 2, 3}, VotersOutgoing: []uint64{1}}
	promote, leave := entry(t, proposePromotion([]uint64{2, 3})), entry(t, proposePromotion(nil))
	leave.Data = nil // as the library makes it
	for _, test := range []struct {
		name   string
		conf   raftpb.ConfState
		e      raftpb.Entry
		effect bool
	}{
		{"promote", conf, promote, true},
		{"promote one that is gone", raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}, promote, false},
		{"promote twice", joint, promote, false},
		{"complete", joint, leave, true},
		{"complete what is complete", conf, leave, false},
		{"the first entry of a leader", conf, raftpb.Entry{}, false},
	} {
		if does, err := decide(r, nil, test.conf, test.e); err != nil || (does.voters != nil) != test.effect || does.table != nil {
			t.Errorf("%s: %+v, %v", test.name, does, err)
		}
	}
}

// TestNewerEntriesStopAnOlderProgram: going on without an entry that others carry
// out would lead to another table than theirs.
func TestNewerEntriesStopAnOlderProgram(t *testing.T) {
	r := founded(t, "")
	first := FirstTable(r)
	for _, e := range []raftpb.Entry{
		{Data: []byte(`{"move":{"shard":3}}`)},
		{Data: []byte(`{}`)},
		{Data: []byte(`?`)},
		{Type: raftpb.EntryConfChange},
		{Type: raftpb.EntryConfChangeV2, Data: []byte{0xff}},
		{Data: change{Enroll: &enrollment{}}.encode()},
	} {
		_, err := decide(r, first, raftpb.ConfState{}, e)
		wantError(t, err, "a newer version wrote it")
	}
}

func TestPlanEnroll(t *testing.T) {
	r := founded(t, "a", "b", "-")
	table := FirstTable(r)
	if _, done, err := table.planEnroll(Identity{incarnation(1), addr(0), ""}); !done || err != nil {
		t.Error("what is enrolled is to be enrolled:", done, err)
	}
	if e, done, err := table.planEnroll(Identity{incarnation(9), addr(1), ""}); done || err != nil || e.Replaces != incarnation(2) {
		t.Error("new disk:", e, done, err)
	}
	for _, test := range []struct {
		me   Identity
		want string
	}{
		{Identity{incarnation(9), addr(1), "c"}, `n2 (127.0.0.1:7102) is in zone "b" of its cluster, and --zone c was given`},
		{Identity{incarnation(1), addr(0), "c"}, "--zone c was given"},
		{Identity{incarnation(2), addr(8), ""}, "was a data directory copied"},
		{Identity{"1", addr(8), ""}, "not 16 bytes"},
	} {
		_, done, err := table.planEnroll(test.me)
		if _, refused := err.(*RefusedError); done || !refused {
			t.Errorf("%v: %v, %v", test.me, done, err)
		}
		wantError(t, err, test.want)
	}
}
