package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// crashes is how often a node is killed under load.
const crashes = 20

// TestKillUnderLoad (I1, I3, I5): nodes are killed with signal 9 at random
// moments while all are written to. Each comes back at once without reading its
// rows, every tree is what its rows add up to, and after a repair every write
// that was acknowledged is on every node.
func TestKillUnderLoad(t *testing.T) {
	const seed = 20261122
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	servers := startServers(t, 3, "--settle", "200ms", "--shards", "16")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	acked := make(map[string]string)
	var writers sync.WaitGroup
	for i, s := range servers {
		client := s.redis()
		for w := range 2 {
			writers.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					// Old keys are written again, so that crashes meet rows to replace.
					key, value := fmt.Sprintf("n%d/%d/%d", i+1, w, n%500), strings.Repeat(fmt.Sprint(n, " "), 20)
					if client.Set(ctx, key, value, 0).Err() != nil {
						// Unknown: it may be there or not, so nothing is expected of it.
						mu.Lock()
						delete(acked, key)
						mu.Unlock()
						continue
					}
					mu.Lock()
					acked[key] = value
					mu.Unlock()
				}
			})
		}
	}

	var slowest time.Duration
	for range crashes {
		passed(t, time.Duration(random.IntN(120))*time.Millisecond)
		victim := servers[random.IntN(len(servers))]
		victim.end(sigKill)
		began := time.Now()
		victim.start()
		victim.ready(1)
		slowest = max(slowest, time.Since(began))
	}
	stop()
	writers.Wait()
	t.Logf("%d keys acknowledged, slowest start %v", len(acked), slowest)
	if slowest > 5*time.Second {
		t.Errorf("a start took %v: were rows read?", slowest)
	}
	if len(acked) < 500 {
		t.Errorf("only %d keys were written: no load", len(acked))
	}
	for _, s := range servers {
		s.ready(3)
	}
	servers[0].treesAreExact(3)
	passed(t, 250*time.Millisecond)
	servers[0].equal()
	for _, s := range servers {
		client, lost := s.redis(), 0
		for key, want := range acked {
			if got, err := client.Get(t.Context(), key).Result(); err != nil || got != want {
				if lost++; lost < 5 {
					t.Errorf("%s: %s is %.20q (%v), acknowledged was %.20q", s.dir, key, got, err, want)
				}
			}
		}
		if lost > 0 {
			t.Errorf("%s lacks %d of %d acknowledged writes", s.dir, lost, len(acked))
		}
	}
}

// TestTerm: SIGTERM exits with 0, under load too, and what was acknowledged is
// there after the restart.
func TestTerm(t *testing.T) {
	servers := startServers(t, 1)
	s := servers[0]
	client := s.redis()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var acked []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ctx.Err() == nil; n++ {
			key := fmt.Sprint("k", n)
			if client.Set(ctx, key, key, 0).Err() != nil {
				return
			}
			acked = append(acked, key)
		}
	}()
	passed(t, 300*time.Millisecond)
	if status := s.end(sigTerm); status != 0 {
		t.Errorf("exit status %d", status)
	}
	<-done
	s.start()
	s.ready(1)
	client = s.redis()
	if len(acked) < 10 {
		t.Errorf("only %d writes", len(acked))
	}
	for _, key := range acked {
		if got, err := client.Get(t.Context(), key).Result(); err != nil || got != key {
			t.Fatalf("%s: %q, %v", key, got, err)
		}
	}
	s.treesAreExact(1)
	wantWords(t, s.stderr.String(), "stopping")
}
