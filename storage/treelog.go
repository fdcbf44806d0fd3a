package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"syntropy/hlc"
	"syntropy/merkle"
	"syntropy/ring"
)

// The tree log says what each commit did to the trees, so that leaves need no
// rows of their own: a write adds 16 bytes under rising keys where it would
// otherwise replace a leaf and the totals of its shard. Its rows are numbered
// without gaps, and are in the same batch as the entries.
//
//	newest 8 | shapes 4 | writes 4 | shape ... | write ... | sum ...
//
//	shape   shard 2 | kind 1 | leaves before 4 | by its kind
//	          split   syndrome 31, of the left half
//	          fix     change of the entries 8, of the tombstones 8 | leaves 4
//	                  | of each its first position 8 | change of its syndrome 31
//	write   position 8, its top bits 00cc tt.. | change of the fingerprint 8
//	sum     shard 2 | change of the sum of all hashes 16
//
// cc is the change of the count of entries, and tt that of tombstones, each 0, 1
// or 2 for -1, 0 or 1. Newest is the greatest stamp of the entries, or zero.
//
// Shapes come first: they were made after the row before. A shape that is not
// in the log yet is in memory alone, which is as good: without it the tree is as
// exact, and every later row comes behind it.
const (
	logHead   = 8 + 4 + 4
	logShape  = 2 + 1 + 4
	logWrite  = 8 + 8
	logSum    = 2 + merkle.SumBytes
	kindShift = ring.PositionBits
)

const (
	shapeMerge byte = iota
	shapeSplit
	shapeLoad // leaves and totals are the rows of this number
	shapeFix  // a scrub has put leaves and totals right
)

// shapes are what was done to the form of trees since the last row of the log.
type shapes struct {
	count int
	bytes []byte
}

func (s *shapes) add(shard int, kind byte, leavesBefore uint64) {
	s.count++
	s.bytes = binary.BigEndian.AppendUint16(s.bytes, uint16(shard))
	s.bytes = append(s.bytes, kind)
	s.bytes = binary.BigEndian.AppendUint32(s.bytes, uint32(leavesBefore))
}

// appendLogRow appends a row without writes.
func (s shapes) appendLogRow(dst []byte, newest hlc.Stamp, writes int) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(newest))
	dst = binary.BigEndian.AppendUint32(dst, uint32(s.count))
	dst = binary.BigEndian.AppendUint32(dst, uint32(writes))
	return append(dst, s.bytes...)
}

// log adds the row of the tree log to the batch, if it changes anything.
func (c *change) log() {
	s := c.store
	if len(c.deltas) == 0 {
		return
	}
	row := s.shapes.appendLogRow(s.logRow[:0], c.newest, len(c.deltas))
	for _, d := range c.deltas {
		kind := (d.digest.Count+1)<<2 | (d.tombstones + 1)
		row = binary.BigEndian.AppendUint64(row, uint64(d.x)|kind<<kindShift)
		row = binary.BigEndian.AppendUint64(row, d.digest.Syndrome[0])
	}
	for _, shard := range c.shards {
		row = binary.BigEndian.AppendUint16(row, uint16(shard))
		row = s.shards[shard].sum.Append(row)
	}
	s.putLogRow(c.batch, row, len(c.deltas))
	if s.logRow = row; cap(row) > maxKeptLogRow {
		s.logRow = nil
	}
}

const maxKeptLogRow = 64 << 10

// putLogRow adds a row with all shapes so far. The caller holds s.mu.
func (s *Store) putLogRow(b Batch, row []byte, writes int) {
	s.logNumber++
	s.logged += writes + s.shapes.count
	b.Set(appendNumbered(nil, prefixTreeLog, s.logNumber), row)
	s.shapes = shapes{bytes: s.shapes.bytes[:0]}
}

// replayLog brings the trees from the checkpoint to where the log ends.
func (s *Store) replayLog() error {
	var bad error
	lower := appendNumbered(nil, prefixTreeLog, s.logNumber+1)
	err := s.engine.Scan(lower, []byte{prefixTreeLog + 1}, func(k, v []byte) bool {
		if len(k) != 1+8 || binary.BigEndian.Uint64(k[1:]) != s.logNumber+1 {
			bad = damaged("the tree log goes on with row %x after number %d", k, s.logNumber)
			return false
		}
		s.logNumber++
		if err := s.replay(v); err != nil {
			bad = damaged("row %d of the tree log: %w", s.logNumber, err)
		}
		return bad == nil
	})
	return errors.Join(err, bad)
}

var errLogRow = errors.New("it is malformed")

// replay does what a row of the log says.
func (s *Store) replay(row []byte) error {
	if len(row) < logHead {
		return errLogRow
	}
	s.newest = max(s.newest, hlc.Stamp(binary.BigEndian.Uint64(row)))
	shapes, writes := binary.BigEndian.Uint32(row[8:]), binary.BigEndian.Uint32(row[12:])
	row = row[logHead:]
	for range shapes {
		var err error
		if row, err = s.replayShape(row); err != nil {
			return err
		}
	}
	if uint64(len(row)) < uint64(writes)*logWrite || (len(row)-int(writes)*logWrite)%logSum != 0 {
		return errLogRow
	}
	for range writes {
		if err := s.replayWrite(binary.BigEndian.Uint64(row), binary.BigEndian.Uint64(row[8:])); err != nil {
			return err
		}
		row = row[logWrite:]
	}
	for ; len(row) > 0; row = row[logSum:] {
		shard := int(binary.BigEndian.Uint16(row))
		if shard >= len(s.shards) {
			return errLogRow
		}
		s.shards[shard].tree.AdjustTotals(merkle.SumFrom(row[2:]), 0)
	}
	s.logged += int(shapes) + int(writes)
	return nil
}

func (s *Store) replayWrite(word, f uint64) error {
	x := ring.Position(word & (1<<kindShift - 1))
	count, tombstones := word>>kindShift>>2-1, word>>kindShift&3-1
	sh := &s.shards[x.Shard(len(s.shards))]
	entries := sh.tree.Root().Count + count
	sh.tombstones += tombstones
	if !(merkle.Syndrome{f}).Valid() || int64(count) > 1 || int64(tombstones) > 1 || int64(entries) < 0 || sh.tombstones > entries {
		return errLogRow
	}
	sh.tree.Adjust(x, merkle.Digest{Count: count, Syndrome: merkle.SyndromeOf(x, f)})
	return nil
}

func (s *Store) replayShape(row []byte) (rest []byte, err error) {
	if len(row) < logShape {
		return nil, errLogRow
	}
	shard, kind, leaves := int(binary.BigEndian.Uint16(row)), row[2], uint64(binary.BigEndian.Uint32(row[3:]))
	row = row[logShape:]
	if shard >= len(s.shards) {
		return nil, errLogRow
	}
	tree := s.shards[shard].tree
	if tree.Leaves() != leaves {
		return nil, fmt.Errorf("it is of a tree of %d leaves, shard %d has %d", leaves, shard, tree.Leaves())
	}
	switch {
	case kind == shapeMerge && leaves > 1:
		tree.Merge()
	case kind == shapeSplit && leaves < 1<<merkle.MaxDepth && len(row) >= merkle.SyndromeBytes:
		left := merkle.SyndromeFrom(row)
		if !left.Valid() {
			return nil, errLogRow
		}
		tree.Split(left)
		row = row[merkle.SyndromeBytes:]
	case kind == shapeLoad && tree.Root().Count == 0:
		if err := s.loadTree(s.logNumber, shard); err != nil {
			return nil, err
		}
	case kind == shapeFix:
		var f shapeFixed
		var ok bool
		if f, row, ok = cutFixed(row); !ok || !f.fits(tree) {
			return nil, errLogRow
		}
		f.apply(&s.shards[shard])
		if t := &s.shards[shard]; int64(t.tree.Root().Count) < 0 || t.tombstones > t.tree.Root().Count {
			return nil, errLogRow
		}
	default:
		return nil, errLogRow
	}
	return row, nil
}

// shapeFixed is what a scrub has changed in the tree of a shard, but for the sum of
// all hashes.
type shapeFixed struct {
	entries, tombstones uint64 // more than before, modulo 2^64
	leaves              []fixedLeaf
}

type fixedLeaf struct {
	first  ring.Position
	change merkle.Syndrome
}

const fixedLeafBytes = 8 + merkle.SyndromeBytes

func (f shapeFixed) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, f.entries)
	dst = binary.BigEndian.AppendUint64(dst, f.tombstones)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.leaves)))
	for _, l := range f.leaves {
		dst = l.change.Append(binary.BigEndian.AppendUint64(dst, uint64(l.first)))
	}
	return dst
}

func cutFixed(row []byte) (f shapeFixed, rest []byte, ok bool) {
	if len(row) < 8+8+4 {
		return f, nil, false
	}
	f.entries, f.tombstones = binary.BigEndian.Uint64(row), binary.BigEndian.Uint64(row[8:])
	n := uint64(binary.BigEndian.Uint32(row[16:]))
	row = row[8+8+4:]
	if uint64(len(row)) < n*fixedLeafBytes {
		return f, nil, false
	}
	for range n {
		f.leaves = append(f.leaves, fixedLeaf{ring.Position(binary.BigEndian.Uint64(row)), merkle.SyndromeFrom(row[8:])})
		row = row[fixedLeafBytes:]
	}
	return f, row, true
}

// fits reports whether the leaves are some of a tree.
func (f shapeFixed) fits(tree *merkle.Tree) bool {
	for _, l := range f.leaves {
		if !tree.Under().Contains(l.first) || tree.Leaf(l.first).First() != l.first || !l.change.Valid() {
			return false
		}
	}
	return true
}

func (f shapeFixed) apply(sh *shard) {
	for _, l := range f.leaves {
		sh.tree.Load(sh.tree.Leaf(l.first), l.change)
	}
	sh.tree.AdjustTotals(merkle.Sum{}, f.entries)
	sh.tombstones += f.tombstones
}
