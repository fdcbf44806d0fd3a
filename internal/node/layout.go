package node

import (
	"context"
	"slices"

	"syntropy/hlc"
	"syntropy/internal/topology"
)

// layout is the topology table as this node works with it. It is replaced as a
// whole when a newer table arrives, so whoever holds one sees one version.
type layout struct {
	table *topology.Table
	peers map[hlc.NodeID]*peer // all members but this node
	// order holds the replicas of each shard, beginning with this node or the one
	// that follows it: so the first reads of different nodes go to different
	// replicas.
	order  [][]hlc.NodeID
	shared map[hlc.NodeID][]int // shards held together with another member, ascending
	held   int                  // shards that this node holds
}

// newLayout makes the layout of a table, keeping the peers that it had.
func (r *replica) newLayout(t *topology.Table, old *layout) *layout {
	l := &layout{table: t, peers: make(map[hlc.NodeID]*peer), shared: make(map[hlc.NodeID][]int)}
	for _, m := range t.Members {
		if m.ID == r.self {
			continue
		}
		if old != nil && old.peers[m.ID] != nil {
			l.peers[m.ID] = old.peers[m.ID]
		} else {
			l.peers[m.ID] = r.newPeer(m)
		}
		l.shared[m.ID] = t.Shared(r.self, m.ID)
	}
	l.order = make([][]hlc.NodeID, len(t.Shards))
	for shard, ids := range t.Shards {
		i, _ := slices.BinarySearch(ids, r.self)
		l.order[shard] = append(slices.Clone(ids[i:]), ids[:i]...)
		if t.Holds(r.self, shard) {
			l.held++
		}
	}
	return l
}

// others returns the other members, by id.
func (l *layout) others() []hlc.NodeID {
	ids := make([]hlc.NodeID, 0, len(l.peers))
	for _, m := range l.table.Members {
		if l.peers[m.ID] != nil {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// partners returns the members that hold a shard together with this node, by id.
func (l *layout) partners() []hlc.NodeID {
	return slices.DeleteFunc(l.others(), func(id hlc.NodeID) bool { return len(l.shared[id]) == 0 })
}

// scope returns the shards of a session with a partner, nil for all that exist.
func (l *layout) scope(partner hlc.NodeID) []int {
	if shards := l.shared[partner]; len(shards) < len(l.table.Shards) {
		return shards
	}
	return nil
}

// layout returns the present layout.
func (r *replica) layout() *layout { return r.topology.Load() }

// peer returns another member, or nil.
func (r *replica) peer(id hlc.NodeID) *peer { return r.layout().peers[id] }

// followTable takes each newer table into service until ctx ends.
func (r *replica) followTable(ctx context.Context) {
	for {
		r.adopt(ctx, r.node.newestTable())
		select {
		case <-ctx.Done():
			return
		case <-r.node.tableChanged:
		}
	}
}

// adopt puts a newer table into service and connects to the members that it adds.
func (r *replica) adopt(ctx context.Context, t *topology.Table) {
	old := r.layout()
	if t.Version <= old.table.Version {
		return
	}
	l := r.newLayout(t, old)
	r.mu.Lock()
	r.absence.setMembers(l.others())
	r.mu.Unlock()
	r.topology.Store(l)
	r.log.Info("a new topology is in service", "version", t.Version, "members", len(t.Members), "shards_held", l.held)
	for id, p := range l.peers {
		if old.peers[id] == nil {
			r.connect(ctx, p)
		}
	}
	r.rescheduled()
}

// connect keeps a peer connected, and brings it the hints that wait for it.
func (r *replica) connect(ctx context.Context, p *peer) {
	r.work.Go(func() { p.link.Run(ctx) })
	r.work.Go(func() { r.replayHints(ctx, p) })
}
