package antientropy

import (
	"errors"
	"fmt"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// Config configures the initiator of a session; all but Now has a usable zero.
type Config struct {
	// Now is the moment of the view, as a stamp. Required.
	Now hlc.Stamp
	// Settle is how old the write that one side lacks must be to be repaired.
	// Longer than a write can be on its way to a replica; zero repairs
	// everything.
	Settle time.Duration
	// Shards limits the session to some shards, ascending, none twice. Nil means
	// all.
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

// TreeError reports a node whose digest is not that of the entries under it, or
// whose digests differ though the entries agree: the tree of one side does not
// match its rows.
type TreeError struct {
	Shard int
	Node  merkle.Node
}

func (e *TreeError) Error() string {
	return fmt.Sprintf("shard %d, node %q: digests and entries contradict each other, so one side's tree is wrong: `syntropy roots --recompute` tells which", e.Shard, e.Node)
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
	if cfg.ListMax <= 0 {
		cfg.ListMax = 16
	}
	cfg.ListMax = min(cfg.ListMax, maxListed)
	if cfg.MessageBytes <= 0 {
		cfg.MessageBytes = DefaultMessageBytes
	}
	s := &Initiator{view: view, cfg: cfg, shards: cfg.Shards}
	if s.shards == nil {
		s.shards = allShards(view)
	}
	if err := checkShards(s.shards, view.Shards()); err != nil {
		s.fail(fmt.Errorf("antientropy: %w", err))
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

// fail ends the session. Whatever was complete before the error is not: the
// caller that saw the error must not find a proof in the report.
func (s *Initiator) fail(err error) error {
	if s.err == nil {
		s.err = err
	}
	s.over, s.report.Complete = true, false
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
	for len(s.pushes) > 0 && s.sent.pushed < maxPushed && (room > 0 || s.sent.pushed == 0) {
		p := s.pushes[0]
		entries, err := pick(s.view, p.tokenRef)
		if err != nil {
			return req, err
		}
		if len(entries) != len(p.sums) {
			return req, fmt.Errorf("shard %d, token %v: the view changed during the session", p.shard, p.token)
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
	return s.compareChildren(t, [merkle.Fanout]merkle.Digest{})
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
		if r.err != nil {
			return nil, r.err
		}
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
		if err := s.compareChildren(sent.expand[i], theirs); err != nil {
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
