package reconcile

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// FrameBytes is what a transport adds to each message: a length and a flag, as
// gRPC does.
const FrameBytes = 5

// View returns the replica as one side of a session sees it.
func (r *Replica) View() antientropy.View { return view{r} }

type view struct{ *Replica }

func (v view) Root(shard int) merkle.Digest { return v.Tree(shard).Root() }

func (v view) Syndromes(n merkle.Node, bits int, dst []merkle.Syndrome) bool {
	return v.Tree(int(n.Path>>(int(n.Bits)-ring.ShardBits(v.Shards())))).Syndromes(n, bits, dst)
}

func (v view) Rows(n merkle.Node, visit func(*merkle.Row) bool) error {
	var row merkle.Row
	v.Replica.Rows(n.First(), n.Last(), func(x ring.Position, e lww.Entry, s merkle.Sum) bool {
		row = merkle.Row{Position: x, Entry: e, Sum: s}
		return visit(&row)
	})
	return nil
}

func (v view) Sum(e lww.Entry) merkle.Sum { return v.Hasher().Entry(e) }
func (v view) Hash(b []byte) uint64       { return v.Hasher().Bytes(b) }

// Initiator is the initiator of a session over a replica. It applies nothing:
// replicas do not change.
type Initiator struct {
	session  *antientropy.Initiator
	found    []ring.Position
	sent     int64 // of EntryBytes
	received int64
}

// Initiate opens a session that expects so many keys to differ; 0 means that it
// is not known.
func (r *Replica) Initiate(expected int) *Initiator { return r.initiate(expected, false) }

// Find is Initiate for a dry run: what differs is found and confirmed, and no
// entry is moved.
func (r *Replica) Find(expected int) *Initiator { return r.initiate(expected, true) }

func (r *Replica) initiate(expected int, dry bool) *Initiator {
	i := &Initiator{found: make([]ring.Position, 0, r.w.Diverged)}
	i.session = antientropy.NewInitiator(r.View(), antientropy.Config{
		Now: hlc.FromTime(Now), Expected: expected, DryRun: dry,
		Found: func(d antientropy.Difference) { i.found = append(i.found, d.Position) },
	})
	return i
}

// Step takes the partner's answer, nil at first, and returns the next message,
// nil at the end.
func (i *Initiator) Step(reply []byte) (msg []byte, err error) {
	before := i.session.Report().EntryBytes
	if reply != nil {
		if _, err := i.session.Receive(reply); err != nil {
			return nil, err
		}
		i.session.Applied(nil)
	}
	pulled := i.session.Report().EntryBytes
	i.received += pulled - before
	msg, err = i.session.Next()
	i.sent += i.session.Report().EntryBytes - pulled
	return msg, err
}

// Report returns what the session has done so far.
func (i *Initiator) Report() antientropy.Report { return i.session.Report() }

// Named returns the positions that were found to differ.
func (i *Initiator) Named() []ring.Position { return i.found }

// EntryBytes returns what of the messages each way was entries.
func (i *Initiator) EntryBytes() (sent, received int64) { return i.sent, i.received }

// Partner is the side that answers.
type Partner struct{ session *antientropy.Responder }

// Answer opens the partner's side of a session.
func (r *Replica) Answer() *Partner {
	view := r.View()
	return &Partner{antientropy.NewResponder(func(hlc.Stamp) (antientropy.View, error) { return view, nil })}
}

// Step takes a message and returns the answer.
func (p *Partner) Step(msg []byte) (reply []byte, err error) {
	if _, err := p.session.Receive(msg); err != nil {
		return nil, err
	}
	return p.session.Reply(nil), nil
}

// Outcome is what one session cost and found.
type Outcome struct {
	Report antientropy.Report
	// Sent and Received are bytes as encoded, frames included, of the initiator,
	// without the entries that differ: what it took to find them and to tell
	// which side is newer.
	Sent, Received int64
	// CPUInitiator and CPUPartner are what Timed tells of each side's work.
	CPUInitiator, CPUPartner time.Duration
	Missed, Extra            int
}

// Rounds is how many round trips it took until every key that differs was
// named.
func (o Outcome) Rounds() int {
	if o.Report.NamingRounds == 0 {
		return o.Report.Rounds // nothing differs, and one exchange says so
	}
	return o.Report.NamingRounds
}

// Session runs one session between two replicas of a workload, a being the
// initiator. It checks what was found against what differs.
func Session(a, b *Replica, expected int) (o Outcome, err error) {
	for shard := range a.Shards() { // built beforehand, as a store keeps them
		a.Tree(shard)
		b.Tree(shard)
	}
	runtime.GC()
	var initiator *Initiator
	var partner *Partner
	o.CPUInitiator += Timed(func() { initiator = a.Initiate(expected) })
	o.CPUPartner += Timed(func() { partner = b.Answer() })
	for msg := []byte(nil); ; {
		o.CPUInitiator += Timed(func() { msg, err = initiator.Step(msg) })
		if err != nil {
			return o, err
		}
		if msg == nil {
			break
		}
		o.CPUPartner += Timed(func() { msg, err = partner.Step(msg) })
		if err != nil {
			return o, err
		}
	}
	o.Report = initiator.Report()
	if !o.Report.Complete {
		return o, fmt.Errorf("the session is not complete: %+v", o.Report)
	}
	frames := int64(o.Report.Rounds) * FrameBytes
	entriesSent, entriesReceived := initiator.EntryBytes()
	o.Sent = o.Report.BytesSent + frames - entriesSent
	o.Received = o.Report.BytesReceived + frames - entriesReceived
	found := slices.Sorted(slices.Values(initiator.Named()))
	o.Missed, o.Extra = difference(a.Truth(), found)
	return o, nil
}

// difference counts what is in only one of two sorted lists.
func difference(want, got []ring.Position) (missed, extra int) {
	for len(want) > 0 && len(got) > 0 {
		switch {
		case want[0] == got[0]:
			want, got = want[1:], got[1:]
		case want[0] < got[0]:
			missed, want = missed+1, want[1:]
		default:
			extra, got = extra+1, got[1:]
		}
	}
	return missed + len(want), extra + len(got)
}
