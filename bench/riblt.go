package bench

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/dchest/siphash"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// RIBLT compares with a rateless invertible Bloom lookup table, after Yang, Gilad
// and Alizadeh, "Practical Rateless Set Reconciliation" (SIGCOMM 2024). The set
// is that of (position, hash); a changed key is two differences. The partner
// streams coded symbols, each the exclusive or of some of the set, more and more
// thinly, until the initiator can solve for what differs. The stream is taken to
// end there at once: no implementation could do better.
type RIBLT struct {
	// Kept is how many coded symbols a side keeps up to date with every write. If
	// a session needs more of them, or none are kept, they are made in the
	// session, from all of the set.
	Kept int
}

// Name returns "riblt", or "riblt/kept" if symbols are kept.
func (p RIBLT) Name() string {
	if p.Kept > 0 {
		return "riblt/kept"
	}
	return "riblt"
}

// Limit: making symbols for 1e7 items takes two seconds on each side, and 40
// bytes of memory an item.
func (p RIBLT) Limit(w reconcile.Workload) string {
	if w.Keys > 1e7 {
		return "making its symbols takes seconds and 40 bytes a key: at most 1e7 keys"
	}
	return ""
}

// item is an element of the set, and its checksum.
type item struct{ x, hash, check uint64 }

func newItem(x ring.Position, hash uint64) item {
	var b [rowBytes]byte
	binary.BigEndian.PutUint64(b[:], uint64(x))
	binary.BigEndian.PutUint64(b[tokenBytes:], hash)
	const k0, k1 = 0x73796e74726f7079, 0x7269626c74 // any key that both share
	return item{uint64(x), hash, siphash.Hash(k0, k1, b[:])}
}

// cell is a coded symbol: the exclusive or of count items, or the difference of
// two such.
type cell struct {
	item
	count int64
}

func (c *cell) add(i item, sign int64) {
	c.x ^= i.x
	c.hash ^= i.hash
	c.check ^= i.check
	c.count += sign
}

// pure reports whether a difference of cells is of a single item.
func (c *cell) pure() bool {
	return (c.count == 1 || c.count == -1) && newItem(ring.Position(c.x), c.hash).check == c.check
}

// mapping is the sequence of cells that an item is part of. The i-th cell is in
// it with probability 1/(1+i/2), which is what makes the code universal: the gap
// to the next cell is drawn from the distribution of section 4.2 of the paper.
type mapping struct {
	next  uint64
	state uint64
}

func newMapping(i item) mapping { return mapping{0, i.check} } // cell 0 is in all

func (m *mapping) advance() {
	m.state += 0x9e3779b97f4a7c15
	z := (m.state ^ m.state>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	u := float64(z>>11+1) / (1 << 53)
	m.next += max(1, uint64(math.Ceil((float64(m.next)+1.5)*(1/math.Sqrt(u)-1))))
}

// expected is the number of items in a cell, of which only the deviation is sent.
func expected(items, i int) int64 { return int64(float64(items) / (1 + float64(i)/2)) }

type ribltSide struct {
	rows  *reconcile.Replica
	items []item // if no cells are kept
	kept  []cell
}

func (p RIBLT) Build(rows *reconcile.Replica) (Side, error) {
	s := &ribltSide{rows: rows, kept: make([]cell, p.Kept)}
	if p.Kept == 0 {
		s.items = readItems(rows)
		return s, nil
	}
	rows.Rows(0, ring.MaxPosition, func(x ring.Position, _ lww.Entry, sum merkle.Sum) bool {
		s.add(x, sum, 1)
		return true
	})
	return ribltKept{s}, nil
}

func readItems(rows *reconcile.Replica) []item {
	items := make([]item, 0, rows.Len())
	rows.Rows(0, ring.MaxPosition, func(x ring.Position, _ lww.Entry, sum merkle.Sum) bool {
		items = append(items, newItem(x, sum.Lo))
		return true
	})
	return items
}

func (s *ribltSide) add(x ring.Position, sum merkle.Sum, sign int64) {
	i := newItem(x, sum.Lo)
	for m := newMapping(i); m.next < uint64(len(s.kept)); m.advance() {
		s.kept[m.next].add(i, sign)
	}
}

func (s *ribltSide) Initiate() Initiator {
	return initiate(s.rows, &ribltFinder{encoder: s.encoder()})
}

func (s *ribltSide) Answer() Party {
	return answer(s.rows, &ribltAnswerer{encoder: s.encoder()})
}

// ribltKept is a side that keeps cells, and so has something to update.
type ribltKept struct{ *ribltSide }

func (s ribltKept) Update(x ring.Position, before, after merkle.Sum) {
	s.add(x, before, -1)
	s.add(x, after, 1)
}

// encoder makes the cells of one side.
type encoder struct {
	rows     *reconcile.Replica
	items    []item
	cells    []cell // the side's own while no more were made: not written to
	mappings []mapping
}

func (s *ribltSide) encoder() encoder { return encoder{rows: s.rows, items: s.items, cells: s.kept} }

// grow makes at least n cells.
func (e *encoder) grow(n int) {
	if n <= len(e.cells) {
		return
	}
	// Each time goes over the whole set, so they should be few.
	n = max(n, 2*len(e.cells), 256)
	from := len(e.cells)
	if e.mappings == nil {
		from = 0
		if e.items == nil {
			e.items = readItems(e.rows)
		}
		e.mappings = make([]mapping, len(e.items))
		for i := range e.items {
			e.mappings[i] = newMapping(e.items[i])
		}
	}
	cells := make([]cell, n)
	copy(cells, e.cells[:from])
	for i := range e.mappings {
		m, it := e.mappings[i], e.items[i]
		for ; m.next < uint64(n); m.advance() {
			cells[m.next].add(it, 1)
		}
		e.mappings[i] = m
	}
	e.cells = cells
}

type ribltAnswerer struct {
	encoder
	sent int
}

func (a *ribltAnswerer) compared() int { return 0 }

// answer sends the next cells: an eighth as many as before, so that what is sent
// in vain is little.
func (a *ribltAnswerer) answer(_, out []byte) ([]byte, error) {
	items := a.rows.Len()
	if a.sent == 0 {
		out = binary.AppendUvarint(out, uint64(items))
	}
	end := a.sent + max(1, a.sent/8)
	a.grow(end)
	for i := a.sent; i < end; i++ {
		c := a.cells[i]
		out = binary.BigEndian.AppendUint64(out, c.x)
		out = binary.BigEndian.AppendUint64(out, c.hash)
		out = binary.BigEndian.AppendUint64(out, c.check)
		out = binary.AppendVarint(out, c.count-expected(items, i))
	}
	a.sent = end
	return out, nil
}

// solved is an item that only one side has: the partner if the sign is 1.
type solved struct {
	item
	mapping
	sign int64
}

type ribltFinder struct {
	encoder
	started     bool
	theirItems  int
	diff        []cell // theirs without ours, and without what is solved
	solved      []solved
	pure        []int // cells to look at
	comparisons int
	v           verdict
}

func (f *ribltFinder) compared() int { return f.comparisons }

func (f *ribltFinder) found() (named, ask []ring.Position) {
	return append(f.v.onlyUs, f.v.onlyYou...), f.v.stale
}

func (f *ribltFinder) find(in, out []byte) ([]byte, error) {
	if !f.started {
		f.started = true
		return append(out, 0), nil // begin
	}
	if len(f.diff) == 0 {
		n, w := binary.Uvarint(in)
		if w <= 0 {
			return nil, errCutShort
		}
		f.theirItems, in = int(n), in[w:]
	}
	from := len(f.diff)
	for len(in) > 0 {
		if len(in) < 25 {
			return nil, errCutShort
		}
		c := cell{item: item{binary.BigEndian.Uint64(in), binary.BigEndian.Uint64(in[8:]), binary.BigEndian.Uint64(in[16:])}}
		deviation, w := binary.Varint(in[24:])
		if w <= 0 {
			return nil, errCutShort
		}
		c.count = deviation + expected(f.theirItems, len(f.diff))
		in = in[24+w:]
		f.diff = append(f.diff, c)
	}
	f.comparisons += len(f.diff) - from
	if err := f.solve(from); err != nil {
		return nil, err
	}
	if f.diff[0] == (cell{}) {
		f.classify()
		return nil, nil
	}
	return out, nil // go on
}

// solve takes new cells in and peels off what has become known.
func (f *ribltFinder) solve(from int) error {
	f.grow(len(f.diff))
	for i := from; i < len(f.diff); i++ {
		f.diff[i].add(f.cells[i].item, -f.cells[i].count)
	}
	for i := range f.solved {
		s := &f.solved[i]
		for ; s.next < uint64(len(f.diff)); s.advance() {
			f.diff[s.next].add(s.item, -s.sign)
		}
	}
	for i := from; i < len(f.diff); i++ {
		if f.diff[i].pure() {
			f.pure = append(f.pure, i)
		}
	}
	for len(f.pure) > 0 {
		c := f.diff[f.pure[len(f.pure)-1]]
		f.pure = f.pure[:len(f.pure)-1]
		if !c.pure() {
			continue // solved by way of another cell meanwhile
		}
		if len(f.solved) > f.theirItems+f.rows.Len() {
			return fmt.Errorf("more differences than there are items")
		}
		s := solved{c.item, newMapping(c.item), c.count}
		for ; s.next < uint64(len(f.diff)); s.advance() {
			d := &f.diff[s.next]
			d.add(s.item, -s.sign)
			if d.pure() {
				f.pure = append(f.pure, int(s.next))
			}
		}
		f.solved = append(f.solved, s)
	}
	return nil
}

// classify tells changed keys, which are two items, from missing ones.
func (f *ribltFinder) classify() {
	var us, you []listed
	for _, s := range f.solved {
		l := listed{ring.Position(s.x), s.hash}
		if s.sign > 0 {
			you = append(you, l)
		} else {
			us = append(us, l)
		}
	}
	order := func(a, b listed) int { return cmp.Compare(a.x, b.x) }
	slices.SortFunc(us, order)
	slices.SortFunc(you, order)
	f.v.compareLists(us, you)
}
