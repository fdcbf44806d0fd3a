package coordinator

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"syntropy/hlc"
	"syntropy/lww"
)

func TestLevels(t *testing.T) {
	for _, tc := range []struct {
		level Level
		need  [6]int // of 0, 1, 2, 3, 4, 5 replicas
	}{
		{Default, [6]int{1, 1, 2, 2, 3, 3}},
		{One, [6]int{1, 1, 1, 1, 1, 1}},
		{Quorum, [6]int{1, 1, 2, 2, 3, 3}},
		{All, [6]int{1, 1, 2, 3, 4, 5}},
	} {
		for n, want := range tc.need {
			if got := tc.level.Of(n); got != want {
				t.Errorf("%v of %d replicas is %d, want %d", tc.level, n, got, want)
			}
		}
		if tc.level == Default {
			continue
		}
		for _, text := range []string{tc.level.String(), strings.ToUpper(tc.level.String())} {
			if got, err := ParseLevel(text); err != nil || got != tc.level {
				t.Errorf("%q is read as %v, %v", text, got, err)
			}
		}
	}
	for _, text := range []string{"", "two", "default", "quorum ", strings.Repeat("x", 1000)} {
		if l, err := ParseLevel(text); err == nil || len(err.Error()) > 100 {
			t.Errorf("%.20q is read as %v, %v", text, l, err)
		}
	}
}

// TestInvalidMutations: bad input gets a clear error and no stamp is used.
func TestInvalidMutations(t *testing.T) {
	base := value("k", "v", 10, 1)
	deleted := lww.Entry{Key: []byte("k"), Version: lww.Version{Stamp: 10, Node: 1, Tombstone: true}}
	for name, m := range map[string]Mutation{
		"without a key":             {Value: []byte("v")},
		"with a key too long":       {Key: make([]byte, lww.MaxKeyBytes+1)},
		"with a value too long":     {Key: []byte("k"), Value: make([]byte, lww.MaxValueBytes+1)},
		"expiring before 1970":      {Key: []byte("k"), Expires: -1},
		"of no kind":                {Kind: 7, Key: []byte("k")},
		"a delete with a value":     {Kind: Delete, Key: []byte("k"), Value: []byte("v")},
		"a delete that expires":     {Kind: Delete, Key: []byte("k"), Expires: 5},
		"a touch of nothing":        {Kind: Touch, Key: []byte("k"), Expires: 5},
		"a touch of a tombstone":    {Kind: Touch, Key: []byte("k"), Expires: 5, Base: deleted},
		"a touch of another key":    {Kind: Touch, Key: []byte("j"), Expires: 5, Base: base},
		"a touch with a value":      {Kind: Touch, Key: []byte("k"), Value: []byte("w"), Base: base},
		"a touch expiring too soon": {Kind: Touch, Key: []byte("k"), Expires: -5, Base: base},
	} {
		clock := &manualClock{wall: 100}
		_, err := NewWrite(place(1, always, 1), clock, Quorum, []Mutation{put("good", "v"), m})
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Index != 1 || invalid.Err == nil {
			t.Errorf("%s: %v", name, err)
		}
		if clock.last != 0 {
			t.Errorf("%s: a stamp was issued", name)
		}
	}
}

func TestRequestsOfNothing(t *testing.T) {
	w, err := NewWrite(place(1, always, 1), &manualClock{}, Quorum, nil)
	if err != nil || !w.Finished() || len(w.Sends()) != 0 || len(w.Results()) != 0 {
		t.Errorf("a write of nothing: %v", err)
	}
	r, err := NewRead(place(1, always, 1), digest, Quorum, nil)
	if err != nil || len(r.Asks()) != 0 || r.Prefix() != 0 {
		t.Errorf("a read of nothing: %v", err)
	}
	if done, err := r.Done(); !done || err != nil {
		t.Errorf("a read of nothing: %v, %v", done, err)
	}
}

// TestShardWithoutReplicas: no answers must not look like all answers.
func TestShardWithoutReplicas(t *testing.T) {
	for _, level := range []Level{One, Quorum, All} {
		var unavailable *UnavailableError
		if _, err := NewWrite(place(1, always), &manualClock{}, level, []Mutation{put("k", "v")}); !errors.As(err, &unavailable) {
			t.Errorf("a write at level %v: %v", level, err)
		}
		if _, err := NewRead(place(1, always), digest, level, [][]byte{[]byte("k")}); !errors.As(err, &unavailable) || !strings.Contains(err.Error(), "has none") {
			t.Errorf("a read at level %v: %v", level, err)
		}
	}
}

// TestAttemptsAreBounded: a write that is beaten every time gives up.
func TestAttemptsAreBounded(t *testing.T) {
	w, err := NewWrite(place(1, always, 1), &manualClock{wall: 100, bound: 1 << 40}, Quorum, []Mutation{put("k", "v")})
	if err != nil {
		t.Fatal(err)
	}
	sends := 0
	for done, _ := w.Done(); !done; done, _ = w.Done() {
		for _, s := range w.Sends() {
			sends++
			w.Answered(s, []Answer{{Outcome: Shadowed, Version: lww.Version{Stamp: s.Entries[0].Stamp + 1, Node: 2}}})
		}
	}
	_, err = w.Done()
	var shadowed *ShadowedError
	if !errors.As(err, &shadowed) || sends != AttemptsMax || shadowed.Attempts != AttemptsMax {
		t.Errorf("after %d sends: %v", sends, err)
	}
}

// failingClock has no stamps after the first ones.
type failingClock struct {
	manualClock
	stamps int
}

func (c *failingClock) Next() (hlc.Stamp, error) {
	if c.stamps--; c.stamps < 0 {
		return 0, hlc.ErrExhausted
	}
	return c.manualClock.Next()
}

// TestClockFails: without a stamp nothing is sent, and what cannot be sent again
// is not OK.
func TestClockFails(t *testing.T) {
	ms := []Mutation{put("a", "v"), put("b", "v")}
	if _, err := NewWrite(place(1, always, 1), &failingClock{stamps: 1}, Quorum, ms); !errors.Is(err, hlc.ErrExhausted) {
		t.Errorf("one stamp for two entries: %v", err)
	}
	w, err := NewWrite(place(1, always, 1), &failingClock{manualClock: manualClock{bound: 10}, stamps: 3}, Quorum, ms)
	if err != nil {
		t.Fatal(err)
	}
	beaten := Answer{Outcome: Shadowed, Version: lww.Version{Stamp: 5, Node: 2}}
	w.Answered(w.Sends()[0], []Answer{beaten, beaten})
	var shadowed *ShadowedError
	if done, err := w.Done(); !done || !errors.As(err, &shadowed) || !errors.Is(err, hlc.ErrExhausted) || string(shadowed.Key) != "b" {
		t.Errorf("one stamp for two entries to be sent again: %v, %v", done, err)
	}
	if again := w.Sends(); len(again) != 1 || len(again[0].Entries) != 1 || string(again[0].Entries[0].Key) != "a" {
		t.Errorf("the entry that was stamped again is not sent: %v", again)
	}
}

// TestMisfits: what does not fit the question counts as a failure, and what was
// never asked changes nothing.
func TestMisfits(t *testing.T) {
	w, err := NewWrite(place(1, always, 1, 2, 3), &manualClock{}, Quorum, []Mutation{put("k", "v")})
	if err != nil {
		t.Fatal(err)
	}
	sends := w.Sends()
	w.Answered(Send{To: 9}, []Answer{{}})
	w.Answered(Send{To: 1, id: 77}, []Answer{{}})
	w.Answered(Send{To: 1, id: -1}, []Answer{{}})
	w.Answered(sends[0], []Answer{{}, {}})
	if done, _ := w.Done(); done {
		t.Fatal("done without an answer")
	}
	w.Answered(sends[1], []Answer{{Outcome: 99}})
	if done, err := w.Done(); !done || !errors.Is(err, errMisfit) {
		t.Errorf("after two answers that do not fit: %v, %v", done, err)
	}

	keys := [][]byte{[]byte("k")}
	found := ReadAnswer{Entries: []Found{{Entry: value("other", "v", 10, 1), OK: true}}}
	for name, ans := range map[string]ReadAnswer{
		"another key": found,
		"too many":    {Entries: []Found{{}, {}}},
		"none":        {},
		"a digest":    {Entries: []Found{{}}, Digests: []DigestAnswer{{}}},
	} {
		r, err := NewRead(place(1, always, 1), digest, One, keys)
		if err != nil {
			t.Fatal(err)
		}
		ask := r.Asks()[0]
		r.Answered(Ask{To: 9}, ans)
		r.Failed(Ask{To: 1, id: 77}, errLost)
		if done, _ := r.Done(); done {
			t.Fatalf("%s: done without an answer", name)
		}
		r.Answered(ask, ans)
		var unavailable *UnavailableError
		if done, err := r.Done(); !done || !errors.As(err, &unavailable) || !errors.Is(err, errMisfit) {
			t.Errorf("%s: %v, %v", name, done, err)
		}
		if _, ok := r.Entry(0); ok {
			t.Errorf("%s: an answer all the same", name)
		}
	}
}

// TestHintsAreNotSends: reporting on a hint changes nothing, whatever its place.
func TestHintsAreNotSends(t *testing.T) {
	w, err := NewWrite(place(1, always, 1, 2, 3), &manualClock{}, One, []Mutation{put("k", "v")})
	if err != nil {
		t.Fatal(err)
	}
	sends := w.Sends()
	w.Answered(sends[0], []Answer{{}})
	w.Failed(sends[1], errLost)
	hints := w.Hints()
	if len(hints) != 1 || hints[0].To != 2 {
		t.Fatalf("hints: %v", hints)
	}
	w.Failed(hints[0], errLost)
	if len(w.Hints()) != 0 || w.Finished() {
		t.Error("a failed hint was taken for a failed send")
	}
	w.Expire()
	w.Expire()
	if hints := w.Hints(); len(hints) != 1 || hints[0].To != 3 || !w.Finished() {
		t.Errorf("after the deadline: %v", hints)
	}
	if done, err := w.Done(); !done || err != nil {
		t.Errorf("the deadline changed what was told: %v, %v", done, err)
	}
}

// TestExpiredBeforeSending: what was not taken before the deadline is not sent
// any more, but owed.
func TestExpiredBeforeSending(t *testing.T) {
	w, err := NewWrite(place(1, always, 1, 2, 3), &manualClock{}, Quorum, []Mutation{put("k", "v")})
	if err != nil {
		t.Fatal(err)
	}
	w.Expire()
	if sends := w.Sends(); len(sends) != 0 {
		t.Errorf("still sent: %v", sends)
	}
	var unknown *UnknownError
	if _, err := w.Done(); !errors.As(err, &unknown) || !errors.Is(err, ErrDeadline) || len(unknown.Missing) != 3 {
		t.Errorf("told: %v", err)
	}
	if hints := w.Hints(); len(hints) != 3 {
		t.Errorf("hints: %v", hints)
	}
}

// TestErrorsAreShort: a key in an error is cut, since keys may be long.
func TestErrorsAreShort(t *testing.T) {
	key := []byte(strings.Repeat("k", lww.MaxKeyBytes))
	for _, err := range []error{
		&UnknownError{Key: key, Need: 2}, &InvalidError{Key: key, Err: errLost},
		&ShadowedError{Key: key, Theirs: lww.Version{ExpiryStamp: 5, ExpiryNode: 3}, Err: errLost},
		&UnavailableError{Op: "read", Replicas: []hlc.NodeID{1}},
	} {
		if text := err.Error(); len(text) > 300 {
			t.Errorf("%T says %d bytes", err, len(text))
		}
	}
	for _, s := range []fmt.Stringer{Put, Delete, Touch, Kind(9), Applied, Shadowed, Rejected, AnswerOutcome(9), Default, Level(9), Written, Superseded, Result(9)} {
		if s.String() == "" {
			t.Errorf("%#v has no name", s)
		}
	}
}
