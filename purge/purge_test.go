package purge_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/purge"
)

// The cluster of these tests: replicas 1, 2 and 3 on nodes n1, n2 and n3, in seconds.
var limits = purge.Limits{
	Grace: 100 * time.Second, HintWindow: 10 * time.Second, Settle: 3 * time.Second,
	Deadline: 2 * time.Second, Skew: time.Second, Excluded: 1,
}

func at(seconds int) hlc.Stamp { return hlc.FromTime(time.Unix(int64(seconds), 0)) }

func members(ids ...purge.Incarnation) (ms []purge.Member) {
	for _, id := range ids {
		ms = append(ms, purge.Member{Node: hlc.NodeID(id), Replica: id, Serving: true})
	}
	return ms
}

// met returns a pair of states after a complete session.
func met(t *testing.T, a, b purge.State, mine, theirs purge.Snapshot) (purge.State, purge.State) {
	t.Helper()
	ra, err := purge.Open(a, b, mine, theirs, 7)
	if err != nil {
		t.Fatal(err)
	}
	rb, err := purge.Open(b, a, theirs, mine, 7)
	if err != nil {
		t.Fatal(err)
	}
	b2, err := b.Complete(b.Self, a.Self, rb, purge.Partner)
	if err != nil {
		t.Fatal(err)
	}
	a2, err := a.Complete(a.Self, b.Self, ra, purge.Initiator)
	if err != nil {
		t.Fatal(err)
	}
	return a2, purge.Settle(b2, a2)
}

func none(purge.Position, hlc.Stamp) (hlc.Stamp, bool) { return 0, false }

func snap(p purge.Position, seconds int) purge.Snapshot {
	return purge.Snapshot{Position: p, Time: at(seconds)}
}

// TestOnePurge is the life of one tombstone, stamped at second 1000 and applied by
// replica 1 as its commit 5, from the sessions that prove it to a purge everywhere.
func TestOnePurge(t *testing.T) {
	a, b, c := purge.State{Self: 1}, purge.State{Self: 2}, purge.State{Self: 3}
	late := func(after purge.Position, limit hlc.Stamp) (hlc.Stamp, bool) {
		return at(1000), after < 5 && limit >= at(1000)
	}
	holder := func(holds []purge.Hold, o purge.Obstacle, n hlc.NodeID) bool {
		return slices.ContainsFunc(holds, func(h purge.Hold) bool { return h.Obstacle == o && h.Node == n })
	}

	// Nothing is proven.
	if _, rose, holds := a.Raise(members(2, 3), limits, at(2000), late); rose || !holder(holds, purge.Unproven, 2) || !holder(holds, purge.Unproven, 3) {
		t.Fatalf("rose %v; holds %v", rose, holds)
	}
	a, b = met(t, a, b, snap(5, 1100), snap(50, 1101))
	// The one with replica 3 began before the tombstone was applied here.
	a, c = met(t, a, c, snap(4, 1110), snap(70, 1110))
	next, rose, holds := a.Raise(members(2, 3), limits, at(2000), late)
	if !rose || next.Cut.At >= at(1000) || !holder(holds, purge.Applied, 3) {
		t.Fatalf("rose to %v over a tombstone that replica 3 may not have; holds %v", next.Cut.At, holds)
	}
	a, c = met(t, a, c, snap(6, 1120), snap(71, 1125))

	// Until grace has passed it only rises to what is older.
	if next, _, holds := a.Raise(members(2, 3), limits, at(1050), late); next.Cut.At != at(950) || holds[0].Obstacle != purge.Young {
		t.Fatalf("rose to %v; %v", next.Cut.At, holds)
	}
	// Then to all that had arrived when the older session began.
	raised, rose, holds := a.Raise(members(2, 3), limits, at(2000), late)
	if want := at(1100-16) - 1; !rose || raised.Cut.At != want || holds[0].Node != 2 || holds[0].Obstacle != purge.OldSession || raised.Upto != 5 {
		t.Fatalf("rose to %v, want %v; upto %d; %v", raised.Cut.At, want, raised.Upto, holds)
	}
	tombstone := lww.Version{Stamp: at(1000), Tombstone: true}
	if !raised.Covered(tombstone, 5) || raised.Covered(tombstone, 6) || a.Covered(tombstone, 5) {
		t.Fatal("it covers the wrong things")
	}
	// With what it had before it cannot rise twice.
	if _, rose, holds := raised.Raise(members(2, 3), limits, at(3000), none); rose || !holder(holds, purge.OldCut, 2) {
		t.Fatalf("rose again; %v", holds)
	}

	// The others take it over, each up to where it was when its session began.
	for _, r := range []struct {
		s    purge.State
		upto purge.Position
	}{{b, 50}, {c, 71}} {
		if st, _ := purge.Meet(raised, r.s); st != purge.Ahead {
			t.Fatalf("the raiser is %v", st)
		}
		if _, err := purge.Open(r.s, raised, snap(99, 2000), snap(9, 2000), 1); !errors.Is(err, purge.ErrCuts) {
			t.Fatalf("a session across unequal cuts: %v", err)
		}
		if st, why := purge.Meet(r.s, raised); st != purge.Adopt {
			t.Fatalf("replica %d: %v, %v", r.s.Self, st, why)
		}
		got := r.s.Adopt(raised.Cut)
		if got.Upto != r.upto || got.Cut.Raiser != 1 {
			t.Fatalf("replica %d adopted %+v", r.s.Self, got)
		}
		if st, _ := purge.Meet(got, raised); st != purge.Fit {
			t.Fatalf("then it is %v", st)
		}
	}
}

// TestWhoMustBeRebuilt: each way not to be the replica that a cut speaks of.
func TestWhoMustBeRebuilt(t *testing.T) {
	a, b, c := purge.State{Self: 1}, purge.State{Self: 2}, purge.State{Self: 3}
	oldA, oldB := a, b
	a, b = met(t, a, b, snap(1, 1000), snap(1, 1000))
	midB := b
	a, b = met(t, a, b, snap(2, 1100), snap(2, 1100))
	a, c = met(t, a, c, snap(3, 1100), snap(1, 1100))
	raised, rose, _ := a.Raise(members(2, 3), limits, at(2000), none)
	if !rose {
		t.Fatal("nothing to test with")
	}
	c = c.Adopt(raised.Cut)
	for _, tc := range []struct {
		name     string
		me, them purge.State
		want     purge.Reason
	}{
		{"a new disk", purge.State{Self: 9}, raised, purge.NotProven},
		{"a restored raiser, by one that was rebuilt since", oldA, purge.Rebuilt(9, c), purge.OwnCut},
		{"an old disk, by another that adopted", midB, c, purge.SessionLost},
		{"an old disk that never had a session, by another", oldB, c, purge.SessionLost},
		{"an old disk, by the one that it had a session with", midB, a, purge.WentBack},
		{"an old raiser, by the one that it had a session with", oldA, b, purge.WentBack},
	} {
		if st, why := purge.Meet(tc.me, tc.them); st != purge.Rebuild || why != tc.want {
			t.Errorf("%s: %v, %v", tc.name, st, why)
		}
	}
	fresh := purge.Rebuilt(10, c)
	if st, why := purge.Meet(fresh, raised); st != purge.Fit {
		t.Errorf("rebuilt: %v, %v", st, why)
	}
	if fresh.Joined(members(1, 3)) {
		t.Error("joined without a session")
	}
	fresh, raised = met(t, fresh, raised, snap(1, 2000), snap(9, 2000))
	fresh, _ = met(t, fresh, c, snap(1, 2000), snap(9, 2000))
	if !fresh.Joined(members(1, 3)) {
		t.Error("not joined after both sessions")
	}
}

// TestLastMessageLost: what the partner of a session recorded is of use when the initiator
// says that it has recorded it too, and not before.
func TestLastMessageLost(t *testing.T) {
	a, b := purge.State{Self: 1}, purge.State{Self: 2}
	ra, _ := purge.Open(a, b, snap(1, 1000), snap(1, 1000), 7)
	rb, _ := purge.Open(b, a, snap(1, 1000), snap(1, 1000), 7)
	b, _ = b.Complete(2, 1, rb, purge.Partner)
	if got := purge.Settle(b, a); got.Pairs[0].Confirmed.Session.Seq != 0 {
		t.Fatal("confirmed by one who has no record of it")
	}
	if st, why := purge.Meet(a, b); st != purge.Fit {
		t.Fatalf("the initiator lost nothing: %v, %v", st, why)
	}
	recorded, _ := a.Complete(1, 2, ra, purge.Initiator)
	if got := purge.Settle(b, recorded); got.Pairs[0].Confirmed.Session != rb.Session || got.Pairs[0].Pending.Session.Seq != 0 {
		t.Fatalf("not confirmed: %+v", got.Pairs[0])
	}
	// The next one has another number on both sides, recorded or not.
	next, _ := purge.Open(a, b, snap(1, 1000), snap(1, 1000), 8)
	if next.Session.Seq != 2 {
		t.Fatalf("the next session is %v", next.Session)
	}
	if _, err := b.Complete(2, 1, rb, purge.Partner); !errors.Is(err, purge.ErrMoved) {
		t.Fatalf("recorded twice: %v", err)
	}
}

// TestOldPendingRecord: what was pending when a later session completed is not confirmed
// any more, or the ledger would seem to have gone back in time.
func TestOldPendingRecord(t *testing.T) {
	a, b := purge.State{Self: 1}, purge.State{Self: 2}
	ra, _ := purge.Open(a, b, snap(1, 1000), snap(1, 1000), 7)
	rb, _ := purge.Open(b, a, snap(1, 1000), snap(1, 1000), 7)
	b, _ = b.Complete(2, 1, rb, purge.Partner)
	a, _ = a.Complete(1, 2, ra, purge.Initiator)
	later, err := purge.Open(b, a, snap(2, 1100), snap(2, 1100), 8)
	if err != nil {
		t.Fatal(err)
	}
	b, err = b.Complete(2, 1, later, purge.Initiator)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := purge.Settle(b, a).Pair(1); got.Confirmed.Session != later.Session {
		t.Fatalf("after session %v it has %v", later.Session, got.Confirmed.Session)
	}
}

// TestLongDead: one is left out of a proof if a majority has not reached it, and no more
// than may be.
func TestLongDead(t *testing.T) {
	gone := limits.Grace + time.Second
	for _, tc := range []struct {
		name   string
		unseen time.Duration // by replica 1, now
		mine   []hlc.NodeID  // not reached by replica 1 when it had its session with 2
		votes  []hlc.NodeID  // not reached by replica 2 then
		allow  int           // replicas excluded
		rises  bool
	}{
		{"by both", gone, []hlc.NodeID{3}, []hlc.NodeID{3}, 1, true},
		{"by this one alone", gone, []hlc.NodeID{3}, nil, 1, false},
		{"by the other alone", time.Second, nil, []hlc.NodeID{3}, 1, false},
		{"by the other first and then by this one", gone, nil, []hlc.NodeID{3}, 1, false},
		{"by both until lately", time.Second, []hlc.NodeID{3}, []hlc.NodeID{3}, 1, false},
		{"by both, and none may be", gone, []hlc.NodeID{3}, []hlc.NodeID{3}, 0, false},
	} {
		a, b := purge.State{Self: 1}, purge.State{Self: 2}
		mine, theirs := snap(1, 1000), snap(1, 1000)
		mine.Unreached, theirs.Unreached = tc.mine, tc.votes
		a, _ = met(t, a, b, mine, theirs)
		ms, l := members(2, 3), limits
		ms[1].Unreached, l.Excluded = tc.unseen, tc.allow
		if _, rose, holds := a.Raise(ms, l, at(2000), none); rose != tc.rises {
			t.Errorf("%s: rose %v; %v", tc.name, rose, holds)
		}
		ms[0].ClockOff = true
		if _, rose, _ := a.Raise(ms, l, at(2000), none); rose {
			t.Errorf("%s: rose while clocks differ", tc.name)
		}
	}
}

// TestFence: what is let in where a key is absent, and where it is not.
func TestFence(t *testing.T) {
	s := purge.State{Self: 1, Cut: purge.Cut{At: at(1000), Raiser: 2}}
	under, above := lww.Version{Stamp: at(999)}, lww.Version{Stamp: at(1001)}
	touched := lww.Version{Stamp: at(999), ExpiryStamp: at(1500), ExpiryNode: 1}
	now := at(1500)
	for _, tc := range []struct {
		name    string
		from    purge.Source
		v       lww.Version
		present bool
		now     hlc.Stamp
		want    error
	}{
		{"read repair under the cut", purge.ReadRepair, under, false, now, purge.ErrPurged},
		{"read repair under the cut, key present", purge.ReadRepair, under, true, now, nil},
		{"read repair above the cut", purge.ReadRepair, above, false, now, nil},
		{"an old value with a new expiry", purge.ReadRepair, touched, false, now, purge.ErrPurged},
		{"the same from a client", purge.Client, touched, false, now, purge.ErrPurged},
		{"an offer under the cut", purge.Offer, under, false, now, purge.ErrPurged},
		{"a session under the cut", purge.Exchange, under, false, now, nil},
		{"an old hint", purge.Hint, above, true, at(1015), purge.ErrLate},
		{"a hint in time", purge.Hint, above, false, at(1014), nil},
		{"a hint in time by a clock that is behind", purge.Hint, under, false, at(1000), purge.ErrPurged},
	} {
		if err := s.Admit(tc.from, tc.v, tc.present, tc.now, limits); !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// TestReadAcrossUnequalCuts: a value that a replica with a higher cut does not have.
func TestReadAcrossUnequalCuts(t *testing.T) {
	value := func(cut, stamp int) purge.Reply {
		return purge.Reply{Cut: at(cut), Found: true, Version: lww.Version{Stamp: at(stamp)}}
	}
	absent := func(cut int) purge.Reply { return purge.Reply{Cut: at(cut)} }
	for _, tc := range []struct {
		name           string
		r, other       purge.Reply
		answer, repair bool
	}{
		{"it may have forgotten the delete", value(0, 5), absent(9), false, false},
		{"it cannot have", value(0, 5), absent(4), true, true},
		{"it has an older value, so there was no delete", value(0, 5), value(9, 3), true, true},
		{"equal cuts: it lost it, which a session heals", value(9, 5), absent(9), true, false},
		{"the one that has it is ahead", value(9, 5), absent(3), true, true},
	} {
		if got := purge.Judge(tc.r, []purge.Reply{tc.other}); got != tc.answer {
			t.Errorf("%s: answered: %v", tc.name, got)
		}
		if got := purge.Repairable(tc.r, tc.other); got != tc.repair {
			t.Errorf("%s: repaired: %v", tc.name, got)
		}
	}
}

// TestCoverStamp: what can be forgotten, and from when.
func TestCoverStamp(t *testing.T) {
	for _, tc := range []struct {
		name string
		v    lww.Version
		want hlc.Stamp
	}{
		{"a value", lww.Version{Stamp: at(5)}, 0},
		{"a tombstone", lww.Version{Stamp: at(5), Tombstone: true}, at(5)},
		{"a value that expires later", lww.Version{Stamp: at(5), ExpiryStamp: at(5), Expires: 9000}, at(9)},
		{"one whose expiry is touched later still", lww.Version{Stamp: at(5), ExpiryStamp: at(20), Expires: 9000}, at(20)},
		{"one that does not expire any more", lww.Version{Stamp: at(5), ExpiryStamp: at(20)}, 0},
	} {
		if got, ok := purge.CoverStamp(tc.v); got != tc.want || ok != (tc.want != 0) {
			t.Errorf("%s: %v, %v", tc.name, got, ok)
		}
	}
}

// TestLimits: a grace in which a write can still be on its way is refused.
func TestLimits(t *testing.T) {
	if err := limits.Validate(); err != nil {
		t.Error(err)
	}
	short := limits
	if short.Grace = limits.Arrival(); !errors.Is(short.Validate(), purge.ErrGrace) {
		t.Error("a grace that is too short was accepted")
	}
	negative := limits
	if negative.Settle = -time.Second; negative.Validate() == nil {
		t.Error("a negative window was accepted")
	}
}

// TestPrune: members are kept, and of the others the latest.
func TestPrune(t *testing.T) {
	s := purge.State{Self: 1}
	for id := purge.Incarnation(2); id < 50; id++ {
		s, _ = met(t, s, purge.State{Self: id}, snap(1, int(id)), snap(1, int(id)))
	}
	s = s.Prune(func(id purge.Incarnation) bool { return id == 2 })
	_, member := s.Pair(2)
	_, oldest := s.Pair(3)
	_, latest := s.Pair(49)
	if len(s.Pairs) != purge.MaxPairs || !member || oldest || !latest {
		t.Errorf("%d pairs are left; member %v, oldest %v, latest %v", len(s.Pairs), member, oldest, latest)
	}
}

// TestStart: who may serve reads when.
func TestStart(t *testing.T) {
	for _, tc := range []struct {
		stored purge.Mode
		marked bool
		want   purge.Mode
	}{
		{purge.Live, false, purge.Unchecked},
		{purge.Live, true, purge.Condemned},
		{purge.Joining, false, purge.Joining},
		{purge.Condemned, false, purge.Condemned},
		{purge.Unchecked, false, purge.Unchecked},
	} {
		if got := purge.Started(tc.stored, tc.marked); got != tc.want {
			t.Errorf("stored %v, marked %v: %v", tc.stored, tc.marked, got)
		}
	}
	if purge.Checked(0, 3) || !purge.Checked(1, 3) || !purge.Checked(0, 1) || purge.Checked(1, 4) {
		t.Error("Checked counts wrongly")
	}
}

// TestStanding: replicas with the same standing are fit, with nothing to settle.
func TestStanding(t *testing.T) {
	equal := func(a, b purge.State) bool {
		return bytes.Equal(a.AppendStanding(nil, b.Self), b.AppendStanding(nil, a.Self))
	}
	a, b := purge.State{Self: 1}, purge.State{Self: 2}
	ra, _ := purge.Open(a, b, snap(1, 1000), snap(1, 1000), 7)
	rb, _ := purge.Open(b, a, snap(1, 1000), snap(1, 1000), 7)
	pending, _ := b.Complete(2, 1, rb, purge.Partner)
	recorded, _ := a.Complete(1, 2, ra, purge.Initiator)
	raised := recorded
	raised.Cut = purge.Cut{At: at(5), Raiser: 1}
	for _, tc := range []struct {
		name string
		a, b purge.State
		want bool
	}{
		{"nothing yet", a, b, true},
		{"the partner has recorded", a, pending, false},
		{"the initiator too", recorded, pending, false},
		{"and it is settled", recorded, purge.Settle(pending, recorded), true},
		{"one has another cut", raised, purge.Settle(pending, recorded), false},
		{"one went back", recorded, b, false},
		{"one was rebuilt", recorded, purge.State{Self: 3}, true},
	} {
		if got := equal(tc.a, tc.b); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		sessions := rapid.Custom(func(t *rapid.T) purge.Record {
			return purge.Record{Session: purge.Session{Seq: rapid.Uint64Range(0, 2).Draw(t, "seq")}}
		})
		draw := func(self, with purge.Incarnation) purge.State {
			return purge.State{Self: self, Cut: purge.Cut{At: hlc.Stamp(rapid.Uint64Range(0, 1).Draw(t, "cut")), Raiser: 1},
				Pairs: []purge.Pair{{With: with, Confirmed: sessions.Draw(t, "confirmed"), Pending: sessions.Draw(t, "pending")}}}
		}
		a, b := draw(1, 2), draw(2, 1)
		if !equal(a, b) || a.Pairs[0].Pending.Session == a.Pairs[0].Confirmed.Session {
			return
		}
		for _, p := range [][2]purge.State{{a, b}, {b, a}} {
			if st, why := purge.Meet(p[0], p[1]); st != purge.Fit {
				t.Fatalf("%+v and %+v: %v, %v", p[0], p[1], st, why)
			}
			if got := purge.Settle(p[0], p[1]); got.Pairs[0].Confirmed.Session != p[0].Pairs[0].Confirmed.Session {
				t.Fatalf("%+v settled with %+v", p[0], p[1])
			}
		}
	})
}
