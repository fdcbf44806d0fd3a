package antientropy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// twins are two equal stores with enough keys for an outline.
type twins struct {
	a, b storeReplica
	keys []string // by position
	at   int      // of the last write
}

func newTwins(t *testing.T, shards int) *twins {
	t.Helper()
	const keys = 13_000
	p := &twins{newStore(t, storage.Options{Shards: shards}), newStore(t, storage.Options{Shards: shards}), nil, 1}
	entries := make([]lww.Entry, keys)
	for i := range entries {
		entries[i] = value(fmt.Sprintf("key-%d", i), "v", 1)
	}
	mustApply(t, p.a, entries...)
	mustApply(t, p.b, entries...)
	slices.SortFunc(entries, func(x, y lww.Entry) int { return cmp.Compare(p.a.Position(x.Key), p.a.Position(y.Key)) })
	for _, e := range entries {
		p.keys = append(p.keys, string(e.Key))
	}
	return p
}

// diverge overwrites the keys that from and count pick out, by position, each on one
// side.
func (p *twins) diverge(t *testing.T, from, count int) (differing []string) {
	t.Helper()
	p.at++
	var writes [2][]lww.Entry
	for i, key := range p.keys[from : from+count] {
		differing = append(differing, key)
		writes[i%2] = append(writes[i%2], value(key, "newer", p.at))
	}
	mustApply(t, p.a, writes[0]...)
	mustApply(t, p.b, writes[1]...)
	slices.Sort(differing)
	return differing
}

func foundKeys(s session) (keys []string) {
	for _, d := range s.found {
		keys = append(keys, string(d.Key))
	}
	slices.Sort(keys)
	return keys
}

func firstAnswer(s session) differMessage {
	r := &reader{b: s.transcript[1].bytes[1:]}
	return r.differ()
}

// Neighbours are looked for where the outlines differ, and spread keys everywhere.
func TestOutline(t *testing.T) {
	pairs := map[int]*twins{1: newTwins(t, 1), 256: newTwins(t, 256)}
	for _, c := range []struct {
		shards, from, count, expected int
		only                          []int
		part                          bool
	}{
		{shards: 1, from: 5000, count: 400, expected: 400, part: true},
		{shards: 1, from: 5000, count: 400, expected: 1200, part: true},
		{shards: 1, from: 0, count: 10, expected: 400, part: true},
		{shards: 1, from: 12_990, count: 10, expected: 1_000_000, part: true},
		{shards: 1, from: 0, count: 13_000, expected: 13_000},
		{shards: 1, from: 5000, count: 400, expected: 300}, // too few to be worth it
		{shards: 256, from: 100, count: 400, expected: 400, part: true},
		{shards: 256, from: 100, count: 300, expected: 400, part: true, only: []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			p := pairs[c.shards]
			differing := p.diverge(t, c.from, c.count)
			s := session{a: p.a, b: p.b, cfg: Config{Now: second(100), Expected: c.expected, Shards: c.only}}
			s.mustRun(t)
			if c.only != nil {
				differing = slices.DeleteFunc(differing, func(key string) bool {
					return !slices.Contains(c.only, ring.ShardOf(ring.Slot([]byte(key)), c.shards))
				})
			}
			if got := foundKeys(s); !slices.Equal(got, differing) {
				t.Errorf("%d keys were found, %d differ", len(got), len(differing))
			}
			if got := firstAnswer(s).what == differPart; got != c.part && c.only == nil {
				t.Errorf("a part of a level came: %v, and should: %v", got, c.part)
			}
		})
	}
}

// A node whose byte in the outline is alike on both sides though it differs, as
// happens once in 256 times, is found by what is under all nodes of that kind.
func TestOutlineThatHides(t *testing.T) {
	p := newTwins(t, 1)
	differing := p.diverge(t, 5000, 700)
	s := session{a: p.a, b: p.b, cfg: Config{Now: second(100), Expected: 700}}
	sc, err := newScope(p.b.view(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := sc.outline(6)
	if err != nil {
		t.Fatal(err)
	}
	hidden := false
	s.tamper = func(i int, _ bool, msg []byte) []byte {
		if i == 0 {
			outline := msg[len(msg)-outlineNodes:]
			for n := range outline {
				if !hidden && outline[n] != theirs[n] {
					hidden, outline[n] = true, theirs[n]
				}
			}
		}
		return msg
	}
	s.mustRun(t)
	if !hidden || firstAnswer(s).what != differPart {
		t.Fatalf("nothing was hidden, or all: %v", firstAnswer(s).what)
	}
	if got := foundKeys(s); !slices.Equal(got, differing) {
		t.Errorf("%d keys were found, %d differ", len(got), len(differing))
	}
}

// A part of a level that cannot be one is refused, and one that is false does not
// end in a session that takes itself for complete.
func TestOutlineLies(t *testing.T) {
	p := newTwins(t, 1)
	for name, c := range map[string]struct {
		lie  func(*differMessage)
		wire bool
	}{
		"a node too few":     {func(m *differMessage) { m.level = m.level[1:] }, true},
		"a mark too many":    {func(m *differMessage) { m.marked = 1<<64 - 1 }, true},
		"above the outline":  {func(m *differMessage) { m.bits = 5 }, true},
		"far too deep":       {func(m *differMessage) { m.bits = merkle.MaxBits }, true},
		"another rest":       {func(m *differMessage) { m.rest[0]++ }, false},
		"nodes exchanged":    {func(m *differMessage) { m.level[0], m.level[1] = m.level[1], m.level[0] }, false},
		"nothing is marked":  {func(m *differMessage) { m.marked, m.level = 0, nil }, false},
		"a false node there": {func(m *differMessage) { m.level[0][1]++ }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p.diverge(t, 5000, 400)
			s := session{a: p.a, b: p.b, cfg: Config{Now: second(100), Expected: 400}}
			var d describer
			lied := false
			s.tamper = func(_ int, _ bool, msg []byte) []byte {
				return d.rewrite(msg, func(_ *request, _ *response, m *differMessage) {
					if m != nil && m.what == differPart {
						c.lie(m)
						lied = true
					}
				})
			}
			report, err := s.run(t)
			switch {
			case !lied:
				t.Fatal("there was nothing to lie about")
			case c.wire && !errors.Is(err, errWire):
				t.Errorf("error %v", err)
			case err == nil && !equalReplicas(t, p.a, p.b):
				t.Errorf("the session is complete, %+v, and the replicas differ", report)
			}
		})
	}
	// A part that was not asked for.
	p.diverge(t, 5000, 400)
	s := session{a: p.a, b: p.b, cfg: Config{Now: second(100)}}
	s.tamper = func(i int, _ bool, msg []byte) []byte {
		if i == 1 {
			m := differMessage{what: differPart, bits: 6, marked: 1, level: make([]merkle.Syndrome, 1)}
			return codec{}.appendDiffer(nil, m)
		}
		return msg
	}
	if _, err := s.run(t); !errors.Is(err, errWire) {
		t.Errorf("a part that was not asked for: error %v", err)
	}
}
