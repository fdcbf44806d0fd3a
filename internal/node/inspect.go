package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/report"
	"syntropy/ring"
	"syntropy/storage"
)

// Inspect asks every replica for its version of a key.
func (n *Node) Inspect(ctx context.Context, key []byte) (report.Inspection, error) {
	r, err := n.enter()
	if err != nil {
		return report.Inspection{}, err
	}
	defer n.leave()
	if len(key) == 0 || len(key) > lww.MaxKeyBytes {
		return report.Inspection{}, &Error{CodeInvalid, fmt.Sprintf("a key of %d bytes cannot exist: keys have 1 to %d", len(key), lww.MaxKeyBytes)}
	}
	shard, token := r.store.Locate(key)
	in := report.Inspection{Shard: shard, Slot: ring.Slot(key), Token: token.String()}
	in.Key, in.KeyBase64 = report.JSONKey(key)
	replicas := r.layout().table.Replicas(shard)
	in.Replicas = make([]report.ReplicaVersion, len(replicas))
	var asked sync.WaitGroup
	for i, id := range replicas {
		asked.Go(func() { in.Replicas[i] = r.versionOn(ctx, id, key) })
	}
	asked.Wait()
	in.Agree = true
	var first *report.ReplicaVersion
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
func (r *replica) versionOn(ctx context.Context, id hlc.NodeID, key []byte) report.ReplicaVersion {
	v := report.ReplicaVersion{Node: id}
	if id == r.self {
		v.State = r.currentState()
		e, found, err := r.store.Get(key)
		switch {
		case err != nil:
			v.Error = err.Error()
		case found:
			setVersion(&v, e, r.store.Sum(e).Append(nil))
		}
		return v
	}
	p := r.peer(id)
	if !p.usable() {
		v.State, v.Error = StateDown, p.whyNot()
		return v
	}
	v.State = p.currentState()
	e, found, err := r.inspectOn(ctx, p, key)
	switch {
	case err != nil:
		v.Error = err.Error()
	case found:
		setVersion(&v, e, r.digest(e).Append(nil))
	}
	return v
}

// inspectOn asks one peer what it holds of a key, in whatever state it is.
func (r *replica) inspectOn(ctx context.Context, p *peer, key []byte) (e lww.Entry, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.settings.RequestDeadline)
	defer cancel()
	reply, err := p.link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Lookup{Lookup: &peerpb.Lookup{Keys: [][]byte{key}, Inspect: true}}})
	if err != nil {
		return e, false, err
	}
	l := reply.GetLookupReply()
	if l == nil || len(l.Entries) != 1 {
		return e, false, errMalformedAnswer
	}
	if len(l.Entries[0]) == 0 {
		return e, false, nil
	}
	e, _, err = lww.DecodeEntry(l.Entries[0])
	return e, err == nil, err
}

func setVersion(v *report.ReplicaVersion, e lww.Entry, digest []byte) {
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
func (n *Node) Roots(ctx context.Context, recompute bool) (report.Roots, error) {
	r, err := n.enter()
	if err != nil {
		return report.Roots{}, err
	}
	defer n.leave()
	ctx, end := r.audits.begin(ctx)
	defer end()
	table := r.layout().table
	members := table.Members
	replies := make([]*peerpb.RootsReply, len(members))
	errs := make([]error, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		asked.Go(func() { replies[i], errs[i] = r.rootsOf(ctx, m.ID, recompute) })
	}
	asked.Wait()
	roots := report.Roots{Equal: true, Recomputed: recompute, Shards: make([]report.ShardRoots, r.store.Shards())}
	for i, m := range members {
		if errs[i] == nil && len(replies[i].GetShards()) != len(roots.Shards) {
			errs[i] = fmt.Errorf("it answered for %d shards of %d", len(replies[i].GetShards()), len(roots.Shards))
		}
		if errs[i] != nil {
			roots.Errors = append(roots.Errors, fmt.Sprintf("%v: %v", m.ID, errs[i]))
			roots.Equal = false
			for _, shard := range table.HeldBy(m.ID) {
				s := &roots.Shards[shard]
				s.Shard = shard
				s.Replicas = append(s.Replicas, report.ReplicaRoot{Node: m.ID, State: StateDown})
			}
			continue
		}
		for _, shard := range table.HeldBy(m.ID) {
			root := replies[i].Shards[shard]
			s := &roots.Shards[shard]
			s.Shard = shard
			rr := report.ReplicaRoot{Node: m.ID, State: replies[i].State, Root: hex.EncodeToString(root.Root), Entries: root.Entries}
			if recompute {
				rr.Recomputed = hex.EncodeToString(root.Recomputed)
				roots.Equal = roots.Equal && rr.Recomputed == rr.Root
			}
			if j := slices.IndexFunc(s.Replicas, func(o report.ReplicaRoot) bool { return o.Root != "" }); j >= 0 {
				roots.Equal = roots.Equal && s.Replicas[j].Root == rr.Root && s.Replicas[j].Entries == rr.Entries
			}
			s.Replicas = append(s.Replicas, rr)
		}
	}
	return roots, nil
}

func (r *replica) rootsOf(ctx context.Context, id hlc.NodeID, recompute bool) (*peerpb.RootsReply, error) {
	if id == r.self {
		return r.localRoots(ctx, recompute)
	}
	p := r.peer(id)
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
	if len(a.Wrong) > 0 && a.Rows.Sum == a.Tree.Sum {
		sum = sum.Plus(merkle.Sum{Lo: 1})
	}
	return sum.Append(nil)
}
