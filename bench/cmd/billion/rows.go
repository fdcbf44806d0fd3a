package main

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"runtime"
	"strconv"
	"sync"
	"time"

	"syntropy/hlc"
	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// rows are n rows, each a function of its number. The i-th one is at a random
// place in the i-th of n equal intervals, so they are in the order of position,
// no two share one, and the rows under a node are found by a division. Keys that
// are hashed lie less evenly; that is of no account to how few of them are found.
type rows struct {
	n      uint64
	hasher *merkle.Hasher
}

func newRows(n int) rows { return rows{uint64(n), merkle.NewHasher([32]byte{1})} }

// mix is one step of SplitMix64: numbers that look random, by index.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// start returns where the interval of a row begins.
func (r rows) start(i uint64) uint64 {
	hi, lo := bits.Mul64(i, 1<<ring.PositionBits)
	q, _ := bits.Div64(hi, lo, r.n)
	return q
}

func (r rows) position(i uint64) ring.Position {
	first := r.start(i)
	return ring.Position(first + mix(i)%(r.start(i+1)-first))
}

// from returns the first row that is not before a position.
func (r rows) from(x ring.Position) uint64 {
	// The row in whose interval x is, or the next one.
	hi, lo := bits.Mul64(uint64(x), r.n)
	i := hi<<(64-ring.PositionBits) | lo>>ring.PositionBits
	for i > 0 && r.position(i-1) >= x {
		i--
	}
	for i < r.n && r.position(i) < x {
		i++
	}
	return i
}

const valueBytes = 100

// buffer holds the bytes of one row.
type buffer struct {
	key   [16]byte
	value [valueBytes + 8]byte
}

// entry makes a row; its key is its position in hexadecimal digits.
func (r rows) entry(b *buffer, i uint64, x ring.Position, newer bool) (e lww.Entry) {
	const digits = "0123456789abcdef"
	for j := range b.key {
		b.key[j] = digits[uint64(x)>>(60-4*j)&15]
	}
	seed := mix(^i)
	e.Stamp = hlc.FromTime(reconcile.Now.Add(-48*time.Hour + time.Duration(seed%(24*3600*1e6))*time.Microsecond))
	e.Node = hlc.NodeID(1 + seed%3)
	if newer {
		e.Stamp = e.Stamp.Add(time.Hour)
		seed = bits.RotateLeft64(seed, 31)
	}
	for j := 0; j < valueBytes; j += 8 {
		seed += 0x9e3779b97f4a7c15
		binary.LittleEndian.PutUint64(b.value[j:], (seed^seed>>29)*0xbf58476d1ce4e5b9)
	}
	e.Key, e.Value = b.key[:], b.value[:valueBytes]
	return e
}

// base is the replica that both sides begin as.
type base struct {
	rows
	tree *merkle.Tree
}

// part is the digests of some leaves that follow each other.
type part struct {
	leaves    []merkle.Node
	syndromes []merkle.Syndrome
	sum       merkle.Sum
	count     uint64
}

// build makes and hashes all rows, on some processors at once: the tree itself is
// filled by one goroutine.
func build(r rows, workers int) base {
	const partBits = 12 // 4,096 parts, or a part for each leaf
	tree := merkle.NewTreeOf(merkle.Node{}, 0, (r.n+merkle.DefaultLeafKeys-1)/merkle.DefaultLeafKeys)
	nodes := make(chan merkle.Node)
	parts := make(chan part, workers)
	depth := min(partBits, bits.Len64(tree.Leaves())-1)
	go func() {
		for path := range uint64(1) << depth {
			nodes <- merkle.Node{Bits: uint8(depth), Path: path}
		}
		close(nodes)
	}()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := range nodes {
				parts <- r.part(tree, n)
			}
		})
	}
	go func() {
		wg.Wait()
		close(parts)
	}()
	for p := range parts {
		for i, leaf := range p.leaves {
			tree.Load(leaf, p.syndromes[i])
		}
		tree.AdjustTotals(p.sum, p.count)
	}
	runtime.GC()
	return base{r, tree}
}

// part sums the leaves under a node. Of the tree it only asks for its shape,
// which loading leaves does not change.
func (r rows) part(tree *merkle.Tree, n merkle.Node) (p part) {
	var b buffer
	var leaf merkle.Node
	for i := r.from(n.First()); i < r.n; i++ {
		x := r.position(i)
		if x > n.Last() {
			break
		}
		if len(p.leaves) == 0 || !leaf.Contains(x) {
			leaf = tree.Leaf(x)
			p.leaves, p.syndromes = append(p.leaves, leaf), append(p.syndromes, merkle.Syndrome{})
		}
		s := r.hasher.Entry(r.entry(&b, i, x, false))
		last := &p.syndromes[len(p.syndromes)-1]
		*last = last.Plus(merkle.SyndromeOf(x, s.Fingerprint(0)))
		p.sum, p.count = p.sum.Plus(s), p.count+1
	}
	return p
}

// view is one side: the base, and rows of which it has the newer version. It is
// an antientropy.View.
type view struct {
	rows
	tree  *merkle.Tree
	newer map[uint64]bool
}

func (v view) Shards() int                { return 1 }
func (v view) Root(int) merkle.Digest     { return v.tree.Root() }
func (v view) Sum(e lww.Entry) merkle.Sum { return v.hasher.Entry(e) }
func (v view) Hash(b []byte) uint64       { return v.hasher.Bytes(b) }

func (v view) Syndromes(n merkle.Node, bits int, dst []merkle.Syndrome) bool {
	return v.tree.Syndromes(n, bits, dst)
}

func (v view) Rows(n merkle.Node, visit func(*merkle.Row) bool) error {
	var b buffer
	var row merkle.Row
	for i := v.from(n.First()); i < v.n; i++ {
		x := v.position(i)
		if x > n.Last() {
			break
		}
		e := v.entry(&b, i, x, v.newer[i])
		row = merkle.Row{Position: x, Entry: e, Sum: v.hasher.Entry(e)}
		if !visit(&row) {
			break
		}
	}
	return nil
}

// Position reads the key back. A key that is none of ours has no place.
func (v view) Position(key []byte) ring.Position {
	x, err := strconv.ParseUint(string(key), 16, 64)
	if err != nil {
		panic(fmt.Sprintf("billion: a session asks for the place of %q", key))
	}
	return ring.Position(x)
}
