package coordinator_test

import (
	"errors"
	"fmt"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// wallClock gives an hlc.Clock the time, here a fixed one.
type wallClock struct {
	clock *hlc.Clock
	now   time.Time
}

func (c wallClock) Next() (hlc.Stamp, error) {
	if ceiling, due := c.clock.NextCeiling(c.now); due {
		c.clock.Extend(ceiling) // a node makes it durable first
	}
	return c.clock.Next(c.now)
}

func (c wallClock) Observe(s hlc.Stamp) error { return c.clock.Observe(s, c.now) }

// Three replicas, one of them down. The write is OK after two, and the third is
// owed a hint. When it is back, a read that asks it finds it stale and repairs
// it.
func Example() {
	stores := map[hlc.NodeID]map[string]lww.Entry{1: {}, 2: {}, 3: {}}
	down := map[hlc.NodeID]bool{3: true}
	place := coordinator.Placement{
		Self:     1,
		Shard:    func([]byte) int { return 0 },
		Replicas: func(int) []hlc.NodeID { return []hlc.NodeID{1, 2, 3} },
		May:      func(id hlc.NodeID) bool { return !down[id] },
	}
	apply := func(s coordinator.Send) (answers []coordinator.Answer) {
		for _, e := range s.Entries {
			if held, ok := stores[s.To][string(e.Key)]; ok && lww.Compare(e, held) < 0 {
				answers = append(answers, coordinator.Answer{Outcome: coordinator.Shadowed, Version: held.Version})
				continue
			}
			stores[s.To][string(e.Key)] = e
			answers = append(answers, coordinator.Answer{Outcome: coordinator.Applied})
		}
		return answers
	}

	clock := wallClock{hlc.New(0, 500*time.Millisecond, 200*time.Millisecond), time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	w, err := coordinator.NewWrite(place, clock, coordinator.Quorum, []coordinator.Mutation{
		{Kind: coordinator.Put, Key: []byte("mars"), Value: []byte("red")},
	})
	if err != nil {
		panic(err)
	}
	for _, s := range w.Sends() {
		fmt.Printf("send to %v\n", s.To)
		w.Answered(s, apply(s))
	}
	done, err := w.Done()
	fmt.Println("done:", done, err)
	for _, h := range w.Hints() {
		fmt.Printf("keep a hint for %v: %s\n", h.To, h.Entries[0].Key)
	}

	down[3], down[2] = false, true
	hasher := merkle.NewHasher([32]byte{1})
	digest := func(e lww.Entry) merkle.Sum { return hasher.Entry(e) }
	keys := [][]byte{[]byte("mars")}
	r, err := coordinator.NewRead(place, digest, coordinator.Quorum, keys)
	if err != nil {
		panic(err)
	}
	for asks := r.Asks(); len(asks) > 0; asks = r.Asks() {
		for _, a := range asks {
			var answer coordinator.ReadAnswer
			for _, i := range a.Full {
				e, ok := stores[a.To][string(keys[i])]
				answer.Entries = append(answer.Entries, coordinator.Found{Entry: e, OK: ok})
			}
			for _, i := range a.Digest {
				e, ok := stores[a.To][string(keys[i])]
				answer.Digests = append(answer.Digests, coordinator.DigestAnswer{Sum: digest(e), OK: ok})
			}
			r.Answered(a, answer)
		}
	}
	for _, s := range r.Repairs() {
		fmt.Printf("repair %v\n", s.To)
		apply(s)
		r.Repaired(s, nil)
	}
	e, found := r.Entry(0)
	fmt.Printf("read %s: %s, %v\n", keys[0], e.Value, found)

	down[1] = true
	_, err = coordinator.NewRead(place, digest, coordinator.Quorum, keys)
	var unavailable *coordinator.UnavailableError
	fmt.Println(errors.As(err, &unavailable), unavailable.Down)
	// Output:
	// send to n1
	// send to n2
	// done: true <nil>
	// keep a hint for n3: mars
	// repair n3
	// read mars: red, true
	// true [n1 n2]
}
