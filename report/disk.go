package report

import (
	"time"

	"syntropy/hlc"
)

// Disk is what a node knows of the disk under its data directory.
type Disk struct {
	FreeBytes     uint64 `json:"free_bytes"`
	TotalBytes    uint64 `json:"total_bytes"`
	ReservedBytes uint64 `json:"reserved_bytes"` // kept free of writes
	// Full: the node takes no writes, since FullSince.
	Full      bool       `json:"full"`
	FullSince *time.Time `json:"full_since,omitempty"`
	// SlowSeconds is for how long an operation has not come back, zero unless that is
	// long.
	SlowSeconds float64 `json:"slow_seconds"`
	SlowFile    string  `json:"slow_file,omitempty"`
	// Rot lists the files that were found to be damaged since the node started.
	Rot []Rot `json:"rot,omitempty"`
	// Quarantined lists what this node does not read for anybody, the first
	// MaxListed of it.
	Quarantined []Quarantine `json:"quarantined,omitempty"`
	// Scrub is the scrub that runs, and ScrubbedAt when the last one of all shards
	// was over.
	Scrub      *ScrubProgress `json:"scrub,omitempty"`
	ScrubbedAt *time.Time     `json:"scrubbed_at,omitempty"`
}

// Rot is a file with bytes that fail their checksum.
type Rot struct {
	File       string    `json:"file"`
	FirstShard int       `json:"first_shard"` // of the rows that it holds; -1: none
	LastShard  int       `json:"last_shard"`
	Since      time.Time `json:"since"`
	Error      string    `json:"error"`
}

// Quarantine is a part of a shard whose rows cannot be read, or do not match the
// digests.
type Quarantine struct {
	Shard     int       `json:"shard"`
	FromToken string    `json:"from_token"`
	ToToken   string    `json:"to_token"`
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason"`
}

// ScrubProgress says how far a scrub has come.
type ScrubProgress struct {
	Shards int    `json:"shards"`
	Done   int    `json:"done"`
	Bytes  uint64 `json:"bytes"`
}

// ScrubOptions says what `syntropy scrub` does.
type ScrubOptions struct {
	Node  hlc.NodeID `json:"node,omitempty"`  // 0: the node that is asked
	Shard *int       `json:"shard,omitempty"` // nil: all that it holds
	Heal  bool       `json:"heal,omitempty"`
}

// Scrub is what a node found when it compared its disk with its trees.
type Scrub struct {
	Node       hlc.NodeID     `json:"node"`
	Shards     int            `json:"shards"`
	Healthy    int            `json:"healthy"` // shards in which nothing was wrong
	Rows       uint64         `json:"rows"`
	Bytes      uint64         `json:"bytes"`
	Problems   []ScrubProblem `json:"problems"`
	DurationMS float64        `json:"duration_ms"`
	Error      string         `json:"error"` // empty: all shards were read
}

// ScrubProblem is a shard in which something was wrong.
type ScrubProblem struct {
	Shard            int        `json:"shard"`
	WrongLeaves      int        `json:"wrong_leaves"`      // rows and digests do not match
	UnreadableLeaves int        `json:"unreadable_leaves"` // some of their rows cannot be read
	TotalsWrong      bool       `json:"totals_wrong"`
	IndexWrong       bool       `json:"index_wrong"` // the garbage index
	Healed           bool       `json:"healed"`
	From             hlc.NodeID `json:"from,omitempty"` // the replica that it was healed from; 0: none was needed
	RowsChanged      int        `json:"rows_changed"`
	Error            string     `json:"error"` // why rows cannot be read, or the shard not be healed
}
