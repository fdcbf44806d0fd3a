package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/ring"
	"syntropy/storage"
)

// scanned is a node that has a store and nothing else.
func scanned(s *storage.Store) *Node {
	r := &replica{store: s, state: StateLive, self: 1, settings: testSettings()}
	r.topology.Store(layoutOf(1, s.Shards(), 1))
	n := &Node{replica: r}
	r.node = n
	return n
}

// scanAll walks a whole scan, each page on another of the nodes.
func scanAll(t *testing.T, count int, nodes ...*Node) (keys []string, pages int) {
	t.Helper()
	cursor := uint64(0)
	for {
		next, page, err := nodes[pages%len(nodes)].scan(t.Context(), cursor, count)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page {
			keys = append(keys, string(k))
		}
		if pages++; next == 0 {
			return keys, pages
		}
		if next <= cursor {
			t.Fatalf("count %d, page %d: cursor %#x after %#x", count, pages, next, cursor)
		}
		cursor = next
	}
}

func wantOnce(t *testing.T, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Fatalf("got %d keys, want %d: %q, want %q", len(got), len(want), got, want)
	}
}

// TestScanOnce: every live key exactly once for any count, and with every page
// on another replica.
func TestScanOnce(t *testing.T) {
	for _, shards := range []int{1, 8, 256} {
		a, b := memStore(t, shards), memStore(t, shards)
		var want []string
		for i := range 300 {
			e := entry(fmt.Sprintf("k%d", i), "v", time.Hour)
			switch i % 5 {
			case 3:
				e.Tombstone, e.Value = true, nil
			case 4:
				e.ExpiryStamp, e.Expires = e.Stamp, time.Now().Add(-time.Minute).UnixMilli()
			default:
				want = append(want, string(e.Key))
			}
			for _, s := range []*storage.Store{a, b} {
				if _, err := s.Apply([]lww.Entry{e}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, count := range []int{1, 2, 3, 7, 50, 299, 300, 100_000} {
			got, _ := scanAll(t, count, scanned(a), scanned(b))
			wantOnce(t, got, want)
		}
	}
}

// TestScanCountZero: a count that makes no sense must not make a scan endless.
func TestScanCountZero(t *testing.T) {
	s := memStore(t, 1)
	if _, err := s.Apply([]lww.Entry{entry("a", "1", time.Hour), entry("b", "2", time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{0, -1} {
		got, _ := scanAll(t, count, scanned(s))
		wantOnce(t, got, []string{"a", "b"})
	}
}

// TestScanTombstones: shards full of tombstones give short pages, and each of
// them gets on.
func TestScanTombstones(t *testing.T) {
	s := memStore(t, 2)
	var entries []lww.Entry
	for i := range 3*maxScanned + 10 {
		entries = append(entries, lww.Entry{Key: fmt.Appendf(nil, "k%d", i), Version: lww.Version{Stamp: hlc.Stamp(i + 1), Node: 1, Tombstone: true}})
	}
	entries = append(entries, entry("alive", "v", time.Hour))
	if _, err := s.Apply(entries); err != nil {
		t.Fatal(err)
	}
	got, pages := scanAll(t, 10, scanned(s))
	wantOnce(t, got, []string{"alive"})
	if pages < 3 || pages > 6 {
		t.Errorf("%d pages for %d rows of which a page may look at %d", pages, len(entries), maxScanned)
	}
}

// TestScanCollidingPrefixes: keys whose tokens share the 50 bits that a cursor
// holds come in one page, never cut apart. (Found by search under the secret of
// the test stores.)
func TestScanCollidingPrefixes(t *testing.T) {
	s := memStore(t, 1)
	x, y := []byte("k7337734"), []byte("k25754587")
	_, tx := s.Locate(x)
	_, ty := s.Locate(y)
	if tx>>cursorDropped != ty>>cursorDropped {
		t.Fatalf("tokens %v and %v do not collide: find other keys", tx, ty)
	}
	want := []string{string(x), string(y)}
	for i := range 50 {
		want = append(want, fmt.Sprint("k", i))
	}
	for _, k := range want {
		if _, err := s.Apply([]lww.Entry{entry(k, "v", time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	for count := 1; count < len(want)+2; count++ {
		got, _ := scanAll(t, count, scanned(s))
		wantOnce(t, got, want)
	}
}

// TestCursor: a cursor keeps the shard and the part of the token it has room
// for; one that a client made up ends the scan or starts somewhere, no more.
func TestCursor(t *testing.T) {
	for _, shard := range []int{0, 1, 255, ring.Slots - 1} {
		for _, token := range []ring.Token{0, 1 << cursorDropped, ring.MaxToken} {
			gotShard, gotToken := unpackCursor(packCursor(shard, token))
			if gotShard != shard || gotToken != token>>cursorDropped<<cursorDropped {
				t.Errorf("shard %d, token %v: %d, %v", shard, token, gotShard, gotToken)
			}
		}
	}
	next, keys, err := scanned(memStore(t, 4)).scan(t.Context(), 1<<64-1, 10)
	if next != 0 || len(keys) != 0 || err != nil {
		t.Errorf("a made-up cursor: %d, %q, %v", next, keys, err)
	}
}

// TestScanRefused: a node that is being filled does not pretend to have seen
// everything.
func TestScanRefused(t *testing.T) {
	n := scanned(memStore(t, 1))
	n.replica.state, n.replica.reason = StateJoining, "it is being filled"
	_, _, err := n.scan(t.Context(), 0, 10)
	wantCode(t, err, CodeUnavailable, "1 of the 1 replicas", "n1 cannot be read")
}

// TestScanOfLargeKeys: a page holds at most about a megabyte of keys, and the
// scan still returns each of them once.
func TestScanOfLargeKeys(t *testing.T) {
	c := startCluster(t, 1, testSettings())
	n1 := c.nodes[0]
	for i := range 40 {
		if err := n1.write(t.Context(), []Op{{Key: append(key("k", i), make([]byte, 60<<10)...), Value: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
	}
	seen, pages := make(map[string]bool), 0
	for cursor := uint64(0); pages == 0 || cursor != 0; pages++ {
		next, keys, err := n1.scan(t.Context(), cursor, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) > maxScannedBytes/(60<<10)+1 {
			t.Fatalf("a page of %d keys", len(keys))
		}
		for _, k := range keys {
			if seen[string(k)] {
				t.Fatalf("%.5s came twice", k)
			}
			seen[string(k)] = true
		}
		cursor = next
	}
	if len(seen) != 40 || pages < 3 {
		t.Errorf("%d keys in %d pages", len(seen), pages)
	}
}
