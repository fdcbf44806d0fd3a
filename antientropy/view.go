package antientropy

import (
	"fmt"
	"slices"
	"sync"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// View is one side's frozen view of its shards: its trees, and the rows that
// they are made of. Nothing that it returns may change during a session.
// *storage.Snapshot is one, and Example shows how to make one over any sorted
// map.
type View interface {
	// Shards returns the number of shards, a power of two, the same on both
	// sides. A store without shards has one.
	Shards() int
	// Root returns the digest of a whole shard.
	Root(shard int) merkle.Digest
	// Syndromes fills dst with the syndromes of the 2^bits nodes that are bits
	// below n, which is the node of a shard or below it. It returns false if one
	// of them is below a stored leaf: then the session sums them from the rows.
	// (*merkle.Tree).Syndromes does just this.
	Syndromes(n merkle.Node, bits int, dst []merkle.Syndrome) (ok bool)
	// Rows visits the rows under a node, which is the node of a shard or below
	// it, in the order of position, then token, then key, until visit returns
	// false. The row is only read, and only during the call.
	Rows(n merkle.Node, visit func(*merkle.Row) (more bool)) error
	// Position returns the place of a key.
	Position(key []byte) ring.Position
	// Sum returns the hash of an entry.
	Sum(e lww.Entry) merkle.Sum
	// Hash returns a keyed hash of a key or a value, alike on both sides.
	Hash(b []byte) uint64
}

// scope is what a session sees of a view: the shards that it is about, as one
// tree. Above the nodes of the shards, the bits of a path are those of the shard
// number, and a node is the sum of the shards below it.
type scope struct {
	view   View
	shards []int // ascending
	bits   int   // of a shard's number
	salt   uint8
	trees  map[int]*merkle.Tree // with a salt: summed from the rows

	cache    *rowCache // nil until rows are read below a leaf
	rowsRead uint64
	compared uint64
}

// newScope checks that the shards exist, ascend, and come once; nil means all.
func newScope(v View, shards []int, salt uint8) (*scope, error) {
	n := v.Shards()
	if n < 1 || n > ring.Slots || n&(n-1) != 0 {
		return nil, fmt.Errorf("a view has %d shards: the number must be a power of two between 1 and %d", n, ring.Slots)
	}
	if shards == nil {
		shards = everyShard()[:n]
	} else if err := checkShards(shards, n); err != nil {
		return nil, err
	}
	sc := &scope{view: v, shards: shards, bits: ring.ShardBits(n), salt: salt}
	if salt == 0 {
		return sc, nil
	}
	return sc, sc.sumAnew()
}

// everyShard is the numbers of all shards that there can be. It is only read.
var everyShard = sync.OnceValue(func() []int {
	shards := make([]int, ring.Slots)
	for i := range shards {
		shards[i] = i
	}
	return shards
})

func checkShards(shards []int, n int) error {
	for i, s := range shards {
		if s < 0 || s >= n {
			return fmt.Errorf("there is no shard %d", s)
		}
		if i > 0 && s <= shards[i-1] {
			return fmt.Errorf("the shards %v are not in ascending order", shards)
		}
	}
	return nil
}

// sumAnew makes trees out of other fingerprints of the same rows: it reads all
// of them.
func (s *scope) sumAnew() error {
	s.trees = make(map[int]*merkle.Tree)
	for _, shard := range s.shards {
		root := s.view.Root(shard)
		t := merkle.NewTreeOf(s.node(shard), 0, root.Count/merkle.DefaultLeafKeys+1)
		err := s.rows(s.node(shard), func(r *merkle.Row) bool {
			if f := r.Fingerprint(s.salt); f != 0 {
				t.Load(t.Leaf(r.Position), merkle.SyndromeOf(r.Position, f))
				t.AdjustTotals(r.Sum, 1)
			}
			return true
		})
		if err != nil {
			return err
		}
		if rows := t.Root(); rows.Sum != root.Sum || rows.Count != root.Count {
			return &TreeError{Shard: shard}
		}
		s.trees[shard] = t
	}
	return nil
}

func (s *scope) node(shard int) merkle.Node {
	return merkle.Node{Bits: uint8(s.bits), Path: uint64(shard)}
}

// shardOf returns the shard of a node that is not above the shards.
func (s *scope) shardOf(n merkle.Node) int { return int(n.Path >> (int(n.Bits) - s.bits)) }

// has reports whether a shard is in the scope.
func (s *scope) has(shard int) bool {
	_, ok := slices.BinarySearch(s.shards, shard)
	return ok
}

// covers reports whether a node is one that can be asked about: in the scope, or
// above it.
func (s *scope) covers(n merkle.Node) bool {
	return n.Valid() && (int(n.Bits) < s.bits || s.has(s.shardOf(n)))
}

// under returns the shards of the scope that are under a node above the shards.
func (s *scope) under(n merkle.Node) []int {
	width := s.bits - int(n.Bits)
	first, _ := slices.BinarySearch(s.shards, int(n.Path)<<width)
	end, _ := slices.BinarySearch(s.shards, int(n.Path+1)<<width)
	return s.shards[first:end]
}

// total returns what the first message compares: the low halves of the hashes
// of all entries, summed, their syndrome and their number. The fingerprints in a
// syndrome are of the high halves, and only the low ones add up by themselves.
func (s *scope) total() (check uint64, syndrome merkle.Syndrome, count uint64) {
	for _, shard := range s.shards {
		root := s.view.Root(shard)
		check += root.Sum.Lo
		count += root.Count
		syndrome = syndrome.Plus(s.root(shard))
	}
	return check, syndrome, count
}

// root returns the syndrome of a shard.
func (s *scope) root(shard int) merkle.Syndrome {
	if s.salt != 0 {
		return s.trees[shard].Root().Syndrome
	}
	return s.view.Root(shard).Syndrome
}

// syndromes fills dst with the syndromes of the 2^bits nodes that are bits below
// n. What is outside of the scope is empty.
func (s *scope) syndromes(n merkle.Node, bits int, dst []merkle.Syndrome) error {
	dst = dst[:1<<bits]
	if int(n.Bits) >= s.bits {
		return s.below(n, bits, dst)
	}
	clear(dst)
	down := int(n.Bits) + bits - s.bits
	for _, shard := range s.under(n) {
		i := shard - int(n.Path)<<(s.bits-int(n.Bits))
		if down <= 0 {
			d := &dst[i>>-down]
			*d = d.Plus(s.root(shard))
		} else if err := s.below(s.node(shard), down, dst[i<<down:(i+1)<<down]); err != nil {
			return err
		}
	}
	return nil
}

// keptBits returns how many bits below a node to look next, at most bits: no
// further than the tree knows without reading rows, unless it knows nothing below
// the node.
func (s *scope) keptBits(n merkle.Node, bits int) int {
	if int(n.Bits) < s.bits {
		return bits
	}
	var dst [8]merkle.Syndrome
	for b := bits; b >= 1; b-- {
		if s.kept(n, b, dst[:]) {
			return b
		}
	}
	return bits
}

// kept asks the tree of a node's shard.
func (s *scope) kept(n merkle.Node, bits int, dst []merkle.Syndrome) bool {
	if s.salt != 0 {
		return s.trees[s.shardOf(n)].Syndromes(n, bits, dst)
	}
	return s.view.Syndromes(n, bits, dst)
}

// below is syndromes for a node that is not above the shards.
func (s *scope) below(n merkle.Node, bits int, dst []merkle.Syndrome) error {
	shard := s.shardOf(n)
	if !s.has(shard) {
		clear(dst)
		return nil
	}
	if s.kept(n, bits, dst) {
		return nil
	}
	if bits > 1 {
		// Leaves are not all at one level: only those above dst are to be read.
		var halves [2]merkle.Syndrome
		if s.kept(n, 1, halves[:]) {
			for i := range 2 {
				if err := s.below(n.Down(1, i), bits-1, dst[i<<(bits-1):(i+1)<<(bits-1)]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	sum := merkle.NewSummer(n, bits, dst)
	if s.expected(n) > cachedRows/8 {
		err := s.rows(n, func(r *merkle.Row) bool {
			if f := r.Fingerprint(s.salt); f != 0 {
				sum.Add(r.Position, f)
			}
			return true
		})
		if err != nil {
			return err
		}
	} else {
		under, err := s.cached(n)
		if err != nil {
			return err
		}
		for i := range under.rows {
			if r := &under.rows[i]; r.f != 0 {
				sum.Add(r.x, r.f)
			}
		}
	}
	// Where the tree knows what the rows must add up to, they had better.
	var whole [1]merkle.Syndrome
	if s.kept(n, 0, whole[:]) {
		for _, d := range dst {
			whole[0] = whole[0].Minus(d)
		}
		if !whole[0].IsZero() {
			return &TreeError{Shard: shard, Node: s.inShard(n)}
		}
	}
	return nil
}

// cached returns the rows under a node that is not above the shards, until the
// next call.
func (s *scope) cached(n merkle.Node) (run, error) {
	if r, ok := s.cache.under(n); ok {
		return r, nil
	}
	if s.cache == nil {
		s.cache = new(rowCache)
	}
	err := s.rows(n, func(r *merkle.Row) bool {
		s.cache.add(r, r.Fingerprint(s.salt))
		return true
	})
	if err != nil {
		s.cache.drop()
		return run{}, err
	}
	return s.cache.keep(n), nil
}

// inShard returns a node's path from the root of its shard, as people are shown.
func (s *scope) inShard(n merkle.Node) merkle.Node {
	b := n.Bits - uint8(s.bits)
	return merkle.Node{Bits: b, Path: n.Path & (1<<b - 1)}
}

// rows visits the rows under a node.
func (s *scope) rows(n merkle.Node, visit func(*merkle.Row) bool) error {
	if int(n.Bits) >= s.bits {
		if !s.has(s.shardOf(n)) {
			return nil
		}
		return s.view.Rows(n, func(r *merkle.Row) bool {
			s.rowsRead++
			return visit(r)
		})
	}
	more := true
	for _, shard := range s.under(n) {
		err := s.rows(s.node(shard), func(r *merkle.Row) bool {
			more = visit(r)
			return more
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// rowsFrom visits the rows under a node from a position under it on: those of
// the largest nodes that begin where the one before ended.
func (s *scope) rowsFrom(n merkle.Node, from ring.Position, visit func(*merkle.Row) bool) error {
	for more := true; more; {
		part := n
		for part.First() != from {
			part = part.Down(1, int(merkle.NodeAt(from, int(part.Bits)+1).Path&1))
		}
		err := s.rows(part, func(r *merkle.Row) bool {
			more = visit(r)
			return more
		})
		if err != nil || part.Last() == n.Last() {
			return err
		}
		from = part.Last() + 1
	}
	return nil
}

// sureBits is the length of a path from which on a decoded pair is believed
// although nothing is known of either key: it is false once in 2^25 times.
const sureBits = 12

// decode names what a difference of syndromes is, if it is one or two keys that
// names of this many bits tell apart. likely says that there is no reason to
// doubt it: near the root, a pair of which this side holds neither key may well
// be an accident of more differences.
func (s *scope) decode(n merkle.Node, d merkle.Syndrome, nameBits int) (changes []merkle.Change, likely bool, err error) {
	pair, count, ok := d.Decode(n)
	if !ok || count == 0 {
		return nil, false, nil
	}
	changes = pair[:count]
	for i, c := range changes {
		if !s.has(c.X.Shard(s.view.Shards())) ||
			i > 0 && merkle.NodeAt(c.X, nameBits) == merkle.NodeAt(changes[0].X, nameBits) {
			return nil, false, nil
		}
	}
	if count == 1 || n.Bits >= sureBits {
		return changes, true, nil
	}
	for _, c := range changes {
		at := merkle.NodeAt(c.X, merkle.MaxBits)
		if under, ok := s.cache.under(at); ok {
			if len(under.rows) > 0 {
				return changes, true, nil
			}
			continue
		}
		err := s.rows(at, func(*merkle.Row) bool {
			likely = true
			return false
		})
		if err != nil || likely {
			return changes, likely, err
		}
	}
	return changes, false, nil
}

// items returns name and fingerprint of the rows under a node, or more than
// limit of them.
func (s *scope) items(n merkle.Node, nameBits, limit int) (items []item, err error) {
	if s.expected(n) <= 4*listRows {
		under, err := s.cached(n)
		items = make([]item, 0, min(len(under.rows), limit+1))
		for i := 0; i < len(under.rows) && len(items) <= limit; i++ {
			if r := &under.rows[i]; r.f != 0 {
				items = append(items, item{merkle.NodeAt(r.x, nameBits).Path, r.f})
			}
		}
		return items, err
	}
	err = s.rows(n, func(r *merkle.Row) bool {
		if f := r.Fingerprint(s.salt); f != 0 {
			items = append(items, item{merkle.NodeAt(r.Position, nameBits).Path, f})
		}
		return len(items) <= limit
	})
	return items, err
}

// expected returns how many rows are to be expected under a node: its share of
// its shard, since positions are spread evenly.
func (s *scope) expected(n merkle.Node) uint64 {
	if int(n.Bits) >= s.bits {
		if shard := s.shardOf(n); s.has(shard) {
			return s.view.Root(shard).Count >> (int(n.Bits) - s.bits)
		}
		return 0
	}
	var count uint64
	for _, shard := range s.under(n) {
		count += s.view.Root(shard).Count
	}
	return count
}

// level returns the number of nodes of the scope that are bits below the root,
// those above no shard of it left out.
func (s *scope) level(bits int) int {
	if bits >= s.bits {
		return len(s.shards) << (bits - s.bits)
	}
	count, last := 0, -1
	for _, shard := range s.shards {
		if p := shard >> (s.bits - bits); p != last {
			count, last = count+1, p
		}
	}
	return count
}

// levelNodes calls visit for each of these nodes, in order.
func (s *scope) levelNodes(bits int, visit func(merkle.Node)) {
	last := -1
	for _, shard := range s.shards {
		if bits >= s.bits {
			for i := range 1 << (bits - s.bits) {
				visit(s.node(shard).Down(bits-s.bits, i))
			}
		} else if p := shard >> (s.bits - bits); p != last {
			visit(merkle.Node{Bits: uint8(bits), Path: uint64(p)})
			last = p
		}
	}
}

// levelSyndromes returns the syndromes of these nodes, in order.
func (s *scope) levelSyndromes(bits int) ([]merkle.Syndrome, error) {
	out := make([]merkle.Syndrome, 0, s.level(bits))
	if bits >= s.bits {
		for _, shard := range s.shards {
			out = out[:len(out)+1<<(bits-s.bits)]
			if err := s.below(s.node(shard), bits-s.bits, out[len(out)-1<<(bits-s.bits):]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	var err error
	s.levelNodes(bits, func(n merkle.Node) {
		out = append(out, merkle.Syndrome{})
		if e := s.syndromes(n, 0, out[len(out)-1:]); e != nil {
			err = e
		}
	})
	return out, err
}
