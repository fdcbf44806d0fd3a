package node

import (
	"context"
	"sync"
	"time"

	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/report"
)

// Status describes the cluster as this node sees it.
func (n *Node) Status(ctx context.Context) (report.Status, error) {
	r, err := n.enter()
	if err != nil {
		return report.Status{}, err
	}
	defer n.leave()
	r.askHeartbeats(ctx)
	l := r.layout()
	st := r.store.Stats()
	status := report.Status{
		Cluster: r.record.ClusterID, TopologyVersion: l.table.Version, Node: r.self,
		Nodes: make([]report.NodeStatus, 0, len(l.table.Members)), Pairs: []report.PairStatus{},
		Tombstones: int64(st.Tombstones), HintsPending: r.hintsPending(), Counters: r.count(),
	}
	kept := r.hints.Stats()
	for _, m := range l.table.Members {
		ns := report.NodeStatus{Node: m.ID, Peer: m.Addr, Zone: m.Zone, Shards: len(l.table.HeldBy(m.ID))}
		if m.ID == r.self {
			ns.Up, ns.Incarnation = true, r.incarnation
			ns.State, ns.Reason = r.stateAndReason()
			ns.Entries, ns.Tombstones = int64(st.Entries), int64(st.Tombstones)
			disk := r.describeDisk()
			ns.Disk = &disk
		} else {
			p := l.peers[m.ID]
			p.describe(&ns)
			ns.HintsPending = kept.Pending[m.ID].Count
			if ns.Up {
				status.HintsPending += p.keepsHints()
			}
		}
		if ns.State == StateJoining {
			status.Rebuilding++
		}
		status.Nodes = append(status.Nodes, ns)
	}
	r.describePairs(l, &status)
	return status, nil
}

// describePairs lists the pairs of replicas, this node's own first, each with the
// later of what its two sides say. What a node that is down knew is not seen.
func (r *replica) describePairs(l *layout, status *report.Status) {
	now := r.node.wall()
	for _, ids := range r.pairs(0, nil) {
		pair := report.PairStatus{A: ids[0], B: ids[1], Shards: len(l.table.Shared(ids[0], ids[1]))}
		var proven time.Time
		for _, side := range [][2]hlc.NodeID{{ids[0], ids[1]}, {ids[1], ids[0]}} {
			if until, ok := r.provenBy(l, side[0], side[1]); ok && until.After(proven) {
				proven = until
				pair.ProvenUntil = &until
			}
		}
		if proven.Before(r.record.Created) { // there was nothing to agree on
			proven = r.record.Created
		}
		pair.UnprovenSeconds = now.Sub(proven).Truncate(time.Millisecond).Seconds()
		status.OldestUnprovenSeconds = max(status.OldestUnprovenSeconds, pair.UnprovenSeconds)
		status.Pairs = append(status.Pairs, pair)
	}
}

// provenBy returns until when a member says that another one agrees with it.
func (r *replica) provenBy(l *layout, member, with hlc.NodeID) (time.Time, bool) {
	if member == r.self {
		return r.proofs.get(with)
	}
	return l.peers[member].provenUntil(with)
}

// hintsPending is how many writes this node keeps for others.
func (r *replica) hintsPending() (n int64) {
	for _, pending := range r.hints.Stats().Pending {
		n += pending.Count
	}
	return n
}

func (r *replica) count() report.Counters {
	h := r.hints.Stats()
	return report.Counters{
		WritesInFlight: r.counters.delivering.Load(), DeliveriesFailed: r.counters.failed.Load(), HintsPending: r.hintsPending(),
		HintsKept: h.Added, HintsDelivered: h.Delivered - r.counters.hintsRejected.Load(), HintsExpired: h.Expired, HintsDropped: h.Dropped + h.Damaged,
		HintsRejected: r.counters.hintsRejected.Load(), ReadRepairs: r.counters.readRepairs.Load(),
		SessionsScheduled: r.counters.sessions.Load(), KeysPulled: r.counters.pulled.Load(), KeysPushed: r.counters.pushed.Load(),
		RowsReadByRepair: r.counters.rowsRead.Load(),
	}
}

func (p *peer) keepsHints() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hints
}

// askHeartbeats brings what is known of the peers up to date, so that an
// operator never sees counts of a moment ago. A peer that does not answer soon
// is shown as it was last heard of.
func (r *replica) askHeartbeats(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var asked sync.WaitGroup
	for _, p := range r.usablePeers() {
		asked.Go(func() { r.askHeartbeat(ctx, p) })
	}
	asked.Wait()
}

func (r *replica) askHeartbeat(ctx context.Context, p *peer) {
	sent := time.Now()
	reply, err := p.link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Heartbeat{Heartbeat: &peerpb.Heartbeat{}}})
	if h := reply.GetHeartbeatReply(); err == nil && h != nil {
		r.heartbeatFrom(p, h, time.Since(sent))
	}
}

func (p *peer) describe(ns *report.NodeStatus) {
	ns.Up = p.usable()
	p.mu.Lock()
	defer p.mu.Unlock()
	ns.Incarnation, ns.WritesMissed = p.incarnation, int64(p.missed)
	if !ns.Up {
		ns.State, ns.Entries = StateDown, -1
		if ns.Reason = p.barred; ns.Reason == "" {
			if err := p.link.LastError(); err != nil {
				ns.Reason = err.Error()
			}
		}
		return
	}
	ns.State, ns.Entries, ns.Tombstones, ns.Disk = p.state, p.entries, p.tombstones, p.disk
	ns.ClockSkewMS = float64(p.skew.Microseconds()) / 1000
}
