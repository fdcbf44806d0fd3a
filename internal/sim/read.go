package sim

import (
	"errors"
	"time"

	"syntropy/coordinator"
	"syntropy/lww"
	"syntropy/merkle"
)

// reading is a quorum read that this node coordinates.
type reading struct {
	request
	r      *coordinator.Read
	key    []byte
	before lww.Entry // what a quorum had when it began
	failed bool      // a repair was not carried out
	open   int       // repairs under way
	then   func(e lww.Entry, found bool)
}

// look reads a key at a quorum.
func (n *node) look(key string) { n.read(key, nil) }

// touch sets or removes the expiry of what a quorum read finds, and reads again
// if that was replaced meanwhile.
func (n *node) touch(key string, tries int) {
	n.read(key, func(e lww.Entry, found bool) {
		if !found || !e.Live(n.wall()) {
			return
		}
		m := coordinator.Mutation{Kind: coordinator.Touch, Key: e.Key, Base: e.Clone()}
		if n.chance(0.7) {
			m.Expires = n.wall().Add(n.between(time.Minute, time.Hour)).UnixMilli()
		}
		n.write([]coordinator.Mutation{n.opts.Bug.touch(m)}, func(results []coordinator.Result) {
			if results[0] == coordinator.Superseded && tries > 1 {
				n.touch(key, tries-1)
			}
		})
	})
}

func (n *node) read(key string, then func(e lww.Entry, found bool)) {
	if !n.up {
		n.result.Refused++
		return
	}
	k := []byte(key)
	before := n.oracle.floors([][]byte{k})[0]
	hash := func(e lww.Entry) merkle.Sum { return n.store.Sum(e) }
	cr, err := coordinator.NewRead(n.placement(), hash, coordinator.Quorum, [][]byte{k})
	if err != nil {
		n.log("n%d refuses a read: %v", n.id, err)
		n.result.Refused++
		return
	}
	r := &reading{request: n.request(), r: cr, key: k, before: before, then: then}
	r.pump()
	n.after(n.between(0, deadline), func() {
		if r.alive() && !r.told {
			r.r.Hurry()
			r.pump()
		}
	})
	n.after(deadline, func() {
		if r.alive() && !r.told {
			r.r.Expire()
			r.pump()
		}
	})
}

// pump does what the request asks for, and answers the client once it is done.
func (r *reading) pump() {
	for _, a := range r.r.Asks() {
		r.ask(a)
	}
	for _, s := range r.r.Repairs() {
		r.repair(s)
	}
	done, err := r.r.Done()
	if !done || r.told {
		return
	}
	r.told = true
	if err != nil {
		r.log("n%d cannot read %s: %v", r.id, r.key, err)
		r.result.Refused++
		return
	}
	e, found := r.r.Entry(0)
	agreed := !r.failed && r.open == 0
	r.log("n%d reads %s: found %v, agreed %v", r.id, describe(e), found, agreed)
	r.result.Reads++
	r.checkRead(r.key, e, found, r.before, agreed)
	if found && agreed {
		r.oracle.agreed(e)
	}
	if r.then != nil {
		r.then(e, found)
	}
}

func (r *reading) ask(a coordinator.Ask) {
	to := r.nodes[a.To-1]
	r.carry(to, "a read of "+string(r.key), func() func() {
		answer := to.answerRead(r.key, a)
		return func() {
			r.r.Answered(a, answer)
			r.pump()
		}
	}, func() {
		r.r.Failed(a, errDown)
		r.pump()
	})
}

func (n *node) answerRead(key []byte, a coordinator.Ask) (ans coordinator.ReadAnswer) {
	e, found, err := n.store.Get(key)
	if err != nil {
		n.fail("n%d cannot read %s: %v", n.id, key, err)
	}
	for range a.Full {
		ans.Entries = append(ans.Entries, coordinator.Found{Entry: e, OK: found})
	}
	for range a.Digest {
		d := coordinator.DigestAnswer{OK: found}
		if found {
			d.Sum = n.store.Sum(e)
		}
		ans.Digests = append(ans.Digests, d)
	}
	return ans
}

var errRefused = errors.New("the replica refuses the repair")

func (r *reading) repair(s coordinator.Send) {
	to := r.nodes[s.To-1]
	r.open++
	repaired := func(err error) {
		r.open--
		r.failed = r.failed || err != nil
		r.r.Repaired(s, err)
		r.pump()
	}
	first := true // a duplicate of the answer is not another repair
	r.carry(to, describeAll("repair", s.Entries), func() func() {
		err := to.takeRepair(r.opts.Bug.repair(to, s.Entries))
		return func() {
			if first {
				first = false
				repaired(err)
			}
		}
	}, func() { repaired(errDown) })
}

// takeRepair takes entries that a quorum read found missing here.
func (n *node) takeRepair(entries []lww.Entry) error {
	for _, e := range entries {
		if err := n.clock.Observe(e.Newest(), n.wall()); err != nil {
			n.log("n%d refuses a repair: %v", n.id, err)
			return errRefused
		}
		n.result.Repaired++
		n.apply([]lww.Entry{e})
	}
	return nil
}
