package main

import (
	"bytes"
	"math"
	"slices"
	"testing"
	"time"

	"syntropy"
	"syntropy/internal/admin"
	"syntropy/internal/config"
	"syntropy/internal/resp"
	"syntropy/syntropytest"
)

func door(t *testing.T, nodes int) frontDoor {
	t.Helper()
	return frontDoor{syntropytest.NewCluster(t, nodes).DB(0)}
}

func keysOf(names ...string) (keys [][]byte) {
	for _, name := range names {
		keys = append(keys, []byte(name))
	}
	return keys
}

// TestMGetStopsInTime: one call brings no more than resp asks for, and tells an
// empty value from none.
func TestMGetStopsInTime(t *testing.T) {
	d := door(t, 5) // more nodes than replicas: an answer may come from several
	large := bytes.Repeat([]byte("v"), resp.MGetBytes+1)
	pairs := []resp.Pair{
		{Key: []byte("empty"), Value: []byte{}},
		{Key: []byte("a"), Value: large}, {Key: []byte("b"), Value: large}, {Key: []byte("c"), Value: large},
	}
	for _, pair := range pairs { // together they would hold up a slow machine for seconds
		if err := d.Put(t.Context(), []resp.Pair{pair}); err != nil {
			t.Fatal(err)
		}
	}
	values, err := d.MGet(t.Context(), keysOf("empty", "nothing", "a", "b", "c"))
	if err != nil || len(values) != 3 || values[0] == nil || len(values[0]) > 0 || values[1] != nil || !bytes.Equal(values[2], large) {
		t.Errorf("%d values, %v", len(values), err)
	}
	values, err = d.MGet(t.Context(), keysOf("nothing", "empty"))
	if err != nil || len(values) != 2 || values[0] != nil || values[1] == nil {
		t.Errorf("%q, %v", values, err)
	}
	if n, err := d.Exists(t.Context(), keysOf("a", "b", "c", "nothing", "a")); n != 4 || err != nil {
		t.Errorf("Exists counts %d, %v", n, err)
	}
	if n, err := d.Delete(t.Context(), keysOf("a", "b", "c", "nothing")); n != 3 || err != nil {
		t.Errorf("Delete counts %d, %v", n, err)
	}
	if _, found, err := d.Get(t.Context(), []byte("a")); found || err != nil {
		t.Errorf("a deleted key is found: %v, %v", found, err)
	}
}

func TestDoorExpiry(t *testing.T) {
	d := door(t, 1)
	k := []byte("k")
	is := func(want int64, wantFound bool) {
		t.Helper()
		if at, found, err := d.ExpiryOf(t.Context(), k); at != want || found != wantFound || err != nil {
			t.Errorf("it expires at %d, %v, %v; want %d, %v", at, found, err, want, wantFound)
		}
	}
	expire := func(at int64, cond resp.ExpireCondition, want bool) {
		t.Helper()
		if done, err := d.Expire(t.Context(), k, at, cond); done != want || err != nil {
			t.Errorf("Expire at %d under %v: %v, %v; want %v", at, cond, done, err, want)
		}
	}
	is(0, false)
	expire(math.MaxInt64, 0, false)
	if err := d.Put(t.Context(), []resp.Pair{{Key: k, Value: []byte("v"), Expires: math.MaxInt64}}); err != nil {
		t.Fatal(err)
	}
	is(math.MaxInt64, true) // the farthest that there is, to the millisecond
	expire(math.MaxInt64-1, resp.ExpireNX, false)
	expire(math.MaxInt64-1, resp.ExpireGT, false)
	expire(math.MaxInt64-1, resp.ExpireLT, true)
	is(math.MaxInt64-1, true)
	for _, want := range []bool{true, false} {
		if done, err := d.Persist(t.Context(), k); done != want || err != nil {
			t.Errorf("Persist: %v, %v; want %v", done, err, want)
		}
	}
	is(0, true)
	expire(1, resp.ExpireNX, true) // long ago
	is(0, false)
}

func TestDoorConsistency(t *testing.T) {
	d := door(t, 1)
	if r, w := d.Consistency(); r != resp.ConsistencyQuorum || w != resp.ConsistencyQuorum {
		t.Errorf("by default reads at %v and writes at %v", r, w)
	}
	r, w := d.At(resp.ConsistencyOne, resp.ConsistencyDefault).Consistency()
	if r != resp.ConsistencyOne || w != resp.ConsistencyQuorum {
		t.Errorf("reads at %v and writes at %v, want one and quorum", r, w)
	}
	one := resp.ConsistencyOne
	for shown, level := range levels {
		if shown.String() != level.String() {
			t.Errorf("%v of the protocol is %v of the node", shown, level)
		}
		one = max(one, shown)
	}
	if _, more := levels[one+1]; more || len(levels) != int(one)+1 {
		t.Errorf("a level of the protocol is missing from %v", levels)
	}
}

// A cursor of the protocol goes through everything; the load before it takes more than
// one write.
func TestDoorScanAndLoad(t *testing.T) {
	d := door(t, 1)
	var rows []admin.Row
	value := bytes.Repeat([]byte("v"), loadBytes/50)
	for i := range 200 {
		rows = append(rows, admin.Row{Key: []byte{'k', byte(i)}, Value: value})
	}
	if err := d.Load(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	var seen [][]byte
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		next, keys, err := d.Scan(t.Context(), cursor, 7)
		if err != nil {
			t.Fatal(err)
		}
		cursor, seen = next, append(seen, keys...)
	}
	slices.SortFunc(seen, bytes.Compare)
	for i, row := range rows {
		if len(seen) != len(rows) || !bytes.Equal(seen[i], row.Key) {
			t.Fatalf("%d keys of %d, and key %d differs", len(seen), len(rows), i)
		}
	}
	if _, _, err := d.Scan(t.Context(), 0, -1); err == nil {
		t.Error("a scan of fewer than no keys is accepted")
	}
	if n, err := d.Size(t.Context()); n != int64(len(rows)) || err != nil {
		t.Errorf("Size: %d, %v", n, err)
	}
	info := d.Info(t.Context())
	if len(info) != 2 || info[1].Name != "Keyspace" {
		t.Errorf("INFO: %v", info)
	}
}

// What the library says of an error, clients get as a code.
func TestDoorErrors(t *testing.T) {
	c := syntropytest.NewCluster(t, 2)
	c.Stop(1)
	c.WaitConnected()
	err := frontDoor{c.DB(0)}.Put(t.Context(), []resp.Pair{{Key: []byte("k")}})
	coded, ok := err.(*syntropy.Error)
	if !ok || coded.Code() != "UNAVAILABLE" {
		t.Errorf("with one of two nodes: %v", err)
	}
}

func TestDoorLayout(t *testing.T) {
	c := syntropytest.NewClusterWith(t, 4, func(i int, o *syntropy.Options) { o.ClientAddr = []string{"a:1", "b:2", "c:3", "d:4"}[i] })
	var first resp.Layout
	for i := range 4 {
		l, err := frontDoor{c.DB(i)}.Layout(t.Context())
		if err != nil || l.Nodes[l.Self].Name != c.DB(i).ID().String() || l.Nodes[l.Self].PeerAddr != c.Addr(i) || l.Nodes[l.Self].ClientAddr != []string{"a:1", "b:2", "c:3", "d:4"}[i] {
			t.Errorf("node %d: %+v, %v", i, l, err)
		}
		if i == 0 {
			first = l
		}
		if l.Cluster != first.Cluster || l.Version != first.Version || !slices.EqualFunc(l.Shards, first.Shards, slices.Equal[[]int]) {
			t.Errorf("node %d says %+v, node 0 %+v", i, l, first)
		}
		held := map[int]bool{}
		for _, nodes := range l.Shards {
			if len(nodes) != 3 {
				t.Errorf("a shard is on nodes %v", nodes)
			}
			for _, node := range nodes {
				held[node] = true
			}
		}
		if len(held) != len(l.Nodes) {
			t.Errorf("%d of %d nodes hold something", len(held), len(l.Nodes))
		}
	}
	in, err := frontDoor{c.DB(0)}.Inspect(t.Context(), []byte("k"))
	if shard := first.Shards[in.Shard]; err != nil || len(in.Replicas) != 3 || first.Nodes[shard[0]].Name != in.Replicas[0].Node.String() {
		t.Errorf("the layout has shard %d on %v, its replicas are %+v", in.Shard, shard, in.Replicas)
	}
}

func TestDoorStamp(t *testing.T) {
	d := door(t, 1)
	if _, found, err := d.Stamp(t.Context(), []byte("k")); found || err != nil {
		t.Errorf("the stamp of no key: %v, %v", found, err)
	}
	if err := d.Put(t.Context(), []resp.Pair{{Key: []byte("k")}}); err != nil {
		t.Fatal(err)
	}
	v, found, err := d.Stamp(t.Context(), []byte("k"))
	if !found || err != nil || v.Node != "n1" || v.Timestamp == 0 || d.Now().Sub(v.Time).Abs() > time.Minute {
		t.Errorf("%+v, %v, %v", v, found, err)
	}
}

// TestClientAddr: what a node tells the others of where its clients connect.
func TestClientAddr(t *testing.T) {
	for _, tc := range []struct{ peer, listening, want string }{
		{"10.0.0.1:7101", "127.0.0.1:7001", "127.0.0.1:7001"},
		{"10.0.0.1:7101", "[::]:7001", "10.0.0.1:7001"},
		{"node.example:7101", "0.0.0.0:7001", "node.example:7001"},
		{"[fd00::1]:7101", "[::]:7001", "[fd00::1]:7001"},
	} {
		if got := clientAddr(&config.Config{PeerListen: tc.peer}, tc.listening); got != tc.want {
			t.Errorf("listening on %s, with nodes at %s: %s, want %s", tc.listening, tc.peer, got, tc.want)
		}
	}
}
