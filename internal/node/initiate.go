package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/internal/rpc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/report"
)

const (
	// sessionTries bounds the sessions that are begun, one after the other, where
	// the connection breaks in the middle of each: with a link that is as bad as
	// that, the schedule's pauses are better than no pause.
	sessionTries = 3
	// linkBackMax is for how long a broken connection is waited for: long enough
	// to dial it a few times, short enough for an operator who waits.
	linkBackMax = 4 * time.Second
	// saltMax is how many other fingerprints are tried on a difference that the
	// usual ones hide. One is enough but for once in 2^61 times.
	saltMax = 2
	// expectedMin is the least number of differing keys that a session is told to
	// expect. If they are fewer, the partner's first answer names them.
	expectedMin = 3
	// expectedWithin is the factor within which an expectation costs next to
	// nothing when it is wrong.
	expectedWithin = 3
)

// look is what a session is to compare.
type look struct {
	shards  []int     // nil: all that both sides hold
	asOf    hlc.Stamp // the moment that the views show, at the earliest
	settled hlc.Stamp // what was written later is left alone
}

// moment returns the moment that a session compares, not before the one given.
// What is older than the settle window has arrived everywhere, so that as of then
// replicas are equal however fast they are written to.
//
// What was written since is known only as far back as the store remembers its
// latest writes. Under a load at which that is less than the settle window, the
// moment is halfway to the earliest of them: until the partner has made its view
// the memory moves on, and the partner's may be the shorter one. The youngest of
// what is compared may then be in flight.
func (r *replica) moment(notBefore hlc.Stamp) hlc.Stamp {
	now, floor := r.clock.now(), r.store.RecentFloor()
	asOf := max(notBefore, now.Add(-r.settings.Settle))
	if floor < now {
		asOf = max(asOf, floor+(now-floor)/2)
	}
	return asOf
}

// sessionRun is what one session came to.
type sessionRun struct {
	report    antientropy.Report
	err       error
	asOf      hlc.Stamp    // the moment that was compared; hlc.Max is the present
	missed    int          // writes that the partner was known to miss by then
	differing map[int]bool // shards
	inFlight  map[int]bool // shards with differences too young to repair
}

func (s sessionRun) waiting() bool { return s.err == nil && len(s.inFlight) > 0 }

func (s sessionRun) shardsInFlight() []int { return slices.Sorted(maps.Keys(s.inFlight)) }

func (s sessionRun) repaired() int { return s.report.Pulled + s.report.Pushed }

// runSession compares with a partner, as the initiator, repairs what was written
// up to the moment that counts as settled, and adds to the report.
//
// Where the connection breaks it begins anew once it is back: what was applied
// stays, and a further session costs only what is left. And where both sides agree
// on all but the hashes, it compares by other fingerprints.
func (r *replica) runSession(ctx context.Context, partner hlc.NodeID, opts report.RepairOptions, l look, outcome *report.Repair) sessionRun {
	p, err := r.member(partner)
	if err == nil && len(r.layout().shared[partner]) == 0 {
		err = fmt.Errorf("%v and %v hold no shard together", r.self, partner)
	}
	if err != nil {
		outcome.Error = err.Error()
		return sessionRun{err: err}
	}
	log := r.log.With("partner", partner.String())
	whole, firstLook := l.shards == nil, outcome.Rounds == 0
	// A textbook session goes down to single entries, so that every step shows.
	cfg := antientropy.Config{Shards: l.shards, DryRun: opts.DryRun, Details: opts.DryRun, Textbook: opts.Explain}
	if whole {
		cfg.Shards = r.layout().scope(partner)
		cfg.Expected = p.expected()
	}
	// What one side cannot tell the truth about is left out, and the session proves
	// nothing then; the rest is compared all the same.
	var leftOut []int
	leaveOut := func() (more bool) {
		before := len(leftOut)
		shards := cfg.Shards
		if shards == nil {
			shards = r.layout().shared[partner]
		}
		var rest []int
		aside := slices.Concat(r.scrubber.sidelined(), p.sidelinedShards())
		for _, shard := range shards {
			if slices.Contains(aside, shard) {
				leftOut = append(leftOut, shard)
			} else {
				rest = append(rest, shard)
			}
		}
		if more = len(leftOut) > before; more {
			cfg.Shards, whole = rest, false
		}
		return more && len(rest) > 0
	}
	var wrong *antientropy.TreeError
	if leaveOut(); len(leftOut) > 0 && len(cfg.Shards) == 0 {
		err := quarantinedError(leftOut)
		outcome.Error = err.Error()
		return sessionRun{err: err}
	}
	diverged, differing := 0, make(map[int]bool) // in the sessions before the last one
	var run sessionRun
	for tries := 1; ; {
		links, before := p.linksMade(), *outcome
		run = r.session(ctx, p, cfg, l, opts, outcome)
		maps.Copy(differing, run.differing)
		if errors.Is(run.err, antientropy.ErrHidden) && cfg.Salt < saltMax {
			cfg.Salt, cfg.Expected = cfg.Salt+1, 0
			log.Warn("fingerprints hide a difference: the session is repeated with others", "salt", cfg.Salt)
			if opts.DryRun { // it will find everything again
				outcome.Differences, outcome.Descent, outcome.Truncated = before.Differences, before.Descent, before.Truncated
			} else {
				diverged += run.report.Diverged
			}
			continue
		}
		var refused *antientropy.RefusedError
		if run.err != nil && ctx.Err() == nil {
			if errors.As(run.err, &wrong) {
				r.treesDiffer(p, wrong.Shard)
			}
			if errors.As(run.err, &refused) && refused.Code == codeQuarantined {
				r.askHeartbeat(ctx, p)
			}
			if leaveOut() {
				log.Warn("a session goes on without a shard that is in doubt", "shards", fmt.Sprint(leftOut), "error", run.err)
				diverged += run.repaired()
				continue
			}
		}
		again := brokenOff(run.err) && run.repaired() > 0 && !opts.Explain && tries < sessionTries
		if !again || !p.backAgain(ctx, links) {
			break
		}
		tries++
		diverged += min(run.report.Diverged, run.repaired())
		if cfg.Expected = max(cfg.Expected, run.report.Diverged) - run.repaired(); cfg.Expected < expectedMin {
			cfg.Expected = 0
		}
		log.Info("the connection broke during a session: a new one brings what is left", "repaired", run.repaired(), "error", run.err)
	}
	diverged += run.report.Diverged
	outcome.KeysDiverged += diverged
	outcome.KeysInFlight += run.report.InFlight
	if firstLook {
		outcome.Shards = run.report.Shards
	}
	if run.err == nil && len(leftOut) > 0 {
		run.err = quarantinedError(leftOut)
		if wrong != nil {
			run.err = fmt.Errorf("%w; %w", wrong, run.err)
		}
	}
	if run.err != nil {
		outcome.Error = run.err.Error()
		return run
	}
	if firstLook {
		outcome.ShardsEqual = run.report.Shards - len(differing)
	}
	if whole {
		p.expect(diverged)
	}
	if run.report.Complete && whole {
		if run.report.InFlight == 0 {
			p.forgetMissed(run.missed) // it has got them now
		}
		r.proven(partner, min(run.asOf, l.settled).Time())
	}
	return run
}

// quarantinedError says which shards a session left out.
func quarantinedError(shards []int) error {
	return fmt.Errorf("not compared, because one side has them in quarantine or in doubt: %s; syntropy status says why, and they are healed from a replica that is well",
		shardsText(shards))
}

func shardsText(shards []int) string {
	const most = 8
	names := make([]string, 0, most)
	for _, shard := range shards[:min(len(shards), most)] {
		names = append(names, fmt.Sprint(shard))
	}
	text := "shard"
	if len(shards) > 1 {
		text += "s"
	}
	text += " " + strings.Join(names, ", ")
	if more := len(shards) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// brokenOff reports whether a session ended because its connection did. A partner
// that was reached again in the meantime does not know the session any more.
func brokenOff(err error) bool {
	var refused *antientropy.RefusedError
	return errors.Is(err, rpc.ErrBroken) || errors.Is(err, rpc.ErrDown) || errors.As(err, &refused) && refused.Code == codeUnknownSession
}

// session runs one session and adds to the report what it did; what it found is
// for the caller to add, who knows whether it is found again.
func (r *replica) session(ctx context.Context, p *peer, cfg antientropy.Config, l look, opts report.RepairOptions, outcome *report.Repair) sessionRun {
	view := r.store.SnapshotAsOf(r.moment(max(l.asOf, l.settled)))
	defer view.Close()
	run := sessionRun{asOf: view.AsOf(), differing: make(map[int]bool), inFlight: make(map[int]bool)}
	run.missed = p.missedWrites(run.asOf)
	cfg.AsOf = run.asOf
	cfg.Now = max(r.clock.now(), l.settled)
	cfg.Settle = cfg.Now.Sub(l.settled)
	cfg.Found = func(d antientropy.Difference) {
		run.differing[d.Shard] = true
		if d.Action == antientropy.Wait {
			run.inFlight[d.Shard] = true
		}
		if opts.DryRun || opts.Explain {
			r.addDifference(outcome, d)
		}
	}
	if opts.Explain {
		cfg.Compared = func(c antientropy.Comparison) { addStep(outcome, c) }
	}
	session := antientropy.NewInitiator(sessionView{view, nil, func(shard int) { r.scrubber.doubt(shard, true) }}, cfg)
	var read uint64
	read, run.err = r.drive(ctx, p, session, outcome)
	r.counters.rowsRead.Add(int64(read))
	rep := session.Report()
	run.report = rep
	outcome.Rounds += rep.Rounds
	outcome.NamingRounds += int64(rep.NamingRounds)
	outcome.RowsRead += int64(rep.RowsRead)
	outcome.NodesCompared += int64(rep.Compared)
	outcome.EntryBytes += rep.EntryBytes
	outcome.KeysPulled += rep.Pulled
	outcome.KeysPushed += rep.Pushed
	return run
}

// drive carries the messages of a session to the partner and back, and returns
// the rows that were read for it here. Bytes are counted as they travel, framing
// included. What this node refuses to apply is told at the end, or the partner
// would offer it first in every session and nothing else would ever come.
func (r *replica) drive(ctx context.Context, p *peer, session *antientropy.Initiator, outcome *report.Repair) (read uint64, err error) {
	id := rand.Uint64()
	defer func() {
		if err != nil && p.usable() {
			r.cancelSession(ctx, p, id)
		}
	}()
	for open := true; ; open = false {
		if ctx.Err() != nil {
			return read, context.Cause(ctx)
		}
		if open && !p.usable() { // before a round is counted
			return read, fmt.Errorf("%v (%s) is not connected: %s", p.id, p.addr, p.whyNot())
		}
		msg, err := session.Next()
		if !session.Report().Complete { // else the report is of both sides
			read = session.Report().RowsRead
		}
		if msg == nil || err != nil {
			return read, err
		}
		reply, err := r.exchange(ctx, p, &peerpb.Session{Id: id, Payload: msg, Open: open}, outcome)
		if err != nil {
			return read, fmt.Errorf("%v (%s): %w", p.id, p.addr, cmp.Or(context.Cause(ctx), err))
		}
		entries, err := session.Receive(reply)
		if err != nil {
			return read, err
		}
		var applied error
		if len(entries) > 0 {
			applied = r.applyRepaired(entries)
		}
		if refused := (*refusedError)(nil); errors.As(applied, &refused) {
			session.Refused(refused.count, refused)
		} else {
			session.Applied(applied)
		}
	}
}

func (r *replica) exchange(ctx context.Context, p *peer, m *peerpb.Session, outcome *report.Repair) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, sent, received, err := p.link.CallSized(ctx, &peerpb.Message{Body: &peerpb.Message_Session{Session: m}})
	outcome.BytesSent += int64(sent)
	outcome.BytesReceived += int64(received)
	if err != nil {
		return nil, err
	}
	return reply.GetSessionReply().GetPayload(), nil
}

// cancelSession lets the partner release its view now rather than when it finds
// the session idle. It is a courtesy, so its outcome does not matter.
func (r *replica) cancelSession(ctx context.Context, p *peer, id uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = p.link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Session{Session: &peerpb.Session{Id: id, Cancel: true}}})
}

// ---- what is kept of a peer between sessions

// expected returns how many keys the next session with the peer is to expect to
// differ: as many as the last one found, if the one before found about as many.
// Zero means unknown, and the session estimates it, for a round and some hundred
// bytes: cheaper than to begin at the level of ten thousand differences where
// three are left.
func (p *peer) expected() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, before := p.diverged[0], p.diverged[1]
	if min(last, before) < expectedMin || max(last, before) > expectedWithin*min(last, before) {
		return 0
	}
	return last
}

func (p *peer) expect(diverged int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.diverged = [2]int{diverged, p.diverged[0]}
}

// linksMade counts the connections to the peer.
func (p *peer) linksMade() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links
}

// backAgain waits until the peer is connected again since it was for the given
// time, and reports whether it is.
func (p *peer) backAgain(ctx context.Context, links int) bool {
	ctx, cancel := context.WithTimeout(ctx, linkBackMax)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for p.linksMade() == links || !p.usable() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// whyNot says why a peer is not usable.
func (p *peer) whyNot() string {
	p.mu.Lock()
	barred := p.barred
	p.mu.Unlock()
	if barred != "" {
		return barred
	}
	if err := p.link.LastError(); err != nil {
		return err.Error()
	}
	return "no contact yet"
}
