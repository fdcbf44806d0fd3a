package report

import (
	"time"

	"syntropy/hlc"
)

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

// Roots answers `syntropy roots`.
type Roots struct {
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
