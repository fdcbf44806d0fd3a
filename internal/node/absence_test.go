package node

import (
	"slices"
	"testing"
	"time"

	"syntropy/hlc"
)

const (
	diskA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	diskB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// ledger is the absence ledger of n1 in a cluster of n1..n, all met once, with
// a gc_grace of an hour.
func ledger(t *testing.T, n int) *absence {
	t.Helper()
	a := reopen(t, nil, n)
	for id := range a.Peers {
		a.contact(id, diskA, 1)
	}
	return a
}

func reopen(t *testing.T, stored []byte, n int) *absence {
	t.Helper()
	var others []hlc.NodeID
	for id := hlc.NodeID(2); int(id) <= n; id++ {
		others = append(others, id)
	}
	a, err := newAbsence(stored, time.Hour, others)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// runs lets n1 run for some ten-minute ticks in contact with the given members.
func runs(a *absence, ticks int, with ...hlc.NodeID) (died []hlc.NodeID) {
	for range ticks {
		died = append(died, a.tick(10*time.Minute, func(id hlc.NodeID) bool { return slices.Contains(with, id) })...)
	}
	return died
}

func dead(a *absence, id hlc.NodeID) bool {
	_, refused := a.refusal(id, diskA, StateLive, false)
	return refused
}

// TestAbsenceVerdict: longer than gc_grace away, and not a tick earlier.
func TestAbsenceVerdict(t *testing.T) {
	a := ledger(t, 3)
	if died := runs(a, 6, 2); len(died) > 0 || dead(a, 3) {
		t.Fatalf("away for exactly gc_grace: died %v", died)
	}
	if died := runs(a, 1, 2); !slices.Equal(died, []hlc.NodeID{3}) || !dead(a, 3) {
		t.Fatalf("away for longer: died %v", died)
	}
	if died := runs(a, 10, 2); len(died) > 0 {
		t.Fatalf("the verdict was given again: %v", died)
	}
	if dead(a, 2) {
		t.Fatal("a member in contact died")
	}
	text, _ := a.refusal(3, diskA, StateLive, false)
	wantWords(t, text, "n3", "gc_grace (1h0m0s)", "deleted keys back")
}

// TestAbsenceNeedsMajority: the smaller side of a partition judges nobody, and
// half is not a majority.
func TestAbsenceNeedsMajority(t *testing.T) {
	for _, tc := range []struct {
		members int
		with    []hlc.NodeID
		verdict bool
	}{
		{3, nil, false},
		{3, []hlc.NodeID{2}, true},
		{4, []hlc.NodeID{2}, false},
		{4, []hlc.NodeID{2, 3}, true},
		{5, []hlc.NodeID{2}, false},
		{5, []hlc.NodeID{2, 3}, true},
		{2, nil, false},
	} {
		a := ledger(t, tc.members)
		runs(a, 1000, tc.with...)
		if got := dead(a, hlc.NodeID(tc.members)); got != tc.verdict {
			t.Errorf("%d members, in contact with %v: verdict %v, want %v", tc.members, tc.with, got, tc.verdict)
		}
	}
}

// TestAbsenceMajorityReturns: time without a majority counts, the verdict falls
// when the majority is back; a member that comes back first is not judged.
func TestAbsenceMajorityReturns(t *testing.T) {
	a := ledger(t, 3)
	runs(a, 100)
	if died := runs(a, 1, 2); !slices.Equal(died, []hlc.NodeID{3}) {
		t.Fatalf("died: %v", died)
	}
	if dead(a, 2) {
		t.Fatal("n2 came back before any verdict and is dead all the same")
	}
}

// TestAbsenceCountsRunningTime: a stopped cluster that starts after a month has
// missed nothing, and a clock that jumps declares nobody dead.
func TestAbsenceCountsRunningTime(t *testing.T) {
	a := ledger(t, 3)
	a.alive(noon)
	runs(a, 3, 2)
	b := reopen(t, a.encode(), 3)
	died := b.tick(10*time.Minute, func(id hlc.NodeID) bool { return id == 2 })
	if len(died) > 0 || b.Peers[3].Unseen != 40*time.Minute {
		t.Fatalf("after a month: died %v, unseen %v", died, b.Peers[3].Unseen)
	}
	if away := b.awayFor(noon.AddDate(0, 1, 0)); away != 30*24*time.Hour {
		t.Fatalf("this node itself was away for %v", away)
	}
	if fresh := reopen(t, nil, 3); fresh.awayFor(noon) != 0 {
		t.Fatal("a new node was away")
	}
}

// TestAbsenceContactResets: any contact starts the count anew.
func TestAbsenceContactResets(t *testing.T) {
	a := ledger(t, 3)
	for range 100 {
		runs(a, 6, 2)
		a.contact(3, diskA, 1)
	}
	if dead(a, 3) {
		t.Fatal("a member that comes by every hour is dead")
	}
}

// TestAbsenceVerdictStands: over a restart, and over contact by itself; it ends
// with an empty disk only.
func TestAbsenceVerdictStands(t *testing.T) {
	a := ledger(t, 3)
	runs(a, 7, 2)
	a = reopen(t, a.encode(), 3)
	runs(a, 5, 2, 3)
	for _, state := range []string{StateLive, StateJoining, StateChecking} {
		if _, refused := a.refusal(3, diskA, state, false); !refused {
			t.Fatalf("the disk that was away is let in as %s", state)
		}
	}
	if _, refused := a.refusal(3, diskB, StateLive, false); !refused {
		t.Fatal("another disk that is not being filled is let in")
	}
	if text, refused := a.refusal(3, diskB, StateJoining, false); refused {
		t.Fatal("an empty disk is refused: ", text)
	}
	a.contact(3, diskB, 1)
	a = reopen(t, a.encode(), 3)
	if _, refused := a.refusal(3, diskB, StateLive, false); refused {
		t.Fatal("the new disk is refused once it is filled")
	}
	if _, refused := a.refusal(3, diskA, StateLive, false); !refused {
		t.Fatal("the old disk is let in after the new one")
	}
}

// TestAbsenceRestoredCopy: a disk that nobody knows and that claims to be full
// is a copy or a mix-up.
func TestAbsenceRestoredCopy(t *testing.T) {
	a := ledger(t, 3)
	text, refused := a.refusal(2, diskB, StateLive, false)
	if !refused {
		t.Fatal("it is let in")
	}
	wantWords(t, text, "n2", "another data directory", "copied, restored or mixed up")
	if _, refused := reopen(t, nil, 3).refusal(2, diskB, StateLive, false); refused {
		t.Fatal("a member is refused at the first contact ever")
	}
}

func TestAbsenceMalformed(t *testing.T) {
	if _, err := newAbsence([]byte("{"), time.Hour, nil); err == nil {
		t.Fatal("a malformed ledger is taken for an empty one")
	}
}

// TestSuccession: a disk that came after the known one may return filled; one that
// came before may not.
func TestSuccession(t *testing.T) {
	a := reopen(t, nil, 3)
	a.contact(3, diskA, 1)
	for _, tc := range []struct {
		name, incarnation, replaces, named string
		version                            uint64
		want                               bool
	}{
		{"it says what it replaces", diskB, diskA, diskA, 1, true},
		{"a newer topology names it", diskB, "", diskB, 2, true},
		{"it replaces another disk", diskB, "another", diskA, 2, false},
		{"nobody knows it", diskB, "", diskA, 2, false},
	} {
		if got := a.succeeds(3, tc.incarnation, tc.replaces, tc.named, tc.version); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	a.contact(3, diskB, 1) // it was met before the topology named it
	if a.succeeds(3, diskA, "", diskA, 1) {
		t.Error("the old disk passes for the successor of the new one")
	}
}
