package main

import (
	"slices"

	"syntropy/bench"
	"syntropy/internal/reconcile"
)

// measurement is what is measured in one go.
type measurement struct {
	group       string
	w           reconcile.Workload
	peers       []bench.Peer
	seeds, runs int
}

// The groups. The first has the peers whose figures are bounded and the baseline
// of CPU times, over replicas of several seeds; the second has all others, and
// the baseline again. Their bytes hardly depend on the seed, and building some of
// their indexes takes long.
const (
	groupCore   = "core"
	groupOthers = "others"
)

var (
	core      = []string{"merkle16", "syntropy", "syntropy/hint", "syntropy/hint*3", "syntropy/hint/3"}
	unhinted  = []string{"merkle16", "syntropy"}
	sharded   = []string{"merkle16", "syntropy", "syntropy/hint"}
	others    = []string{"merkle16", "merkle16/8", "merkle2", "riak", "weaviate", "negentropy", "mst", "riblt", "riblt/kept", "depth-limited", "brute"}
	diverged  = []int{1, 2, 10, 100, 1000, 10000}
	manyCases = []string{reconcile.Mixed, reconcile.Stale, reconcile.Missing}
)

// manyShards is the other number of shards that is measured: that of a cluster
// by default.
const manyShards = 256

func peersNamed(names []string) (peers []bench.Peer) {
	for _, p := range bench.Peers() {
		if slices.Contains(names, p.Name()) {
			peers = append(peers, p)
		}
	}
	return peers
}

// plan lists what is measured with n keys.
func plan(n int) (all []measurement) {
	seeds, runs := 5, 1
	switch {
	case n >= 1e7:
		seeds, runs = 1, 3
	case n >= 1e6:
		seeds, runs = 3, 2
	}
	add := func(w reconcile.Workload, group string, names []string) {
		w.Keys, w.Seed = n, 1
		m := measurement{group, w, peersNamed(names), seeds, runs}
		if group == groupOthers {
			m.seeds, m.runs = 1, 3
		}
		all = append(all, m)
	}
	one := func(d int, kind string, names []string) reconcile.Workload {
		w := reconcile.Workload{Diverged: d, Case: kind, Shards: 1}
		add(w, groupCore, names)
		// The others with all cases where that is quick, and with few where it is not.
		if n <= 1e5 || n <= 1e6 && (kind == reconcile.Mixed || d == n/10 || kind == reconcile.Neighbours) ||
			kind == reconcile.Mixed && (d == 1 || d == 1000) {
			add(w, groupOthers, others)
		}
		return w
	}
	one(0, reconcile.Mixed, unhinted)
	for _, d := range diverged {
		if d > n/10 {
			break
		}
		for _, kind := range manyCases {
			one(d, kind, core)
		}
	}
	if n >= 1e4 {
		one(1000, reconcile.Neighbours, core)
	}
	if n >= 1e6 {
		for _, d := range append([]int{0}, diverged...) {
			add(reconcile.Workload{Diverged: d, Case: reconcile.Mixed, Shards: manyShards}, groupCore, sharded)
		}
	}
	if n/10 > diverged[len(diverged)-1] {
		one(n/10, reconcile.Missing, unhinted) // what to expect hardly matters any more
	}
	return all
}
