package antientropy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Config configures the initiator of a session; all but Now has a usable zero.
type Config struct {
	// Now is the moment of the view, as a stamp. Required.
	Now hlc.Stamp
	// Settle is how old a difference must be to be repaired. Longer than a
	// write can be on its way to a replica; zero repairs everything.
	Settle time.Duration
	// Shards limits the session to some shards, ascending. Nil means all.
	Shards []int
	// ListMax is the greatest number of entries under a differing node that
	// are listed rather than split further. An entry in a list costs 16 bytes
	// and a child up to 18, so listing is cheaper below some 16 entries and
	// saves rounds. Zero means 16; 1 descends to single entries, as a textbook
	// would. At most 4096.
	ListMax int
	// MessageBytes is the size at which a message is full. An entry larger
	// than that travels alone. Zero means DefaultMessageBytes.
	MessageBytes int
	// DryRun finds the differences and repairs none.
	DryRun bool
	// Compared, if set, is called for every comparison of two nodes.
	Compared func(Comparison)
	// Found, if set, is called for every key that differs. The difference
	// belongs to the callee.
	Found func(Difference)
}

// Report says what a session did, as far as it has come.
type Report struct {
	Complete      bool // everything found was settled and applied on both sides
	Shards        int
	ShardsEqual   int // at the first comparison
	Rounds        int // a message and its answer
	BytesSent     int64
	BytesReceived int64
	Diverged      int // keys that differed, those in flight not counted
	Pulled        int // entries applied here
	Pushed        int // entries applied by the partner
	InFlight      int // keys whose difference is younger than the settle window
}

// RefusedError is the partner's refusal to begin or to go on.
type RefusedError struct{ Code, Text string }

func (e *RefusedError) Error() string { return "the partner refused: " + e.Text }

// TreeError reports a node whose digests differ though the entries under it are
// the same on both sides: the tree of one side does not match its rows.
type TreeError struct {
	Shard int
	Node  merkle.Node
}

func (e *TreeError) Error() string {
	return fmt.Sprintf("shard %d, node %q: the digests differ but the entries agree, so one side's tree is wrong: `syntropy roots --recompute` tells which", e.Shard, e.Node)
}

// task is a pair of differing nodes that waits to be looked into.
type task struct {
	nodeRef
	mine, theirs merkle.Digest
}

// transfer is an entry that waits to travel.
type transfer struct {
	tokenRef
	bytes int
}

// Initiator is the side of a session that asks and decides. It is not safe for
// concurrent use.
type Initiator struct {
	view   View
	cfg    Config
	shards []int
	report Report

	// tasks is a stack: descending depth first keeps it short, at most 15 nodes
	// a level for each node in a message.
	tasks    []task
	versions []tokenRef
	pulls    []transfer
	pushes   []transfer

	started bool
	over    bool
	sent    sentRequest
	waiting bool // for an answer
	pulled  int  // entries handed out by Receive and not yet reported by Applied
	err     error
}

// sentRequest is what the outstanding message asked for, to match the answer to.
type sentRequest struct {
	kind     byte
	expand   []task
	list     []task
	versions []tokenRef
	pull     []transfer
	pushed   int
}

// NewInitiator returns the side that asks, over its view.
func NewInitiator(view View, cfg Config) *Initiator {
	if cfg.ListMax == 0 {
		cfg.ListMax = 16
	}
	cfg.ListMax = min(cfg.ListMax, maxListed)
	if cfg.MessageBytes == 0 {
		cfg.MessageBytes = DefaultMessageBytes
	}
	s := &Initiator{view: view, cfg: cfg, shards: cfg.Shards}
	if s.shards == nil {
		s.shards = allShards(view)
	}
	s.report.Shards = len(s.shards)
	return s
}

// Report returns what the session has done so far.
func (s *Initiator) Report() Report { return s.report }

// settled is the stamp up to which differences are repaired.
func (s *Initiator) settled() hlc.Stamp { return s.cfg.Now.Add(-s.cfg.Settle) }

// Next returns the next message for the partner, and nil when the session is
// over: Report says whether it is complete. The answer goes to Receive.
func (s *Initiator) Next() (msg []byte, err error) {
	switch {
	case s.err != nil:
		return nil, s.err
	case s.waiting || s.pulled > 0:
		return nil, s.fail(errors.New("antientropy: Next was called before Receive or Applied"))
	case s.over:
		return nil, nil
	case !s.started:
		s.started = true
		s.sent = sentRequest{kind: kindOpen}
		msg = openMessage{
			protocol: protocolVersion, digestVersion: merkle.DigestVersion, dryRun: s.cfg.DryRun,
			shards: s.view.Shards(), only: s.cfg.Shards, digest: allDigest(s.view, s.shards),
		}.append(nil)
	default:
		req, err := s.plan()
		if err != nil {
			return nil, s.fail(err)
		}
		if s.sent.empty() {
			s.sent = sentRequest{kind: kindFinish}
			msg = []byte{kindFinish}
		} else {
			msg = req.append(nil)
		}
	}
	s.waiting = true
	s.report.Rounds++
	s.report.BytesSent += int64(len(msg))
	return msg, nil
}

func (s sentRequest) empty() bool {
	return len(s.expand)+len(s.list)+len(s.versions)+len(s.pull)+s.pushed == 0
}

func (s *Initiator) fail(err error) error {
	if s.err == nil {
		s.err = err
		s.over = true
	}
	return s.err
}

// maxPending stops the descent while this many entries wait to travel, so that
// memory stays bounded however much differs.
const maxPending = 4 * maxItems

// plan takes as much work from the queues as one message holds: transfers
// first, so that the queues drain before the descent fills them again.
func (s *Initiator) plan() (request, error) {
	var req request
	s.sent = sentRequest{kind: kindRequest}
	if err := s.planDescent(&req); err != nil {
		return req, err
	}
	room := s.cfg.MessageBytes
	for len(s.pushes) > 0 && (room > 0 || s.sent.pushed == 0) {
		p := s.pushes[0]
		entries, err := pick(s.view, p.tokenRef)
		if err != nil {
			return req, err
		}
		if room -= p.bytes; room < 0 && s.sent.pushed > 0 {
			break
		}
		req.push = append(req.push, entries...)
		s.sent.pushed += len(entries)
		s.pushes = s.pushes[1:]
	}
	room = s.cfg.MessageBytes
	for len(s.pulls) > 0 && len(req.pull) < maxItems && (room > 0 || len(req.pull) == 0) {
		p := s.pulls[0]
		room -= p.bytes
		req.pull = append(req.pull, p.tokenRef)
		s.sent.pull = append(s.sent.pull, p)
		s.pulls = s.pulls[1:]
	}
	n := min(len(s.versions), maxItems)
	req.versions = s.versions[:n:n]
	s.sent.versions, s.versions = req.versions, s.versions[n:]
	return req, nil
}

func (s *Initiator) planDescent(req *request) error {
	for len(s.tasks) > 0 && len(req.expand) < maxItems && len(req.list) < maxItems &&
		len(s.pushes)+len(s.pulls)+len(s.versions) < maxPending {
		t := s.tasks[len(s.tasks)-1]
		s.tasks = s.tasks[:len(s.tasks)-1]
		switch {
		case t.theirs == merkle.Digest{}:
			if err := s.onlyMine(t); err != nil {
				return err
			}
		case s.listed(t):
			req.list = append(req.list, t.nodeRef)
			s.sent.list = append(s.sent.list, t)
		default:
			req.expand = append(req.expand, t.nodeRef)
			s.sent.expand = append(s.sent.expand, t)
		}
	}
	return nil
}

// listed reports whether a node is listed rather than split.
func (s *Initiator) listed(t task) bool {
	return max(t.mine.Count, t.theirs.Count) <= uint64(s.cfg.ListMax) || int(t.node.Level) == merkle.MaxLevel
}

// onlyMine deals with a node under which the partner holds nothing: there is
// nothing to ask, every entry is pushed.
func (s *Initiator) onlyMine(t task) error {
	if s.listed(t) {
		return s.compareLists(t, nil)
	}
	children, err := s.view.Children(t.shard, t.node)
	if err != nil {
		return err
	}
	s.compareChildren(t, children, [merkle.Fanout]merkle.Digest{})
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

func (s *Initiator) compareChildren(t task, mine, theirs [merkle.Fanout]merkle.Digest) {
	for i := range mine {
		if mine[i] != theirs[i] || mine[i].Count > 0 {
			s.compare(nodeRef{t.shard, t.node.Child(i)}, mine[i], theirs[i])
		}
	}
}

// Receive takes the partner's answer. The caller applies the returned entries,
// durably, and calls Applied, before it asks for the next message. The entries
// point into reply.
func (s *Initiator) Receive(reply []byte) (apply []lww.Entry, err error) {
	if s.err != nil {
		return nil, s.err
	}
	if !s.waiting {
		return nil, s.fail(errors.New("antientropy: Receive was called before Next"))
	}
	s.waiting = false
	s.report.BytesReceived += int64(len(reply))
	apply, err = s.receive(reply)
	if err != nil {
		return nil, s.fail(err)
	}
	s.pulled = len(apply)
	return apply, nil
}

// Applied tells the session what became of the entries that Receive returned.
// An error ends the session, incomplete.
func (s *Initiator) Applied(err error) {
	if err != nil {
		s.fail(fmt.Errorf("could not apply entries of the partner: %w", err))
		return
	}
	s.report.Pulled += s.pulled
	s.pulled = 0
}

func (s *Initiator) receive(reply []byte) ([]lww.Entry, error) {
	if len(reply) == 0 {
		return nil, fmt.Errorf("%w: it is empty", errWire)
	}
	r := &reader{b: reply[1:]}
	switch kind := reply[0]; {
	case kind == kindRefusal:
		m := readRefusal(r)
		return nil, &RefusedError{m.code, m.text}
	case kind == kindEqual && s.sent.kind == kindOpen:
		s.report.ShardsEqual = len(s.shards)
		s.complete()
		return nil, r.end()
	case kind == kindRoots && s.sent.kind == kindOpen:
		return nil, s.receiveRoots(r)
	case kind == kindResponse && s.sent.kind == kindRequest:
		m := readResponse(r)
		if r.err != nil {
			return nil, r.err
		}
		return s.receiveResponse(m)
	case kind == kindFinished && s.sent.kind == kindFinish:
		s.complete()
		return nil, r.end()
	}
	return nil, errOutOfTurn
}

func (s *Initiator) complete() {
	s.over = true
	s.report.Complete = !s.cfg.DryRun
}

func (s *Initiator) receiveRoots(r *reader) error {
	roots := readList(r, (*reader).digest)
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

// receiveResponse matches the answer to what was asked and puts back what was
// left unanswered.
func (s *Initiator) receiveResponse(m response) ([]lww.Entry, error) {
	sent := s.sent
	if len(m.expanded) > len(sent.expand) || len(m.listed) > len(sent.list) ||
		len(m.versions) > len(sent.versions) || len(m.pulled) > len(sent.pull) {
		return nil, fmt.Errorf("%w: more answers than questions", errWire)
	}
	if len(m.expanded)+len(m.listed)+len(m.versions)+len(m.pulled)+sent.pushed == 0 {
		return nil, fmt.Errorf("%w: it answers nothing", errWire)
	}
	if m.applied != sent.pushed {
		return nil, fmt.Errorf("the partner applied %d of %d entries", m.applied, sent.pushed)
	}
	s.report.Pushed += sent.pushed
	s.tasks = append(s.tasks, sent.expand[len(m.expanded):]...)
	s.tasks = append(s.tasks, sent.list[len(m.listed):]...)
	s.versions = append(s.versions, sent.versions[len(m.versions):]...)
	s.pulls = append(s.pulls, sent.pull[len(m.pulled):]...)

	for i, theirs := range m.expanded {
		if err := s.receiveChildren(sent.expand[i], theirs); err != nil {
			return nil, err
		}
	}
	for i, items := range m.listed {
		if err := s.compareLists(sent.list[i], items); err != nil {
			return nil, err
		}
	}
	for i, versions := range m.versions {
		if err := s.compareVersions(sent.versions[i], versions); err != nil {
			return nil, err
		}
	}
	var apply []lww.Entry
	for i, entries := range m.pulled {
		if err := s.checkPulled(sent.pull[i].tokenRef, entries); err != nil {
			return nil, err
		}
		apply = append(apply, entries...)
	}
	return apply, nil
}

// receiveChildren compares the children of a node. They must add up to the
// parent that the partner sent before: a partner that contradicts itself could
// otherwise keep a session busy for ever.
func (s *Initiator) receiveChildren(t task, theirs [merkle.Fanout]merkle.Digest) error {
	var sum merkle.Digest
	for _, d := range theirs {
		if sum.Count+d.Count < sum.Count {
			return fmt.Errorf("%w: the counts under node %q overflow", errWire, t.node)
		}
		sum = sum.Plus(d)
	}
	if sum != t.theirs {
		return &TreeError{t.shard, t.node}
	}
	mine, err := s.view.Children(t.shard, t.node)
	if err != nil {
		return err
	}
	sum = merkle.Digest{}
	for _, d := range mine {
		sum = sum.Plus(d)
	}
	if sum != t.mine {
		return &TreeError{t.shard, t.node}
	}
	s.compareChildren(t, mine, theirs)
	return nil
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
	for _, th := range theirs {
		if shard, token := s.view.Locate(th.key); shard != t.shard || token != t.token {
			return fmt.Errorf("%w: a key is not under the token it was sent for", errWire)
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

// checkPulled makes sure that the partner sent what was asked for, by digest.
func (s *Initiator) checkPulled(t tokenRef, entries []lww.Entry) error {
	if len(entries) != len(t.sums) {
		return fmt.Errorf("%w: %d entries for %d asked for", errWire, len(entries), len(t.sums))
	}
	for i, e := range entries {
		if s.view.Digest(e).Sum.Lo != t.sums[i] {
			return fmt.Errorf("%w: an entry does not have the digest it was asked for by", errWire)
		}
	}
	return nil
}
