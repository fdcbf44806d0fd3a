package resp

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"syntropy/ring"
)

func TestClusterNodes(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{})
	nc := dial(t, addr)
	nc.Write([]byte("CLUSTER NODES\r\n"))
	expect(t, nc, "$429\r\n"+strings.Join([]string{
		"b88a0b2e29b5644b18a1eda0f4520816ba9b2e70 10.0.0.1:7001@7101 master - 0 0 7 connected 0-4095 8192-10239",
		"171f676e800abf5547c188aef85432c3fdd2952a 10.0.0.2:7001@7101 myself,master - 0 0 7 connected 4096-6143 12288-14335",
		"c6eebe634944f8faf8b52292fdd4a0abe2dd4158 10.0.0.3:7001@7101 master - 0 0 7 connected 6144-8191 10240-12287 14336-16383",
		"b27e405ee351d5008013d1593e91b2751c1d035a 10.0.0.4:7001@7101 master,fail - 0 0 7 disconnected", "",
	}, "\n")+"\r\n")
}

// TestSlotRanges: every slot is in one range with the nodes that hold it, those that
// serve before the others; with all nodes on all shards there are as many ranges as
// nodes that serve, each master of about as many slots.
func TestSlotRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Layout{Nodes: make([]LayoutNode, rapid.IntRange(1, 7).Draw(t, "nodes"))}
		serving := 0
		for i := range l.Nodes {
			if l.Nodes[i].Serves = rapid.Bool().Draw(t, "serves"); l.Nodes[i].Serves {
				serving++
			}
			l.Nodes[i].ClientAddr = "h:1"
		}
		l.Shards = make([][]int, 1<<rapid.IntRange(3, 8).Draw(t, "log shards"))
		replicas := rapid.IntRange(1, len(l.Nodes)).Draw(t, "replicas")
		everywhere := replicas == len(l.Nodes)
		all := make([]int, len(l.Nodes))
		for i := range all {
			all[i] = i
		}
		for shard := range l.Shards {
			l.Shards[shard] = all
			if !everywhere {
				l.Shards[shard] = rapid.Permutation(all).Draw(t, "order")[:replicas]
			}
		}
		width, next := ring.Slots/len(l.Shards), 0
		masters := make([]int, len(l.Nodes))
		ranges := l.ranges()
		for _, r := range ranges {
			if r.first != next || r.last < r.first || r.usable > len(r.nodes) {
				t.Fatalf("%+v comes where slot %d should", r, next)
			}
			for slot := r.first; slot <= r.last; slot += width {
				want := slices.Sorted(slices.Values(l.Shards[slot/width]))
				if got := slices.Sorted(slices.Values(r.nodes)); !slices.Equal(got, want) {
					t.Fatalf("slot %d is on %v, want %v", slot, got, want)
				}
			}
			for i, node := range r.nodes {
				if l.Nodes[node].Serves != (i < r.usable) {
					t.Fatalf("%+v, and of node %d: %+v", r, node, l.Nodes[node])
				}
			}
			if r.usable > 0 {
				masters[r.nodes[0]] += r.last - r.first + 1
			}
			next = r.last + 1
		}
		if next != ring.Slots {
			t.Fatalf("the ranges end with slot %d", next-1)
		}
		if !everywhere || serving == 0 {
			return
		}
		if len(ranges) > serving {
			t.Fatalf("%d ranges of %d nodes that serve", len(ranges), serving)
		}
		for node, slots := range masters {
			if part := ring.Slots/serving + width; slots > part {
				t.Fatalf("node %d is master of %d slots, fair are %d", node, slots, part)
			}
		}
	})
}
