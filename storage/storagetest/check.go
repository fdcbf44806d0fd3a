package storagetest

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// Check computes everything that a store maintains anew from its data rows and
// compares: the tree of every shard, in memory and as it would be after opening
// the engine again; the garbage index, and the statistics (I5). Nobody may write
// meanwhile.
//
// It parses rows by the drawing in storage/layout.go rather than with the
// store's own code. It returns the entries, by key.
func Check(t testing.TB, e storage.Engine, s *storage.Store, opts storage.Options) map[string]lww.Entry {
	t.Helper()
	tokens, hasher := ring.NewTokens(opts.Secret), merkle.NewHasher(opts.Secret)

	entries := make(map[string]lww.Entry)
	roots := make([]merkle.Digest, opts.Shards)
	index := make(map[string]bool)
	var newest hlc.Stamp
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
		x := ring.At(shard, token, opts.Shards)
		d := merkle.DigestOf(x, hasher.Entry(entry))
		roots[shard] = roots[shard].Plus(d)
		newest = max(newest, entry.Newest())
		stats.Entries++
		if entry.Tombstone {
			stats.Tombstones++
		}

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

	checkTrees(t, "the store", s, roots, stats)
	reopened, err := storage.Open(readOnly{e}, opts)
	if err != nil {
		t.Fatalf("opening a second time: %v", err)
	}
	checkTrees(t, "opened again, the store", reopened, roots, stats)
	if floor := reopened.RecentFloor(); floor < newest {
		t.Errorf("the rows have stamps up to %v, opened again the floor is %v", newest, floor)
	}
	return entries
}

func checkTrees(t testing.TB, name string, s *storage.Store, roots []merkle.Digest, stats storage.Stats) {
	t.Helper()
	if got := s.Stats(); got != stats {
		t.Errorf("%s: statistics %+v, want %+v", name, got, stats)
	}
	snapshot := s.Snapshot()
	defer snapshot.Close()
	for shard, want := range roots {
		audit, err := snapshot.Recompute(context.Background(), shard)
		if err != nil {
			t.Fatal(err)
		}
		if audit.Tree != want || audit.Rows != want || len(audit.Wrong) > 0 {
			t.Errorf("%s: the rows of shard %d add up to %v, the audit says %+v", name, shard, want, audit)
		}
		if got := snapshot.Root(shard); got != want {
			t.Errorf("%s: the root of shard %d is %v, want %v", name, shard, got, want)
		}
	}
}

// readOnly is an engine that refuses to be written to, as opening must not.
type readOnly struct{ storage.Engine }

var errReadOnly = errors.New("opening a store wrote to it")

func (readOnly) Commit(storage.Batch, bool) (func() error, error) { return nil, errReadOnly }

// Leaves returns the leaves of the tree of a shard, in the order of positions.
func Leaves(s *storage.Store, shard int) (leaves []merkle.Node) {
	snapshot := s.Snapshot()
	defer snapshot.Close()
	first, last := ring.At(shard, 0, s.Shards()), ring.At(shard, ring.MaxToken, s.Shards())
	for x := first; x <= last; x = leaves[len(leaves)-1].Last() + 1 {
		leaves = append(leaves, snapshot.Leaf(x))
	}
	return leaves
}
