package antientropy

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// What a partner may say in the place of the truth. It knows the secret of the
// cluster: the checks of its entries are good.

// lie changes an answer, the first one that it can be told in.
type lie struct {
	tell func(*response, *differMessage) bool
	kind lieKind
	says string // what the error may say beside that the digests contradict
}

type lieKind int

const (
	// harmless: the session may complete, and then both sides hold the same.
	harmless lieKind = iota
	// foul: the session must end with an error.
	foul
	// untold: nobody can know but the partner. It harms itself only.
	untold
	// foreign: foul, unless all keys share one place, where anything may be.
	foreign
)

const (
	saysMalformed = "malformed message"
	saysTree      = "contradict each other"
	saysHidden    = "fingerprints do not show"
	saysNothing   = "have led to nothing"
)

// stranger is an entry that no replica of these tests holds.
var stranger = value("stranger", "x", 1)

var lies = map[string]lie{
	// First answers.
	"names-nothing":       {first(differNamed, func(m *differMessage) { m.named = nil }), foul, "names nothing"},
	"names-twice":         {first(differNamed, func(m *differMessage) { m.named = append(m.named[:1], m.named[0]) }), foul, "twice there"},
	"names-what-is-alike": {first(differNamed, nameNothing), foul, ""},
	"names-for-a-sample":  {first(differSample, nameNothing), harmless, saysMalformed},
	"another-check":       {first(0, func(m *differMessage) { m.check++ }), foul, ""},
	"another-count":       {first(0, func(m *differMessage) { m.count += 1000 }), harmless, saysMalformed},
	"a-short-sample":      {first(differSample, func(m *differMessage) { m.sample = m.sample[1:] }), foul, saysMalformed},
	"another-sample":      {first(differSample, func(m *differMessage) { m.sample[0]++ }), harmless, ""},
	"a-node-too-few":      {first(differLevel, func(m *differMessage) { m.level = m.level[1:] }), foul, saysMalformed},
	"another-first-level": {first(differLevel, func(m *differMessage) { m.bits++ }), foul, saysMalformed},
	"a-wrong-first-node":  {first(differLevel, func(m *differMessage) { spoil(&m.level[0]) }), harmless, ""},

	// Digests.
	"no-level":              {answer(func(m *response) bool { return cut(&m.level) }), foul, "answers nothing"},
	"a-wrong-node":          {answer(func(m *response) bool { return len(m.level) > 0 && spoil(&m.level[0]) }), harmless, ""},
	"a-wrong-child":         {answer(func(m *response) bool { return len(m.splits) > 0 && spoil(&m.splits[0].syndromes[0]) }), harmless, ""},
	"children-exchanged":    {answer(exchangeChildren), harmless, ""},
	"equal-though-not":      {child(childSplit, func(a *childAnswer) { *a = childAnswer{} }), foul, ""},
	"different-though-not":  {child(childEqual, func(a *childAnswer) { *a = childAnswer{code: childSplit, split: [4]merkle.Syndrome{{1, 2, 3, 4}}} }), harmless, ""},
	"only-mine":             {child(childNamed, func(a *childAnswer) { *a = childAnswer{code: childMine} }), untold, ""},
	"only-yours":            {child(childNamed, func(a *childAnswer) { *a = childAnswer{code: childYours} }), untold, ""},
	"names-too-short":       {child(childNamed, func(a *childAnswer) { *a = childAnswer{code: childSlow} }), harmless, ""},
	"a-child-names-nothing": {child(childNamed, func(a *childAnswer) { a.named = nil }), untold, "names nothing"},
	"a-child-names-elsewhere": {child(childNamed, func(a *childAnswer) {
		a.named[0] = named{name: a.named[0].name, state: nameFull, full: new(told(stranger))}
	}), foreign, "not where it was found"},

	// Lists.
	"a-list-of-nothing": {child(childList, func(a *childAnswer) { a.items = nil }), harmless, ""},
	"a-row-too-few":     {child(childList, func(a *childAnswer) { a.items = a.items[1:] }), harmless, ""},
	"a-row-too-many":    {child(childList, func(a *childAnswer) { a.items = append(a.items, a.items[len(a.items)-1]) }), harmless, ""},
	"a-row-of-nothing":  {child(childList, func(a *childAnswer) { a.items[0].f++ }), harmless, ""},

	// Names.
	"nothing-there":    {probed(nameVersion, func(n *named) { *n = named{name: n.name} }), untold, ""},
	"several-there":    {probed(nameVersion, func(n *named) { *n = named{name: n.name, state: nameSeveral} }), harmless, ""},
	"another-key":      {probed(nameVersion, func(n *named) { n.key++ }), harmless, ""},
	"a-forged-version": {probed(nameVersion, func(n *named) { n.version.Stamp += second(5) - second(0) }), untold, ""},
	"an-entry-from-elsewhere": {probed(nameEntry, func(n *named) {
		n.entry, n.sum = &stranger, uint32(merkle.NewHasher(testSecret).Entry(stranger).Lo)
	}), foul, saysMalformed},
	"an-entry-of-another-hash": {probed(nameEntry, func(n *named) { n.sum++ }), foul, "not hashed with this cluster's secret"},
	"a-version-without-entry":  {probed(nameEntry, func(n *named) { *n = named{name: n.name, state: nameVersion, version: n.entry.Version} }), harmless, "not the one that was asked for"},

	// Versions.
	"a-version-of-elsewhere": {versions(func(a *versionsAnswer) { a.list[0].key = stranger.Key }), foreign, "not under the node"},
	"a-version-twice":        {versions(func(a *versionsAnswer) { a.list = append(a.list, a.list[0]) }), foul, "sent twice"},
	"a-version-not-sent":     {versions(func(a *versionsAnswer) { a.list = nil }), untold, ""},
	"too-many-versions":      {versions(func(a *versionsAnswer) { *a = versionsAnswer{tooMany: true} }), harmless, ""},
	"another-sum":            {versions(func(a *versionsAnswer) { a.list[0].sum.Lo++ }), untold, "for one asked for"},
	"held-though-not":        {answer(heldThoughNot), untold, ""},

	// Entries.
	"no-entry":         {fetched(func(a *fetchAnswer) { a.entries = nil }), untold, "for one asked for"},
	"another-entry":    {fetched(func(a *fetchAnswer) { a.entries[0] = stranger }), foreign, "not from where it was asked for"},
	"another-value":    {fetched(func(a *fetchAnswer) { a.entries[0].Value = []byte("forged") }), untold, "not the one that was asked for"},
	"an-entry-twice":   {fetched(func(a *fetchAnswer) { a.entries = append(a.entries, a.entries[0]) }), harmless, "not the one that was asked for"},
	"the-rest-nowhere": {fetched(func(a *fetchAnswer) { a.next = 1 << 60 }), harmless, "begins where it cannot"},
	"held-back": {fetched(func(a *fetchAnswer) {
		a.young = append(a.young, told(a.entries[0]))
		a.entries = nil
	}), foul, saysMalformed},

	// The rest.
	"one-push-fewer":    {answer(func(m *response) bool { m.applied--; return m.applied >= 0 }), foul, "applied"},
	"another-revealed":  {answer(func(m *response) bool { m.revealed++; return m.revealed > 1 }), foul, ""},
	"finished-too-soon": {answer(func(m *response) bool { m.finished = !m.finished; return m.finished }), foul, "out of turn"},
	"nothing-said":      {answer(func(m *response) bool { *m = response{}; return true }), foul, ""},
}

func nameNothing(m *differMessage) {
	bits := uint8(20)
	if len(m.named) > 0 {
		bits = m.named[0].name.Bits
	}
	*m = differMessage{what: differNamed, check: m.check, named: []named{{name: merkle.Node{Bits: bits, Path: 5}}}}
}

// told is what is told of an entry that does not travel.
func told(e lww.Entry) keyVersion {
	h := merkle.NewHasher(testSecret)
	return keyVersion{key: e.Key, version: e.Version, sum: h.Entry(e), valueHash: h.Bytes(e.Value), valueBytes: len(e.Value)}
}

func spoil(s *merkle.Syndrome) bool {
	*s = s.Plus(merkle.SyndromeOf(12345, 678))
	return true
}

func cut[T any](list *[]T) bool {
	had := len(*list) > 0
	*list = nil
	return had
}

// first is a lie in a first answer of some kind; zero is any but one that names.
func first(what byte, tell func(*differMessage)) func(*response, *differMessage) bool {
	return func(_ *response, m *differMessage) bool {
		if m == nil || what == 0 && m.what == differNamed || what > 0 && m.what != what {
			return false
		}
		tell(m)
		return true
	}
}

func answer(tell func(*response) bool) func(*response, *differMessage) bool {
	return func(m *response, _ *differMessage) bool {
		if m == nil {
			return false
		}
		// A lie that cannot be told in this answer must not leave a trace.
		before := *m
		if tell(m) {
			return true
		}
		*m = before
		return false
	}
}

// child is a lie in an answer of some kind about one node, whose list is not
// empty.
func child(code byte, tell func(*childAnswer)) func(*response, *differMessage) bool {
	return answer(func(m *response) bool {
		for _, l := range append(m.compares, m.lists) {
			for i := range l {
				if l[i].code == code && (code != childList || len(l[i].items) > 0) {
					tell(&l[i])
					return true
				}
			}
		}
		return false
	})
}

func probed(state byte, tell func(*named)) func(*response, *differMessage) bool {
	return answer(func(m *response) bool {
		for i := range m.probes {
			if m.probes[i].state == state {
				tell(&m.probes[i])
				return true
			}
		}
		return false
	})
}

func versions(tell func(*versionsAnswer)) func(*response, *differMessage) bool {
	return answer(func(m *response) bool {
		for i := range m.versions {
			if len(m.versions[i].list) > 0 {
				tell(&m.versions[i])
				return true
			}
		}
		return false
	})
}

func fetched(tell func(*fetchAnswer)) func(*response, *differMessage) bool {
	return answer(func(m *response) bool {
		for i := range m.fetches {
			if len(m.fetches[i].entries) > 0 {
				tell(&m.fetches[i])
				return true
			}
		}
		return false
	})
}

func exchangeChildren(m *response) bool {
	for _, a := range m.splits {
		if c := a.syndromes; len(c) > 1 && c[0] != c[1] {
			c[0], c[1] = c[1], c[0]
			return true
		}
	}
	return false
}

func heldThoughNot(m *response) bool {
	for i, a := range m.versions {
		for j, b := range a.held {
			if b == 0 {
				m.versions[i].held[j] = 1
				return true
			}
		}
	}
	return false
}

// Each lie is told in every scenario in which it can be: what the partner holds
// is all that anybody stores, the work is bounded, and a session that completes
// has made both sides equal.
func TestLies(t *testing.T) {
	placed := make(map[string]bool)
	for _, sc := range scenarios {
		fresh := sc.sessions(t)
		for name, lie := range lies {
			t.Run(sc.name+"/"+name, func(t *testing.T) {
				s := fresh()
				var d describer
				lied := false
				s.tamper = func(_ int, toPartner bool, msg []byte) []byte {
					return d.rewrite(msg, func(_ *request, r *response, f *differMessage) {
						if !lied && !toPartner {
							lied = lie.tell(r, f)
						}
					})
				}
				r, err := s.run(t)
				if !lied {
					return
				}
				placed[name] = true
				if name != "another-value" {
					honest(t, s.viewB, s.appliedA)
				}
				honest(t, s.viewA, s.appliedB)
				if len(s.transcript) > 100 {
					t.Errorf("a session of %d messages", len(s.transcript))
				}
				if err != nil {
					expected := slices.ContainsFunc([]string{lie.says, saysTree, saysHidden, "not part of the session"}, func(w string) bool {
						return w != "" && strings.Contains(err.Error(), w)
					})
					if lie.kind == foreign && sc.mapped {
						expected = errors.Is(err, errWire)
					}
					if !expected && (lie.says != "" || lie.kind == harmless) || r.Complete {
						t.Errorf("error %v, report %+v", err, r)
					}
					return
				}
				switch {
				case (lie.kind == foul || lie.kind == foreign && !sc.mapped) && !sc.cfg.DryRun:
					t.Errorf("nobody noticed: %+v", r)
				case lie.kind == harmless && r.Complete && r.InFlight == 0 && sc.cfg.Shards == nil && !s.wouldBeEqual(t):
					t.Errorf("the session completed, and the replicas differ")
				}
			})
		}
	}
	for name := range lies {
		if !placed[name] {
			t.Errorf("no scenario has a place for the lie %q", name)
		}
	}
}

// wouldBeEqual reports whether both sides hold the same once what a session
// handed out is applied.
func (s *session) wouldBeEqual(t tb) bool {
	a, b := allRows(t, s.viewA), allRows(t, s.viewB)
	for _, side := range []struct {
		rows    map[string]lww.Entry
		applied []lww.Entry
	}{{a, s.appliedA}, {b, s.appliedB}} {
		for _, e := range side.applied {
			if old, ok := side.rows[string(e.Key)]; !ok || lww.Compare(e, old) > 0 {
				side.rows[string(e.Key)] = e
			}
		}
	}
	return maps.EqualFunc(a, b, entriesEqual)
}

// A partner that finds more and more differences where there are none is asked a
// bounded number of questions.
func TestAPartnerThatSplitsForEver(t *testing.T) {
	a, b := crowded(t)
	s := &session{a: a, b: b, cfg: Config{Now: second(100), Expected: 1}}
	s.applyA = func([]lww.Entry) error { return nil }
	s.applyB = s.applyA
	var d describer
	seed, nodes := uint64(0), 0
	noise := func() (n merkle.Syndrome) {
		for i := range n {
			seed = seed*6364136223846793005 + 1442695040888963407
			n[i] = seed >> 4
		}
		return n
	}
	s.tamper = func(_ int, _ bool, msg []byte) []byte {
		return d.rewrite(msg, func(_ *request, r *response, f *differMessage) {
			if f != nil {
				f.count = 100
			}
			if r == nil {
				return
			}
			r.versions, r.fetches = nil, nil // left for later
			for i := range r.splits {
				for j := range r.splits[i].syndromes {
					r.splits[i].syndromes[j] = noise()
					nodes++
				}
			}
			for _, l := range append(r.compares, r.lists) {
				for i := range l {
					l[i] = childAnswer{code: childSplit, split: [4]merkle.Syndrome{noise(), noise(), noise(), noise()}}
					nodes += 4
				}
			}
		})
	}
	r, err := s.run(t)
	if err == nil || !strings.Contains(err.Error(), saysNothing) || r.Complete {
		t.Errorf("error %v, report %+v", err, r)
	}
	if limit := 4 * (4096 + 4*(1200+100) + maxNodes); nodes > limit {
		t.Errorf("it was asked about %d nodes, want at most %d", nodes, limit)
	}
}

// A partner can only announce an entry and send it; what it announces cannot be
// an entry of a shard outside the session.
func TestAPulledEntryStaysInItsPlace(t *testing.T) {
	a, b := fewChanged(2)(t)
	foreign := value("pluto", "small", 1) // shard 2
	if ring.ShardOf(ring.Slot(foreign.Key), 4) != 2 {
		t.Fatal("the example is not in shard 2")
	}
	for _, shard := range []int{0, 1, 3} {
		s := session{a: a, b: b, cfg: Config{Now: second(100), Shards: []int{shard}}}
		var d describer
		s.tamper = func(_ int, _ bool, msg []byte) []byte {
			return d.rewrite(msg, func(_ *request, _ *response, f *differMessage) {
				if f != nil {
					*f = differMessage{what: differNamed, named: []named{{
						state: nameEntry, entry: &foreign, sum: d.codec.check(foreign), name: merkle.Node{Bits: uint8(d.codec.nameBits)},
					}}}
				}
			})
		}
		_, err := s.run(t)
		if len(s.appliedA) != 0 || len(s.transcript) > 1 && s.transcript[1].bytes[0] == kindDiffer && !errors.Is(err, errWire) {
			t.Errorf("shard %d: error %v, %d entries applied", shard, err, len(s.appliedA))
		}
	}
}
