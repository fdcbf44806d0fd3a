package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/lww"
)

// TestManyClientsOneKey: however many write one key through one node, each is
// acknowledged, and the replicas end equal.
func TestManyClientsOneKey(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	var clients sync.WaitGroup
	for client := range 60 {
		m := c.nodes[0]
		clients.Go(func() {
			for i := range 20 {
				var ms []coordinator.Mutation
				switch (client + i) % 7 {
				case 0:
					ms = []coordinator.Mutation{{Kind: coordinator.Delete, Key: []byte("k")}}
				case 1:
					ms = append(put("k", "several"), append(put("other", "v"), put("a", "v")...)...)
				default:
					ms = put("k", fmt.Sprint(client, i))
				}
				if err := m.Write(t.Context(), coordinator.Quorum, ms); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	for _, m := range c.nodes {
		m.quiet()
		if n := len(m.replicaOf().gate.lines); n != 0 {
			t.Errorf("%s: %d lines are left in the gate", m.name, n)
		}
	}
	c.settled()
	c.equalAfter(c.nodes[0])
}

// TestLastOfAClientWins: writes that one client makes one after the other are not
// reordered by joining those of others.
func TestLastOfAClientWins(t *testing.T) {
	c := startCluster(t, 3, testSettings())
	n1 := c.nodes[0]
	for round := range 20 {
		key := fmt.Sprint("k", round)
		var clients sync.WaitGroup
		for client := range 8 {
			clients.Go(func() {
				for i := range 5 {
					if err := n1.Write(t.Context(), coordinator.Quorum, put(key, fmt.Sprint(client, " ", i))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		clients.Wait()
		got, err := c.nodes[1].Read(t.Context(), coordinator.Quorum, [][]byte{[]byte(key)})
		if err != nil {
			t.Fatal(err)
		}
		// Whoever was last, it is the last write of that client.
		var client, i int
		if _, err := fmt.Sscan(string(got[0].Entry.Value), &client, &i); err != nil || i != 4 {
			t.Fatalf("the key ends with %q", got[0].Entry.Value)
		}
	}
}

// TestBadWriteJoinsNobody: what cannot be written is refused by itself, and does not
// take the writes with it that wait for the same key.
func TestBadWriteJoinsNobody(t *testing.T) {
	c := startCluster(t, 1, testSettings())
	n1 := c.nodes[0]
	r := n1.replicaOf()
	first, _ := r.gate.enter([]byte("k"), coordinator.Quorum, nil) // a write of this key is under way
	good := make(chan error, 1)
	go func() { good <- n1.Write(t.Context(), coordinator.Quorum, put("k", "v")) }()
	eventually(t, "a good write waits", func() bool {
		r.gate.mu.Lock()
		defer r.gate.mu.Unlock()
		return len(r.gate.lines["k"]) == 2
	})
	bad := make(chan error, 1)
	go func() {
		bad <- n1.Write(t.Context(), coordinator.Quorum, put("k", string(make([]byte, lww.MaxValueBytes+1))))
	}()
	wantCode(t, <-bad, CodeInvalid, "nothing was written")
	r.gate.leave([]byte("k"), first, nil)
	if err := <-good; err != nil {
		t.Errorf("the good write: %v", err)
	}
	if got := n1.get([]byte("k")); got != "v" {
		t.Errorf("the key holds %.10q", got)
	}
}

// TestGateGivesUp: who does not come to the front in time leaves the line, and the
// others go on.
func TestGateGivesUp(t *testing.T) {
	g := newGate()
	first, _ := g.enter([]byte("k"), coordinator.Quorum, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := g.pass(ctx, coordinator.Quorum, append(put("a", ""), put("k", "")...))
	wantCode(t, err, CodeTimeout, "nothing was written")
	m := put("k", "v")
	second, joined := g.enter([]byte("k"), coordinator.Quorum, &m[0])
	if joined {
		t.Fatal("it joined one that has left")
	}
	third, joined := g.enter([]byte("k"), coordinator.Quorum, &put("k", "w")[0])
	if third != second || !joined {
		t.Fatal("it did not join")
	}
	if _, joined := g.enter([]byte("k"), coordinator.All, &m[0]); joined {
		t.Fatal("it joined one of another level")
	}
	failed := errors.New("failed")
	g.leave([]byte("k"), first, nil)
	<-second.ready
	if got := g.begin(second); string(got.Value) != "w" {
		t.Errorf("the turn writes %q", got.Value)
	}
	g.leave([]byte("k"), second, failed)
	<-third.done
	if third.err != failed {
		t.Error("who joined is told another outcome")
	}
}
