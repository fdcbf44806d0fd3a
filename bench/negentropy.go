package bench

import (
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/nbd-wtf/go-nostr/nip77/negentropy"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy/storage/vector"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Negentropy compares sorted sets by fingerprints of ranges, split in 16 until
// they are short enough to be listed: the implementation in go-nostr. An item is
// a version of a key, its 32-byte id position, hash and zeros, so that rows of
// neighbouring positions are neighbours there.
//
// The library writes hex digits; what counts is the bytes that they stand for.
type Negentropy struct{}

func (Negentropy) Name() string { return "negentropy" }

func (Negentropy) Limit(w reconcile.Workload) string {
	if w.Keys > 2e6 {
		return "it adds up all ids for every session, and keeps 90 bytes a key: at most 2e6 keys"
	}
	return ""
}

type negentropySide struct {
	rows  *reconcile.Replica
	items *vector.Vector
}

func (Negentropy) Build(rows *reconcile.Replica) (Side, error) {
	s := &negentropySide{rows, vector.New()}
	rows.Rows(0, ring.MaxPosition, func(x ring.Position, _ lww.Entry, sum merkle.Sum) bool {
		var id [32]byte
		binary.BigEndian.PutUint64(id[:], uint64(x))
		sum.Append(id[:tokenBytes])
		s.items.Insert(0, hex.EncodeToString(id[:]))
		return true
	})
	s.items.Seal()
	return s, nil
}

func (s *negentropySide) Initiate() Initiator {
	return initiate(s.rows, &negentropyFinder{n: negentropy.New(s.items, 0)})
}

func (s *negentropySide) Answer() Party {
	return answer(s.rows, negentropyAnswerer{negentropy.New(s.items, 0)})
}

func appendHex(dst []byte, digits string) ([]byte, error) {
	return hex.AppendDecode(dst, []byte(digits))
}

type negentropyAnswerer struct{ n *negentropy.Negentropy }

func (a negentropyAnswerer) compared() int { return 0 } // it does not say

func (a negentropyAnswerer) answer(in, out []byte) ([]byte, error) {
	reply, err := a.n.Reconcile(hex.EncodeToString(in))
	if err != nil {
		return nil, err
	}
	return appendHex(out, reply)
}

type negentropyFinder struct {
	n              *negentropy.Negentropy
	haves, haveNot chan []ring.Position
	v              verdict
}

func (f *negentropyFinder) compared() int { return 0 }

func (f *negentropyFinder) found() (named, ask []ring.Position) {
	return append(f.v.onlyUs, f.v.onlyYou...), f.v.stale
}

// collect gathers the positions of ids until the session closes the channel.
func collect(ids <-chan string) chan []ring.Position {
	done := make(chan []ring.Position, 1)
	go func() {
		var xs []ring.Position
		for id := range ids {
			var b [tokenBytes]byte
			// The library made the digits from ours or checked them.
			_, _ = hex.Decode(b[:], []byte(id[:2*tokenBytes]))
			xs = append(xs, ring.Position(binary.BigEndian.Uint64(b[:])))
		}
		slices.Sort(xs)
		done <- xs
	}()
	return done
}

func (f *negentropyFinder) find(in, out []byte) ([]byte, error) {
	if f.haves == nil {
		f.haves, f.haveNot = collect(f.n.Haves), collect(f.n.HaveNots)
		return appendHex(out, f.n.Start())
	}
	next, err := f.n.Reconcile(hex.EncodeToString(in))
	switch {
	case err != nil:
		close(f.n.Haves)
		close(f.n.HaveNots)
		return nil, err
	case next != "":
		return appendHex(out, next)
	}
	// What both have in different versions is in both lists.
	us, you := positionsAsList(<-f.haves), positionsAsList(<-f.haveNot)
	for i := range you {
		you[i].hash = 1
	}
	f.v.compareLists(us, you)
	return nil, nil
}

func positionsAsList(xs []ring.Position) []listed {
	list := make([]listed, len(xs))
	for i, x := range xs {
		list[i].x = x
	}
	return list
}
