package ring_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/ring"
)

// layout draws nodes in zones of drawn sizes.
func layout(t *rapid.T, sizes []int) []ring.Node {
	var nodes []ring.Node
	id := hlc.NodeID(0)
	for zone, size := range sizes {
		for range size {
			id += hlc.NodeID(rapid.IntRange(1, 3).Draw(t, "gap"))
			nodes = append(nodes, ring.Node{ID: id, Zone: fmt.Sprint("z", zone)})
		}
	}
	return nodes
}

// checkPlacement checks what holds for all nodes and zones, and returns how many
// shards each node holds.
func checkPlacement(t *rapid.T, shards, replicas int, nodes []ring.Node) map[hlc.NodeID]int {
	table := ring.Place(shards, replicas, nodes)
	if len(table) != shards {
		t.Fatalf("%d shards placed, of %d", len(table), shards)
	}
	zoneOf, sizes, held, inZone := make(map[hlc.NodeID]string), make(map[string]int), make(map[hlc.NodeID]int), make(map[string]int)
	for _, n := range nodes {
		zoneOf[n.ID] = n.Zone
		sizes[n.Zone]++
	}
	replicas = min(replicas, len(nodes))
	for shard, ids := range table {
		if len(ids) != replicas {
			t.Fatalf("shard %d is on %v, want %d replicas", shard, ids, replicas)
		}
		zones := make(map[string]bool)
		for i, id := range ids {
			if i > 0 && id <= ids[i-1] {
				t.Fatalf("shard %d is on %v: not ascending", shard, ids)
			}
			zone, ok := zoneOf[id]
			if !ok {
				t.Fatalf("shard %d is on %v, which is no node", shard, id)
			}
			zones[zone] = true
			held[id]++
			inZone[zone]++
		}
		if want := min(replicas, len(sizes)); len(zones) != want {
			t.Fatalf("shard %d is on %v, in %d zones of %d, want %d", shard, ids, len(zones), len(sizes), want)
		}
	}
	// As balanced as the zones allow: where one node has two more than another,
	// moving one would put two replicas of a shard into one zone, or leave a zone
	// without its replica.
	for _, a := range nodes {
		for _, b := range nodes {
			if held[a.ID] < held[b.ID]+2 {
				continue
			}
			full := replicas <= len(sizes) && inZone[b.Zone] == shards
			needed := replicas > len(sizes) && inZone[a.Zone] == shards
			if a.Zone == b.Zone || !full && !needed {
				t.Fatalf("%v holds %d shards and %v %d", a, held[a.ID], b, held[b.ID])
			}
		}
	}
	return held
}

func TestPlaceOnZonesOfAnySize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := layout(t, rapid.SliceOfN(rapid.IntRange(1, 5), 1, 8).Draw(t, "zones"))
		shards := 1 << rapid.IntRange(0, 8).Draw(t, "shards")
		replicas := rapid.IntRange(1, 7).Draw(t, "replicas")
		checkPlacement(t, shards, replicas, nodes)
		want := ring.Place(shards, replicas, nodes)
		shuffled := rapid.Permutation(nodes).Draw(t, "shuffled")
		if got := ring.Place(shards, replicas, shuffled); !reflect.DeepEqual(got, want) {
			t.Fatal("the order of the nodes changes the placement")
		}
	})
}

// TestPlaceIsFairInZonesOfOneSize: within one shard of the exact share.
func TestPlaceIsFairInZonesOfOneSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones, size := rapid.IntRange(1, 6).Draw(t, "zones"), rapid.IntRange(1, 5).Draw(t, "size")
		nodes := layout(t, slices.Repeat([]int{size}, zones))
		shards := 1 << rapid.IntRange(0, 8).Draw(t, "shards")
		replicas := rapid.IntRange(1, 7).Draw(t, "replicas")
		held := checkPlacement(t, shards, replicas, nodes)
		total := shards * min(replicas, len(nodes))
		for _, n := range nodes {
			if excess := held[n.ID]*len(nodes) - total; excess >= len(nodes) || excess <= -len(nodes) {
				t.Fatalf("%v holds %d shards of %d on %d nodes", n.ID, held[n.ID], total, len(nodes))
			}
		}
	})
}

func TestPlaceWithFewNodes(t *testing.T) {
	nodes := []ring.Node{{ID: 3, Zone: "b"}, {ID: 1, Zone: "a"}, {ID: 2, Zone: "b"}}
	for shard, ids := range ring.Place(16, 3, nodes) {
		if !slices.Equal(ids, []hlc.NodeID{1, 2, 3}) {
			t.Errorf("shard %d is on %v: with three nodes each holds everything", shard, ids)
		}
	}
	if table := ring.Place(4, 3, nil); len(table) != 4 || table[0] != nil {
		t.Error("without nodes:", table)
	}
	for shard, ids := range ring.Place(16, 2, nodes) {
		if ids[0] != 1 {
			t.Errorf("shard %d is on %v, both in one zone", shard, ids)
		}
	}
}

// TestPlaceScatters: when a node is down, all others share its work. Groups of
// nodes that hold the same shards would leave it to the rest of the group.
func TestPlaceScatters(t *testing.T) {
	for _, zones := range []int{1, 3, 9} {
		var nodes []ring.Node
		for i := range 9 {
			nodes = append(nodes, ring.Node{ID: hlc.NodeID(i + 1), Zone: fmt.Sprint(i % zones)})
		}
		partners := make(map[hlc.NodeID]map[hlc.NodeID]int)
		for _, ids := range ring.Place(256, 3, nodes) {
			for _, a := range ids {
				if partners[a] == nil {
					partners[a] = make(map[hlc.NodeID]int)
				}
				for _, b := range ids {
					partners[a][b]++
				}
			}
		}
		want := 9 // itself included
		if zones == 3 {
			want = 7 // none of its own zone
		}
		for id, with := range partners {
			if len(with) != want {
				t.Errorf("%d zones: %v shares shards with %d nodes, want %d", zones, id, len(with), want)
			}
			for other, n := range with {
				if other != id && n > 256*3/9/2 {
					t.Errorf("%d zones: %v shares %d of its shards with %v alone", zones, id, n, other)
				}
			}
		}
	}
}

func BenchmarkPlace(b *testing.B) {
	var nodes []ring.Node
	for i := range 64 {
		nodes = append(nodes, ring.Node{ID: hlc.NodeID(i + 1), Zone: fmt.Sprint(rand.IntN(5))})
	}
	for b.Loop() {
		ring.Place(4096, 3, nodes)
	}
}
