package antientropy

import (
	"slices"

	"syntropy/merkle"
	"syntropy/ring"
)

// cachedRows bounds the rows that a side of a session remembers: 4 MiB.
const cachedRows = 1 << 18

// cachedUp is how far above a node its rows are looked for.
const cachedUp = 8

// rowCache remembers position and fingerprint of the rows that were read to sum
// the nodes below a leaf: who has looked below a leaf is likely to look further
// down, and reading and hashing rows is most of what a session costs.
type rowCache struct {
	rows  []cachedRow // one run for each node, in the order of positions
	nodes map[merkle.Node]run
}

type cachedRow struct {
	x ring.Position
	f uint64
}

type run struct{ first, end int }

// begin makes room for the rows under another node and returns where they begin.
// What was remembered before is forgotten when there is too much of it.
func (c *rowCache) begin() int {
	if len(c.rows) >= cachedRows || len(c.nodes) >= cachedRows/16 {
		c.rows = c.rows[:0]
		clear(c.nodes)
	}
	return len(c.rows)
}

// end takes note that the rows from first on are all those under a node.
func (c *rowCache) end(n merkle.Node, first int) {
	if len(c.rows)-first > cachedRows/4 { // too large to be worth it
		c.rows = slices.Clip(c.rows[:first])
		return
	}
	if c.nodes == nil {
		c.nodes = make(map[merkle.Node]run)
	}
	c.nodes[n] = run{first, len(c.rows)}
}

// under returns the rows under a node, if they are known. They may be used until
// the next begin.
func (c *rowCache) under(n merkle.Node, top int) (rows []cachedRow, ok bool) {
	for up := 0; up <= cachedUp && int(n.Bits)-up >= top; up++ {
		r, ok := c.nodes[n.Up(up)]
		if !ok {
			continue
		}
		rows = c.rows[r.first:r.end]
		if up > 0 {
			first, _ := slices.BinarySearchFunc(rows, n.First(), comparePosition)
			rows = rows[first:]
			end := 0
			for end < len(rows) && n.Contains(rows[end].x) {
				end++
			}
			rows = rows[:end]
		}
		return rows, true
	}
	return nil, false
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
