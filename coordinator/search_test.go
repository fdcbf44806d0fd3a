package coordinator

import (
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"testing"

	"syntropy/lww"
)

// search visits the states below one and adds up their schedules.
type search struct {
	seen map[string]*big.Int
	path []string
	err  error
	// What the ends were, so that a search that misses the point is noticed.
	ends, written, repeated, acknowledged, unknown int
}

func (v *search) visit(s *race) *big.Int {
	key := s.fingerprint()
	if n, ok := v.seen[key]; ok {
		return n
	}
	total := new(big.Int)
	if !slices.ContainsFunc(s.flights, func(f flight) bool { return f.by != 'x' }) {
		// Nobody waits for what is still on its way: from here on it is lost. What
		// happens if some of it arrives is below.
		v.note(s)
		v.err = s.check()
		total.SetInt64(1)
	}
	for n, f := range s.flights {
		for _, what := range []step{lose, arrive, mute} {
			if f.by == 'x' && what != arrive || what == mute && (s.c.split || f.by == 'r') {
				continue // a loss changes nothing, or there is a step of its own for it
			}
			c := s.clone()
			c.take(n, what)
			v.path = append(v.path, stepText(f, what))
			total.Add(total, v.visit(c))
			if v.err != nil {
				return total
			}
			v.path = v.path[:len(v.path)-1]
		}
	}
	v.seen[key] = total
	return total
}

func stepText(f flight, what step) string {
	text := [...]string{"is lost", "arrives", "arrives, its answer is lost"}[what]
	if f.arrived {
		text = [...]string{"'s answer is lost", "'s answer arrives"}[what]
	}
	return fmt.Sprintf("%c to %v %s", f.by, f.to, text)
}

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (v *search) note(s *race) {
	v.ends++
	v.written += int(b2i(s.written))
	v.repeated += int(b2i(s.repeats > 0))
	v.acknowledged += int(b2i(s.acknowledged))
	v.unknown += int(b2i(!s.acknowledged))
}

// fingerprint tells states apart by everything that matters for what can still
// happen. TestFingerprintKnowsEveryField keeps it complete.
func (s *race) fingerprint() string {
	b := make([]byte, 0, 1<<9)
	for i := range s.replicas {
		b = appendVersion(b, s.replicas[i].Version)
	}
	for _, e := range s.hints {
		b = appendVersion(b, e.Version)
	}
	b = append(b, '|', b2i(s.reached), b2i(s.acknowledged), b2i(s.written), byte(s.repeats))
	b = appendWrite(b, s.del, s.delClock)
	b = appendWrite(b, s.touch, s.touchClock)
	if r := s.read; r != nil {
		k := &r.keys[0]
		b = append(b, '|', b2i(r.settled), byte(s.touchClock.last), b2i(k.complete))
		for _, id := range k.failed {
			b = append(b, byte(id))
		}
		for _, n := range k.slots {
			b = append(b, ',', byte(n.node), b2i(n.full), b2i(n.waiting), b2i(n.found))
			b = n.sum.Append(appendVersion(b, n.entry.Version))
		}
	}
	for i := range s.flights {
		f := &s.flights[i]
		b = append(b, '|', f.by, byte(f.to), b2i(f.arrived), byte(f.send.Attempt), byte(len(f.ask.Full)))
		for _, e := range f.send.Entries {
			b = appendVersion(b, e.Version)
		}
		for _, a := range f.applied {
			b = appendVersion(append(b, byte(a.Outcome)), a.Version)
		}
		for _, e := range f.found.Entries {
			b = appendVersion(append(b, b2i(e.OK)), e.Entry.Version)
		}
		for _, d := range f.found.Digests {
			b = d.Sum.Append(append(b, b2i(d.OK)))
		}
	}
	return string(b)
}

func appendWrite(b []byte, w *Write, clock manualClock) []byte {
	b = append(b, '|')
	if w == nil {
		return b
	}
	e := &w.entries[0]
	b = append(b, byte(clock.last), byte(w.attempt), byte(e.attempt), byte(e.attempts), byte(e.answers), byte(e.waiting), b2i(e.beaten), b2i(e.superseded))
	for _, t := range e.targets {
		b = append(b, byte(t.state))
	}
	return appendVersion(appendVersion(b, e.entry.Version), e.newest)
}

// appendVersion appends all that differs between the versions of this test: the
// stamps are below 256 and there is one value, of one expiry a stamp.
func appendVersion(b []byte, v lww.Version) []byte {
	return append(b, byte(v.Stamp), byte(v.Node), b2i(v.Tombstone), byte(v.ExpiryStamp), byte(v.ExpiryNode), b2i(v.Expires == 0))
}

// TestFingerprintKnowsEveryField: two states taken for one would hide what comes
// after the second. Whoever adds a field decides whether it tells states apart.
func TestFingerprintKnowsEveryField(t *testing.T) {
	for _, tc := range []struct {
		of     any
		fields int
	}{
		{Write{}, 10}, {pending{}, 14}, {target{}, 2}, {Read{}, 14}, {reading{}, 9}, {slot{}, 6},
		{race{}, 13}, {flight{}, 7}, {lww.Version{}, 6}, {Send{}, 5}, {Ask{}, 5}, {Answer{}, 3},
	} {
		if typ := reflect.TypeOf(tc.of); typ.NumField() != tc.fields {
			t.Errorf("%v has %d fields and not %d: does the fingerprint tell states apart by the new one?", typ, typ.NumField(), tc.fields)
		}
	}
}
