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
// compares: the tree of every shard in memory, the leaf rows with their counts
// of tombstones, the garbage index, and the statistics (I5). Nobody may write
// meanwhile.
//
// It parses rows by the drawing in storage/layout.go rather than with the
// store's own code. It returns the entries, by key.
func Check(t testing.TB, e storage.Reader, s *storage.Store, opts storage.Options) map[string]lww.Entry {
	t.Helper()
	if opts.LeafLevel == 0 {
		opts.LeafLevel = storage.DefaultLeafLevel
	}
	tokens, hasher := ring.NewTokens(opts.Secret), merkle.NewHasher(opts.Secret)

	entries := make(map[string]lww.Entry)
	roots := make([]merkle.Digest, opts.Shards)
	index := make(map[string]bool)
	type leaf struct {
		digest     merkle.Digest
		tombstones uint64
	}
	leaves := make(map[string]leaf)
	var stats storage.Stats

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
		d := hasher.Entry(entry)
		roots[shard] = roots[shard].Plus(d)
		stats.Entries++

		id := binary.BigEndian.AppendUint32([]byte{'l', k[1], k[2]}, uint32(merkle.NodeOf(token, opts.LeafLevel).Path))
		l := leaves[string(id)]
		l.digest = l.digest.Plus(d)
		if entry.Tombstone {
			l.tombstones++
			stats.Tombstones++
		}
		leaves[string(id)] = l

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
		row := binary.BigEndian.AppendUint64([]byte{'g', k[1], k[2]}, uint64(at))
		index[string(append(row, k[3:]...))] = true
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
		var got leaf
		got.digest.Sum = merkle.SumFrom([]byte(v))
		var n int
		got.digest.Count, n = binary.Uvarint([]byte(v[16:]))
		got.tombstones, _ = binary.Uvarint([]byte(v[16+n:]))
		if got != leaves[k] {
			t.Errorf("leaf row %x has %+v, its rows add up to %+v", k, got, leaves[k])
		}
		delete(leaves, k)
	}
	for k := range leaves {
		t.Errorf("leaf row %x is missing", k)
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
