package clients

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestScanOverNodes: a scan whose every page is asked of another node finds each key that
// is there throughout exactly once, while other keys come, go and expire, and a node is
// restarted.
func TestScanOverNodes(t *testing.T) {
	f := start(t, 4, "--replicas", "3", "--sync", "interval:100ms")
	ctx := t.Context()
	clients := make([]*redis.Client, len(f.Nodes))
	for i, n := range f.Nodes {
		clients[i] = plain(t, n.ClientAddr())
	}
	const keys = 3000
	pipe := clients[0].Pipeline()
	for i := range keys {
		pipe.Set(ctx, fmt.Sprintf("stays:%d", i), i, 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}

	var churn sync.WaitGroup
	over := make(chan struct{})
	stop := sync.OnceFunc(func() {
		close(over)
		churn.Wait()
	})
	t.Cleanup(stop)
	churn.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			default:
			}
			key := fmt.Sprintf("churn:%d", i%500)
			switch i % 3 {
			case 0:
				clients[0].Set(ctx, key, i, 0)
			case 1:
				clients[0].Set(ctx, key, i, 10*time.Millisecond)
			default:
				clients[0].Del(ctx, key)
			}
		}
	})

	seen := map[string]int{}
	cursor, pages := uint64(0), 0
	for {
		client := clients[pages%3] // of the nodes that stay up
		var page []string
		var err error
		if pages%2 == 0 {
			page, cursor, err = client.Scan(ctx, cursor, "stays:*", 37).Result()
		} else {
			page, cursor, err = client.ScanType(ctx, cursor, "st?ys:[0-9]*", 37, "STRING").Result()
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range page {
			seen[key]++
		}
		if pages++; pages == 10 {
			f.Nodes[3].Kill()
			if err := f.WaitDown(ctx, f.Nodes[3]); err != nil {
				t.Fatal(err)
			}
		}
		if cursor == 0 {
			break
		}
	}
	stop()
	if pages < 20 {
		t.Fatalf("the scan took %d pages, which shows little", pages)
	}
	for i := range keys {
		if n := seen[fmt.Sprintf("stays:%d", i)]; n != 1 {
			t.Errorf("stays:%d was found %d times", i, n)
		}
	}
	if len(seen) != keys {
		t.Errorf("%d keys were found that match, of %d", len(seen), keys)
	}
}
