package antientropy

import (
	"errors"
	"fmt"
	"time"

	"syntropy/hlc"
	"syntropy/merkle"
)

// Config configures the initiator of a session; all but Now has a usable zero.
type Config struct {
	// Now is the time at the initiator, as a stamp. Required.
	Now hlc.Stamp
	// AsOf is the moment that the initiator's view shows, as if nothing had been
	// written after it, and that the partner's view shall show as well. Zero means
	// that both show the present.
	AsOf hlc.Stamp
	// Settle is how old the write that one side lacks must be to be repaired.
	// Longer than a write can be on its way to a replica; zero repairs
	// everything.
	Settle time.Duration
	// Shards limits the session to some shards, ascending, none twice. Nil means
	// all.
	Shards []int
	// Expected is how many keys are expected to differ, for example as many as
	// the last time. The descent begins where that many are thinned out. Wrong by
	// a factor of three either way, it costs up to a third more bytes or one
	// more round. Zero means unknown: the partner's first answer lets the
	// initiator estimate it, which takes a round of its own.
	Expected int
	// Salt makes the session compare other fingerprints, summed anew from all
	// rows: for the session after one that ended with ErrHidden.
	Salt uint8
	// Textbook descends from the roots to single entries, sixteen children at a
	// time, without naming keys on the way: to show how a tree is compared. It
	// reads all rows.
	Textbook bool
	// MessageBytes is the size at which a message is full. An entry larger
	// than that travels alone. Zero means DefaultMessageBytes.
	MessageBytes int
	// DryRun finds the differences and repairs none.
	DryRun bool
	// Details has the partner tell all of its versions, the size of their values,
	// too, where the stamp alone decides. That takes a round more and some 40
	// bytes for each key that differs.
	Details bool
	// Compared, if set, is called for every comparison of two nodes that the
	// initiator makes. Its partner makes others.
	Compared func(Comparison)
	// Found, if set, is called for every key that differs. The difference
	// belongs to the callee.
	Found func(Difference)
}

// Report says what a session did, as far as it has come.
type Report struct {
	Complete      bool // everything found was settled and applied on both sides
	Shards        int
	ShardsEqual   int // known at the end: without a difference
	Rounds        int // a message and its answer
	NamingRounds  int // of them, until every key that differs was known
	BytesSent     int64
	BytesReceived int64
	EntryBytes    int64 // of both, the entries themselves
	NamingBytes   int64 // both ways until every key that differs was known, without entries
	Diverged      int   // keys that differed, those in flight not counted
	Pulled        int   // entries applied here
	Pushed        int   // entries applied by the partner
	InFlight      int   // keys whose difference is younger than the settle window
	// RowsRead and Compared count the rows and the nodes that were looked at, on
	// both sides once the session is complete.
	RowsRead uint64
	Compared uint64
}

// RefusedError is the partner's refusal to begin or to go on.
type RefusedError struct{ Code, Text string }

func (e *RefusedError) Error() string { return "the partner refused: " + e.Text }

// TreeError reports a node whose digest is not that of the entries under it, or
// whose digests differ though the entries agree: the tree of one side does not
// match its rows.
type TreeError struct {
	Shard int
	Node  merkle.Node // from the root of the shard
}

func (e *TreeError) Error() string {
	return fmt.Sprintf("shard %d, node %q: digests and entries contradict each other, so one side's tree is wrong: `syntropy roots --recompute` tells which", e.Shard, e.Node)
}

// ErrHidden is the end of a session in which both sides agree on all that their
// syndromes show, and not on the hashes of all entries: two different versions
// of a key have one fingerprint, which happens once in 2^61 pairs, or a tree is
// wrong. A session with another Config.Salt finds out.
var ErrHidden = errors.New("there is a difference that the fingerprints do not show: run the session again with another salt")
