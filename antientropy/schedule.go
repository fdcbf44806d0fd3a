package antientropy

import (
	"slices"
	"time"

	"syntropy/hlc"
)

// When the sessions of a pair begin, in hundredths of the interval after the
// last one began:
//
//	0            70           82   86   90     100
//	|-------------|============|    |====|      |
//	              the first side    the other   proven again by now
//
// Either side may begin, and one is enough. The side with the lower id goes
// first; the other one steps in when no proof has appeared by then. The gap
// between them is for a session that the first side began at the last moment,
// and the rest of the interval is for failed ones to be tried again. The moments
// are drawn anew for each session, so that pairs which were once in step drift
// apart.
const (
	firstFrom, firstTo = 70, 82
	otherFrom, otherTo = 86, 90
	// spreadFrom begins a wider window, for the first side after a proof that
	// came late: after an outage all pairs are due at once, and would come round
	// at nearly the same time for a long while. It costs one early session.
	spreadFrom = 10
	// stepInFrom and stepInTo are how long the other side leaves it to the first
	// one when a pair is overdue, from the moment at which the partner can be
	// reached.
	stepInFrom, stepInTo = 4, 8
	// pauseMax is the longest time between two attempts with a partner, so that
	// several fit between the first moment and the end of the interval; an
	// attempt of which no outcome was reported is repeated after as long.
	pauseMax = 5
)

// defaultRetry is long enough for most sessions that keep a partner busy to end.
const defaultRetry = 10 * time.Second

// lookMax bounds how long Next tells its caller to wait: the caller may have
// missed that a partner became reachable, and asking costs next to nothing.
const lookMax = 15 * time.Second

// ScheduleOptions configure a schedule.
type ScheduleOptions struct {
	// Interval is the time within which each pair is proven anew. Zero means
	// never. It should be much longer than a session takes; one that is not lets
	// sessions follow each other with pauses of a twentieth of it.
	Interval time.Duration
	// Settle is by how much the moment that a session proves is before the
	// session, which leaves the youngest writes alone. The interval counts from
	// session to session, so a proof may grow older than it by this much.
	Settle time.Duration
	// Retry is the pause after a first failure, zero means 10 s. It doubles with
	// each further one, up to a twentieth of the interval.
	Retry time.Duration
	// Seed makes the moments. Equal seeds give equal schedules on one node and
	// different ones on different nodes.
	Seed uint64
}

// Schedule decides with which partner a node begins a session, and when: every
// pair within each interval, the one with the oldest proof first, and neither
// both sides of a pair nor all pairs at the same time. It reads no clock and
// begins nothing itself:
//
//	partner, wait, ok := schedule.Next(now, reachable)
//	if ok && wait == 0 {
//		// run a session, then call Proven or Failed
//	}
//
// A clock that is set back delays a session by one interval at most. Only wall
// time counts. A Schedule is not safe for concurrent use.
type Schedule struct {
	self     hlc.NodeID
	opts     ScheduleOptions
	random   uint64
	partners []*pair // by id
}

// pair is what a node knows of itself and one partner.
type pair struct {
	partner hlc.NodeID
	proven  time.Time     // zero: never
	offset  time.Duration // from the last proof to the next session
	stepIn  time.Duration // from being reachable to the next session

	reachable bool
	since     time.Time // when it last became so; zero: never
	lost      time.Time // when it last ceased to be
	failures  int       // since the last proof
	notBefore time.Time // after an attempt
}

// NewSchedule returns the schedule of a node, without partners.
func NewSchedule(self hlc.NodeID, o ScheduleOptions) *Schedule {
	if o.Retry <= 0 {
		o.Retry = defaultRetry
	}
	o.Retry = min(o.Retry, o.Interval/100*pauseMax)
	// The odd factor spreads ids over the word: nodes with equal seeds must not
	// keep in step.
	return &Schedule{self: self, opts: o, random: o.Seed ^ uint64(self)*0x9e3779b97f4a7c15}
}

// SetPartners replaces the partners, for example after a change of topology.
// What is known of those that stay is kept; new ones have never been proven and
// are due at once. The slice remains the caller's. The node itself is passed
// over.
func (s *Schedule) SetPartners(ids []hlc.NodeID) {
	old := s.partners
	s.partners = nil
	ids = slices.Clone(ids)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if id == s.self {
			continue
		}
		i := slices.IndexFunc(old, func(p *pair) bool { return p.partner == id })
		if i >= 0 {
			s.partners = append(s.partners, old[i])
			continue
		}
		s.partners = append(s.partners, &pair{partner: id, stepIn: s.stepIn(id)})
	}
}

// Proven takes note of a completed session with a partner, whichever side began
// it, or of one from before a restart. until is the moment up to which it proves
// that both agree; one that is older than a known proof changes nothing, and so
// does an unknown partner.
func (s *Schedule) Proven(partner hlc.NodeID, until time.Time) {
	p := s.find(partner)
	until = until.Round(0)
	if p == nil || !until.After(p.proven) {
		return
	}
	// A proof that comes before its partner was ever reachable is one from before
	// a restart, and is not late: rolling through a cluster must not cost sessions.
	late := !p.since.IsZero() && until.Sub(p.proven) > s.opts.Interval+s.opts.Settle
	p.proven, p.failures = until, 0
	p.stepIn = s.stepIn(partner)
	switch {
	case s.self > partner:
		p.offset = s.share(otherFrom, otherTo)
	case late:
		p.offset = s.share(spreadFrom, firstTo)
	default:
		p.offset = s.share(firstFrom, firstTo)
	}
}

// Failed takes note of a session, begun here, that did not complete: the partner
// was busy, went down, or something went wrong. It is tried again after a pause
// that grows with each failure.
func (s *Schedule) Failed(partner hlc.NodeID, at time.Time) {
	p := s.find(partner)
	if p == nil {
		return
	}
	pause := s.opts.Retry
	for i := 0; i < p.failures && pause < s.pauseMax(); i++ {
		pause = min(2*pause, s.pauseMax())
	}
	p.failures++
	p.notBefore = at.Round(0).Add(s.between(pause/2, pause))
}

// Next returns the partner to begin a session with, and how long to wait before
// asking again if it is not due yet. With wait 0 the session is to begin now, and
// the caller reports the outcome with Proven or Failed; until it does, the
// partner is not due again for a twentieth of the interval.
//
// ok is false when there is nothing to wait for: no partner is reachable, or the
// interval is zero. wait then says when to look again at the latest; a partner
// that becomes reachable is a reason to look at once.
//
// reachable says whether a session with a partner can begin. A partner with
// which one is running at the moment is not reachable in this sense.
func (s *Schedule) Next(now time.Time, reachable func(hlc.NodeID) bool) (partner hlc.NodeID, wait time.Duration, ok bool) {
	if s.opts.Interval <= 0 {
		return 0, lookMax, false
	}
	now = now.Round(0)
	var next *pair
	var nextAt time.Time
	for _, p := range s.partners {
		s.look(p, now, reachable(p.partner))
		if !p.reachable {
			continue
		}
		at := s.due(p)
		if at.Before(now) {
			at = now
		}
		// Of those that are due, the oldest proof; else the one due first.
		if next == nil || at.Before(nextAt) || at.Equal(nextAt) && p.proven.Before(next.proven) {
			next, nextAt = p, at
		}
	}
	switch {
	case next == nil:
		return 0, lookMax, false
	case nextAt.After(now):
		return next.partner, min(nextAt.Sub(now), lookMax), true
	}
	next.notBefore = now.Add(s.pauseMax())
	return next.partner, 0, true
}

// Oldest returns the partner with the oldest proof, reachable or not, and that
// proof's moment, which is zero if there has been none. ok is false without
// partners.
func (s *Schedule) Oldest() (partner hlc.NodeID, until time.Time, ok bool) {
	for _, p := range s.partners {
		if !ok || p.proven.Before(until) {
			partner, until, ok = p.partner, p.proven, true
		}
	}
	return partner, until, ok
}

// look brings a pair up to date: whether its partner can be reached, and since
// when. An absence that was longer than the first pause ends what is left of a
// pause, which was for the partner that was; one that was shorter does not, or a
// connection that comes and goes would begin sessions each time it comes.
//
// No moment may be further away than the schedule would set it now: a clock that
// was set back would make the pair wait for ever.
func (s *Schedule) look(p *pair, now time.Time, reachable bool) {
	switch {
	case reachable && !p.reachable:
		p.since = now
		if now.Sub(p.lost) > s.opts.Retry {
			p.notBefore, p.failures = time.Time{}, 0
		}
	case !reachable && p.reachable:
		p.lost = now
	}
	p.reachable = reachable
	if p.proven.After(now) {
		p.proven = now
	}
	if p.since.After(now) {
		p.since = now
	}
	if most := now.Add(s.pauseMax()); p.notBefore.After(most) {
		p.notBefore = most
	}
}

// due returns the moment at which a pair with a reachable partner is due.
func (s *Schedule) due(p *pair) time.Time {
	at := p.notBefore
	if !p.proven.IsZero() {
		at = later(at, p.proven.Add(s.opts.Settle+p.offset))
	}
	if s.self > p.partner {
		at = later(at, p.since.Add(p.stepIn))
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *Schedule) find(partner hlc.NodeID) *pair {
	for _, p := range s.partners {
		if p.partner == partner {
			return p
		}
	}
	return nil
}

func (s *Schedule) stepIn(partner hlc.NodeID) time.Duration {
	if s.self < partner {
		return 0
	}
	return s.share(stepInFrom, stepInTo)
}

func (s *Schedule) pauseMax() time.Duration { return s.share(pauseMax, pauseMax) }

// share draws from a range of hundredths of the interval.
func (s *Schedule) share(from, to int64) time.Duration {
	percent := s.opts.Interval / 100
	return s.between(percent*time.Duration(from), percent*time.Duration(to))
}

// between draws a duration, evenly spread.
func (s *Schedule) between(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	// splitmix64: short, and even enough for spreading moments.
	s.random += 0x9e3779b97f4a7c15
	z := s.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return from + time.Duration(z%uint64(to-from))
}
