package antientropy

import (
	"cmp"
	"errors"
	"fmt"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

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
	compares []task    // waiting to be sent along, while a message is planned
	mine     []mineRow // under the name that is being settled
	probes   []*probe
	versions []versionsTask
	fetches  []fetchTask
	pushes   []pushTask
	asked    uint64 // nodes, to bound the work that a partner can cause
	askMax   uint64

	started bool
	over    bool
	waiting bool  // for an answer
	sent    *sent // from the second message on
	pulled  int   // entries handed out by Receive and not yet reported by Applied
	refused error
	err     error
}

// task is a pair of differing nodes that waits to be looked into.
type task struct {
	node         merkle.Node
	mine, theirs merkle.Syndrome
	age          int           // comparisons below the level where the descent began
	slow         bool          // names led nowhere: look at the rows
	split        bool          // the partner has more rows there than it can tell of at once
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
	late     bool   // it was written again, so it has another hash by now
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
	s := &Initiator{cfg: cfg}
	var err error
	if cfg.Now == 0 {
		s.fail(errors.New("antientropy: Config.Now is missing"))
		return s
	}
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
	if s.cfg.AsOf != 0 {
		at = min(at, s.cfg.AsOf) // what came after the moment was not compared
	}
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
		msg = s.open().append(make([]byte, 0, 96))
	default:
		s.sent = new(sent)
		if err := s.plan(); err != nil {
			return nil, s.fail(err)
		}
		if q := &s.sent.request; q.finish && (s.refused != nil || s.myCheck != s.theirCheck) {
			if len(q.push) == 0 {
				return nil, s.fail(cmp.Or(s.refused, ErrHidden))
			}
			q.finish = false // what was found is sent all the same
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
	if bits, ok := s.scope.outlineBits(); ok && m.expected > 0 && !m.textbook && s.scope.startLevel(m.expected, count) > bits {
		var err error
		if m.outline, err = s.scope.outline(bits); err != nil {
			m.outline = nil // it is read again, and told of, when something differs
		}
	}
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
	if s.scope != nil {
		s.scope.cache.release()
	}
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

// Refused tells the session, in place of Applied, that some of the entries were
// refused and the others applied. It goes on, so that one bad entry does not keep
// the replicas apart, and ends with this error, incomplete on both sides.
func (s *Initiator) Refused(entries int, err error) {
	s.refused = cmp.Or(s.refused, fmt.Errorf("could not apply entries of the partner: %w", err))
	s.report.Pulled += s.pulled - entries
	s.pulled = 0
}
