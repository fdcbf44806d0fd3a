package node

import (
	"fmt"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/lww"
	"syntropy/report"
)

// hinted is a cluster in which hints are kept.
func hinted(t *testing.T, n int) *cluster {
	c := newCluster(t, n, testSettings())
	c.hints = true
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	return c
}

// TestHintsHealAnAbsence: a node that was away gets what it missed, deletes too,
// from those that kept it, and nothing is kept after that.
func TestHintsHealAnAbsence(t *testing.T) {
	c := hinted(t, 3)
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	n1.put("k", 0, 20)
	n3.stop()
	n1.notice(1)
	n2.notice(1)
	n1.put("k", 10, 30)
	n2.del("k", 0, 5)
	if a, b := n1.replicaOf().hintsPending(), n2.replicaOf().hintsPending(); a != 20 || b != 5 {
		t.Fatalf("%d and %d hints are kept, not 20 and 5", a, b)
	}
	st, err := n1.Status(t.Context())
	if err != nil || st.Nodes[2].HintsPending != 20 || st.HintsPending != 25 || st.Nodes[2].WritesMissed != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	n3.start()
	c.connected()
	eventually(t, "all hints are delivered", func() bool { return n1.replicaOf().hintsPending()+n2.replicaOf().hintsPending() == 0 })
	c.equal()
	if h := n1.replicaOf().count(); h.HintsDelivered != 20 || h.HintsExpired+h.HintsDropped+h.HintsRejected != 0 {
		t.Errorf("%+v", h)
	}
}

// TestHintsSurviveARestart of the node that keeps them.
func TestHintsSurviveARestart(t *testing.T) {
	c := hinted(t, 3)
	n1, n3 := c.nodes[0], c.nodes[2]
	n3.stop()
	n1.notice(1)
	n1.put("k", 0, 7)
	n1.stop()
	n1.start()
	n1.replicaOf()
	if got := n1.replicaOf().hintsPending(); got != 7 {
		t.Fatalf("%d hints after the restart, not 7", got)
	}
	n3.start()
	c.connected()
	eventually(t, "all hints are delivered", func() bool { return n1.replicaOf().hintsPending() == 0 })
	c.equal()
}

// TestHintsThatAreTooOldAreRefused: a node takes no hint from outside the window,
// whatever its sender thinks of its age.
func TestHintsThatAreTooOldAreRefused(t *testing.T) {
	c := hinted(t, 2)
	n1, n2 := c.nodes[0], c.nodes[1]
	s := c.settings
	age := s.HintWindow + s.RequestDeadline + s.MaxClockSkew + time.Second
	answers, err := n1.replicaOf().apply(t.Context(), n1.replicaOf().peer(2), []lww.Entry{entry("old", "v", age), entry("new", "v", s.HintWindow-time.Second)}, forHint)
	if err != nil || len(answers) != 2 || answers[0].Outcome != coordinator.Rejected || answers[1].Outcome != coordinator.Applied {
		t.Fatalf("%+v, %v", answers, err)
	}
	wantWords(t, answers[0].Reason, "too old to arrive now")
	if got := n2.get([]byte("old")); got != "-" {
		t.Errorf("n2 holds %q", got)
	}
}

// TestHintsNeverFailAWrite: what cannot be kept is counted, and the client is told
// OK.
func TestHintsNeverFailAWrite(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	c.hints, c.hintBytes = true, 500
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	n1, n3 := c.nodes[0], c.nodes[2]
	n3.stop()
	n1.notice(1)
	n1.put("k", 0, 100)
	r := n1.replicaOf()
	if kept := r.hints.Stats(); kept.Dropped == 0 || kept.Pending[3].Bytes > 500 || kept.Pending[3].Count+kept.Dropped != 100 {
		t.Errorf("%+v", kept)
	}
	n3.start()
	c.connected()
	eventually(t, "the rest is delivered", func() bool { return r.hintsPending() == 0 })
	c.settled()
	if reports := n1.repair(report.RepairOptions{Node: 3}); reports[0].KeysPushed != int(r.count().HintsDropped) {
		t.Errorf("repair brought %d keys, %d hints were dropped", reports[0].KeysPushed, r.count().HintsDropped)
	}
}

// TestPeerTooFarBehindGetsAHint: a replica that is up but does not keep up is sent
// no more than memory should hold, and gets the rest as hints.
func TestPeerTooFarBehindGetsAHint(t *testing.T) {
	c := hinted(t, 3)
	n1 := c.nodes[0]
	r := n1.replicaOf()
	p := r.peer(3)
	if err := p.reserve(backlogBytesMax); err != nil {
		t.Fatal(err)
	}
	if err := n1.Write(t.Context(), coordinator.Quorum, put("k", "v")); err != nil {
		t.Fatal(err)
	}
	wantCode(t, n1.Write(t.Context(), coordinator.All, put("k", "v2")), CodeTimeout, "n3", "too far behind")
	n1.quiet()
	if got := r.count().HintsKept; got != 2 {
		t.Errorf("%d hints were kept, not 2", got)
	}
	p.release(backlogBytesMax)
	eventually(t, "the hints are delivered", func() bool { return r.hintsPending() == 0 })
	c.equal()
	if err := n1.Write(t.Context(), coordinator.All, put("k", "v3")); err != nil {
		t.Error(err)
	}
}

// TestDrainLeavesNoHints: a node that stops answers what it was sent, so none of it
// becomes a hint; the other nodes never see a request to it fail.
func TestDrainLeavesNoHints(t *testing.T) {
	c := hinted(t, 3)
	n1, n3 := c.nodes[0], c.nodes[2]
	r1 := n1.replicaOf()
	for round := range 3 {
		stop := make(chan struct{})
		var wrote int
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ; ; wrote++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := n1.Write(t.Context(), coordinator.Quorum, put(fmt.Sprint("k", wrote%50), fmt.Sprint(round, wrote))); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		eventually(t, "n1 writes", func() bool { return r1.counters.delivering.Load() > 0 })
		n3.stop()
		close(stop)
		<-done
		n1.quiet()
		if n := r1.count().DeliveriesFailed; n != 0 {
			t.Errorf("%d requests to the node that drained failed", n)
		}
		n3.start()
		c.connected()
		eventually(t, "what was written after it had gone is delivered", func() bool { return r1.hintsPending() == 0 })
		c.equal()
	}
}
