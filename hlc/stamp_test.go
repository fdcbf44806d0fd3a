package hlc_test

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syntropy/hlc"
)

// TestStampFollowsTime: stamps order as the times they are made of, for any
// time that can be written down, and time comes back to the microsecond.
func TestStampFollowsTime(t *testing.T) {
	times := rapid.Custom(func(t *rapid.T) time.Time {
		sec := rapid.OneOf(
			rapid.Int64Range(-10, 10),                              // 1970
			rapid.Int64Range(1<<52/1_000_000-2, 1<<52/1_000_000+2), // 2112, where stamps end
			rapid.Int64Range(0, 1<<52/1_000_000),
			rapid.Int64Range(-1<<60, 1<<60), // far beyond what microseconds can count
		).Draw(t, "sec")
		return time.Unix(sec, rapid.Int64Range(0, 1e9-1).Draw(t, "nsec"))
	})
	first, end := time.UnixMicro(0), time.UnixMicro(1<<52)
	rapid.Check(t, func(t *rapid.T) {
		a, b := times.Draw(t, "a"), times.Draw(t, "b")
		sa, sb := hlc.FromTime(a), hlc.FromTime(b)
		if a.Before(b) && sa > sb {
			t.Fatalf("%v is before %v, but stamp %#x is after %#x", a, b, uint64(sa), uint64(sb))
		}
		switch {
		case !a.After(first):
			if sa != 0 {
				t.Fatalf("%v: %#x, want 0", a, uint64(sa))
			}
		case !a.Before(end):
			if sa != hlc.Max {
				t.Fatalf("%v: %#x, want Max", a, uint64(sa))
			}
		default:
			if got, want := sa.Time(), a.UTC().Truncate(time.Microsecond); !got.Equal(want) || sa.Logical() != 0 {
				t.Fatalf("%v: the stamp says %v+%d", want, got, sa.Logical())
			}
		}
	})
}

// TestStampArithmetic: Add and Sub are inverse as long as nothing saturates,
// and saturate at the ends instead of wrapping round.
func TestStampArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := hlc.Stamp(rapid.Uint64().Draw(t, "stamp"))
		d := time.Duration(rapid.OneOf(
			rapid.Int64Range(-1e6, 1e6),
			rapid.Int64(),
		).Draw(t, "d")).Truncate(time.Microsecond)
		moved := s.Add(d)
		switch {
		case d >= 0 && moved < s, d <= 0 && moved > s:
			t.Fatalf("%#x moved by %v is %#x", uint64(s), d, uint64(moved))
		case moved == 0 || moved == hlc.Max:
			// saturated
		default:
			if moved.Sub(s) != d || moved.Logical() != s.Logical() {
				t.Fatalf("%#x moved by %v is %#x", uint64(s), d, uint64(moved))
			}
		}
	})
	if got := hlc.Stamp(0).Add(-time.Hour); got != 0 {
		t.Errorf("an hour before zero is %v", got)
	}
	if got := hlc.Max.Add(math.MaxInt64); got != hlc.Max {
		t.Errorf("past the end is %v", got)
	}
	if got := hlc.Max.Sub(0); got <= 0 {
		t.Errorf("from zero to Max is %v", got)
	}
}

func TestStampString(t *testing.T) {
	at := hlc.FromTime(time.Date(2026, 11, 22, 9, 30, 0, 125_000, time.FixedZone("elsewhere", 3600)))
	for _, tc := range []struct {
		stamp hlc.Stamp
		want  string
	}{
		{0, "never"},
		{at, "2026-11-22T08:30:00.000125Z"},
		{at + 3, "2026-11-22T08:30:00.000125Z+3"},
		{hlc.Max, "2112-09-17T23:53:47.370495Z+4095"},
	} {
		if got := tc.stamp.String(); got != tc.want {
			t.Errorf("%#x prints as %q, want %q", uint64(tc.stamp), got, tc.want)
		}
	}
	// What is printed names the stamp: reading it gives the stamp again.
	rapid.Check(t, func(t *rapid.T) {
		s := hlc.Stamp(rapid.Uint64Range(1, math.MaxUint64).Draw(t, "stamp"))
		text, counter, _ := strings.Cut(s.String(), "+")
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if counter != "" {
			if n, err = strconv.Atoi(counter); err != nil {
				t.Fatal(err)
			}
		}
		if got := hlc.FromTime(at) + hlc.Stamp(n); got != s {
			t.Fatalf("%#x printed as %v, which is %#x", uint64(s), s, uint64(got))
		}
	})
}

func TestNodeID(t *testing.T) {
	for id := 1; id <= math.MaxUint16; id++ {
		n := hlc.NodeID(id)
		if got, err := hlc.ParseNodeID(n.String()); err != nil || got != n {
			t.Fatalf("%v read back: %v, %v", n, got, err)
		}
	}
	if n, err := hlc.ParseNodeID("7"); err != nil || n != 7 {
		t.Errorf("a bare number: %v, %v", n, err)
	}
	for _, bad := range []string{"", "n", "n0", "0", "n65536", "-1", "nn1", "n1 ", " n1", "n+1", "1n", "n1.0", "node1", "n0x1"} {
		if n, err := hlc.ParseNodeID(bad); err == nil {
			t.Errorf("%q was read as %v", bad, n)
		}
	}
	var doc struct{ Node hlc.NodeID }
	if err := json.Unmarshal([]byte(`{"Node":"n12"}`), &doc); err != nil || doc.Node != 12 {
		t.Errorf("from JSON: %v, %v", doc, err)
	}
	if text, err := json.Marshal(doc); err != nil || string(text) != `{"Node":"n12"}` {
		t.Errorf("to JSON: %s, %v", text, err)
	}
	doc.Node = 3
	if err := json.Unmarshal([]byte(`{"Node":"n0"}`), &doc); err == nil || doc.Node != 3 {
		t.Errorf("a node that cannot be, from JSON: %v, %v", doc, err)
	}
}
