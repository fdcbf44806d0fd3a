package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/internal/reconcile"
	"syntropy/merkle"
	"syntropy/ring"
)

// compare gives one side newer versions of d rows and runs a session.
func compare(b base, d int) (result, error) {
	rng := rand.New(rand.NewPCG(b.n, uint64(d)))
	mine := view{b.rows, b.tree.Fork(), make(map[uint64]bool)}
	theirs := view{b.rows, b.tree, nil}
	var want []ring.Position
	var buf buffer
	for len(want) < d {
		i := rng.Uint64N(b.n)
		if mine.newer[i] {
			continue
		}
		mine.newer[i] = true
		x := b.position(i)
		want = append(want, x)
		old := merkle.DigestOf(x, b.hasher.Entry(b.entry(&buf, i, x, false)))
		mine.tree.Adjust(x, merkle.DigestOf(x, b.hasher.Entry(b.entry(&buf, i, x, true))).Minus(old))
	}
	r := result{N: int(b.n), D: d, TreeBytes: b.tree.Bytes()}
	var found []ring.Position
	initiator := antientropy.NewInitiator(mine, antientropy.Config{
		Now: hlc.FromTime(reconcile.Now), Found: func(d antientropy.Difference) { found = append(found, d.Position) },
	})
	partner := antientropy.NewResponder(func(hlc.Stamp) (antientropy.View, error) { return theirs, nil })
	var err error
	took := reconcile.Timed(func() { err = session(initiator, partner) })
	if err != nil {
		return r, err
	}
	r.SessionMS = float64(took.Microseconds()) / 1000
	slices.Sort(want)
	slices.Sort(found)
	if !slices.Equal(found, want) {
		return r, errFound
	}
	rep := initiator.Report()
	if !rep.Complete {
		return r, fmt.Errorf("the session is not complete: %+v", rep)
	}
	r.Comparisons, r.RowsRead, r.Rounds = rep.Compared, rep.RowsRead, rep.NamingRounds
	if d == 0 {
		r.Rounds = rep.Rounds
	}
	r.Bytes = rep.BytesSent + rep.BytesReceived - rep.EntryBytes + 2*reconcile.FrameBytes*int64(rep.Rounds)
	if d == 1 {
		compared, err := descend(mine, theirs, want[0])
		if err != nil {
			return r, err
		}
		r.Descent = &compared
	}
	return r, nil
}

func session(initiator *antientropy.Initiator, partner *antientropy.Responder) error {
	for {
		msg, err := initiator.Next()
		if err != nil || msg == nil {
			return err
		}
		if _, err := partner.Receive(msg); err != nil {
			return err
		}
		if _, err := initiator.Receive(partner.Reply(nil)); err != nil {
			return err
		}
		initiator.Applied(nil)
	}
}

// descend finds the one row that differs as with any Merkle tree, as if a digest
// told no more than whether it is equal: the root, then the sixteen children of
// what differs, down to a node with a single row. It returns how many digests
// were compared.
func descend(a, b view, want ring.Position) (compared int, err error) {
	var n merkle.Node
	var ofA, ofB [16]merkle.Syndrome
	for compared = 1; count(a, n) > 1; {
		step := min(4, merkle.MaxBits-int(n.Bits))
		children(a, n, step, ofA[:])
		children(b, n, step, ofB[:])
		next := -1
		for i := range 1 << step {
			compared++
			switch {
			case ofA[i] == ofB[i]:
			case next >= 0:
				return compared, errors.New("two children differ where one row does")
			default:
				next = i
			}
		}
		if next < 0 {
			return compared, errors.New("a node differs, and none of its children")
		}
		n = n.Down(step, next)
	}
	if !n.Contains(want) {
		return compared, errFound
	}
	return compared, nil
}

// children fills dst from the tree, or below its leaves from the rows.
func children(v view, n merkle.Node, bits int, dst []merkle.Syndrome) {
	if v.tree.Syndromes(n, bits, dst[:1<<bits]) {
		return
	}
	sum := merkle.NewSummer(n, bits, dst)
	_ = v.Rows(n, func(r *merkle.Row) bool { // made here, so nothing can fail
		sum.Add(r.Position, r.Fingerprint(0))
		return true
	})
}

// count returns the number of rows under a node.
func count(v view, n merkle.Node) uint64 {
	end := v.n
	if n.Last() < ring.MaxPosition {
		end = v.from(n.Last() + 1)
	}
	return end - v.from(n.First())
}
