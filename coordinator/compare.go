package coordinator

import (
	"bytes"
	"slices"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// Answered reports a replica's answer. One that does not fit the question counts
// as a failure of the replica.
func (r *Read) Answered(a Ask, ans ReadAnswer) {
	if !r.close(a) {
		return
	}
	a = r.asks[a.id]
	if !r.fits(a, ans) {
		r.failed(a, errMisfit)
		return
	}
	for n, i := range a.Full {
		if n >= len(ans.Entries) {
			r.prefix = min(r.prefix, i)
			break // the others are further back
		}
		if s := r.slot(i, a.To, true); s != nil {
			s.waiting, s.found, s.entry, s.sum = false, ans.Entries[n].OK, ans.Entries[n].Entry, merkle.Sum{}
		}
	}
	for n, i := range a.Digest {
		if s := r.slot(i, a.To, false); s != nil {
			s.waiting, s.found, s.sum = false, ans.Digests[n].OK, ans.Digests[n].Sum
		}
	}
	for _, i := range a.Full {
		r.judge(i)
	}
	for _, i := range a.Digest {
		r.judge(i)
	}
	r.send()
	r.settle()
}

// Failed reports that a replica did not answer. Another one is asked in its
// place.
func (r *Read) Failed(a Ask, err error) {
	if r.close(a) {
		r.failed(r.asks[a.id], err)
	}
}

func (r *Read) failed(a Ask, err error) {
	for _, i := range a.Full {
		r.replace(i, a.To, true, err)
	}
	for _, i := range a.Digest {
		r.replace(i, a.To, false, err)
	}
	r.send()
	r.settle()
}

func (r *Read) close(a Ask) bool {
	if a.id < 0 || a.id >= len(r.asks) || r.asks[a.id].To != a.To || !r.open[a.id] {
		return false
	}
	r.open[a.id] = false
	return !r.done && !r.settled
}

// fits reports whether an answer has the form that the question asks for. The
// keys are compared: an answer about another key would be merged, given to the
// client and spread.
func (r *Read) fits(a Ask, ans ReadAnswer) bool {
	if len(ans.Entries) > len(a.Full) || len(ans.Digests) != len(a.Digest) ||
		len(a.Full) > 0 && len(ans.Entries) == 0 {
		return false
	}
	for n, f := range ans.Entries {
		if f.OK && !bytes.Equal(f.Entry.Key, r.keys[a.Full[n]].key) {
			return false
		}
	}
	return true
}

// slot returns the slot of key i that waits for a replica's entry, or its digest. A
// replica that was given up and asked again may still answer the first question,
// and a digest in place of an entry would be taken for one that is older than any.
func (r *Read) slot(i int, from hlc.NodeID, full bool) *slot {
	for n := range r.keys[i].slots {
		if s := &r.keys[i].slots[n]; s.node == from && s.waiting && s.full == full {
			return s
		}
	}
	return nil
}

// replace gives a slot to a replica that has not been asked about the key.
func (r *Read) replace(i int, failed hlc.NodeID, full bool, err error) {
	s := r.slot(i, failed, full)
	if s == nil || i >= r.prefix {
		return
	}
	k := &r.keys[i]
	k.failed = append(k.failed, failed)
	node, ok := r.candidate(k)
	switch {
	case !ok && len(k.slots) > k.need: // another one was asked as well
		k.slots = slices.DeleteFunc(k.slots, func(o slot) bool { return o.node == failed })
		r.judge(i)
		return
	case !ok:
		r.fail(r.unavailable(k, err))
		return
	}
	*s = slot{node: node, full: s.full, waiting: true}
	r.queue = append(r.queue, question{node, i, s.full})
}

// judge compares the answers about key i when all are there. Entries whose
// digests are of nothing seen yet are fetched; if there are none the newest is
// the answer.
func (r *Read) judge(i int) {
	k := &r.keys[i]
	if k.complete || i >= r.prefix {
		return
	}
	answers := 0
	for n := range k.slots {
		if !k.slots[n].waiting {
			answers++
		}
	}
	if answers < k.need {
		return
	}
	// Who was slow, and was asked beside others, is not waited for.
	k.slots = slices.DeleteFunc(k.slots, func(s slot) bool { return s.waiting })
	fetch := false
	for n := range k.slots {
		if s := &k.slots[n]; !s.full && s.found && !r.seen(k, s.sum) {
			s.full, s.waiting = true, true
			r.queue = append(r.queue, question{s.node, i, true})
			fetch = true
		}
	}
	if fetch {
		return
	}
	k.complete = true
	for n := range k.slots {
		switch s := &k.slots[n]; {
		case !s.full || !s.found:
		case !k.found:
			k.entry, k.found = s.entry, true
		default:
			k.entry = lww.Merge(k.entry, s.entry)
		}
	}
}

// seen reports whether an entry with that digest was answered in full.
func (r *Read) seen(k *reading, sum merkle.Sum) bool {
	for n := range k.slots {
		if s := &k.slots[n]; s.full && !s.waiting && s.found && r.sum(s) == sum {
			return true
		}
	}
	return false
}

// sum returns the digest of an entry that was answered in full. It is computed
// when it is first needed, which in a read of one replica is never.
func (r *Read) sum(s *slot) merkle.Sum {
	if s.sum == (merkle.Sum{}) {
		s.sum = r.hash(s.entry)
	}
	return s.sum
}

// settle ends the reading when every key up to the prefix is complete, and
// queues the repairs.
func (r *Read) settle() {
	for i := range r.keys[:r.prefix] {
		if !r.keys[i].complete {
			return
		}
	}
	r.settled = true
	var repairs []item
	for i := range r.keys[:r.prefix] {
		k := &r.keys[i]
		if !k.found || len(k.slots) == 1 {
			continue
		}
		for n := range k.slots {
			if s := &k.slots[n]; r.stale(k, s) {
				repairs = append(repairs, item{s.node, i, &k.entry})
			}
		}
	}
	r.repairs.addGrouped(0, repairs)
	r.done = len(repairs) == 0
}

// stale reports whether the replica of a slot holds something older than the
// answer, or nothing.
func (r *Read) stale(k *reading, s *slot) bool {
	switch {
	case !s.found:
		return true
	case s.full:
		return lww.Compare(s.entry, k.entry) < 0
	}
	// The digest is of some entry that was answered in full: of the answer?
	for n := range k.slots {
		if o := &k.slots[n]; o.full && o.found && r.sum(o) == s.sum && lww.Compare(o.entry, k.entry) == 0 {
			return false
		}
	}
	return true
}
