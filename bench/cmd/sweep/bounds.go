package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"syntropy/bench"
	"syntropy/internal/reconcile"
)

// bound is something that Syntropy is held to, and the worst figure found.
type bound struct {
	what  string
	max   float64
	worst float64
	where string // it was found, or why there is no figure
}

func (b bound) verdict() string {
	switch {
	case math.IsInf(b.worst, -1):
		return "not measured"
	case b.worst <= b.max:
		return "PASS"
	}
	return "FALLS SHORT"
}

// boundKeys are the numbers of keys that bounds are about.
var boundKeys = []int{1e6, 1e7}

// bounds compares all that was measured with what it should be.
func (r results) bounds() (all []bound) {
	// over looks for the worst of some workloads. of returns false for those that
	// a bound is not about.
	over := func(what string, max float64, of func(f bench.Row) (float64, bool)) {
		b := bound{what: what, max: max, worst: math.Inf(-1)}
		for _, f := range r.records {
			if !slices.Contains(boundKeys, f.N) || !strings.HasPrefix(f.Peer, "syntropy") {
				continue
			}
			if v, ok := of(f.Row); ok && v > b.worst {
				b.worst = v
				b.where = fmt.Sprintf("%s, %s keys, %s %s, shards: %d", f.Peer, power(f.N), count(float64(f.D)), f.Case, f.Shards)
			}
		}
		all = append(all, b)
	}
	bytes := func(f bench.Row) float64 { return float64(f.BytesSent + f.BytesReceived) }
	hint := func(f bench.Row) bool { return f.Peer != "syntropy" }
	spread := func(f bench.Row) bool {
		return f.Shards == 1 && f.D >= 100 && f.D <= 10000 && f.Case != reconcile.Neighbours
	}
	cpu := func(f bench.Row) float64 { return max(*f.CPURatioInitiator, *f.CPURatioPartner) }

	over("keys missed or found that do not differ", 0, func(f bench.Row) (float64, bool) { return float64(f.Missed + f.Extra), true })
	over("identical: bytes", 200, func(f bench.Row) (float64, bool) { return bytes(f), f.D == 0 })
	over("identical: round trips", 1, func(f bench.Row) (float64, bool) { return f.Rounds, f.D == 0 })
	over("1 or 2 keys, one shard: bytes until they are named", 120, func(f bench.Row) (float64, bool) {
		return float64(f.NamingBytes), f.Shards == 1 && (f.D == 1 || f.D == 2)
	})
	over("1 or 2 keys, 256 shards: bytes until they are named, for each of them", 120, func(f bench.Row) (float64, bool) {
		return float64(f.NamingBytes) / float64(f.D), f.Shards > 1 && (f.D == 1 || f.D == 2)
	})
	over("1 or 2 keys: round trips", 1, func(f bench.Row) (float64, bool) { return f.Rounds, f.D == 1 || f.D == 2 })
	over("100 to 10,000 keys, hint: bytes a key", 65, func(f bench.Row) (float64, bool) {
		return optional(f.BytesPerKey), spread(f) && hint(f)
	})
	over("100 to 10,000 keys, no hint: bytes a key", 65, func(f bench.Row) (float64, bool) {
		return optional(f.BytesPerKey), spread(f) && !hint(f)
	})
	over("100 to 10,000 keys, hint: round trips", 4.5, func(f bench.Row) (float64, bool) { return f.Rounds, spread(f) && hint(f) })
	over("100 to 10,000 keys, no hint: round trips", 6, func(f bench.Row) (float64, bool) { return f.Rounds, spread(f) && !hint(f) })
	over("10% missing: bytes a key", 65, func(f bench.Row) (float64, bool) { return optional(f.BytesPerKey), f.Shards == 1 && f.D == f.N/10 })
	over("1,000 neighbours: bytes a key", 40, func(f bench.Row) (float64, bool) {
		return optional(f.BytesPerKey), f.Case == reconcile.Neighbours
	})
	over("CPU of a side, multiple of merkle16: identical", 1.5, func(f bench.Row) (float64, bool) { return cpu(f), f.Shards == 1 && f.D == 0 })
	over("CPU of a side, multiple of merkle16: 1 to 10 keys", 1.5, func(f bench.Row) (float64, bool) {
		return cpu(f), f.Shards == 1 && f.D > 0 && f.D <= 10
	})
	over("CPU of a side, multiple of merkle16: 100 to 10,000 keys", 1.5, func(f bench.Row) (float64, bool) { return cpu(f), spread(f) })
	over("CPU of a side, multiple of merkle16: 10% missing", 1.5, func(f bench.Row) (float64, bool) { return cpu(f), f.Shards == 1 && f.D == f.N/10 })
	over("CPU of a side, multiple of merkle16: neighbours", 1.5, func(f bench.Row) (float64, bool) { return cpu(f), f.Case == reconcile.Neighbours })
	over("CPU of a side at 1e7 keys, multiple of that at 1e6", 2, func(f bench.Row) (float64, bool) {
		g, ok := r.find(f.Peer, 1e6, f.D, f.Case, f.Shards)
		return max(f.CPUMsInitiator/g.CPUMsInitiator, f.CPUMsPartner/g.CPUMsPartner), ok && f.N == 1e7 && f.Shards == 1 && f.D > 0
	})
	over("tree: bytes a key", 0.55, func(f bench.Row) (float64, bool) { return f.MemoryBytesPerKey, f.Shards == 1 })
	over("update, multiple of the hash of one entry", 8, func(f bench.Row) (float64, bool) {
		return optional(f.UpdateRatio), f.Shards == 1 && f.UpdateRatio != nil
	})
	return all
}

func optional(v *float64) float64 { return *cmp.Or(v, new(float64)) }

func (r results) boundsTable(b *strings.Builder) {
	b.WriteString("What Syntropy is held to at a million keys and at ten, and the worst of all that was measured there.\n\n")
	header(b, "", "at most", "worst", "", "which was")
	for _, x := range r.bounds() {
		worst := "-"
		if !math.IsInf(x.worst, -1) {
			worst = number(x.worst)
		}
		line(b, x.what, fmt.Sprintf("%g", x.max), worst, x.verdict(), x.where)
	}
	b.WriteString("\n")
}

func (r results) printBounds(w io.Writer) {
	for _, x := range r.bounds() {
		fmt.Fprintf(w, "%-12s %-75s %8.4g of %-6g %s\n", x.verdict(), x.what, x.worst, x.max, x.where)
	}
}
