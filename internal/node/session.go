package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/storage"
)

const (
	// maxPartnerSessions bounds the sessions that a node takes part in at the
	// request of others. Each holds a snapshot, which keeps disk space busy,
	// and reads rows that clients want read too.
	maxPartnerSessions = 4
	// sessionIdle ends a session whose initiator has fallen silent.
	sessionIdle = time.Minute
	// sessionAge ends a session however busy it is: its snapshot keeps every
	// row that it shows on disk.
	sessionAge = 30 * time.Minute
)

// codeUnknownSession refuses a message of a session that this node has no part in,
// or not any more.
const codeUnknownSession = "unknown"

// codeQuarantined refuses a session about a shard that this node cannot tell the truth
// about. The initiator asks which those are, and leaves them out.
const codeQuarantined = "quarantined"

// sessionTable holds the sessions in which this node is the partner.
type sessionTable struct {
	store *storage.Store
	aside func() []int // shards that take part in no session

	unreadable func(shard int) // is told of shards with rows that cannot be read

	mu       sync.Mutex
	sessions map[sessionKey]*partnerSession
}

type sessionKey struct {
	from hlc.NodeID
	id   uint64
}

// partnerSession is one of them. mu serialises its messages.
type partnerSession struct {
	mu        sync.Mutex
	view      *storage.Snapshot // nil until the first message tells as of when
	aside     []int             // shards that the session must not be about
	touched   bool              // but is
	asOf      hlc.Stamp         // the moment that the initiator compares
	responder *antientropy.Responder
	read      uint64 // rows that are counted already
	opened    time.Time
	used      atomic.Int64 // when the last message came, since opened
	closed    bool
}

func newSessionTable(store *storage.Store, aside func() []int, unreadable func(shard int)) *sessionTable {
	return &sessionTable{store: store, aside: aside, unreadable: unreadable, sessions: make(map[sessionKey]*partnerSession)}
}

// get returns a session, opening it if asked to; nil if there is none or no
// room for one more.
func (t *sessionTable) get(key sessionKey, open bool) (s *partnerSession, busy bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s = t.sessions[key]
	if s != nil || !open {
		return s, false
	}
	if len(t.sessions) >= maxPartnerSessions {
		return nil, true
	}
	s = &partnerSession{opened: time.Now()}
	s.responder = antientropy.NewResponder(func(asOf hlc.Stamp) (antientropy.View, error) {
		s.view, s.asOf, s.aside = t.store.SnapshotAsOf(asOf), asOf, t.aside()
		return sessionView{s.view, func(shard int) { s.touched = s.touched || slices.Contains(s.aside, shard) }, t.unreadable}, nil
	})
	t.sessions[key] = s
	return s, false
}

// end forgets a session and releases its view once no message is being served.
func (t *sessionTable) end(key sessionKey) {
	t.mu.Lock()
	s := t.sessions[key]
	delete(t.sessions, key)
	t.mu.Unlock()
	if s != nil {
		s.close()
	}
}

// sessionView is the view of a session that tells which shards the session is about,
// and of which rows cannot be read.
type sessionView struct {
	*storage.Snapshot
	asked, unreadable func(shard int)
}

// Root implements antientropy.View. A session begins with the roots of its shards.
func (v sessionView) Root(shard int) merkle.Digest {
	if v.asked != nil {
		v.asked(shard)
	}
	return v.Snapshot.Root(shard)
}

// Rows implements antientropy.View.
func (v sessionView) Rows(n merkle.Node, visit func(*merkle.Row) bool) error {
	err := v.Snapshot.Rows(n, visit)
	if err != nil {
		v.unreadable(n.First().Shard(v.Shards()))
	}
	return err
}

func (s *partnerSession) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.view != nil {
		s.view.Close()
	}
	s.closed = true
}

func (t *sessionTable) endIf(condition func(sessionKey, *partnerSession) bool) {
	t.mu.Lock()
	var ended []sessionKey
	for key, s := range t.sessions {
		if condition(key, s) {
			ended = append(ended, key)
		}
	}
	t.mu.Unlock()
	for _, key := range ended {
		t.end(key)
	}
}

// drop ends the sessions of a peer whose link closed: their initiator cannot go
// on with them.
func (t *sessionTable) drop(from hlc.NodeID) {
	t.endIf(func(key sessionKey, _ *partnerSession) bool { return key.from == from })
}

func (t *sessionTable) closeAll() {
	t.endIf(func(sessionKey, *partnerSession) bool { return true })
}

// expire ends sessions that are idle or too old, until ctx ends.
func (t *sessionTable) expire(ctx context.Context) {
	tick := time.NewTicker(sessionIdle / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.expireAt(time.Now())
	}
}

func (t *sessionTable) expireAt(now time.Time) {
	t.endIf(func(_ sessionKey, s *partnerSession) bool {
		age := now.Sub(s.opened)
		return age-time.Duration(s.used.Load()) > sessionIdle || age > sessionAge
	})
}

// handleSession answers one message of a session. What goes wrong is answered
// within the session's own protocol.
func (r *replica) handleSession(from hlc.NodeID, req *peerpb.Session) *peerpb.Message {
	key := sessionKey{from, req.Id}
	if req.Cancel {
		r.sessions.end(key)
		return sessionReply(nil)
	}
	s, busy := r.sessions.get(key, req.Open)
	switch {
	case busy:
		return sessionReply(antientropy.Refuse("busy", "it takes part in as many sessions as it can; try again later"))
	case s == nil:
		return sessionReply(antientropy.Refuse(codeUnknownSession, "the session is unknown here: the partner restarted, or the session was idle for too long; begin a new one"))
	}
	reply, done := r.step(s, from, req.Payload)
	if done {
		r.sessions.end(key)
	}
	return sessionReply(reply)
}

func (r *replica) step(s *partnerSession, from hlc.NodeID, msg []byte) (reply []byte, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return antientropy.Refuse(codeUnknownSession, "the session has just ended"), true
	}
	s.used.Store(int64(time.Since(s.opened)))
	entries, err := s.responder.Receive(msg)
	if s.touched {
		return antientropy.Refuse(codeQuarantined, "a shard of the session is in quarantine here"), true
	}
	if wrong := (*antientropy.TreeError)(nil); errors.As(err, &wrong) {
		r.scrubber.doubt(wrong.Shard, true)
	}
	if err != nil {
		r.log.Warn("a session failed", "initiator", from.String(), "error", err)
	}
	var applied error
	if len(entries) > 0 {
		applied = r.applyRepaired(entries)
	}
	reply = s.responder.Reply(applied)
	r.counters.rowsRead.Add(int64(s.responder.RowsRead() - s.read))
	s.read = s.responder.RowsRead()
	if s.responder.Complete() && s.responder.Shards() == len(r.layout().shared[from]) {
		// The initiator has left alone what was younger than that.
		r.proven(from, s.responder.Settled().Time())
	}
	return reply, s.responder.Done()
}

// refusedError is the outcome of entries that a session brought and this node did
// not take. The others are applied.
type refusedError struct {
	count int
	err   error // of the last one
}

func (e *refusedError) Error() string { return e.err.Error() }

// applyRepaired applies entries that a session brought. One that is refused keeps
// the session from completing, but not the others from being applied: a single
// entry from the future must not keep two replicas apart.
func (r *replica) applyRepaired(entries []lww.Entry) error {
	refused := new(refusedError)
	l := r.layout()
	good := entries[:0:0]
	for _, e := range entries {
		if shard, _ := r.store.Locate(e.Key); !l.table.Holds(r.self, shard) {
			refused.err = fmt.Errorf("key %q: %v holds no replica of shard %d", e.Key, r.self, shard)
			continue
		}
		if err := r.clock.Observe(e.Newest()); err != nil {
			refused.err = fmt.Errorf("key %q: %w", e.Key, err)
			continue
		}
		good = append(good, e)
	}
	if err := r.room.take(entriesBytes(good), time.Now()); err != nil {
		return err
	}
	if _, err := r.store.Apply(good); err != nil {
		return err
	}
	if refused.count = len(entries) - len(good); refused.count > 0 {
		return refused
	}
	return nil
}

func sessionReply(payload []byte) *peerpb.Message {
	return &peerpb.Message{Body: &peerpb.Message_SessionReply{SessionReply: &peerpb.SessionReply{Payload: payload}}}
}
