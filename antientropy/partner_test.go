package antientropy

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// A partner may be of another release, broken, or not a partner at all. Whatever
// it says: a clear error, bounded work, no panic, and nothing is applied that
// was not asked for. What it says in the place of the truth is in lies_test.go.

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

// scenario is a good session that reaches some part of the protocol.
type scenario struct {
	name     string
	replicas func(tb) (a, b replica)
	cfg      Config
	mapped   bool // all keys in one place
}

// scenarios reach, together, every kind of question and of answer
// (TestScenariosReachEverything).
var scenarios = []scenario{
	{"sample", storesDrifted, Config{}, false},
	{"hint", storesDrifted, Config{Expected: 1}, false},
	{"crowded", crowded, Config{Expected: 1}, false},
	{"textbook", storesDrifted, Config{Textbook: true}, false},
	{"dry run", storesDrifted, Config{DryRun: true}, false},
	{"one key", fewChanged(1), Config{}, false},
	{"two keys", fewChanged(2), Config{}, false},
	{"one side empty", halfEmpty, Config{}, false},
	{"one side empty, settle", halfEmpty, Config{Settle: storesDriftedAge}, false},
	{"equal tokens", func(t tb) (replica, replica) { return crowdedAt(t, 0) }, Config{}, true},
	{"neighbours", func(t tb) (replica, replica) { return crowdedAt(t, 7) }, Config{Expected: 5}, true},
	{"salt", storesDrifted, Config{Salt: 3}, false},
	{"some shards", storesDrifted, Config{Shards: []int{1, 3}}, false},
	{"settle", storesDrifted, Config{Settle: storesDriftedAge}, false},
}

// storesDriftedAge is a settle window in which the newer half of the drift is.
const storesDriftedAge = 50e9

func storesDrifted(t tb) (replica, replica) {
	a, b := drifted(t)
	return a, b
}

// crowded replicas have more differences than a hint of one says, so that the
// descent goes on for several levels, and places where one of
// them has nothing, or both the same.
func crowded(t tb) (replica, replica) {
	t.Helper()
	a, b := newStore(t, storage.Options{Shards: 1}), newStore(t, storage.Options{Shards: 1})
	alike := merkle.Node{Bits: 6, Path: 13}
	var inA, inB []lww.Entry
	for i := range 900 {
		key := fmt.Sprintf("key-%04d", i)
		e := value(key, "old", 1)
		x := a.Position(e.Key)
		if (merkle.Node{Bits: 6, Path: 9}).Contains(x) {
			inA = append(inA, e)
			continue
		}
		if (merkle.Node{Bits: 6, Path: 22}).Contains(x) {
			inB = append(inB, e)
			continue
		}
		inA, inB = append(inA, e), append(inB, e)
		if alike.Contains(x) {
			continue
		}
		switch i % 8 {
		case 0:
			inA = append(inA, value(key, "new at a", 60))
		case 1:
			inB = append(inB, value(key, "new at b", 60))
		case 2:
			if e := value(key+"-of-a", "x", 2); !alike.Contains(a.Position(e.Key)) {
				inA = append(inA, e)
			}
		}
	}
	mustApply(t, a, inA...)
	mustApply(t, b, inB...)
	return a, b
}

func fewChanged(n int) func(tb) (replica, replica) {
	return func(t tb) (replica, replica) {
		t.Helper()
		a, b := newStore(t, storage.Options{Shards: 4}), newStore(t, storage.Options{Shards: 4})
		for i := range 20 {
			e := value(fmt.Sprintf("key-%03d", i), "old", 1)
			mustApply(t, a, e)
			mustApply(t, b, e)
		}
		for i := range n {
			mustApply(t, b, value(fmt.Sprintf("key-%03d", i), "new at b", 60))
		}
		return a, b
	}
}

func halfEmpty(t tb) (replica, replica) {
	t.Helper()
	a, b := newStore(t, storage.Options{Shards: 4}), newStore(t, storage.Options{Shards: 4})
	for i := range 20 {
		key := fmt.Sprintf("key-%03d", i)
		if ring.ShardOf(ring.Slot([]byte(key)), 4) < 2 {
			mustApply(t, a, value(key, "x", 1))
		} else {
			mustApply(t, b, value(key, "x", 1+59*(i%2)))
		}
	}
	return a, b
}

// crowdedAt puts all keys at 1+mask neighbouring tokens.
func crowdedAt(t tb, mask ring.Token) (replica, replica) {
	t.Helper()
	of := func(key []byte) ring.Token { return 0x123456789abcd00 + ring.Token(key[len(key)-1])&mask }
	a, b := newMap(1, 2, of), newMap(1, 5, of)
	for i := range 12 {
		key := fmt.Sprintf("key-%02d", i)
		if i != 3 {
			mustApply(t, a, value(key, "old", 1+59*(i%2)))
		}
		if i != 4 {
			mustApply(t, b, value(key, "old", 1))
		}
	}
	return a, b
}

// session returns a session of the scenario that has not begun, over replicas of
// its own.
func (sc scenario) session(t tb) *session {
	t.Helper()
	s := &session{cfg: sc.cfg}
	s.cfg.Now = second(100)
	s.a, s.b = sc.replicas(t)
	return s
}

// sessions returns a source of such sessions that share their views, which is
// much faster: what they hand out is noted and not applied.
func (sc scenario) sessions(t tb) func() *session {
	t.Helper()
	s := sc.session(t)
	s.viewA, s.viewB = s.a.view(), s.b.view()
	s.applyA = func([]lww.Entry) error { return nil }
	s.applyB = s.applyA
	return func() *session {
		again := *s
		return &again
	}
}

// record runs the scenario and returns its messages.
func (sc scenario) record(t tb) []message {
	t.Helper()
	s := sc.sessions(t)()
	if _, err := s.run(t); err != nil {
		t.Fatalf("%s: %v", sc.name, err)
	}
	return s.transcript
}

// The scenarios are what the tests of this file tamper with: what they do not
// reach is not tested.
func TestScenariosReachEverything(t *testing.T) {
	missing := map[string]bool{}
	for _, what := range []string{
		"equal", "named", "level", "sample", "only", // first answers; equal is in no scenario
		"levels", "splits", "split-all", "compares", "lists", "probes", "again", "versions", "fetch-sums", "fetch-first", "push",
		"child equal", "child named", "child split", "child list", "child mine", "child yours",
		"state absent", "state version", "state entry", "state several", "state full", "young",
	} {
		missing[what] = true
	}
	delete(missing, "equal")
	saw := func(what string, is bool) {
		if is {
			delete(missing, what)
		}
	}
	states := map[byte]string{nameAbsent: "absent", nameVersion: "version", nameEntry: "entry", nameSeveral: "several", nameFull: "full"}
	child := func(a childAnswer) {
		saw("child "+[...]string{"equal", "named", "split", "mine", "yours", "slow", "list"}[a.code], true)
		for _, n := range a.named {
			saw("state "+states[n.state], true)
		}
	}
	for _, sc := range scenarios {
		var d describer
		for _, m := range sc.record(t) {
			d.rewrite(m.bytes, func(q *request, r *response, f *differMessage) {
				switch {
				case f != nil:
					saw([...]string{"", "named", "level", "sample", "only"}[f.what], true)
					for _, n := range f.named {
						saw("state "+states[n.state], true)
					}
				case q != nil:
					saw("levels", q.level > 0)
					for _, a := range q.splits {
						saw("splits", !a.all)
						saw("split-all", a.all)
					}
					saw("compares", len(q.compares) > 0)
					saw("lists", len(q.lists) > 0)
					for _, a := range q.probes {
						saw("probes", !a.again)
						saw("again", a.again)
					}
					saw("versions", len(q.versions) > 0)
					for _, a := range q.fetches {
						saw("fetch-first", a.first)
						saw("fetch-sums", len(a.sums) > 0)
					}
					saw("push", len(q.push) > 0)
				case r != nil:
					for _, l := range r.compares {
						for _, a := range l {
							child(a)
						}
					}
					for _, a := range r.lists {
						child(a)
					}
					for _, n := range r.probes {
						saw("state "+states[n.state], true)
					}
					for _, a := range r.fetches {
						saw("young", len(a.young) > 0)
					}
				}
			})
		}
	}
	for what := range missing {
		t.Errorf("no scenario has %q", what)
	}
}

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
	for _, sc := range scenarios {
		fresh := sc.sessions(t)
		for i, m := range sc.record(t) {
			for n := range m.bytes {
				s := fresh()
				s.tamper = func(at int, _ bool, msg []byte) []byte {
					if at == i {
						return msg[:n]
					}
					return msg
				}
				r, err := s.run(t)
				if err == nil || r.Complete {
					t.Fatalf("%s: message %d of %d bytes cut to %d: error %v, report %+v", sc.name, i, len(m.bytes), n, err, r)
				}
				honest(t, s.viewA, s.appliedB)
				honest(t, s.viewB, s.appliedA)
				if n > 48 || raceEnabled && n > 20 {
					break // the rest is more of the same list
				}
			}
		}
	}
}

// One bit flipped anywhere. Transport checksums and mTLS stand before this in
// production; here the session itself must never panic, never take an entry it
// did not ask for, and never run on for ever.
func TestMessagesWithAFlippedBit(t *testing.T) {
	step := 83 // bits; coprime to 8, so every position of a byte is hit
	if testing.Short() || raceEnabled {
		step = 331
	}
	for _, sc := range scenarios {
		fresh := sc.sessions(t)
		for i, m := range sc.record(t) {
			for bit := i % step; bit < min(len(m.bytes), 300)*8; bit += step {
				s := fresh()
				s.tamper = func(at int, _ bool, msg []byte) []byte {
					if at == i {
						msg[bit/8] ^= 1 << (bit % 8)
					}
					return msg
				}
				_, err := s.run(t)
				// Entries carry a check of their hash, so none is taken that changed.
				honest(t, s.viewB, s.appliedA)
				honest(t, s.viewA, s.appliedB)
				if err == nil && s.partnerErr != nil {
					t.Fatalf("%s: message %d, bit %d: the partner failed, the initiator did not: %v", sc.name, i, bit, s.partnerErr)
				}
			}
		}
	}
}

// A message delivered again in the place of each later one.
func TestMessagesReplayedOutOfTurn(t *testing.T) {
	for _, sc := range scenarios {
		messages := sc.record(t)
		for i := range messages {
			for j := i + 2; j < len(messages); j += 2 {
				s := sc.session(t)
				s.tamper = func(at int, _ bool, msg []byte) []byte {
					if at == j {
						return bytes.Clone(messages[i].bytes)
					}
					return msg
				}
				viewA, viewB := s.a.view(), s.b.view()
				r, err := s.run(t)
				// A finish answers only a finish, so a replay may go unnoticed only if
				// it is a question that the partner answers again.
				if err == nil && r.Complete && s.cfg.Shards == nil && s.cfg.Settle == 0 && !equalReplicas(t, s.a, s.b) {
					t.Fatalf("%s: message %d in place of %d: complete, and the replicas differ", sc.name, i, j)
				}
				honest(t, viewB, s.appliedA)
				honest(t, viewA, s.appliedB)
			}
		}
	}
}

// Requests that the partner of an initiator gone wrong must refuse.
func TestRequestsThatCannotBe(t *testing.T) {
	in, out := merkle.Node{Bits: 2, Path: 1}, merkle.Node{Bits: 2, Path: 2}
	elsewhere := value("pluto", "small", 1) // in shard 2 of 4
	many := make([]listAsk, maxItems+1)
	for i := range many {
		many[i].node = in
	}
	for _, test := range []struct {
		name   string
		dryRun bool
		req    request
		want   string
	}{
		{"a push in a dry run", true, request{push: []lww.Entry{value("ceres", "tiny", 1)}}, "dry run"},
		{"a fetch in a dry run", true, request{fetches: []fetchAsk{{node: in}}}, "dry run"},
		{"a push outside the session", false, request{push: []lww.Entry{elsewhere}}, "shard 2 is not part"},
		{"a split outside the session", false, request{splits: []splitAsk{{node: out, bits: 2}}}, "shard 2 is not part"},
		{"a comparison outside the session", false, request{compares: []compareAsk{{node: out, bits: 2, theirs: make([]merkle.Syndrome, 4)}}}, "shard 2 is not part"},
		{"a list outside the session", false, request{lists: []listAsk{{node: out}}}, "shard 2 is not part"},
		{"a probe outside the session", false, request{probes: []probeAsk{{name: merkle.Node{Bits: 20, Path: 2 << 18}}}}, "shard 2 is not part"},
		{"versions outside the session", false, request{versions: []versionsAsk{{node: out}}}, "shard 2 is not part"},
		{"a fetch outside the session", false, request{fetches: []fetchAsk{{node: out}}}, "shard 2 is not part"},
		{"children of a position", false, request{splits: []splitAsk{{node: merkle.NodeAt(in.First(), merkle.MaxBits), bits: 1}}}, "cannot be split"},
		{"a level below the last", false, request{level: merkle.MaxBits + 2}, "level cannot be"},
		{"a level that is too wide", false, request{level: 40}, "more than 16384 nodes"},
		{"too many items", false, request{lists: many}, "more than 4096"},
		{"a question from beyond the node", false, request{fetches: []fetchAsk{{node: in, skip: 1 << 59}}}, "outside of its node"},
		{"nothing at all", false, request{}, ""}, // is answered with nothing
	} {
		t.Run(test.name, func(t *testing.T) {
			resp, c := opened(t, newStore(t, storage.Options{Shards: 4}).view(), test.dryRun)
			apply, err := resp.Receive(c.appendRequest(nil, test.req))
			if test.want == "" {
				if err != nil || resp.Done() {
					t.Errorf("error %v, done %v", err, resp.Done())
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || len(apply) > 0 {
				t.Errorf("error %v, %d entries to apply", err, len(apply))
			}
			if reply := resp.Reply(err); reply[0] != kindRefusal || len(reply) > 300 || !resp.Done() || resp.Complete() {
				t.Errorf("reply of %d bytes, done %v", len(reply), resp.Done())
			}
		})
	}
}

// opened returns a partner in the middle of a session about shard 1 of 4, and
// how its initiator writes.
func opened(t tb, v View, dryRun bool) (*Responder, codec) {
	t.Helper()
	open := openMessage{
		protocol: protocolVersion, digestVersions: []byte{merkle.DigestVersion}, shards: 4, only: []int{1}, dryRun: dryRun,
		moment: second(100), settled: second(100), nameBits: 20, check: 1,
	}
	resp := newResponder(v)
	if _, err := resp.Receive(open.append(nil)); err != nil {
		t.Fatal(err)
	}
	resp.Reply(nil)
	if resp.Done() {
		t.Fatal("done at the first message")
	}
	return resp, testCodec(open)
}

// An entry that is not hashed with the secret of the cluster is of another
// cluster, or not what was sent.
func TestAPushedEntryIsChecked(t *testing.T) {
	resp, c := opened(t, newStore(t, storage.Options{Shards: 4}).view(), false)
	c.check = func(lww.Entry) uint32 { return 0 }
	apply, err := resp.Receive(c.appendRequest(nil, request{push: []lww.Entry{value("ceres", "tiny", 1)}}))
	if !errors.Is(err, errWire) || len(apply) > 0 {
		t.Errorf("error %v, %d entries to apply", err, len(apply))
	}
}

// A request of thousands of foreign nodes gets one short answer, not a list of
// complaints.
func TestARefusalIsShort(t *testing.T) {
	resp, c := opened(t, newStore(t, storage.Options{Shards: 4}).view(), false)
	req := request{lists: make([]listAsk, maxItems)}
	for i := range req.lists {
		req.lists[i].node = merkle.Node{Bits: 2, Path: 3}
	}
	_, err := resp.Receive(c.appendRequest(nil, req))
	if reply := resp.Reply(err); err == nil || len(reply) > 300 {
		t.Errorf("error of %d bytes", len(fmt.Sprint(err)))
	}
}

// More versions than fit into one answer are not read to the end: the initiator
// is told to split.
func TestTooManyVersions(t *testing.T) {
	s := newStore(t, storage.Options{Shards: 4})
	var many []lww.Entry
	for i := range maxListed + 1 {
		many = append(many, value(fmt.Sprintf("{ceres}%d", i), "x", 1)) // all in shard 1
	}
	mustApply(t, s, many...)
	resp, c := opened(t, s.view(), false)
	req := request{versions: []versionsAsk{{node: merkle.Node{Bits: 2, Path: 1}}}}
	if _, err := resp.Receive(c.appendRequest(nil, req)); err != nil {
		t.Fatal(err)
	}
	r := &reader{codec: c, b: resp.Reply(nil)[1:]}
	if m := r.response(req); r.err != nil || len(m.versions) != 1 || !m.versions[0].tooMany || len(m.versions[0].list) > 0 {
		t.Errorf("error %v, answer %+v", r.err, m)
	}
}

// Lists of empty elements are tiny on the wire and large in memory.
func TestAForgedLengthClaimsNoMemory(t *testing.T) {
	long := append([]byte{0xff, 0xff, 0xff, 0x07}, make([]byte, 16<<20)...)
	for name, msg := range map[string][]byte{
		"a level":  append([]byte{kindResponse, 0}, long...),
		"splits":   append([]byte{kindResponse, 0, 0}, long...),
		"probes":   append([]byte{kindResponse, 0, 0, 0}, long...),
		"versions": append([]byte{kindResponse, 0, 0, 0, 0}, long...),
	} {
		s := NewInitiator(newStore(t, storage.Options{Shards: 1}).view(), Config{Now: second(1)})
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
		s.report.Rounds = 2
		s.sent = &sent{request: request{level: 4, splits: make([]splitAsk, 1), probes: make([]probeAsk, 1), versions: make([]versionsAsk, 1)}}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := s.Receive(msg)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, errWire) || used > 4<<20 {
			t.Errorf("%s: error %v, %d MiB", name, err, used>>20)
		}
	}
}

// An answer with bytes left over is no answer: a report that says complete must
// not come with an error.
func TestACompleteReportComesWithoutAnError(t *testing.T) {
	for _, last := range []byte{kindEqual, kindResponse} {
		a, b := newStore(t, storage.Options{Shards: 1}), newStore(t, storage.Options{Shards: 1})
		if last == kindResponse {
			mustApply(t, a, value("earth", "blue", 1))
		}
		finishing := false
		s := session{a: a, b: b, cfg: Config{Now: second(100)}}
		s.tamper = func(_ int, toPartner bool, msg []byte) []byte {
			finishing = finishing || toPartner && (msg[0] == kindFinish || last == kindEqual)
			if !toPartner && finishing {
				msg = append(msg, 0)
			}
			return msg
		}
		if r, err := s.run(t); !errors.Is(err, errWire) || r.Complete {
			t.Errorf("kind %d: error %v, report %+v", last, err, r)
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
		if err == nil || !strings.Contains(err.Error(), "no space left") || r.Complete || s.partner.Complete() {
			t.Errorf("%s: error %v, report %+v", side, err, r)
		}
		if n != 3 {
			t.Errorf("%s: %d applies, want the third to be the last", side, n)
		}
	}
}

// A partner whose view cannot be had says so, and the initiator is told.
func TestAPartnerWithoutAView(t *testing.T) {
	init := NewInitiator(newStore(t, storage.Options{Shards: 1}).view(), Config{Now: second(1)})
	msg, err := init.Next()
	if err != nil {
		t.Fatal(err)
	}
	resp := NewResponder(func(hlc.Stamp) (View, error) { return nil, errors.New("the store is closed") })
	if _, err := resp.Receive(msg); err == nil || !resp.Done() {
		t.Errorf("error %v, done %v", err, resp.Done())
	}
	var refused *RefusedError
	if _, err := init.Receive(resp.Reply(nil)); !errors.As(err, &refused) || refused.Code != "failed" || refused.Text != "the store is closed" {
		t.Errorf("error %v", err)
	}
}

// A caller that hands the error of Receive to Reply does not hide why the
// message was refused.
func TestARefusalKeepsItsReason(t *testing.T) {
	resp := newResponder(newStore(t, storage.Options{Shards: 1}).view())
	m := openMessage{protocol: protocolVersion, digestVersions: []byte{99}, shards: 1, nameBits: nameBitsFor(0)}
	_, err := resp.Receive(m.append(nil))
	if !errors.Is(err, errVersion) {
		t.Fatalf("error %v", err)
	}
	r := &reader{b: resp.Reply(err)[1:]}
	if m := r.refusal(); m.code != CodeVersion {
		t.Errorf("refused with code %q: %s", m.code, m.text)
	}
}
