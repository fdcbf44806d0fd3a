package antientropy

import (
	"fmt"
	mathbits "math/bits"
	"slices"

	"syntropy/lww"
	"syntropy/merkle"
)

// This file is the receiving half of the Initiator: from the partner's answers to
// the nodes that differ.

func (s *Initiator) receive(reply []byte) ([]lww.Entry, error) {
	if len(reply) == 0 {
		return nil, wireError("it is empty")
	}
	r := &reader{codec: s.codec, b: reply[1:]}
	opening := s.report.Rounds == 1
	switch kind := reply[0]; {
	case kind == kindRefusal:
		m := r.refusal()
		if r.err != nil {
			return nil, r.err
		}
		return nil, &RefusedError{m.code, m.text}
	case kind == kindEqual && opening:
		if err := r.end(); err != nil {
			return nil, err
		}
		s.complete(0, 1)
		return nil, nil
	case kind == kindDiffer && opening:
		m := r.differ()
		if r.err != nil {
			return nil, r.err
		}
		return s.receiveDiffer(m)
	case kind == kindResponse && !opening:
		m := r.response(s.sent.request)
		if r.err != nil {
			return nil, r.err
		}
		return s.receiveResponse(m)
	}
	return nil, errOutOfTurn
}

func (s *Initiator) complete(partnerRows, partnerCompared uint64) {
	s.over = true
	s.report.Complete = !s.cfg.DryRun
	s.report.ShardsEqual = len(s.scope.shards) - len(s.differing)
	s.report.RowsRead = s.scope.rowsRead + partnerRows
	s.report.Compared = s.scope.compared + partnerCompared
	s.scope.cache.release()
}

// claimedRows is how many rows of a partner that has many more than this side are
// believed, when the work that it may cause is bounded. Where this side has
// nothing, a whole range is one question.
const claimedRows = 1 << 20

// receiveDiffer begins the descent.
func (s *Initiator) receiveDiffer(m differMessage) ([]lww.Entry, error) {
	s.theirCheck = m.check
	_, syndrome, mine := s.scope.total()
	// Every node that is asked about has rows of its own on one side: generous,
	// but bounded by what the partner says it has.
	s.askMax = 4096 + 4*(mine+min(m.count, 16*mine+claimedRows))
	root := task{mine: syndrome}
	switch m.what {
	case differNamed:
		if len(m.named) == 0 {
			return nil, wireError("it names nothing")
		}
		root.slow = true // and compared by rows, should one name be refuted
		apply, err := s.receiveNames(m.named, root)
		s.named()
		if len(s.tasks) > 0 && s.report.Diverged+s.report.InFlight+s.pending() == 0 {
			// Both were: more than two keys differ, and nothing is known of them.
			s.tasks = s.tasks[:0]
			s.level = 1 + s.scope.startLevel(uint64(max(s.cfg.Expected, 2*startKeys)), mine)
		}
		return apply, err
	case differLevel:
		return nil, s.compareLevel(m.bits, m.level, nil)
	case differPart:
		return nil, s.receivePart(m, syndrome)
	case differSample:
		return nil, s.receiveSample(m.sample, m.count)
	case differOnly:
		s.level = 1 + s.scope.bits
	}
	return nil, nil
}

// receiveSample chooses the level to begin at.
func (s *Initiator) receiveSample(theirs []byte, theirCount uint64) error {
	levels := s.scope.sampleLevels(theirCount)
	mine, err := s.scope.sample(levels)
	if err != nil {
		return err
	}
	if len(mine) != len(theirs) {
		return wireError("a sample of %d bytes for %d", len(theirs), len(mine))
	}
	_, _, count := s.scope.total()
	s.level = 1 + s.scope.startLevel(s.scope.estimate(levels, mine, theirs), max(count, theirCount))
	return nil
}

// crowdedShare: when six keys differ under a node on average, one node in 50 has
// less than two.
const crowdedShare = 50

// compareLevel compares a whole level with that of the partner.
func (s *Initiator) compareLevel(bits int, theirs []merkle.Syndrome, counts []uint64) error {
	if len(theirs) != s.scope.level(bits) || counts != nil && len(counts) != len(theirs) {
		return wireError("%d nodes of a level that has %d", len(theirs), s.scope.level(bits))
	}
	mine, err := s.scope.levelSyndromes(bits)
	if err != nil {
		return err
	}
	s.judgeCrowd(mine, theirs)
	s.scope.levelNodes(bits, func(n merkle.Node) {
		t := task{node: n, mine: mine[0], theirs: theirs[0]}
		if counts != nil {
			t.theirRows, counts = counts[0], counts[1:]
		}
		s.compare(t)
		mine, theirs = mine[1:], theirs[1:]
	})
	return nil
}

// receivePart compares a part of a level with that of the partner.
func (s *Initiator) receivePart(m differMessage, mine merkle.Syndrome) error {
	outline, ok := s.scope.outlineBits()
	if !ok || s.cfg.Expected <= 0 || m.bits < outline || m.bits-outline > 20 ||
		len(m.level) != mathbits.OnesCount64(m.marked)<<(m.bits-outline) {
		return wireError("a part of a level was not asked for, or is not one")
	}
	level, sum, err := s.scope.part(outline, m.bits, m.marked)
	if err != nil {
		return err
	}
	if mine.Minus(sum) != m.rest {
		// Two nodes have the same byte and differ, as one in 256 does.
		s.level = 1 + min(m.bits, s.scope.startLevel(uint64(s.cfg.Expected), m.count))
		return nil
	}
	s.judgeCrowd(level, m.level)
	return s.scope.partNodes(outline, m.marked, func(n merkle.Node) error {
		for i := range 1 << (m.bits - outline) {
			s.compare(task{node: n.Down(m.bits-outline, i), mine: level[i], theirs: m.level[i]})
		}
		level, m.level = level[1<<(m.bits-outline):], m.level[1<<(m.bits-outline):]
		return nil
	})
}

// judgeCrowd says whether a descent began too high.
func (s *Initiator) judgeCrowd(mine, theirs []merkle.Syndrome) {
	few := 0
	for i := range mine {
		if mine[i].Minus(theirs[i]).AtMostOne() {
			few++
		}
	}
	s.crowded = few*crowdedShare < len(mine)
}

// receiveResponse matches the answer to what was asked and puts back what was
// left unanswered.
func (s *Initiator) receiveResponse(m response) ([]lww.Entry, error) {
	q := s.sent
	if q.request.level > 0 && len(m.level) == 0 {
		return nil, wireError("it answers nothing")
	}
	answered := len(m.splits) + len(m.compares) + len(m.lists) + len(m.probes) + len(m.versions) + len(m.fetches) + len(m.level)
	if answered+len(q.request.push) == 0 && !q.request.finish {
		return nil, wireError("it answers nothing")
	}
	if m.applied != len(q.request.push) {
		return nil, fmt.Errorf("the partner applied %d of %d entries", m.applied, len(q.request.push))
	}
	if m.finished != q.request.finish {
		return nil, errOutOfTurn
	}
	s.theirCheck -= m.revealed
	s.report.Pushed += m.applied
	s.tasks = append(s.tasks, q.splits[len(m.splits):]...)
	s.tasks = append(s.tasks, q.compares[len(m.compares):]...)
	s.tasks = append(s.tasks, q.lists[len(m.lists):]...)
	s.probes = append(s.probes, q.probes[len(m.probes):]...)
	s.versions = append(s.versions, q.versions[len(m.versions):]...)
	s.fetches = append(s.fetches, q.fetches[len(m.fetches):]...)
	naming := slices.ContainsFunc(q.fetches[:len(m.fetches)], func(f fetchTask) bool { return f.first })
	if naming || slices.ContainsFunc(q.probes[:len(m.probes)], func(p *probe) bool { return !p.again }) || len(m.versions)+len(m.lists)+len(m.compares)+len(m.splits)+len(m.level) > 0 {
		naming = true
	}
	var apply []lww.Entry
	take := func(entries []lww.Entry, err error) error {
		apply = append(apply, entries...)
		return err
	}
	if q.request.level > 0 {
		if err := s.compareLevel(q.request.level-1, m.level, m.counts); err != nil {
			return nil, err
		}
	}
	for i, a := range m.splits {
		if err := s.receiveSplit(q.splits[i], q.request.splits[i].bits, a); err != nil {
			return nil, err
		}
	}
	for i, children := range m.compares {
		for j, a := range children {
			child := task{node: q.compares[i].node.Down(q.request.compares[i].bits, j), mine: q.mine[i][j], age: q.compares[i].age + 1}
			if err := take(s.receiveChild(child, a)); err != nil {
				return nil, err
			}
		}
	}
	for i, a := range m.lists {
		t := q.lists[i]
		if a.code == childEqual || a.code == childNamed && len(a.named) == 0 {
			s.lookAtRows(t)
			continue
		}
		if err := take(s.receiveChild(t, a)); err != nil {
			return nil, err
		}
	}
	for i, n := range m.probes {
		if q.probes[i].again {
			if err := take(s.receiveAgain(q.probes[i], n)); err != nil {
				return nil, err
			}
			continue
		}
		if err := take(s.receiveProbed(q.probes[i], n)); err != nil {
			return nil, err
		}
	}
	for i, a := range m.versions {
		if err := s.receiveVersions(q.versions[i], a); err != nil {
			return nil, err
		}
	}
	for i, a := range m.fetches {
		if err := take(s.receiveFetched(q.fetches[i], a)); err != nil {
			return nil, err
		}
	}
	if naming {
		s.named()
	}
	if m.finished {
		s.complete(m.rowsRead, m.compared)
	}
	return apply, nil
}

// named takes note that keys that differ were named in this round.
func (s *Initiator) named() {
	s.report.NamingRounds = s.report.Rounds
	s.report.NamingBytes = s.report.BytesSent + s.report.BytesReceived - s.report.EntryBytes
}

// lookAtRows is for a node that differs, but not by any name and fingerprint: if
// two keys of one name have one fingerprint, by a great accident, the versions of
// its rows tell, and if its tree is wrong, they do not.
func (s *Initiator) lookAtRows(t task) {
	t.slow = true
	s.tasks = append(s.tasks, t)
}

// contradiction is the error for a node that differs though nothing under it
// does.
func (s *Initiator) contradiction(n merkle.Node) error {
	if int(n.Bits) < s.scope.bits {
		return ErrHidden
	}
	return &TreeError{s.scope.shardOf(n), s.scope.inShard(n)}
}

// receiveSplit takes the children of a node of the partner and compares them.
func (s *Initiator) receiveSplit(t task, bits int, a splitAnswer) error {
	mine := make([]merkle.Syndrome, 1<<bits)
	if err := s.scope.syndromes(t.node, bits, mine); err != nil {
		return err
	}
	theirs := a.syndromes
	if !t.slow {
		last := t.theirs // the last one is what the others leave of their parent
		for _, c := range theirs {
			last = last.Minus(c)
		}
		theirs = append(theirs, last)
	}
	for i, c := range theirs {
		child := task{node: t.node.Down(bits, i), mine: mine[i], theirs: c, age: t.age + 1, slow: t.slow, counted: t.counted}
		dealtWith := false
		for _, k := range t.known {
			if dealtWith = k.Above(child.node); dealtWith {
				break
			}
			if child.node.Above(k) {
				child.known = append(child.known, k)
			}
		}
		if dealtWith {
			continue
		}
		if a.counts != nil {
			child.theirRows = a.counts[i]
		}
		s.compare(child)
	}
	return nil
}

// receiveChild takes what the partner makes of a node whose digest, or whose
// rows, it was sent.
func (s *Initiator) receiveChild(t task, a childAnswer) ([]lww.Entry, error) {
	if s.cfg.Compared != nil && a.code == childEqual && !t.mine.IsZero() {
		t.theirs = t.mine
		s.compare(t)
	}
	if a.code != childEqual && !s.scope.covers(t.node) {
		return nil, wireError("it has something in shard %d, which is not part of the session", s.scope.shardOf(t.node))
	}
	switch a.code {
	case childNamed:
		if len(a.named) == 0 {
			return nil, wireError("it names nothing")
		}
		return s.receiveNames(a.named, t)
	case childSplit:
		if int(t.node.Bits)+2 > merkle.MaxBits {
			return nil, wireError("a single position has no children")
		}
		var mine [4]merkle.Syndrome
		if err := s.scope.syndromes(t.node, 2, mine[:]); err != nil {
			return nil, err
		}
		for i := range mine {
			s.compare(task{node: t.node.Down(2, i), mine: mine[i], theirs: a.split[i], age: t.age + 1})
		}
	case childList:
		return nil, s.receiveList(t, a.items)
	case childMine:
		if int(t.node.Bits) < s.scope.bits {
			return nil, wireError("all of several shards are offered at once")
		}
		s.takeAll(t.node)
	case childYours:
		return nil, s.giveAll(t.node)
	case childSlow:
		t.slow = true
		s.tasks = append(s.tasks, t)
	}
	return nil, nil
}

// compare looks at one node of both sides and queues it if it differs.
func (s *Initiator) compare(t task) {
	s.scope.compared++
	differs := t.mine != t.theirs
	if s.cfg.Compared != nil && !(t.mine.IsZero() && t.theirs.IsZero()) && int(t.node.Bits) >= s.scope.bits {
		s.showComparison(t, differs)
	}
	if differs {
		s.tasks = append(s.tasks, t)
	}
}

// showComparison tells the caller of a comparison below the roots of shards.
func (s *Initiator) showComparison(t task, differs bool) {
	c := Comparison{Shard: s.scope.shardOf(t.node), Node: s.scope.inShard(t.node), Initiator: t.mine, Partner: t.theirs, Then: Skip}
	if s.cfg.Textbook {
		rows, err := s.countRows(t.node)
		if err != nil {
			return // it is read again, and told of, when the node is looked into
		}
		c.InitiatorRows, c.PartnerRows = rows, t.theirRows
	}
	if differs {
		c.Then = Descend
		if _, count, ok := t.mine.Minus(t.theirs).Decode(t.node); ok && count > 0 && !s.cfg.Textbook {
			c.Then = Name
		}
		if s.cfg.Textbook && c.InitiatorRows <= 1 && c.PartnerRows <= 1 {
			c.Then = List
		}
	}
	s.cfg.Compared(c)
}

func (s *Initiator) countRows(n merkle.Node) (rows uint64, err error) {
	err = s.scope.rows(n, func(r *merkle.Row) bool {
		if r.Sum != (merkle.Sum{}) {
			rows++
		}
		return true
	})
	return rows, err
}
