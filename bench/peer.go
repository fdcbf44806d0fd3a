// Package bench measures ways to find out where two replicas differ, side by
// side, over the same replicas.
//
// Each way is a [Peer]. It builds what it keeps of a replica, its index, and
// opens sessions between two of them. A session names every diverged key and
// learns the other side's version of it; entries are not moved. Messages are
// bytes, encoded as they would be sent, and what a side does between two of them
// is what its CPU time is.
//
// See the README for what is compared and what the figures mean.
package bench

import (
	"fmt"
	"slices"
	"time"

	"syntropy/internal/reconcile"
	"syntropy/merkle"
	"syntropy/ring"
)

// Peer is a way to compare replicas.
type Peer interface {
	Name() string
	// Limit says why a workload is beyond the peer, empty if it is not.
	Limit(w reconcile.Workload) string
	// Build makes the peer's index of a replica. That is no part of a session:
	// an index is kept up to date by writes.
	Build(r *reconcile.Replica) (Side, error)
}

// Side is one replica as a peer sees it. It may be an Updater, too.
type Side interface {
	// Initiate and Answer open the two ends of a session. What they keep is not
	// shared with other sessions.
	Initiate() Initiator
	Answer() Party
}

// Party is one end of a session.
type Party interface {
	// Step takes what the other end has sent and returns what is to be sent to
	// it. Both belong to the party that made them, and are valid until its next
	// step. A partner that has nothing to answer returns nil.
	Step(in []byte) (out []byte, err error)
	// Comparisons is how many digests, of nodes or rows, it has compared.
	Comparisons() int
}

// Initiator is the end that speaks first, to a nil message, and knows when the
// session is over: then it returns nil. An empty message that is not nil costs
// nothing: it only lets the partner, which has more to send, go on.
type Initiator interface {
	Party
	// Named returns the positions at which the replicas differ.
	Named() []ring.Position
}

// Repairer is an Initiator that does not stop when all is named, but moves the
// entries, too, until both sides agree.
type Repairer interface {
	Repaired() Repair
}

// Repair is what of a session's cost was naming, and what the entries were that
// it moved.
type Repair struct {
	EntriesSent, EntriesReceived int // bytes
	NamingRounds                 int // until every diverged key was known; 0 if there was none
	NamingBytes                  int // both ways until then, without frames and entries
}

// Sized is a Side that knows how much memory its index takes.
type Sized interface {
	Bytes() int
}

// Updater is a Side whose index follows a write.
type Updater interface {
	// Update replaces the hash of a row.
	Update(x ring.Position, before, after merkle.Sum)
}

// frameBytes is added for each message: its length and what kind it is.
const frameBytes = 5

// maxMessages ends a session that gets nowhere.
const maxMessages = 10_000

// Result is what one session cost.
type Result struct {
	BytesAtoB, BytesBtoA       int     // a is the initiator; without entries
	RoundTrips                 float64 // until every diverged key was named
	RoundTripsTotal            float64 // of a Repairer, more: until both sides agree
	NamingBytes                int     // both ways, until every diverged key was named
	CPUInitiator, CPUPartner   time.Duration
	Comparisons, Missed, Extra int
}

// Finder is a side of a peer that also moves the entries.
type Finder interface {
	// Finding returns the side as one that finds and confirms what differs, and
	// moves nothing.
	Finding() Side
}

// Run lets a open a session with b and compares what it names with the truth,
// which is in ascending order.
func Run(a, b Side, truth []ring.Position) (r Result, err error) {
	var initiator Initiator
	var partner Party
	// Opening an end is that side's work, too: some make a copy of their index.
	r.CPUInitiator += reconcile.Timed(func() { initiator = a.Initiate() })
	r.CPUPartner += reconcile.Timed(func() { partner = b.Answer() })

	var msg []byte
	messages := 0
	for range maxMessages {
		r.CPUInitiator += reconcile.Timed(func() { msg, err = initiator.Step(msg) })
		if err != nil {
			return r, fmt.Errorf("initiator: %w", err)
		}
		if msg == nil {
			r.Comparisons = initiator.Comparisons() + partner.Comparisons()
			r.finish(initiator, messages)
			r.Missed, r.Extra = differences(truth, initiator.Named())
			return r, nil
		}
		goOn := len(msg) == 0
		if !goOn {
			r.BytesAtoB += frameBytes + len(msg)
			messages++
		}
		r.CPUPartner += reconcile.Timed(func() { msg, err = partner.Step(msg) })
		if err != nil {
			return r, fmt.Errorf("partner: %w", err)
		}
		if msg != nil {
			r.BytesBtoA += frameBytes + len(msg)
		}
		if msg != nil && !goOn {
			messages++
		}
	}
	return r, fmt.Errorf("no end after %d messages", maxMessages)
}

// finish takes apart what a session as a whole has cost.
func (r *Result) finish(initiator Initiator, messages int) {
	r.RoundTrips, r.RoundTripsTotal = float64(messages)/2, float64(messages)/2
	if s, ok := initiator.(Repairer); ok {
		repair := s.Repaired()
		r.BytesAtoB -= repair.EntriesSent
		r.BytesBtoA -= repair.EntriesReceived
		if repair.NamingRounds > 0 {
			r.RoundTrips = float64(repair.NamingRounds)
			r.NamingBytes = repair.NamingBytes + 2*frameBytes*repair.NamingRounds
			return
		}
	}
	r.NamingBytes = r.BytesAtoB + r.BytesBtoA
}

// differences counts what is in truth but was not named, and the reverse.
func differences(truth, named []ring.Position) (missed, extra int) {
	named = slices.Clone(named)
	slices.Sort(named)
	named = slices.Compact(named)
	for len(truth) > 0 || len(named) > 0 {
		switch {
		case len(named) == 0 || len(truth) > 0 && truth[0] < named[0]:
			missed, truth = missed+1, truth[1:]
		case len(truth) == 0 || named[0] < truth[0]:
			extra, named = extra+1, named[1:]
		default:
			truth, named = truth[1:], named[1:]
		}
	}
	return missed, extra
}
