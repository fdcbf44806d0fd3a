package purgemodel

import (
	"math/bits"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/purge"
)

const (
	nodes     = 3
	maxKeys   = 2
	maxWrites = 4
	quorum    = 2

	tick     = time.Millisecond
	clockOff = 8  // ticks by which a clock is wrong, if it is
	baseTick = 16 // what normalising makes of the oldest tick: a clock may be behind it
)

// stamp returns a moment within a tick. The counter tells apart what is written in it.
func stamp(ticks, counter int) hlc.Stamp {
	return hlc.Stamp(ticks*1000)<<12 | hlc.Stamp(counter)
}

func ticksOf(s hlc.Stamp) int { return int(s>>12) / 1000 }

// counters is how many stamps a tick has: 0 is the tick itself, as clocks show it.
const counters = 8

// kind is what a write does.
type kind uint8

const (
	value kind = iota
	del
	expiring // a value that expires a tick later
)

// write is one write that was issued. Replicas hold writes by number, 1 for the first,
// and what else it says of a write is for the checks only.
type write struct {
	kind   kind
	key    uint8
	stamp  hlc.Stamp
	acked  bool
	disks  uint8 // of those that acknowledged it, the ones that have not lost it since
	purged bool  // some replica has removed it under its cut
}

func (w write) version() lww.Version {
	v := lww.Version{Stamp: w.stamp, Node: 1, Tombstone: w.kind == del}
	if w.kind == expiring {
		v.Expires = int64(ticksOf(w.stamp) + 1)
		v.ExpiryStamp, v.ExpiryNode = w.stamp, 1
	}
	return v
}

// marked returns the highest moment at which a write was stamped, or expires, before
// another one, or at it.
func (s *state) marked(before hlc.Stamp, at bool) (top hlc.Stamp) {
	for _, w := range s.writes[:s.nWrites] {
		moments := [2]hlc.Stamp{w.stamp, w.stamp}
		if w.kind == expiring {
			moments[1] = stamp(ticksOf(w.stamp)+1, 0)
		}
		for _, m := range moments {
			if m > top && (m < before || at && m == before) {
				top = m
			}
		}
	}
	return top
}

// above returns the next moment after a cut, if it is not after the limit and no write
// has it, and else zero.
func (s *state) above(cut, limit hlc.Stamp) hlc.Stamp {
	next := cut + 1
	if cut == 0 || next > limit || next&0xfff >= counters || s.marked(next, true) == next {
		return 0
	}
	return next
}

// dead reports whether a read sees nothing of it.
func (w write) dead(now int) bool {
	return w.kind == del || w.kind == expiring && ticksOf(w.stamp)+1 <= now
}

// held is what a replica has of one key.
type held struct {
	id      uint8 // of the write; 0: nothing
	applied purge.Position
}

type replica struct {
	up    bool
	off   int8 // ticks that its clock is ahead
	mode  purge.Mode
	pos   purge.Position
	ent   [maxKeys]held
	purge purge.State
	// For the checks: the writes that it has applied, or was built from a replica that had.
	knows uint8
	// tainted: there is a reason to rebuild it.
	tainted bool
}

type message struct {
	from   purge.Source
	id     uint8
	target uint8
}

// reading is a read that has one reply and waits for another.
type reading struct {
	on    bool
	key   uint8
	from  uint8
	id    uint8     // of the write that was replied
	cut   hlc.Stamp // of the replica that replied
	acked uint8     // writes that were acknowledged when it began
}

// session is one that takes its time: the others are one step.
type session struct {
	on         bool
	i, j       uint8 // initiator, partner
	incI, incJ purge.Incarnation
	recI, recJ purge.Record
	seenI      [maxKeys]uint8 // what the snapshots show
	seenJ      [maxKeys]uint8
	done       uint8 // keys
	stage      uint8 // 0 comparing, 1 recorded by the partner, 2 by both
}

// Budget bounds how often each thing may happen in a run.
type Budget struct {
	Down     uint8 // a node stops, and may come back at any time later
	Cut      uint8 // the link of two nodes is cut, and may be healed
	Isolate  uint8 // all links of a node are cut, and may be healed
	Replace  uint8 // a disk is replaced by an empty one
	Backup   uint8 // a backup is made of a running node
	Rollback uint8 // and put back, and nothing says so
	Restore  uint8 // and restored: the directory says so
	Slow     uint8 // a session that is not over at once, and may break off
	Resume   uint8 // a slow session goes on with new snapshots
	Lost     uint8 // the last message, or the last but one, of a session is lost
	Clock    uint8 // a clock is set wrong by more than any bound, or right
	Hints    uint8 // hints that are kept
	Late     uint8 // a write is on its way to some replicas, and counts when it arrives
	Reads    uint8 // a read takes its replies at different times, and its repair later still
	Fail     uint8 // a session fails to apply one key
	Raises   uint8 // a cut is raised
}

// state is the whole cluster.
type state struct {
	now     int // tick
	reps    [nodes]replica
	heard   [nodes][nodes]purge.Incarnation
	unseen  [nodes][nodes]uint8 // ticks
	cut     uint8               // the link that is cut: 1, 2 and 3 are of 0-1, 0-2, 1-2, 4 to 6 all links of 0 to 2
	writes  [maxWrites]write
	nWrites uint8
	msgs    [2]message
	nMsgs   uint8
	read    reading
	slow    [2]session
	backup  replica
	backOf  uint8 // 1 + node
	nonce   uint8
	rolled  bool  // a disk went back in time and nothing said so
	quar    uint8 // writes in quarantine
	left    Budget
	bad     string // what is wrong with the step that led here
}

func inc(node, generation int) purge.Incarnation {
	return purge.Incarnation(generation*4 + node + 1)
}
func nodeOf(i purge.Incarnation) int       { return int(i-1) % 4 }
func generationOf(i purge.Incarnation) int { return int(i-1) / 4 }

func pairOf(i, j int) uint8 { return uint8(i + j) } // 1, 2 and 3
func alone(i int) uint8     { return uint8(4 + i) }

func (s *state) reach(i, j int) bool {
	return s.reps[i].up && s.reps[j].up && s.cut != pairOf(i, j) && s.cut != alone(i) && s.cut != alone(j)
}

// clock is what the clock of a node shows.
func (s *state) clock(i int) hlc.Stamp { return stamp(s.now+int(s.reps[i].off), 0) }

func (s *state) write(id uint8) *write { return &s.writes[id-1] }

// newer reports whether write a beats write b, 0 being nothing.
func (s *state) newer(a, b uint8) bool {
	switch {
	case a == 0 || a == b:
		return false
	case b == 0:
		return true
	}
	order, _ := lww.CompareVersions(s.write(a).version(), s.write(b).version(), true)
	return order > 0
}

// put applies a write to a replica by last write wins.
func (s *state) put(i int, id uint8) {
	r := &s.reps[i]
	h := &r.ent[s.write(id).key]
	if s.newer(id, h.id) {
		r.pos++
		*h = held{id, r.pos}
	}
	r.knows |= 1 << (id - 1)
}

// future reports whether a replica would refuse a stamp as too far ahead of its clock.
func (s *state) future(i int, id uint8) bool {
	return ticksOf(s.write(id).stamp) > s.now+int(s.reps[i].off)
}

func (s *state) admits(cfg *Scenario, from purge.Source, i int, id uint8) bool {
	r := &s.reps[i]
	w := s.write(id)
	return !s.future(i, id) && cfg.rules.admit(r.purge, from, w.version(), r.ent[w.key].id != 0, s.clock(i), cfg.Limits) == nil
}

// sweep removes what the cut covers.
func (s *state) sweep(i int) {
	r := &s.reps[i]
	for k := range r.ent {
		if h := r.ent[k]; h.id != 0 && r.purge.Covered(s.write(h.id).version(), h.applied) {
			r.ent[k] = held{}
			s.write(h.id).purged = true
		}
	}
}

// contact is what heartbeats do between nodes that reach each other.
func (s *state) contact() {
	for i := range nodes {
		for j := range nodes {
			if i != j && s.reach(i, j) {
				s.heard[i][j] = s.reps[j].purge.Self
				s.unseen[i][j] = 0
			}
		}
	}
}

func (s *state) fresh(node int) purge.Incarnation {
	top := -1
	s.incarnations(func(i purge.Incarnation) {
		if nodeOf(i) == node {
			top = max(top, generationOf(i))
		}
	})
	return inc(node, top+1)
}

// incarnations calls visit with all that are named anywhere, more than once.
func (s *state) incarnations(visit func(purge.Incarnation)) {
	for i := range s.reps {
		visitState(s.reps[i].purge, visit)
		for j := range nodes {
			if i != j {
				visit(s.heard[i][j])
			}
		}
	}
	if s.backOf != 0 {
		visitState(s.backup.purge, visit)
	}
	for k := range s.slow {
		if s.slow[k].on {
			visit(s.slow[k].incI)
			visit(s.slow[k].incJ)
		}
	}
}

func visitState(p purge.State, visit func(purge.Incarnation)) {
	visit(p.Self)
	if p.Cut.Raiser != 0 {
		visit(p.Cut.Raiser)
	}
	for _, m := range p.Cut.Set {
		visit(m.Replica)
	}
	for _, m := range p.Pairs {
		visit(m.With)
	}
}

func (s *state) unreached(cfg *Scenario, i int) (ids []hlc.NodeID) {
	for j := range nodes {
		if i != j && time.Duration(s.unseen[i][j])*tick > cfg.Limits.Grace {
			ids = append(ids, hlc.NodeID(j+1))
		}
	}
	return ids
}

func (s *state) snapshot(cfg *Scenario, i int) purge.Snapshot {
	return purge.Snapshot{Position: s.reps[i].pos, Time: s.clock(i), Unreached: s.unreached(cfg, i)}
}

func (s *state) members(i int) []purge.Member {
	ms := make([]purge.Member, 0, nodes-1)
	for j := range nodes {
		if j == i {
			continue
		}
		r := &s.reps[j]
		ms = append(ms, purge.Member{
			Node: hlc.NodeID(j + 1), Replica: s.heard[i][j],
			// One that cannot be reached may have been live when last heard of.
			Serving:   !s.reach(i, j) || r.mode == purge.Live,
			Unreached: time.Duration(s.unseen[i][j]) * tick,
			ClockOff:  s.reach(i, j) && r.off != s.reps[i].off,
		})
	}
	return ms
}

func count(mask uint8) int { return bits.OnesCount8(mask) }
