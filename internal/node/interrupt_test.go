package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/report"
)

// TestInFlight: what was written a moment ago is counted and left alone; the
// repair that waits looks at it again and then repairs it.
func TestInFlight(t *testing.T) {
	s := testSettings()
	s.Settle = 400 * time.Millisecond
	c := startCluster(t, 2, s)
	n1, n2 := c.nodes[0], c.nodes[1]
	n1.inject(entry("settled", "v", time.Hour), entry("fresh", "v", 0))
	n2.inject(entry("fresh too", "v", 0))
	rep := n1.repair(report.RepairOptions{NoWait: true})[0]
	if rep.KeysInFlight != 2 || rep.KeysDiverged != 1 || rep.KeysPushed != 1 || rep.KeysPulled != 0 {
		t.Fatalf("without waiting: %+v", rep)
	}
	rep = n1.repair(report.RepairOptions{})[0]
	if rep.KeysInFlight != 0 || rep.KeysDiverged != 2 || rep.KeysPushed != 1 || rep.KeysPulled != 1 {
		t.Fatalf("with waiting: %+v", rep)
	}
	if rep.DurationMS < 300 {
		t.Errorf("it waited %v ms", rep.DurationMS)
	}
	c.equalAfter(n1)
}

// hold makes the node's sessions as a partner wait: its table is locked. It
// returns the release.
func (m *member) hold() func() {
	table := m.replicaOf().sessions
	table.mu.Lock()
	return sync.OnceFunc(table.mu.Unlock)
}

// begun starts a repair and waits until it runs.
func (m *member) begun(ctx context.Context, opts report.RepairOptions) <-chan []report.Repair {
	m.c.t.Helper()
	done := make(chan []report.Repair, 1)
	n := m.Node
	go func() {
		reports, err := n.Repair(ctx, opts)
		if err != nil {
			m.c.t.Error(err)
		}
		done <- reports
	}()
	rs := &m.replicaOf().repairs
	eventually(m.c.t, "a repair runs", func() bool {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		return len(rs.running) > 0
	})
	return done
}

// TestCancelRepair: it ends at once and says who ended it, one repair counts as
// one, and the next repair does the rest.
func TestCancelRepair(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	n1.inject(entry("k", "v", time.Hour))
	if n, err := n1.CancelRepair(t.Context()); n != 0 || err != nil {
		t.Errorf("nothing ran: %d, %v", n, err)
	}
	release := n2.hold()
	defer release()
	done := n1.begun(t.Context(), report.RepairOptions{})
	if n, err := n1.CancelRepair(t.Context()); n != 1 || err != nil {
		t.Errorf("cancelled %d, %v", n, err)
	}
	wantWords(t, (<-done)[0].Error, "cancelled by an operator")
	release()
	c.equalAfter(n1)
}

// TestCancelRepairElsewhere: cancelling stops the pair that another node runs
// for the operator, and the settle wait too.
func TestCancelRepairElsewhere(t *testing.T) {
	s := testSettings()
	s.Settle, s.GCGrace = time.Hour, 100*time.Hour
	c := startCluster(t, 3, s)
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n2.inject(entry("k", "v", time.Minute)) // in flight for an hour
	done := n1.begun(t.Context(), report.RepairOptions{Node: 3})
	r2 := n2.replicaOf()
	eventually(t, "n2 runs the pair n2 - n3", func() bool {
		r2.repairs.mu.Lock()
		defer r2.repairs.mu.Unlock()
		return len(r2.repairs.running) > 0
	})
	if _, err := n3.CancelRepair(t.Context()); err != nil {
		t.Fatal(err)
	}
	reports := <-done
	wantWords(t, reports[len(reports)-1].Error, "cancelled by an operator")
	eventually(t, "n2 has stopped", func() bool {
		r2.repairs.mu.Lock()
		defer r2.repairs.mu.Unlock()
		return len(r2.repairs.running) == 0
	})
}

// TestRepairContextEnds: the operator's own interruption ends the session and
// the partner's view with it.
func TestRepairContextEnds(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	n1.inject(entry("k", "v", time.Hour))
	ctx, cancel := context.WithCancel(t.Context())
	release := n2.hold()
	done := n1.begun(ctx, report.RepairOptions{})
	cancel()
	release()
	if rep := (<-done)[0]; rep.Error == "" && rep.KeysPushed != 1 {
		t.Errorf("%+v", rep)
	}
	table := n2.replicaOf().sessions
	eventually(t, "the partner has released its view", func() bool {
		table.mu.Lock()
		defer table.mu.Unlock()
		return len(table.sessions) == 0
	})
}

// TestPartnerDies: a partner that goes in the middle of a session gives an error
// in the report of that pair, and a later repair completes.
func TestPartnerDies(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1, n3 := c.nodes[0], c.nodes[2]
	for i := range 50 {
		n1.inject(entry(fmt.Sprint("k", i), "v", time.Hour))
	}
	release := n3.hold()
	done := n1.begun(t.Context(), report.RepairOptions{Node: 3})
	closed := make(chan struct{})
	go func() { defer close(closed); n3.stop() }()
	reports := <-done
	release()
	<-closed
	if len(reports) != 2 || reports[0].Error == "" || reports[1].Error == "" {
		t.Fatalf("%+v", reports)
	}
	for _, rep := range reports {
		wantWords(t, rep.Error, "n3")
	}
	n3.start()
	c.connected()
	c.equalAfter(n1)
}

// TestWriteDuringRepair (I3): writers on all nodes while repairs run one after
// the other from all of them; afterwards the replicas are equal and a repair has
// nothing to do.
func TestWriteDuringRepair(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var written atomic.Int64
	for i, m := range c.nodes {
		work.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				op := Op{Key: key("k", k%200), Value: fmt.Appendf(nil, "%d of %d", k, i), Delete: k%10 == 9}
				if op.Delete {
					op.Value = nil
				}
				if err := m.write(ctx, []Op{op}); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				written.Add(1)
			}
		})
		work.Go(func() {
			for ctx.Err() == nil {
				reports, err := m.Repair(ctx, report.RepairOptions{NoWait: i != 0})
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				for _, rep := range reports {
					if rep.Error != "" && ctx.Err() == nil && !strings.Contains(rep.Error, "as many sessions as it can") {
						t.Error(rep.Error)
					}
				}
			}
		})
	}
	eventually(t, "there were writes enough", func() bool { return written.Load() > 1500 })
	stop()
	work.Wait()
	c.settled()
	c.equal() // every write went to every replica, so they were equal before
	c.equalAfter(c.nodes[1])
}

// TestCloseUnderLoad: requests of all kinds while the node closes end, with an
// answer or an error, and Close returns after the last of them.
func TestCloseUnderLoad(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	n1.put("k", 0, 200)
	n := n1.Node
	var work sync.WaitGroup
	var rounds atomic.Int64
	ctx := t.Context()
	for _, request := range []func() error{
		func() error {
			return n.Write(ctx, coordinator.One, mutations([]Op{{Key: []byte("k"), Value: []byte("v")}}))
		},
		func() error {
			return n2.Write(ctx, coordinator.One, mutations([]Op{{Key: []byte("k"), Value: []byte("v2")}}))
		},
		func() error { _, _, err := (&member{Node: n, c: c}).read(ctx, key("k", 1)); return err },
		func() error { _, _, err := n.scan(ctx, 0, 50); return err },
		func() error { _, err := n.Size(ctx); return err },
		func() error { _, err := n.Repair(ctx, report.RepairOptions{}); return err },
		func() error { _, err := n.Inspect(ctx, key("k", 1)); return err },
		func() error { _, err := n.Roots(ctx, true); return err },
		func() error { _, err := n.Status(ctx); return err },
		func() error { _, err := n.CancelRepair(ctx); return err },
	} {
		work.Go(func() {
			for range 150 {
				if err := request(); err != nil {
					return
				}
				rounds.Add(1)
			}
		})
	}
	eventually(t, "requests run", func() bool { return rounds.Load() > 50 })
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	work.Wait()
	n1.Node = nil
	running--
	wantCode(t, (&member{Node: n, c: c}).write(ctx, []Op{{Key: []byte("k")}}), CodeFailed, "stopp")
	if _, _, err := (&member{Node: n, c: c}).read(ctx, []byte("k")); err == nil {
		t.Error("a closed node reads")
	}
	if err := n.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	n1.start()
	c.connected()
	c.settled()
	c.equalAfter(n2)
}

// TestCloseEndsRepair: Close does not wait for a repair that waits.
func TestCloseEndsRepair(t *testing.T) {
	s := testSettings()
	s.Settle, s.GCGrace = time.Hour, 100*time.Hour
	c := startCluster(t, 2, s)
	n1 := c.nodes[0]
	n1.inject(entry("k", "v", time.Minute))
	done := n1.begun(t.Context(), report.RepairOptions{})
	n1.stop()
	wantWords(t, (<-done)[0].Error, "stopp")
}

// TestOneBadEntryDoesNotBlockRepair: an entry from the future is refused and
// reported; what differs besides is repaired all the same, in both directions. A
// session sees it only if its value is from the past: what is yet to be written is
// not compared.
func TestOneBadEntryDoesNotBlockRepair(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	n1.inject(entry("later", "v", -time.Hour))
	if rep := n1.repair(report.RepairOptions{})[0]; rep.ShardsEqual != rep.Shards || rep.Rounds != 1 {
		t.Errorf("what is yet to be written is compared: %+v", rep)
	}
	future := entry("future", "v", -time.Hour)
	future.ExpiryStamp, future.Stamp = future.Stamp, entry("", "", time.Hour).Stamp // settled, with an expiry from the future
	n1.inject(future)
	for i := range 50 {
		n1.inject(entry(fmt.Sprint("k", i), "v", time.Hour))
	}
	for _, m := range []*member{n1, n2} { // pushed, then pulled
		reports, err := m.Repair(t.Context(), report.RepairOptions{})
		if err != nil || len(reports) != 1 {
			t.Fatalf("%+v, %v", reports, err)
		}
		wantWords(t, reports[0].Error, "apply", "ahead of this node's clock")
		if size, _ := n2.Size(t.Context()); size != 50 {
			t.Fatalf("n2 holds %d keys of the 50 that are in order", size)
		}
		for i := range 50 { // news for the second direction
			n1.inject(entry(fmt.Sprint("k", i), "v2", 30*time.Minute))
		}
	}
	if got := n2.get([]byte("k7")); got != "v2" {
		t.Errorf("n2 has %q", got)
	}
}

// TestRepairUnderLoad: writes that come while a repair runs are none of its
// business; what was in flight when it began is settled.
func TestRepairUnderLoad(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1 := c.nodes[0]
	c.connected()
	n1.inject(entry("first", "v", 0)) // n2 has not got it: in flight
	r := n1.replicaOf()
	settled := r.settings.Settle
	done := make(chan report.Repair)
	go func() { done <- r.repairPair(t.Context(), 2, report.RepairOptions{}) }()
	for wait := time.After(settled / 2); ; {
		select {
		case <-wait:
			n1.inject(entry("second", "v", 0)) // younger than the first look
			wait = nil
		case rep := <-done:
			if rep.Error != "" || rep.KeysPushed != 1 || rep.KeysInFlight != 0 {
				t.Errorf("%+v", rep)
			}
			return
		}
	}
}
