package antientropy

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// A partner may be of another release, broken, or not a partner at all. Whatever
// it says: a clear error, bounded work, no panic, and nothing is applied that
// was not asked for.

// drifted returns two replicas with differences of every kind, both ways.
func drifted(t tb) (a, b storeReplica) {
	t.Helper()
	a, b = newStore(t, storage.Options{Shards: 4}), newStore(t, storage.Options{Shards: 4})
	var both, onlyA, onlyB []lww.Entry
	for i := range 80 {
		both = append(both, value(fmt.Sprintf("key-%03d", i), "old", 1))
	}
	for i := range 4 {
		onlyA = append(onlyA,
			value(fmt.Sprintf("key-%03d", i), "new at a", 60),
			tombstone(fmt.Sprintf("key-%03d", 20+i), 60),
			value(fmt.Sprintf("only-a-%d", i), "x", 2))
		onlyB = append(onlyB,
			value(fmt.Sprintf("key-%03d", 40+i), "new at b", 60),
			value(fmt.Sprintf("only-b-%d", i), "x", 2))
	}
	mustApply(t, a, append(both, onlyA...)...)
	mustApply(t, b, append(both, onlyB...)...)
	return a, b
}

// recorded returns the messages of a good session between drifted replicas.
func recorded(t tb, cfg Config) []message {
	t.Helper()
	a, b := drifted(t)
	s := session{a: a, b: b, cfg: cfg}
	s.mustRun(t)
	return s.transcript
}

var smallLists = Config{Now: second(100), ListMax: 2}

// honest checks that every entry in applied is exactly one that from holds: a
// partner that lies about digests cannot make anybody store what it invents.
func honest(t tb, from View, applied []lww.Entry) {
	t.Helper()
	rows := allRows(t, from)
	for _, e := range applied {
		if !entriesEqual(rows[string(e.Key)], e) {
			t.Fatalf("an entry was applied that the other side does not hold: %q", e.Key)
		}
	}
}

// Every message of a session, cut short at every length: an error on one side
// or the other, and the session is not complete.
func TestMessagesCutShort(t *testing.T) {
	for i, m := range recorded(t, smallLists) {
		for n := range m.bytes {
			a, b := drifted(t)
			s := session{a: a, b: b, cfg: smallLists, tamper: func(at int, _ bool, msg []byte) []byte {
				if at == i {
					return msg[:n]
				}
				return msg
			}}
			before := a.view()
			if r, err := s.run(t); err == nil || r.Complete {
				t.Fatalf("message %d of %d bytes cut to %d: error %v, report %+v", i, len(m.bytes), n, err, r)
			}
			honest(t, before, s.appliedB)
			if n > 100 {
				break // the rest is more of the same list
			}
		}
	}
}

// One bit flipped anywhere. Transport checksums and mTLS stand before this in
// production; here the session itself must never panic, never take an entry it
// did not ask for, and never run on for ever.
func TestMessagesWithAFlippedBit(t *testing.T) {
	messages := recorded(t, smallLists)
	step := 41 // bits; coprime to 8, so every position of a byte is hit
	if testing.Short() {
		step = 101
	}
	for i, m := range messages {
		for bit := 0; bit < min(len(m.bytes), 300)*8; bit += step {
			a, b := drifted(t)
			s := session{a: a, b: b, cfg: smallLists, tamper: func(at int, _ bool, msg []byte) []byte {
				if at == i {
					msg[bit/8] ^= 1 << (bit % 8)
				}
				return msg
			}}
			viewB := b.view()
			_, err := s.run(t)
			// What the initiator pulls is checked by digest.
			honest(t, viewB, s.appliedA)
			if err == nil && s.partnerErr != nil {
				t.Fatalf("message %d, bit %d: the partner failed, the initiator did not: %v", i, bit, s.partnerErr)
			}
		}
	}
}

// A message delivered again in the place of each later one.
func TestMessagesReplayedOutOfTurn(t *testing.T) {
	messages := recorded(t, smallLists)
	for i := range messages {
		for j := i + 2; j < len(messages); j += 2 {
			a, b := drifted(t)
			s := session{a: a, b: b, cfg: smallLists, tamper: func(at int, _ bool, msg []byte) []byte {
				if at == j {
					return bytes.Clone(messages[i].bytes)
				}
				return msg
			}}
			viewA, viewB := a.view(), b.view()
			r, err := s.run(t)
			// A finish answers only a finish, so a replay may go unnoticed only if
			// it is a question that the partner answers again.
			if err == nil && r.Complete && !equalReplicas(t, a, b) {
				t.Fatalf("message %d in place of %d: complete, and the replicas differ", i, j)
			}
			honest(t, viewB, s.appliedA)
			honest(t, viewA, s.appliedB)
		}
	}
}

// answer runs a session in which the partner's n-th answer of one kind is
// changed, and returns the initiator's error.
func answer(t *testing.T, change func(m *response) bool) (session, error) {
	t.Helper()
	a, b := drifted(t)
	changed := false
	s := session{a: a, b: b, cfg: smallLists}
	s.tamper = func(_ int, toPartner bool, msg []byte) []byte {
		if toPartner || msg[0] != kindResponse || changed {
			return msg
		}
		r := &reader{b: msg[1:]}
		m := readResponse(r)
		if r.err != nil {
			t.Fatal(r.err)
		}
		changed = change(&m)
		return m.append(nil)
	}
	viewB := b.view()
	r, err := s.run(t)
	if !changed {
		t.Fatal("nothing was changed")
	}
	if r.Complete {
		t.Error("the session is complete")
	}
	honest(t, viewB, s.appliedA)
	return s, err
}

func TestAnswersThatCannotBe(t *testing.T) {
	wire := func(err error) bool { return errors.Is(err, errWire) }
	tree := func(err error) bool { return errors.As(err, new(*TreeError)) }
	for _, test := range []struct {
		name   string
		change func(*response) bool
		want   func(error) bool
	}{
		{"a child counts one more", func(m *response) bool {
			if len(m.expanded) == 0 {
				return false
			}
			m.expanded[0][3].Count++
			return true
		}, tree},
		{"children whose counts overflow", func(m *response) bool {
			if len(m.expanded) == 0 {
				return false
			}
			m.expanded[0][0].Count += 1 << 62
			m.expanded[0][1].Count += 1 << 62
			m.expanded[0][2].Count -= 1 << 63
			return true
		}, func(err error) bool { return tree(err) || wire(err) }},
		{"two children swapped sums", func(m *response) bool {
			if len(m.expanded) == 0 {
				return false
			}
			c := &m.expanded[0]
			c[0].Sum, c[1].Sum = c[1].Sum, c[0].Sum
			return c[0].Sum != c[1].Sum
		}, tree},
		{"more answers than questions", func(m *response) bool {
			m.expanded = append(m.expanded, [merkle.Fanout]merkle.Digest{})
			return true
		}, wire},
		{"an empty answer", func(m *response) bool {
			*m = response{}
			return true
		}, wire},
		{"a list out of order", func(m *response) bool {
			for _, l := range m.listed {
				if len(l) > 1 && l[0].token != l[1].token {
					slices.Reverse(l)
					return true
				}
			}
			return false
		}, wire},
		{"a list with a token of another node", func(m *response) bool {
			for _, l := range m.listed {
				if len(l) > 0 {
					l[0].token ^= 1 << (ring.TokenBits - 1)
					return true
				}
			}
			return false
		}, wire},
		{"a list with an item too few", func(m *response) bool {
			for i, l := range m.listed {
				if len(l) > 1 {
					m.listed[i] = l[1:]
					return true
				}
			}
			return false
		}, tree},
		{"a list with a sum of nothing", func(m *response) bool {
			for _, l := range m.listed {
				if len(l) > 0 {
					l[0].sum++
					return true
				}
			}
			return false
		}, tree},
		{"a version under another key", func(m *response) bool {
			return editVersion(m, func(v *keyVersion) { v.key = []byte("stranger") })
		}, wire},
		{"a version twice", func(m *response) bool {
			for i, l := range m.versions {
				if len(l) > 0 {
					m.versions[i] = append(l, l[0])
					return true
				}
			}
			return false
		}, wire},
		{"a pulled entry with another value", func(m *response) bool {
			return editPulled(m, func(e *lww.Entry) { e.Value = []byte("forged") })
		}, wire},
		{"a pulled entry of another key", func(m *response) bool {
			return editPulled(m, func(e *lww.Entry) { e.Key = []byte("stranger") })
		}, wire},
		{"a pulled entry twice", func(m *response) bool {
			for i, l := range m.pulled {
				if len(l) > 0 {
					m.pulled[i] = append(l, l[0])
					return true
				}
			}
			return false
		}, wire},
		{"a pulled entry not sent", func(m *response) bool {
			for i, l := range m.pulled {
				if len(l) > 0 {
					m.pulled[i] = nil
					return true
				}
			}
			return false
		}, wire},
		{"one push not applied", func(m *response) bool {
			if m.applied == 0 {
				return false
			}
			m.applied--
			return true
		}, func(err error) bool { return err != nil && strings.Contains(err.Error(), "applied") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := answer(t, test.change); !test.want(err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func editVersion(m *response, edit func(*keyVersion)) bool {
	for _, l := range m.versions {
		if len(l) > 0 {
			edit(&l[0])
			return true
		}
	}
	return false
}

func editPulled(m *response, edit func(*lww.Entry)) bool {
	for _, l := range m.pulled {
		if len(l) > 0 {
			edit(&l[0])
			return true
		}
	}
	return false
}

// A partner can only announce an entry and send it; what it announces under one
// token cannot be an entry of a shard outside the session.
func TestAPulledEntryStaysInItsPlace(t *testing.T) {
	a, b := newStore(t, storage.Options{Shards: 4}), newStore(t, storage.Options{Shards: 4})
	mustApply(t, b, value("ceres", "tiny", 1)) // shard 1
	stranger := value("pluto", "small", 1)     // shard 2
	s := session{a: a, b: b, cfg: Config{Now: second(100), Shards: []int{1}}}
	s.tamper = func(_ int, toPartner bool, msg []byte) []byte {
		if toPartner || msg[0] != kindResponse {
			return msg
		}
		m := readResponse(&reader{b: msg[1:]})
		editVersion(&m, func(v *keyVersion) { v.sum = a.Digest(stranger).Sum.Lo })
		editPulled(&m, func(e *lww.Entry) { *e = stranger })
		return m.append(nil)
	}
	// The partner is asked for the digest it announced and would have to answer.
	s.viewB = lyingView{b.view(), stranger, a.Digest(stranger)}
	if _, err := s.run(t); !errors.Is(err, errWire) || len(s.appliedA) != 0 {
		t.Errorf("error %v, %d entries applied", err, len(s.appliedA))
	}
}

// lyingView shows one entry where it does not belong when a token is read.
type lyingView struct {
	View
	entry  lww.Entry
	digest merkle.Digest
}

func (v lyingView) Rows(shard int, n merkle.Node, visit func(ring.Token, lww.Entry, merkle.Digest) bool) error {
	if int(n.Level) == merkle.MaxLevel {
		visit(n.First(), v.entry, v.digest)
	}
	return v.View.Rows(shard, n, visit)
}

// Requests that the partner of an initiator gone wrong must refuse.
func TestRequestsThatCannotBe(t *testing.T) {
	elsewhere := value("pluto", "small", 1) // in shard 2 of 4
	for _, test := range []struct {
		name   string
		dryRun bool
		req    request
		want   string
	}{
		{"a push in a dry run", true, request{push: []lww.Entry{value("ceres", "tiny", 1)}}, "dry run"},
		{"a push outside the session", false, request{push: []lww.Entry{elsewhere}}, "shard 2 is not part"},
		{"a node outside the session", false, request{expand: []nodeRef{{shard: 2}}}, "shard 2 is not part"},
		{"a list outside the session", false, request{list: []nodeRef{{shard: 3}}}, "shard 3 is not part"},
		{"a pull outside the session", false, request{pull: []tokenRef{{shard: 0}}}, "shard 0 is not part"},
		{"children of a token", false, request{expand: []nodeRef{{1, merkle.NodeOf(7, merkle.MaxLevel)}}}, "no children"},
		{"too many items", false, request{list: make([]nodeRef, maxItems+1)}, "more than 4096"},
		{"a list too long", false, request{list: []nodeRef{{shard: 1}}}, "more than 4096 entries"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStore(t, storage.Options{Shards: 4})
			if test.name == "a list too long" {
				var many []lww.Entry
				for i := range maxListed + 1 {
					many = append(many, value(fmt.Sprintf("{ceres}%d", i), "x", 1)) // all in shard 1
				}
				mustApply(t, s, many...)
			}
			resp := NewResponder(s.view())
			open := openMessage{protocol: protocolVersion, digestVersion: merkle.DigestVersion, shards: 4, only: []int{1}, dryRun: test.dryRun}
			if _, err := resp.Receive(open.append(nil)); err != nil {
				t.Fatal(err)
			}
			resp.Reply(nil)
			if resp.Done() {
				t.Fatal("done at the first message")
			}
			apply, err := resp.Receive(test.req.append(nil))
			if err == nil || !strings.Contains(err.Error(), test.want) || len(apply) > 0 {
				t.Errorf("error %v, %d entries to apply", err, len(apply))
			}
			if reply := resp.Reply(err); reply[0] != kindRefusal || len(reply) > 300 || !resp.Done() {
				t.Errorf("reply of %d bytes, done %v", len(reply), resp.Done())
			}
		})
	}
}

// A request of thousands of foreign nodes gets one short answer, not a list of
// complaints.
func TestARefusalIsShort(t *testing.T) {
	resp := NewResponder(newStore(t, storage.Options{Shards: 4}).view())
	open := openMessage{protocol: protocolVersion, digestVersion: merkle.DigestVersion, shards: 4, only: []int{1}}
	resp.Receive(open.append(nil))
	resp.Reply(nil)
	req := request{list: make([]nodeRef, maxItems), expand: make([]nodeRef, maxItems)}
	_, err := resp.Receive(req.append(nil))
	if reply := resp.Reply(err); err == nil || len(reply) > 300 {
		t.Errorf("error of %d bytes", len(fmt.Sprint(err)))
	}
}

// Lists of empty elements are tiny on the wire and large in memory.
func TestAForgedLengthClaimsNoMemory(t *testing.T) {
	msg := append([]byte{kindResponse, 0xff, 0xff, 0xff, 0x07}, make([]byte, 16<<20)...)
	s := NewInitiator(newStore(t, storage.Options{Shards: 1}).view(), Config{Now: second(1)})
	s.started, s.waiting, s.sent = true, true, sentRequest{kind: kindRequest}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := s.Receive(msg)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, errWire) || used > 16<<20 {
		t.Errorf("error %v, %d MiB", err, used>>20)
	}
}

// An answer with bytes left over is no answer: a report that says complete must
// not come with an error.
func TestACompleteReportComesWithoutAnError(t *testing.T) {
	for _, kind := range []byte{kindEqual, kindFinished} {
		a, b := newStore(t, storage.Options{Shards: 1}), newStore(t, storage.Options{Shards: 1})
		if kind == kindFinished {
			mustApply(t, a, value("earth", "blue", 1))
		}
		s := session{a: a, b: b, cfg: smallLists, tamper: func(_ int, toPartner bool, msg []byte) []byte {
			if !toPartner && msg[0] == kind {
				msg = append(msg, 0)
			}
			return msg
		}}
		if r, err := s.run(t); !errors.Is(err, errWire) || r.Complete {
			t.Errorf("kind %d: error %v, report %+v", kind, err, r)
		}
	}
}

// One entry that cannot be applied, out of many, on either side: incomplete.
func TestAFailedApplyLeavesTheSessionIncomplete(t *testing.T) {
	for _, side := range []string{"initiator", "partner"} {
		a, b := drifted(t)
		s := session{a: a, b: b, cfg: Config{Now: second(100), MessageBytes: 1}, partnerBytes: 1} // an entry a message
		n := 0
		third := func(r replica) func([]lww.Entry) error {
			return func(e []lww.Entry) error {
				if n++; n == 3 {
					return errors.New("no space left")
				}
				return r.apply(e)
			}
		}
		if side == "initiator" {
			s.applyA = third(a)
		} else {
			s.applyB = third(b)
		}
		r, err := s.run(t)
		if err == nil || !strings.Contains(err.Error(), "no space left") || r.Complete {
			t.Errorf("%s: error %v, report %+v", side, err, r)
		}
		if n != 3 {
			t.Errorf("%s: %d applies, want the third to be the last", side, n)
		}
	}
}
