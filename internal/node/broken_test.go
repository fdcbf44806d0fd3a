package node

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"syntropy/antientropy"
	"syntropy/lww"
	"syntropy/report"
	"syntropy/storage"
	"syntropy/storage/storagetest"
)

// cutAfter puts an engine under a node that is yet to be started which calls cut
// once, while it looks up the n-th of the entries that arrive after arm was called.
func (m *member) cutAfter(n int64, cut func()) (arm func()) {
	var armed atomic.Bool
	var looked atomic.Int64
	m.wrap = func(e storage.Engine) storage.Engine {
		return &storagetest.Intercept{Engine: e, OnGet: func(key []byte) error {
			if armed.Load() && key[0] == 'd' && looked.Add(1) == n {
				cut()
			}
			return nil
		}}
	}
	return func() { armed.Store(true) }
}

// TestBrokenLink: the connection breaks in the middle of a session, in whichever
// direction the entries go. The repair goes on with a new session, and no entry
// travels twice but those of the one message whose answer was lost.
func TestBrokenLink(t *testing.T) {
	const (
		entries    = 3000
		valueBytes = 2000 // in all some six messages
		brokenAt   = entries / 2
	)
	for _, pulls := range []bool{false, true} {
		name := "pushed"
		if pulls {
			name = "pulled"
		}
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 2, testSettings())
			n1, n2 := c.nodes[0], c.nodes[1]
			initiator := n1
			if pulls {
				initiator = n2
			}
			var link atomic.Pointer[peer]
			arm := n2.cutAfter(brokenAt, func() { link.Load().link.Break(errors.New("cut by the test")) })
			for _, m := range c.nodes {
				m.start()
			}
			c.connected()
			other := 2
			if pulls {
				other = 1
			}
			for id, p := range initiator.replicaOf().layout().peers {
				if int(id) == other {
					link.Store(p)
				}
			}

			var all int64
			var batch []lww.Entry
			for i := range entries {
				e := entry(fmt.Sprintf("k%05d", i), strings.Repeat("v", valueBytes), time.Hour)
				all += int64(lww.EncodedLen(e))
				batch = append(batch, e)
			}
			n1.inject(batch...)
			arm()
			rep := initiator.repair(report.RepairOptions{})[0]
			if n := strings.Count(initiator.log.String(), "the connection broke during a session"); n != 1 {
				t.Fatalf("%d sessions broke off", n)
			}
			overhead := int64(entries * 8)
			if rep.EntryBytes < all || rep.EntryBytes > all+overhead+antientropy.DefaultMessageBytes {
				t.Errorf("%d bytes of entries travelled, the entries have %d", rep.EntryBytes, all)
			}
			moved, still := rep.KeysPushed, rep.KeysPulled
			if pulls {
				moved, still = still, moved
			}
			perMessage := antientropy.DefaultMessageBytes/valueBytes + 1
			if still != 0 || moved > entries || moved < entries-perMessage || rep.KeysDiverged != moved || rep.ShardsEqual != 0 {
				t.Errorf("%+v", rep)
			}
			t.Logf("%d entries: %d moved in %d rounds, %d bytes of entries where %d differ", entries, moved, rep.Rounds, rep.EntryBytes, all)
			c.equal()
			c.equalAfter(initiator)
		})
	}
}

// TestBrokenLinkWithoutProgress: a session that has repaired nothing is not begun
// again; the schedule or the operator will.
func TestBrokenLinkWithoutProgress(t *testing.T) {
	c := newCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	var link atomic.Pointer[peer]
	arm := n2.cutAfter(1, func() { link.Load().link.Break(errors.New("cut by the test")) })
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	p := n1.replicaOf().peer(2)
	link.Store(p)
	eventually(t, "the connection is counted", func() bool { return p.linksMade() > 0 })
	links := p.linksMade()
	n1.inject(entry("k", "v", time.Hour))
	arm()
	reports, err := n1.Repair(t.Context(), report.RepairOptions{})
	if err != nil || reports[0].Error == "" || strings.Contains(n1.log.String(), "the connection broke during a session") {
		t.Errorf("%+v, %v", reports, err)
	}
	eventually(t, "n1 has dialled n2 again", func() bool { return p.linksMade() > links })
	c.connected()
	c.equalAfter(n1) // what was applied stayed
}

// TestHiddenDifference: totals that rotted on disk differ where no syndrome does.
// The session is repeated with other fingerprints, for which it reads all rows, and
// so finds out that it is the tree that is wrong. Both sides then scrub the shard, and the
// one with the wrong tree makes it that of its rows.
func TestHiddenDifference(t *testing.T) {
	c := startCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	n1.put("k", 0, 200)
	c.equal()
	n2.stop()
	n2.wrap = func(e storage.Engine) storage.Engine {
		checkpoint, _, err := e.Get([]byte("c"))
		if err != nil || len(checkpoint) < 8 {
			t.Fatalf("the checkpoint is not where the layout says: %v", err)
		}
		key := append(append([]byte("s"), checkpoint[:8]...), 0, 3) // of shard 3
		row, found, err := e.Get(key)
		if err != nil || !found {
			t.Fatalf("the totals are not where the layout says: %v", err)
		}
		row[15] ^= 1
		b := e.NewBatch()
		b.Set(key, row)
		wait, err := e.Commit(b, true)
		if err == nil {
			err = wait()
		}
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	n2.start()
	c.connected()
	reports, err := n1.Repair(t.Context(), report.RepairOptions{})
	if err != nil || len(reports) != 1 {
		t.Fatal(reports, err)
	}
	wantWords(t, reports[0].Error, "shard 3", "contradict")
	if reports[0].ShardsEqual != 0 || reports[0].KeysDiverged != 0 {
		t.Errorf("%+v", reports[0])
	}
	eventually(t, "the tree is that of the rows again", func() bool {
		return strings.Contains(n2.log.String(), "a shard is healed")
	})
	c.equal()
	eventually(t, "the shard takes part in sessions again", func() bool {
		reports, err := n1.Repair(t.Context(), report.RepairOptions{})
		return err == nil && reports[0].Error == "" && reports[0].KeysDiverged == 0
	})
	wantWords(t, n1.log.String(), "fingerprints hide a difference", "salt=1")
	n2.wrap = nil
}
