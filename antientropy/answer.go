package antientropy

import (
	"fmt"
	"math"
	"slices"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// This file is the answering half of the Responder: each section of a request,
// from the view.

// server fills one response while there is room.
type server struct {
	*Responder
	a    *response
	room int
	// readBefore is what had been read when the message came.
	readBefore uint64
}

// rowsPerMessage bounds the rows that are read for one message, beyond those of the
// question that exceeds it: a request of a kilobyte can ask for all rows a hundred
// times over.
const rowsPerMessage = 1 << 18

// full reports whether the rest of a request has to be asked for again.
func (s *server) full() bool { return s.room <= 0 || s.scope.rowsRead-s.readBefore > rowsPerMessage }

func (s *server) level(req request) (err error) {
	if req.level == 0 {
		return nil
	}
	if s.a.level, err = s.scope.levelSyndromes(req.level - 1); err != nil || !s.codec.textbook {
		return err
	}
	s.scope.levelNodes(req.level-1, func(n merkle.Node) {
		if e := s.count(n, &s.a.counts); e != nil {
			err = e
		}
	})
	return err
}

// count counts the rows under a node, for people who want to see them.
func (s *server) count(n merkle.Node, counts *[]uint64) error {
	rows := uint64(0)
	err := s.scope.rows(n, func(r *merkle.Row) bool {
		if r.Sum != (merkle.Sum{}) {
			rows++
		}
		return true
	})
	*counts = append(*counts, rows)
	return err
}

func (s *server) fetches(req request) error {
	for _, f := range req.fetches {
		if s.full() {
			return nil
		}
		a, err := s.fetch(f)
		if err != nil {
			return err
		}
		s.a.fetches = append(s.a.fetches, a)
	}
	return nil
}

func (s *server) fetch(f fetchAsk) (a fetchAnswer, err error) {
	first := f.node.First() + ring.Position(f.skip)
	var at ring.Position
	err = s.scope.rowsFrom(f.node, first, func(row *merkle.Row) bool {
		// A position is sent as a whole, so that the rest has a beginning.
		if s.room <= 0 && len(a.entries)+len(a.young) > 0 && row.Position != at && len(f.sums) == 0 {
			a.next = uint64(row.Position - f.node.First())
			return false
		}
		at = row.Position
		if f.first {
			s.a.revealed += row.Sum.Lo
			if row.Sum == (merkle.Sum{}) {
				return true // it was written after the moment that is compared
			}
			if row.Late || s.young(row) {
				a.young = append(a.young, versionOf(s.scope.view, row))
				s.room -= len(row.Entry.Key) + 64
				return true
			}
		} else if len(f.sums) > 0 && !slices.Contains(f.sums, row.Sum.Lo) {
			return true
		}
		a.entries = append(a.entries, row.Entry.Clone())
		s.room -= lww.EncodedLen(row.Entry) + 4
		return true
	})
	return a, err
}

func (s *server) probes(req request) error {
	for _, p := range req.probes {
		if s.full() {
			return nil
		}
		if p.again {
			n, err := s.entryOf(p.name)
			if err != nil {
				return err
			}
			s.add(0, n)
			s.a.probes = append(s.a.probes, n)
			continue
		}
		n, revealed, err := s.state(p.name, func(uint64) bool { return p.absent })
		if err != nil {
			return err
		}
		s.add(revealed, n)
		s.a.probes = append(s.a.probes, n)
	}
	return nil
}

// entryOf returns the one entry under a name, as it is now: the initiator knows
// its version and wants it.
func (s *server) entryOf(name merkle.Node) (n named, err error) {
	n.name = name
	err = s.scope.rows(name, func(row *merkle.Row) bool {
		if n.state != nameAbsent {
			n = named{name: name, state: nameSeveral}
			return false
		}
		e := row.Entry.Clone()
		n.state, n.entry, n.sum = nameEntry, &e, s.codec.check(e)
		return true
	})
	return n, err
}

// add takes note of what names reveal and cost.
func (s *server) add(revealed uint64, n named) {
	s.a.revealed += revealed
	s.room -= 24
	switch n.state {
	case nameEntry:
		s.room -= lww.EncodedLen(*n.entry)
	case nameFull:
		s.room -= len(n.full.key) + 64
	}
}

func (s *server) versions(req request) error {
	for _, v := range req.versions {
		if s.full() {
			return nil
		}
		a := versionsAnswer{held: make([]byte, (len(v.except)+7)/8)}
		err := s.scope.rows(v.node, func(row *merkle.Row) bool {
			if row.Sum == (merkle.Sum{}) {
				return true // written after the moment that is compared
			}
			if i := slices.Index(v.except, row.Sum.Lo); i >= 0 {
				a.held[i/8] |= 1 << (i % 8)
			} else {
				a.list = append(a.list, versionOf(s.scope.view, row))
				s.room -= len(row.Entry.Key) + 64
			}
			a.tooMany = len(a.list) > maxListed
			return !a.tooMany
		})
		if err != nil {
			return err
		}
		if a.tooMany {
			if v.node.Bits == merkle.MaxBits {
				return fmt.Errorf("more than %d rows share the position %v", maxListed, v.node)
			}
			a.list, a.held = nil, nil
		}
		s.a.versions = append(s.a.versions, a)
		s.room--
	}
	return nil
}

func versionOf(v View, row *merkle.Row) keyVersion {
	return keyVersion{
		key:        slices.Clone(row.Entry.Key),
		version:    row.Entry.Version,
		sum:        row.Sum,
		late:       row.Late,
		valueHash:  v.Hash(row.Entry.Value),
		valueBytes: len(row.Entry.Value),
	}
}

// lists compares the rows under a node with those that the initiator has there.
func (s *server) lists(req request) error {
	for _, ask := range req.lists {
		if s.full() {
			return nil
		}
		s.scope.compared++
		a, err := s.compareRows(ask)
		if err != nil {
			return err
		}
		s.a.lists = append(s.a.lists, a)
		s.room -= 4
	}
	return nil
}

func (s *server) compareRows(ask listAsk) (a childAnswer, err error) {
	many := uint64(4 * listRows) // then splitting costs less than having read them
	if int(ask.node.Bits)+2 > merkle.MaxBits {
		many = math.MaxUint64
	}
	if s.scope.expected(ask.node) > many {
		return s.split(ask.node)
	}
	under, err := s.scope.cached(ask.node)
	rows := under.rows
	switch {
	case err != nil:
		return a, err
	case uint64(len(rows)) > many:
		return s.split(ask.node)
	}
	a.code = childNamed
	nameOf := func(r *cachedRow) uint64 { return merkle.NodeAt(r.x, s.codec.nameBits).Path }
	for items := ask.items; len(rows)+len(items) > 0; {
		path := uint64(math.MaxUint64)
		if len(rows) > 0 {
			path = nameOf(&rows[0])
		}
		if len(items) > 0 {
			path = min(path, items[0].name)
		}
		mine, theirs := 0, 0
		for mine < len(rows) && nameOf(&rows[mine]) == path {
			mine++
		}
		for theirs < len(items) && items[theirs].name == path {
			theirs++
		}
		if !sameRows(rows[:mine], items[:theirs]) {
			name := merkle.Node{Bits: uint8(s.codec.nameBits), Path: path}
			n, revealed := named{name: name}, uint64(0)
			switch {
			case mine == 0:
			case mine == 1 && theirs > 0:
				n, revealed = s.versionNamed(name, under, &rows[0]), rows[0].sum.Lo
			default: // the entry itself, or several
				lacks := theirs == 0
				if n, revealed, err = s.state(name, func(uint64) bool { return lacks }); err != nil {
					return a, err
				}
			}
			s.add(revealed, n)
			a.named = append(a.named, n)
		}
		rows, items = rows[mine:], items[theirs:]
	}
	return a, nil
}

// sameRows reports whether the rows that count are those listed.
func sameRows(rows []cachedRow, items []item) bool {
	count := 0
	for i := range rows {
		if f := rows[i].f; f != 0 {
			if count++; !slices.ContainsFunc(items, func(it item) bool { return it.f == f }) {
				return false
			}
		}
	}
	return count == len(items)
}

// differingName is a name under which two lists do not hold the same.
type differingName struct {
	name        uint64
	here, there bool // in the first list, in the second
}

// differingNames returns the names under which two lists, each in order, do not
// hold the same fingerprints.
func differingNames(a, b []item) (out []differingName) {
	for len(a) > 0 || len(b) > 0 {
		name := uint64(1 << 63)
		if len(a) > 0 {
			name = a[0].name
		}
		if len(b) > 0 {
			name = min(name, b[0].name)
		}
		var atA, atB []item
		a, atA = cutName(a, name)
		b, atB = cutName(b, name)
		same := len(atA) == len(atB)
		for _, it := range atA {
			same = same && slices.Contains(atB, it)
		}
		if !same {
			out = append(out, differingName{name, len(atA) > 0, len(atB) > 0})
		}
	}
	return out
}

func cutName(l []item, name uint64) (rest, at []item) {
	n := 0
	for n < len(l) && l[n].name == name {
		n++
	}
	return l[n:], l[:n]
}

func (s *server) split(n merkle.Node) (a childAnswer, err error) {
	a.code = childSplit
	s.room -= 4 * merkle.SyndromeBytes
	return a, s.scope.syndromes(n, 2, a.split[:])
}

// compares looks at the children of nodes of which the initiator has sent its
// own, and goes on by itself as far as it can.
func (s *server) compares(req request) error {
	for _, ask := range req.compares {
		if s.full() {
			return nil
		}
		mine := make([]merkle.Syndrome, 1<<ask.bits)
		if err := s.scope.syndromes(ask.node, ask.bits, mine); err != nil {
			return err
		}
		children := make([]childAnswer, len(mine))
		for i := range children {
			s.scope.compared++
			var err error
			if children[i], err = s.compareChild(ask.node.Down(ask.bits, i), mine[i], ask.theirs[i]); err != nil {
				return err
			}
		}
		s.a.compares = append(s.a.compares, children)
		s.room -= 2
	}
	return nil
}

func (s *server) compareChild(n merkle.Node, mine, theirs merkle.Syndrome) (childAnswer, error) {
	d := mine.Minus(theirs)
	switch {
	case d.IsZero():
		return childAnswer{code: childEqual}, nil
	case int(n.Bits) > s.codec.nameBits:
		return childAnswer{code: childSlow}, nil
	case int(n.Bits) >= s.scope.bits && theirs.IsZero():
		return childAnswer{code: childMine}, nil
	case int(n.Bits) >= s.scope.bits && mine.IsZero():
		return childAnswer{code: childYours}, nil
	}
	changes, likely, err := s.scope.decode(n, d, s.codec.nameBits)
	switch {
	case err != nil:
		return childAnswer{}, err
	case likely:
		a := childAnswer{code: childNamed}
		for _, c := range changes {
			m, revealed, err := s.nameChange(c)
			if err != nil {
				return a, err
			}
			s.add(revealed, m)
			a.named = append(a.named, m)
		}
		return a, nil
	case int(n.Bits)+2 > merkle.MaxBits:
		return childAnswer{code: childSlow}, nil
	}
	if int(n.Bits) >= s.scope.bits && s.scope.expected(n) <= listRows {
		items, err := s.scope.items(n, s.codec.nameBits, listRows)
		if err != nil || len(items) <= listRows {
			s.room -= 16 * len(items)
			return childAnswer{code: childList, items: items}, err
		}
	}
	return s.split(n)
}

func (s *server) splits(req request) error {
	for _, ask := range req.splits {
		if s.full() {
			return nil
		}
		a := splitAnswer{syndromes: make([]merkle.Syndrome, 1<<ask.bits)}
		if err := s.scope.syndromes(ask.node, ask.bits, a.syndromes); err != nil {
			return err
		}
		if s.codec.textbook {
			for i := range a.syndromes {
				if err := s.count(ask.node.Down(ask.bits, i), &a.counts); err != nil {
					return err
				}
			}
		}
		if !ask.all {
			a.syndromes = a.syndromes[:len(a.syndromes)-1]
		}
		s.a.splits = append(s.a.splits, a)
		s.room -= merkle.SyndromeBytes * len(a.syndromes)
	}
	return nil
}
