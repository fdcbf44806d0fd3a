package ring

import (
	"cmp"
	"slices"
	"strings"

	"syntropy/hlc"
)

// Node is a place for replicas. Nodes that may fail together, such as those of
// one rack or data centre, are in one zone.
type Node struct {
	ID   hlc.NodeID
	Zone string
}

// Place puts min(replicas, len(nodes)) replicas of every shard on different
// nodes, in as many different zones as there can be, and gives every node the
// same number of shards, or one more or less. Where zones of unequal size do not
// allow that, the zones come first: a node alone in its zone then holds more than
// one of ten in theirs.
//
// The replicas of a shard are in ascending order. The result depends on the
// nodes, whose ids must differ, and not on their order, but it may be another in
// a later version of the program: keep it, do not compute it again.
//
// Nodes share shards with many others and not always with the same few, so that
// the work of a node that is down falls on many.
func Place(shards, replicas int, nodes []Node) [][]hlc.NodeID {
	table := make([][]hlc.NodeID, shards)
	if shards == 0 || len(nodes) == 0 {
		return table
	}
	replicas = min(replicas, len(nodes))
	zones := zonesOf(nodes)
	shareOut(zones, shards, replicas)
	for shard := range table {
		// Each zone takes the whole part of its share every time. The rest is
		// given to the zones that have most left to take, which is the order that
		// never ends with too few zones to choose from.
		left := replicas
		for _, z := range zones {
			z.take = z.share / shards
			left -= z.take
		}
		slices.SortFunc(zones, func(a, b *zone) int {
			return cmp.Or(cmp.Compare(b.rest, a.rest), cmp.Compare(scatter(shard, a.index), scatter(shard, b.index)))
		})
		for _, z := range zones[:left] {
			z.take++
			z.rest--
		}
		for _, z := range zones {
			table[shard] = append(table[shard], z.next(shard)...)
		}
		slices.Sort(table[shard])
	}
	return table
}

// zone is a zone while shards are placed.
type zone struct {
	name  string
	index uint64 // its place among the names
	nodes []*nodeLoad
	share int // replicas to hold, of all shards together
	rest  int // of the share, what is not the same for every shard
	take  int // replicas to hold of the shard at hand
}

type nodeLoad struct {
	id   hlc.NodeID
	held int
}

func zonesOf(nodes []Node) []*zone {
	byName := make(map[string]*zone)
	var zones []*zone
	for _, n := range nodes {
		z := byName[n.Zone]
		if z == nil {
			z = &zone{name: n.Zone}
			byName[n.Zone] = z
			zones = append(zones, z)
		}
		z.nodes = append(z.nodes, &nodeLoad{id: n.ID})
	}
	slices.SortFunc(zones, func(a, b *zone) int { return strings.Compare(a.name, b.name) })
	for i, z := range zones {
		z.index = uint64(i)
	}
	return zones
}

// shareOut decides how many replicas each zone holds: one by one they go where
// there are fewest for each node. With at least as many zones as replicas, none
// may hold two of one shard; with fewer, each must hold one of every shard.
func shareOut(zones []*zone, shards, replicas int) {
	left := shards * replicas
	most := func(*zone) int { return shards }
	if replicas > len(zones) {
		for _, z := range zones {
			z.share = shards
		}
		left -= shards * len(zones)
		most = func(z *zone) int { return shards * len(z.nodes) }
	}
	for ; left > 0; left-- {
		var poorest *zone
		for _, z := range zones {
			if z.share < most(z) && (poorest == nil || z.share*len(poorest.nodes) < poorest.share*len(z.nodes)) {
				poorest = z
			}
		}
		poorest.share++
	}
	for _, z := range zones {
		z.rest = z.share % shards
	}
}

// next returns the nodes of the zone that take the shard: those that hold least.
// So no two in a zone ever differ by more than one.
func (z *zone) next(shard int) []hlc.NodeID {
	slices.SortFunc(z.nodes, func(a, b *nodeLoad) int {
		return cmp.Or(cmp.Compare(a.held, b.held), cmp.Compare(scatter(shard, uint64(a.id)), scatter(shard, uint64(b.id))), cmp.Compare(a.id, b.id))
	})
	ids := make([]hlc.NodeID, z.take)
	for i, n := range z.nodes[:z.take] {
		n.held++
		ids[i] = n.id
	}
	return ids
}

// scatter orders equals differently for every shard: what Place would have of
// chance, if it were not to be the same for everybody.
func scatter(shard int, of uint64) uint64 {
	x := uint64(shard)<<32 ^ of
	for range 2 { // an odd factor and a fold twice: neighbours end up far apart
		x = (x + 0x9e3779b97f4a7c15) * 0xd6e8feb86659fd93
		x ^= x >> 32
	}
	return x
}
