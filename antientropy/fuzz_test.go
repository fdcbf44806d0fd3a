package antientropy

import (
	"bytes"
	"fmt"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/storage"
)

// The seeds are whole messages of good sessions, so that the fuzzer begins where
// the deep paths are. What it finds is kept in testdata/fuzz.
func addSeeds(f *testing.F, toPartner bool) {
	for _, sc := range scenarios {
		for _, m := range sc.record(f) {
			if m.toPartner == toPartner && len(m.bytes) < 2000 {
				f.Add(m.bytes)
			}
		}
	}
	f.Add([]byte{})
	f.Add(Refuse("busy", "try again later"))
}

// fuzzed are the scenarios that a fuzzer's message is tried in: few, for speed,
// that have every kind of question between them.
var fuzzed = []scenario{
	{"hint", storesDrifted, Config{Expected: 1}, false},
	{"textbook", storesDrifted, Config{Textbook: true}, false},
	{"one side empty", halfEmpty, Config{Settle: storesDriftedAge}, false},
	{"neighbours", func(t tb) (replica, replica) { return crowdedAt(t, 7) }, Config{Expected: 5}, true},
	{"crowded", crowded, Config{Expected: 1}, false},
}

// FuzzResponder lets anybody speak to a partner, before and after the session
// was opened: it answers every message, and refuses what it cannot read.
func FuzzResponder(f *testing.F) {
	addSeeds(f, true)
	var sources []func() *session
	for _, sc := range fuzzed {
		sources = append(sources, sc.sessions(f))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, fresh := range sources {
			for _, opened := range []bool{false, true} {
				s := fresh()
				resp := newResponder(s.viewB)
				if opened {
					open, err := NewInitiator(s.viewA, s.cfg).Next()
					if err != nil {
						t.Fatal(err)
					}
					if _, err := resp.Receive(open); err != nil {
						t.Fatal(err)
					}
					resp.Reply(nil)
				}
				apply, err := resp.Receive(msg)
				if err != nil && (len(apply) > 0 || !resp.Done() || resp.Complete()) {
					t.Fatalf("error %v, %d entries to apply, done %v", err, len(apply), resp.Done())
				}
				for _, e := range apply {
					if e.Validate() != nil {
						t.Fatal("an entry that is not valid was handed out")
					}
				}
				reply := resp.Reply(err)
				if len(reply) == 0 || (err != nil) != (reply[0] == kindRefusal) {
					t.Fatalf("error %v was answered with %x", err, reply)
				}
			}
		}
	})
}

// FuzzInitiator answers a question of an initiator with whatever: it takes no
// entry that the partner does not hold. The place picks the question, out of
// those of all sessions.
func FuzzInitiator(f *testing.F) {
	type question struct {
		fresh  func() *session
		rows   map[string]lww.Entry // of the partner
		before []message
	}
	var questions []question
	for _, sc := range fuzzed {
		fresh, messages := sc.sessions(f), sc.record(f)
		rows := allRows(f, fresh().viewB)
		for i := 0; i < len(messages); i += 2 {
			f.Add(uint8(len(questions)), messages[i+1].bytes)
			questions = append(questions, question{fresh, rows, messages[:i]})
		}
	}
	f.Add(uint8(0), Refuse("busy", "try again later"))
	f.Fuzz(func(t *testing.T, place uint8, reply []byte) {
		q := questions[int(place)%len(questions)]
		s := q.fresh()
		init := NewInitiator(s.viewA, s.cfg)
		for i := 0; i < len(q.before); i += 2 {
			if _, err := init.Next(); err != nil {
				t.Fatal(err)
			}
			if _, err := init.Receive(q.before[i+1].bytes); err != nil {
				t.Fatal(err)
			}
			init.Applied(nil)
		}
		if _, err := init.Next(); err != nil {
			t.Fatal(err)
		}
		apply, err := init.Receive(bytes.Clone(reply))
		if err != nil && (len(apply) > 0 || init.Report().Complete) {
			t.Fatalf("error %v, %d entries to apply, report %+v", err, len(apply), init.Report())
		}
		for _, e := range apply {
			if !entriesEqual(q.rows[string(e.Key)], e) {
				t.Fatalf("an entry was taken that the partner does not hold: %q", e.Key)
			}
		}
		init.Applied(nil)
		if _, err := init.Next(); err != nil && init.Report().Complete {
			t.Fatalf("error %v, report %+v", err, init.Report())
		}
	})
}

// FuzzMessages decodes and encodes: what a message says does not change on the
// way, and nothing else is hidden in it.
func FuzzMessages(f *testing.F) {
	addSeeds(f, true)
	addSeeds(f, false)
	codecs, requests := fuzzCodecs(f)
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, d := range codecs {
			for _, q := range requests {
				d.request = q
				once, ok := recode(d, msg)
				if !ok {
					continue
				}
				twice, ok := recode(d, once)
				if !ok || !bytes.Equal(once, twice) {
					t.Fatalf("%x was encoded as %x and then as %x", msg, once, twice)
				}
				if len(once) > len(msg) {
					t.Fatalf("%x became longer: %x", msg, once)
				}
				if len(msg) == 0 || msg[0] != kindResponse {
					break // the request makes no difference
				}
			}
		}
	})
}

// fuzzCodecs returns what a message may have to be read with: how sessions were
// opened, and requests with each set of sections.
func fuzzCodecs(t tb) (codecs []describer, requests []request) {
	for _, i := range []int{0, 3} { // one of them a textbook session
		var d describer
		d.describe(scenarios[i].record(t)[0].bytes)
		codecs = append(codecs, d)
	}
	seen := make(map[byte]bool)
	for _, sc := range scenarios {
		var d describer
		for _, m := range sc.record(t) {
			d.describe(m.bytes)
			if m.toPartner && m.bytes[0] != kindOpen && !seen[m.bytes[1]] {
				seen[m.bytes[1]] = true
				requests = append(requests, d.request)
			}
		}
	}
	return codecs, requests
}

// recode reads a message and writes it again.
func recode(d describer, msg []byte) (again []byte, ok bool) {
	if len(msg) == 0 {
		return nil, false
	}
	r := &reader{codec: d.codec, b: msg[1:]}
	switch msg[0] {
	case kindOpen:
		m := r.open()
		if m.protocol != protocolVersion {
			return nil, false // only the version was read
		}
		again = m.append(nil)
	case kindDiffer, kindRequest, kindFinish, kindResponse:
		readable := false
		again = (&d).rewrite(msg, func(*request, *response, *differMessage) { readable = true })
		return again, readable && d.failed == nil
	case kindRefusal:
		again = r.refusal().append(nil)
	case kindEqual:
		again = msg[:1]
	default:
		return nil, false
	}
	return again, r.err == nil
}

// Every message of good sessions is encoded again as it was.
func TestMessagesSurviveDecoding(t *testing.T) {
	for _, sc := range scenarios {
		var d describer
		for i, m := range sc.record(t) {
			again, ok := recode(d, m.bytes)
			if !ok || !bytes.Equal(again, m.bytes) {
				t.Errorf("%s, message %d: %x became %x, %v", sc.name, i, m.bytes, again, ok)
			}
			d.describe(m.bytes)
		}
	}
	for _, msg := range [][]byte{Refuse("busy", "later"), {kindEqual}} {
		if again, ok := recode(describer{}, msg); !ok || !bytes.Equal(again, msg) {
			t.Errorf("%x became %x, %v", msg, again, ok)
		}
	}
	// The limits themselves are good values.
	d := describer{codec: testCodec(openMessage{nameBits: merkle.MaxBits, moment: second(1)})}
	big := lww.Entry{Key: bytes.Repeat([]byte("k"), lww.MaxKeyBytes), Value: make([]byte, lww.MaxValueBytes), Version: lww.Version{Stamp: 1, Node: 1}}
	last := merkle.NodeAt(1<<60-1, merkle.MaxBits)
	msg := d.codec.appendRequest(nil, request{
		push:     []lww.Entry{big},
		probes:   []probeAsk{{name: last}},
		versions: []versionsAsk{{node: last, except: []uint64{1<<64 - 1}}},
		fetches:  []fetchAsk{{skip: 1<<60 - 1}},
	})
	if again, ok := recode(d, msg); !ok || !bytes.Equal(again, msg) {
		t.Error("questions at the limits did not survive")
	}
}

// An entry far larger than a message travels alone, however it was found.
func TestALargeEntryTravelsAlone(t *testing.T) {
	for _, test := range []struct{ entries, bytes, expected int }{
		{2, 3 * DefaultMessageBytes, 0}, {6, 3 * DefaultMessageBytes, 0}, {6, 3 * DefaultMessageBytes, 6}, {60, 1 << 17, 0},
	} {
		a, b := newStore(t, storage.Options{Shards: 1}), newStore(t, storage.Options{Shards: 1})
		large := make([]byte, test.bytes)
		for i := range test.entries {
			mustApply(t, []replica{b, a}[i%2], lww.Entry{Key: fmt.Append(nil, "k", i), Value: large, Version: lww.Version{Stamp: second(1), Node: 1}})
		}
		s := session{a: a, b: b, cfg: Config{Now: second(100), Expected: test.expected}}
		s.mustRun(t)
		for _, m := range s.transcript {
			if len(m.bytes) > len(large)+DefaultMessageBytes {
				t.Errorf("%+v: a message of %d bytes", test, len(m.bytes))
			}
		}
		expectOneDigest(t, a, b)
	}
}
