package antientropy

import (
	"math/bits"
	"slices"
	"sync"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// cachedRows is the number of rows after which a generation of the cache is full.
// A side of a session remembers two generations: at most 24 MiB, and the keys.
const cachedRows = 1 << 17

// rowCache remembers the rows that were read to sum the nodes below a leaf, all
// but their values. Whoever has looked below a leaf is likely to look further down,
// and then at single rows, and reading and hashing rows is most of what a session
// costs.
//
// Rows come and go by generations: those of the last message are still there when
// its answer is dealt with.
type rowCache struct {
	now, before generation
	reading     run // what was read of a node that is being read
	// Where something was found last: names come node by node, in order.
	last      merkle.Node
	lastRun   run
	lastEnd   int // of what was found in the run
	lastKnown bool
}

// generation is a number of runs of rows.
type generation struct {
	runs   map[merkle.Node]run
	depths uint64 // a bit for each length of path among the nodes
	count  int    // of rows
	blocks []*rowBlock
	keys   [][]byte // the last one is being filled
}

// run is the rows under one node, in the order of positions, and their keys.
type run struct {
	rows []cachedRow
	keys []byte
}

// cachedRow is a row without its value. It holds no pointer, so that the garbage
// collector has nothing to do with a hundred thousand of them.
type cachedRow struct {
	x          ring.Position
	f          uint64 // fingerprint
	sum        merkle.Sum
	version    lww.Version
	key        int32 // where it begins among those of the run
	keyBytes   int32
	valueBytes int32
	late       bool
}

// key returns the key of a row of the run.
func (r run) key(row *cachedRow) []byte {
	return r.keys[row.key : row.key+row.keyBytes : row.key+row.keyBytes]
}

// rowBlock is memory for rows, which passes from session to session.
type rowBlock struct {
	used int
	rows [1 << 10]cachedRow
}

var rowBlocks = sync.Pool{New: func() any { return new(rowBlock) }}

// add takes a row of the node that is being read.
func (c *rowCache) add(r *merkle.Row, f uint64) {
	c.reading.rows = append(c.reading.rows, cachedRow{
		x: r.Position, f: f, sum: r.Sum, version: r.Entry.Version, late: r.Late,
		key: int32(len(c.reading.keys)), keyBytes: int32(len(r.Entry.Key)), valueBytes: int32(len(r.Entry.Value)),
	})
	c.reading.keys = append(c.reading.keys, r.Entry.Key...)
}

// drop forgets what was read of a node that could not be read to the end.
func (c *rowCache) drop() { c.reading.rows, c.reading.keys = c.reading.rows[:0], c.reading.keys[:0] }

// keep takes note that what was added are all the rows under a node. It returns
// them; they may be used until the next call of it.
func (c *rowCache) keep(n merkle.Node) run {
	if c.now.count >= cachedRows || len(c.now.runs) >= cachedRows/16 {
		c.now, c.before = c.before, c.now
		c.now.reset()
	}
	r := c.now.keep(n, c.reading)
	c.drop()
	c.last, c.lastRun, c.lastEnd, c.lastKnown = n, r, 0, true
	return r
}

func (g *generation) reset() {
	for _, b := range g.blocks {
		b.used = 0
		rowBlocks.Put(b)
	}
	clear(g.runs)
	*g = generation{runs: g.runs}
}

// keep copies a run to where it stays.
func (g *generation) keep(n merkle.Node, r run) run {
	if g.runs == nil {
		g.runs = make(map[merkle.Node]run)
	}
	kept := run{g.room(len(r.rows)), g.keyRoom(len(r.keys))}
	copy(kept.rows, r.rows)
	copy(kept.keys, r.keys)
	g.runs[n] = kept
	g.depths |= 1 << n.Bits
	g.count += len(r.rows)
	return kept
}

func (g *generation) room(rows int) []cachedRow {
	if rows > len(rowBlock{}.rows) {
		return make([]cachedRow, rows)
	}
	if len(g.blocks) == 0 || g.blocks[len(g.blocks)-1].used+rows > len(rowBlock{}.rows) {
		g.blocks = append(g.blocks, rowBlocks.Get().(*rowBlock))
	}
	b := g.blocks[len(g.blocks)-1]
	first := b.used
	b.used += rows
	return b.rows[first:b.used:b.used]
}

func (g *generation) keyRoom(bytes int) []byte {
	const block = 64 << 10
	if len(g.keys) == 0 || cap(g.keys[len(g.keys)-1])-len(g.keys[len(g.keys)-1]) < bytes {
		g.keys = append(g.keys, make([]byte, 0, max(bytes, block)))
	}
	k := &g.keys[len(g.keys)-1]
	first := len(*k)
	*k = (*k)[:first+bytes]
	return (*k)[first : first+bytes : first+bytes]
}

// under returns the rows under a node, if they are known, until the next keep.
func (c *rowCache) under(n merkle.Node) (r run, ok bool) {
	if c == nil {
		return run{}, false
	}
	if !c.lastKnown || !c.last.Above(n) {
		if !c.find(&c.now, n) && !c.find(&c.before, n) {
			return run{}, false
		}
	}
	r = c.lastRun
	if n.Bits > c.last.Bits {
		first := c.lastEnd
		if x := n.First(); first > 0 && r.rows[first-1].x >= x || first < len(r.rows) && r.rows[first].x < x {
			first, _ = slices.BinarySearchFunc(r.rows, x, comparePosition)
		}
		end := first
		for end < len(r.rows) && n.Contains(r.rows[end].x) {
			end++
		}
		r.rows, c.lastEnd = r.rows[first:end], end
	}
	return r, true
}

// find makes the run that a node is part of the last one.
func (c *rowCache) find(g *generation, n merkle.Node) bool {
	for depths := g.depths & (1<<(n.Bits+1) - 1); depths != 0; {
		b := bits.Len64(depths) - 1
		depths &^= 1 << b
		top := n.Up(int(n.Bits) - b)
		if r, ok := g.runs[top]; ok {
			c.last, c.lastRun, c.lastEnd, c.lastKnown = top, r, 0, true
			return true
		}
	}
	return false
}

// release gives the memory back. The cache is empty then.
func (c *rowCache) release() {
	if c == nil {
		return
	}
	c.now.reset()
	c.before.reset()
	*c = rowCache{}
}

func comparePosition(r cachedRow, x ring.Position) int {
	switch {
	case r.x < x:
		return -1
	case r.x > x:
		return 1
	}
	return 0
}
