package node

import (
	"sync/atomic"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/report"
)

// Events are called when something happens that an operator or an embedding
// program may want to know. Each is optional. They are called from the node's own
// goroutines, several at a time, and hold up what they are called from: they return
// soon and call nothing of the node.
type Events struct {
	// PeerUp: the node is connected to another member.
	PeerUp func(peer hlc.NodeID)
	// PeerDown: the connection to another member was lost, or the member said that
	// it stops.
	PeerDown func(peer hlc.NodeID, reason error)
	// StateChanged: this node's own state, once when it has come into its cluster and
	// again whenever it changes. reason is empty for a live one.
	StateChanged func(state, reason string)
	// HintsReplayed: a member that was away has got writes that were kept for it.
	HintsReplayed func(peer hlc.NodeID, count int)
	// ReadRepaired: a read found a replica with an older version of this key, and
	// brought it the newest one. The key is the callee's.
	ReadRepaired func(replica hlc.NodeID, key []byte)
	// Repaired: an anti-entropy session that this node began has ended.
	Repaired func(report.Repair)
}

func (e Events) readRepaired(replica hlc.NodeID, entries []lww.Entry) {
	if e.ReadRepaired == nil {
		return
	}
	for _, entry := range entries {
		e.ReadRepaired(replica, append([]byte(nil), entry.Key...))
	}
}

func (e Events) hintsReplayed(peer hlc.NodeID, count int) {
	if e.HintsReplayed != nil {
		e.HintsReplayed(peer, count)
	}
}

func (e Events) repaired(outcome report.Repair) {
	if e.Repaired != nil {
		e.Repaired(outcome)
	}
}

func (e Events) peerUp(peer hlc.NodeID) {
	if e.PeerUp != nil {
		e.PeerUp(peer)
	}
}

func (e Events) peerDown(peer hlc.NodeID, reason error) {
	if e.PeerDown != nil {
		e.PeerDown(peer, reason)
	}
}

func (e Events) stateChanged(state, reason string) {
	if e.StateChanged != nil {
		e.StateChanged(state, reason)
	}
}

// counters count what this node has done since it started.
type counters struct {
	hintsRejected atomic.Int64 // refused by the replica that they were kept for
	readRepairs   atomic.Int64 // versions brought to a replica by a read
	sessions      atomic.Int64 // completed, by the schedule
	pulled        atomic.Int64 // entries that sessions begun here brought here
	pushed        atomic.Int64 // and to the partner
	rowsRead      atomic.Int64 // here, for sessions on either side
	failed        atomic.Int64 // requests with writes that were sent and not answered
	delivering    atomic.Int64 // writes on their way to a replica, this one included
}
