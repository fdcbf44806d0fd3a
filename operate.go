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
