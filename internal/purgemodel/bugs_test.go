package purgemodel

import (
	"slices"
	"strings"
	"testing"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/purge"
)

// planted are rules with one mistake each, of the kind that others have made. The search
// must find each of them, or what it says of the right rules is worth nothing.
var planted = []struct {
	name  string
	in    Scenario
	plant func(*rules)
}{
	{"purge by age alone", scenario("calm", Budget{}), func(r *rules) {
		r.raise = func(s purge.State, ms []purge.Member, l purge.Limits, now hlc.Stamp, _ purge.Late) (purge.State, bool, []purge.Hold) {
			c := purge.Cut{At: now.Add(-l.Grace), Raiser: s.Self}
			for _, m := range ms {
				c.Set = append(c.Set, purge.Proven{Replica: m.Replica})
			}
			rose := c.At > s.Cut.At
			s.Cut, s.Upto = c, 63
			return s, rose, nil
		}
	}},
	{"proof by timestamp instead of local position", scenario("calm", Budget{}), func(r *rules) {
		r.raise = func(s purge.State, ms []purge.Member, l purge.Limits, now hlc.Stamp, _ purge.Late) (purge.State, bool, []purge.Hold) {
			s, rose, holds := s.Raise(ms, l, now, func(purge.Position, hlc.Stamp) (hlc.Stamp, bool) { return 0, false })
			s.Upto = 63
			return s, rose, holds
		}
	}},
	{"hint accepted under the cut", scenario("hint", Budget{Hints: 1}).writing("v0", "x0").after("write, with hints for A, at once at B C"), func(r *rules) {
		r.admit = func(s purge.State, from purge.Source, v lww.Version, present bool, now hlc.Stamp, l purge.Limits) error {
			if from == purge.Hint {
				return nil
			}
			return s.Admit(from, v, present, now, l)
		}
	}},
	{"ledger written by one side only", scenario("calm", Budget{}), func(r *rules) {
		r.complete = func(s purge.State, self, with purge.Incarnation, rec purge.Record, role purge.Role) (purge.State, error) {
			if role == purge.Partner {
				return s, nil
			}
			return s.Complete(self, with, rec, role)
		}
	}},
	{"cut raised on sessions older than the hint window", scenario("late", Budget{Late: 1}), func(r *rules) {
		r.raise = func(s purge.State, ms []purge.Member, l purge.Limits, now hlc.Stamp, late purge.Late) (purge.State, bool, []purge.Hold) {
			l.HintWindow = 0
			return s.Raise(ms, l, now, late)
		}
	}},
	{"cut adopted without the ledger check", scenario("down", Budget{Down: 1}), func(r *rules) {
		r.meet = func(me, them purge.State) (purge.Standing, purge.Reason) {
			if st, why := purge.Meet(me, them); st != purge.Rebuild {
				return st, why
			}
			return purge.Adopt, purge.NoReason
		}
		r.adopt = func(s purge.State, c purge.Cut) purge.State {
			s.Cut, s.Upto = c, 63
			return s
		}
	}},
	{"a resumed session proves its last snapshot", scenario("resume", Budget{Slow: 1, Resume: 1}).after("slow session begins A B", "slow session compares A B 0", "write A"), func(r *rules) {
		r.resume = func(rec purge.Record, mine, theirs purge.Snapshot) purge.Record {
			rec.Position, rec.Theirs, rec.Time = mine.Position, theirs.Position, min(mine.Time, theirs.Time)
			return rec
		}
	}},
	{"long dead declared by one replica alone", scenario("cut", Budget{Cut: 1}), func(r *rules) {
		r.raise = func(s purge.State, ms []purge.Member, l purge.Limits, now hlc.Stamp, late purge.Late) (purge.State, bool, []purge.Hold) {
			ms = slices.DeleteFunc(slices.Clone(ms), func(m purge.Member) bool { return m.Unreached > l.Grace })
			return s.Raise(ms, l, now, late)
		}
	}},
	{"a session outlives a change of the cut", scenario("slow", Budget{Slow: 1}).writing("v0", "x0").after("write B", "slow session begins A B", "write A C", "tick"), func(r *rules) {
		r.check = func(s purge.State, self, with purge.Incarnation, rec purge.Record) error {
			rec.Cut = s.Cut.At
			return s.Check(self, with, rec)
		}
	}},
	{"a read answered across unequal cuts", scenario("isolate", Budget{Isolate: 1}), func(r *rules) {
		r.judge = func(purge.Reply, []purge.Reply) bool { return true }
	}},
	{"the set taken over from another raiser", scenario("calm", Budget{}), func(r *rules) {
		r.adopt = func(s purge.State, c purge.Cut) purge.State {
			s = s.Adopt(c)
			s.Cut.Raiser = s.Self
			return s
		}
	}},
	{"a restored disk serves at once", scenario("restore", Budget{Backup: 1, Restore: 1}), func(r *rules) {
		r.started = func(purge.Mode, bool) purge.Mode { return purge.Live }
	}},
	{"a session is complete with one key failed", scenario("fail", Budget{Fail: 1}), func(r *rules) {
		r.whole = func(int) bool { return true }
	}},
	// Of the acknowledged delete one disk is lost, and the other one is away. What is left
	// is one replica that missed it, and one that was built from that.
	{"a replica that is being built counts for the majority", scenario("replace", Budget{Replace: 1, Isolate: 1}).after(
		"write A C", "replace the disk of A", "isolate C", "rebuild A B", "tick", "tick"), func(r *rules) {
		r.raise = func(s purge.State, ms []purge.Member, l purge.Limits, now hlc.Stamp, late purge.Late) (purge.State, bool, []purge.Hold) {
			ms = slices.Clone(ms)
			for i := range ms {
				ms[i].Serving = true
			}
			return s.Raise(ms, l, now, late)
		}
	}},
	// A has not reached B, and later C has not, which had heard that from A: B was never
	// away from both.
	{"votes of different times", scenario("cut", Budget{Cut: 2}).after(
		"cut the link A B", "tick", "tick", "tick", "session A C", "heal the link", "cut the link B C", "tick", "tick"), func(r *rules) {
		r.open = func(me, them purge.State, mine, theirs purge.Snapshot, nonce uint64) (purge.Record, error) {
			rec, err := purge.Open(me, them, mine, theirs, nonce)
			rec.Unreached = theirs.Unreached
			return rec, err
		}
	}},
	// Two sessions of a pair at once: the one that began first ends last.
	{"a record replaced by that of an earlier session", scenario("slow", Budget{Slow: 1}), func(r *rules) {
		r.complete = func(s purge.State, self, with purge.Incarnation, rec purge.Record, role purge.Role) (purge.State, error) {
			if next, err := s.Complete(self, with, rec, role); err == nil || s.Self != self || s.Cut.At != rec.Cut {
				return next, err
			}
			pairs := slices.Clone(s.Pairs)
			for i := range pairs {
				if pairs[i].With == with && role == purge.Initiator {
					pairs[i].Confirmed = rec
				} else if pairs[i].With == with {
					pairs[i].Pending = rec
				}
			}
			s.Pairs = pairs
			return s, nil
		}
	}},
}

func TestPlantedBugsAreFound(t *testing.T) {
	for _, bug := range planted {
		t.Run(bug.name, func(t *testing.T) {
			cfg := bug.in
			cfg.rules = sound()
			bug.plant(&cfg.rules)
			limit := uint64(100_000)
			if raceEnabled {
				limit = 5_000
			}
			res := Search(cfg, 0, limit)
			switch {
			case res.Wrong != "":
				t.Logf("%v: state %d, step %d: %s\n%s", cfg.Name, res.States, len(res.Trace), res.Wrong, strings.Join(res.Trace, "\n"))
			case raceEnabled:
				t.Skipf("%v: not in %d states; the race detector leaves no time for more", cfg.Name, res.States)
			default:
				t.Fatalf("%v: not found in %d states", cfg.Name, res.States)
			}
		})
	}
}
