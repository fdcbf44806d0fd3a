package storagetest

import (
	"context"
	"encoding/binary"
	"testing"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// Check computes everything that a store maintains anew from its data rows and
// compares: the tree of every shard in memory, the leaf rows and totals, the
// garbage index, and the statistics (I5). Nobody may write meanwhile.
//
// It parses rows by the drawing in storage/layout.go rather than with the
// store's own code. It returns the entries, by key.
func Check(t testing.TB, e storage.Reader, s *storage.Store, opts storage.Options) map[string]lww.Entry {
	t.Helper()
	tokens, hasher := ring.NewTokens(opts.Secret), merkle.NewHasher(opts.Secret)

	entries := make(map[string]lww.Entry)
	roots := make([]merkle.Digest, opts.Shards)
	tombstones := make([]uint64, opts.Shards)
	newest := make([]hlc.Stamp, opts.Shards)
	index := make(map[string]bool)
	leaves := make(map[string]merkle.Syndrome)
	var stats storage.Stats

	totals := make([]Totals, opts.Shards)
	for shard := range totals {
		totals[shard] = TotalsOf(t, e, shard)
	}
	for k, v := range rowsOf(t, e, []byte("d"), []byte("e")) {
		shard, token, key := int(binary.BigEndian.Uint16([]byte(k[1:]))), ring.Token(binary.BigEndian.Uint64([]byte(k[3:]))), k[11:]
		if want := ring.ShardOf(ring.Slot([]byte(key)), opts.Shards); shard != want || token != tokens.Of([]byte(key)) {
			t.Fatalf("key %q lies in shard %d under token %v", key, shard, token)
		}
		entry, err := lww.DecodeRow([]byte(key), []byte(v))
		if err != nil {
			t.Fatalf("key %q: %v", key, err)
		}
		entries[key] = entry
		x := ring.At(shard, token, opts.Shards)
		d := merkle.DigestOf(x, hasher.Entry(entry))
		roots[shard] = roots[shard].Plus(d)
		newest[shard] = max(newest[shard], entry.Newest())
		stats.Entries++
		if entry.Tombstone {
			tombstones[shard]++
			stats.Tombstones++
		}
		row := leafRow(shard, totals[shard].Leaf(shard, x, opts.Shards))
		leaves[row] = leaves[row].Plus(d.Syndrome)

		var at hlc.Stamp
		switch {
		case entry.Tombstone:
			at = entry.Stamp
		case entry.Expires > 4503599627370: // milliseconds until stamps end, in 2112
			at = hlc.Max
		case entry.Expires > 0:
			at = max(entry.Stamp, entry.ExpiryStamp, hlc.Stamp(entry.Expires*1000)<<12)
		default:
			continue
		}
		indexRow := binary.BigEndian.AppendUint64([]byte{'g', k[1], k[2]}, uint64(at))
		index[string(append(indexRow, k[3:]...))] = true
	}

	for k := range rowsOf(t, e, []byte("g"), []byte("h")) {
		if !index[k] {
			t.Errorf("an index row too many: %x", k)
		}
		delete(index, k)
	}
	for k := range index {
		t.Errorf("an index row is missing: %x", k)
	}

	for k, v := range rowsOf(t, e, []byte("l"), []byte("m")) {
		if got := merkle.SyndromeFrom([]byte(v)); len(v) != merkle.SyndromeBytes || got != leaves[k] || got.IsZero() {
			t.Errorf("leaf row %x has %x, its rows add up to %x", k, v, leaves[k].Append(nil))
		}
		delete(leaves, k)
	}
	for k := range leaves {
		t.Errorf("leaf row %x is missing", k)
	}
	for shard, got := range totals {
		root := roots[shard]
		if got.Sum != root.Sum || got.Entries != root.Count || got.Tombstones != tombstones[shard] || got.Newest < newest[shard] {
			t.Errorf("shard %d: totals %+v, the rows add up to %v, %d tombstones, stamps up to %v", shard, got, root, tombstones[shard], newest[shard])
		}
		if got.Newest > s.RecentFloor() && opts.RecentEntries < 0 {
			t.Errorf("shard %d has seen %v, the floor is %v", shard, got.Newest, s.RecentFloor())
		}
	}

	if got := s.Stats(); got != stats {
		t.Errorf("statistics %+v, want %+v", got, stats)
	}
	snapshot := s.Snapshot()
	defer snapshot.Close()
	for shard, want := range roots {
		audit, err := snapshot.Recompute(context.Background(), shard)
		if err != nil {
			t.Fatal(err)
		}
		if audit.Tree != want || audit.Rows != want || len(audit.Wrong) > 0 {
			t.Errorf("shard %d: the rows add up to %v, the audit says %+v", shard, want, audit)
		}
		if got := snapshot.Root(shard); got != want {
			t.Errorf("shard %d: root %v, want %v", shard, got, want)
		}
	}
	return entries
}

// Totals is the totals row of a shard.
type Totals struct {
	Sum                         merkle.Sum
	Newest                      hlc.Stamp
	Entries, Tombstones, Leaves uint64
}

// TotalsOf reads the totals row of a shard. A shard without one has a single
// leaf.
func TotalsOf(t testing.TB, e storage.Reader, shard int) Totals {
	t.Helper()
	v, found, err := e.Get(binary.BigEndian.AppendUint16([]byte("s"), uint16(shard)))
	if err != nil {
		t.Fatal(err)
	}
	if !found {
		return Totals{Leaves: 1}
	}
	out := Totals{Sum: merkle.SumFrom(v), Newest: hlc.Stamp(binary.BigEndian.Uint64(v[16:]))}
	v = v[24:]
	for _, field := range []*uint64{&out.Entries, &out.Tombstones, &out.Leaves} {
		x, n := binary.Uvarint(v)
		if n <= 0 {
			t.Fatalf("the totals row of shard %d ends early", shard)
		}
		*field, v = x, v[n:]
	}
	if len(v) > 0 || out.Leaves == 0 {
		t.Fatalf("the totals row of shard %d is malformed: %+v and %d bytes", shard, out, len(v))
	}
	return out
}

// Leaf returns the leaf above a position: of the 2^depth nodes at the depth of
// the tree, the first ones are split once more, as many as there are leaves
// beyond 2^depth.
func (t Totals) Leaf(shard int, x ring.Position, shards int) merkle.Node {
	depth := 0
	for t.Leaves>>(depth+1) > 0 {
		depth++
	}
	n := merkle.NodeAt(x, ring.ShardBits(shards)+depth)
	if n.Path-uint64(shard)<<depth < t.Leaves-1<<depth {
		n = merkle.NodeAt(x, int(n.Bits)+1)
	}
	return n
}

// leafRow returns the key of the row of a leaf.
func leafRow(shard int, leaf merkle.Node) string {
	k := binary.BigEndian.AppendUint16([]byte("l"), uint16(shard))
	return string(binary.BigEndian.AppendUint64(append(k, leaf.Bits), leaf.Path))
}
