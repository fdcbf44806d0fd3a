package purgemodel

import (
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/purge"
)

// rules are the decisions that the model asks for: those of package purge, unless a test
// plants a bug in one of them.
type rules struct {
	raise    func(s purge.State, m []purge.Member, l purge.Limits, now hlc.Stamp, late purge.Late) (purge.State, bool, []purge.Hold)
	meet     func(me, them purge.State) (purge.Standing, purge.Reason)
	open     func(me, them purge.State, mine, theirs purge.Snapshot, nonce uint64) (purge.Record, error)
	adopt    func(s purge.State, c purge.Cut) purge.State
	admit    func(s purge.State, from purge.Source, v lww.Version, present bool, now hlc.Stamp, l purge.Limits) error
	judge    func(r purge.Reply, others []purge.Reply) bool
	check    func(s purge.State, self, with purge.Incarnation, r purge.Record) error
	complete func(s purge.State, self, with purge.Incarnation, r purge.Record, role purge.Role) (purge.State, error)
	resume   func(r purge.Record, mine, theirs purge.Snapshot) purge.Record
	started  func(stored purge.Mode, marked bool) purge.Mode
	// whole reports whether a session may count as complete with so many keys failed.
	whole func(failed int) bool
}

func sound() rules {
	return rules{
		raise: purge.State.Raise, meet: purge.Meet, open: purge.Open, adopt: purge.State.Adopt,
		admit: purge.State.Admit, judge: purge.Judge, check: purge.State.Check,
		complete: purge.State.Complete, resume: purge.Record.Resume, started: purge.Started,
		whole: func(failed int) bool { return failed == 0 },
	}
}
