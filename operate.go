package syntropy

import (
	"context"

	"syntropy/hlc"
	"syntropy/report"
)

// Member is one node of the cluster, as the answering node sees it.
type Member struct {
	ID    hlc.NodeID
	Addr  string // peer address
	Zone  string
	Up    bool   // the answering node is connected to it, or is it
	State string // one of the states of package report
}

// Members returns the nodes of the cluster, by id.
func (db *DB) Members(ctx context.Context) ([]Member, error) {
	status, err := db.Status(ctx)
	if err != nil {
		return nil, err
	}
	members := make([]Member, len(status.Nodes))
	for i, n := range status.Nodes {
		members[i] = Member{ID: n.Node, Addr: n.Peer, Zone: n.Zone, Up: n.Up, State: n.State}
	}
	return members, nil
}

// Whereabouts say who holds which keys, and where clients reach them.
type Whereabouts struct {
	Cluster string // its id
	Version uint64 // of the topology
	Self    hlc.NodeID
	Members []Whereabout // by ID
	// Replicas are the members that hold each shard, ascending; shard i has the i-th of
	// equal, consecutive parts of Redis Cluster's slots. Only to be read.
	Replicas [][]hlc.NodeID
}

// Whereabout is where one member is, as the answering node sees it.
type Whereabout struct {
	ID         hlc.NodeID
	PeerAddr   string
	ClientAddr string // [Options.ClientAddr] of the member; empty if it is not known
	Serves     bool   // it is up, and answers reads of what it holds
}

// Whereabouts tells who holds which keys, for clients that go to a replica directly.
// Any node serves any key, so an answer that is out of date costs a hop and no more. It
// asks nobody, so it costs little.
func (db *DB) Whereabouts(ctx context.Context) (Whereabouts, error) {
	w, err := db.core.node.Whereabouts()
	if err != nil {
		return Whereabouts{}, db.explain(ctx, reading, err)
	}
	members := make([]Whereabout, len(w.Members))
	for i, m := range w.Members {
		members[i] = Whereabout(m)
	}
	return Whereabouts{Cluster: w.Cluster, Version: w.Version, Self: w.Self, Members: members, Replicas: w.Replicas}, nil
}

// Status describes the cluster as this node sees it: who is up, until when each pair
// of replicas is proven to agree, what is kept for whom.
func (db *DB) Status(ctx context.Context) (report.Status, error) {
	s, err := db.core.node.Status(ctx)
	return s, db.explain(ctx, reading, err)
}

// Inspect asks every replica what it holds of a key, tombstones and expired values
// included.
func (db *DB) Inspect(ctx context.Context, key []byte) (report.Inspection, error) {
	in, err := db.core.node.Inspect(ctx, key)
	return in, db.explain(ctx, reading, err)
}

// Repair compares pairs of replicas and makes them agree, all pairs unless the
// options say otherwise, and returns when it is done. A pair that could not be
// compared says so in its report; the error is for what concerns the whole. When ctx
// ends, so does the repair; what it has moved stays, and running it again is cheap.
func (db *DB) Repair(ctx context.Context, options report.RepairOptions) ([]report.Repair, error) {
	r, err := db.core.node.Repair(ctx, options)
	return r, db.explain(ctx, reading, err)
}

// CancelRepair stops the repairs that were asked for on this node, and those that run
// on others for anybody. It returns how many there were here.
func (db *DB) CancelRepair(ctx context.Context) (int, error) {
	n, err := db.core.node.CancelRepair(ctx)
	return n, db.explain(ctx, reading, err)
}

// Roots returns the root of every shard's tree on every replica that is up: equal
// roots mean equal data. With recompute each node also sums up the rows on its disk,
// which proves the trees and takes as long as reading everything.
func (db *DB) Roots(ctx context.Context, recompute bool) (report.Roots, error) {
	r, err := db.core.node.Roots(ctx, recompute)
	return r, db.explain(ctx, reading, err)
}

// Scrub reads every row of a node's disk, this one's unless the options say otherwise,
// compares what they add up to with the trees, and returns when it is done. With Heal
// it makes right what is wrong, from another replica.
func (db *DB) Scrub(ctx context.Context, options report.ScrubOptions) (report.Scrub, error) {
	s, err := db.core.node.Scrub(ctx, options)
	return s, db.explain(ctx, reading, err)
}
