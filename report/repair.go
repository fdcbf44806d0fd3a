package report

import (
	"time"

	"syntropy/hlc"
)

// MaxListed bounds the differences, and the steps of a descent, that a report lists;
// the rest is counted. A report has to fit into memory and into one answer of the
// admin API, and nobody reads more.
const MaxListed = 10_000

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

// Repair is the outcome of the session of one pair.
type Repair struct {
	Initiator     hlc.NodeID `json:"initiator"`
	Partner       hlc.NodeID `json:"partner"`
	Shards        int        `json:"shards"`
	ShardsEqual   int        `json:"shards_equal"` // no key differed; 0 if the session failed
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

	// What the session took besides. NamingRounds are the rounds until every key
	// that differed was known. RowsRead and NodesCompared are of both sides, but in
	// a dry run and in a session that failed. EntryBytes is the part of the bytes
	// above that the entries took; the rest is what it cost to find them.
	NamingRounds  int64 `json:"naming_rounds,omitempty"`
	RowsRead      int64 `json:"rows_read,omitempty"`
	NodesCompared int64 `json:"nodes_compared,omitempty"`
	EntryBytes    int64 `json:"entry_bytes,omitempty"`

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
	ValueBytes int        `json:"value_bytes"` // -1: not told
	Expires    *time.Time `json:"expires"`
}

// DescentStep is one node of the tree that a session compared.
type DescentStep struct {
	Shard            int    `json:"shard"`
	Level            int    `json:"level"`     // 0 is the shard's root
	Node             string `json:"node"`      // path in nibbles; empty for the root
	Initiator        string `json:"initiator"` // hex of the first word of the digest
	InitiatorEntries uint64 `json:"initiator_entries"`
	Partner          string `json:"partner"`
	PartnerEntries   uint64 `json:"partner_entries"`
	Outcome          string `json:"outcome"` // "match", "differ"
	Then             string `json:"then"`    // "skip", "descend", "list"
}
