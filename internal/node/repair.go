package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/report"
)

// Repair runs one session for every pair of members, or for those with one
// member, one after the other. This node's own pairs come first: after them it
// holds everything that any of its partners held, and the pairs of the others
// spread that. What goes wrong with a pair stands in its report.
func (n *Node) Repair(ctx context.Context, opts report.RepairOptions) ([]report.Repair, error) {
	r, err := n.enter()
	if err != nil {
		return nil, err
	}
	defer n.leave()
	if err := r.mayServe(false); err != nil {
		return nil, err
	}
	if opts.Shard != nil && (*opts.Shard < 0 || *opts.Shard >= r.store.Shards()) {
		return nil, &Error{CodeNoSuchShard, fmt.Sprintf("there is no shard %d: shards are 0 to %d", *opts.Shard, r.store.Shards()-1)}
	}
	if opts.Node != 0 && opts.Node != r.self {
		if _, err := r.member(opts.Node); err != nil {
			return nil, err
		}
	}
	ctx, end := r.repairs.begin(ctx)
	defer end()
	reports := []report.Repair{}
	for _, pair := range r.pairs(opts.Node, opts.Shard) {
		if pair[0] == r.self {
			reports = append(reports, r.repairPair(ctx, pair[1], opts))
		} else {
			reports = append(reports, r.askRepair(ctx, pair[0], pair[1], opts))
		}
	}
	return reports, nil
}

// pairs lists the pairs of members that hold shards together, or one shard, or those
// with one of the members; this node's own first.
func (r *replica) pairs(with hlc.NodeID, shard *int) (pairs [][2]hlc.NodeID) {
	l := r.layout()
	ids := append([]hlc.NodeID{r.self}, l.others()...)
	for i, a := range ids {
		for _, b := range ids[i+1:] {
			together := len(l.table.Shared(a, b)) > 0
			if shard != nil {
				together = l.table.Holds(a, *shard) && l.table.Holds(b, *shard)
			}
			if together && (with == 0 || with == a || with == b) {
				pairs = append(pairs, [2]hlc.NodeID{a, b})
			}
		}
	}
	return pairs
}

// askRepair lets another member run the session of a pair that this node is not
// part of.
func (r *replica) askRepair(ctx context.Context, initiator, partner hlc.NodeID, opts report.RepairOptions) report.Repair {
	outcome := report.Repair{Initiator: initiator, Partner: partner, DryRun: opts.DryRun}
	raw, err := json.Marshal(opts)
	if err == nil {
		var reply *peerpb.Message
		reply, err = r.peer(initiator).link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Repair{
			Repair: &peerpb.Repair{OptionsJson: raw, Partner: uint32(partner)},
		}})
		if err == nil {
			err = json.Unmarshal(reply.GetRepairReply().GetReportJson(), &outcome)
		}
	}
	if err != nil {
		outcome.Error = fmt.Sprintf("%v did not run the session: %v", initiator, cmp.Or(context.Cause(ctx), err))
		if ctx.Err() != nil {
			r.cancelRepairOn(ctx, r.peer(initiator))
		}
	}
	return outcome
}

// cancelRepairOn tells a peer to stop the repairs that it runs for operators.
func (r *replica) cancelRepairOn(ctx context.Context, p *peer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.settings.RequestDeadline)
	defer cancel()
	if _, err := p.link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Repair{Repair: &peerpb.Repair{}}}); err != nil {
		r.log.Warn("could not cancel repairs on a peer", "peer", p.id.String(), "error", err)
	}
}

// CancelRepair stops the repairs that operators started on this node, and those
// that run on other nodes for any operator.
func (n *Node) CancelRepair(ctx context.Context) (int, error) {
	r, err := n.enter()
	if err != nil {
		return 0, err
	}
	defer n.leave()
	cancelled := r.repairs.cancelAll(errCancelled)
	for _, p := range r.usablePeers() {
		r.cancelRepairOn(ctx, p)
	}
	return cancelled, nil
}

// repairPair runs the session with one partner. If it leaves differences that
// are younger than the settle window, it waits the window out and looks at the
// same shards once more: what was on its way has arrived then.
func (r *replica) repairPair(ctx context.Context, partner hlc.NodeID, opts report.RepairOptions) report.Repair {
	started := time.Now()
	outcome := report.Repair{Initiator: r.self, Partner: partner, DryRun: opts.DryRun}
	var shards []int
	if opts.Shard != nil {
		shards = []int{*opts.Shard}
	}
	began := r.clock.now()
	first := r.runSession(ctx, partner, shards, opts, began.Add(-r.settings.Settle), &outcome)
	if first.waiting() && !opts.DryRun && !opts.NoWait {
		select {
		case <-time.After(r.settings.Settle):
			// What is younger than the first look is none of its business: under
			// load there is always something in flight.
			r.runSession(ctx, partner, first.shardsInFlight(), opts, began, &outcome)
			outcome.KeysInFlight = 0
		case <-ctx.Done():
			outcome.Error = context.Cause(ctx).Error()
		}
	}
	outcome.DurationMS = float64(time.Since(started).Microseconds()) / 1000
	r.counters.pulled.Add(int64(outcome.KeysPulled))
	r.counters.pushed.Add(int64(outcome.KeysPushed))
	r.node.opts.Events.repaired(outcome)
	return outcome
}

// proven takes note that this node and a partner agreed, up to a moment.
func (r *replica) proven(partner hlc.NodeID, until time.Time) {
	r.proofs.record(partner, until)
	r.schedule.proven(partner, until)
}

// sessionRun is what one session left for the next.
type sessionRun struct {
	err      error
	inFlight map[int]bool // shards with differences too young to repair
}

func (s sessionRun) waiting() bool { return s.err == nil && len(s.inFlight) > 0 }

func (s sessionRun) shardsInFlight() []int {
	shards := make([]int, 0, len(s.inFlight))
	for shard := range s.inFlight {
		shards = append(shards, shard)
	}
	slices.Sort(shards)
	return shards
}

// runSession runs one session as its initiator and adds to the report. It repairs
// what was written up to settled.
func (r *replica) runSession(ctx context.Context, partner hlc.NodeID, shards []int, opts report.RepairOptions, settled hlc.Stamp, outcome *report.Repair) sessionRun {
	run := sessionRun{inFlight: make(map[int]bool)}
	p, err := r.member(partner)
	if err != nil {
		outcome.Error = err.Error()
		run.err = err
		return run
	}
	if len(r.layout().shared[partner]) == 0 {
		run.err = fmt.Errorf("%v and %v hold no shard together", r.self, partner)
		outcome.Error = run.err.Error()
		return run
	}
	missed := p.missedWrites()
	view := r.store.Snapshot()
	defer view.Close()
	now := max(r.clock.now(), settled)
	whole := shards == nil
	if whole {
		shards = r.layout().scope(partner)
	}
	cfg := antientropy.Config{Now: now, Settle: now.Sub(settled), Shards: shards, DryRun: opts.DryRun}
	cfg.Found = func(d antientropy.Difference) {
		if d.Action == antientropy.Wait {
			run.inFlight[d.Shard] = true
		}
		if opts.DryRun || opts.Explain {
			addDifference(outcome, d)
		}
	}
	if opts.Explain {
		cfg.ListMax = 1 // go down to single entries, so that every step shows
		cfg.Compared = func(c antientropy.Comparison) { addStep(outcome, c) }
	}
	again := outcome.Rounds > 0
	session := antientropy.NewInitiator(view, cfg)
	run.err = r.drive(ctx, p, session, outcome)
	rep := session.Report()
	if !again {
		outcome.Shards, outcome.ShardsEqual = rep.Shards, rep.ShardsEqual
	}
	outcome.Rounds += rep.Rounds
	outcome.KeysDiverged += rep.Diverged
	outcome.KeysPulled += rep.Pulled
	outcome.KeysPushed += rep.Pushed
	outcome.KeysInFlight += rep.InFlight
	if run.err != nil {
		outcome.Error = run.err.Error()
		return run
	}
	if rep.Complete && whole {
		if rep.InFlight == 0 {
			p.addMissed(-missed) // it has got them now
		}
		r.proven(partner, settled.Time())
	}
	return run
}

// drive carries the messages of a session to the partner and back. Bytes are
// counted as they travel, framing included.
func (r *replica) drive(ctx context.Context, p *peer, session *antientropy.Initiator, outcome *report.Repair) (err error) {
	id := rand.Uint64()
	defer func() {
		if err != nil && p.usable() {
			r.cancelSession(ctx, p, id)
		}
	}()
	for open := true; ; open = false {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if open && !p.usable() { // before a round is counted
			return fmt.Errorf("%v (%s) is not connected: %s", p.id, p.addr, p.whyNot())
		}
		msg, err := session.Next()
		if msg == nil || err != nil {
			return err
		}
		reply, err := r.exchange(ctx, p, &peerpb.Session{Id: id, Payload: msg, Open: open}, outcome)
		if err != nil {
			return fmt.Errorf("%v (%s): %w", p.id, p.addr, cmp.Or(context.Cause(ctx), err))
		}
		entries, err := session.Receive(reply)
		if err != nil {
			return err
		}
		var applied error
		if len(entries) > 0 {
			applied = r.applyRepaired(entries)
		}
		session.Applied(applied)
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
