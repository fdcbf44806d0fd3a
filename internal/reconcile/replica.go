package reconcile

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"
	"sync"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// keyHead and keyDigits make the key of a row: "key-000000000042".
const (
	keyHead   = "key-"
	keyDigits = 12
	keyBytes  = len(keyHead) + keyDigits
)

// shared is what the replicas of some keys have in common.
type shared struct {
	w       Workload // how they differ is of no account
	tokens  ring.Tokens
	hasher  *merkle.Hasher
	salt    uint64 // of values and stamps
	rows    []row
	buffers sync.Pool // of *[]byte, for a key and a value

	mu    sync.Mutex
	trees []*merkle.Tree // by shard, of all keys in their first version; nil: not built yet
}

func newShared(w Workload, secret [32]byte, salt uint64) *shared {
	s := &shared{
		w: w, tokens: ring.NewTokens(secret), hasher: merkle.NewHasher(secret), salt: salt,
		trees: make([]*merkle.Tree, w.Shards),
	}
	s.buffers.New = func() any {
		b := make([]byte, keyBytes+w.ValueBytes+8)
		return &b
	}
	s.rows = make([]row, w.Keys)
	var key [keyBytes]byte
	for i := range s.rows {
		putKey(key[:], uint32(i))
		s.rows[i] = row{s.position(key[:]), uint32(i)}
	}
	slices.SortFunc(s.rows, compareRows)
	return s
}

func (s *shared) position(key []byte) ring.Position {
	return ring.At(ring.ShardOf(ring.Slot(key), s.w.Shards), s.tokens.Of(key), s.w.Shards)
}

func putKey(b []byte, n uint32) {
	copy(b, keyHead)
	for i := keyBytes - 1; i >= len(keyHead); i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// mix is one step of SplitMix64: numbers that look random, by index.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// entry derives the row of a number: its first version or the newer one. The
// entry points into buf.
func (s *shared) entry(buf []byte, n uint32, newer bool) (e lww.Entry) {
	putKey(buf, n)
	e.Key = buf[:keyBytes:keyBytes]
	seed := mix(s.salt ^ uint64(n))
	e.Stamp, e.Node = stamps(seed, newer)
	if newer {
		seed = bits.RotateLeft64(seed, 31)
	}
	// The buffer has room for eight more bytes, so values are made of whole words.
	value := buf[keyBytes:]
	for i := 0; i < s.w.ValueBytes; i += 8 {
		seed += 0x9e3779b97f4a7c15
		binary.LittleEndian.PutUint64(value[i:], (seed^seed>>29)*0xbf58476d1ce4e5b9)
	}
	e.Value = value[:s.w.ValueBytes:s.w.ValueBytes]
	return e
}

// Replica is one side of a workload. It does not change. Rows may be read
// concurrently.
type Replica struct {
	*shared
	w              Workload
	diffs          []diff
	newer, missing kind // what they mean to it
	lacks          int

	mu    sync.Mutex
	trees []*merkle.Tree // by shard; nil: not built yet
}

func newReplica(s *shared, w Workload, diffs []diff, newer, missing kind) *Replica {
	r := &Replica{shared: s, w: w, diffs: diffs, newer: newer, missing: missing, trees: make([]*merkle.Tree, w.Shards)}
	for _, d := range diffs {
		if d.kind == missing {
			r.lacks++
		}
	}
	return r
}

// Len returns the number of rows.
func (r *Replica) Len() int { return len(r.rows) - r.lacks }

// Workload returns what the replica was generated from, defaults filled in.
func (r *Replica) Workload() Workload { return r.w }

// Shards returns the number of shards.
func (r *Replica) Shards() int { return r.w.Shards }

// Hasher returns what the rows are hashed with.
func (r *Replica) Hasher() *merkle.Hasher { return r.hasher }

// Position returns the position of a key.
func (r *Replica) Position(key []byte) ring.Position { return r.position(key) }

// Truth returns the positions of the keys that differ, in ascending order.
func (r *Replica) Truth() []ring.Position {
	truth := make([]ring.Position, len(r.diffs))
	for i, d := range r.diffs {
		truth[i] = r.rows[d.row].x
	}
	return slices.Compact(truth)
}

// Rows visits the rows from first to last, both included, in the order of
// position and key, until visit returns false. Each is made and hashed as it is
// visited. The entry is the visitor's only until it returns.
func (r *Replica) Rows(first, last ring.Position, visit func(x ring.Position, e lww.Entry, s merkle.Sum) bool) {
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	i := sort.Search(len(r.rows), func(i int) bool { return r.rows[i].x >= first })
	d := sort.Search(len(r.diffs), func(d int) bool { return int(r.diffs[d].row) >= i })
	for ; i < len(r.rows) && r.rows[i].x <= last; i++ {
		newer := false
		if d < len(r.diffs) && int(r.diffs[d].row) == i {
			k := r.diffs[d].kind
			d++
			if k == r.missing {
				continue
			}
			newer = k == r.newer
		}
		e := r.entry(*buf, r.rows[i].n, newer)
		if !visit(r.rows[i].x, e, r.hasher.Entry(e)) {
			return
		}
	}
}

// Tree returns the tree of a shard, which is built when it is first asked for.
// It has the shape that a store's would have: no split is due.
func (r *Replica) Tree(shard int) *merkle.Tree {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trees[shard] == nil {
		r.trees[shard] = r.buildTree(shard)
	}
	return r.trees[shard]
}

// TreeBytes returns the memory that the trees of all shards take.
func (r *Replica) TreeBytes() (n int) {
	for shard := range r.Shards() {
		n += r.Tree(shard).Bytes()
	}
	return n
}

// buildTree adjusts the tree that all replicas of these keys share, and merges
// the leaves that the missing ones leave over.
func (r *Replica) buildTree(shard int) *merkle.Tree {
	root := r.shardNode(shard)
	t := r.shared.tree(shard).Fork()
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	for _, d := range r.diffs {
		row := r.rows[d.row]
		if !root.Contains(row.x) {
			continue
		}
		digest := func(newer bool) merkle.Digest {
			return merkle.DigestOf(row.x, r.hasher.Entry(r.entry(*buf, row.n, newer)))
		}
		switch d.kind {
		case r.missing:
			t.Adjust(row.x, merkle.Digest{}.Minus(digest(false)))
		case r.newer:
			t.Adjust(row.x, digest(true).Minus(digest(false)))
		}
	}
	for t.Leaves() > leavesOf(t.Root().Count) {
		t.Merge()
	}
	return t
}

// leavesOf returns the number of leaves of a tree in which no split is due.
func leavesOf(count uint64) uint64 {
	return max(1, (count+merkle.DefaultLeafKeys-1)/merkle.DefaultLeafKeys)
}

func (s *shared) shardNode(shard int) merkle.Node {
	return merkle.Node{Bits: uint8(ring.ShardBits(s.w.Shards)), Path: uint64(shard)}
}

// tree returns the tree of a shard with all keys in their first version.
func (s *shared) tree(shard int) *merkle.Tree {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trees[shard] == nil {
		s.trees[shard] = newReplica(s, s.w, nil, newerA, missingA).sumRows(s.shardNode(shard))
	}
	return s.trees[shard]
}

// sumRows builds the tree of a shard from its rows.
func (r *Replica) sumRows(root merkle.Node) *merkle.Tree {
	count := uint64(r.count(root.First(), root.Last()))
	t := merkle.NewTreeOf(root, 0, leavesOf(count))
	// Rows come in order: a leaf is complete when the first row behind it comes.
	var (
		sum      merkle.Sum
		syndrome merkle.Syndrome
		leaf     = t.Leaf(root.First())
	)
	r.Rows(root.First(), root.Last(), func(x ring.Position, _ lww.Entry, s merkle.Sum) bool {
		if !leaf.Contains(x) {
			t.Load(leaf, syndrome)
			leaf, syndrome = t.Leaf(x), merkle.Syndrome{}
		}
		sum, syndrome = sum.Plus(s), syndrome.Plus(merkle.SyndromeOf(x, s.Fingerprint(0)))
		return true
	})
	t.Load(leaf, syndrome)
	t.AdjustTotals(sum, count)
	return t
}

// count returns the number of rows from first to last, without making them.
func (r *Replica) count(first, last ring.Position) int {
	i := sort.Search(len(r.rows), func(i int) bool { return r.rows[i].x >= first })
	end := sort.Search(len(r.rows), func(i int) bool { return r.rows[i].x > last })
	n := end - i
	d := sort.Search(len(r.diffs), func(d int) bool { return int(r.diffs[d].row) >= i })
	for ; d < len(r.diffs) && int(r.diffs[d].row) < end; d++ {
		if r.diffs[d].kind == r.missing {
			n--
		}
	}
	return n
}
