package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// Inspect asks every replica for its version of a key.
func (n *Node) Inspect(ctx context.Context, key []byte) (Inspection, error) {
	r, err := n.enter()
	if err != nil {
		return Inspection{}, err
	}
	defer n.leave()
	if len(key) == 0 || len(key) > lww.MaxKeyBytes {
		return Inspection{}, &Error{CodeInvalid, fmt.Sprintf("a key of %d bytes cannot exist: keys have 1 to %d", len(key), lww.MaxKeyBytes)}
	}
	shard, token := r.store.Locate(key)
	in := Inspection{Shard: shard, Slot: ring.Slot(key), Token: token.String()}
	in.Key, in.KeyBase64 = JSONKey(key)
	in.Replicas = make([]ReplicaVersion, len(r.record.Members))
	var asked sync.WaitGroup
	for i, m := range r.record.Members {
		asked.Go(func() { in.Replicas[i] = r.versionOn(ctx, m.ID, key) })
	}
	asked.Wait()
	in.Agree = true
	var first *ReplicaVersion
	for i := range in.Replicas {
		v := &in.Replicas[i]
		if v.Error != "" {
			continue
		}
		if first == nil {
			first = v
		}
		in.Agree = in.Agree && v.Found == first.Found && v.Digest == first.Digest
	}
	return in, nil
}

// versionOn returns what one member holds of a key.
func (r *replica) versionOn(ctx context.Context, id hlc.NodeID, key []byte) ReplicaVersion {
	v := ReplicaVersion{Node: id}
	if id == r.self {
		v.State = r.currentState()
		e, found, err := r.store.Get(key)
		switch {
		case err != nil:
			v.Error = err.Error()
		case found:
			v.set(e, r.store.Digest(e).Sum.Append(nil))
		}
		return v
	}
	p := r.peers[id]
	if !p.usable() {
		v.State, v.Error = StateDown, p.whyNot()
		return v
	}
	v.State = p.currentState()
	e, digest, found, err := r.lookup(ctx, p, key)
	switch {
	case err != nil:
		v.Error = err.Error()
	case found:
		v.set(e, digest)
	}
	return v
}

func (v *ReplicaVersion) set(e lww.Entry, digest []byte) {
	v.Found, v.Tombstone = true, e.Tombstone
	v.Timestamp, v.Time, v.Writer = uint64(e.Stamp), e.Stamp.String(), e.Node.String()
	v.ValueBytes, v.Digest = len(e.Value), hex.EncodeToString(digest)
	if at, ok := e.ExpiresAt(); ok {
		v.Expires = &at
	}
}

// currentState returns what a connected peer last said of itself.
func (p *peer) currentState() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Roots returns the root of every shard on every replica that answers, and with
// recompute also the root that the rows on its disk add up to.
func (n *Node) Roots(ctx context.Context, recompute bool) (RootsReport, error) {
	r, err := n.enter()
	if err != nil {
		return RootsReport{}, err
	}
	defer n.leave()
	ctx, end := r.audits.begin(ctx)
	defer end()
	members := r.record.Members
	replies := make([]*peerpb.RootsReply, len(members))
	errs := make([]error, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		asked.Go(func() { replies[i], errs[i] = r.rootsOf(ctx, m.ID, recompute) })
	}
	asked.Wait()
	report := RootsReport{Equal: true, Recomputed: recompute, Shards: make([]ShardRoots, r.store.Shards())}
	for i, m := range members {
		if errs[i] == nil && len(replies[i].GetShards()) != len(report.Shards) {
			errs[i] = fmt.Errorf("it answered for %d shards of %d", len(replies[i].GetShards()), len(report.Shards))
		}
		if errs[i] != nil {
			report.Errors = append(report.Errors, fmt.Sprintf("%v: %v", m.ID, errs[i]))
			report.Equal = false
			for shard := range report.Shards {
				s := &report.Shards[shard]
				s.Shard = shard
				s.Replicas = append(s.Replicas, ReplicaRoot{Node: m.ID, State: StateDown})
			}
			continue
		}
		for shard, root := range replies[i].Shards {
			s := &report.Shards[shard]
			s.Shard = shard
			rr := ReplicaRoot{Node: m.ID, State: replies[i].State, Root: hex.EncodeToString(root.Root), Entries: root.Entries}
			if recompute {
				rr.Recomputed = hex.EncodeToString(root.Recomputed)
				report.Equal = report.Equal && rr.Recomputed == rr.Root
			}
			if j := slices.IndexFunc(s.Replicas, func(o ReplicaRoot) bool { return o.Root != "" }); j >= 0 {
				report.Equal = report.Equal && s.Replicas[j].Root == rr.Root && s.Replicas[j].Entries == rr.Entries
			}
			s.Replicas = append(s.Replicas, rr)
		}
	}
	return report, nil
}

func (r *replica) rootsOf(ctx context.Context, id hlc.NodeID, recompute bool) (*peerpb.RootsReply, error) {
	if id == r.self {
		return r.localRoots(ctx, recompute)
	}
	p := r.peers[id]
	if !p.usable() {
		return nil, fmt.Errorf("not connected: %s", p.whyNot())
	}
	if !recompute { // reading all rows takes as long as it takes
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	reply, err := p.link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Roots{Roots: &peerpb.Roots{Recompute: recompute}}})
	if err != nil {
		return nil, err
	}
	return reply.GetRootsReply(), nil
}

// localRoots reads this replica's roots, and with recompute all of its rows.
func (r *replica) localRoots(ctx context.Context, recompute bool) (*peerpb.RootsReply, error) {
	view := r.store.Snapshot()
	defer view.Close()
	reply := &peerpb.RootsReply{State: r.currentState()}
	for shard := range view.Shards() {
		root := view.Root(shard)
		out := &peerpb.ShardRoot{Shard: uint32(shard), Root: root.Sum.Append(nil), Entries: root.Count}
		if recompute {
			audit, err := view.Recompute(ctx, shard)
			if err != nil {
				return nil, err
			}
			out.Recomputed = recomputedRoot(audit)
		}
		reply.Shards = append(reply.Shards, out)
	}
	return reply, nil
}

// recomputedRoot is the root from the rows. Leaves that are wrong in ways that
// cancel out in the root must show too, so the root is then made to differ.
func recomputedRoot(a storage.Audit) []byte {
	sum := a.Rows.Sum
	if len(a.Wrong) > 0 && a.Rows == a.Tree {
		sum = sum.Plus(merkle.Sum{Lo: 1})
	}
	return sum.Append(nil)
}

// Status describes the cluster as this node sees it.
func (n *Node) Status(ctx context.Context) (Status, error) {
	r, err := n.enter()
	if err != nil {
		return Status{}, err
	}
	defer n.leave()
	r.askHeartbeats(ctx)
	st := r.store.Stats()
	status := Status{
		Cluster: r.record.ClusterID, TopologyVersion: r.record.Version, Node: r.self,
		Nodes: make([]NodeStatus, 0, len(r.record.Members)), Pairs: []PairStatus{},
		Tombstones: int64(st.Tombstones),
	}
	now := n.wall()
	for _, m := range r.record.Members {
		ns := NodeStatus{Node: m.ID, Peer: m.Addr, Shards: r.store.Shards()}
		if m.ID == r.self {
			ns.Up, ns.Incarnation = true, r.incarnation
			ns.State, ns.Reason = r.stateAndReason()
			ns.Entries, ns.Tombstones = int64(st.Entries), int64(st.Tombstones)
		} else {
			r.peers[m.ID].describe(&ns)
			pair := PairStatus{A: r.self, B: m.ID}
			proven := r.record.Created
			if until, ok := r.proofs.get(m.ID); ok {
				proven = until
				pair.ProvenUntil = &until
			}
			status.Pairs = append(status.Pairs, pair)
			status.OldestUnprovenSeconds = max(status.OldestUnprovenSeconds, now.Sub(proven).Truncate(time.Millisecond).Seconds())
		}
		if ns.State == StateJoining {
			status.Rebuilding++
		}
		status.Nodes = append(status.Nodes, ns)
	}
	return status, nil
}

// askHeartbeats brings what is known of the peers up to date, so that an
// operator never sees counts of a moment ago. A peer that does not answer soon
// is shown as it was last heard of.
func (r *replica) askHeartbeats(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var asked sync.WaitGroup
	for _, p := range r.usablePeers() {
		asked.Go(func() {
			sent := time.Now()
			reply, err := p.link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Heartbeat{Heartbeat: &peerpb.Heartbeat{}}})
			if h := reply.GetHeartbeatReply(); err == nil && h != nil {
				r.heartbeatFrom(p, h, time.Since(sent))
			}
		})
	}
	asked.Wait()
}

func (p *peer) describe(ns *NodeStatus) {
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
	ns.State, ns.Entries, ns.Tombstones = p.state, p.entries, p.tombstones
	ns.ClockSkewMS = float64(p.skew.Microseconds()) / 1000
}
