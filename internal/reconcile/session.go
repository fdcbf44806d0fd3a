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

func (v view) Rows(n merkle.Node, visit func(merkle.Row) bool) error {
	v.Replica.Rows(n.First(), n.Last(), func(x ring.Position, e lww.Entry, s merkle.Sum) bool {
		return visit(merkle.Row{Position: x, Entry: e, Sum: s})
	})
	return nil
}

func (v view) Sum(e lww.Entry) merkle.Sum { return v.Hasher().Entry(e) }
func (v view) Hash(b []byte) uint64       { return v.Hasher().Bytes(b) }

// Outcome is what one session cost and found.
type Outcome struct {
	Report antientropy.Report
	// Sent and Received are bytes as encoded, frames included, of the initiator,
	// without the entries that differ: what it took to find them and to tell
	// which side is newer.
	Sent, Received int64
	// CPUInitiator and CPUPartner are the time that each side worked, by the
	// clock on the wall: one goroutine works at a time, and processor time is
	// counted in steps of 10 ms on many machines.
	CPUInitiator, CPUPartner time.Duration
	Missed, Extra            int
}

// Session runs one session between two replicas of a workload, a being the
// initiator. It checks what was found against what differs.
func Session(a, b *Replica, expected int) (o Outcome, err error) {
	found := make([]ring.Position, 0, a.w.Diverged)
	cfg := antientropy.Config{
		Now: hlc.FromTime(Now), Expected: expected,
		Found: func(d antientropy.Difference) { found = append(found, d.Position) },
	}
	viewA, viewB := a.View(), b.View()
	runtime.GC()
	began := time.Now()
	lap := func(total *time.Duration) {
		now := time.Now()
		*total += now.Sub(began)
		began = now
	}
	init := antientropy.NewInitiator(viewA, cfg)
	resp := antientropy.NewResponder(func(hlc.Stamp) (antientropy.View, error) { return viewB, nil })
	for {
		msg, err := init.Next()
		lap(&o.CPUInitiator)
		if err != nil {
			return o, err
		}
		if msg == nil {
			break
		}
		if _, err := resp.Receive(msg); err != nil {
			return o, err
		}
		reply := resp.Reply(nil)
		lap(&o.CPUPartner)
		if _, err := init.Receive(reply); err != nil {
			return o, err
		}
		init.Applied(nil)
	}
	o.Report = init.Report()
	if !o.Report.Complete {
		return o, fmt.Errorf("the session is not complete: %+v", o.Report)
	}
	// Entries travel one way or the other; together they are left out.
	o.Sent = o.Report.BytesSent + int64(o.Report.Rounds)*FrameBytes
	o.Received = o.Report.BytesReceived + int64(o.Report.Rounds)*FrameBytes
	slices.Sort(found)
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
