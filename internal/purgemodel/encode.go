package purgemodel

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"syntropy/hlc"
	"syntropy/purge"
)

// A state is encoded in a canonical form, which is equal for states that the rules
// cannot tell apart:
//
//   - Ticks are moved together where more time lies between two than any rule adds to
//     one, so that what is long ago is equally long ago.
//   - Positions of an incarnation, sessions of a pair and incarnations of a node are
//     numbered in their order. The rules compare them and do no sums. Of positions only
//     those count at which something was applied that a cut can cover and that is held:
//     what else has a position is compared with these, and with later ones.
//   - The time of a session is written as the highest stamp of a write that it proves.
//     Cuts are at the stamps of writes (see raise), and writes that are still to come
//     have later stamps than any session that was.
//   - What can never be asked again is left out: records of sessions at an earlier cut,
//     or that prove nothing above it, but for their names; what a cut says of replicas
//     that have it, or of incarnations that are gone; pairs with those of which nobody
//     has heard last.
//   - Nodes are put in the order in which the bytes are least. The rules know no node.
//
// Where a clock can be wrong, what is said of the times of sessions does not hold, and is
// not done; where a disk can go back in time, what is said of positions.
//
// What is searched on is what comes back from the bytes.

// widest is more ticks than any rule adds to a moment.
const widest = 4

// normal is how the numbers of a state are written.
type normal struct {
	ticks [256]uint8
	pos   [64]uint64     // positions of an incarnation, as bits
	seq   [64][64]uint64 // sessions of a pair
	gens  [nodes]uint64
	used  [][2]purge.Incarnation
	perm  [nodes]uint8 // the new name of each node

	s       *state
	arrival time.Duration
	clocks  bool // clocks can be wrong
	back    bool // a disk can go back in time
	out     []byte
	best    []byte
}

func (n *normal) learn(s *state) {
	n.ticks = [256]uint8{}
	n.pos = [64]uint64{}
	n.gens = [nodes]uint64{}
	for _, u := range n.used {
		n.seq[u[0]][u[1]] = 0
	}
	n.used = n.used[:0]
	n.s = s
	n.clocks = s.left.Clock > 0
	n.back = s.left.Rollback > 0 || s.rolled
	for i := range s.reps {
		n.clocks = n.clocks || s.reps[i].off != 0
	}

	n.ticks[s.now] = 1
	if n.clocks {
		n.ticks[s.now-clockOff], n.ticks[s.now+clockOff] = 1, 1
	}
	for _, w := range s.writes[:s.nWrites] {
		n.moment(w.stamp)
		if w.kind == expiring {
			n.ticks[ticksOf(w.stamp)+1] = 1
		}
	}
	for i := range s.reps {
		n.learnReplica(&s.reps[i])
		for j := range nodes {
			if i != j {
				n.incarnation(s.heard[i][j])
			}
		}
	}
	n.moment(s.read.cut)
	if s.backOf != 0 {
		n.learnReplica(&s.backup)
	}
	for k := range s.slow {
		if ses := &s.slow[k]; ses.on {
			n.incarnation(ses.incI)
			n.incarnation(ses.incJ)
			n.learnRecord(ses.incI, ses.incJ, ses.recI)
			n.learnRecord(ses.incJ, ses.incI, ses.recJ)
		}
	}
	gap := widest
	if n.clocks {
		gap += clockOff
	}
	last, as := -1, baseTick
	for t, there := range n.ticks {
		if there == 0 {
			continue
		}
		if last >= 0 {
			as += min(t-last, gap)
		}
		last = t
		n.ticks[t] = uint8(as)
	}
}

// at returns the state of an incarnation that exists, or of its backup: the one with the
// lower cut.
func (n *normal) at(i purge.Incarnation) *purge.State {
	if n.s.backOf != 0 && n.s.backup.purge.Self == i {
		return &n.s.backup.purge
	}
	for k := range n.s.reps {
		if p := &n.s.reps[k].purge; p.Self == i {
			return p
		}
	}
	return nil
}

// asked reports whether what a cut says of an incarnation can be asked for still.
func (n *normal) asked(c purge.Cut, i purge.Incarnation) bool {
	p := n.at(i)
	return p != nil && p.Cut.At < c.At
}

// raiser returns the raiser of a cut if anybody can ask for it.
func (n *normal) raiser(c purge.Cut) purge.Incarnation {
	ask := n.asked(c, c.Raiser)
	for _, m := range c.Set {
		ask = ask || n.asked(c, m.Replica)
	}
	if !ask {
		return 0
	}
	return c.Raiser
}

// gone reports whether a pair with an incarnation cannot be asked for any more.
func (n *normal) gone(i purge.Incarnation) bool {
	if n.at(i) != nil {
		return false
	}
	for k := range n.s.reps {
		if n.raiser(n.s.reps[k].purge.Cut) == i || slices.Contains(n.s.heard[k][:], i) {
			return false
		}
	}
	return n.s.backOf == 0 || n.raiser(n.s.backup.purge.Cut) != i
}

// spent reports whether a record proves nothing more to its owner.
func (n *normal) spent(p *purge.State, r purge.Record) bool {
	return r.Cut != p.Cut.At || !n.clocks && n.proves(r) <= p.Cut.At
}

// proves returns the highest cut above the one of a record that the record allows and the
// model has: at the stamp of a write, or just above the present one (see raise).
func (n *normal) proves(r purge.Record) hlc.Stamp {
	at := r.Time.Add(-n.arrival)
	return max(n.s.marked(at, false), n.s.above(r.Cut, at-1))
}

func (n *normal) incarnation(i purge.Incarnation) { n.gens[nodeOf(i)] |= 1 << generationOf(i) }

func (n *normal) moment(s hlc.Stamp) {
	if s != 0 {
		n.ticks[ticksOf(s)] = 1
	}
}

func (n *normal) position(i purge.Incarnation, p purge.Position) {
	if p > 63 {
		panic("purgemodel: a position does not fit")
	}
	n.pos[i] |= 1 << p
}

func (n *normal) learnReplica(r *replica) {
	p := &r.purge
	n.incarnation(p.Self)
	for _, h := range r.ent {
		if h.id != 0 && n.s.write(h.id).kind != value {
			n.position(p.Self, h.applied)
		}
	}
	n.moment(p.Cut.At)
	if raiser := n.raiser(p.Cut); raiser != 0 {
		n.incarnation(raiser)
		for _, m := range p.Cut.Set {
			if n.asked(p.Cut, m.Replica) {
				n.incarnation(m.Replica)
				n.session(raiser, m.Replica, m.Session)
			}
		}
	}
	for _, m := range p.Pairs {
		if n.gone(m.With) {
			continue
		}
		n.incarnation(m.With)
		for _, rec := range [...]purge.Record{m.Confirmed, m.Pending} {
			if n.spent(p, rec) {
				n.session(p.Self, m.With, rec.Session)
			} else {
				n.learnRecord(p.Self, m.With, rec)
			}
		}
	}
}

func (n *normal) learnRecord(self, with purge.Incarnation, r purge.Record) {
	n.session(self, with, r.Session)
	n.moment(r.Cut)
	if n.clocks {
		n.moment(r.Time)
	}
}

func (n *normal) session(a, b purge.Incarnation, id purge.Session) {
	a, b = min(a, b), max(a, b)
	if n.seq[a][b] == 0 {
		n.used = append(n.used, [2]purge.Incarnation{a, b})
	}
	n.seq[a][b] |= 1 << id.Seq
}

func rank(mask uint64, v uint64) uint8 {
	return uint8(bits.OnesCount64(mask & (2<<v - 1) &^ 1))
}

// place is how a position is written. Where a disk can go back in time it is written as it
// is: how many positions are left below one that was recorded counts, since they are used
// again. There are few, one for each write that is applied.
func (n *normal) place(i purge.Incarnation, p purge.Position) uint8 {
	if n.back {
		return uint8(p)
	}
	return rank(n.pos[i], uint64(p))
}

func (n *normal) inc(i purge.Incarnation) purge.Incarnation {
	if i == 0 {
		return 0
	}
	node := nodeOf(i)
	return inc(int(n.perm[node]), bits.OnesCount64(n.gens[node]&(1<<generationOf(i)-1)))
}

func (n *normal) byte(v uint8) { n.out = append(n.out, v) }

func (n *normal) flag(v bool) {
	if v {
		n.byte(1)
	} else {
		n.byte(0)
	}
}

func (n *normal) stamp(s hlc.Stamp) {
	if s == 0 {
		n.byte(0)
		if n.clocks {
			n.byte(0)
		}
		return
	}
	v := (int(n.ticks[ticksOf(s)])-baseTick)*counters + int(s&0xfff) + 1
	if n.clocks {
		n.byte(uint8(v >> 8))
	} else if v > 255 {
		panic("purgemodel: a moment does not fit")
	}
	n.byte(uint8(v))
}

func (n *normal) record(self, with purge.Incarnation, r purge.Record, spent bool) {
	a, b := min(self, with), max(self, with)
	n.byte(rank(n.seq[a][b], r.Session.Seq))
	if r.Session.Seq == 0 {
		return
	}
	n.byte(uint8(r.Session.Nonce))
	var away uint8
	for _, id := range r.Unreached {
		away |= 1 << n.perm[id-1]
	}
	n.byte(away<<1 | b2(spent))
	if spent {
		return
	}
	n.stamp(r.Cut)
	n.byte(n.place(self, r.Position))
	n.byte(n.place(with, r.Theirs))
	if n.clocks {
		n.stamp(r.Time)
	} else {
		n.stamp(n.proves(r))
	}
}

func (n *normal) replica(r *replica) {
	p := &r.purge
	n.byte(uint8(r.mode)<<2 | b2(r.up)<<1 | b2(r.tainted))
	n.byte(uint8(r.off + clockOff))
	n.byte(r.knows)
	n.byte(n.place(p.Self, r.pos))
	for _, h := range r.ent {
		n.byte(h.id)
		if h.id != 0 && n.s.write(h.id).kind != value {
			n.byte(n.place(p.Self, h.applied))
		}
	}
	n.byte(uint8(n.inc(p.Self)))
	n.stamp(p.Cut.At)
	if p.Cut.At != 0 {
		raiser := n.raiser(p.Cut)
		n.byte(uint8(n.inc(raiser)))
		var order [8]purge.Proven
		set := order[:0]
		for _, m := range p.Cut.Set {
			if n.asked(p.Cut, m.Replica) {
				set = append(set, m)
			}
		}
		n.byte(uint8(len(set)))
		slices.SortFunc(set, func(a, b purge.Proven) int { return int(n.inc(a.Replica)) - int(n.inc(b.Replica)) })
		for _, m := range set {
			a, b := min(raiser, m.Replica), max(raiser, m.Replica)
			n.byte(uint8(n.inc(m.Replica)))
			n.byte(rank(n.seq[a][b], m.Session.Seq))
			n.byte(uint8(m.Session.Nonce))
			n.byte(n.place(m.Replica, m.Position))
		}
	}
	var order [8]purge.Pair
	pairs := order[:0]
	for _, m := range p.Pairs {
		if !n.gone(m.With) {
			pairs = append(pairs, m)
		}
	}
	n.byte(uint8(len(pairs)))
	slices.SortFunc(pairs, func(a, b purge.Pair) int { return int(n.inc(a.With)) - int(n.inc(b.With)) })
	for _, m := range pairs {
		n.byte(uint8(n.inc(m.With)))
		n.record(p.Self, m.With, m.Confirmed, n.spent(p, m.Confirmed))
		n.record(p.Self, m.With, m.Pending, n.spent(p, m.Pending))
	}
}

func b2(v bool) uint8 {
	if v {
		return 1
	}
	return 0
}

// signature is what a node looks like by itself: nodes that differ in it are ordered by
// it, whatever the rest of the state is.
func (n *normal) signature(s *state, i int) uint64 {
	r := &s.reps[i]
	sig := uint64(r.mode)<<2 | uint64(b2(r.up))<<1 | uint64(b2(r.tainted))
	sig = sig<<8 | uint64(r.knows)
	sig = sig<<6 | uint64(r.ent[0].id)<<3 | uint64(r.ent[1].id)
	sig = sig<<4 | uint64(n.place(r.purge.Self, r.pos))
	at := uint64(0)
	if c := r.purge.Cut.At; c != 0 {
		at = uint64(n.ticks[ticksOf(c)])<<2 | uint64(c&3)
	}
	sig = sig<<9 | at
	pairs := uint64(0)
	for _, m := range r.purge.Pairs {
		if !n.gone(m.With) {
			pairs++
		}
	}
	sig = sig<<4 | pairs
	sig = sig<<5 | uint64(r.off+clockOff)
	for _, w := range s.writes[:s.nWrites] {
		sig = sig<<1 | uint64(w.disks>>i&1)
	}
	sig = sig<<1 | uint64(b2(int(s.backOf) == i+1))
	sig <<= 12
	for _, m := range s.msgs[:s.nMsgs] {
		if int(m.target) == i {
			sig |= 1 << (uint8(m.from)*maxWrites + m.id - 1)
		}
	}
	return sig
}

func (n *normal) write(s *state) {
	n.out = n.out[:0]
	var old [nodes]int // by new name
	for i, p := range n.perm {
		old[p] = i
	}
	mask := func(m uint8) (out uint8) {
		for i := range nodes {
			out |= m >> i & 1 << n.perm[i]
		}
		return out
	}
	n.byte(n.ticks[s.now])
	n.flag(n.clocks)
	for _, i := range old {
		n.replica(&s.reps[i])
		for _, j := range old {
			if i != j {
				n.byte(uint8(n.inc(s.heard[i][j])))
				n.byte(s.unseen[i][j])
			}
		}
	}
	switch {
	case s.cut == 0:
		n.byte(0)
	case s.cut >= alone(0):
		n.byte(alone(int(n.perm[s.cut-alone(0)])))
	default:
		lone := 3 - int(s.cut) // the node that is not of the pair
		n.byte(3 - n.perm[lone])
	}
	n.byte(s.nWrites)
	for _, w := range s.writes[:s.nWrites] {
		n.byte(uint8(w.kind)<<4 | w.key<<2 | b2(w.acked)<<1 | b2(w.purged))
		n.byte(mask(w.disks))
		n.stamp(w.stamp)
	}
	var at [2]message
	msgs := append(at[:0], s.msgs[:s.nMsgs]...)
	for k := range msgs {
		msgs[k].target = n.perm[msgs[k].target]
	}
	slices.SortFunc(msgs, func(a, b message) int {
		return int(a.from)<<8 + int(a.id)<<4 + int(a.target) - (int(b.from)<<8 + int(b.id)<<4 + int(b.target))
	})
	n.byte(s.nMsgs)
	for _, m := range msgs {
		n.byte(uint8(m.from)<<6 | m.id<<2 | m.target)
	}
	n.flag(s.read.on)
	if s.read.on {
		n.byte(s.read.key)
		n.byte(n.perm[s.read.from])
		n.byte(s.read.id)
		n.stamp(s.read.cut)
		n.byte(s.read.acked)
	}
	for k := range s.slow {
		ses := &s.slow[k]
		n.flag(ses.on)
		if ses.on {
			n.byte(n.perm[ses.i]<<4 | n.perm[ses.j])
			n.byte(uint8(n.inc(ses.incI)))
			n.byte(uint8(n.inc(ses.incJ)))
			n.record(ses.incI, ses.incJ, ses.recI, false)
			n.record(ses.incJ, ses.incI, ses.recJ, false)
			n.out = append(n.out, ses.seenI[:]...)
			n.out = append(n.out, ses.seenJ[:]...)
			n.byte(ses.done<<4 | ses.stage)
		}
	}
	n.byte(s.backOf)
	if s.backOf != 0 {
		n.out[len(n.out)-1] = n.perm[s.backOf-1] + 1
		n.replica(&s.backup)
	}
	n.byte(s.nonce)
	n.flag(s.rolled)
	n.byte(s.quar)
	l := s.left
	n.out = append(n.out, l.Down<<4|l.Cut, l.Replace<<4|l.Backup, l.Rollback<<4|l.Restore, l.Slow<<4|l.Resume,
		l.Lost<<4|l.Clock, l.Hints<<4|l.Reads, l.Fail<<4|l.Raises, l.Isolate<<4|l.Late)
}

var perms = [...][nodes]uint8{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}

// encode returns the canonical form, valid until the next call, and the names that it
// gave to the nodes.
func (n *normal) encode(s *state) ([]byte, [nodes]uint8) {
	n.learn(s)
	var sig [nodes]uint64
	for i := range nodes {
		sig[i] = n.signature(s, i)
	}
	found := false
	var names [nodes]uint8
	for _, p := range perms {
		ordered := true
		for i := range nodes {
			for j := range nodes {
				if p[i] < p[j] && sig[i] > sig[j] {
					ordered = false
				}
			}
		}
		if !ordered {
			continue
		}
		n.perm = p
		n.write(s)
		if !found || bytes.Compare(n.out, n.best) < 0 {
			n.best = append(n.best[:0], n.out...)
			names, found = p, true
		}
	}
	return n.best, names
}

// reader reads what normal has written.
type reader struct {
	b       []byte
	arrival time.Duration
	clocks  bool
	kinds   [maxWrites]kind
}

func (r *reader) byte() uint8 {
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) inc() purge.Incarnation { return purge.Incarnation(r.byte()) }

func (r *reader) position() purge.Position { return purge.Position(r.byte()) }

func (r *reader) stamp() hlc.Stamp {
	v := int(r.byte())
	if r.clocks {
		v = v<<8 | int(r.byte())
	}
	if v == 0 {
		return 0
	}
	return stamp((v-1)/counters+baseTick, (v-1)%counters)
}

func (r *reader) record() (rec purge.Record) {
	if rec.Session.Seq = uint64(r.byte()); rec.Session.Seq == 0 {
		return rec
	}
	rec.Session.Nonce = uint64(r.byte())
	flags := r.byte()
	for away, i := flags>>1, 1; away != 0; away, i = away>>1, i+1 {
		if away&1 != 0 {
			rec.Unreached = append(rec.Unreached, hlc.NodeID(i))
		}
	}
	if flags&1 != 0 {
		return rec
	}
	rec.Cut = r.stamp()
	rec.Position, rec.Theirs = r.position(), r.position()
	if rec.Time = r.stamp(); rec.Time != 0 && !r.clocks {
		rec.Time = rec.Time.Add(r.arrival) + 1
	}
	return rec
}

func (r *reader) replica(out *replica) {
	flags := r.byte()
	out.mode, out.up, out.tainted = purge.Mode(flags>>2), flags>>1&1 != 0, flags&1 != 0
	out.off = int8(r.byte()) - clockOff
	out.knows = r.byte()
	out.pos = r.position()
	for k := range out.ent {
		if out.ent[k].id = r.byte(); out.ent[k].id != 0 && r.kinds[out.ent[k].id-1] != value {
			out.ent[k].applied = r.position()
		}
	}
	p := &out.purge
	p.Self = r.inc()
	if p.Cut.At = r.stamp(); p.Cut.At != 0 {
		p.Cut.Raiser = r.inc()
		p.Cut.Set = make([]purge.Proven, r.byte())
		for k := range p.Cut.Set {
			m := &p.Cut.Set[k]
			m.Replica = r.inc()
			m.Session = purge.Session{Seq: uint64(r.byte()), Nonce: uint64(r.byte())}
			m.Position = r.position()
		}
	}
	p.Pairs = make([]purge.Pair, r.byte())
	for k := range p.Pairs {
		p.Pairs[k].With = r.inc()
		p.Pairs[k].Confirmed = r.record()
		p.Pairs[k].Pending = r.record()
	}
}

func (cfg *Scenario) decode(b []byte) *state {
	r, s := &reader{b: b, arrival: cfg.Limits.Arrival()}, new(state)
	for k, w := range cfg.Writes {
		r.kinds[k], _ = parseWrite(w)
	}
	s.now = int(r.byte())
	r.clocks = r.byte() != 0
	for i := range nodes {
		r.replica(&s.reps[i])
		for j := range nodes {
			if i != j {
				s.heard[i][j] = r.inc()
				s.unseen[i][j] = r.byte()
			}
		}
	}
	s.cut = r.byte()
	s.nWrites = r.byte()
	for k := range s.nWrites {
		w := &s.writes[k]
		f := r.byte()
		w.kind, w.key, w.acked, w.purged = kind(f>>4), f>>2&3, f>>1&1 != 0, f&1 != 0
		w.disks = r.byte()
		w.stamp = r.stamp()
	}
	s.nMsgs = r.byte()
	for k := range s.nMsgs {
		m := r.byte()
		s.msgs[k] = message{purge.Source(m >> 6), m >> 2 & 15, m & 3}
	}
	if r.byte() != 0 {
		s.read = reading{on: true, key: r.byte(), from: r.byte(), id: r.byte(), cut: r.stamp(), acked: r.byte()}
	}
	for k := range s.slow {
		if r.byte() == 0 {
			continue
		}
		ses := &s.slow[k]
		ses.on = true
		ij := r.byte()
		ses.i, ses.j = ij>>4, ij&15
		ses.incI, ses.incJ = r.inc(), r.inc()
		ses.recI, ses.recJ = r.record(), r.record()
		for k := range ses.seenI {
			ses.seenI[k] = r.byte()
		}
		for k := range ses.seenJ {
			ses.seenJ[k] = r.byte()
		}
		ds := r.byte()
		ses.done, ses.stage = ds>>4, ds&15
	}
	if s.backOf = r.byte(); s.backOf != 0 {
		r.replica(&s.backup)
	}
	s.nonce = r.byte()
	s.rolled = r.byte() != 0
	s.quar = r.byte()
	l := &s.left
	for _, f := range [...][2]*uint8{{&l.Down, &l.Cut}, {&l.Replace, &l.Backup}, {&l.Rollback, &l.Restore}, {&l.Slow, &l.Resume},
		{&l.Lost, &l.Clock}, {&l.Hints, &l.Reads}, {&l.Fail, &l.Raises}, {&l.Isolate, &l.Late}} {
		v := r.byte()
		*f[0], *f[1] = v>>4, v&15
	}
	if len(r.b) != 0 {
		panic(fmt.Sprintf("purgemodel: %d bytes are left", len(r.b)))
	}
	return s
}
