package topology

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// joinable is a cluster that runs, of nodes that answer those who want to join.
func joinable(t *testing.T, record *Record) (*council, *local) {
	c := newCouncil(t, record)
	net := &local{nodes: make(map[string]*Registrar), logs: make(map[string]*Log)}
	for _, n := range c.startAll() {
		c.within(time.Second, "a table", func() bool { return version(n) == 1 })
		net.logs[n.me.Addr] = n.log
		net.add(t, RegistrarOptions{Me: n.me, Record: record, Table: n.log.Table})
	}
	return c, net
}

func only(flags ...string) func(string) bool {
	return func(flag string) bool { return slices.Contains(flags, flag) }
}

// TestJoinEnrolls: a node that is started with --join alone becomes a member, and
// takes over the settings that it was not given.
func TestJoinEnrolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		record := founded(t, "a", "a", "b")
		record.Settings.Shards = 64
		c, net := joinable(t, record)
		var kept []string
		me := Identity{incarnation(9), addr(8), "b"}
		r := net.add(t, RegistrarOptions{
			Me: me, Join: []string{addr(30), addr(1)}, Given: only("gc-grace"),
			PersistTable: func(*Table) error { kept = append(kept, "table"); return nil },
			Persist:      func(*Record) error { kept = append(kept, "record"); return nil },
		})
		got, table, err := r.Form(t.Context(), net)
		if err != nil {
			t.Fatal(err)
		}
		if m, _ := table.MemberByAddr(me.Addr); m != (Member{4, me.Addr, me.Incarnation, "b"}) {
			t.Errorf("it is %+v", m)
		}
		if got.Fingerprint() != record.Fingerprint() || !slices.Equal(kept, []string{"table", "record"}) {
			t.Errorf("record %v, kept %v", got, kept)
		}

		// Started once more with nothing kept, it is known, and enrolls nothing.
		again := net.add(t, RegistrarOptions{
			Me: me, Join: []string{addr(2)}, Given: only(), Persist: func(*Record) error { return nil },
		})
		c.within(time.Second, "the table everywhere", func() bool { return version(c.nodes[addr(2)]) == 2 })
		if _, table, err = again.Form(t.Context(), net); err != nil || table.Version != 2 {
			t.Fatal(table, err)
		}
		// And it is asked for the cluster itself now.
		reply := again.HandleMeet(t.Context(), MeetRequest{Me: disk(1)})
		if reply.Formed == nil || reply.Formed.Table != table || len(reply.Formed.Members) != 4 {
			t.Errorf("it answers %+v", reply)
		}

		// On an empty disk the newcomer comes back as the member that it is, though
		// the record does not name it, and registers the disk.
		fresh := net.add(t, RegistrarOptions{
			Me: Identity{incarnation(10), addr(8), ""}, Join: []string{addr(0)}, Given: only(), Persist: func(*Record) error { return nil },
		})
		c.within(time.Second, "the table everywhere", func() bool { return version(c.nodes[addr(0)]) == 2 })
		_, table, err = fresh.Form(t.Context(), net)
		if m, _ := table.MemberByAddr(me.Addr); err != nil || m.ID != 4 || m.Founder != me.Incarnation {
			t.Fatal(m, err)
		}
		_, table, err = fresh.Enroll(t.Context(), net, []string{addr(8), addr(30), addr(2)})
		if m, _ := table.MemberByAddr(me.Addr); err != nil || m.ID != 4 || m.Founder != incarnation(10) {
			t.Fatal(m, err)
		}
	})
}

// TestJoinIsRefused: a mistake is told before anything happens.
func TestJoinIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		record := founded(t, "a", "a", "b")
		c, net := joinable(t, record)
		other, err := NewLoneRecord(DefaultSettings(), disk(21), newSeeded(5), epoch)
		if err != nil {
			t.Fatal(err)
		}
		net.add(t, RegistrarOptions{Me: disk(21), Record: other})
		for _, test := range []struct {
			name string
			o    RegistrarOptions
			want []string
		}{
			{"settings", RegistrarOptions{Me: disk(9), Join: []string{addr(0)}, Given: only("replicas")}, []string{"settings differ: --replicas 5 here, 3 in cluster " + record.ClusterID}},
			{"all settings", RegistrarOptions{Me: disk(9), Join: []string{addr(0)}}, []string{"--replicas 5 here"}},
			{"expect", RegistrarOptions{Me: disk(9), Expect: 3, Join: []string{addr(0)}}, []string{"127.0.0.1:7109 is not in it", "start it with --join and without --bootstrap-expect"}},
			{"two clusters", RegistrarOptions{Me: disk(9), Join: []string{addr(0), addr(20)}, Given: only()}, []string{"name nodes of one cluster with --join", record.ClusterID, other.ClusterID}},
			{"copied disk", RegistrarOptions{Me: Identity{incarnation(2), addr(8), ""}, Join: []string{addr(0)}, Given: only()}, []string{"the node at 127.0.0.1:7101 refuses this node", "was a data directory copied"}},
			{"another zone", RegistrarOptions{Me: Identity{incarnation(9), addr(1), "b"}, Join: []string{addr(0)}, Given: only()}, []string{`n2 (127.0.0.1:7102) is in zone "a" of its cluster, and --zone b was given`}},
		} {
			test.o.Settings = DefaultSettings()
			test.o.Settings.Replicas = 5
			test.o.Persist = func(*Record) error { t.Error(test.name, "got the record"); return nil }
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, _, err := net.add(t, test.o).Form(ctx, net)
			cancel()
			wantError(t, err, test.want...)
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error(test.name, "is not final:", err)
			}
		}
		for _, n := range c.nodes {
			if version(n) != 1 {
				t.Errorf("%v has a table of version %d", n.me, version(n))
			}
		}
		reply, err := c.nodes[addr(0)].log.HandleEnroll(t.Context(), EnrollRequest{ClusterID: other.ClusterID, Me: disk(9)})
		if err != nil || reply.Record != nil || reply.Refusal == "" {
			t.Errorf("of another cluster: %+v, %v", reply, err)
		}
	})
}

// TestJoinWaitsForAMajority: a newcomer whose cluster cannot decide now gets in
// when it can.
func TestJoinWaitsForAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, net := joinable(t, founded(t, "", "", ""))
		n2, n3 := c.nodes[addr(1)], c.nodes[addr(2)]
		c.end(n2)
		c.end(n3)
		r := net.add(t, RegistrarOptions{Me: disk(9), Join: []string{addr(0)}, Persist: func(*Record) error { return nil }})
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		_, _, err := r.Form(ctx, net)
		cancel()
		wantError(t, err, "waiting for cluster", "to take in this node")
		c.start(n2.me, nil)
		_, table, err := r.Form(t.Context(), net)
		if err != nil || len(table.Members) != 4 {
			t.Fatal(table, err)
		}
	})
}

// TestNonsenseRepliesAreNotKept: a member that answers something else than what
// was asked for is a reason to stop, not to join.
func TestNonsenseRepliesAreNotKept(t *testing.T) {
	record := founded(t, "", "")
	table := FirstTable(record)
	in, err := table.enroll(enrollment{addr(8), incarnation(9), "", ""})
	if err != nil {
		t.Fatal(err)
	}
	small := founded(t, "", "")
	small.Settings.Shards = 64
	for _, test := range []struct {
		reply EnrollReply
		want  string
	}{
		{EnrollReply{}, "missing"},
		{EnrollReply{Record: record, Table: table}, "does not name"},
		{EnrollReply{Record: small, Table: in}, "has 256 shards"},
		{EnrollReply{Record: &Record{}, Table: in}, "format"},
	} {
		r, err := NewRegistrar(RegistrarOptions{Me: disk(9), Settings: DefaultSettings(), Persist: func(*Record) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, r.checkEnrolled(record.ClusterID, test.reply), test.want)
	}
}
