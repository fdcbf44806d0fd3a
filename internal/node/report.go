package node

import (
	"encoding/base64"
	"time"
	"unicode/utf8"

	"syntropy/hlc"
)

// The types of this file are what operators read: the answers of the admin API
// and, field for field, of every command with --json. Names are stable.

// Status answers `syntropy status`.
type Status struct {
	Cluster         string       `json:"cluster"`
	TopologyVersion uint64       `json:"topology_version"`
	Node            hlc.NodeID   `json:"node"` // the node that answered
	Nodes           []NodeStatus `json:"nodes"`
	Pairs           []PairStatus `json:"pairs"`
	// OldestUnprovenSeconds is the age of the oldest proof over all pairs of
	// this node: since when some pair of replicas is not known to agree. A pair
	// that never completed a session counts from the creation of the cluster.
	OldestUnprovenSeconds float64 `json:"oldest_unproven_seconds"`
	HintsPending          int64   `json:"hints_pending"`
	Tombstones            int64   `json:"tombstones"`
	Rebuilding            int     `json:"rebuilding"` // replicas being filled from scratch
}

// NodeStatus is one member as the answering node sees it.
type NodeStatus struct {
	Node        hlc.NodeID `json:"node"`
	Peer        string     `json:"peer"` // peer address
	Up          bool       `json:"up"`
	State       string     `json:"state"`            // live, joining, checking, stale, down
	Reason      string     `json:"reason,omitempty"` // why it is not live, for people
	Shards      int        `json:"shards"`
	Entries     int64      `json:"entries"` // rows held, tombstones included; -1 when unknown
	Tombstones  int64      `json:"tombstones"`
	Incarnation string     `json:"incarnation,omitempty"` // identity of its disk
	ClockSkewMS float64    `json:"clock_skew_ms"`         // its clock minus ours
	// WritesMissed counts the writes that the answering node could not bring to
	// this one, since it started and since it last brought a repair with it to
	// its end.
	WritesMissed int64 `json:"writes_missed"`
}

// PairStatus says until when two replicas are proven to agree.
type PairStatus struct {
	A           hlc.NodeID `json:"a"`
	B           hlc.NodeID `json:"b"`
	ProvenUntil *time.Time `json:"proven_until"` // null: never
}

// Inspection answers `syntropy inspect KEY`.
type Inspection struct {
	Key       string           `json:"key"`
	KeyBase64 string           `json:"key_base64,omitempty"` // only when the key is not UTF-8
	Shard     int              `json:"shard"`
	Slot      int              `json:"slot"`
	Token     string           `json:"token"` // 15 nibbles: the path in the shard's tree
	Agree     bool             `json:"agree"` // every replica that answered holds the same
	Replicas  []ReplicaVersion `json:"replicas"`
}

// ReplicaVersion is what one replica holds of a key.
type ReplicaVersion struct {
	Node       hlc.NodeID `json:"node"`
	State      string     `json:"state"` // of the node; "down" when it did not answer
	Found      bool       `json:"found"` // it holds a row, which may be a tombstone
	Tombstone  bool       `json:"tombstone"`
	Timestamp  uint64     `json:"timestamp"` // the value stamp as an integer
	Time       string     `json:"time"`      // the same for people
	Writer     string     `json:"writer"`    // node that stamped it
	Expires    *time.Time `json:"expires"`   // null: never
	ValueBytes int        `json:"value_bytes"`
	Digest     string     `json:"digest"` // hex of the entry's keyed 128-bit digest
	Error      string     `json:"error,omitempty"`
}

// RootsReport answers `syntropy roots`.
type RootsReport struct {
	Equal      bool         `json:"equal"` // every replica answered, and every shard has one root on all of them
	Recomputed bool         `json:"recomputed"`
	Shards     []ShardRoots `json:"shards"`
	Errors     []string     `json:"errors,omitempty"` // nodes that did not answer
}

// ShardRoots holds the roots of one shard.
type ShardRoots struct {
	Shard    int           `json:"shard"`
	Replicas []ReplicaRoot `json:"replicas"`
}

// ReplicaRoot is the root of one replica's tree.
type ReplicaRoot struct {
	Node     hlc.NodeID `json:"node"`
	State    string     `json:"state"`
	Root     string     `json:"root"` // hex, 128 bits; empty when the node is down
	Entries  uint64     `json:"entries"`
	PurgeCut uint64     `json:"purge_cut"` // 0: nothing was ever purged
	// Recomputed is the root summed from the rows on disk, with --recompute; it
	// equals Root unless the tree is wrong.
	Recomputed string `json:"recomputed,omitempty"`
}

// RepairOptions says what `syntropy repair` does.
type RepairOptions struct {
	Node    hlc.NodeID `json:"node,omitempty"`  // only pairs with this node; 0: all pairs
	Shard   *int       `json:"shard,omitempty"` // only this shard; nil: all
	DryRun  bool       `json:"dry_run,omitempty"`
	Explain bool       `json:"explain,omitempty"`
	// NoWait leaves differences younger than the settle window for a later
	// repair. Otherwise the repair waits the window out once and looks again.
	NoWait bool `json:"no_wait,omitempty"`
}

// RepairReport is the outcome of the session of one pair.
type RepairReport struct {
	Initiator     hlc.NodeID `json:"initiator"`
	Partner       hlc.NodeID `json:"partner"`
	Shards        int        `json:"shards"`
	ShardsEqual   int        `json:"shards_equal"`
	Rounds        int        `json:"rounds"`
	BytesSent     int64      `json:"bytes_sent"` // by the initiator, as encoded
	BytesReceived int64      `json:"bytes_received"`
	KeysDiverged  int        `json:"keys_diverged"`
	KeysPulled    int        `json:"keys_pulled"` // partner to initiator
	KeysPushed    int        `json:"keys_pushed"` // initiator to partner
	KeysInFlight  int        `json:"keys_in_flight"`
	Rebuilds      int        `json:"rebuilds"`
	DurationMS    float64    `json:"duration_ms"`
	Error         string     `json:"error"` // empty: completed

	DryRun bool `json:"dry_run,omitempty"`
	// Differences lists the diverged keys, at most MaxListed of them; only with
	// DryRun or Explain.
	Differences []Difference `json:"differences,omitempty"`
	// Descent is every comparison that the session made; only with Explain.
	Descent []DescentStep `json:"descent,omitempty"`
	// Truncated counts differences and steps left out of the two lists.
	Truncated int `json:"truncated,omitempty"`
}

// Difference is one diverged key and what is, or would be, done about it.
type Difference struct {
	Shard     int          `json:"shard"`
	Key       string       `json:"key"`
	KeyBase64 string       `json:"key_base64,omitempty"`
	Token     string       `json:"token"`
	Initiator *SideVersion `json:"initiator"` // null: missing there
	Partner   *SideVersion `json:"partner"`
	Action    string       `json:"action"` // push, pull, both or wait (in flight)
	Reason    string       `json:"reason"`
}

// SideVersion is the version that one side of a session holds.
type SideVersion struct {
	Timestamp  uint64     `json:"timestamp"`
	Time       string     `json:"time"`
	Writer     string     `json:"writer"`
	Tombstone  bool       `json:"tombstone"`
	ValueBytes int        `json:"value_bytes"`
	Expires    *time.Time `json:"expires"`
}

// DescentStep is one node of the tree that a session compared.
type DescentStep struct {
	Shard            int    `json:"shard"`
	Level            int    `json:"level"` // 0 is the shard's root
	Node             string `json:"node"`  // path in nibbles; empty for the root
	Initiator        string `json:"initiator"`
	InitiatorEntries uint64 `json:"initiator_entries"`
	Partner          string `json:"partner"`
	PartnerEntries   uint64 `json:"partner_entries"`
	Outcome          string `json:"outcome"` // "match", "differ"
	Then             string `json:"then"`    // "skip", "descend", "list"
}

// JSONKey returns a key as the two fields that JSON has for it: text, and for a
// key that is not UTF-8 also base64.
func JSONKey(key []byte) (text, b64 string) {
	if utf8.Valid(key) {
		return string(key), ""
	}
	return string(key), base64.StdEncoding.EncodeToString(key)
}
