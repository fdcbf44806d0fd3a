package antientropy

import (
	"fmt"
	"slices"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// This file is the planning half of the Initiator: what of all that is open goes
// into the next message.

const (
	// maxPending stops the descent while this many keys wait to be settled, so
	// that memory stays bounded however much differs.
	maxPending = 4 * maxItems
	// maxNodes bounds the nodes that one message asks about. Their children
	// are some hundred kilobytes.
	maxNodes = 2048
	// compareAge is how far below the level where a descent began the children
	// of a node are sent along to be compared. Before, they are asked for: that
	// takes a quarter fewer bytes, but a round for each level instead of one for
	// two.
	compareAge = 1
)

// plan takes as much work from the queues as one message holds.
func (s *Initiator) plan() error {
	if s.level > 0 {
		s.sent.request.level, s.level = s.level, 0
		return nil
	}
	q := &s.sent.request
	for {
		if err := s.planDescent(); err != nil {
			return err
		}
		if err := s.planPushes(); err != nil {
			return err
		}
		s.planFetches()
		s.planNames()
		asks := len(q.splits) + len(q.compares) + len(q.lists) + len(q.probes) + len(q.versions) + len(q.fetches)
		left := len(s.tasks) + s.pending()
		// Where everything that was looked at led to nothing that travels, there
		// is more to look at.
		if q.finish = asks+left == 0; q.finish || asks+len(q.push) > 0 {
			return nil
		}
	}
}

func (s *Initiator) pending() int {
	return len(s.pushes) + len(s.fetches) + len(s.versions) + len(s.probes)
}

func (s *Initiator) planDescent() error {
	q := &s.sent.request
	for len(s.tasks) > 0 && len(q.splits)+len(s.compares)+len(q.compares)+len(q.lists) < maxNodes && s.pending() < maxPending {
		t := s.tasks[len(s.tasks)-1]
		s.tasks = s.tasks[:len(s.tasks)-1]
		if err := s.examine(t); err != nil {
			return err
		}
	}
	return s.planCompares()
}

// examine decides what to do about a node that differs.
func (s *Initiator) examine(t task) error {
	if s.asked++; s.asked > s.askMax {
		return fmt.Errorf("after %d questions the partner's digests have led to nothing: its tree is wrong, or it is not what it claims to be", s.askMax)
	}
	inShard := int(t.node.Bits) >= s.scope.bits
	if !s.scope.covers(t.node) {
		return wireError("it has something in shard %d, which is not part of the session", s.scope.shardOf(t.node))
	}
	switch {
	case t.split:
		t.split = false // its children may be told of
		s.split(t, true)
		return nil
	case s.cfg.Textbook || t.slow:
		return s.examineRows(t)
	case t.theirs.IsZero() && inShard:
		return s.giveAll(t.node)
	case t.theirs.IsZero():
		for _, shard := range s.scope.under(t.node) {
			if s.scope.root(shard).IsZero() {
				continue
			}
			if err := s.giveAll(s.scope.node(shard)); err != nil {
				return err
			}
		}
		return nil
	case t.mine.IsZero() && inShard && !s.cfg.DryRun:
		s.takeAll(t.node)
		return nil
	case int(t.node.Bits) > s.codec.nameBits:
		return s.examineRows(t)
	}
	changes, likely, err := s.scope.decode(t.node, t.mine.Minus(t.theirs), s.codec.nameBits)
	switch {
	case err != nil:
		return err
	case likely:
		return s.name(t, changes)
	}
	if s.scope.expected(t.node) <= listRows && inShard {
		items, err := s.scope.items(t.node, s.codec.nameBits, 2*listRows)
		if err != nil {
			return err
		}
		if len(items) <= 2*listRows {
			s.sent.request.lists = append(s.sent.request.lists, listAsk{t.node, items})
			s.sent.lists = append(s.sent.lists, t)
			return nil
		}
	}
	switch {
	case int(t.node.Bits)+5 > merkle.MaxBits:
		return s.examineRows(t)
	case t.age < compareAge:
		s.split(t, false)
		return nil
	}
	s.compares = append(s.compares, t)
	return nil
}

// planCompares sends the children of nodes along: three bits of them where it
// costs less than a byte for each key that was found, two otherwise.
func (s *Initiator) planCompares() error {
	bits := 2
	if len(s.compares)*4*merkle.SyndromeBytes <= s.report.Diverged+s.report.InFlight {
		bits = 3
	}
	for _, t := range s.compares {
		bits := s.scope.keptBits(t.node, bits)
		mine := make([]merkle.Syndrome, 1<<bits)
		if err := s.scope.syndromes(t.node, bits, mine); err != nil {
			return err
		}
		s.sent.request.compares = append(s.sent.request.compares, compareAsk{t.node, bits, mine})
		s.sent.mine = append(s.sent.mine, mine)
		s.sent.compares = append(s.sent.compares, t)
	}
	s.compares = s.compares[:0]
	return nil
}

// split asks for the children of a node: two bits of them, three where the
// descent began too high, and four where people are to see it.
func (s *Initiator) split(t task, all bool) {
	bits := 2
	switch {
	case s.cfg.Textbook:
		bits = 4
	case s.crowded && t.age == 0 && !all:
		bits = 3
	}
	bits = min(bits, merkle.MaxBits-int(t.node.Bits))
	if !s.cfg.Textbook {
		bits = s.scope.keptBits(t.node, bits)
	}
	s.sent.request.splits = append(s.sent.request.splits, splitAsk{t.node, bits, all})
	t.slow = all
	s.sent.splits = append(s.sent.splits, t)
}

// examineRows descends without naming, until few rows are left, and has their
// versions told.
func (s *Initiator) examineRows(t task) error {
	limit := listRows
	if s.cfg.Textbook {
		limit = 1
	}
	var except []uint64
	rows := 0
	err := s.scope.rows(t.node, func(r *merkle.Row) bool {
		rows++
		if r.Sum != (merkle.Sum{}) {
			except = append(except, r.Sum.Lo)
		}
		return rows <= limit || int(t.node.Bits) == merkle.MaxBits
	})
	if err != nil {
		return err
	}
	if int(t.node.Bits) >= s.scope.bits && (rows <= limit && t.theirRows <= uint64(limit) || int(t.node.Bits) == merkle.MaxBits) {
		if len(except) > maxListed {
			return fmt.Errorf("more than %d rows share the position %v", maxListed, t.node.First())
		}
		task := t
		s.versions = append(s.versions, versionsTask{versionsAsk: versionsAsk{t.node, except}, task: &task, known: t.known, counted: t.counted})
		return nil
	}
	s.split(t, true)
	return nil
}

// giveAll sends the partner everything under a node of a shard: it has nothing
// there.
func (s *Initiator) giveAll(n merkle.Node) error {
	s.pushes = append(s.pushes, pushTask{node: n, from: n.First()})
	return nil
}

// takeAll asks the partner for everything under a node of a shard: there is
// nothing here.
func (s *Initiator) takeAll(n merkle.Node) {
	if s.cfg.DryRun {
		s.tasks = append(s.tasks, task{node: n, slow: true})
		return
	}
	s.fetches = append(s.fetches, fetchTask{fetchAsk: fetchAsk{node: n, first: true}, bytes: 128 * int(min(s.scope.expected(n), 1<<20))})
}

// planPushes reads the entries that go into this message. They are read when
// they are sent, not when they are found, so that memory holds one message of
// them.
func (s *Initiator) planPushes() error {
	room := s.cfg.MessageBytes
	for len(s.pushes) > 0 && room > 0 && len(s.sent.request.push) < maxPushed {
		p := s.pushes[0]
		if p.sums == nil {
			more, err := s.pushRange(&p, &room)
			if err != nil {
				return err
			}
			if more {
				s.pushes[0] = p
				break
			}
			s.pushes = s.pushes[1:]
			continue
		}
		if room -= p.bytes; room < 0 && len(s.sent.request.push) > 0 {
			break
		}
		if len(p.entry.Key) > 0 {
			s.push(p.entry)
			s.pushes = s.pushes[1:]
			continue
		}
		found := 0
		err := s.scope.rows(p.node, func(r *merkle.Row) bool {
			if slices.Contains(p.sums, r.Sum.Lo) {
				s.push(r.Entry.Clone())
				found++
			}
			return found < len(p.sums)
		})
		if err != nil {
			return err
		}
		if found != len(p.sums) {
			return fmt.Errorf("node %v: the view changed during the session", p.node)
		}
		s.pushes = s.pushes[1:]
	}
	return nil
}

func (s *Initiator) push(e lww.Entry) {
	s.sent.request.push = append(s.sent.request.push, e)
	s.report.EntryBytes += entryBytes(e)
}

// entryBytes is what an entry takes in a message, its check included.
func entryBytes(e lww.Entry) int64 { return int64(lww.EncodedLen(e)) + 4 }

// pushRange sends rows that the partner has none of, as many as there is room
// for, and settles each as a key that differs.
func (s *Initiator) pushRange(p *pushTask, room *int) (more bool, err error) {
	at := p.from
	found, ferr := 0, error(nil)
	err = s.scope.rowsFrom(p.node, p.from, func(r *merkle.Row) bool {
		// A position is taken as a whole, so that the rest has a beginning.
		if found > 0 && r.Position != at && (*room <= 0 || len(s.sent.request.push) >= maxPushed/2) {
			p.from, more = r.Position, true
			return false
		}
		at = r.Position
		if r.Sum == (merkle.Sum{}) {
			return true // written after the moment that is compared
		}
		found++
		s.myCheck -= r.Sum.Lo
		mine := s.mineOf(r)
		var action Action
		if action, ferr = s.found(r.Position, &mine, nil); ferr != nil {
			return false
		}
		if action == Push && !s.cfg.DryRun {
			s.push(r.Entry.Clone())
			*room -= lww.EncodedLen(r.Entry)
		} else {
			*room -= 16 // the work counts too
		}
		return true
	})
	if err == nil {
		err = ferr
	}
	if found > 0 {
		s.named()
	}
	if err == nil && found == 0 && !more && p.from == p.node.First() {
		err = s.contradiction(p.node)
	}
	return more, err
}

func (s *Initiator) planFetches() {
	room := s.cfg.MessageBytes
	q := &s.sent.request
	for len(s.fetches) > 0 && len(q.fetches) < maxItems && (room > 0 || len(q.fetches) == 0) {
		f := s.fetches[0]
		s.fetches = s.fetches[1:]
		room -= f.bytes
		q.fetches = append(q.fetches, f.fetchAsk)
		s.sent.fetches = append(s.sent.fetches, f)
	}
}

func (s *Initiator) planNames() {
	q := &s.sent.request
	n := min(len(s.probes), maxItems)
	probes := slices.Clone(s.probes[:n])
	s.probes = s.probes[n:]
	sortProbes(probes)
	for i, p := range probes {
		if i > 0 && p.name == probes[i-1].name {
			if p.again {
				s.probes = append(s.probes, p)
			} else { // two nodes led to one name, so one of them was decoded falsely
				s.refute(p.from, p.name)
			}
			continue
		}
		q.probes = append(q.probes, p.probeAsk)
		s.sent.probes = append(s.sent.probes, p)
	}
	n = min(len(s.versions), maxItems)
	s.sent.versions, s.versions = slices.Clone(s.versions[:n]), s.versions[n:]
	for _, v := range s.sent.versions {
		q.versions = append(q.versions, v.versionsAsk)
	}
}

// name deals with the names that a node was decoded to.
func (s *Initiator) name(t task, changes []merkle.Change) error {
	from := &naming{task: t}
	for _, c := range changes {
		from.names = append(from.names, merkle.NodeAt(c.X, s.codec.nameBits))
	}
	for i, c := range changes {
		name := from.names[i]
		mine, err := s.rowsUnder(name)
		if err != nil {
			return err
		}
		// One row whose fingerprint is the whole difference: the partner has none,
		// and there is nothing to ask.
		if len(mine) == 1 && mine[0].fingerprint == c.F && !mine[0].late {
			s.myCheck -= mine[0].sum.Lo
			if _, err := s.settle(mine[0].position, &mine[0], nil, nil); err != nil {
				return err
			}
			s.named()
			continue
		}
		s.probes = append(s.probes, &probe{probeAsk: probeAsk{name: name, absent: len(mine) == 0}, from: from, mine: mine, read: true})
	}
	return nil
}

// mineRow is a row of the initiator.
type mineRow struct {
	entry       lww.Entry // a copy
	position    ring.Position
	sum         merkle.Sum
	fingerprint uint64
	late        bool
	bytes       int
	valueBytes  int
	noValue     bool // it is too large to be kept, or was not read: read it again
}

// keptBytes is the size up to which an entry that differs is kept in memory from
// when it is named until it is sent, rather than read twice. There are at most
// some maxPending of them.
const keptBytes = 1 << 10

func (s *Initiator) mineOf(r *merkle.Row) mineRow {
	m := mineRow{position: r.Position, sum: r.Sum, fingerprint: r.Fingerprint(s.scope.salt), late: r.Late, bytes: lww.EncodedLen(r.Entry), valueBytes: len(r.Entry.Value)}
	m.entry = r.Entry
	if m.noValue = m.bytes > keptBytes; m.noValue {
		m.entry.Value = nil
	}
	m.entry = m.entry.Clone()
	return m
}

// rowsUnder returns the rows under a node.
func (s *Initiator) rowsUnder(n merkle.Node) (rows []mineRow, err error) {
	return s.appendRows(nil, n)
}

// appendRows appends the rows under a node to dst.
func (s *Initiator) appendRows(dst []mineRow, n merkle.Node) ([]mineRow, error) {
	if under, ok := s.scope.cache.under(n); ok {
		for i := range under.rows {
			r := &under.rows[i]
			m := mineRow{position: r.x, sum: r.sum, fingerprint: r.f, late: r.late, valueBytes: int(r.valueBytes), noValue: true}
			m.entry.Key, m.entry.Version = slices.Clone(under.key(r)), r.version
			m.bytes = lww.EncodedLen(m.entry) + m.valueBytes
			dst = append(dst, m)
		}
		return dst, nil
	}
	err := s.scope.rows(n, func(r *merkle.Row) bool {
		dst = append(dst, s.mineOf(r))
		return true
	})
	return dst, err
}

// describe returns what a difference needs to know of a row. The hash of its
// value is needed only beside another version of the same write.
func (s *Initiator) describe(m *mineRow, theirs *keyVersion) (v keyVersion, err error) {
	v = keyVersion{key: m.entry.Key, version: m.entry.Version, sum: m.sum, late: m.late, valueBytes: m.valueBytes}
	if theirs == nil || !sameWrite(v.version, theirs.version) {
		return v, nil
	}
	if !m.noValue {
		v.valueHash = s.scope.view.Hash(m.entry.Value)
		return v, nil
	}
	err = s.scope.rows(merkle.NodeAt(m.position, merkle.MaxBits), func(r *merkle.Row) bool {
		if string(r.Entry.Key) != string(v.key) {
			return true
		}
		v.valueHash = s.scope.view.Hash(r.Entry.Value)
		return false
	})
	return v, err
}

// sameWrite reports whether two versions are of one write, so that only their
// values or expiries can differ.
func sameWrite(a, b lww.Version) bool {
	return a.Stamp == b.Stamp && a.Node == b.Node && a.Tombstone == b.Tombstone
}

func sortProbes(p []*probe) {
	slices.SortFunc(p, func(a, b *probe) int {
		switch {
		case a.name.Path < b.name.Path:
			return -1
		case a.name.Path > b.name.Path:
			return 1
		}
		return 0
	})
}
