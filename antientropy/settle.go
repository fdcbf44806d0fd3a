package antientropy

import (
	"slices"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// This file is the settling half of the Initiator: from names to the keys that
// differ, and what is to be done about each of them.

// receiveNames takes the keys that the partner has found under a node.
func (s *Initiator) receiveNames(list []named, t task) (apply []lww.Entry, err error) {
	from := &naming{task: t}
	for i := range list {
		n := &list[i]
		switch n.state {
		case nameEntry:
			n.name = merkle.NodeAt(s.scope.view.Position(n.entry.Key), s.codec.nameBits)
		case nameFull:
			n.name = merkle.NodeAt(s.scope.view.Position(n.full.key), s.codec.nameBits)
		}
		if !t.node.Above(n.name) || !s.scope.covers(n.name) || slices.Contains(from.names, n.name) {
			return nil, wireError("a key that differs is not where it was found, or twice there")
		}
		from.names = append(from.names, n.name)
	}
	for _, n := range list {
		entries, err := s.receiveName(n.name, n, from)
		if err != nil {
			return nil, err
		}
		apply = append(apply, entries...)
	}
	return apply, nil
}

// receiveList takes all that the partner has under a node with few rows.
func (s *Initiator) receiveList(t task, theirs []item) error {
	mine, err := s.scope.items(t.node, s.codec.nameBits, maxListed)
	if err != nil {
		return err
	}
	names := differingNames(mine, theirs)
	if len(names) == 0 {
		s.lookAtRows(t)
	}
	from := &naming{task: t, slow: true}
	probes := make([]probe, 0, len(names))
	for _, n := range names {
		name := merkle.Node{Bits: uint8(s.codec.nameBits), Path: n.name}
		if n.there {
			probes = append(probes, probe{probeAsk: probeAsk{name: name, absent: !n.here}, from: from})
			continue
		}
		if _, err := s.receiveName(name, named{state: nameAbsent}, from); err != nil {
			return err
		}
	}
	for i := range probes {
		s.probes = append(s.probes, &probes[i])
	}
	return nil
}

// receiveAgain takes an entry that was asked for by its name.
func (s *Initiator) receiveAgain(p *probe, n named) ([]lww.Entry, error) {
	if n.state != nameEntry || string(n.entry.Key) != string(p.key) {
		return nil, wireError("an entry is not the one that was asked for")
	}
	s.report.EntryBytes += entryBytes(*n.entry)
	return []lww.Entry{*n.entry}, nil
}

// receiveName takes what the partner has under a name, and settles the one key
// that is there, as a rule. Whatever is less simple is asked for in full.
func (s *Initiator) receiveName(name merkle.Node, n named, from *naming) ([]lww.Entry, error) {
	mine, err := s.appendRows(s.mine[:0], name)
	if err != nil {
		return nil, err
	}
	s.mine = mine
	return s.settleName(name, mine, n, from)
}

// receiveProbed is receiveName for a name that this side has asked about.
func (s *Initiator) receiveProbed(p *probe, n named) ([]lww.Entry, error) {
	if p.read {
		return s.settleName(p.name, p.mine, n, p.from)
	}
	return s.receiveName(p.name, n, p.from)
}

func (s *Initiator) settleName(name merkle.Node, mine []mineRow, n named, from *naming) ([]lww.Entry, error) {
	var theirs *keyVersion
	switch n.state {
	case nameVersion:
		theirs = &keyVersion{version: n.version, late: n.late, valueBytes: -1}
	case nameEntry:
		e := *n.entry
		s.report.EntryBytes += entryBytes(e)
		theirs = &keyVersion{key: e.Key, version: e.Version, sum: s.scope.view.Sum(e), valueHash: s.scope.view.Hash(e.Value), valueBytes: len(e.Value)}
	case nameFull:
		theirs = n.full
	}
	if theirs != nil && theirs.key != nil && merkle.NodeAt(s.scope.view.Position(theirs.key), s.codec.nameBits) != name {
		return nil, wireError("a key is not under the name that was asked for")
	}
	for i := range mine {
		s.myCheck -= mine[i].sum.Lo
	}
	switch {
	case n.state == nameAbsent && len(mine) == 0:
		s.refute(from, name)
		return nil, nil
	case n.state == nameAbsent:
		for i := range mine {
			if _, err := s.settle(mine[i].position, &mine[i], nil, nil); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case n.state == nameSeveral || len(mine) > 1 || len(mine) == 0 && theirs.key == nil:
		return nil, s.askVersions(name, mine, from)
	case len(mine) == 0:
		x := name.First()
		if theirs.key != nil {
			x = s.scope.view.Position(theirs.key)
		}
		return s.settle(x, nil, theirs, n.entry)
	}
	m := &mine[0]
	if theirs.key == nil {
		tie := sameWrite(m.entry.Version, theirs.version)
		if uint32(s.scope.view.Hash(m.entry.Key)) != n.key || tie || s.cfg.Details {
			return nil, s.askVersions(name, mine, from)
		}
		theirs.key = m.entry.Key
	}
	switch {
	case string(theirs.key) != string(m.entry.Key):
		if _, err := s.settle(m.position, m, nil, nil); err != nil {
			return nil, err
		}
		return s.settle(s.scope.view.Position(theirs.key), nil, theirs, n.entry)
	case theirs.sum == m.sum && theirs.sum != (merkle.Sum{}):
		s.refute(from, name)
		return nil, nil
	}
	return s.settle(m.position, m, theirs, n.entry)
}

// refute is for a name under which nothing differs: the node that was decoded to
// it holds more differences than can be named. They are found by descending to
// the rows; what its other name led to is dealt with already.
func (s *Initiator) refute(from *naming, name merkle.Node) {
	if from.slow {
		return
	}
	from.slow = true
	t := from.task
	t.slow = true
	for _, n := range from.names {
		if n != name {
			t.known = append(t.known, n)
		}
	}
	s.tasks = append(s.tasks, t)
}

// askVersions asks for all that the partner has under a name.
func (s *Initiator) askVersions(name merkle.Node, mine []mineRow, from *naming) error {
	v := versionsTask{versionsAsk: versionsAsk{node: name}, from: from, counted: true}
	for i := range mine {
		if mine[i].sum != (merkle.Sum{}) {
			v.except = append(v.except, mine[i].sum.Lo)
		}
	}
	if len(v.except) > maxListed {
		return wireError("more than %d rows have one name", maxListed)
	}
	s.versions = append(s.versions, v)
	return nil
}

// receiveVersions pairs the rows under a node by key.
func (s *Initiator) receiveVersions(v versionsTask, a versionsAnswer) error {
	if a.tooMany {
		if int(v.node.Bits) == merkle.MaxBits {
			return wireError("more than %d rows share a position", maxListed)
		}
		s.tasks = append(s.tasks, task{node: v.node, slow: true, split: true, counted: v.counted, known: v.known})
		return nil
	}
	mine, err := s.rowsUnder(v.node)
	if err != nil {
		return err
	}
	isKnown := func(x ring.Position) bool {
		return slices.ContainsFunc(v.known, func(n merkle.Node) bool { return n.Contains(x) })
	}
	// What the partner holds, too, is no difference.
	i := 0
	mine = slices.DeleteFunc(mine, func(m mineRow) bool {
		held := false
		if m.sum != (merkle.Sum{}) {
			held = a.held[i/8]&(1<<(i%8)) != 0
			i++
		}
		return held || isKnown(m.position)
	})
	differs := len(v.known) > 0
	for n := range a.list {
		th := &a.list[n]
		x := s.scope.view.Position(th.key)
		if !v.node.Contains(x) || !s.scope.covers(merkle.NodeAt(x, merkle.MaxBits)) {
			return wireError("a key is not under the node that was asked for")
		}
		if th.sum != (merkle.Sum{}) && slices.Contains(v.except, th.sum.Lo) {
			return wireError("a version was sent that was not asked for")
		}
		if slices.ContainsFunc(a.list[:n], func(o keyVersion) bool { return string(o.key) == string(th.key) }) {
			return wireError("a version was sent twice")
		}
		if isKnown(x) {
			continue
		}
		i := slices.IndexFunc(mine, func(m mineRow) bool { return string(m.entry.Key) == string(th.key) })
		differs = true
		if !v.counted {
			s.theirCheck -= th.sum.Lo
		}
		if i < 0 {
			if _, err := s.settle(x, nil, th, nil); err != nil {
				return err
			}
			continue
		}
		if !v.counted {
			s.myCheck -= mine[i].sum.Lo
		}
		if _, err := s.settle(x, &mine[i], th, nil); err != nil {
			return err
		}
		mine = slices.Delete(mine, i, i+1)
	}
	for i := range mine {
		if mine[i].sum == (merkle.Sum{}) {
			continue // written after the moment that is compared
		}
		differs = true
		if !v.counted {
			s.myCheck -= mine[i].sum.Lo
		}
		if _, err := s.settle(mine[i].position, &mine[i], nil, nil); err != nil {
			return err
		}
	}
	switch {
	case differs:
	case v.from != nil:
		s.refute(v.from, v.node)
	case v.task != nil:
		return s.contradiction(v.node)
	}
	return nil
}

// settle does what is to be done about one key that differs. entry is the
// partner's, if it was sent along.
func (s *Initiator) settle(x ring.Position, mine *mineRow, theirs *keyVersion, entry *lww.Entry) (apply []lww.Entry, err error) {
	action, err := s.found(x, mine, theirs)
	if err != nil || s.cfg.DryRun || action == Wait {
		return nil, err
	}
	at := merkle.NodeAt(x, merkle.MaxBits)
	if action == Push || action == Exchange {
		p := pushTask{node: at, sums: []uint64{mine.sum.Lo}, bytes: mine.bytes}
		if !mine.noValue {
			p.entry = mine.entry
		}
		s.pushes = append(s.pushes, p)
	}
	if action == Pull || action == Exchange {
		if entry != nil {
			return []lww.Entry{*entry}, nil
		}
		if theirs.sum == (merkle.Sum{}) { // it was told as the only row under its name
			name := merkle.NodeAt(x, s.codec.nameBits)
			s.probes = append(s.probes, &probe{probeAsk: probeAsk{name: name, again: true}, key: theirs.key})
			return nil, nil
		}
		f := fetchTask{fetchAsk: fetchAsk{node: at, sums: []uint64{theirs.sum.Lo}}, key: theirs.key, late: theirs.late, bytes: len(theirs.key) + theirs.valueBytes + 32}
		s.fetches = append(s.fetches, f)
	}
	return nil, nil
}

// found takes note of a key that differs and says what is to be done about it.
func (s *Initiator) found(x ring.Position, mine *mineRow, theirs *keyVersion) (Action, error) {
	var mineVersion keyVersion
	var ours *keyVersion
	if mine != nil {
		var err error
		if mineVersion, err = s.describe(mine, theirs); err != nil {
			return 0, err
		}
		ours = &mineVersion
	}
	action, because := decide(ours, theirs, s.settled(), s.cfg.Settle)
	if action == Wait {
		s.report.InFlight++
	} else {
		s.report.Diverged++
	}
	if s.differing == nil {
		s.differing = make(map[int]bool)
	}
	shard := x.Shard(s.scope.view.Shards())
	s.differing[shard] = true
	if s.cfg.Found != nil {
		d := Difference{Shard: shard, Position: x, Action: action, because: because}
		var sides struct{ mine, theirs Side } // allocated as one
		if mine != nil {
			d.Key = mine.entry.Key
			sides.mine = Side{mineVersion.version, mineVersion.valueBytes}
			d.Initiator = &sides.mine
		} else {
			d.Key = slices.Clone(theirs.key)
		}
		if theirs != nil {
			sides.theirs = Side{theirs.version, theirs.valueBytes}
			d.Partner = &sides.theirs
		}
		s.cfg.Found(d)
	}
	return action, nil
}

// receiveFetched takes the entries that were asked for.
func (s *Initiator) receiveFetched(f fetchTask, a fetchAnswer) (apply []lww.Entry, err error) {
	for i, e := range a.entries {
		s.report.EntryBytes += entryBytes(e)
		x := s.scope.view.Position(e.Key)
		if !f.node.Contains(x) || uint64(x-f.node.First()) < f.skip {
			return nil, wireError("an entry is not from where it was asked for")
		}
		sum := s.scope.view.Sum(e)
		if !f.first {
			if string(e.Key) != string(f.key) || !f.late && f.sums[0] != sum.Lo || i > 0 {
				return nil, wireError("an entry is not the one that was asked for")
			}
			apply = append(apply, e)
			continue
		}
		theirs := &keyVersion{key: e.Key, version: e.Version, sum: sum, valueHash: s.scope.view.Hash(e.Value), valueBytes: len(e.Value)}
		settled, err := s.settle(x, nil, theirs, &e)
		if err != nil {
			return nil, err
		}
		apply = append(apply, settled...)
	}
	for i := range a.young {
		y := &a.young[i]
		x := s.scope.view.Position(y.key)
		if !f.first || !f.node.Contains(x) || uint64(x-f.node.First()) < f.skip {
			return nil, wireError("a version is not from where it was asked for")
		}
		asked := len(s.fetches)
		if _, err := s.settle(x, nil, y, nil); err != nil {
			return nil, err
		}
		if !y.late && len(s.fetches) > asked {
			return nil, wireError("an entry that is not too young was held back")
		}
	}
	sent := len(a.entries) + len(a.young)
	switch {
	case !f.first && len(a.entries) != 1:
		return nil, wireError("%d entries for one asked for", len(a.entries))
	case !f.first:
	case a.next > 0:
		if a.next <= f.skip || a.next > uint64(f.node.Last()-f.node.First()) || sent == 0 {
			return nil, wireError("the rest of an answer begins where it cannot")
		}
		f.skip, f.any = a.next, true
		s.fetches = slices.Insert(s.fetches, 0, f)
	case sent == 0 && !f.any:
		return nil, s.contradiction(f.node)
	}
	return apply, nil
}
