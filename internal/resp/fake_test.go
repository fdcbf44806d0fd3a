package resp

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syntropy/report"
	"syntropy/ring"
)

// mapBackend is the store of the tests: a map, and a record of the calls. At
// returns another view of the same map.
type mapBackend struct {
	*mapState
	read, write Consistency
}

type mapState struct {
	mu      sync.Mutex
	data    map[string][]byte
	expires map[string]int64
	calls   []string
	fail    error
	now     func() time.Time
	// onPut runs at the start of every Put, without the lock.
	onPut    func(ctx context.Context)
	deadline time.Duration
}

func newMapBackend() *mapBackend {
	return &mapBackend{mapState: &mapState{
		data: map[string][]byte{}, expires: map[string]int64{}, now: time.Now, deadline: 5 * time.Second,
	}}
}

func (b *mapBackend) enter(format string, args ...any) (unlock func(), err error) {
	b.mu.Lock()
	call := fmt.Sprintf(format, args...)
	if b.read != ConsistencyDefault || b.write != ConsistencyDefault {
		call += fmt.Sprintf(" at %v/%v", b.read, b.write)
	}
	b.calls = append(b.calls, call)
	for key, at := range b.expires {
		if at <= b.now().UnixMilli() {
			delete(b.data, key)
			delete(b.expires, key)
		}
	}
	return b.mu.Unlock, b.fail
}

func (b *mapBackend) At(read, write Consistency) Backend {
	return &mapBackend{mapState: b.mapState, read: read, write: write}
}

// Consistency: the node of the tests reads ONE and writes QUORUM.
func (b *mapBackend) Consistency() (read, write Consistency) {
	return cmp.Or(b.read, ConsistencyOne), cmp.Or(b.write, ConsistencyQuorum)
}

func (b *mapBackend) taken() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls := b.calls
	b.calls = nil
	return calls
}

func (b *mapBackend) Get(_ context.Context, key []byte) ([]byte, bool, error) {
	unlock, err := b.enter("get")
	defer unlock()
	value, found := b.data[string(key)]
	return value, found, err
}

func (b *mapBackend) MGet(_ context.Context, keys [][]byte) ([][]byte, error) {
	unlock, err := b.enter("mget %d", len(keys))
	defer unlock()
	var values [][]byte
	bytes := 0
	for _, key := range keys {
		if bytes >= MGetBytes {
			break
		}
		values = append(values, b.data[string(key)])
		bytes += len(b.data[string(key)])
	}
	return values, err
}

func (b *mapBackend) Put(ctx context.Context, pairs []Pair) error {
	if b.onPut != nil {
		b.onPut(ctx)
	}
	unlock, err := b.enter("put %d", len(pairs))
	defer unlock()
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, p := range pairs {
		if seen[string(p.Key)] {
			panic("Put got a key twice")
		}
		seen[string(p.Key)] = true
		b.data[string(p.Key)] = p.Value // keeps the slice: it is ours
		b.setExpiry(string(p.Key), p.Expires)
	}
	return nil
}

func (b *mapBackend) Delete(_ context.Context, keys [][]byte) (int, error) {
	unlock, err := b.enter("delete %d", len(keys))
	defer unlock()
	n := 0
	for _, key := range keys {
		if _, ok := b.data[string(key)]; ok {
			n++
			delete(b.data, string(key))
			delete(b.expires, string(key))
		}
	}
	return n, err
}

func (b *mapBackend) Exists(_ context.Context, keys [][]byte) (int, error) {
	unlock, err := b.enter("exists %d", len(keys))
	defer unlock()
	n := 0
	for _, key := range keys {
		if _, ok := b.data[string(key)]; ok {
			n++
		}
	}
	return n, err
}

func (b *mapBackend) setExpiry(key string, at int64) {
	switch {
	case at < 0:
		panic("an expiry before 1970")
	case at == 0:
		delete(b.expires, key)
	default:
		b.expires[key] = at
	}
}

func (b *mapBackend) Expire(_ context.Context, key []byte, at int64, cond ExpireCondition) (bool, error) {
	unlock, err := b.enter("expire %d", at)
	defer unlock()
	if at == 0 {
		panic("Expire got no time")
	}
	if _, found := b.data[string(key)]; !found || err != nil || !cond.Allows(b.expires[string(key)], at) {
		return false, err
	}
	b.setExpiry(string(key), at)
	return true, nil
}

func (b *mapBackend) Persist(_ context.Context, key []byte) (bool, error) {
	unlock, err := b.enter("persist")
	defer unlock()
	if b.expires[string(key)] == 0 || err != nil {
		return false, err
	}
	b.setExpiry(string(key), 0)
	return true, nil
}

func (b *mapBackend) ExpiryOf(_ context.Context, key []byte) (int64, bool, error) {
	unlock, err := b.enter("expiry")
	defer unlock()
	_, found := b.data[string(key)]
	return b.expires[string(key)], found, err
}

func (b *mapBackend) Scan(_ context.Context, cursor uint64, count int) (uint64, [][]byte, error) {
	unlock, err := b.enter("scan %d %d", cursor, count)
	defer unlock()
	var all [][]byte
	for key := range b.data {
		all = append(all, []byte(key))
	}
	slices.SortFunc(all, bytes.Compare)
	from := min(int(cursor), len(all))
	to := min(from+count, len(all))
	next := uint64(to)
	if to == len(all) {
		next = 0
	}
	return next, all[from:to], err
}

func (b *mapBackend) Stamp(_ context.Context, key []byte) (Version, bool, error) {
	unlock, err := b.enter("stamp")
	defer unlock()
	_, found := b.data[string(key)]
	return Version{Timestamp: 42, Time: b.now(), Node: "n2"}, found, err
}

// Inspect tells of three replicas: one with what there is, one that is behind and
// one that is down.
func (b *mapBackend) Inspect(_ context.Context, key []byte) (report.Inspection, error) {
	unlock, err := b.enter("inspect")
	defer unlock()
	value, found := b.data[string(key)]
	has := report.ReplicaVersion{Node: 1, State: "live", Found: true, Tombstone: !found, Timestamp: 42, Time: "then", Writer: "n2", ValueBytes: len(value), Digest: "d1"}
	if at := b.expires[string(key)]; at != 0 {
		expires := time.UnixMilli(at)
		has.Expires = &expires
	}
	return report.Inspection{Slot: ring.Slot(key), Shard: 3, Token: "0123", Replicas: []report.ReplicaVersion{
		has, {Node: 2, State: "live"}, {Node: 3, State: "down", Error: "no route"},
	}}, err
}

// Layout is of four nodes with two replicas of each of eight shards; the last node
// is down.
func (b *mapBackend) Layout(context.Context) (Layout, error) {
	unlock, err := b.enter("layout")
	defer unlock()
	l := Layout{Cluster: "c", Version: 7, Self: 1}
	for i := range 4 {
		l.Nodes = append(l.Nodes, LayoutNode{
			Name: fmt.Sprint("n", i+1), Serves: i < 3,
			ClientAddr: fmt.Sprintf("10.0.0.%d:7001", i+1), PeerAddr: fmt.Sprintf("10.0.0.%d:7101", i+1),
		})
	}
	l.Shards = [][]int{{0, 1}, {0, 1}, {1, 2}, {2, 3}, {0, 3}, {0, 2}, {1, 3}, {2, 3}}
	return l, err
}

func (b *mapBackend) Size(context.Context) (int64, error) {
	unlock, err := b.enter("size")
	defer unlock()
	return int64(len(b.data)), err
}

func (b *mapBackend) Info(context.Context) []InfoSection {
	return []InfoSection{
		{"Keyspace", [][2]string{{"db0", "keys=1,expires=0,avg_ttl=0"}}},
		{"stats", [][2]string{{"hints_pending", "0"}}},
	}
}

func (b *mapBackend) RequestDeadline() time.Duration { return b.deadline }

// testClock is a clock that the test moves; it begins at a moment that is easy to
// recognise: 1767323045678 ms.
type testClock struct{ ms atomic.Int64 }

func newTestClock() *testClock {
	clock := &testClock{}
	clock.ms.Store(1_767_323_045_678)
	return clock
}

func (c *testClock) now() time.Time { return time.UnixMilli(c.ms.Load()) }

func (c *testClock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

type codedError struct{ code, text string }

func (e codedError) Error() string { return e.text }
func (e codedError) Code() string  { return e.code }

// startServer serves backend on a free port until the test ends.
func startServer(t testing.TB, backend Backend, opts Options) (srv *Server, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv = New(backend, opts)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return srv, ln.Addr().String()
}

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return nc
}
