package antientropy

import (
	"bytes"
	"errors"
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
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// The slow model: two maps compared key by key. A session must find exactly
// what the model finds, and do about each key what the model says.

// held is a row of a view: sum is zero if the view's moment does not have it.
type held struct {
	lww.Entry
	sum  merkle.Sum
	late bool
}

// heldBy returns the rows of a view by key, those of some shards; nil means all.
func heldBy(t tb, v View, shards []int) map[string]held {
	t.Helper()
	rows := make(map[string]held)
	for shard := range v.Shards() {
		if shards != nil && !slices.Contains(shards, shard) {
			continue
		}
		err := v.Rows(shardNode(v, shard), func(r *merkle.Row) bool {
			rows[string(r.Entry.Key)] = held{r.Entry.Clone(), r.Sum, r.Late}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

// wanted is what the model says about one key that differs.
type wanted struct {
	actions          []Action // one of them
	initiator, other *held
}

func bruteForce(a, b map[string]held, settled hlc.Stamp) map[string]wanted {
	diff := make(map[string]wanted)
	for key := range union(a, b) {
		ea, inA := a[key]
		eb, inB := b[key]
		if ea.sum == eb.sum {
			continue
		}
		w := wanted{}
		if inA {
			w.initiator = &ea
		}
		if inB {
			w.other = &eb
		}
		// What is done is decided by what both sides hold now, not by what they
		// held at the moment that was compared.
		fresh := func(h held, there bool) bool { return there && h.sum == merkle.Sum{} }
		switch {
		case !inB:
			w.actions = []Action{waitIf(ea.Stamp > settled, Push)}
		case !inA:
			w.actions = []Action{waitIf(eb.Stamp > settled, Pull)}
		// That a side which lacked the entry has written the key since is not
		// always noticed: then it is sent an entry that it has no use for.
		case fresh(eb, inB):
			w.actions = []Action{Wait, waitIf(ea.Stamp > settled, Push)}
		case fresh(ea, inA):
			w.actions = []Action{Wait, waitIf(eb.Stamp > settled, Pull)}
		case entriesEqual(ea.Entry, eb.Entry):
			w.actions = []Action{Wait}
		default:
			action := Push
			if lww.Compare(ea.Entry, eb.Entry) < 0 {
				action = Pull
			}
			sameWrite := ea.Stamp == eb.Stamp && ea.Node == eb.Node && ea.Tombstone == eb.Tombstone
			at := max(ea.Stamp, eb.Stamp)
			if sameWrite && !bytes.Equal(ea.Value, eb.Value) {
				action = Exchange
			} else if sameWrite {
				at = max(ea.ExpiryStamp, eb.ExpiryStamp)
			}
			w.actions = []Action{waitIf(at > settled, action)}
		}
		diff[key] = w
	}
	return diff
}

func union[V any](a, b map[string]V) map[string]bool {
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
// must be distinctive. A session that has ended with ErrHidden need not have
// found everything.
func checkSession(t tb, s *session, before [2]map[string]held, r Report, hidden bool) {
	t.Helper()
	settled := s.cfg.Now.Add(-s.cfg.Settle)
	if s.cfg.AsOf != 0 {
		settled = min(settled, s.cfg.AsOf)
	}
	want := bruteForce(before[0], before[1], settled)
	found := make(map[string]Difference)
	count := make(map[Action]int)
	for _, d := range s.found {
		if _, twice := found[string(d.Key)]; twice {
			t.Fatalf("key %q was found twice", d.Key)
		}
		found[string(d.Key)] = d
		count[d.Action]++
		w, ok := want[string(d.Key)]
		if !ok {
			t.Fatalf("%q was found and does not differ: %s", d.Key, d.Reason())
		}
		if !slices.Contains(w.actions, d.Action) {
			t.Fatalf("%q: action %v, want %v (%s)", d.Key, d.Action, w.actions, d.Reason())
		}
		checkSide(t, d.Key, d.Initiator, w.initiator)
		checkSide(t, d.Key, d.Partner, w.other)
	}
	for key, w := range want {
		if _, ok := found[key]; !ok && !hidden {
			t.Fatalf("the session missed %q: %+v", key, w)
		}
	}
	if r.InFlight != count[Wait] || r.Diverged != len(found)-count[Wait] {
		t.Fatalf("report %+v, want %d in flight, %d diverged", r, count[Wait], len(found)-count[Wait])
	}
	pushes, pulls := count[Push]+count[Exchange], count[Pull]+count[Exchange]
	if s.cfg.DryRun {
		pushes, pulls = 0, 0
	}
	if hidden { // it may have ended before all that was found was sent
		pushes, pulls = min(pushes, r.Pushed), min(pulls, r.Pulled)
	}
	if r.Pushed != pushes || r.Pulled != pulls || len(s.appliedB) != pushes || len(s.appliedA) != pulls {
		t.Fatalf("report %+v, %d and %d entries travelled: want %d pushed, %d pulled", r, len(s.appliedB), len(s.appliedA), pushes, pulls)
	}
	honest(t, s.viewA, s.appliedB)
	honest(t, s.viewB, s.appliedA)

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
		w, differs := want[key]
		if !differs && bytes.Contains(transcript.Bytes(), []byte(key)) {
			t.Fatalf("key %q is the same on both sides but is in the transcript", key)
		}
		for _, side := range before {
			if len(w.actions) > 1 {
				continue // sent before it was known to be of no use
			}
			if v := side[key].Value; len(v) > 0 && !sent[string(v)] && bytes.Contains(transcript.Bytes(), v) {
				t.Fatalf("value %q of %q need not travel but is in the transcript", v, key)
			}
		}
	}
}

func checkSide(t tb, key []byte, got *Side, want *held) {
	t.Helper()
	switch {
	case got == nil && (want == nil || want.sum == merkle.Sum{}):
	case got == nil || want == nil || got.Version != want.Version || got.ValueBytes >= 0 && got.ValueBytes != len(want.Value):
		t.Fatalf("%q: a side was reported as %+v, want %+v", key, got, want)
	}
}

// raceEnabled says that everything takes ten times as long.
var raceEnabled bool

// checks runs a property for n random cases unless the command line says how
// many, and for fewer with -short and the race detector.
func checks(t *testing.T, n int, property func(*rapid.T)) {
	const name = "rapid.checks"
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if !given {
		if testing.Short() {
			n /= 10
		} else if raceEnabled {
			n /= 4
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
func drawEntry(t *rapid.T, key string, i int) lww.Entry {
	e := lww.Entry{Key: []byte(key)}
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

// drawKeys draws how keys are made of numbers. None is a prefix of another, or
// part of any value.
func drawKeys(t *rapid.T) func(i int) string {
	tag := rapid.SampledFrom([]string{"", "", "", "{tag}"}).Draw(t, "hash tag")
	return func(i int) string { return fmt.Sprintf("<%skey-%05d>", tag, i) }
}

// drawReplicas draws two replicas. Those that are weak have fingerprints of a few
// bits: then a session may have to be repeated with a salt.
func drawReplicas(t *rapid.T) (a, b replica, weak bool) {
	shards := rapid.SampledFrom([]int{1, 4, 16}).Draw(t, "shards")
	if rapid.Bool().Draw(t, "real store") {
		for _, r := range []*replica{&a, &b} {
			*r = newStore(t, storage.Options{
				Shards: shards, LeafKeys: rapid.IntRange(1, 8).Draw(t, "leaf keys"),
				RecentEntries: rapid.SampledFrom([]int{0, 0, 16}).Draw(t, "recent entries"),
			})
		}
		return a, b, false
	}
	// Tokens out of a small space, some of them all the same: colliding and
	// neighbouring at any level, and at both ends of the range.
	mask := rapid.SampledFrom([]ring.Token{0, 1, 0xf, 0xff, 0xf0000000000000f, ring.MaxToken}).Draw(t, "token mask")
	base := rapid.SampledFrom([]ring.Token{0, ring.MaxToken}).Draw(t, "token base")
	real := ring.NewTokens(testSecret)
	of := func(key []byte) ring.Token { return base&^mask | real.Of(key)&mask }
	leaf := func() int { return rapid.IntRange(0, 8).Draw(t, "leaf bits") }
	ma, mb := newMap(shards, leaf(), of), newMap(shards, leaf(), of)
	if bits := rapid.SampledFrom([]int{0, 1, 3, 61, 61, 61}).Draw(t, "fingerprint bits"); bits < 61 {
		weak = true
		ma.fingerprint = func(s merkle.Sum) merkle.Sum { return merkle.Sum{Hi: s.Hi & (1<<(bits+3) - 1), Lo: s.Lo} }
		mb.fingerprint = ma.fingerprint
	}
	return ma, mb, weak
}

// drawDrift writes entries to both replicas, of which some agree.
func drawDrift(t *rapid.T, a, b replica, keyOf func(int) string) {
	keys := rapid.IntRange(0, 60).Draw(t, "keys")
	// From "nearly everything agrees" to "hardly anything".
	differing := rapid.IntRange(0, 4).Draw(t, "differing")
	for i := range keys {
		e := drawEntry(t, keyOf(i), i)
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
			mustApply(t, b, drawEntry(t, keyOf(i), i))
		}
	}
}

func drawConfig(t *rapid.T, shards int) Config {
	cfg := Config{
		Now:          second(10),
		Settle:       time.Duration(rapid.SampledFrom([]int{0, 0, 5, 7}).Draw(t, "settle")) * time.Second,
		Expected:     rapid.SampledFrom([]int{0, 0, 1, 2, 10, 30, 1000}).Draw(t, "expected"),
		Textbook:     rapid.IntRange(0, 9).Draw(t, "textbook") == 0,
		MessageBytes: rapid.SampledFrom([]int{0, 1, 100, 1000}).Draw(t, "message bytes"),
		DryRun:       rapid.IntRange(0, 9).Draw(t, "dry run") == 0,
	}
	if rapid.IntRange(0, 5).Draw(t, "some shards") == 0 {
		cfg.Shards = []int{}
		for i := range shards {
			if rapid.Bool().Draw(t, "shard") {
				cfg.Shards = append(cfg.Shards, i)
			}
		}
	}
	return cfg
}

func TestASessionFindsExactlyWhatDiffers(t *testing.T) {
	checks(t, 10_000, func(t *rapid.T) {
		a, b, weak := drawReplicas(t)
		keyOf := drawKeys(t)
		drawDrift(t, a, b, keyOf)
		s := &session{a: a, b: b, partnerBytes: rapid.SampledFrom([]int{0, 1, 100, 1000}).Draw(t, "partner bytes")}
		s.cfg = drawConfig(t, a.view().Shards())
		if _, store := a.(storeReplica); store && rapid.IntRange(0, 2).Draw(t, "as of a moment") == 0 {
			s.cfg.AsOf = second(rapid.IntRange(1, 9).Draw(t, "moment"))
		}
		runAndCheck(t, s, weak)
	})
}

// runAndCheck runs a session and compares all of it with the model. It returns
// whether both sides hold the same now, within the session's shards.
func runAndCheck(t *rapid.T, s *session, weak bool) {
	t.Helper()
	again := *s
	moment := s.cfg.AsOf
	if moment == 0 {
		moment = hlc.Max
	}
	s.viewA, s.viewB = viewAsOf(s.a, moment), viewAsOf(s.b, moment)
	before := [2]map[string]held{heldBy(t, s.viewA, s.cfg.Shards), heldBy(t, s.viewB, s.cfg.Shards)}
	present := [2]map[string]lww.Entry{allRows(t, s.a.view()), allRows(t, s.b.view())}
	r, err := s.run(t)
	hidden := weak && errors.Is(err, ErrHidden) && s.cfg.Salt < 3
	if err != nil && !hidden {
		t.Fatalf("session: %v", err)
	}
	if r.Complete == (s.cfg.DryRun || hidden) || r.Complete != s.partner.Complete() {
		t.Fatalf("complete is %v here and %v there, dry run %v, error %v", r.Complete, s.partner.Complete(), s.cfg.DryRun, err)
	}
	checkSession(t, s, before, r, hidden)

	// Each side holds what it held and what it was handed, and nothing else.
	for i, rep := range []replica{s.a, s.b} {
		want := maps.Clone(present[i])
		for _, e := range [][]lww.Entry{s.appliedA, s.appliedB}[i] {
			if old, ok := want[string(e.Key)]; !ok || lww.Compare(e, old) > 0 {
				want[string(e.Key)] = e
			}
		}
		if !maps.EqualFunc(allRows(t, rep.view()), want, entriesEqual) {
			t.Fatalf("replica %d does not hold what it should", i)
		}
	}
	switch {
	case hidden: // what was found is settled; the rest has another fingerprint
		again.cfg.Salt = s.cfg.Salt + 1
		runAndCheck(t, &again, weak)
	case s.cfg.DryRun:
	case r.InFlight == 0 && s.cfg.AsOf == 0 && s.cfg.Shards == nil:
		if !equalReplicas(t, s.a, s.b) {
			t.Fatal("the replicas are not equal")
		}
		expectOneDigest(t, s.a, s.b)
	default: // only what waits is left
		a, b := heldBy(t, viewAsOf(s.a, moment), s.cfg.Shards), heldBy(t, viewAsOf(s.b, moment), s.cfg.Shards)
		waits := make(map[string]bool)
		for _, d := range s.found {
			waits[string(d.Key)] = d.Action == Wait
		}
		for key := range bruteForce(a, b, 0) {
			if !waits[key] && !sees(s, moment) {
				t.Fatalf("%q still differs", key)
			}
		}
	}
}

// sees reports whether a side has forgotten the moment of a session and showed
// the present in its place, or will the next time.
func sees(s *session, moment hlc.Stamp) bool {
	for _, r := range []replica{s.a, s.b} {
		if st, ok := r.(storeReplica); ok && moment != hlc.Max && st.RecentFloor() > moment {
			return true
		}
	}
	return false
}

func mustApply(t tb, r replica, entries ...lww.Entry) {
	t.Helper()
	if err := r.apply(entries); err != nil {
		t.Fatal(err)
	}
}

// Two replicas that drift and are repaired again and again, over messages of any
// size, end with the same bytes.
func TestReplicasThatDriftAndAreRepaired(t *testing.T) {
	checks(t, 2000, func(t *rapid.T) {
		a, b, weak := drawReplicas(t)
		keyOf := drawKeys(t)
		for range rapid.IntRange(1, 5).Draw(t, "sessions") {
			drawDrift(t, a, b, keyOf)
			s := &session{a: a, b: b, partnerBytes: rapid.SampledFrom([]int{1, 30, 1000}).Draw(t, "partner bytes")}
			s.cfg = Config{
				Now:          second(10),
				Expected:     rapid.IntRange(0, 40).Draw(t, "expected"),
				MessageBytes: rapid.SampledFrom([]int{1, 30, 1000}).Draw(t, "message bytes"),
				Salt:         rapid.SampledFrom([]uint8{0, 0, 0, 1, 2}).Draw(t, "salt"),
			}
			if rapid.Bool().Draw(t, "other way") {
				s.a, s.b = b, a
			}
			runAndCheck(t, s, weak)
		}
		if !equalReplicas(t, a, b) {
			t.Fatal("the replicas are not equal")
		}
	})
}
