package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/report"
	"syntropy/storage"
	"syntropy/storage/memstore"
)

// memDisk keeps everything in memory, so that a slow disk does not bound how fast a
// node is written to.
type memDisk struct {
	*memstore.Engine
	unused storage.Engine
}

func (d memDisk) Close() error { return errors.Join(d.Engine.Close(), d.unused.Close()) }

// watermark is the moment up to which all writes have arrived everywhere: the
// shortest settle window there is, and one that no slow machine can fall short of.
type watermark []atomic.Uint64 // the stamp at which each writer began its last write

// begin is called before a write that returns when all replicas hold it.
func (w watermark) begin(writer int) { w[writer].Store(uint64(hlc.FromTime(time.Now()))) }

func (w watermark) stamp() hlc.Stamp {
	at := hlc.Max
	for i := range w {
		at = min(at, hlc.Stamp(w[i].Load()))
	}
	return at - 1
}

// shardsWithRows counts the shards in which anything was ever written.
func (r *replica) shardsWithRows() (count int) {
	view := r.store.Snapshot()
	defer view.Close()
	for shard := range view.Shards() {
		if view.Root(shard).Count > 0 {
			count++
		}
	}
	return count
}

// TestSessionsAtFullSpeed: three nodes are written to as fast as they can, new keys
// for the most part and a few that are overwritten all the time, while sessions go
// round the pairs. Nothing was lost, so they find nothing to repair; and as of the
// moment that they compare, shards that change a thousand times a second are equal.
func TestSessionsAtFullSpeed(t *testing.T) {
	const (
		writersEach = 6  // on each node
		batch       = 10 // new keys
		hot         = 20 // keys
		hotEvery    = 4  // of the requests, one is for a hot key
		writesMin   = 20_000
		sessionsMin = 30
	)
	s := testSettings()
	s.Shards, s.Settle, s.RequestDeadline = 64, time.Minute, time.Minute
	c := newCluster(t, 3, s)
	for _, m := range c.nodes {
		m.wrap = func(e storage.Engine) storage.Engine { return memDisk{memstore.New(), e} }
		m.start()
	}
	c.connected()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	arrived := make(watermark, writersEach*len(c.nodes))
	var written atomic.Int64
	var work sync.WaitGroup
	for i := range arrived {
		arrived.begin(i)
		m := c.nodes[i%len(c.nodes)]
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				var ms []coordinator.Mutation
				if n%hotEvery == 0 {
					ms = put(fmt.Sprint("hot", (n/hotEvery+i)%hot), fmt.Sprint(n, " by ", i))
				} else {
					for k := range batch {
						ms = append(ms, put(fmt.Sprintf("key %d of request %d by %d", k, n, i), "v")...)
					}
				}
				arrived.begin(i)
				if err := m.Write(t.Context(), coordinator.All, ms); err != nil {
					t.Error(err)
					return
				}
				written.Add(int64(len(ms)))
			}
		})
	}

	var sum report.Repair
	var sessions, shardsWritten, shardsEqual int
	began := time.Now()
	for ; (sessions < sessionsMin || written.Load() < writesMin) && !t.Failed(); sessions++ {
		m := c.nodes[sessions%3].replicaOf()
		partner := c.nodes[(sessions+1)%3].replicaOf().self
		settled := arrived.stamp()
		busy := m.shardsWithRows()
		var rep report.Repair
		if run := m.runSession(t.Context(), partner, report.RepairOptions{}, look{asOf: settled, settled: settled}, &rep); run.err != nil {
			t.Error(run.err)
		}
		if rep.KeysDiverged+rep.KeysPulled+rep.KeysPushed != 0 {
			t.Errorf("session %d repaired what was not lost: %+v", sessions, rep)
		}
		shardsWritten += busy
		shardsEqual += rep.ShardsEqual - (rep.Shards - busy)
		sum.KeysInFlight += rep.KeysInFlight
		sum.BytesSent += rep.BytesSent + rep.BytesReceived
		sum.RowsRead += rep.RowsRead
	}
	took := time.Since(began)
	stop()
	work.Wait()
	t.Logf("%d writes, %.0f a second; %d sessions: %d of %d shards written to were equal, %d keys in flight, %d bytes and %d rows read a session",
		written.Load(), float64(written.Load())/took.Seconds(), sessions, shardsEqual, shardsWritten, sum.KeysInFlight, sum.BytesSent/int64(sessions), sum.RowsRead/int64(sessions))
	if 10*shardsEqual < 9*shardsWritten {
		t.Errorf("of %d shards that were written to %d were equal", shardsWritten, shardsEqual)
	}
	for _, m := range c.nodes {
		m.quiet()
	}
	c.equal()
}

// TestMoment: a session compares what was a settle window ago, a later moment if it
// is asked to, and a later one, too, where the store does not remember its writes
// for as long.
func TestMoment(t *testing.T) {
	now := noon
	at := func(ago time.Duration) hlc.Stamp { return hlc.FromTime(now.Add(-ago)) }
	for _, c := range []struct {
		name            string
		entries         int           // in the memory
		every           time.Duration // between 100 writes, the last of them now
		notBefore, want time.Duration // ago
	}{
		{"a quiet store", 1000, time.Minute, time.Hour, 10 * time.Second},
		{"an operator's", 1000, time.Minute, time.Second, time.Second},
		{"remembered for longer than the window", 50, time.Second, time.Hour, 10 * time.Second},
		{"remembered for less", 50, 100 * time.Millisecond, time.Hour, 0},
		{"remembers nothing", -1, time.Second, time.Hour, 10 * time.Second},
		{"an entry from the future", 50, -time.Second, time.Hour, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := storage.Open(memstore.New(), storage.Options{Shards: 1, RecentEntries: c.entries})
			if err != nil {
				t.Fatal(err)
			}
			clock, err := openClock(s, time.Second, func() time.Time { return now })
			if err != nil {
				t.Fatal(err)
			}
			r := &replica{store: s, clock: clock}
			r.settings.Settle = 10 * time.Second
			for i := 99; i >= 0; i-- {
				e := entry(fmt.Sprint("k", i), "v", 0)
				e.Stamp = at(time.Duration(i) * c.every)
				if _, err := s.Apply([]lww.Entry{e}); err != nil {
					t.Fatal(err)
				}
			}
			got, floor := r.moment(at(c.notBefore)), s.RecentFloor()
			want := at(c.want)
			if c.want == 0 {
				want = floor + (at(0)-floor)/2
			}
			if got != want {
				t.Errorf("as of %v, want %v (now %v, the memory begins at %v)", got, want, at(0), floor)
			}
			snap := s.SnapshotAsOf(got)
			defer snap.Close()
			if present := floor > got; present != (snap.AsOf() == hlc.Max) {
				t.Errorf("as of %v, where the memory begins at %v, it shows %v", got, floor, snap.AsOf())
			}
		})
	}
}
