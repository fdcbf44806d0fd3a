package purge_test

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/purge"
)

var sessions = rapid.Custom(func(t *rapid.T) purge.Session {
	return purge.Session{Seq: rapid.Uint64Range(1, math.MaxUint64).Draw(t, "seq"), Nonce: rapid.Uint64().Draw(t, "nonce")}
})

var records = rapid.Custom(func(t *rapid.T) (r purge.Record) {
	if rapid.Bool().Draw(t, "none") {
		return r
	}
	r = purge.Record{
		Session: sessions.Draw(t, "session"), Cut: hlc.Stamp(rapid.Uint64().Draw(t, "cut")), Time: hlc.Stamp(rapid.Uint64().Draw(t, "time")),
		Position: purge.Position(rapid.Uint64().Draw(t, "position")), Theirs: purge.Position(rapid.Uint64().Draw(t, "theirs")),
	}
	for range rapid.IntRange(0, 3).Draw(t, "unreached") {
		r.Unreached = append(r.Unreached, hlc.NodeID(rapid.Uint16Range(1, math.MaxUint16).Draw(t, "node")))
	}
	return r
})

var states = rapid.Custom(func(t *rapid.T) purge.State {
	ascending := rapid.Custom(func(t *rapid.T) (ids []purge.Incarnation) {
		last := uint64(0)
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			last += rapid.Uint64Range(1, math.MaxUint64/8).Draw(t, "step")
			ids = append(ids, purge.Incarnation(last))
		}
		return ids
	})
	s := purge.State{Self: purge.Incarnation(rapid.Uint64().Draw(t, "self")), Upto: purge.Position(rapid.Uint64().Draw(t, "upto"))}
	if s.Cut.At = hlc.Stamp(rapid.Uint64().Draw(t, "at")); s.Cut.At != 0 {
		s.Cut.Raiser = purge.Incarnation(rapid.Uint64().Draw(t, "raiser"))
		for _, id := range ascending.Draw(t, "set") {
			s.Cut.Set = append(s.Cut.Set, purge.Proven{Replica: id, Session: sessions.Draw(t, "s"), Position: purge.Position(rapid.Uint64().Draw(t, "p"))})
		}
	}
	for _, id := range ascending.Draw(t, "with") {
		s.Pairs = append(s.Pairs, purge.Pair{With: id, Confirmed: records.Draw(t, "confirmed"), Pending: records.Draw(t, "pending")})
	}
	return s
})

// TestStateIsReadAsWritten: and no part of the bytes is a state.
func TestStateIsReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, mode := states.Draw(t, "state"), rapid.SampledFrom([]purge.Mode{purge.Joining, purge.Condemned, purge.Unchecked, purge.Live}).Draw(t, "mode")
		b := purge.AppendState(nil, s, mode)
		got, gotMode, err := purge.ParseState(b)
		if err != nil || !reflect.DeepEqual(got, s) || gotMode != mode {
			t.Fatalf("wrote %+v %v, read %+v %v, %v", s, mode, got, gotMode, err)
		}
		if _, _, err := purge.ParseState(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut off")]); !errors.Is(err, purge.ErrMalformed) {
			t.Fatalf("a part of it was read: %v", err)
		}
	})
}

// FuzzParseState: whatever is read has exactly one form, and nothing makes it panic.
func FuzzParseState(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{2, 0})
	f.Add(purge.AppendState(nil, purge.State{Self: 1}, purge.Live))
	rec := purge.Record{Session: purge.Session{Seq: 3, Nonce: 4}, Cut: 5, Position: 6, Theirs: 7, Time: 8, Unreached: []hlc.NodeID{2}}
	f.Add(purge.AppendState(nil, purge.State{
		Self: 1, Upto: 300, Cut: purge.Cut{At: 5, Raiser: 2, Set: []purge.Proven{{Replica: 1, Session: rec.Session, Position: 6}}},
		Pairs: []purge.Pair{{With: 2, Confirmed: rec}, {With: 3, Pending: rec}},
	}, purge.Joining))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, mode, err := purge.ParseState(b)
		if err != nil {
			if !errors.Is(err, purge.ErrMalformed) {
				t.Fatalf("%v does not say that it is malformed", err)
			}
			return
		}
		if again := purge.AppendState(nil, s, mode); !bytes.Equal(again, b) {
			t.Fatalf("read from %x, written as %x", b, again)
		}
	})
}
