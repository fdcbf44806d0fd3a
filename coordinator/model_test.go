package coordinator

import (
	"errors"
	"fmt"
	"slices"

	"syntropy/hlc"
	"syntropy/lww"
)

// A random request on a random cluster, its messages delivered, lost, repeated
// and reordered at random, and the promises checked against replicas that simply
// keep the greatest entry they were given. The same run serves to show that the
// checks catch mistakes: each is planted between the request and its messages.

// mistake is what is planted.
type mistake int

const (
	noMistake mistake = iota
	// countOldAttempt takes a replica's answer to an earlier attempt for one to
	// the present attempt.
	countOldAttempt
	// shadowIsFine reports shadowed entries as applied.
	shadowIsFine
	// silenceIsFine reports lost messages as applied.
	silenceIsFine
	// loseHint drops hints.
	loseHint
	// hintFirstAttempt keeps the entry that was sent first.
	hintFirstAttempt
	// repairBackwards sends repairs with what the stale replica holds.
	repairBackwards
	// readOne reads at level one what is to be read at a higher one.
	readOne

	mistakes
)

// run is one random write and the reads after it.
type run struct {
	pick    func(n int) int // one of n
	planted mistake

	nodes    int
	shards   [][]hlc.NodeID
	replicas map[hlc.NodeID]replica
	down     map[hlc.NodeID]bool
	clock    manualClock
	ms       []Mutation

	w       *Write
	flights []Send
	stale   []Send            // already reported on
	sent    map[int]lww.Entry // by mutation: as it was last sent
	first   map[int]lww.Entry // by mutation: as it was first sent
	attempt map[int]int
	answers map[int][]Answer // by mutation: to the last attempt, before it was decided
	settled map[hint]bool    // who answered to the last attempt
	hints   map[hint]lww.Entry
}

// hint names a replica of a mutation's key.
type hint struct {
	index int
	node  hlc.NodeID
}

func (r *run) chance(of int) bool { return r.pick(of) == 0 }

func (r *run) key(i int) []byte {
	return []byte{byte('a' + i%len(r.shards)), byte('0' + i/len(r.shards))}
}

func (r *run) place() Placement {
	return Placement{Self: 1,
		Shard:    func(key []byte) int { return int(key[0] - 'a') },
		Replicas: func(shard int) []hlc.NodeID { return r.shards[shard] },
		May:      func(id hlc.NodeID) bool { return !r.down[id] },
	}
}

func (r *run) entry(key []byte) lww.Entry {
	e := value(string(key), string(rune('p'+r.pick(3))), hlc.Stamp(80+r.pick(60)), hlc.NodeID(2+r.pick(3)))
	if r.chance(8) {
		e.Stamp = 1000 // beyond the bound
	}
	if r.chance(3) {
		e.Tombstone, e.Value = true, nil
	} else if r.chance(3) {
		e.Expires, e.ExpiryStamp, e.ExpiryNode = 9000, e.Stamp+hlc.Stamp(r.pick(30)), 3
	}
	return e
}

func (r *run) setUp() {
	r.nodes = 1 + r.pick(5)
	r.replicas, r.down = make(map[hlc.NodeID]replica), make(map[hlc.NodeID]bool)
	r.sent, r.first, r.attempt = make(map[int]lww.Entry), make(map[int]lww.Entry), make(map[int]int)
	r.answers, r.settled, r.hints = make(map[int][]Answer), make(map[hint]bool), make(map[hint]lww.Entry)
	for n := range r.nodes {
		r.replicas[hlc.NodeID(n+1)] = replica{}
	}
	for range 1 + r.pick(3) {
		var all, shard []hlc.NodeID
		for n := range r.nodes {
			all = append(all, hlc.NodeID(n+1))
		}
		for range 1 + r.pick(min(4, r.nodes)) {
			n := r.pick(len(all))
			shard = append(shard, all[n])
			all = slices.Delete(all, n, n+1)
		}
		r.shards = append(r.shards, shard)
	}
	r.clock = manualClock{wall: hlc.Stamp(80 + r.pick(60)), bound: 100}
	for i := range 1 + r.pick(4) {
		key := r.key(i)
		shard := r.shards[int(key[0]-'a')]
		for range r.pick(3) {
			e := r.entry(key)
			for _, id := range shard {
				if !r.chance(3) {
					r.replicas[id].applyOne(e)
				}
			}
		}
		m := Mutation{Kind: Kind(r.pick(3)), Key: key}
		switch m.Kind {
		case Put:
			m.Value, m.Expires = []byte("new"), int64(r.pick(2)*7000)
		case Touch:
			m.Base, m.Expires = r.replicas[shard[r.pick(len(shard))]][string(key)], int64(r.pick(2)*7000)
		}
		if m.Kind == Touch && (m.Base.Key == nil || m.Base.Tombstone) {
			m = Mutation{Kind: Delete, Key: key}
		}
		r.ms = append(r.ms, m)
	}
	for n := range r.nodes {
		r.down[hlc.NodeID(n+1)] = r.chance(8)
	}
}

// write runs the write to its end and checks it.
func (r *run) write(level Level) error {
	var err error
	r.w, err = NewWrite(r.place(), &r.clock, level, r.ms)
	var unavailable *UnavailableError
	switch {
	case errors.As(err, &unavailable):
		up := len(unavailable.Replicas) - len(unavailable.Down)
		if up >= unavailable.Need || unavailable.Need != level.Of(len(unavailable.Replicas)) {
			return fmt.Errorf("unavailable without need: %v", err)
		}
		r.w = nil
		return nil
	case err != nil:
		var ahead *hlc.AheadError
		if !errors.As(err, &ahead) {
			return err
		}
		r.w = nil
		return nil
	}
	told := false
	for !r.w.Finished() {
		r.collect()
		if err := r.step(); err != nil {
			return err
		}
		r.collect()
		if done, err := r.w.Done(); done && !told {
			told = true
			if err == nil {
				err = r.checkOK(level)
			} else {
				err = r.checkError(err)
			}
			if err != nil {
				return err
			}
		}
	}
	r.collect()
	return r.checkHints()
}

func (r *run) collect() {
	for _, s := range r.w.Sends() {
		r.flights = append(r.flights, s)
		for n, i := range s.Index {
			if r.attempt[i] != s.Attempt {
				r.attempt[i], r.answers[i] = s.Attempt, nil
				for _, id := range r.shards[int(r.ms[i].Key[0]-'a')] {
					delete(r.settled, hint{i, id})
				}
			}
			if _, ok := r.first[i]; !ok {
				r.first[i] = s.Entries[n]
			}
			r.sent[i] = s.Entries[n]
		}
	}
	for _, h := range r.w.Hints() {
		for n, i := range h.Index {
			at := hint{i, h.To}
			if _, twice := r.hints[at]; twice {
				h.Entries = slices.Clone(h.Entries)
				h.Entries[n].Stamp = 0 // found by checkHints
			}
			r.hints[at] = h.Entries[n]
			if r.planted == loseHint {
				delete(r.hints, at)
			}
			if r.planted == hintFirstAttempt {
				r.hints[at] = r.first[i]
			}
		}
	}
}

// step lets one thing happen.
func (r *run) step() error {
	switch {
	case len(r.flights) == 0:
		return errors.New("the request is not finished, and there is nothing to wait for")
	case r.chance(12) && len(r.stale) > 0: // said again, or too late
		s := r.stale[r.pick(len(r.stale))]
		if r.chance(2) {
			r.w.Failed(s, errLost)
		} else {
			r.w.Answered(s, make([]Answer, len(s.Entries)))
		}
		return nil
	case r.chance(12): // another client
		id := hlc.NodeID(1 + r.pick(r.nodes))
		key := r.ms[r.pick(len(r.ms))].Key
		if slices.Contains(r.shards[int(key[0]-'a')], id) {
			r.replicas[id].applyOne(r.entry(key))
		}
		return nil
	case r.chance(12):
		id := hlc.NodeID(1 + r.pick(r.nodes))
		r.down[id] = !r.down[id]
		return nil
	case r.chance(30):
		r.w.Expire()
		r.stale, r.flights = append(r.stale, r.flights...), nil
		return nil
	}
	n := r.pick(len(r.flights))
	s := r.flights[n]
	r.flights = slices.Delete(r.flights, n, n+1)
	r.stale = append(r.stale, s)
	var answers []Answer
	switch r.pick(8) {
	case 0:
		if r.planted != silenceIsFine {
			r.w.Failed(s, errLost)
			return nil
		}
		answers = make([]Answer, len(s.Entries))
	case 1:
		r.replicas[s.To].apply(s)
		r.w.Failed(s, errLost)
		return nil
	case 2:
		answers = r.replicas[s.To].apply(s)
		answers[r.pick(len(answers))] = Answer{Outcome: Rejected, Reason: "by chance"}
	default:
		answers = r.replicas[s.To].apply(s)
	}
	r.hear(s, answers)
	return nil
}

// hear passes answers on and takes note of them.
func (r *run) hear(s Send, answers []Answer) {
	for n, i := range s.Index {
		if s.Attempt == r.attempt[i] {
			r.settled[hint{i, s.To}] = true
			if answers[n].Outcome != Rejected {
				r.answers[i] = append(r.answers[i], answers[n])
			}
		}
	}
	switch r.planted {
	case shadowIsFine:
		answers = make([]Answer, len(answers))
	case countOldAttempt:
		for _, newer := range r.flights {
			if newer.To == s.To && slices.Equal(newer.Index, s.Index) && newer.Attempt > s.Attempt {
				r.w.Answered(newer, answers)
			}
		}
	}
	r.w.Answered(s, answers)
}

func (r *run) checkOK(level Level) error {
	for i, result := range r.w.Results() {
		shard := r.shards[int(r.ms[i].Key[0]-'a')]
		need := level.Of(len(shard))
		if len(r.answers[i]) < need {
			return fmt.Errorf("OK for %q after %d answers, %d are needed", r.ms[i].Key, len(r.answers[i]), need)
		}
		beaten, gone := false, false
		for _, a := range r.answers[i][:need] {
			beaten = beaten || a.Outcome == Shadowed
			gone = gone || a.Outcome == Shadowed && (a.Version.Stamp != r.sent[i].Stamp || a.Version.Node != r.sent[i].Node ||
				a.Version.Tombstone || a.Version.ExpiryStamp <= r.sent[i].ExpiryStamp)
		}
		if result == Superseded {
			if r.ms[i].Kind != Touch || !gone {
				return fmt.Errorf("%v of %q is superseded by nothing: %+v", r.ms[i].Kind, r.ms[i].Key, r.answers[i])
			}
			continue
		}
		if beaten {
			return fmt.Errorf("OK for %q, which is shadowed in an answer that counts", r.ms[i].Key)
		}
		holding := 0
		for _, id := range shard {
			if held, ok := r.replicas[id][string(r.ms[i].Key)]; ok && lww.Compare(held, r.sent[i]) >= 0 {
				holding++
			}
		}
		if holding < need {
			return fmt.Errorf("OK for %q, which is held by %d replicas of %d needed", r.ms[i].Key, holding, need)
		}
	}
	return nil
}

func (r *run) checkError(err error) error {
	var unknown *UnknownError
	var shadowed *ShadowedError
	switch {
	case errors.As(err, &unknown):
		if unknown.Got >= unknown.Need {
			return fmt.Errorf("unknown though confirmed: %w", err)
		}
	case errors.As(err, &shadowed):
		if shadowed.Theirs.Stamp < r.clock.wall && shadowed.Theirs.Newest() <= shadowed.Ours.Newest() {
			return fmt.Errorf("lost to an older version: %w", err)
		}
	default:
		return fmt.Errorf("an error of no kind: %w", err)
	}
	return nil
}

// checkHints: whoever did not answer to the last attempt, and nobody else, is
// owed that attempt's entry, unless it is known to have lost.
func (r *run) checkHints() error {
	_, failed := r.w.Done()
	for i := range r.ms {
		shard := r.shards[int(r.ms[i].Key[0]-'a')]
		lost := failed == nil && r.w.Results()[i] == Superseded
		if failed != nil {
			lost = r.w.entries[i].beaten
		}
		for _, id := range shard {
			e, hinted := r.hints[hint{i, id}]
			switch due := !lost && !r.settled[hint{i, id}]; {
			case hinted && !due:
				return fmt.Errorf("a hint for %v about %q, which is not due", id, r.ms[i].Key)
			case !hinted && due:
				return fmt.Errorf("no hint for %v about %q", id, r.ms[i].Key)
			case hinted && !equal(e, r.sent[i]):
				return fmt.Errorf("the hint for %v is %s, last sent was %s", id, entryText(e), entryText(r.sent[i]))
			}
		}
	}
	return nil
}
