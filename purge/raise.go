package purge

import (
	"cmp"
	"slices"
	"time"

	"syntropy/hlc"
)

// Member is another node that holds a replica of the shard, in any active version of
// the topology, as this one last heard of it.
type Member struct {
	Node    hlc.NodeID
	Replica Incarnation // 0: never heard of
	Serving bool        // it was live; false while it is being rebuilt
	// Unreached is for how long it was not reached by this node, counting only time
	// that this node was running.
	Unreached time.Duration
	// ClockOff: when it was last reached its clock differed by more than the bound.
	ClockOff bool
}

// Obstacle is why a cut does not rise further.
type Obstacle int

const (
	// Young: nothing older than gc_grace is left to be purged.
	Young Obstacle = iota
	// Unproven: there is no session with the member that counts.
	Unproven
	// OldSession: the last session with the member began too long ago: what was
	// written since, or was on its way, is not proven by it.
	OldSession
	// OldCut: the last session with the member began at an earlier cut.
	OldCut
	// Applied: something that is to be purged was applied here after the last session
	// with the member began.
	Applied
	// TooFew: not enough live replicas are in the proof.
	TooFew
	// ClockOff: the clock of the member differs by more than the bound.
	ClockOff
)

// String says it to an operator.
func (o Obstacle) String() string {
	switch o {
	case Young:
		return "younger than gc-grace"
	case Unproven:
		return "no complete session"
	case OldSession:
		return "the last session is too old"
	case OldCut:
		return "no session since the last purge"
	case Applied:
		return "deletes arrived here since the last session"
	case TooFew:
		return "too few live replicas are proven"
	case ClockOff:
		return "clocks differ"
	}
	return "unknown"
}

// Hold is one thing that holds a cut back.
type Hold struct {
	Obstacle Obstacle
	Node     hlc.NodeID // 0 where no single member is the reason
	// At is what the cut could be at most, if this were the only obstacle.
	At hlc.Stamp
	// Since is when the last session with the member began; 0: there is none.
	Since hlc.Stamp
}

// Late answers: of everything held here that CoverStamp puts at or under a limit, and
// that was applied here after a position, what is the lowest cover stamp? ok is false
// if there is none. It includes exceptions to the present cut.
type Late func(after Position, limit hlc.Stamp) (lowest hlc.Stamp, ok bool)

// Raise returns the highest cut that this replica can prove, and what holds it back.
// The replica must be live. If the cut does not rise, rose is false and the state the
// same. The state is to be stored before anything is removed.
//
// With every member, except those that are long dead, a session must have completed
// that began at the present cut of this replica, with snapshots taken after everything
// stamped at or under the new cut had arrived wherever it ever will, and after
// everything held here and to be purged had been applied here. Then every such
// tombstone is everywhere: each one reached this replica in some session, and went on
// to all others in later ones.
//
// The members in the proof, this replica included and those that are being rebuilt not
// counted, must be a majority.
func (s State) Raise(members []Member, l Limits, now hlc.Stamp, late Late) (next State, rose bool, holds []Hold) {
	limit := now.Add(-l.Grace)
	holds = append(holds, Hold{Obstacle: Young, At: limit})
	var (
		set      []Proven
		earliest = Position(1<<64 - 1)
		serving  = 1
		excluded = 0
		blocked  = false
	)
	hold := func(h Hold) {
		holds = append(holds, h)
		blocked = true
	}
	for _, m := range members {
		if m.ClockOff {
			hold(Hold{Obstacle: ClockOff, Node: m.Node, At: s.Cut.At})
			continue
		}
		if s.longDead(m, members, l) {
			excluded++
			continue
		}
		r := s.pair(m.Replica).Confirmed
		switch {
		case m.Replica == 0 || r.Session == Session{}:
			hold(Hold{Obstacle: Unproven, Node: m.Node, At: s.Cut.At})
			continue
		case r.Cut != s.Cut.At:
			hold(Hold{Obstacle: OldCut, Node: m.Node, At: s.Cut.At, Since: r.Time})
			continue
		}
		// Strictly after: the stamp before the first one that could still arrive.
		at := r.Time.Add(-l.Arrival())
		if at > 0 {
			at--
		}
		holds = append(holds, Hold{Obstacle: OldSession, Node: m.Node, At: at, Since: r.Time})
		limit = min(limit, at)
		if lowest, ok := late(r.Position, limit); ok {
			holds = append(holds, Hold{Obstacle: Applied, Node: m.Node, At: lowest - 1, Since: r.Time})
			limit = lowest - 1
		}
		earliest = min(earliest, r.Position)
		if m.Serving {
			serving++
		}
		set = append(set, Proven{m.Replica, r.Session, r.Theirs})
	}
	if excluded > l.Excluded || 2*serving <= len(members)+1 {
		hold(Hold{Obstacle: TooFew, At: s.Cut.At})
	}
	slices.SortStableFunc(holds, func(a, b Hold) int { return cmp.Compare(a.At, b.At) })
	if blocked || limit <= s.Cut.At {
		return s, false, holds
	}
	slices.SortFunc(set, func(a, b Proven) int { return cmp.Compare(a.Replica, b.Replica) })
	s.Cut, s.Upto = Cut{At: limit, Raiser: s.Self, Set: set}, earliest
	return s, true, holds
}

// longDead reports whether a majority of the shard's replicas have not reached a
// member for longer than gc_grace: this one now, and this one and each of the others
// when the session of the two began that proves something to this one.
func (s State) longDead(m Member, members []Member, l Limits) bool {
	if m.Unreached <= l.Grace {
		return false
	}
	votes := 1
	for _, other := range members {
		if other.Node == m.Node || other.Replica == 0 {
			continue
		}
		if r := s.pair(other.Replica).Confirmed; r.Cut == s.Cut.At && slices.Contains(r.Unreached, m.Node) {
			votes++
		}
	}
	return 2*votes > len(members)+1
}
