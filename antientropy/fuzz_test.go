package antientropy

import (
	"bytes"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/storage"
)

// The seeds are whole messages of good sessions, so that the fuzzer begins where
// the deep paths are. What it finds is kept in testdata/fuzz.
func addSeeds(f *testing.F, toPartner bool) {
	for _, cfg := range []Config{smallLists, {Now: second(100)}, {Now: second(100), Shards: []int{1, 3}}} {
		for _, m := range recorded(f, cfg) {
			if m.toPartner == toPartner {
				f.Add(m.bytes)
			}
		}
	}
	f.Add([]byte{})
	f.Add(Refuse("busy", "try again later"))
}

// FuzzResponder lets anybody speak to a partner, before and after the session
// was opened: it answers every message, and refuses what it cannot read.
func FuzzResponder(f *testing.F) {
	addSeeds(f, true)
	a, b := drifted(f)
	viewA, viewB := a.view(), b.view()
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, opened := range []bool{false, true} {
			resp := NewResponder(viewB)
			if opened {
				init := NewInitiator(viewA, smallLists)
				open, err := init.Next()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := resp.Receive(open); err != nil {
					t.Fatal(err)
				}
				resp.Reply(nil)
			}
			apply, err := resp.Receive(msg)
			if err != nil && (len(apply) > 0 || !resp.Done()) {
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
	})
}

// FuzzInitiator answers one question of an initiator, each kind in turn, with
// whatever: it takes no entry that the partner does not hold.
func FuzzInitiator(f *testing.F) {
	addSeeds(f, false)
	a, b := drifted(f)
	viewA, viewB := a.view(), b.view()
	rounds := len(recorded(f, smallLists)) / 2
	f.Fuzz(func(t *testing.T, reply []byte) {
		for at := range rounds {
			init, resp := NewInitiator(viewA, smallLists), NewResponder(viewB)
			for range at {
				msg, err := init.Next()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := resp.Receive(msg); err != nil {
					t.Fatal(err)
				}
				if _, err = init.Receive(resp.Reply(nil)); err != nil {
					t.Fatal(err)
				}
				init.Applied(nil)
			}
			if _, err := init.Next(); err != nil {
				t.Fatal(err)
			}
			apply, err := init.Receive(reply)
			if err != nil && (len(apply) > 0 || init.Report().Complete) {
				t.Fatalf("error %v, %d entries to apply, report %+v", err, len(apply), init.Report())
			}
			honest(t, viewB, apply)
		}
	})
}

// FuzzMessages decodes and encodes: what a message says does not change on the
// way, and nothing else is hidden in it.
func FuzzMessages(f *testing.F) {
	addSeeds(f, true)
	addSeeds(f, false)
	f.Fuzz(func(t *testing.T, msg []byte) {
		once, ok := recode(msg)
		if !ok {
			return
		}
		twice, ok := recode(once)
		if !ok || !bytes.Equal(once, twice) {
			t.Fatalf("%x was encoded as %x and then as %x", msg, once, twice)
		}
		if len(once) > len(msg) {
			t.Fatalf("%x became longer: %x", msg, once)
		}
	})
}

func recode(msg []byte) (again []byte, ok bool) {
	if len(msg) == 0 {
		return nil, false
	}
	r := &reader{b: msg[1:]}
	switch msg[0] {
	case kindOpen:
		m := readOpen(r)
		if m.protocol != protocolVersion {
			return nil, false // only the version was read
		}
		again = m.append(nil)
	case kindRoots:
		again = appendRoots(nil, readList(r, 1<<14, (*reader).digest))
	case kindRequest:
		again = readRequest(r).append(nil)
	case kindResponse:
		again = readResponse(r).append(nil)
	case kindRefusal:
		again = readRefusal(r).append(nil)
	case kindEqual, kindFinish, kindFinished:
		again = msg[:1]
	default:
		return nil, false
	}
	return again, r.err == nil
}

// Every message of good sessions is encoded again as it was.
func TestMessagesSurviveDecoding(t *testing.T) {
	messages := recorded(t, smallLists)
	messages = append(messages, recorded(t, Config{Now: second(100), Shards: []int{0, 2}})...)
	messages = append(messages, message{bytes: Refuse("busy", "later")})
	for _, m := range messages {
		if again, ok := recode(m.bytes); !ok || !bytes.Equal(again, m.bytes) {
			t.Errorf("%x became %x, %v", m.bytes, again, ok)
		}
	}
	// The limits themselves are good values.
	big := lww.Entry{Key: bytes.Repeat([]byte("k"), lww.MaxKeyBytes), Value: make([]byte, lww.MaxValueBytes), Version: lww.Version{Stamp: 1, Node: 1}}
	msg := request{push: []lww.Entry{big}, list: []nodeRef{{16383, merkle.NodeOf(1<<60-1, merkle.MaxLevel)}}}.append(nil)
	if again, ok := recode(msg); !ok || !bytes.Equal(again, msg) {
		t.Error("an entry at the limits did not survive")
	}
}

// An entry far larger than a message travels alone.
func TestALargeEntryTravelsAlone(t *testing.T) {
	a, b := newStore(t, storage.Options{Shards: 1}), newStore(t, storage.Options{Shards: 1})
	large := make([]byte, 3*DefaultMessageBytes)
	for i, key := range []string{"k1", "k2", "k3", "k4", "k5", "k6"} {
		mustApply(t, []replica{a, b}[i%2], lww.Entry{Key: []byte(key), Value: large, Version: lww.Version{Stamp: second(1), Node: 1}})
	}
	s := session{a: a, b: b, cfg: Config{Now: second(100)}}
	s.mustRun(t)
	for _, m := range s.transcript {
		if len(m.bytes) > len(large)+DefaultMessageBytes {
			t.Errorf("a message of %d bytes", len(m.bytes))
		}
	}
	expectOneDigest(t, a, b)
}
