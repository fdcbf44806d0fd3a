package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Findings is what a scrub found in one shard.
type Findings struct {
	Shard int
	Audit // of what can be read
	// Unreadable are the leaves with rows that cannot be read, ascending; Err is why
	// the first of them cannot.
	Unreadable []merkle.Node
	Err        error
	// TombstonesTree and TombstonesRows are the tombstones by the totals and by the
	// rows.
	TombstonesTree, TombstonesRows uint64
	// IndexWrong: the garbage index is not that of the rows. It is not looked at
	// while rows are unreadable.
	IndexWrong bool
	Bytes      uint64 // of the rows that were read
}

// Healthy reports whether disk and trees agree.
func (f Findings) Healthy() bool {
	return len(f.Wrong) == 0 && len(f.Unreadable) == 0 && f.Tree == f.Rows && f.TombstonesTree == f.TombstonesRows && !f.IndexWrong
}

// Leaves returns the leaves that are wrong or unreadable, ascending.
func (f Findings) Leaves() []merkle.Node {
	leaves := slices.Concat(f.Wrong, f.Unreadable)
	slices.SortFunc(leaves, func(a, b merkle.Node) int {
		return int(min(max(int64(a.First())-int64(b.First()), -1), 1))
	})
	return slices.Compact(leaves)
}

// Scrub reads every row of a shard, with its checksum, and compares what the rows add
// up to with the tree, leaf by leaf, with the totals, and with the garbage index.
// read, if not nil, is told now and then how many bytes were read, may take its time,
// and ends the scrub with an error.
func (s *Snapshot) Scrub(ctx context.Context, shard int, read func(bytes int) error) (f Findings, err error) {
	tree := s.trees[shard]
	f.Shard, f.TombstonesTree = shard, s.tombstones[shard]
	sum := scrubbed{snapshot: s, shard: shard, read: read, ctx: ctx}
	sum.reset()
	switch err := s.Rows(tree.Under(), func(r *merkle.Row) bool { return sum.add(*r) }); {
	case sum.err != nil:
		return f, fmt.Errorf("scrubbing shard %d: %w", shard, sum.err)
	case err != nil: // now leaf by leaf, to get around what cannot be read
		sum.reset()
		for x := tree.Under().First(); x <= tree.Under().Last() && sum.err == nil; {
			leaf := tree.Leaf(x)
			readable := func(n merkle.Node, visit func(merkle.Row)) error {
				return s.Rows(n, func(r *merkle.Row) bool { visit(*r); return true })
			}
			if bad := salvage(leaf, readable, func(r merkle.Row) { sum.add(r) }); bad != nil {
				f.Unreadable = append(f.Unreadable, leaf)
				if f.Err == nil {
					f.Err = bad
				}
			}
			x = leaf.Last() + 1
		}
		if sum.err != nil {
			return f, fmt.Errorf("scrubbing shard %d: %w", shard, sum.err)
		}
	}
	f.Tree, f.Rows, f.TombstonesRows, f.Bytes = tree.Root(), sum.tree.Root(), sum.tombstones, sum.bytes
	for x := tree.Under().First(); x <= tree.Under().Last(); {
		leaf := tree.Leaf(x)
		if tree.LeafSyndrome(leaf) != sum.tree.LeafSyndrome(leaf) {
			f.Wrong = append(f.Wrong, leaf)
		}
		x = leaf.Last() + 1
	}
	if len(f.Unreadable) == 0 {
		indexed, err := sum.indexOnDisk()
		f.IndexWrong = err != nil || indexed != sum.indexed
	}
	return f, nil
}

// scrubbed is what the rows of a shard add up to.
type scrubbed struct {
	snapshot *Snapshot
	shard    int
	ctx      context.Context
	read     func(int) error

	tree       *merkle.Tree
	tombstones uint64
	indexed    indexSum
	bytes      uint64
	untold     int
	err        error // why to end
}

// indexSum stands for a set of keys of the garbage index.
type indexSum struct{ count, sum uint64 }

func (i *indexSum) add(hash uint64) { i.count++; i.sum += hash }

func (s *scrubbed) reset() {
	tree := s.snapshot.trees[s.shard]
	s.tree = merkle.NewTreeOf(tree.Under(), 0, tree.Leaves())
	s.tombstones, s.indexed = 0, indexSum{}
}

// tellBytes is how much is read between two looks at the context and the throttle.
const tellBytes = 64 << 10

func (s *scrubbed) add(r merkle.Row) bool {
	if s.err != nil {
		return false
	}
	s.tree.Adjust(r.Position, digestOf(r.Position, r.Sum))
	if r.Entry.Tombstone {
		s.tombstones++
	}
	_, token := s.snapshot.Locate(r.Entry.Key)
	if k, ok := appendGarbageKey(nil, s.shard, token, r.Entry.Key, r.Entry.Version); ok {
		s.indexed.add(s.snapshot.hasher.Bytes(k))
	}
	size := dataHead + lww.EncodedLen(r.Entry)
	s.bytes += uint64(size)
	if s.untold += size; s.untold >= tellBytes {
		if s.read != nil {
			s.err = s.read(s.untold)
		}
		if s.untold = 0; s.err == nil && s.ctx.Err() != nil {
			s.err = context.Cause(s.ctx)
		}
	}
	return s.err == nil
}

func (s *scrubbed) indexOnDisk() (indexed indexSum, err error) {
	lower, upper := garbageRange(s.shard)
	err = s.snapshot.reader.Scan(lower, upper, func(k, _ []byte) bool {
		indexed.add(s.snapshot.hasher.Bytes(k))
		return true
	})
	return indexed, err
}

func garbageRange(shard int) (lower, upper []byte) {
	return appendShard(nil, prefixGarbage, shard), appendShard(nil, prefixGarbage, shard+1)
}

// salvageBits is how far below a leaf it is tried to read around what cannot be read:
// in eighths. A rotten block usually is as long as some leaves, whatever is left out is
// on the other replicas, and the engine takes its time over each read that fails.
const salvageBits = 3

// salvage visits what can be read of the rows under a node that cannot be read as a
// whole: those before the first one that cannot, and those of a last part. It returns
// why the rest cannot be read. The entries are valid after the call.
func salvage(n merkle.Node, rows func(merkle.Node, func(merkle.Row)) error, visit func(merkle.Row)) error {
	cloned := func(r merkle.Row) { r.Entry = r.Entry.Clone(); visit(r) }
	err := rows(n, cloned)
	if err == nil {
		return nil
	}
	// From the end, the largest part that can be read: if the last eighth cannot, it is
	// not worth more tries.
	part := n
	for range min(salvageBits, merkle.MaxBits-int(n.Bits)) {
		part = part.Down(1, 1)
	}
	for ; part != n; part = part.Up(1) {
		var read []merkle.Row
		if rows(part, func(r merkle.Row) { r.Entry = r.Entry.Clone(); read = append(read, r) }) != nil {
			break
		}
		if up := part.Up(1); up != n && rows(up, func(merkle.Row) {}) == nil {
			continue // the larger part will do
		}
		for _, r := range read {
			visit(r)
		}
		break
	}
	return err
}

// Replacer is an Engine that can replace a range of rows without reading it.
type Replacer interface {
	// Replace puts rows, ascending, in place of everything in [lower, upper), in one
	// step and durably. It fails with *WiderError, and changes nothing, where what
	// cannot be read reaches over an end of the range. Snapshots that are open may
	// show the range without rows.
	Replace(lower, upper []byte, rows func(set func(key, value []byte) error) error) error
}

// WiderError reports rows that cannot be read next to a range that was to be replaced:
// they have to be replaced together.
type WiderError struct {
	Below, Above bool // the range
	Err          error
}

// Error says what cannot be read.
func (e *WiderError) Error() string {
	return "what cannot be read goes on next to the rows that were to be replaced: " + e.Err.Error()
}

// Unwrap returns what cannot be read.
func (e *WiderError) Unwrap() error { return e.Err }

// ErrChanged is returned by Heal when leaves were split or merged since the scrub.
var ErrChanged = errors.New("storage: the tree has changed its shape since it was scrubbed")

// Healed is what Heal did.
type Healed struct {
	Leaves  int
	Changed int // rows that were replaced or added
}

// Heal makes the leaves that scrubs found bad, of different shards, hold what can be
// read of them merged with the rows of another replica, theirs, which must be all those
// that it holds under these leaves; then tree, totals and index are made to match. Of
// two rows with one version theirs counts: that is how a row that rotted in place is
// recognised.
//
// Without theirs, it accepts what can be read as the truth, and forgets the rest.
//
// Where a block that cannot be read holds rows of two shards, they have to be healed
// together: then the error wraps *WiderError.
//
// The store takes no writes meanwhile. After a crash in the middle the leaves are
// still wrong, and are to be scrubbed again: the owner keeps that on record.
func (s *Store) Heal(theirs []lww.Entry, findings ...Findings) (h Healed, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return h, s.failed
	}
	others := make(map[merkle.Node][]lww.Entry)
	for _, e := range theirs {
		shard, _ := s.Locate(e.Key)
		leaf := s.shards[shard].tree.Leaf(s.Position(e.Key))
		others[leaf] = append(others[leaf], e)
	}
	slices.SortFunc(findings, func(a, b Findings) int { return a.Shard - b.Shard })
	fixes, batches := make([]treeFix, len(findings)), make([]Batch, len(findings))
	var unread []leafRows
	for i, f := range findings {
		// What the rows add up to, less what the tree says, is not changed by any write
		// since the scrub; what healing changes is added below.
		fixes[i] = treeFix{
			off:        f.Rows.Minus(f.Tree),
			tombstones: f.TombstonesRows - f.TombstonesTree,
			leaves:     make(map[merkle.Node]merkle.Syndrome),
		}
		batches[i] = s.engine.NewBatch()
		for _, leaf := range f.Leaves() {
			if !s.shards[f.Shard].tree.IsLeaf(leaf) {
				return h, ErrChanged
			}
			rows, err := s.mergeLeaf(leaf, others[leaf], batches[i], &fixes[i], &h)
			if err != nil {
				return h, err
			}
			if rows.unreadable {
				unread = append(unread, rows)
			}
			h.Leaves++
		}
	}
	defer s.forget()
	for len(unread) > 0 { // neighbours together: a rotten block must not be cut in two
		n := 1
		for n < len(unread) && unread[n].leaf.First() == unread[n-1].leaf.Last()+1 {
			n++
		}
		if err := s.replaceRows(unread[:n]); err != nil {
			return h, err
		}
		unread = unread[n:]
	}
	for i, f := range findings {
		if err := s.fixTree(f.Shard, batches[i], fixes[i]); err != nil {
			return h, err
		}
	}
	return h, nil
}

// leafRows is what a leaf is to hold.
type leafRows struct {
	leaf       merkle.Node
	unreadable bool // the engine cannot read the rows that are there
	entries    []merkle.Row
}

// mergeLeaf decides what a leaf is to hold, and adds the rows that change to the
// batch. The caller holds s.mu.
func (s *Store) mergeLeaf(leaf merkle.Node, theirs []lww.Entry, batch Batch, fix *treeFix, h *Healed) (leafRows, error) {
	rows := leafRows{leaf: leaf}
	held := make(map[string]merkle.Row)
	shard := leaf.First().Shard(s.opts.Shards)
	read := func(n merkle.Node, visit func(merkle.Row)) error {
		return scanNode(s.engine, s.opts.Shards, n, func(t ring.Token, e lww.Entry) bool {
			visit(merkle.Row{Position: ring.At(shard, t, s.opts.Shards), Entry: e, Sum: s.hasher.Entry(e)})
			return true
		})
	}
	bad := salvage(leaf, read, func(r merkle.Row) { held[string(r.Entry.Key)] = r })
	if bad != nil { // rows that are no entries can be deleted, and others only be replaced
		rows.unreadable = s.deleteMalformed(shard, leaf, batch) != nil
	}
	final := make(map[string]merkle.Row, len(held))
	for k, r := range held {
		final[k] = r
	}
	for _, e := range theirs {
		ours, ok := held[string(e.Key)]
		if ok && ours.Entry.Version != e.Version && lww.Compare(ours.Entry, e) >= 0 || ok && lww.Compare(ours.Entry, e) == 0 {
			continue
		}
		e = e.Clone()
		r := merkle.Row{Position: s.Position(e.Key), Entry: e, Sum: s.hasher.Entry(e)}
		final[string(e.Key)] = r
		if ok {
			fix.remove(ours)
			if k, indexed := appendGarbageKey(nil, shard, s.tokens.Of(e.Key), e.Key, ours.Entry.Version); indexed {
				batch.Delete(k)
			}
		}
		fix.insert(r)
		h.Changed++
		batch.Set(appendDataKey(nil, shard, s.tokens.Of(e.Key), e.Key), lww.AppendRow(nil, e))
		if k, indexed := appendGarbageKey(nil, shard, s.tokens.Of(e.Key), e.Key, e.Version); indexed {
			batch.Set(k, nil)
		}
	}
	var sum merkle.Syndrome
	for _, r := range final {
		sum = sum.Plus(merkle.SyndromeOf(r.Position, r.Sum.Fingerprint(0)))
		rows.entries = append(rows.entries, r)
	}
	fix.leaves[leaf] = sum
	return rows, nil
}

// deleteMalformed deletes the rows under a leaf that are no entries. It fails if the
// engine cannot read the leaf.
func (s *Store) deleteMalformed(shard int, leaf merkle.Node, batch Batch) error {
	first, _ := leaf.First().Tokens(s.opts.Shards)
	_, last := leaf.Last().Tokens(s.opts.Shards)
	lower, upper := dataRange(shard, first, last)
	return s.engine.Scan(lower, upper, func(k, v []byte) bool {
		_, key, err := splitDataKey(k)
		if err == nil {
			_, err = lww.DecodeRow(key, v)
		}
		if err != nil {
			batch.Delete(k)
		}
		return true
	})
}

// replaceRows puts the rows of neighbouring leaves in place of what cannot be read.
// The caller holds s.mu.
func (s *Store) replaceRows(leaves []leafRows) error {
	engine, ok := s.engine.(Replacer)
	if !ok {
		return errors.New("storage: there are rows that cannot be read, and this engine cannot replace them")
	}
	type row struct{ key, value []byte }
	var rows []row
	for _, l := range leaves {
		for _, r := range l.entries {
			shard, token := s.Locate(r.Entry.Key)
			rows = append(rows, row{appendDataKey(nil, shard, token, r.Entry.Key), lww.AppendRow(nil, r.Entry)})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.key, b.key) })
	first, last := leaves[0].leaf.First(), leaves[len(leaves)-1].leaf.Last()
	from, _ := first.Tokens(s.opts.Shards)
	_, to := last.Tokens(s.opts.Shards)
	lower, _ := dataRange(first.Shard(s.opts.Shards), from, from)
	_, upper := dataRange(last.Shard(s.opts.Shards), to, to)
	err := engine.Replace(lower, upper, func(set func(key, value []byte) error) error {
		for _, r := range rows {
			if err := set(r.key, r.value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("storage: replacing rows that cannot be read: %w", err)
	}
	return nil
}

// treeFix is what is to become of the tree of a shard.
type treeFix struct {
	off        merkle.Digest // to be added to the totals
	tombstones uint64
	newest     hlc.Stamp
	leaves     map[merkle.Node]merkle.Syndrome // what these leaves are to be
}

func (f *treeFix) insert(r merkle.Row) {
	f.off = f.off.Plus(digestOf(r.Position, r.Sum))
	f.newest = max(f.newest, r.Entry.Newest())
	if r.Entry.Tombstone {
		f.tombstones++
	}
}

func (f *treeFix) remove(r merkle.Row) {
	f.off = f.off.Minus(digestOf(r.Position, r.Sum))
	if r.Entry.Tombstone {
		f.tombstones--
	}
}

// fixTree commits a batch together with leaves and totals that are set and not
// derived from a write. The caller holds s.mu.
func (s *Store) fixTree(shard int, batch Batch, fix treeFix) error {
	sh := &s.shards[shard]
	f := shapeFixed{entries: fix.off.Count, tombstones: fix.tombstones}
	for leaf, syndrome := range fix.leaves {
		f.leaves = append(f.leaves, fixedLeaf{leaf.First(), syndrome.Minus(sh.tree.LeafSyndrome(leaf))})
	}
	s.shapes.add(shard, shapeFix, sh.tree.Leaves())
	s.shapes.bytes = f.append(s.shapes.bytes)
	row := binary.BigEndian.AppendUint16(s.shapes.appendLogRow(nil, fix.newest, 0), uint16(shard))
	s.putLogRow(batch, fix.off.Sum.Append(row), 0)
	wait, err := s.engine.Commit(batch, true)
	if err == nil {
		err = wait()
	}
	if err != nil {
		return s.commitFailed(err)
	}
	f.apply(sh)
	sh.tree.AdjustTotals(fix.off.Sum, 0)
	sh.splitAt = 0
	s.newest = max(s.newest, fix.newest)
	s.stats.entries.Add(fix.off.Count)
	s.stats.tombstones.Add(fix.tombstones)
	return nil
}

// forget is for rows that were changed behind the back of those who remember them:
// the present versions of keys, and whoever has read a row and is about to write.
// The caller holds s.mu.
func (s *Store) forget() {
	if s.versions != nil {
		s.versions.clear()
	}
	for i := range s.stripes {
		s.stripes[i].writes.Add(1)
	}
}

// indexChunk is how many rows are made right at a time: the store takes no writes
// meanwhile.
const indexChunk = 256

// HealIndex makes the garbage index of a shard that of its rows, and returns how many
// of its rows were wrong or missing; where it cannot be read, it is written anew.
func (s *Store) HealIndex(ctx context.Context, shard int) (wrong int, err error) {
	// First what is there and should not be, then what should and is not.
	lower, upper := garbageRange(shard)
	err = s.inChunks(ctx, lower, upper, func(k, _ []byte) error {
		const head = 1 + 2 + 8 // prefix, shard, stamp
		if len(k) > head+8 {
			token, key := ring.Token(binary.BigEndian.Uint64(k[head:])), k[head+8:]
			e, found, err := s.entryAt(shard, token, key)
			if err != nil {
				return err
			}
			if found {
				if want, ok := appendGarbageKey(nil, shard, token, key, e.Version); ok && bytes.Equal(want, k) {
					return nil
				}
			}
		}
		wrong++
		return s.commitUnsynced(func(b Batch) { b.Delete(k) })
	})
	if err != nil && ctx.Err() == nil {
		n, replaced := s.replaceIndex(shard, shard)
		if wider := (*WiderError)(nil); errors.As(replaced, &wider) {
			n, replaced = s.replaceIndex(0, s.opts.Shards-1)
		}
		if replaced != nil {
			return wrong, fmt.Errorf("storage: the garbage index of shard %d can neither be read nor be replaced: %w; %w", shard, err, replaced)
		}
		return n, nil
	}
	if err != nil {
		return wrong, fmt.Errorf("storage: healing the garbage index of shard %d: %w", shard, err)
	}
	lower, upper = dataRange(shard, 0, ring.MaxToken)
	err = s.inChunks(ctx, lower, upper, func(k, _ []byte) error {
		token, key, err := splitDataKey(k)
		if err != nil {
			return err
		}
		e, found, err := s.entryAt(shard, token, key) // as it is by now
		if err != nil || !found {
			return err
		}
		want, ok := appendGarbageKey(nil, shard, token, key, e.Version)
		if !ok {
			return nil
		}
		if _, found, err = s.engine.Get(want); err != nil || found {
			return err
		}
		wrong++
		return s.commitUnsynced(func(b Batch) { b.Set(want, nil) })
	})
	if err != nil {
		return wrong, fmt.Errorf("storage: healing the garbage index of shard %d: %w", shard, err)
	}
	return wrong, s.Sync()
}

// replaceIndex writes the index of some shards anew, from their rows. The store takes no
// writes meanwhile.
func (s *Store) replaceIndex(first, last int) (rows int, err error) {
	engine, ok := s.engine.(Replacer)
	if !ok {
		return 0, errors.New("this engine cannot replace rows")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return 0, s.failed
	}
	var keys [][]byte
	for shard := first; shard <= last; shard++ {
		err := scan(s.engine, shard, 0, ring.MaxToken, func(t ring.Token, e lww.Entry) bool {
			if k, ok := appendGarbageKey(nil, shard, t, e.Key, e.Version); ok {
				keys = append(keys, k)
			}
			return true
		})
		if err != nil {
			return 0, err
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	lower, _ := garbageRange(first)
	_, upper := garbageRange(last)
	return len(keys), engine.Replace(lower, upper, func(set func(key, value []byte) error) error {
		for _, k := range keys {
			if err := set(k, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) entryAt(shard int, token ring.Token, key []byte) (e lww.Entry, found bool, err error) {
	row, found, err := s.engine.Get(appendDataKey(nil, shard, token, key))
	if err != nil || !found {
		return e, false, err
	}
	e, err = lww.DecodeRow(key, row)
	return e, err == nil, err
}

// inChunks visits rows a chunk at a time, with s.mu held.
func (s *Store) inChunks(ctx context.Context, lower, upper []byte, visit func(k, v []byte) error) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var keys, values [][]byte
		err := s.engine.Scan(lower, upper, func(k, v []byte) bool {
			keys, values = append(keys, bytes.Clone(k)), append(values, bytes.Clone(v))
			return len(keys) < indexChunk
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		if err := s.visitLocked(keys, values, visit); err != nil {
			return err
		}
		lower = append(keys[len(keys)-1], 0)
	}
}

func (s *Store) visitLocked(keys, values [][]byte, visit func(k, v []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	for i, k := range keys {
		if err := visit(k, values[i]); err != nil {
			return err
		}
	}
	return nil
}

// commitUnsynced commits a change of the index. The caller holds s.mu.
func (s *Store) commitUnsynced(change func(Batch)) error {
	b := s.engine.NewBatch()
	change(b)
	wait, err := s.engine.Commit(b, false)
	if err == nil {
		err = wait()
	}
	if err != nil {
		return s.commitFailed(err)
	}
	return nil
}

// Parts divides findings so that each part has about as many leaves, and can be given
// to Heal by itself. Unreadable neighbours stay together.
func (f Findings) Parts(leaves int) (parts []Findings) {
	unreadable := make(map[merkle.Node]bool, len(f.Unreadable))
	for _, leaf := range f.Unreadable {
		unreadable[leaf] = true
	}
	part := f // the totals are put right with the first one
	part.Wrong, part.Unreadable = nil, nil
	var last merkle.Node
	for i, leaf := range f.Leaves() {
		neighbours := i > 0 && unreadable[leaf] && unreadable[last] && leaf.First() == last.Last()+1
		if n := len(part.Wrong) + len(part.Unreadable); n >= leaves && !neighbours {
			parts = append(parts, part)
			part = Findings{Shard: f.Shard, Err: f.Err}
		}
		if unreadable[leaf] {
			part.Unreadable = append(part.Unreadable, leaf)
		} else {
			part.Wrong = append(part.Wrong, leaf)
		}
		last = leaf
	}
	return append(parts, part)
}
