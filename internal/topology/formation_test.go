package topology

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// seeded is a reproducible source of random bytes.
type seeded struct{ r *rand.Rand }

func newSeeded(seed uint64) seeded { return seeded{rand.New(rand.NewPCG(seed, 1))} }

func (s seeded) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.r.Uint32())
	}
	return len(b), nil
}

func incarnation(n uint64) string {
	b := make([]byte, 16)
	binary.BigEndian.PutUint64(b[8:], n)
	return hex.EncodeToString(b)
}

func addr(i int) string { return fmt.Sprintf("127.0.0.1:%d", 7101+i) }

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world plays Registrars and a network, one event at a time and in any order.
type world struct {
	t      *testing.T
	r      *rand.Rand
	expect int
	nodes  []*worldNode
	wire   []func() // messages on their way
	made   int      // records created
}

type worldNode struct {
	id      Identity
	join    []string
	disk    *Record // what survives a restart
	state   *Formation
	acked   map[string]bool
	refused error
}

func newWorld(t *testing.T, seed uint64, nodes, expect int) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 2)), expect: expect}
	for i := range nodes {
		// Everybody joins by way of one neighbour, and itself.
		n := &worldNode{id: Identity{Incarnation: incarnation(w.r.Uint64()), Addr: addr(i)}, join: []string{addr(i), addr((i + 1) % nodes)}}
		w.nodes = append(w.nodes, n)
		w.start(n)
	}
	return w
}

// start is also restart: everything but the disk is lost.
func (w *world) start(n *worldNode) {
	var err error
	if n.state, err = NewFormation(n.id, w.expect, DefaultSettings(), n.disk); err != nil {
		w.t.Fatal(err)
	}
	n.acked = nil
}

func (w *world) commit(n *worldNode, r *Record) {
	if n.disk != nil {
		w.t.Fatalf("%v took a second record", n.id)
	}
	n.disk = r
	n.state.Commit(r)
}

func (w *world) at(addr string) *worldNode {
	return w.nodes[slices.IndexFunc(w.nodes, func(n *worldNode) bool { return n.id.Addr == addr })]
}

// tick is one round of a node: it sends Meets or, as a leader, offers.
func (w *world) tick(n *worldNode) {
	if n.refused != nil {
		return
	}
	if n.state.Leads() {
		r, err := n.state.Found(newSeeded(w.r.Uint64()), epoch)
		if err != nil {
			w.t.Fatal(err)
		}
		w.made++
		if w.r.IntN(4) == 0 {
			w.start(n) // a crash before the record is durable
			return
		}
		w.commit(n, r)
		n.acked = make(map[string]bool)
	}
	if n.acked != nil {
		for _, to := range n.state.Addrs() {
			if !n.acked[to] {
				w.wire = append(w.wire, func() { w.offer(n, to) })
			}
		}
	}
	if n.state.Record() != nil {
		return
	}
	req := n.state.Request()
	for _, to := range append(slices.Clone(n.join), n.state.Addrs()...) {
		state := n.state
		w.wire = append(w.wire, func() {
			reply := w.at(to).state.Meet(req, nil)
			w.wire = append(w.wire, func() {
				if n.state == state { // else it restarted and waits for no reply
					w.met(n, to, reply)
				}
			})
		})
	}
}

func (w *world) met(n *worldNode, from string, reply MeetReply) {
	r, err := n.state.Met(from, reply)
	if err != nil {
		n.refused = err
	} else if r != nil {
		w.commit(n, r)
	}
}

func (w *world) offer(leader *worldNode, to string) {
	n := w.at(to)
	r, err := n.state.Adopt(AdoptRequest{From: leader.id, Record: leader.disk})
	if err == nil && r != nil {
		w.commit(n, r)
	}
	if err == nil && leader.acked != nil {
		w.wire = append(w.wire, func() {
			if leader.acked != nil {
				leader.acked[to] = true
			}
		})
	}
}

// chaos plays random events: rounds, deliveries in any order, losses, repeats
// and restarts.
func (w *world) chaos(events int, restarts bool) {
	for range events {
		if len(w.wire) == 0 || w.r.IntN(4) == 0 {
			w.tick(w.nodes[w.r.IntN(len(w.nodes))])
		}
		if restarts && w.r.IntN(25) == 0 {
			w.start(w.nodes[w.r.IntN(len(w.nodes))])
		}
		if len(w.wire) == 0 {
			continue
		}
		i := w.r.IntN(len(w.wire))
		message := w.wire[i]
		if w.r.IntN(10) != 0 { // else it arrives, and stays to arrive again
			w.wire = slices.Delete(w.wire, i, i+1)
		}
		if w.r.IntN(5) != 0 { // else it is lost
			message()
		}
	}
}

// calm plays rounds without a fault.
func (w *world) calm(rounds int) {
	w.wire = nil
	for range rounds {
		for _, n := range w.nodes {
			w.tick(n)
			for len(w.wire) > 0 {
				message := w.wire[0]
				w.wire = w.wire[1:]
				message()
			}
		}
	}
}

func TestFormationInEveryOrder(t *testing.T) {
	for _, nodes := range []int{1, 2, 3, 5} {
		for seed := range uint64(400) {
			t.Run(fmt.Sprintf("nodes=%d/seed=%d", nodes, seed), func(t *testing.T) {
				w := newWorld(t, seed, nodes, nodes)
				w.chaos(int(seed), seed%2 == 0)
				w.calm(20)
				first := w.nodes[0].disk
				for _, n := range w.nodes {
					if n.refused != nil {
						t.Fatalf("%v was refused: %v", n.id, n.refused)
					}
					if n.disk == nil {
						t.Fatalf("%v has no record: %s", n.id, n.state.Waiting())
					}
					if n.disk.Fingerprint() != first.Fingerprint() {
						t.Fatalf("two clusters: %s and %s", n.disk.ClusterID, first.ClusterID)
					}
					if !n.disk.IsFounder(n.id) {
						t.Errorf("%v, a founder, counts as replaced", n.id)
					}
				}
				for i, m := range first.Members {
					if int(m.ID) != i+1 || m.Addr != addr(i) {
						t.Errorf("member %d is %v", i, m)
					}
				}
			})
		}
	}
}

// With one node too many, three may form a cluster and the fourth must hear why
// it cannot; or all fall out. Never do two clusters come of it.
func TestFormationOfFourWhereThreeAreExpected(t *testing.T) {
	for seed := range uint64(400) {
		w := newWorld(t, seed, 4, 3)
		w.chaos(int(seed), false)
		w.calm(20)
		clusters := make(map[string]bool)
		out := 0
		for _, n := range w.nodes {
			if n.disk != nil {
				clusters[n.disk.ClusterID] = true
			}
			if n.refused != nil {
				out++
			}
		}
		if len(clusters) > 1 {
			t.Fatalf("seed %d: two clusters", seed)
		}
		if out == 0 {
			t.Fatalf("seed %d: nobody was told", seed)
		}
	}
}

func formed(t *testing.T) *world {
	w := newWorld(t, 7, 3, 3)
	w.calm(20)
	if w.nodes[2].disk == nil {
		t.Fatal("no cluster")
	}
	return w
}

func TestLateFourthNodeIsRefused(t *testing.T) {
	w := formed(t)
	late := &worldNode{id: Identity{Incarnation: incarnation(99), Addr: addr(9)}, join: []string{addr(1)}}
	w.nodes = append(w.nodes, late)
	w.start(late)
	w.calm(2)
	want := "cluster " + w.nodes[0].disk.ClusterID + " already consists of n1 (127.0.0.1:7101), n2 (127.0.0.1:7102), n3 (127.0.0.1:7103), and 127.0.0.1:7110 is not in it: to add this node, start it with --join and without --bootstrap-expect"
	if late.refused == nil || !strings.Contains(late.refused.Error(), want) {
		t.Fatalf("got %v, want %s", late.refused, want)
	}
	if late.disk != nil {
		t.Fatal("the fourth node got the record")
	}
}

func TestMemberWithEmptyDiskReturns(t *testing.T) {
	w := formed(t)
	n := w.nodes[1]
	n.id.Incarnation, n.disk = incarnation(99), nil
	w.start(n)
	w.calm(2)
	if n.disk == nil || n.disk.ClusterID != w.nodes[0].disk.ClusterID {
		t.Fatal("it did not get its cluster's record:", n.refused)
	}
	if n.disk.IsFounder(n.id) {
		t.Fatal("it does not know that its disk is a new one")
	}
}

// The leader persists, crashes before any offer, and starts again as a node that
// merely answers: that is enough for all others.
func TestLeaderCrashesBeforeOffering(t *testing.T) {
	w := newWorld(t, 3, 3, 3)
	var leader *worldNode
	for leader == nil {
		for _, n := range w.nodes {
			if n.state.Leads() {
				leader = n
			}
		}
		w.chaos(1, false)
	}
	if leader.disk == nil {
		r, err := leader.state.Found(newSeeded(1), epoch)
		if err != nil {
			t.Fatal(err)
		}
		w.commit(leader, r)
	}
	w.start(leader)
	for _, n := range w.nodes {
		if n != leader && n.disk != nil {
			t.Fatal("the test is void: the record was offered")
		}
	}
	w.calm(3)
	for _, n := range w.nodes {
		if n.disk == nil || !n.disk.IsFounder(n.id) {
			t.Fatalf("%v: record %v, replaced %v", n.id, n.disk, !n.disk.IsFounder(n.id))
		}
	}
}

func TestFormationMistakes(t *testing.T) {
	me := Identity{incarnation(1), addr(0), "a"}
	other := MeetRequest{Me: Identity{Incarnation: incarnation(2), Addr: addr(1)}, Expect: 3, Settings: DefaultSettings()}
	other.View = []Identity{other.Me}
	for _, test := range []struct {
		name   string
		change func(*MeetRequest)
		want   string
	}{
		{"settings", func(m *MeetRequest) { m.Settings.Shards = 128 }, "--shards 256 at 127.0.0.1:7101, 128 at 127.0.0.1:7102"},
		{"expect", func(m *MeetRequest) { m.Expect = 5 }, "127.0.0.1:7101 expects a cluster of 3, 127.0.0.1:7102 one of 5"},
		{"address clash", func(m *MeetRequest) { m.Me.Addr = addr(0) }, "two nodes claim the address 127.0.0.1:7101"},
		{"hearsay clash", func(m *MeetRequest) { m.View = append(m.View, Identity{Incarnation: incarnation(3), Addr: addr(0)}) }, "two nodes claim"},
		{"zone", func(m *MeetRequest) { m.View = append(m.View, Identity{incarnation(1), addr(0), "b"}) }, `127.0.0.1:7101 is in zone "a" for some and in zone "b" for others`},
		{"no zone", func(m *MeetRequest) { m.Me.Zone = "a b" }, "not a zone"},
		{"copied disk", func(m *MeetRequest) { m.Me.Incarnation = incarnation(1) }, "was a data directory copied?"},
		{"too many", func(m *MeetRequest) {
			m.View = append(m.View, Identity{Incarnation: incarnation(3), Addr: addr(2)}, Identity{Incarnation: incarnation(4), Addr: addr(3)})
		}, "4 nodes want to form a cluster of 3: 127.0.0.1:7101 knows 127.0.0.1:7101; 127.0.0.1:7102 knows 127.0.0.1:7102, 127.0.0.1:7103, 127.0.0.1:7104"},
		{"no incarnation", func(m *MeetRequest) { m.Me.Incarnation = "x" }, "not 16 bytes"},
		{"no address", func(m *MeetRequest) { m.Me.Addr = "here" }, "not a peer address"},
		{"flood", func(m *MeetRequest) { m.View = make([]Identity, MaxMembers+1) }, "at most 64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := NewFormation(me, 3, DefaultSettings(), nil)
			if err != nil {
				t.Fatal(err)
			}
			req := other
			req.View = slices.Clone(other.View)
			test.change(&req)
			if reply := f.Meet(req, nil); !strings.Contains(reply.Refusal, test.want) {
				t.Errorf("asked: %q, want %q", reply.Refusal, test.want)
			}
			if _, err := f.Met(addr(1), MeetReply{Mine: req}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("answered: %v, want %q", err, test.want)
			}
			if len(f.Addrs()) != 0 {
				t.Error("the mistake left a trace:", f.Addrs())
			}
		})
	}
}

func TestAdoptTakesOnlyTheLeadersRecord(t *testing.T) {
	w := formed(t)
	r := w.nodes[0].disk
	view := slices.Clone(w.nodes[0].state.known)
	leader := view[0]
	me := view[1]
	fresh := func() *Formation {
		f, err := NewFormation(me, 3, DefaultSettings(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := fresh()
	if _, err := f.Adopt(AdoptRequest{leader, r}); err != ErrNotReady {
		t.Fatal("before its view is complete:", err)
	}
	f.Meet(MeetRequest{Me: leader, Expect: 3, Settings: DefaultSettings(), View: view, Frozen: true}, nil)
	if _, err := f.Adopt(AdoptRequest{view[2], r}); err == nil {
		t.Fatal("took a record from somebody else")
	}
	strange := *r
	strange.Members = slices.Clone(r.Members)
	strange.Members[0].Founder = incarnation(77)
	if _, err := f.Adopt(AdoptRequest{leader, &strange}); err == nil {
		t.Fatal("took a record with unknown members")
	}
	strange = *r
	strange.Settings.Shards = 16
	if _, err := f.Adopt(AdoptRequest{leader, &strange}); err == nil {
		t.Fatal("took a record with other settings")
	}
	if got, err := f.Adopt(AdoptRequest{leader, r}); got != r || err != nil {
		t.Fatal(got, err)
	}
	f.Commit(r)
	if got, err := f.Adopt(AdoptRequest{leader, r}); got != nil || err != nil {
		t.Fatal("a repeated offer is acknowledged and not stored again:", got, err)
	}
	strange = *r
	strange.ClusterID = incarnation(5)
	if _, err := f.Adopt(AdoptRequest{leader, &strange}); err == nil {
		t.Fatal("left its cluster")
	}
}

// A member that lost its disk may come back without --bootstrap-expect: it takes
// no part in forming a cluster, and is let into the one that has its address.
func TestJoinOnly(t *testing.T) {
	returning, err := NewFormation(Identity{Incarnation: incarnation(9), Addr: addr(2)}, 0, DefaultSettings(), nil)
	if err != nil {
		t.Fatal(err)
	}
	forming, err := NewFormation(Identity{Incarnation: incarnation(1), Addr: addr(0)}, 3, DefaultSettings(), nil)
	if err != nil {
		t.Fatal(err)
	}
	reply := forming.Meet(returning.Request(), nil)
	if reply.Refusal != "" || len(forming.Addrs()) != 0 {
		t.Errorf("a node that only joins was counted: %+v, known %v", reply, forming.Addrs())
	}
	if r, err := returning.Met(addr(0), reply); r != nil || err != nil || returning.Leads() {
		t.Errorf("meeting a node without a cluster gave %v, %v", r, err)
	}
	record, err := NewRecord(DefaultSettings(), []string{addr(0), addr(1), addr(2)}, newSeeded(1), epoch)
	if err != nil {
		t.Fatal(err)
	}
	forming.Commit(record)
	r, err := returning.Met(addr(0), forming.Meet(returning.Request(), nil))
	if err != nil || r != record {
		t.Fatalf("the record came as %v, %v", r, err)
	}
	if r.IsFounder(returning.me) {
		t.Error("a new disk passes for the one that founded the cluster")
	}
}
