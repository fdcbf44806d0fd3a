package report

import (
	"time"

	"syntropy/hlc"
)

// States of a node.
const (
	StateChecking = "checking" // it was away for long and waits to hear that it may serve
	StateJoining  = "joining"  // it takes writes and serves no reads until it is filled
	StateLive     = "live"
	StateStale    = "stale" // it was away too long: it neither serves nor syncs
	StateDown     = "down"  // of another node: not connected
)

// Status answers `syntropy status`.
type Status struct {
	Cluster         string       `json:"cluster"`
	TopologyVersion uint64       `json:"topology_version"`
	Node            hlc.NodeID   `json:"node"` // the node that answered
	Nodes           []NodeStatus `json:"nodes"`
	Pairs           []PairStatus `json:"pairs"`
	// OldestUnprovenSeconds is the age of the oldest proof over all pairs: since
	// when some pair of replicas is not known to agree. A pair that never completed
	// a session counts from the creation of the cluster.
	OldestUnprovenSeconds float64 `json:"oldest_unproven_seconds"`
	// HintsPending counts the writes that all nodes that are up keep for others.
	HintsPending int64    `json:"hints_pending"`
	Tombstones   int64    `json:"tombstones"`
	Rebuilding   int      `json:"rebuilding"` // nodes being filled from scratch
	Counters     Counters `json:"counters"`
}

// Counters say what the answering node has done since it started, by line of
// defence.
type Counters struct {
	WritesInFlight int64 `json:"writes_in_flight"` // on their way to a replica, or to being kept for it, at this moment
	HintsPending   int64 `json:"hints_pending"`    // kept by the answering node at this moment

	// DeliveriesFailed counts requests with writes that were sent to a replica and
	// not answered.
	DeliveriesFailed int64 `json:"deliveries_failed"`

	HintsKept      int64 `json:"hints_kept"`      // writes kept for a replica that did not get them
	HintsDelivered int64 `json:"hints_delivered"` // of those, brought to it
	HintsExpired   int64 `json:"hints_expired"`   // of those, older than the hint window before it returned
	HintsDropped   int64 `json:"hints_dropped"`   // of those, given up for lack of room
	HintsRejected  int64 `json:"hints_rejected"`  // of those, refused by the replica
	ReadRepairs    int64 `json:"read_repairs"`    // versions brought to a replica by a read
	// SessionsScheduled counts completed sessions that the schedule began; the keys
	// are those that all sessions begun here moved, an operator's included.
	SessionsScheduled int64 `json:"sessions_scheduled"`
	KeysPulled        int64 `json:"keys_pulled"`
	KeysPushed        int64 `json:"keys_pushed"`
	// RowsReadByRepair counts the rows that the answering node has read for
	// sessions, on whichever side of them: what repair costs its disk.
	RowsReadByRepair int64 `json:"rows_read_by_repair"`
}

// NodeStatus is one member as the answering node sees it.
type NodeStatus struct {
	Node        hlc.NodeID `json:"node"`
	Peer        string     `json:"peer"` // peer address
	Zone        string     `json:"zone,omitempty"`
	Up          bool       `json:"up"`
	State       string     `json:"state"`            // one of the states above
	Reason      string     `json:"reason,omitempty"` // why it is not live, for people
	Shards      int        `json:"shards"`
	Entries     int64      `json:"entries"` // rows held, tombstones included; -1 when unknown
	Tombstones  int64      `json:"tombstones"`
	Incarnation string     `json:"incarnation,omitempty"` // identity of its disk
	ClockSkewMS float64    `json:"clock_skew_ms"`         // its clock minus ours
	// HintsPending counts the writes that the answering node keeps for this one.
	HintsPending int64 `json:"hints_pending"`
	// WritesMissed counts the writes that the answering node could neither bring
	// to this one nor keep for it, since it started and since it last brought a
	// repair with it to its end.
	WritesMissed int64 `json:"writes_missed"`
	// Disk is what the node last said of its disk; null when it is unknown.
	Disk *Disk `json:"disk,omitempty"`
}

// PairStatus says until when two replicas are proven to agree.
type PairStatus struct {
	A           hlc.NodeID `json:"a"`
	B           hlc.NodeID `json:"b"`
	Shards      int        `json:"shards"`       // that both hold
	ProvenUntil *time.Time `json:"proven_until"` // null: never
	// UnprovenSeconds is the age of the proof.
	UnprovenSeconds float64 `json:"unproven_seconds"`
}
