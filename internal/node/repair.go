package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

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

// repairPair runs the session with one partner for an operator, who wants to hear
// of a write that was lost a second ago: it compares what both hold at this moment.
// If it leaves differences that are younger than the settle window, it waits the
// window out and looks at the same shards once more: what was on its way has
// arrived then.
func (r *replica) repairPair(ctx context.Context, partner hlc.NodeID, opts report.RepairOptions) report.Repair {
	started := time.Now()
	outcome := report.Repair{Initiator: r.self, Partner: partner, DryRun: opts.DryRun}
	var shards []int
	if opts.Shard != nil {
		shards = []int{*opts.Shard}
	}
	began := r.clock.now()
	first := r.runSession(ctx, partner, opts, look{shards: shards, asOf: began, settled: began.Add(-r.settings.Settle)}, &outcome)
	if first.waiting() && !opts.DryRun && !opts.NoWait {
		select {
		case <-time.After(r.settings.Settle):
			// What is younger than the first look is none of its business: under
			// load there is always something in flight.
			r.runSession(ctx, partner, opts, look{shards: first.shardsInFlight(), asOf: began, settled: began}, &outcome)
			outcome.KeysInFlight = 0
		case <-ctx.Done():
			outcome.Error = context.Cause(ctx).Error()
		}
	}
	r.repaired(started, &outcome)
	return outcome
}

// repairSettled runs the session with one partner that the schedule wants. It
// compares what both held a settle window ago, so that no write is in its way.
func (r *replica) repairSettled(ctx context.Context, partner hlc.NodeID) report.Repair {
	started := time.Now()
	outcome := report.Repair{Initiator: r.self, Partner: partner}
	settled := r.clock.now().Add(-r.settings.Settle)
	r.runSession(ctx, partner, report.RepairOptions{}, look{asOf: settled, settled: settled}, &outcome)
	r.repaired(started, &outcome)
	return outcome
}

// repaired tells of what was done for a pair.
func (r *replica) repaired(started time.Time, outcome *report.Repair) {
	outcome.DurationMS = float64(time.Since(started).Microseconds()) / 1000
	r.counters.pulled.Add(int64(outcome.KeysPulled))
	r.counters.pushed.Add(int64(outcome.KeysPushed))
	r.node.opts.Events.repaired(*outcome)
}

// proven takes note that this node and a partner agreed, up to a moment.
func (r *replica) proven(partner hlc.NodeID, until time.Time) {
	r.proofs.record(partner, until)
	r.schedule.proven(partner, until)
}
