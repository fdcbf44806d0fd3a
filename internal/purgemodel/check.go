package purgemodel

import (
	"fmt"

	"syntropy/purge"
)

// protected reports whether a write must be upheld: it was acknowledged, and a disk that
// acknowledged it has it still. Where a disk went back in time and nothing said so, it is
// as if that disk had never acknowledged it, and two others must know it: no quorum could
// do better.
func (s *state) protected(id uint8) bool {
	w := s.write(id)
	if !w.acked || w.disks == 0 {
		return false
	}
	return !s.rolled || s.holders(id) >= quorum
}

// holders counts the replicas that have, or had, a write.
func (s *state) holders(id uint8) (n int) {
	for i := range s.reps {
		n += int(s.reps[i].knows >> (id - 1) & 1)
	}
	return n
}

// newest returns the last write of a key that was issued, 0 if there is none.
func (s *state) newest(key int) (id uint8) {
	for o := uint8(1); o <= s.nWrites; o++ {
		if int(s.write(o).key) == key && s.newer(o, id) {
			id = o
		}
	}
	return id
}

// wrong returns what is wrong with a state, "" if nothing is.
func (cfg *Scenario) wrong(s *state) string {
	if s.bad != "" {
		return s.bad
	}
	for k := range cfg.Keys {
		for _, check := range [...]func(*state, int) string{cutsAreTrue, cfg.readsAreTrue, nothingIsLost} {
			if bad := check(s, k); bad != "" {
				return bad
			}
		}
	}
	return purgesDoNotShow(s)
}

// cutsAreTrue: no replica that has not been told to rebuild holds, as data that readers
// could see, what an acknowledged delete at or under its cut has deleted; nor what any
// delete has deleted that some replica has purged.
func cutsAreTrue(s *state, k int) string {
	for x := uint8(1); x <= s.nWrites; x++ {
		w := s.write(x)
		if int(w.key) != k || !w.dead(s.now) {
			continue
		}
		at, _ := purge.CoverStamp(w.version())
		if !s.protected(x) && !(w.purged && !s.rolled) {
			continue
		}
		for i := range s.reps {
			r := &s.reps[i]
			h := r.ent[k].id
			if r.mode != purge.Condemned && at <= r.purge.Cut.At && h != 0 && s.newer(x, h) && !s.write(h).dead(s.now) {
				return fmt.Sprintf("cut: replica %d has purged up to a cut over write %d, and holds write %d, which that deleted", i, x, h)
			}
		}
	}
	return ""
}

// readsAreTrue (I2, and R+W>N): a read at quorum answers the newest write if that was
// acknowledged, or nothing.
func (cfg *Scenario) readsAreTrue(s *state, k int) string {
	top := s.newest(k)
	if top == 0 || !s.protected(top) || s.quar&(1<<(top-1)) != 0 {
		return ""
	}
	for i := range nodes {
		for j := range i {
			if !s.serves(i) || !s.serves(j) {
				continue
			}
			ids := [2]uint8{s.reps[i].ent[k].id, s.reps[j].ent[k].id}
			r := [2]purge.Reply{s.replyOf(ids[0], s.reps[i].purge.Cut.At), s.replyOf(ids[1], s.reps[j].purge.Cut.At)}
			best := 0
			if s.newer(ids[1], ids[0]) {
				best = 1
			}
			answer := ids[best]
			if ids[0] != ids[1] && answer != 0 && !s.write(answer).dead(s.now) && !cfg.rules.judge(r[best], []purge.Reply{r[1-best]}) {
				continue // withheld
			}
			switch {
			case s.write(top).dead(s.now) && answer != 0 && !s.write(answer).dead(s.now):
				return fmt.Sprintf("I2: a read of replicas %d and %d answers write %d, which write %d deleted", i, j, answer, top)
			case !s.write(top).dead(s.now) && answer != top:
				return fmt.Sprintf("I1: a read of replicas %d and %d answers write %d, not write %d, which was acknowledged", i, j, answer, top)
			}
		}
	}
	return ""
}

// nothingIsLost (I1): an acknowledged value that nothing has replaced is on some disk or
// in quarantine.
func nothingIsLost(s *state, k int) string {
	top := s.newest(k)
	if top == 0 || !s.protected(top) || s.write(top).dead(s.now) || s.quar&(1<<(top-1)) != 0 {
		return ""
	}
	for i := range s.reps {
		if s.reps[i].ent[k].id == top {
			return ""
		}
	}
	return fmt.Sprintf("I1: nobody has write %d, which was acknowledged", top)
}

// purgesDoNotShow (I3): replicas that know the same writes and have the same cut, and no
// exceptions to it, hold the same, whenever each of them purged.
func purgesDoNotShow(s *state) string {
	for i := range nodes {
		for j := range i {
			a, b := &s.reps[i], &s.reps[j]
			if a.mode != purge.Live || b.mode != purge.Live || a.purge.Cut.At != b.purge.Cut.At || a.knows != b.knows || s.exceptions(i) || s.exceptions(j) {
				continue
			}
			for k := range a.ent {
				if a.ent[k].id != b.ent[k].id {
					return fmt.Sprintf("I3: replicas %d and %d know the same and have the same cut, and differ in key %d", j, i, k)
				}
			}
		}
	}
	return ""
}

func (s *state) exceptions(i int) bool {
	r := &s.reps[i]
	for _, h := range r.ent {
		if h.id != 0 {
			if at, ok := purge.CoverStamp(s.write(h.id).version()); ok && at <= r.purge.Cut.At {
				return true
			}
		}
	}
	return false
}

// closureRounds is in how many rounds of sessions replicas must agree, and purge.
const closureRounds = 8

// closes runs a state to its end without failures, and returns what is wrong then. First
// no time passes: all replicas must go live and agree. Then it does, and each delete must
// be purged everywhere.
func (cfg *Scenario) closes(from *state) string {
	n := *from
	s := &n
	s.cut, s.nMsgs, s.msgs, s.read, s.slow = 0, 0, [2]message{}, reading{}, [2]session{}
	for i := range s.reps {
		if !s.reps[i].up {
			s.reps[i].up = true
			s.reps[i].mode = cfg.rules.started(s.reps[i].mode, false)
		}
		s.reps[i].off = 0
	}
	s.contact()
	for range closureRounds {
		cfg.round(s)
	}
	if s.bad != "" {
		return "closure: " + s.bad
	}
	live := 0
	for i := range s.reps {
		if s.reps[i].mode != purge.Condemned {
			live++
		}
	}
	if live == 0 {
		return "" // nobody is left to build from: for the operator to say
	}
	if bad := s.agree(); bad != "" {
		return "closure: " + bad
	}
	if bad := cfg.wrong(s); bad != "" {
		return "closure: " + bad
	}
	pause := int(cfg.Limits.Grace/tick) + int(cfg.Limits.Arrival()/tick) + 1
	for range closureRounds {
		s.now += pause
		cfg.round(s)
		for i := range nodes {
			cfg.raise(s, i)
		}
		cfg.round(s)
		if bad := cfg.wrong(s); bad != "" {
			return "closure: " + bad
		}
	}
	if bad := s.agree(); bad != "" {
		return "closure: " + bad
	}
	for i := range s.reps {
		for _, h := range s.reps[i].ent {
			if h.id != 0 && s.write(h.id).dead(s.now) {
				return fmt.Sprintf("closure: replica %d still holds the delete %d", i, h.id)
			}
		}
	}
	return ""
}

func (cfg *Scenario) round(s *state) {
	for i := range nodes {
		for j := range nodes {
			if i != j {
				cfg.check(s, i, j)
			}
		}
	}
	for i := range nodes {
		for j := range i {
			cfg.meet(s, i, j)
			cfg.rebuild(s, i, j)
			cfg.rebuild(s, j, i)
			cfg.session(s, i, j, -1, 0)
			s.contact()
		}
	}
}

// agree returns what keeps the replicas from being equal and all live.
func (s *state) agree() string {
	for i := range nodes {
		a, b := &s.reps[0], &s.reps[i]
		switch {
		case b.mode != purge.Live:
			return fmt.Sprintf("replica %d stays %v", i, b.mode)
		case a.purge.Cut.At != b.purge.Cut.At:
			return fmt.Sprintf("replicas 0 and %d have different cuts", i)
		}
		for k := range a.ent {
			if a.ent[k].id != b.ent[k].id {
				return fmt.Sprintf("replicas 0 and %d differ in key %d", i, k)
			}
		}
	}
	return ""
}
