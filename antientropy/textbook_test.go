package antientropy_test

import (
	"fmt"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/memstore"
)

// How a tree is compared in textbooks: two replicas hold the same eight keys, and
// one of them missed a write. The session compares the roots, finds the one child
// that differs, and under it the one entry.
func Example_textbook() {
	secret := [32]byte{1}
	open := func() *storage.Store {
		s, err := storage.Open(memstore.New(), storage.Options{Shards: 1, Secret: secret})
		if err != nil {
			panic(err)
		}
		return s
	}
	a, b := open(), open()

	start := hlc.FromTime(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))
	write := func(at hlc.Stamp, key, value string, replicas ...*storage.Store) {
		for _, r := range replicas {
			e := lww.Entry{Key: []byte(key), Value: []byte(value), Version: lww.Version{Stamp: at, Node: 1}}
			if _, err := r.Apply([]lww.Entry{e}); err != nil {
				panic(err)
			}
		}
	}
	for i, planet := range []string{"mercury", "venus", "earth", "mars", "jupiter", "saturn", "uranus", "neptune"} {
		write(start.Add(time.Duration(i)*time.Second), planet, "planet", a, b)
	}
	write(start.Add(time.Minute), "earth", "the blue planet", a) // b missed it

	viewA := a.Snapshot()
	defer viewA.Close()
	initiator := antientropy.NewInitiator(viewA, antientropy.Config{
		Now:      start.Add(time.Hour),
		Settle:   10 * time.Second,
		Textbook: true,
		Compared: func(c antientropy.Comparison) {
			fmt.Printf("node %-4q %d and %d entries, equal: %-5v  %v\n", c.Node.String(),
				c.InitiatorRows, c.PartnerRows, c.Initiator == c.Partner, c.Then)
		},
		Found: func(d antientropy.Difference) {
			fmt.Printf("key %q: %v and %v, %v: %s\n", d.Key,
				d.Initiator.Stamp.Time().Format(time.TimeOnly), d.Partner.Stamp.Time().Format(time.TimeOnly), d.Action, d.Reason())
		},
	})
	responder := antientropy.NewResponder(func(asOf hlc.Stamp) (antientropy.View, error) { return b.SnapshotAsOf(asOf), nil })
	for {
		msg, err := initiator.Next()
		if err != nil {
			panic(err)
		}
		if msg == nil {
			break
		}
		pushed, err := responder.Receive(msg)
		if err == nil {
			_, err = b.Apply(pushed)
		}
		pulled, err := initiator.Receive(responder.Reply(err))
		if err != nil {
			panic(err)
		}
		_, err = a.Apply(pulled)
		initiator.Applied(err)
	}
	r := initiator.Report()
	fmt.Printf("%d rounds, %d pushed, %d pulled, complete: %v\n", r.Rounds, r.Pushed, r.Pulled, r.Complete)
	// Output:
	// node ""   8 and 8 entries, equal: false  descend
	// node "0"  1 and 1 entries, equal: true   skip
	// node "3"  1 and 1 entries, equal: true   skip
	// node "4"  2 and 2 entries, equal: false  descend
	// node "8"  1 and 1 entries, equal: true   skip
	// node "c"  1 and 1 entries, equal: true   skip
	// node "d"  1 and 1 entries, equal: true   skip
	// node "f"  1 and 1 entries, equal: true   skip
	// node "4b" 1 and 1 entries, equal: true   skip
	// node "4c" 1 and 1 entries, equal: false  list
	// key "earth": 12:01:00 and 12:00:02, push: the initiator's is newer: stamped 58s later
	// 6 rounds, 1 pushed, 0 pulled, complete: true
}
