package node

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/lww"
)

func put(k, v string) []coordinator.Mutation {
	return []coordinator.Mutation{{Key: []byte(k), Value: []byte(v)}}
}

// notice waits until a node takes so many others for reachable.
func (m *member) notice(up int) {
	m.c.t.Helper()
	r := m.replicaOf()
	eventually(m.c.t, fmt.Sprintf("%s sees %d others", m.name, up), func() bool { return len(r.usablePeers()) == up })
}

// TestLevels: what each level needs of three replicas, and that too few of them
// are an error at once, which says that nothing was written.
func TestLevels(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1 := c.nodes[0]
	ctx := t.Context()
	try := func(level coordinator.Level) (write, read error) {
		write = n1.Write(ctx, level, put("k", "v"))
		_, read = n1.Read(ctx, level, [][]byte{[]byte("k")})
		return write, read
	}
	for down := range 3 {
		if down > 0 {
			c.nodes[3-down].stop()
			n1.notice(2 - down)
		}
		for _, level := range []coordinator.Level{coordinator.One, coordinator.Quorum, coordinator.All} {
			began := time.Now()
			write, read := try(level)
			if enough := 3-down >= level.Of(3); enough != (write == nil) || enough != (read == nil) {
				t.Errorf("%d of 3 down, level %v: write %v, read %v", down, level, write, read)
			}
			if write == nil {
				continue
			}
			wantCode(t, write, CodeUnavailable, "write", level.String(), "n3")
			wantCode(t, read, CodeUnavailable, "read", level.String(), "n3")
			if took := time.Since(began); took > c.settings.RequestDeadline/2 {
				t.Errorf("it took %v to say that too few are up", took)
			}
		}
	}
}

// TestQuorumReadsSeeQuorumWrites: through whichever node, also one that missed the
// write.
func TestQuorumReadsSeeQuorumWrites(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	for round := range 6 {
		writer, absent := c.nodes[round%3], c.nodes[(round+1)%3]
		absent.stop()
		writer.notice(1)
		key, value := fmt.Sprint("k", round%2), fmt.Sprint("v", round)
		if err := writer.Write(t.Context(), coordinator.Quorum, put(key, value)); err != nil {
			t.Fatal(err)
		}
		absent.start()
		c.connected()
		for _, m := range c.nodes {
			got, err := m.Read(t.Context(), coordinator.Quorum, [][]byte{[]byte(key)})
			if err != nil || string(got[0].Entry.Value) != value {
				t.Fatalf("round %d, %s: %+v, %v; want %s", round, m.name, got, err, value)
			}
		}
	}
}

// TestReadRepair: a read at ALL heals the replicas that it finds stale, of deletes
// and expiries too, and says so; keys that are not read stay as they are.
func TestReadRepair(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	c.readRepair = true
	var mu sync.Mutex
	repaired := map[string]int{}
	c.events.ReadRepaired = func(replica hlc.NodeID, key []byte) {
		mu.Lock()
		defer mu.Unlock()
		repaired[fmt.Sprintf("%v %s", replica, key)]++
	}
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	for _, k := range []string{"value", "deleted", "expires", "unread"} {
		old := entry(k, "old", time.Hour)
		for _, m := range c.nodes {
			m.inject(old)
		}
	}
	deleted := entry("deleted", "", time.Minute)
	deleted.Tombstone = true
	expires, _, _ := n1.replicaOf().store.Get([]byte("expires"))
	expires.Expires, expires.ExpiryStamp, expires.ExpiryNode = time.Now().Add(time.Hour).UnixMilli(), hlc.FromTime(time.Now()), 2
	n2.inject(entry("value", "new", time.Minute), deleted, expires, entry("unread", "new", time.Minute))

	got, err := n3.Read(t.Context(), coordinator.All, [][]byte{[]byte("value"), []byte("deleted"), []byte("expires"), []byte("none")})
	if err != nil || len(got) != 4 {
		t.Fatal(got, err)
	}
	if string(got[0].Entry.Value) != "new" || !got[1].Entry.Tombstone || got[2].Entry.Expires != expires.Expires || got[3].OK {
		t.Errorf("read %+v", got)
	}
	for _, m := range c.nodes {
		for _, want := range []lww.Entry{got[0].Entry, deleted, got[2].Entry} {
			if e, found, err := m.replicaOf().store.Get(want.Key); err != nil || !found || lww.Compare(e, want) != 0 {
				t.Errorf("%s holds %+v of %s, want %+v", m.name, e, want.Key, want)
			}
		}
	}
	if v := n1.get([]byte("unread")); v != "old" {
		t.Errorf("a key that nobody read is %q", v)
	}
	if n := n3.replicaOf().count().ReadRepairs; n != 6 {
		t.Errorf("%d versions were brought, not 6", n)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(repaired) != 6 || repaired["n1 value"] != 1 || repaired["n3 deleted"] != 1 {
		t.Errorf("events: %v", repaired)
	}
}

// TestExpiryNeverUndoesADelete: the order of arrival does not matter, and an EXPIRE
// that finds the key deleted says that there is none.
func TestExpiryNeverUndoesADelete(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	ctx := t.Context()
	later := time.Now().Add(time.Hour).UnixMilli()
	if err := n1.Write(ctx, coordinator.All, put("k", "v")); err != nil {
		t.Fatal(err)
	}
	looked := 0
	changed, err := n1.SetExpiry(ctx, coordinator.Quorum, coordinator.Quorum, []byte("k"), func(e lww.Entry) (int64, bool) {
		if looked++; looked == 1 { // between its read and its write, another node deletes
			if err := n2.Write(ctx, coordinator.All, []coordinator.Mutation{{Kind: coordinator.Delete, Key: []byte("k")}}); err != nil {
				t.Error(err)
			}
		}
		return later, true
	})
	if changed || err != nil || looked != 1 {
		t.Errorf("changed %v, %v after %d looks", changed, err, looked)
	}
	for _, m := range c.nodes {
		m.quiet()
	}
	for _, m := range c.nodes {
		if v := m.get([]byte("k")); v != "-" {
			t.Errorf("%s: the deleted key is %q", m.name, v)
		}
	}
	c.equal()

	// Overwritten rather than deleted: the expiry is decided anew, on the new value.
	if err := n1.Write(ctx, coordinator.All, put("k", "v1")); err != nil {
		t.Fatal(err)
	}
	var seen []string
	changed, err = n1.SetExpiry(ctx, coordinator.Quorum, coordinator.Quorum, []byte("k"), func(e lww.Entry) (int64, bool) {
		if seen = append(seen, string(e.Value)); len(seen) == 1 {
			if err := n2.Write(ctx, coordinator.All, put("k", "v2")); err != nil {
				t.Error(err)
			}
		}
		return later, true
	})
	if !changed || err != nil || strings.Join(seen, " ") != "v1 v2" {
		t.Errorf("changed %v, %v, looked at %v", changed, err, seen)
	}
	got, err := n2.Read(ctx, coordinator.All, [][]byte{[]byte("k")})
	if err != nil || string(got[0].Entry.Value) != "v2" || got[0].Entry.Expires != later {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestReadThatIsAnsweredIsNotCancelled: the end of a read's own work must not be taken
// for the end of its client's patience. A node alone answers before its client begins
// to wait.
func TestReadThatIsAnsweredIsNotCancelled(t *testing.T) {
	c := startCluster(t, 1, testSettings())
	n1 := c.nodes[0]
	if err := n1.Write(t.Context(), coordinator.All, put("k", "v")); err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 3000 {
				if _, err := n1.Read(t.Context(), coordinator.Quorum, [][]byte{[]byte("k")}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}
