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
	// Now is the time at the initiator, as a stamp. Required.
	Now hlc.Stamp
	// AsOf is the moment that the initiator's view shows, as if nothing had been
	// written after it, and that the partner's view shall show as well. Zero means
	// that both show the present.
	AsOf hlc.Stamp
	// Settle is how old the write that one side lacks must be to be repaired.
	// Longer than a write can be on its way to a replica; zero repairs
	// everything.
	Settle time.Duration
	// Shards limits the session to some shards, ascending, none twice. Nil means
	// all.
	Shards []int
	// Expected is how many keys are expected to differ, for example as many as
	// the last time. The descent begins where that many are thinned out. Wrong by
	// a factor of three either way, it costs up to a third more bytes or one
	// more round. Zero means unknown: the partner's first answer lets the
	// initiator estimate it, which takes a round of its own.
	Expected int
	// Salt makes the session compare other fingerprints, summed anew from all
	// rows: for the session after one that ended with ErrHidden.
	Salt uint8
	// Textbook descends from the roots to single entries, sixteen children at a
	// time, without naming keys on the way: to show how a tree is compared. It
	// reads all rows.
	Textbook bool
	// MessageBytes is the size at which a message is full. An entry larger
	// than that travels alone. Zero means DefaultMessageBytes.
	MessageBytes int
	// DryRun finds the differences and repairs none.
	DryRun bool
	// Compared, if set, is called for every comparison of two nodes that the
	// initiator makes. Its partner makes others.
	Compared func(Comparison)
	// Found, if set, is called for every key that differs. The difference
	// belongs to the callee.
	Found func(Difference)
}

// Report says what a session did, as far as it has come.
type Report struct {
	Complete      bool // everything found was settled and applied on both sides
	Shards        int
	ShardsEqual   int // known at the end: without a difference
	Rounds        int // a message and its answer
	NamingRounds  int // of them, until every key that differs was known
	BytesSent     int64
	BytesReceived int64
	EntryBytes    int64 // of both, the entries themselves
	NamingBytes   int64 // both ways until every key that differs was known, without entries
	Diverged      int   // keys that differed, those in flight not counted
	Pulled        int   // entries applied here
	Pushed        int   // entries applied by the partner
	InFlight      int   // keys whose difference is younger than the settle window
	// RowsRead and Compared count the rows and the nodes that were looked at, on
	// both sides once the session is complete.
	RowsRead uint64
	Compared uint64
}

// RefusedError is the partner's refusal to begin or to go on.
type RefusedError struct{ Code, Text string }

func (e *RefusedError) Error() string { return "the partner refused: " + e.Text }

// TreeError reports a node whose digest is not that of the entries under it, or
// whose digests differ though the entries agree: the tree of one side does not
// match its rows.
type TreeError struct {
	Shard int
	Node  merkle.Node // from the root of the shard
}

func (e *TreeError) Error() string {
	return fmt.Sprintf("shard %d, node %q: digests and entries contradict each other, so one side's tree is wrong: `syntropy roots --recompute` tells which", e.Shard, e.Node)
}

// ErrHidden is the end of a session in which both sides agree on all that their
// syndromes show, and not on the hashes of all entries: two different versions
// of a key have one fingerprint, which happens once in 2^61 pairs, or a tree is
// wrong. A session with another Config.Salt finds out.
var ErrHidden = errors.New("there is a difference that the fingerprints do not show: run the session again with another salt")

// Initiator is the side of a session that asks and decides. It is not safe for
// concurrent use.
type Initiator struct {
	cfg    Config
	codec  codec
	scope  *scope
	report Report

	// What both sides' checks come to without the rows that were named. They
	// must be equal in the end.
	myCheck, theirCheck uint64
	differing           map[int]bool // shards

	// tasks is a stack: descending depth first keeps it short.
	tasks []task
	level int // what request.level will be
	// crowded: more than six keys differ under a node of that level, on average,
	// or more than two would in one of 16 nodes at least.
	crowded  bool
	compares []task // waiting to be sent along, while a message is planned
	probes   []*probe
	versions []versionsTask
	fetches  []fetchTask
	pushes   []pushTask
	asked    uint64 // nodes, to bound the work that a partner can cause
	askMax   uint64

	started bool
	over    bool
	waiting bool // for an answer
	sent    sent
	pulled  int // entries handed out by Receive and not yet reported by Applied
	err     error
}

// task is a pair of differing nodes that waits to be looked into.
type task struct {
	node         merkle.Node
	mine, theirs merkle.Syndrome
	root         bool          // of everything, sent because it might be two keys
	age          int           // comparisons below the level where the descent began
	slow         bool          // names led nowhere: look at the rows
	counted      bool          // its rows have been taken out of the checks
	known        []merkle.Node // names under it that are dealt with already
	theirRows    uint64        // in a textbook session
}

// naming is what became of the names that one node was decoded to.
type naming struct {
	task  task
	names []merkle.Node
	slow  bool
}

// probe asks the partner what it has under a name.
type probe struct {
	probeAsk
	from *naming
	mine []mineRow // under the name, if read
	read bool
	key  []byte // of the entry that is wanted again
}

// versionsTask asks for the versions under a node.
type versionsTask struct {
	versionsAsk
	task *task // the node differs for certain, unless it is nil
	from *naming
	// counted: the rows on both sides have been taken out of the checks.
	counted bool
	known   []merkle.Node // names under the node that are dealt with already
}

// fetchTask asks for entries.
type fetchTask struct {
	fetchAsk        // first: everything under the node
	key      []byte // of the one entry that is wanted, else
	bytes    int    // estimated
	any      bool   // something was sent already
}

// pushTask is an entry, or a range of them, that is to be sent.
type pushTask struct {
	node  merkle.Node
	sums  []uint64 // nil: all rows from the position on, that were not found before
	from  ring.Position
	bytes int
	entry lww.Entry // if it was kept; what was found then
}

// sent is what the outstanding message asked for, to match the answer to.
type sent struct {
	request  request
	splits   []task
	compares []task
	mine     [][]merkle.Syndrome // of the children of the nodes in compares
	lists    []task
	probes   []*probe
	versions []versionsTask
	fetches  []fetchTask
}

// NewInitiator returns the side that asks, over its view.
func NewInitiator(view View, cfg Config) *Initiator {
	if cfg.MessageBytes <= 0 {
		cfg.MessageBytes = DefaultMessageBytes
	}
	s := &Initiator{cfg: cfg, differing: make(map[int]bool)}
	var err error
	if s.scope, err = newScope(view, cfg.Shards, cfg.Salt); err != nil {
		s.fail(fmt.Errorf("antientropy: %w", err))
		return s
	}
	s.report.Shards = len(s.scope.shards)
	return s
}

// Report returns what the session has done so far.
func (s *Initiator) Report() Report {
	r := s.report
	if !r.Complete && s.scope != nil {
		r.RowsRead, r.Compared = s.scope.rowsRead, s.scope.compared
	}
	return r
}

// settled is the stamp up to which differences are repaired: of a whole
// microsecond, as the partner is told.
func (s *Initiator) settled() hlc.Stamp {
	at := s.cfg.Now.Add(-s.cfg.Settle)
	return at - hlc.Stamp(at.Logical())
}

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
		msg = s.open().append(nil)
	default:
		s.sent = sent{}
		if err := s.plan(); err != nil {
			return nil, s.fail(err)
		}
		if s.sent.request.finish && s.myCheck != s.theirCheck {
			return nil, s.fail(ErrHidden)
		}
		msg = s.codec.appendRequest(nil, s.sent.request)
	}
	s.waiting = true
	s.report.Rounds++
	s.report.BytesSent += int64(len(msg))
	return msg, nil
}

func (s *Initiator) open() openMessage {
	check, syndrome, count := s.scope.total()
	s.scope.compared++
	m := openMessage{
		protocol: protocolVersion, digestVersions: []byte{merkle.DigestVersion},
		dryRun: s.cfg.DryRun, textbook: s.cfg.Textbook,
		shards: s.scope.view.Shards(), only: s.cfg.Shards, salt: s.cfg.Salt,
		moment: s.cfg.Now, expected: uint64(max(s.cfg.Expected, 0)), nameBits: nameBitsFor(count),
		count: count, check: check, syndrome: syndrome,
	}
	if s.cfg.AsOf != 0 && s.cfg.AsOf != hlc.Max {
		m.moment, m.asOf = s.cfg.AsOf, true
	}
	m.settled = s.settled()
	view := s.scope.view
	s.codec = codec{m.nameBits, m.moment, m.textbook, func(e lww.Entry) uint32 { return uint32(view.Sum(e).Lo) }}
	s.myCheck = check
	return m
}

// fail ends the session. Whatever was complete before the error is not: the
// caller that saw the error must not find a proof in the report.
func (s *Initiator) fail(err error) error {
	if s.err == nil {
		s.err = err
	}
	s.over, s.report.Complete = true, false
	return s.err
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
}

// receiveDiffer begins the descent.
func (s *Initiator) receiveDiffer(m differMessage) ([]lww.Entry, error) {
	s.theirCheck = m.check
	_, syndrome, mine := s.scope.total()
	// Every node that is asked about has rows of its own on one side: generous,
	// but bounded by what the partner says it has.
	s.askMax = 4096 + 4*(mine+min(m.count, 1<<40))
	root := task{mine: syndrome}
	switch m.what {
	case differNamed:
		if len(m.named) == 0 {
			return nil, wireError("it names nothing")
		}
		root.slow = true // and compared by rows, should the names be refuted
		apply, err := s.receiveNames(m.named, root)
		s.named()
		return apply, err
	case differLevel:
		return nil, s.compareLevel(m.bits, m.level, nil)
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
	few := 0
	for i := range mine {
		if mine[i].Minus(theirs[i]).AtMostOne() {
			few++
		}
	}
	s.crowded = few*crowdedShare < len(mine)
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

// receiveResponse matches the answer to what was asked and puts back what was
// left unanswered.
func (s *Initiator) receiveResponse(m response) ([]lww.Entry, error) {
	q := &s.sent
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
	naming := false
	if slices.ContainsFunc(q.probes[:len(m.probes)], func(p *probe) bool { return !p.again }) || len(m.versions)+len(m.lists)+len(m.compares)+len(m.splits)+len(m.level) > 0 {
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
			return nil, s.contradiction(t.node)
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
		for _, k := range t.known {
			if child.node.Above(k) {
				child.known = append(child.known, k)
			}
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
	err = s.scope.rows(n, func(r merkle.Row) bool {
		if r.Sum != (merkle.Sum{}) {
			rows++
		}
		return true
	})
	return rows, err
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
