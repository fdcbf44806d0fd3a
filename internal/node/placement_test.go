package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/report"
)

// placed starts five nodes in three zones with three replicas of each shard.
func placed(t *testing.T) *cluster {
	c := newCluster(t, 5, testSettings())
	c.settings.Replicas = 3
	for i, m := range c.nodes {
		m.zone = []string{"a", "b", "c", "a", "b"}[i]
		m.start()
	}
	c.connected()
	return c
}

// TestPlacement: with more nodes than replicas each shard is on three of them, in
// three zones, every node serves every key, and a repair compares only what two
// nodes share.
func TestPlacement(t *testing.T) {
	c := placed(t)
	ctx := t.Context()
	table := c.nodes[0].replicaOf().layout().table
	zone := map[hlc.NodeID]string{}
	for _, m := range table.Members {
		zone[m.ID] = m.Zone
	}
	for shard, replicas := range table.Shards {
		zones := []string{}
		for _, id := range replicas {
			zones = append(zones, zone[id])
		}
		slices.Sort(zones)
		if len(replicas) != 3 || len(slices.Compact(zones)) != 3 {
			t.Errorf("shard %d is on %v in the zones %v", shard, replicas, zones)
		}
	}
	for i := range 60 {
		if err := c.nodes[i%5].Write(ctx, coordinator.All, put(fmt.Sprint("k", i), fmt.Sprint("v", i))); err != nil {
			t.Fatal(err)
		}
	}
	var keys [][]byte
	for i := range 60 {
		keys = append(keys, []byte(fmt.Sprint("k", i)))
	}
	for _, m := range c.nodes {
		for _, level := range []coordinator.Level{coordinator.One, coordinator.Quorum, coordinator.All} {
			got, err := m.Read(ctx, level, keys)
			if err != nil || len(got) != len(keys) {
				t.Fatalf("%s at %v: %d keys, %v", m.name, level, len(got), err)
			}
			for i, f := range got {
				if string(f.Entry.Value) != fmt.Sprint("v", i) {
					t.Errorf("%s at %v: key %d is %q", m.name, level, i, f.Entry.Value)
				}
			}
		}
		for _, level := range []coordinator.Level{coordinator.One, coordinator.Quorum} {
			if got := m.scanAll(level, 7); len(got) != 60 {
				t.Errorf("%s: a scan at %v returned %d keys", m.name, level, len(got))
			}
		}
	}
	held := 0
	for _, m := range c.nodes {
		r := m.replicaOf()
		for shard := range r.store.Shards() {
			page, err := r.pageHere(pageRequest{shard: shard, count: 1000, bytesMax: maxScannedBytes})
			if err != nil {
				t.Fatal(err)
			}
			if len(page.entries) > 0 && !table.Holds(r.self, shard) {
				t.Errorf("%s has entries of shard %d, which it does not hold", m.name, shard)
			}
			held += len(page.entries)
		}
	}
	if held != 3*60 {
		t.Errorf("%d replicas of 60 keys", held)
	}
	c.settled()
	for _, rep := range c.nodes[0].repair(report.RepairOptions{}) {
		if want := len(table.Shared(rep.Initiator, rep.Partner)); rep.Shards != want || rep.KeysDiverged != 0 || rep.Rounds != 1 {
			t.Errorf("%v - %v: %+v; they share %d shards", rep.Initiator, rep.Partner, rep, want)
		}
	}
	c.equal()
}

// scanAll walks a whole scan.
func (m *member) scanAll(level coordinator.Level, count int) (keys []string) {
	m.c.t.Helper()
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		next, page, err := m.Scan(m.c.t.Context(), level, cursor, count, false)
		if err != nil {
			m.c.t.Fatal(err)
		}
		for _, e := range page {
			keys = append(keys, string(e.Key))
		}
		cursor = next
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// TestOneOfFiveIsReplaced: a node that comes back with an empty disk is filled with
// its shards by those that share them, and the cluster learns of its disk.
func TestOneOfFiveIsReplaced(t *testing.T) {
	c := placed(t)
	for i := range 40 {
		if err := c.nodes[i%5].Write(t.Context(), coordinator.All, put(fmt.Sprint("k", i), "v")); err != nil {
			t.Fatal(err)
		}
	}
	n2 := c.nodes[1]
	old := n2.replicaOf().incarnation
	n2.stop()
	n2.dir, n2.expect = t.TempDir(), 0
	n2.start()
	n2.state(StateLive)
	c.connected()
	for _, m := range c.nodes {
		eventually(t, m.name+" knows the new disk", func() bool {
			self, _ := m.replicaOf().layout().table.Member(2)
			return self.Founder != old && self.Founder == n2.replicaOf().incarnation
		})
	}
	c.settled()
	c.equal()
	if got := n2.scanAll(coordinator.One, 10); len(got) != 40 {
		t.Errorf("n2 sees %d keys", len(got))
	}
}

// TestNodeJoinsAFormedCluster: a node that is started with --join alone becomes a member. It
// holds no shard until the topology says so, and serves clients all the same.
func TestNodeJoinsAFormedCluster(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	c.nodes[0].put("k", 0, 10)
	m := c.grow()
	m.start()
	c.connected()
	m.state(StateLive)
	if held := m.replicaOf().layout().held; held != 0 {
		t.Errorf("it holds %d shards", held)
	}
	if err := m.Write(t.Context(), coordinator.Quorum, put(string(key("k", 5)), "from n4")); err != nil {
		t.Fatal(err)
	}
	got, err := m.Read(t.Context(), coordinator.Quorum, [][]byte{key("k", 5), key("k", 6)})
	if err != nil || string(got[0].Entry.Value) != "from n4" || string(got[1].Entry.Value) != "k of n1 6" {
		t.Errorf("%+v, %v", got, err)
	}
	if keys := m.scanAll(coordinator.Quorum, 3); len(keys) != 10 {
		t.Errorf("it scans %d keys", len(keys))
	}
	if size, err := m.Size(t.Context()); err != nil || size != 10 {
		t.Errorf("it counts %d keys, %v", size, err)
	}
	m.stop() // and it comes back as the same member
	m.start()
	c.connected()
	if id := m.replicaOf().self; id != 4 {
		t.Errorf("it came back as %v", id)
	}
}

// TestScheduleProvesEveryPair: without anybody asking, each pair is proven again
// and again, and what differs is gone after that.
func TestScheduleProvesEveryPair(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	c.interval = time.Second
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	c.nodes[1].inject(entry("k", "v", time.Hour))
	began := time.Now()
	eventually(t, "every pair is proven twice over", func() bool {
		st, err := c.nodes[0].Status(t.Context())
		if err != nil || len(st.Pairs) != 3 {
			t.Fatalf("%+v, %v", st.Pairs, err)
		}
		return !slices.ContainsFunc(st.Pairs, func(p report.PairStatus) bool {
			return p.ProvenUntil == nil || p.ProvenUntil.Before(began.Add(1500*time.Millisecond))
		})
	})
	for _, m := range c.nodes {
		if got := m.get([]byte("k")); got != "v" {
			t.Errorf("%s holds %q", m.name, got)
		}
	}
	c.equal()
}
