package syntropy

import (
	"syntropy/hlc"
	"syntropy/internal/node"
	"syntropy/report"
)

// Events are called when something happens that an embedding program may want to
// know. Each is optional. They are called from the node's own goroutines, several at
// a time, and hold up what they are called from: they must return soon and must not
// call the DB.
type Events struct {
	// PeerUp: the node is connected to another member.
	PeerUp func(peer hlc.NodeID)
	// PeerDown: the connection to another member was lost, or the member said that
	// it stops.
	PeerDown func(peer hlc.NodeID, reason error)
	// StateChanged: this node's own state is now one of those of package report; the
	// reason is for people.
	StateChanged func(state, reason string)
	// HintsReplayed: a member that was away has got that many writes that this node
	// had kept for it.
	HintsReplayed func(peer hlc.NodeID, count int)
	// ReadRepaired: a read of this node found a replica with an older version of the
	// key, or with none, and brought it the newest one. The key is the callee's.
	ReadRepaired func(replica hlc.NodeID, key []byte)
	// Repaired: an anti-entropy session that this node began has ended, well or not.
	// The report is the callee's.
	Repaired func(report.Repair)
}

// toNode converts: both types have the same fields, which the compiler checks.
func (e Events) toNode() node.Events { return node.Events(e) }
