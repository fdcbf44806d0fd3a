package antientropy

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/ring"
	"syntropy/storage"
)

// The slow model: two maps compared key by key. A session must find exactly
// what the model finds, and do about each key what the model says.

// wanted is what the model says about one key that differs.
type wanted struct {
	action           Action
	initiator, other *lww.Entry
}

func bruteForce(a, b map[string]lww.Entry, settled hlc.Stamp) map[string]wanted {
	diff := make(map[string]wanted)
	for key := range union(a, b) {
		ea, inA := a[key]
		eb, inB := b[key]
		switch {
		case !inB:
			diff[key] = wanted{waitIf(ea.Stamp > settled, Push), &ea, nil}
		case !inA:
			diff[key] = wanted{waitIf(eb.Stamp > settled, Pull), nil, &eb}
		case !entriesEqual(ea, eb):
			action := Push
			if lww.Compare(ea, eb) < 0 {
				action = Pull
			}
			sameWrite := ea.Stamp == eb.Stamp && ea.Node == eb.Node && ea.Tombstone == eb.Tombstone
			at := max(ea.Stamp, eb.Stamp)
			if sameWrite && !bytes.Equal(ea.Value, eb.Value) {
				action = Exchange
			} else if sameWrite {
				at = max(ea.ExpiryStamp, eb.ExpiryStamp)
			}
			diff[key] = wanted{waitIf(at > settled, action), &ea, &eb}
		}
	}
	return diff
}

func union(a, b map[string]lww.Entry) map[string]bool {
	keys := make(map[string]bool)
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	return keys
}

func waitIf(young bool, action Action) Action {
	if young {
		return Wait
	}
	return action
}

// checkSession compares what a session did with what the model says, and the
// transcript with what may travel. Values are compared by their bytes, so they
// must be distinctive.
func checkSession(t tb, s *session, before [2]map[string]lww.Entry, r Report) {
	t.Helper()
	want := bruteForce(before[0], before[1], s.cfg.Now.Add(-s.cfg.Settle))
	found := make(map[string]Difference)
	for _, d := range s.found {
		if _, twice := found[string(d.Key)]; twice {
			t.Fatalf("key %q was found twice", d.Key)
		}
		found[string(d.Key)] = d
	}
	var travels, inFlight, pushes, pulls int
	for key, w := range want {
		d, ok := found[key]
		if !ok {
			t.Fatalf("the session missed %q: %+v", key, w)
		}
		if d.Action != w.action {
			t.Fatalf("%q: action %v, want %v (%s)", key, d.Action, w.action, d.Reason)
		}
		checkSide(t, key, d.Initiator, w.initiator)
		checkSide(t, key, d.Partner, w.other)
		switch w.action {
		case Wait:
			inFlight++
		case Exchange:
			pushes, pulls = pushes+1, pulls+1
		case Push:
			pushes++
		case Pull:
			pulls++
		}
	}
	travels = pushes + pulls
	if len(found) != len(want) {
		t.Fatalf("the session found %d keys, %d differ", len(found), len(want))
	}
	if r.InFlight != inFlight || r.Diverged != len(want)-inFlight {
		t.Fatalf("report %+v, want %d in flight, %d diverged", r, inFlight, len(want)-inFlight)
	}
	if s.cfg.DryRun {
		travels, pushes, pulls = 0, 0, 0
	}
	if r.Pushed != pushes || r.Pulled != pulls || len(s.appliedA)+len(s.appliedB) != travels {
		t.Fatalf("report %+v, %d entries travelled: want %d pushed, %d pulled", r, len(s.appliedA)+len(s.appliedB), pushes, pulls)
	}

	// Nothing but what differs is named, and of that only what travels is sent.
	transcript := new(bytes.Buffer)
	for _, m := range s.transcript {
		transcript.Write(m.bytes)
		transcript.WriteString("|||")
	}
	sent := make(map[string]bool)
	for _, e := range slices.Concat(s.appliedA, s.appliedB) {
		sent[string(e.Value)] = true
	}
	for key := range union(before[0], before[1]) {
		if _, differs := want[key]; !differs && bytes.Contains(transcript.Bytes(), []byte(key)) {
			t.Fatalf("key %q is the same on both sides but is in the transcript", key)
		}
		for _, side := range before {
			if v := side[key].Value; len(v) > 0 && !sent[string(v)] && bytes.Contains(transcript.Bytes(), v) {
				t.Fatalf("value %q of %q need not travel but is in the transcript", v, key)
			}
		}
	}
}

func checkSide(t tb, key string, got *Side, want *lww.Entry) {
	t.Helper()
	switch {
	case got == nil && want == nil:
	case got == nil || want == nil || got.Version != want.Version || got.ValueBytes >= 0 && got.ValueBytes != len(want.Value):
		t.Fatalf("%q: a side was reported as %+v, want %+v", key, got, want)
	}
}

// checks runs a property for n random cases unless the command line says how
// many, and for fewer with -short.
func checks(t *testing.T, n int, property func(*rapid.T)) {
	const name = "rapid.checks"
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if !given {
		if testing.Short() {
			n /= 10
		}
		old := flag.Lookup(name).Value.String()
		if err := flag.Set(name, strconv.Itoa(n)); err != nil {
			t.Fatal(err)
		}
		defer flag.Set(name, old)
	}
	rapid.Check(t, property)
}

// drawEntry draws a version of a key out of few stamps and values, so that ties
// are common.
func drawEntry(t *rapid.T, i int) lww.Entry {
	// The key is no prefix of another and no part of any value.
	e := lww.Entry{Key: fmt.Appendf(nil, "<key-%05d>", i)}
	e.Stamp = second(rapid.IntRange(1, 6).Draw(t, "stamp"))
	e.Node = hlc.NodeID(rapid.IntRange(1, 2).Draw(t, "node"))
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		e.Tombstone = true
	case 1:
		e.ExpiryStamp = e.Stamp.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "touched")) * time.Second)
		e.ExpiryNode = 1
		e.Expires = epoch.Time().UnixMilli() + int64(rapid.IntRange(0, 1).Draw(t, "expires"))*1000
	}
	if !e.Tombstone {
		// Some values are larger than their version, so that answers are cut
		// short among the entries too.
		n := rapid.IntRange(0, 3).Draw(t, "value")
		e.Value = fmt.Appendf(nil, "[value-%05d-%d%s]", i, n, strings.Repeat(".", n/2*150))
	}
	return e
}

func drawReplicas(t *rapid.T) (a, b replica) {
	shards := rapid.SampledFrom([]int{1, 4, 16}).Draw(t, "shards")
	if rapid.Bool().Draw(t, "real store") {
		for _, r := range []*replica{&a, &b} {
			*r = newStore(t, storage.Options{Shards: shards, LeafKeys: rapid.IntRange(1, 8).Draw(t, "leaf keys")})
		}
		return a, b
	}
	// Tokens out of a small space, some of them all the same: colliding and
	// neighbouring at any level, and at both ends of the range.
	mask := rapid.SampledFrom([]ring.Token{0, 1, 0xf, 0xff, 0xf0000000000000f, ring.MaxToken}).Draw(t, "token mask")
	base := rapid.SampledFrom([]ring.Token{0, ring.MaxToken}).Draw(t, "token base")
	real := ring.NewTokens(testSecret)
	of := func(key []byte) ring.Token { return base&^mask | real.Of(key)&mask }
	leaf := func() int { return rapid.IntRange(0, 8).Draw(t, "leaf bits") }
	return newMap(shards, leaf(), of), newMap(shards, leaf(), of)
}

func TestASessionFindsExactlyWhatDiffers(t *testing.T) {
	checks(t, 2500, func(t *rapid.T) {
		a, b := drawReplicas(t)
		keys := rapid.IntRange(0, 60).Draw(t, "keys")
		// From "nearly everything agrees" to "hardly anything".
		differing := rapid.IntRange(0, 4).Draw(t, "differing")
		for i := range keys {
			e := drawEntry(t, i)
			if rapid.IntRange(0, 4).Draw(t, "agree") >= differing {
				mustApply(t, a, e)
				mustApply(t, b, e)
				continue
			}
			side := rapid.IntRange(0, 3).Draw(t, "where")
			if side != 1 {
				mustApply(t, a, e)
			}
			if side == 1 || side == 3 {
				mustApply(t, b, e)
			}
			if side >= 2 {
				mustApply(t, b, drawEntry(t, i))
			}
		}
		s := session{
			a: a, b: b,
			cfg: Config{
				Now:          second(10),
				Settle:       time.Duration(rapid.SampledFrom([]int{0, 0, 5, 7}).Draw(t, "settle")) * time.Second,
				Expected:     rapid.SampledFrom([]int{0, 0, 1, 10, 1000}).Draw(t, "expected"),
				Textbook:     rapid.IntRange(0, 9).Draw(t, "textbook") == 0,
				MessageBytes: rapid.SampledFrom([]int{0, 1, 100, 1000}).Draw(t, "message bytes"),
				DryRun:       rapid.IntRange(0, 9).Draw(t, "dry run") == 0,
			},
			partnerBytes: rapid.SampledFrom([]int{0, 1, 100, 1000}).Draw(t, "partner bytes"),
		}
		before := [2]map[string]lww.Entry{allRows(t, a.view()), allRows(t, b.view())}
		r, err := s.run(t)
		if err != nil {
			t.Fatalf("session: %v", err)
		}
		if r.Complete == s.cfg.DryRun {
			t.Fatalf("complete is %v, dry run %v", r.Complete, s.cfg.DryRun)
		}
		checkSession(t, &s, before, r)

		// Everything settled is now on both sides; the rest is as it was.
		want := [2]map[string]lww.Entry{maps.Clone(before[0]), maps.Clone(before[1])}
		if !s.cfg.DryRun {
			for key, w := range bruteForce(before[0], before[1], s.cfg.Now.Add(-s.cfg.Settle)) {
				if w.action == Wait {
					continue
				}
				var newest lww.Entry
				for _, e := range []*lww.Entry{w.initiator, w.other} {
					if e != nil && (newest.Key == nil || lww.Compare(*e, newest) > 0) {
						newest = *e
					}
				}
				want[0][key], want[1][key] = newest, newest
			}
		}
		for i, r := range []replica{a, b} {
			if !maps.EqualFunc(allRows(t, r.view()), want[i], entriesEqual) {
				t.Fatalf("replica %d does not hold what it should", i)
			}
		}
		if !s.cfg.DryRun && r.InFlight == 0 {
			if !equalReplicas(t, a, b) {
				t.Fatal("the replicas are not equal")
			}
			expectOneDigest(t, a, b)
		}
	})
}

func mustApply(t tb, r replica, entries ...lww.Entry) {
	t.Helper()
	if err := r.apply(entries); err != nil {
		t.Fatal(err)
	}
}
