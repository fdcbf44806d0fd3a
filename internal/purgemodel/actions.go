package purgemodel

import (
	"fmt"
	"slices"

	"syntropy/hlc"
	"syntropy/purge"
)

// Scenario is what can happen in a run.
type Scenario struct {
	Name   string
	Limits purge.Limits
	Keys   int
	// Writes are what clients write, in this order: a kind (v, x or e) and a key, such
	// as "v0 x0". The first Given of them are there on all replicas at the beginning.
	Writes []string
	Given  int
	Budget Budget
	// Script is what happens first, step by step, with the nodes named A, B and C.
	Script []string
	// Closure: every so many-th new state is run to its end without failures, and must
	// converge. 0 is never.
	Closure int

	rules rules
}

func parseWrite(w string) (kind, uint8) {
	k := map[byte]kind{'v': value, 'x': del, 'e': expiring}[w[0]]
	return k, w[1] - '0'
}

// start returns the beginning: three replicas that have founded the cluster.
func (cfg *Scenario) start() *state {
	s := &state{now: baseTick, left: cfg.Budget}
	for i := range nodes {
		s.reps[i] = replica{up: true, mode: purge.Live, purge: purge.State{Self: inc(i, 0)}}
	}
	s.contact()
	for range cfg.Given {
		cfg.issue(s, 7, 0, purge.Client)
		s.now++
	}
	for _, line := range cfg.Script {
		s = cfg.follow(s, line)
	}
	return s
}

// follow takes the step that is printed like this.
func (cfg *Scenario) follow(s *state, line string) (next *state) {
	cfg.successors(s, func(a step, n *state) {
		if a.print(func(i int) string { return string(rune('A' + i)) }) == line {
			to := *n
			next = &to
		}
	})
	if next == nil {
		panic(fmt.Sprintf("purgemodel: in %s nothing like %q can happen", cfg.Name, line))
	}
	return next
}

// step is one thing that happened, for traces.
type step struct {
	what  string
	args  [3]int8 // nodes first; -1: none
	isN   [3]bool // the argument is a node
	after uint8   // of a write: whom it reaches later
}

func (a step) print(name func(int) string) string {
	out := a.what
	for _, i := range members(a.after) {
		out += " " + name(i)
	}
	if a.after != 0 {
		out += ", at once at"
	}
	for k, v := range a.args {
		switch {
		case v < 0:
		case a.isN[k]:
			out += " " + name(int(v))
		default:
			out += fmt.Sprint(" ", v)
		}
	}
	return out
}

func on(what string, n ...int) step {
	a := step{what: what, args: [3]int8{-1, -1, -1}}
	for k, v := range n {
		a.args[k], a.isN[k] = int8(v), true
	}
	return a
}

// later adds whom a write reaches later.
func (a step) later(as purge.Source, mask uint8) step {
	if mask != 0 {
		a.after = mask
		a.what = "write, on its way to"
		if as == purge.Hint {
			a.what = "write, with hints for"
		}
	}
	return a
}

func members(mask uint8) (at []int) {
	for i := range nodes {
		if mask&(1<<i) != 0 {
			at = append(at, i)
		}
	}
	return at
}

func (a step) num(v int) step {
	for k := range a.args {
		if a.args[k] < 0 {
			a.args[k] = int8(v)
			return a
		}
	}
	return a
}

// successors calls emit with every state that is one step away, in an order that
// depends on the state alone. emit may keep nothing of it.
func (cfg *Scenario) successors(s *state, emit func(step, *state)) {
	n := new(state)
	try := func(a step, do func(n *state) bool) {
		*n = *s
		n.bad = ""
		if do(n) {
			n.contact()
			emit(a, n)
		}
	}
	try(on("tick"), func(n *state) bool { return cfg.tick(n) })
	cfg.clientSteps(s, try)
	for i := range nodes {
		for j := range nodes {
			if i == j {
				continue
			}
			if i < j {
				try(on("meet", i, j), func(n *state) bool { return n.reach(i, j) && cfg.meet(n, i, j) })
				try(on("session", i, j), func(n *state) bool { return cfg.session(n, i, j, -1, 0) })
			}
			for lost := 1; lost <= 2 && s.left.Lost > 0; lost++ {
				try(on([...]string{"", "session, its last message lost", "session, recorded by the partner only"}[lost], i, j), func(n *state) bool {
					n.left.Lost--
					return cfg.session(n, i, j, -1, lost)
				})
			}
			for k := range cfg.Keys {
				if s.left.Fail > 0 {
					try(on("session, one key fails", i, j).num(k), func(n *state) bool {
						n.left.Fail--
						return cfg.session(n, i, j, k, 0)
					})
				}
			}
			try(on("check", i, j), func(n *state) bool { return cfg.check(n, i, j) })
			try(on("rebuild", i, j), func(n *state) bool { return cfg.rebuild(n, i, j) })
		}
		if s.left.Raises > 0 {
			try(on("raise", i), func(n *state) bool {
				n.left.Raises--
				return cfg.raise(n, i)
			})
		}
	}
	cfg.slowSteps(s, try)
	cfg.failures(s, try)
}

type tryFunc func(step, func(*state) bool)

func (cfg *Scenario) tick(s *state) bool {
	s.now++
	for i := range nodes {
		for j := range nodes {
			if i != j && s.reps[i].up && !s.reach(i, j) && int(s.unseen[i][j]) <= int(cfg.Limits.Grace/tick) {
				s.unseen[i][j]++
			}
		}
	}
	for j := range nodes {
		gone := true
		for i := range nodes {
			gone = gone && (i == j || int(s.unseen[i][j]) > int(cfg.Limits.Grace/tick))
		}
		s.reps[j].tainted = s.reps[j].tainted || gone
	}
	return true
}

// issue makes the next write, which arrives at once at the replicas of one mask, and is on
// its way to those of another, directly or as hints.
func (cfg *Scenario) issue(s *state, mask, later uint8, as purge.Source) bool {
	if int(s.nWrites) == len(cfg.Writes) {
		return false
	}
	k, key := parseWrite(cfg.Writes[s.nWrites])
	counter := 1
	for _, w := range s.writes[:s.nWrites] {
		if ticksOf(w.stamp) == s.now {
			counter++
		}
	}
	if counter >= counters {
		return false
	}
	s.writes[s.nWrites] = write{kind: k, key: key, stamp: stamp(s.now, counter)}
	s.nWrites++
	id := s.nWrites
	for i := range nodes {
		if mask&(1<<i) == 0 {
			continue
		}
		if !s.reps[i].up || !s.admits(cfg, purge.Client, i, id) {
			return false
		}
		s.put(i, id)
		s.write(id).disks |= 1 << i
	}
	s.write(id).acked = count(mask) >= quorum
	if later != 0 {
		if as == purge.Hint {
			s.left.Hints--
		} else {
			s.left.Late--
		}
	}
	for i := range nodes {
		if later&(1<<i) != 0 && !s.send(message{as, id, uint8(i)}) {
			return false
		}
	}
	return true
}

func (s *state) send(m message) bool {
	if int(s.nMsgs) == len(s.msgs) {
		return false
	}
	s.msgs[s.nMsgs] = m
	s.nMsgs++
	return true
}

func (s *state) receive(k int) message {
	m := s.msgs[k]
	s.nMsgs--
	s.msgs[k] = s.msgs[s.nMsgs]
	s.msgs[s.nMsgs] = message{}
	return m
}

func (cfg *Scenario) clientSteps(s *state, try tryFunc) {
	for _, as := range [...]purge.Source{purge.Client, purge.Hint} {
		left := s.left.Late
		if as == purge.Hint {
			left = s.left.Hints
		}
		for mask := uint8(0); mask < 1<<nodes; mask++ {
			for later := uint8(0); later < 1<<nodes; later++ {
				if mask|later == 0 || mask&later != 0 || later == 7 || later != 0 && left == 0 || later == 0 && as == purge.Hint {
					continue
				}
				try(on("write", members(mask)...).later(as, later), func(n *state) bool { return cfg.issue(n, mask, later, as) })
			}
		}
	}
	for k := range int(s.nMsgs) {
		m := s.msgs[k]
		what := [...]string{purge.Client: "late write reaches", purge.Hint: "hint reaches", purge.ReadRepair: "read repair reaches"}[m.from]
		try(on(what, int(m.target)).num(int(m.id)), func(n *state) bool {
			i := int(m.target)
			n.receive(k)
			if !n.reps[i].up {
				return false
			}
			if n.admits(cfg, m.from, i, m.id) {
				n.put(i, m.id)
				if w := n.write(m.id); m.from == purge.Client {
					w.disks |= 1 << i
					w.acked = w.acked || count(w.disks) >= quorum
				}
			}
			return true
		})
	}
	if s.read.on {
		for j := range nodes {
			if j != int(s.read.from) {
				try(on("reply to read", j), func(n *state) bool { return cfg.reply(n, j) })
			}
		}
	} else if s.left.Reads > 0 {
		for i := range nodes {
			for k := range cfg.Keys {
				try(on("read", i).num(k), func(n *state) bool { return cfg.ask(n, i, k) })
			}
		}
	}
}

func (s *state) serves(i int) bool { return s.reps[i].up && s.reps[i].mode == purge.Live }

// ask begins a read with the reply of one replica.
func (cfg *Scenario) ask(s *state, i, k int) bool {
	if !s.serves(i) || s.nWrites == 0 {
		return false
	}
	s.left.Reads--
	s.read = reading{on: true, key: uint8(k), from: uint8(i), id: s.reps[i].ent[k].id, cut: s.reps[i].purge.Cut.At}
	for id := uint8(1); id <= s.nWrites; id++ {
		if s.write(id).acked {
			s.read.acked |= 1 << (id - 1)
		}
	}
	return true
}

// reply ends a read with the reply of another, and sends the one that is behind what is
// newer.
func (cfg *Scenario) reply(s *state, j int) bool {
	if !s.serves(j) {
		return false
	}
	rd := s.read
	s.read = reading{}
	r := [2]purge.Reply{s.replyOf(rd.id, rd.cut), s.replyOf(s.reps[j].ent[rd.key].id, s.reps[j].purge.Cut.At)}
	ids := [2]uint8{rd.id, s.reps[j].ent[rd.key].id}
	to := [2]uint8{rd.from, uint8(j)}
	if ids[0] == ids[1] {
		cfg.answered(s, rd.key, ids[0], rd.acked)
		return true
	}
	best := 0
	if s.newer(ids[1], ids[0]) {
		best = 1
	}
	if ids[best] == 0 || s.write(ids[best]).dead(s.now) || cfg.rules.judge(r[best], []purge.Reply{r[1-best]}) {
		cfg.answered(s, rd.key, ids[best], rd.acked)
	}
	if ids[best] == 0 || !purge.Repairable(r[best], r[1-best]) {
		return true
	}
	return s.send(message{purge.ReadRepair, ids[best], to[1-best]})
}

func (s *state) replyOf(id uint8, cut hlc.Stamp) purge.Reply {
	r := purge.Reply{Cut: cut, Found: id != 0}
	if id != 0 {
		r.Version = s.write(id).version()
	}
	return r
}

// answered checks an answer against what was acknowledged before the read began.
func (cfg *Scenario) answered(s *state, key, id uint8, acked uint8) {
	if id != 0 && s.write(id).dead(s.now) {
		return
	}
	for o := uint8(1); o <= s.nWrites; o++ {
		w := s.write(o)
		if acked&(1<<(o-1)) != 0 && w.key == key && w.dead(s.now) && s.newer(o, id) && id != 0 && s.protected(o) {
			s.bad = fmt.Sprintf("I2: a read answers write %d, which write %d deleted before", id, o)
		}
	}
}

// meet is what two nodes do first of all.
func (cfg *Scenario) meet(s *state, i, j int) bool {
	a, b := &s.reps[i], &s.reps[j]
	if a.mode == purge.Condemned || b.mode == purge.Condemned {
		return false
	}
	before := [2]purge.State{a.purge, b.purge}
	modes := [2]purge.Mode{a.mode, b.mode}
	a.purge, b.purge = purge.Settle(before[0], before[1]), purge.Settle(before[1], before[0])
	sa, _ := cfg.rules.meet(a.purge, b.purge)
	sb, _ := cfg.rules.meet(b.purge, a.purge)
	old := [2]purge.State{a.purge, b.purge}
	cfg.stand(s, i, sa, old[1], sb)
	cfg.stand(s, j, sb, old[0], sa)
	return sa != purge.Fit || sb != purge.Fit || modes != [2]purge.Mode{a.mode, b.mode} ||
		!same(before[0], a.purge) || !same(before[1], b.purge)
}

// same tells two states apart that Settle may have changed.
func same(a, b purge.State) bool {
	for k := range a.Pairs {
		if a.Pairs[k].Confirmed.Session != b.Pairs[k].Confirmed.Session {
			return false
		}
	}
	return a.Cut.At == b.Cut.At
}

// stand does what a replica has to after a meeting. It takes over no cut of one that is
// to be rebuilt itself.
func (cfg *Scenario) stand(s *state, i int, st purge.Standing, them purge.State, theirs purge.Standing) {
	r := &s.reps[i]
	switch {
	case st == purge.Rebuild:
		if !r.tainted {
			s.bad = fmt.Sprintf("N: replica %d is to be rebuilt for no reason", i)
		}
		r.mode = purge.Condemned
	case st == purge.Adopt && theirs != purge.Rebuild:
		r.purge = cfg.rules.adopt(r.purge, them.Cut)
		s.sweep(i)
	}
}

// check is what a replica does after a start, with one other, which is enough of three.
func (cfg *Scenario) check(s *state, i, j int) bool {
	r, other := &s.reps[i], &s.reps[j]
	if !s.reach(i, j) || r.mode != purge.Unchecked || other.mode == purge.Condemned || other.mode == purge.Joining {
		return false
	}
	cfg.meet(s, i, j)
	if r.mode == purge.Unchecked && other.mode != purge.Condemned && purge.Checked(1, nodes) {
		r.mode = purge.Live
	}
	return r.mode != purge.Unchecked
}

// apply brings a write over in a session.
func (cfg *Scenario) apply(s *state, i int, id uint8) bool {
	if !s.admits(cfg, purge.Exchange, i, id) {
		return false
	}
	s.put(i, id)
	return true
}

// session runs one in a single step. A key that fails (-1: none) is not applied. Of
// those with a message lost, 1 is not confirmed, 2 not recorded by the initiator.
func (cfg *Scenario) session(s *state, i, j, failing, lost int) bool {
	if !s.reach(i, j) {
		return false
	}
	cfg.meet(s, i, j)
	if !s.fit(i, j) {
		return false
	}
	ses, ok := cfg.open(s, i, j)
	if !ok {
		return false
	}
	failed := 0
	for k := range cfg.Keys {
		if k == failing {
			if ses.seenI[k] == ses.seenJ[k] {
				return false // there was nothing to fail
			}
			failed++
			continue
		}
		if !cfg.exchange(s, &ses, k) {
			failed++
		}
	}
	if !cfg.rules.whole(failed) {
		return true
	}
	cfg.record(s, &ses, purge.Partner)
	if lost == 2 {
		return true
	}
	cfg.record(s, &ses, purge.Initiator)
	if lost == 1 {
		return true
	}
	s.reps[j].purge = s.reps[j].purge.Confirm(ses.incI, ses.recJ.Session)
	return true
}

// fit reports whether two replicas are in a state to have a session.
func (s *state) fit(i, j int) bool {
	for _, n := range [2]int{i, j} {
		if m := s.reps[n].mode; m != purge.Live && m != purge.Joining {
			return false
		}
	}
	return true
}

func (cfg *Scenario) open(s *state, i, j int) (session, bool) {
	a, b := &s.reps[i], &s.reps[j]
	sa, sb := s.snapshot(cfg, i), s.snapshot(cfg, j)
	recI, err := cfg.rules.open(a.purge, b.purge, sa, sb, uint64(s.nonce))
	if err != nil {
		return session{}, false
	}
	recJ, _ := cfg.rules.open(b.purge, a.purge, sb, sa, uint64(s.nonce))
	ses := session{on: true, i: uint8(i), j: uint8(j), incI: a.purge.Self, incJ: b.purge.Self, recI: recI, recJ: recJ}
	s.see(&ses)
	return ses, true
}

func (s *state) see(ses *session) {
	for k := range maxKeys {
		if ses.done&(1<<k) == 0 {
			ses.seenI[k], ses.seenJ[k] = s.reps[ses.i].ent[k].id, s.reps[ses.j].ent[k].id
		}
	}
}

// exchange brings the newer entry of a key over, as the snapshots show it.
func (cfg *Scenario) exchange(s *state, ses *session, k int) bool {
	a, b := ses.seenI[k], ses.seenJ[k]
	switch {
	case s.newer(a, b):
		return cfg.apply(s, int(ses.j), a)
	case s.newer(b, a):
		return cfg.apply(s, int(ses.i), b)
	}
	return true
}

// record makes one side record the session, and reports whether it did. A replica that
// was rebuilt goes live with the last one that it needs.
func (cfg *Scenario) record(s *state, ses *session, role purge.Role) bool {
	n, self, with, rec := int(ses.i), ses.incI, ses.incJ, ses.recI
	if role == purge.Partner {
		n, self, with, rec = int(ses.j), ses.incJ, ses.incI, ses.recJ
	}
	r := &s.reps[n]
	next, err := cfg.rules.complete(r.purge, self, with, rec, role)
	if err != nil {
		return false
	}
	r.purge = next
	if r.mode == purge.Joining && r.purge.Joined(s.members(n)) {
		r.mode, r.tainted = purge.Live, s.rolled || s.leftOut(n)
	}
	return true
}

// leftOut reports whether a cut was raised without a replica, which it has not met yet.
func (s *state) leftOut(i int) bool {
	self := s.reps[i].purge
	for k := range s.reps {
		c := s.reps[k].purge.Cut
		in := slices.ContainsFunc(c.Set, func(p purge.Proven) bool { return p.Replica == self.Self })
		if c.At > self.Cut.At && !in {
			return true
		}
	}
	return false
}

// rebuild builds a condemned replica anew from a live one: what it holds above the cut
// is offered first, the rest of what only it holds goes into quarantine.
func (cfg *Scenario) rebuild(s *state, i, j int) bool {
	r, src := &s.reps[i], &s.reps[j]
	if !s.reach(i, j) || r.mode != purge.Condemned || src.mode != purge.Live {
		return false
	}
	for o := range nodes { // from one with the highest cut
		if o != i && s.reach(i, o) && s.reps[o].mode == purge.Live && s.reps[o].purge.Cut.At > src.purge.Cut.At {
			return false
		}
	}
	for k := range cfg.Keys {
		h := r.ent[k]
		if h.id == 0 || !s.newer(h.id, src.ent[k].id) {
			continue
		}
		if s.write(h.id).stamp > src.purge.Cut.At && s.admits(cfg, purge.Offer, j, h.id) {
			s.put(j, h.id)
		} else {
			s.quar |= 1 << (h.id - 1)
		}
	}
	id := s.fresh(i)
	*r = replica{up: true, off: r.off, mode: purge.Joining, purge: purge.Rebuilt(id, src.purge), knows: src.knows, tainted: true}
	for k := range cfg.Keys {
		if src.ent[k].id != 0 {
			r.pos++
			r.ent[k] = held{src.ent[k].id, r.pos}
		}
	}
	return true
}

func (cfg *Scenario) raise(s *state, i int) bool {
	r := &s.reps[i]
	if !r.up || r.mode != purge.Live {
		return false
	}
	next, rose, _ := cfg.rules.raise(r.purge, s.members(i), cfg.Limits, s.clock(i), s.late(i))
	if !rose {
		return false
	}
	// Down to a stamp of a write: a cut between two writes covers, and refuses, what
	// the lower of them does.
	// Where exceptions are held, it also rises by as little as can be, to cover them.
	limit := next.Cut.At
	next.Cut.At = s.marked(limit, true)
	if s.exceptions(i) {
		next.Cut.At = max(next.Cut.At, s.above(r.purge.Cut.At, limit))
	}
	if next.Cut.At <= r.purge.Cut.At {
		return false
	}
	r.purge = next
	s.sweep(i)
	return true
}

func (s *state) late(i int) purge.Late {
	return func(after purge.Position, limit hlc.Stamp) (lowest hlc.Stamp, ok bool) {
		for _, h := range s.reps[i].ent {
			if h.id == 0 || h.applied <= after {
				continue
			}
			if at, can := purge.CoverStamp(s.write(h.id).version()); can && at <= limit && (!ok || at < lowest) {
				lowest, ok = at, true
			}
		}
		return lowest, ok
	}
}

func (cfg *Scenario) slowSteps(s *state, try tryFunc) {
	free := -1
	for k := range s.slow {
		if !s.slow[k].on {
			free = k
			continue
		}
		ses := s.slow[k]
		i, j := int(ses.i), int(ses.j)
		try(on("slow session breaks off", i, j), func(n *state) bool {
			n.slow[k] = session{}
			return true
		})
		if !s.reach(i, j) {
			continue
		}
		switch ses.stage {
		case 0:
			for key := range cfg.Keys {
				try(on("slow session compares", i, j).num(key), func(n *state) bool {
					w := &n.slow[k]
					if w.done&(1<<key) != 0 || !cfg.stands(n, w) {
						return false
					}
					w.done |= 1 << key
					return cfg.exchange(n, w, key)
				})
			}
			if s.left.Resume > 0 {
				try(on("slow session resumes", i, j), func(n *state) bool {
					n.left.Resume--
					w := &n.slow[k]
					if w.done == 0 || !cfg.stands(n, w) {
						return false
					}
					n.see(w)
					a, b := n.snapshot(cfg, i), n.snapshot(cfg, j)
					w.recI, w.recJ = cfg.rules.resume(w.recI, a, b), cfg.rules.resume(w.recJ, b, a)
					return true
				})
			}
			try(on("slow session recorded by partner", i, j), func(n *state) bool {
				w := &n.slow[k]
				if w.done != 1<<cfg.Keys-1 || !cfg.stands(n, w) {
					return false
				}
				w.stage = 1
				return cfg.record(n, w, purge.Partner)
			})
		case 1:
			try(on("slow session recorded by initiator", i, j), func(n *state) bool {
				w := &n.slow[k]
				w.stage = 2
				return cfg.record(n, w, purge.Initiator)
			})
		case 2:
			try(on("slow session confirmed", i, j), func(n *state) bool {
				w := n.slow[k]
				n.slow[k] = session{}
				n.reps[j].purge = n.reps[j].purge.Confirm(w.incI, w.recJ.Session)
				return n.reps[j].purge.Self == w.incJ
			})
		}
	}
	if s.left.Slow == 0 || free < 0 {
		return
	}
	for i := range nodes {
		for j := range nodes {
			if i == j {
				continue
			}
			try(on("slow session begins", i, j), func(n *state) bool {
				n.left.Slow--
				if !n.reach(i, j) {
					return false
				}
				cfg.meet(n, i, j)
				if !n.fit(i, j) {
					return false
				}
				ses, ok := cfg.open(n, i, j)
				n.slow[free] = ses
				return ok
			})
		}
	}
}

// stands reports whether a session may go on: each side asks for itself.
func (cfg *Scenario) stands(s *state, ses *session) bool {
	return s.fit(int(ses.i), int(ses.j)) &&
		cfg.rules.check(s.reps[ses.i].purge, ses.incI, ses.incJ, ses.recI) == nil &&
		cfg.rules.check(s.reps[ses.j].purge, ses.incJ, ses.incI, ses.recJ) == nil
}

// stop ends what a node had in memory.
func (s *state) stop(i int) {
	for k := range s.slow {
		if s.slow[k].on && (int(s.slow[k].i) == i || int(s.slow[k].j) == i) {
			s.slow[k] = session{}
		}
	}
}

func (cfg *Scenario) failures(s *state, try tryFunc) {
	for i := range nodes {
		r := &s.reps[i]
		if r.up && s.left.Down > 0 {
			try(on("down", i), func(n *state) bool {
				n.left.Down--
				n.stop(i)
				n.reps[i].up = false
				return true
			})
		}
		if !r.up {
			try(on("up", i), func(n *state) bool {
				n.reps[i].up = true
				n.reps[i].mode = cfg.rules.started(r.mode, false)
				for j := range nodes {
					n.unseen[i][j] = 0 // it has not been running
				}
				return true
			})
		}
		if s.left.Replace > 0 {
			try(on("replace the disk of", i), func(n *state) bool {
				n.left.Replace--
				n.stop(i)
				n.lose(i, 0)
				n.reps[i] = replica{up: true, off: r.off, mode: cfg.rules.started(purge.Live, true), purge: purge.State{Self: n.fresh(i)}, tainted: true}
				return true
			})
		}
		if s.left.Backup > 0 && s.backOf == 0 && (s.left.Rollback > 0 || s.left.Restore > 0) {
			try(on("back up", i), func(n *state) bool {
				n.left.Backup--
				n.backOf, n.backup = uint8(i+1), *r
				return true
			})
		}
		if int(s.backOf) == i+1 && s.left.Rollback > 0 {
			try(on("put back an old disk of", i), func(n *state) bool {
				n.left.Rollback--
				cfg.putBack(n, i)
				n.reps[i].mode = cfg.rules.started(n.backup.mode, false)
				n.rolled = true
				n.nonce++
				n.backOf, n.backup = 0, replica{}
				return true
			})
		}
		if int(s.backOf) == i+1 && s.left.Restore > 0 {
			try(on("restore a backup of", i), func(n *state) bool {
				n.left.Restore--
				id := n.fresh(i)
				cfg.putBack(n, i)
				p := &n.reps[i].purge
				p.Self, p.Pairs = id, nil
				n.reps[i].mode = cfg.rules.started(n.backup.mode, true)
				n.backOf, n.backup = 0, replica{}
				return true
			})
		}
		if s.left.Clock > 0 {
			for _, off := range [...]int8{-clockOff, 0, clockOff} {
				if off != r.off {
					try(on("set the clock of", i).num(int(off+clockOff)), func(n *state) bool {
						n.left.Clock--
						n.reps[i].off = off
						return true
					})
				}
			}
		}
	}
	if s.cut != 0 {
		try(on("heal the link"), func(n *state) bool {
			n.cut = 0
			return true
		})
		return
	}
	if s.left.Isolate > 0 {
		for i := range nodes {
			try(on("isolate", i), func(n *state) bool {
				n.left.Isolate--
				n.cut = alone(i)
				return true
			})
		}
	}
	if s.left.Cut > 0 {
		for i := range nodes {
			for j := i + 1; j < nodes; j++ {
				try(on("cut the link", i, j), func(n *state) bool {
					n.left.Cut--
					n.cut = pairOf(i, j)
					return true
				})
			}
		}
	}
}

// putBack replaces what a node has by its backup.
func (cfg *Scenario) putBack(s *state, i int) {
	s.stop(i)
	s.lose(i, s.backup.knows)
	off := s.reps[i].off
	s.reps[i] = s.backup
	s.reps[i].up, s.reps[i].off, s.reps[i].tainted = true, off, true
}

// lose takes note that a disk has only these writes of all that it acknowledged.
func (s *state) lose(i int, has uint8) {
	for id := uint8(1); id <= s.nWrites; id++ {
		if has&(1<<(id-1)) == 0 {
			s.write(id).disks &^= 1 << i
		}
	}
}
