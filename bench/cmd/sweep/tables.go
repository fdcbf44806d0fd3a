package main

import (
	"fmt"
	"strconv"
	"strings"

	"syntropy/bench"
	"syntropy/internal/reconcile"
)

// tableKeys is the number of keys that most tables are about: all peers but one
// can do it.
const tableKeys = 1e6

var tablePeers = []string{
	"syntropy", "syntropy/hint", "riblt/kept", "riblt", "merkle16", "merkle16/8", "merkle2", "negentropy", "riak", "weaviate", "mst", "depth-limited", "brute",
}

// tables writes everything between the markers.
func (r results) tables() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured at commit %s on %s, %d cores, %s %s.\n\n", r.commits(), r.machine.CPU, r.machine.Cores, r.machine.Go, r.machine.OS)
	b.WriteString("### Is it as it should be?\n\n")
	r.boundsTable(&b)

	b.WriteString("### Bytes for each diverged key\n\nA million keys, one shard, mixed. For identical replicas: bytes in all.\n\n")
	r.overD(&b, func(f bench.Row) string {
		if f.D == 0 {
			return count(float64(f.BytesSent+f.BytesReceived)) + " in all"
		}
		return number(*f.BytesPerKey)
	})
	b.WriteString("![bytes for each diverged key, over the number of diverged keys](bench-bytes.svg)\n\n")

	b.WriteString("### Round trips\n\nThe same workloads: round trips until every diverged key is named.\n\n")
	r.overD(&b, func(f bench.Row) string { return fmt.Sprintf("%g", f.Rounds) })

	b.WriteString("### CPU time\n\nThe same workloads: CPU time of the initiator / of its partner, as a multiple of that of `merkle16` in the same run.\n\n")
	r.overD(&b, ratios)
	b.WriteString("In milliseconds, `merkle16` itself:\n\n")
	r.cpuTable(&b)
	b.WriteString("![CPU time relative to a plain Merkle tree, over the number of diverged keys](bench-cpu.svg)\n\n")

	b.WriteString("### Memory and updates\n\n")
	r.keepingTable(&b)

	b.WriteString("### By case, and with hints that are wrong\n\nSyntropy alone, one shard: bytes for each diverged key, and round trips until all are named.\n\n")
	r.casesTable(&b)

	b.WriteString("### One or two keys\n\nSyntropy, one shard: bytes until all is named, in one round trip; and bytes in all, with what is around the entries that move and the last round.\n\n")
	r.fewTable(&b)

	b.WriteString("### Many at once, and neighbours\n\nA million keys, one shard: bytes for each diverged key, round trips, CPU as above.\n\n")
	r.specialTable(&b)

	fmt.Fprintf(&b, "### %d shards\n\nSyntropy over all of them in one session; `merkle16` as one tree over the same rows, for its CPU time.\n\n", manyShards)
	r.shardsTable(&b)

	if len(r.billion) > 0 {
		b.WriteString("### From a thousand keys to a billion\n\n")
		r.billionTables(&b)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// header writes the first two lines of a table; the first column is of names.
func header(b *strings.Builder, names ...string) {
	b.WriteString("| " + strings.Join(names, " | ") + " |\n|---|" + strings.Repeat("--:|", len(names)-1) + "\n")
}

func line(b *strings.Builder, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// number prints three digits.
func number(f float64) string {
	switch {
	case f >= 100:
		return count(f)
	case f >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

// count prints 12,345.
func count(f float64) string {
	s := strconv.FormatFloat(f, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func ratios(f bench.Row) string {
	if f.CPURatioInitiator == nil {
		return ""
	}
	return number(*f.CPURatioInitiator) + " / " + number(*f.CPURatioPartner)
}

// overD is a table of peers over numbers of diverged keys.
func (r results) overD(b *strings.Builder, cell func(bench.Row) string) {
	ds := append([]int{0}, diverged...)
	names := []string{""}
	for _, d := range ds {
		names = append(names, "d = "+count(float64(d)))
	}
	header(b, names...)
	for _, peer := range tablePeers {
		cells, any := []string{"`" + peer + "`"}, false
		for _, d := range ds {
			f, ok := r.find(peer, tableKeys, d, reconcile.Mixed, 1)
			if !ok {
				cells = append(cells, "")
				continue
			}
			any = true
			text := cell(f)
			if f.Missed+f.Extra > 0 {
				text += fmt.Sprintf(" (missed %d)", f.Missed)
			}
			cells = append(cells, text)
		}
		if any {
			line(b, cells...)
		}
	}
	b.WriteString("\n")
}

func (r results) cpuTable(b *strings.Builder) {
	ds := append([]int{0}, diverged...)
	names := []string{"keys"}
	for _, d := range ds {
		names = append(names, "d = "+count(float64(d)))
	}
	header(b, names...)
	for _, n := range r.keys() {
		cells := []string{power(n)}
		for _, d := range ds {
			if f, ok := r.find("merkle16", n, d, reconcile.Mixed, 1); ok {
				cells = append(cells, fmt.Sprintf("%.3g / %.3g", f.CPUMsInitiator, f.CPUMsPartner))
			} else {
				cells = append(cells, "")
			}
		}
		line(b, cells...)
	}
	b.WriteString("\n")
}

// keepingTable is what an index costs while nobody compares it.
func (r results) keepingTable(b *strings.Builder) {
	header(b, "", "B/key at 1e6", "at 1e7", "update, ns at 1e6", "as a multiple of one hash", "at 1e7")
	for _, peer := range tablePeers {
		if peer == "syntropy/hint" {
			continue
		}
		small, ok := r.find(peer, 1e6, 1000, reconcile.Mixed, 1)
		large, okLarge := r.find(peer, 1e7, 1000, reconcile.Mixed, 1)
		if !ok && !okLarge {
			continue
		}
		cells := []string{"`" + peer + "`", "", "", "-", "-", ""}
		if ok {
			cells[1] = number(small.MemoryBytesPerKey)
			if small.UpdateNS != nil {
				cells[3], cells[4] = number(*small.UpdateNS), number(*small.UpdateRatio)
			}
		}
		if okLarge {
			cells[2] = number(large.MemoryBytesPerKey)
			if large.UpdateNS != nil {
				cells[5] = number(*large.UpdateRatio)
			}
		}
		line(b, cells...)
	}
	b.WriteString("\n")
}

var hinted = []string{"syntropy", "syntropy/hint", "syntropy/hint*3", "syntropy/hint/3"}

func (r results) casesTable(b *strings.Builder) {
	header(b, "keys, diverged", "case", "no hint", "hint = d", "hint = 3d", "hint = d/3")
	for _, n := range r.keys() {
		if n < 1e5 {
			continue
		}
		for _, d := range []int{10, 100, 1000, 10000} {
			for _, kind := range manyCases {
				cells := []string{power(n) + ", " + count(float64(d)), kind}
				for _, peer := range hinted {
					if f, ok := r.find(peer, n, d, kind, 1); ok {
						cells = append(cells, fmt.Sprintf("%s in %g", number(*f.BytesPerKey), f.Rounds))
					}
				}
				if len(cells) > 2 {
					line(b, cells...)
				}
			}
		}
	}
	b.WriteString("\n")
}

func (r results) fewTable(b *strings.Builder) {
	header(b, "keys", "1 mixed", "1 stale", "1 missing", "2 mixed", "2 stale", "2 missing")
	for _, n := range r.keys() {
		cells := []string{power(n)}
		for _, d := range []int{1, 2} {
			for _, kind := range manyCases {
				text := ""
				if f, ok := r.find("syntropy", n, d, kind, 1); ok {
					text = fmt.Sprintf("%d, %d", f.NamingBytes, f.BytesSent+f.BytesReceived)
				}
				cells = append(cells, text)
			}
		}
		line(b, cells...)
	}
	b.WriteString("\n")
}

func (r results) specialTable(b *strings.Builder) {
	header(b, "", "10% missing", "rounds", "CPU", "1,000 neighbours", "rounds", "CPU")
	for _, peer := range tablePeers {
		cells, any := []string{"`" + peer + "`"}, false
		for _, w := range []struct {
			d    int
			kind string
		}{{tableKeys / 10, reconcile.Missing}, {1000, reconcile.Neighbours}} {
			f, ok := r.find(peer, tableKeys, w.d, w.kind, 1)
			if !ok {
				cells = append(cells, "", "", "")
				continue
			}
			any = true
			cells = append(cells, number(*f.BytesPerKey), fmt.Sprintf("%g", f.Rounds), ratios(f))
		}
		if any {
			line(b, cells...)
		}
	}
	b.WriteString("\n")
}

func (r results) shardsTable(b *strings.Builder) {
	header(b, "keys, diverged", "no hint: bytes", "rounds", "CPU", "hint = d: bytes", "rounds", "CPU", "tree, B/key")
	for _, n := range r.keys() {
		for _, d := range append([]int{0}, diverged...) {
			f, ok := r.find("syntropy", n, d, reconcile.Mixed, manyShards)
			g, okHint := r.find("syntropy/hint", n, d, reconcile.Mixed, manyShards)
			if !ok || !okHint {
				continue
			}
			bytes := func(f bench.Row) string {
				if f.D == 0 {
					return count(float64(f.BytesSent+f.BytesReceived)) + " in all"
				}
				return number(*f.BytesPerKey) + " a key"
			}
			line(b, power(n)+", "+count(float64(d)), bytes(f), fmt.Sprintf("%g", f.Rounds), ratios(f), bytes(g), fmt.Sprintf("%g", g.Rounds), ratios(g), number(f.MemoryBytesPerKey))
		}
	}
	b.WriteString("\n")
}

func (r results) billionTables(b *strings.Builder) {
	b.WriteString("One key differs, in its version:\n\n")
	header(b, "keys", "compared", "by a plain descent", "bytes", "round trips", "session, ms", "tree, MB", "making and hashing all rows, s")
	for _, f := range r.billion {
		if f.D != 1 {
			continue
		}
		line(b, power(f.N), count(float64(f.Comparisons)), count(float64(*f.Descent)), count(float64(f.Bytes)), strconv.Itoa(f.Rounds),
			number(f.SessionMS), fmt.Sprintf("%.3g", float64(f.TreeBytes)/1e6), strconv.FormatFloat(f.BuildS, 'f', 1, 64))
	}
	b.WriteString("\n![digests compared, over the number of keys](bench-comparisons.svg)\n\nMore keys differ, no hint:\n\n")
	header(b, "keys, diverged", "compared", "bytes", "bytes a key", "round trips", "session, ms")
	for _, f := range r.billion {
		if f.D < 2 {
			continue
		}
		line(b, power(f.N)+", "+count(float64(f.D)), count(float64(f.Comparisons)), count(float64(f.Bytes)), number(float64(f.Bytes)/float64(f.D)), strconv.Itoa(f.Rounds), number(f.SessionMS))
	}
	b.WriteString("\n")
}
