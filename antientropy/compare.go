package antientropy

import (
	"fmt"
	"slices"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// This file is the comparing half of the Initiator: from two roots down to the
// keys that differ, and what is to be done about each of them.

func (s *Initiator) receiveRoots(r *reader) error {
	roots := readList(r, ring.Slots, (*reader).digest)
	if err := r.end(); err != nil {
		return err
	}
	if len(roots) != len(s.shards) {
		return fmt.Errorf("%w: %d roots for %d shards", errWire, len(roots), len(s.shards))
	}
	for i, shard := range s.shards {
		if s.compare(nodeRef{shard: shard}, s.view.Root(shard), roots[i]) {
			s.report.ShardsEqual++
		}
	}
	return nil
}

// compare looks at one node of both sides and queues it if it differs.
func (s *Initiator) compare(n nodeRef, mine, theirs merkle.Digest) (equal bool) {
	t := task{n, mine, theirs}
	c := Comparison{n.shard, n.node, mine, theirs, Skip}
	if mine != theirs {
		c.Then = Descend
		if s.listed(t) {
			c.Then = List
		}
		s.tasks = append(s.tasks, t)
	}
	if s.cfg.Compared != nil {
		s.cfg.Compared(c)
	}
	return mine == theirs
}

// compareChildren compares the children of a node. On either side they must add
// up to the digest that the node had before: a partner that contradicts itself
// could otherwise keep a session busy for ever, and a wrong tree of our own
// would hide what is under it.
func (s *Initiator) compareChildren(t task, theirs [merkle.Fanout]merkle.Digest) error {
	mine, err := s.view.Children(t.shard, t.node)
	if err != nil {
		return err
	}
	if !addUp(mine, t.mine) || !addUp(theirs, t.theirs) {
		return &TreeError{t.shard, t.node}
	}
	for i := range mine {
		if mine[i] != theirs[i] || mine[i].Count > 0 {
			s.compare(nodeRef{t.shard, t.node.Child(i)}, mine[i], theirs[i])
		}
	}
	return nil
}

// addUp reports whether children are those of a node with the digest want. No
// child may count more than its parent: counts that wrap around would add up to
// anything.
func addUp(children [merkle.Fanout]merkle.Digest, want merkle.Digest) bool {
	var sum merkle.Digest
	for _, d := range children {
		if d.Count > want.Count-sum.Count {
			return false
		}
		sum = sum.Plus(d)
	}
	return sum == want
}

// mineItem is an entry of the own list, with what a difference needs.
type mineItem struct {
	item
	keyVersion
	bytes int
}

// compareLists finds the tokens under a node whose entries differ.
func (s *Initiator) compareLists(t task, theirs []item) error {
	for i, it := range theirs {
		if !t.node.Contains(it.token) || i > 0 && it.token < theirs[i-1].token {
			return fmt.Errorf("%w: the list of node %q is out of order", errWire, t.node)
		}
	}
	mine, err := s.mine(t.nodeRef)
	if err != nil {
		return err
	}
	if !listAddsUp(mine, t.mine, (*mineItem).sum) || !listAddsUp(theirs, t.theirs, func(it *item) uint64 { return it.sum }) {
		return &TreeError{t.shard, t.node}
	}
	differs := false
	for len(mine) > 0 || len(theirs) > 0 {
		token := ring.MaxToken
		if len(mine) > 0 {
			token = mine[0].token
		}
		if len(theirs) > 0 {
			token = min(token, theirs[0].token)
		}
		m, n := 0, 0
		for m < len(mine) && mine[m].token == token {
			m++
		}
		for n < len(theirs) && theirs[n].token == token {
			n++
		}
		differs = s.compareToken(tokenRef{shard: t.shard, token: token}, mine[:m], theirs[:n]) || differs
		mine, theirs = mine[m:], theirs[n:]
	}
	if !differs {
		return &TreeError{t.shard, t.node}
	}
	return nil
}

// listAddsUp reports whether a list is that of a node with the digest want, as
// far as the low halves of the sums can tell.
func listAddsUp[T any](list []T, want merkle.Digest, sum func(*T) uint64) bool {
	var low uint64
	for i := range list {
		low += sum(&list[i])
	}
	return uint64(len(list)) == want.Count && low == want.Sum.Lo
}

func (s *Initiator) mine(n nodeRef) (items []mineItem, err error) {
	err = s.view.Rows(n.shard, n.node, func(t ring.Token, e lww.Entry, d merkle.Digest) bool {
		items = append(items, mineItem{item{t, d.Sum.Lo}, versionOf(s.view, e, d), lww.EncodedLen(e)})
		return true
	})
	return items, err
}

// compareToken looks at the entries of both sides under one token. If the
// partner has any that this side has not, their versions are asked for; if it
// has none, there is nothing to ask.
func (s *Initiator) compareToken(t tokenRef, mine []mineItem, theirs []item) (differs bool) {
	var common []uint64
	for _, m := range mine {
		if slices.ContainsFunc(theirs, func(it item) bool { return it.sum == m.sum() }) {
			common = append(common, m.sum())
		}
	}
	switch {
	case len(common) == len(mine) && len(common) == len(theirs):
		return false
	case len(common) == len(theirs):
		for _, m := range mine {
			if !slices.Contains(common, m.sum()) {
				s.found(t, &m, nil)
			}
		}
	default:
		t.sums = common
		s.versions = append(s.versions, t)
	}
	return true
}

func (m *mineItem) sum() uint64 { return m.item.sum }

// compareVersions pairs the entries under one token by key.
func (s *Initiator) compareVersions(t tokenRef, theirs []keyVersion) error {
	mine, err := s.mine(nodeRef{t.shard, atToken(t.token)})
	if err != nil {
		return err
	}
	mine = slices.DeleteFunc(mine, func(m mineItem) bool { return slices.Contains(t.sums, m.sum()) })
	for n, th := range theirs {
		if shard, token := s.view.Locate(th.key); shard != t.shard || token != t.token {
			return fmt.Errorf("%w: a key is not under the token it was sent for", errWire)
		}
		if slices.Contains(t.sums, th.sum) || n > 0 && string(th.key) <= string(theirs[n-1].key) {
			return fmt.Errorf("%w: a version was sent that was not asked for, or twice", errWire)
		}
		i := slices.IndexFunc(mine, func(m mineItem) bool { return string(m.key) == string(th.key) })
		if i < 0 {
			s.found(t, nil, &th)
			continue
		}
		if mine[i].sum() == th.sum {
			return fmt.Errorf("%w: a version was sent that was not asked for", errWire)
		}
		s.found(t, &mine[i], &th)
		mine = slices.Delete(mine, i, i+1)
	}
	for i := range mine {
		s.found(t, &mine[i], nil)
	}
	return nil
}

// found settles one key that differs.
func (s *Initiator) found(t tokenRef, mine *mineItem, theirs *keyVersion) {
	var mineVersion *keyVersion
	if mine != nil {
		mineVersion = &mine.keyVersion
	}
	action, reason := decide(mineVersion, theirs, s.settled(), s.cfg.Settle)
	if action == Wait {
		s.report.InFlight++
	} else {
		s.report.Diverged++
	}
	if s.cfg.Found != nil {
		d := Difference{Shard: t.shard, Token: t.token, Initiator: side(mineVersion), Partner: side(theirs), Action: action, Reason: reason}
		if mine != nil {
			d.Key = mine.key
		} else {
			d.Key = slices.Clone(theirs.key)
		}
		s.cfg.Found(d)
	}
	if s.cfg.DryRun {
		return
	}
	if action == Push || action == Exchange {
		s.pushes = append(s.pushes, transfer{tokenRef{t.shard, t.token, []uint64{mine.sum()}}, mine.bytes})
	}
	if action == Pull || action == Exchange {
		s.pulls = append(s.pulls, transfer{tokenRef{t.shard, t.token, []uint64{theirs.sum}}, len(theirs.key) + theirs.valueBytes + 32})
	}
}

func side(v *keyVersion) *Side {
	if v == nil {
		return nil
	}
	return &Side{v.version, v.valueBytes}
}

// checkPulled makes sure that the partner sent what was asked for, by digest and
// place.
func (s *Initiator) checkPulled(t tokenRef, entries []lww.Entry) error {
	if len(entries) != len(t.sums) {
		return fmt.Errorf("%w: %d entries for %d asked for", errWire, len(entries), len(t.sums))
	}
	for i, e := range entries {
		shard, token := s.view.Locate(e.Key)
		if shard != t.shard || token != t.token || s.view.Digest(e).Sum.Lo != t.sums[i] {
			return fmt.Errorf("%w: an entry is not the one that was asked for", errWire)
		}
	}
	return nil
}
