package node

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/report"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
)

// spoiled is a disk with rows that cannot be read, or are not what was written.
type spoiled struct {
	storage.Engine
	mu     sync.Mutex
	rotten map[string]bool // keys of clients
}

// spoil puts such a disk under a node that is yet to be started.
func (m *member) spoil() *spoiled {
	s := &spoiled{rotten: make(map[string]bool)}
	m.wrap = func(e storage.Engine) storage.Engine { s.Engine = e; return s }
	return s
}

func (s *spoiled) rot(keys ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.rotten[k] = true
	}
}

func (s *spoiled) err(key []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(key) > 11 && key[0] == 'd' && s.rotten[string(key[11:])] {
		return fmt.Errorf("%w: 000007.sst", storage.ErrRot)
	}
	return nil
}

func (s *spoiled) Get(key []byte) ([]byte, bool, error) { return s.get(s.Engine, key) }

func (s *spoiled) get(r storage.Reader, key []byte) ([]byte, bool, error) {
	if err := s.err(key); err != nil {
		return nil, false, err
	}
	return r.Get(key)
}

func (s *spoiled) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	return s.scan(s.Engine, lower, upper, visit)
}

func (s *spoiled) scan(r storage.Reader, lower, upper []byte, visit func(k, v []byte) bool) error {
	var bad error
	err := r.Scan(lower, upper, func(k, v []byte) bool {
		if bad = s.err(k); bad != nil {
			return false
		}
		return visit(k, v)
	})
	return errors.Join(err, bad)
}

// Replace makes new blocks of a range, which can be read.
func (s *spoiled) Replace(lower, upper []byte, rows func(set func(k, v []byte) error) error) error {
	s.mu.Lock()
	for k := range s.rotten {
		delete(s.rotten, k)
	}
	s.mu.Unlock()
	return s.Engine.(storage.Replacer).Replace(lower, upper, rows)
}

type spoiledSnapshot struct {
	storage.Reader
	disk *spoiled
}

func (s *spoiled) Snapshot() storage.Reader { return spoiledSnapshot{s.Engine.Snapshot(), s} }

func (s spoiledSnapshot) Get(key []byte) ([]byte, bool, error) { return s.disk.get(s.Reader, key) }

func (s spoiledSnapshot) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	return s.disk.scan(s.Reader, lower, upper, visit)
}

// TestRottenRow: a row of one replica cannot be read any more. Reads at QUORUM and at
// ONE are answered by the others, the row does not count as missing, and the shard is
// healed without anybody asking.
func TestRottenRow(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	n1 := c.nodes[0]
	disk := n1.spoil()
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	n1.put("k", 0, 100)
	c.settled()
	disk.rot("k0042")
	for _, level := range []coordinator.Level{coordinator.One, coordinator.Quorum, coordinator.All} {
		found, err := n1.Read(t.Context(), level, [][]byte{[]byte("k0042")})
		if level == coordinator.All && err != nil {
			wantCode(t, err, CodeStorage, "fail their checksum")
			continue
		}
		if err != nil || !found[0].OK || string(found[0].Entry.Value) != "k of "+n1.name+" 42" {
			t.Errorf("%v: %+v, %v", level, found, err)
		}
	}
	eventually(t, "the shard is healed", func() bool {
		return strings.Contains(n1.log.String(), "a shard is healed") && len(n1.replicaOf().scrubber.sidelined()) == 0
	})
	if got := n1.get([]byte("k0042")); got != "k of "+n1.name+" 42" {
		t.Errorf("its own replica has %q", got)
	}
	c.equal()
}

// TestNobodyToHealFrom: while no other replica is up, a rotten row is in quarantine: not
// read, not taken for missing, shown in status, and still so after a restart. It can be
// written, and it is healed when another replica is back.
func TestNobodyToHealFrom(t *testing.T) {
	c := newCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	disk := n1.spoil()
	n1.start()
	n2.start()
	c.connected()
	n1.put("k", 0, 50)
	c.settled()
	n2.stop()
	disk.rot("k0007")
	for range 2 {
		if _, _, err := n1.read(t.Context(), []byte("k0007")); err == nil {
			t.Fatal("a row that cannot be read was answered")
		}
		quarantined := func() bool {
			st, err := n1.Status(t.Context())
			return err == nil && st.Nodes[0].Disk != nil && len(st.Nodes[0].Disk.Quarantined) > 0
		}
		eventually(t, "status shows what is in quarantine", quarantined)
		n1.stop()
		n1.start()
		n1.replicaOf()
	}
	shard, _ := n1.replicaOf().store.Locate([]byte("k0007"))
	out, err := n1.Scrub(t.Context(), report.ScrubOptions{Shard: &shard, Heal: true})
	if err != nil || len(out.Problems) != 1 || out.Problems[0].Healed || out.Problems[0].UnreadableLeaves == 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	wantWords(t, out.Problems[0].Error, "no other replica")
	if err := n1.write(t.Context(), []Op{{Key: []byte("k0007"), Value: []byte("new")}}); err != nil {
		t.Errorf("a row that has rotted cannot be overwritten: %v", err)
	}
	disk.rotten["k0007"] = false // the new row is in another block
	n2.start()
	c.connected()
	eventually(t, "the shard is healed", func() bool {
		st, err := n1.Status(t.Context())
		return err == nil && len(st.Nodes[0].Disk.Quarantined) == 0 && len(n1.replicaOf().scrubber.sidelined()) == 0
	})
	c.settled() // or the write may still be on its way
	n1.repair(report.RepairOptions{})
	if got := n2.get([]byte("k0007")); got != "new" {
		t.Errorf("the newest write is %q", got)
	}
	c.equal()
}

// TestRottenShardIsLeftOut: a session about everything leaves out the shard that cannot
// be read, repairs the others, and proves nothing.
func TestRottenShardIsLeftOut(t *testing.T) {
	for name, side := range map[string]int{"of the initiator": 0, "of the partner": 1} {
		t.Run(name, func(t *testing.T) {
			c := startCluster(t, 2, testSettings())
			n1, n2 := c.nodes[0], c.nodes[1]
			n1.put("k", 0, 50)
			c.settled()
			bad := c.nodes[side].replicaOf()
			shard, _ := bad.store.Locate([]byte("k0001"))
			bad.store.Quarantine(storage.Suspect{Node: bad.store.ShardNode(shard), Wrong: true, Reason: "the test says so"})
			other := "x"
			for {
				if s, _ := bad.store.Locate([]byte(other)); s != shard {
					break
				}
				other += "x"
			}
			n2.inject(entry(other, "v", time.Hour))
			reports, err := n1.Repair(t.Context(), report.RepairOptions{})
			if err != nil || reports[0].KeysPulled != 1 {
				t.Fatalf("%+v, %v", reports, err)
			}
			wantWords(t, reports[0].Error, "not compared", fmt.Sprintf("shard %d;", shard))
			if _, proven := n1.replicaOf().proofs.get(2); proven {
				t.Error("a session without a shard is a proof")
			}
			if _, _, err := bad.store.Get([]byte("k0001")); !errors.Is(err, storage.ErrQuarantined) {
				t.Errorf("what is in quarantine was read: %v", err)
			}
		})
	}
}

// TestWrongRowIsHealed: a row has changed by itself, and its checksum with it. The tree
// tells, and the row of the other replica is put in its place, though by its version it
// is the same.
func TestWrongRowIsHealed(t *testing.T) {
	c := newCluster(t, 2, testSettings())
	n1, n2 := c.nodes[0], c.nodes[1]
	var engine storage.Engine
	n2.wrap = func(e storage.Engine) storage.Engine { engine = e; return e }
	n1.start()
	n2.start()
	c.connected()
	n1.put("k", 0, 50)
	c.settled()
	before := n2.get([]byte("k0013"))
	change := engine.NewBatch()
	if err := engine.Scan([]byte("d"), []byte("e"), func(k, v []byte) bool {
		if strings.HasSuffix(string(k), "k0013") {
			changed := append([]byte{}, v...)
			changed[len(changed)-1] = 'z' // greater: last write wins would choose it
			change.Set(k, changed)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	wait, err := engine.Commit(change, true)
	if err == nil {
		err = wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	id := n2.replicaOf().self
	out, err := n1.Scrub(t.Context(), report.ScrubOptions{Node: id})
	if err != nil || len(out.Problems) != 1 || out.Problems[0].WrongLeaves != 1 || out.Problems[0].Healed || out.Node != id {
		t.Fatalf("%+v, %v", out, err)
	}
	out, err = n1.Scrub(t.Context(), report.ScrubOptions{Node: id, Heal: true})
	if err != nil || len(out.Problems) > 1 || len(out.Problems) == 1 && !out.Problems[0].Healed {
		t.Fatalf("%+v, %v", out, err) // it may have healed itself in between
	}
	if got := n2.get([]byte("k0013")); got != before {
		t.Errorf("the row is %q, and was %q", got, before)
	}
	c.equal()
	if got := n1.get([]byte("k0013")); got != before {
		t.Errorf("what has rotted was spread: %q", got)
	}
}

// TestRoom: below the reserve writes are refused, a quarter above it they are taken
// again, and between two looks no more is taken than there is room for.
func TestRoom(t *testing.T) {
	const mib = 1 << 20
	disk := pebblestore.DiskState{TotalBytes: 64 * mib, FreeBytes: 20 * mib}
	looks, changes := 0, []bool{}
	m := &room{
		look:    func() (pebblestore.DiskState, error) { looks++; return disk, nil },
		changed: func(full bool, _ string) { changes = append(changes, full) },
	}
	now := time.Unix(1000, 0)
	if err := m.take(1, now); err != nil || looks != 1 {
		t.Fatalf("%v after %d looks", err, looks)
	}
	for range 513 { // a little more than half a MiB, an eighth of what is above the reserve of 16 MiB
		if err := m.take(1024, now); err != nil {
			t.Fatal(err)
		}
	}
	if looks != 2 {
		t.Errorf("%d looks", looks)
	}
	disk.FreeBytes = 16*mib - 1
	if err := m.take(mib, now); err == nil || looks != 3 {
		t.Errorf("%v after %d looks", err, looks)
	} else {
		wantCode(t, err, CodeDiskFull, "16.0 MiB of 64.0 MiB are free", "reads go on")
	}
	disk.FreeBytes = 19 * mib
	if err := m.take(1, now.Add(time.Second)); err == nil {
		t.Error("taken again too early")
	}
	disk.FreeBytes = 20 * mib
	if err := m.take(1, now.Add(2*time.Second)); err != nil {
		t.Error(err)
	}
	disk.Waiting = 1
	if err := m.take(1, now.Add(3*time.Second)); err == nil {
		t.Error("taken while the engine finds no room at all")
	}
	if fmt.Sprint(changes) != "[true false true]" {
		t.Errorf("changes: %v", changes)
	}
	for total, want := range map[uint64]uint64{64 * mib: 16 * mib, 1024 * mib: 256 * mib, 100 << 30: 5 << 30, 10 << 40: 16 << 30} {
		if got := reserveOf(total, 0).low; got != want {
			t.Errorf("of %d bytes %d are kept free, want %d", total, got, want)
		}
	}
	if got := reserveOf(64*mib, mib).low; got != mib {
		t.Errorf("given 1 MiB, %d are kept free", got)
	}
}

// TestFullReplica: one replica of three has no room. Writes go on with the two others,
// from whichever node, hints are kept for it by nobody who has no room either, it serves
// reads, and gets what it missed when there is space again. With two without room,
// writes are refused at once, and say why.
func TestFullReplica(t *testing.T) {
	c := newCluster(t, 3, testSettings())
	c.hints = true
	var mu sync.Mutex
	full := make(map[*member]bool)
	c.disk = func(m *member) (pebblestore.DiskState, error) {
		mu.Lock()
		defer mu.Unlock()
		if full[m] {
			return pebblestore.DiskState{TotalBytes: 1 << 30, FreeBytes: 1 << 20}, nil
		}
		return pebblestore.DiskState{TotalBytes: 1 << 30, FreeBytes: 1 << 29}, nil
	}
	set := func(is bool, members ...*member) {
		mu.Lock()
		for _, m := range members {
			full[m] = is
		}
		mu.Unlock()
		for _, m := range members {
			eventually(t, m.name+" notices", func() bool { return (m.replicaOf().room.isFull() != nil) == is })
			for _, other := range c.nodes {
				if p := other.replicaOf().peer(m.replicaOf().self); p != nil {
					eventually(t, other.name+" is told of "+m.name, func() bool { return p.hasNoRoom() == is })
				}
			}
		}
	}
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	write := func(m *member, key string) error {
		return m.Write(t.Context(), coordinator.Quorum, []coordinator.Mutation{{Key: []byte(key), Value: []byte(key)}})
	}
	if err := write(n1, "before"); err != nil {
		t.Fatal(err)
	}
	set(true, n1)
	for _, m := range c.nodes {
		if err := write(m, "by "+m.name); err != nil {
			t.Errorf("by %s: %v", m.name, err)
		}
	}
	if _, found, err := n1.replicaOf().store.Get([]byte("by n2")); found || err != nil {
		t.Errorf("a full replica was written to: %v, %v", found, err)
	}
	if got := n1.get([]byte("before")); got != "before" {
		t.Errorf("a full replica reads %q", got)
	}
	set(true, n2)
	for _, m := range []*member{n1, n3} {
		err := write(m, "refused")
		wantCode(t, err, CodeDiskFull, "nothing was written", "the disk of", "n1", "n2")
	}
	set(false, n1, n2)
	eventually(t, "n1 has got what it missed by hints", func() bool {
		_, found, err := n1.replicaOf().store.Get([]byte("by n2"))
		return found && err == nil
	})
	n3.repair(report.RepairOptions{})
	c.equal()
	if found, err := n3.Read(t.Context(), coordinator.All, [][]byte{[]byte("refused")}); err != nil || found[0].OK {
		t.Errorf("a refused write is there: %+v, %v", found, err)
	}
}

// TestUncleanStop: after a crash a node compares with its partners at once, whatever
// was proven before: the disk may have lost the end of its log.
func TestUncleanStop(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprint("clean ", clean), func(t *testing.T) {
			c := newCluster(t, 2, testSettings())
			n1 := c.nodes[0]
			c.interval = time.Hour
			for _, m := range c.nodes {
				m.start()
			}
			c.connected()
			r := n1.replicaOf()
			eventually(t, "the pair is proven", func() bool { _, ok := r.proofs.get(2); return ok })
			n1.stop()
			if !clean {
				n1.wrap = func(e storage.Engine) storage.Engine {
					b := e.NewBatch()
					b.Set([]byte("mclean"), []byte{0})
					wait, err := e.Commit(b, true)
					if err == nil {
						err = wait()
					}
					if err != nil {
						t.Error(err)
					}
					return e
				}
			}
			n1.start()
			c.connected()
			r = n1.replicaOf()
			partner, _ := r.schedule.next()
			before := r.counters.sessions.Load()
			if clean && (partner != 0 || before != 0) {
				t.Errorf("a session with %v is due after an orderly stop", partner)
			}
			if !clean {
				eventually(t, "the pair is compared", func() bool { return r.counters.sessions.Load() > 0 })
			}
		})
	}
}
