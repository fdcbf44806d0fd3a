package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
	"syntropy/storage"
)

// Bounds of what is on its way to one peer and unanswered. A peer that is so far
// behind gets hints instead: a slow peer must not fill the memory of the others. The
// requests are some times what one link works on at once; each costs a goroutine.
const (
	backlogBytesMax    = 64 << 20
	backlogRequestsMax = 2048
)

// hintsBehindMax bounds the deliveries and hints that a node works on before
// clients wait for theirs to be stored: each holds its entries in memory.
const hintsBehindMax = 4096

var errBacklog = errors.New("the peer is too far behind with its answers")

// Write stamps the mutations, sends them to the replicas of their keys and returns
// when as many replicas as the level demands hold each of them durably. The
// others get it too, now or by a hint. It takes the mutations over.
//
// An error means that the outcome is unknown, unless it says that nothing was
// written.
func (n *Node) Write(ctx context.Context, level coordinator.Level, ms []coordinator.Mutation) error {
	r, err := n.coordinating()
	if err != nil {
		return err
	}
	defer n.leave()
	ctx, cancel := context.WithTimeout(ctx, r.settings.RequestDeadline)
	defer cancel()
	if len(ms) == 1 && ms[0].Kind != coordinator.Touch {
		return r.writeOne(ctx, r.writeLevel(level), &ms[0])
	}
	_, err = r.writeAll(ctx, r.writeLevel(level), ms)
	return err
}

// coordinating is enter for requests that write.
func (n *Node) coordinating() (*replica, error) {
	r, err := n.enter()
	if err != nil {
		return nil, err
	}
	err = r.mayCoordinate()
	if err == nil {
		err = r.fenced()
	}
	if err != nil {
		n.leave()
		return nil, err
	}
	return r, nil
}

func (r *replica) writeLevel(level coordinator.Level) coordinator.Level {
	if level == coordinator.Default {
		return r.node.opts.WriteConsistency
	}
	return level
}

// writeOne writes one key, together with others of that key that wait.
func (r *replica) writeOne(ctx context.Context, level coordinator.Level, m *coordinator.Mutation) error {
	// What joins must be good: its error would be that of all.
	e := lww.Entry{Key: m.Key, Value: m.Value, Version: lww.Version{Stamp: 1, Node: r.self, Tombstone: m.Kind == coordinator.Delete}}
	if err := e.Validate(); err != nil {
		return &Error{CodeInvalid, "nothing was written: " + err.Error()}
	}
	t, joined := r.gate.enter(m.Key, level, m)
	if !joined {
		select {
		case <-t.ready:
			return r.takeTurn(ctx, t, m.Key)
		default: // not by this goroutine: its client may go, and others have joined
			r.node.requests.Go(func() {
				<-t.ready
				ctx, cancel := context.WithTimeout(context.Background(), r.settings.RequestDeadline)
				defer cancel()
				_ = r.takeTurn(ctx, t, m.Key)
			})
		}
	}
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
		return &Error{CodeTimeout, "the outcome of the write is unknown: other writes of this key are not over: " + context.Cause(ctx).Error()}
	}
}

// takeTurn writes what has joined a turn that has come to the front.
func (r *replica) takeTurn(ctx context.Context, t *turn, key []byte) error {
	_, err := r.write(ctx, t.level, []coordinator.Mutation{r.gate.begin(t)})
	r.gate.leave(key, t, err)
	return err
}

// writeAll writes several keys, or changes an expiry.
func (r *replica) writeAll(ctx context.Context, level coordinator.Level, ms []coordinator.Mutation) ([]coordinator.Result, error) {
	leave, err := r.gate.pass(ctx, level, ms)
	if err != nil {
		return nil, err
	}
	defer leave()
	return r.write(ctx, level, ms)
}

// write carries out a request whose keys nobody else here is writing.
func (r *replica) write(client context.Context, level coordinator.Level, ms []coordinator.Mutation) ([]coordinator.Result, error) {
	if err := r.room.stuck(); err != nil {
		return nil, err
	}
	if err := r.clock.ready(client); err != nil {
		return nil, err
	}
	w, err := coordinator.NewWrite(r.placement(r.writable), r.clock, level, ms)
	if unavailable := (*coordinator.UnavailableError)(nil); errors.As(err, &unavailable) {
		return nil, r.unwritable(err, unavailable)
	}
	if err != nil {
		return nil, coordinated(err)
	}
	// A write that was stamped is carried through even if the client has gone: half
	// of it is on its way already.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(client), r.settings.RequestDeadline)
	run := &writeRun{r: r, write: w, cancel: cancel, decided: make(chan struct{})}
	run.mu.Lock()
	run.advance(ctx)
	run.mu.Unlock()
	select {
	case <-run.decided:
	case <-client.Done():
		if context.Cause(client) != context.DeadlineExceeded {
			return nil, &Error{CodeTimeout, "the outcome of the write is unknown: the client did not wait for it"}
		}
		run.mu.Lock()
		run.late = true
		w.Expire() // a disk may take longer than any deadline
		run.advance(ctx)
		run.mu.Unlock()
		<-run.decided
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.err != nil {
		return nil, r.unwritten(run.err)
	}
	return w.Results(), nil
}

// writeRun carries out what a coordinator.Write decides. Its goroutines count as
// part of the request, so that a node that stops waits for them.
type writeRun struct {
	r      *replica
	cancel context.CancelFunc

	mu      sync.Mutex
	write   *coordinator.Write
	keeping int  // hints being stored that the client waits for
	late    bool // the deadline has passed: the client waits for nothing more
	told    bool // decided is closed
	decided chan struct{}
	err     error
}

// advance starts what is due. The caller holds run.mu, within a request that has
// entered the node.
func (run *writeRun) advance(ctx context.Context) {
	for {
		sends := run.write.Sends()
		if len(sends) == 0 {
			break
		}
		for _, s := range sends {
			p, size, err := run.r.reserve(s)
			if err != nil {
				run.write.Failed(s, err)
				continue
			}
			run.r.counters.delivering.Add(1)
			run.r.node.requests.Go(func() { run.deliver(ctx, s, p, size) })
		}
	}
	for _, s := range run.write.Hints() {
		// OK does not promise that the hint is on disk: it would cost another
		// flush. But who writes faster than hints can be stored waits for them.
		behind := run.r.counters.delivering.Add(1) > hintsBehindMax && !run.told
		if behind {
			run.keeping++
		}
		run.r.node.requests.Go(func() {
			run.r.keepHint(s)
			run.r.counters.delivering.Add(-1)
			if behind {
				run.mu.Lock()
				run.keeping--
				run.tell()
				run.mu.Unlock()
			}
		})
	}
	run.tell()
	if run.write.Finished() {
		run.cancel()
	}
}

// tell lets the client go once its answer is final. The caller holds run.mu.
func (run *writeRun) tell() {
	done, err := run.write.Done()
	if done && !run.told && (err != nil || run.late || run.keeping == 0) {
		run.told, run.err = true, err
		close(run.decided)
	}
}

// deliver sends entries to one replica and reports what came of it.
func (run *writeRun) deliver(ctx context.Context, s coordinator.Send, p *peer, size int64) {
	answers, err := run.r.apply(ctx, p, s.Entries, forClient)
	if p != nil {
		p.release(size)
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	if err != nil {
		run.r.counters.failed.Add(1)
		run.write.Failed(s, err)
	} else {
		run.write.Answered(s, answers)
	}
	run.advance(ctx)
	run.r.counters.delivering.Add(-1)
}

// reserve takes room for a send to a peer; p is nil when it goes to this node.
func (r *replica) reserve(s coordinator.Send) (p *peer, size int64, err error) {
	if s.To == r.self {
		return nil, 0, nil
	}
	p = r.peer(s.To)
	for _, e := range s.Entries {
		size += int64(lww.EncodedLen(e))
	}
	return p, size, p.reserve(size)
}

// reserve counts a request to the peer, or says why there is no room for it.
func (p *peer) reserve(size int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.leaving:
		return errLeaving
	case p.backlog > 0 && p.backlog+size > backlogBytesMax, p.requests >= backlogRequestsMax:
		return errBacklog
	}
	p.backlog += size
	p.requests++
	return nil
}

func (p *peer) release(size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backlog -= size
	p.requests--
	if p.leaving && p.requests == 0 && p.drained != nil {
		close(p.drained)
		p.drained = nil
	}
}

// maxApplyBytes bounds the entries of one message between nodes; a larger entry
// travels alone.
const maxApplyBytes = 1 << 20

// Why entries are sent: Apply.flags on the wire.
const (
	forClient     = 0 // a client's write
	forHint       = 1 // a client's write that was kept while the receiver was away
	forReadRepair = 2 // a version that another replica has had for any time
)

// apply brings entries to a replica, this one if p is nil, and returns an answer
// for each.
func (r *replica) apply(ctx context.Context, p *peer, entries []lww.Entry, why uint32) ([]coordinator.Answer, error) {
	if p == nil {
		return r.applyHere(entries, why)
	}
	messages := applyMessages(entries, why)
	if len(messages) == 1 {
		return r.sendApply(ctx, p, messages[0])
	}
	parts := make([][]coordinator.Answer, len(messages))
	errs := make([]error, len(messages))
	var sends sync.WaitGroup
	for i, m := range messages {
		sends.Go(func() { parts[i], errs[i] = r.sendApply(ctx, p, m) })
	}
	sends.Wait()
	var answers []coordinator.Answer
	for _, part := range parts {
		answers = append(answers, part...)
	}
	return answers, errors.Join(errs...)
}

// applyHere applies entries to this node's own replica. Its own stamps are good; what
// a read brings from others is looked at as if a message had brought it.
func (r *replica) applyHere(entries []lww.Entry, why uint32) ([]coordinator.Answer, error) {
	if why == forReadRepair {
		for _, e := range entries {
			if err := r.clock.Observe(e.Newest()); err != nil {
				return nil, fmt.Errorf("key %q: %w", e.Key, err)
			}
		}
	}
	if err := r.room.take(entriesBytes(entries), time.Now()); err != nil {
		return nil, err
	}
	results, err := r.store.Apply(entries)
	if err != nil {
		return nil, err
	}
	answers := make([]coordinator.Answer, len(results))
	for i, res := range results {
		if res.Outcome == storage.Shadowed {
			answers[i] = coordinator.Answer{Outcome: coordinator.Shadowed, Version: res.Version}
		}
	}
	return answers, nil
}

func applyMessages(entries []lww.Entry, why uint32) []*peerpb.Message {
	var messages []*peerpb.Message
	var apply *peerpb.Apply
	size := 0
	for _, e := range entries {
		raw := lww.AppendEntry(make([]byte, 0, lww.EncodedLen(e)), e)
		if apply == nil || size+len(raw) > maxApplyBytes {
			apply, size = &peerpb.Apply{Flags: why}, 0
			messages = append(messages, &peerpb.Message{Body: &peerpb.Message_Apply{Apply: apply}})
		}
		apply.Entries = append(apply.Entries, raw)
		size += len(raw)
	}
	return messages
}

// sendApply sends one message to one peer.
func (r *replica) sendApply(ctx context.Context, p *peer, m *peerpb.Message) ([]coordinator.Answer, error) {
	reply, err := p.link.Call(ctx, m)
	if err != nil {
		r.log.Debug("a peer missed writes", "peer", p.id.String(), "count", len(m.GetApply().Entries), "error", err)
		return nil, err
	}
	answers := make([]coordinator.Answer, len(m.GetApply().Entries)) // applied, unless it says otherwise
	body := reply.GetApplyReply()
	if body == nil || int(body.Applied)+len(body.Shadowed)+len(body.Rejected) != len(answers) {
		return nil, errMalformedAnswer
	}
	for _, s := range body.Shadowed {
		e, err := lww.DecodeRow([]byte{0}, s.Version) // it comes without its key
		if err != nil || int(s.Index) >= len(answers) {
			return nil, errMalformedAnswer
		}
		answers[s.Index] = coordinator.Answer{Outcome: coordinator.Shadowed, Version: e.Version}
	}
	for _, rej := range body.Rejected {
		if int(rej.Index) >= len(answers) {
			return nil, errMalformedAnswer
		}
		answers[rej.Index] = coordinator.Answer{Outcome: coordinator.Deferred, Reason: rej.Reason}
		if rej.ForGood {
			answers[rej.Index].Outcome = coordinator.Rejected
			rejected, _, err := lww.DecodeEntry(m.GetApply().Entries[rej.Index])
			if err == nil {
				p.addMissed(rejected)
			}
		}
	}
	if n := len(body.Rejected); n > 0 {
		r.log.Warn("a peer rejected writes", "peer", p.id.String(), "count", n, "reason", body.Rejected[0].Reason)
	}
	return answers, nil
}

var errMalformedAnswer = errors.New("the peer gave a malformed answer")

// placement is what the coordinator has to know of the cluster.
func (r *replica) placement(may func(*layout, hlc.NodeID) bool) coordinator.Placement {
	l := r.layout()
	return coordinator.Placement{
		Self:     r.self,
		Shard:    func(key []byte) int { shard, _ := r.store.Locate(key); return shard },
		Replicas: func(shard int) []hlc.NodeID { return l.order[shard] },
		May:      func(id hlc.NodeID) bool { return may(l, id) },
	}
}

// writable reports whether a member takes writes now.
func (r *replica) writable(l *layout, id hlc.NodeID) bool {
	if id == r.self {
		return r.mayServe(false) == nil && r.room.isFull() == nil
	}
	p := l.peers[id]
	return p.takes(StateLive, StateJoining) && !p.hasNoRoom()
}

// readable reports whether a member serves reads now.
func (r *replica) readable(l *layout, id hlc.NodeID) bool {
	if id == r.self {
		return r.mayServe(true) == nil
	}
	return l.peers[id].takes(StateLive)
}

// mayCoordinate returns why this node must not serve clients at all. A joining
// one may: it answers from the other replicas.
func (r *replica) mayCoordinate() error { return r.mayServe(false) }

// coordinated turns an error of the coordinator into one with a code.
func coordinated(err error) error {
	var (
		coded       *Error
		unavailable *coordinator.UnavailableError
		unknown     *coordinator.UnknownError
		shadowed    *coordinator.ShadowedError
		invalid     *coordinator.InvalidError
	)
	switch {
	case errors.As(err, &coded):
		return coded
	case errors.As(err, &unavailable):
		return &Error{CodeUnavailable, err.Error()}
	case errors.As(err, &unknown):
		return &Error{CodeTimeout, err.Error()}
	case errors.As(err, &shadowed):
		return &Error{CodeShadowed, err.Error()}
	case errors.As(err, &invalid):
		return &Error{CodeInvalid, "nothing was written: " + err.Error()}
	}
	return &Error{CodeFailed, err.Error()}
}

// expiryRetries bounds how often an expiry is decided anew because the key was
// written meanwhile: it may lose against a stream of writes for ever.
const expiryRetries = 16

// SetExpiry changes when a key expires, if decide says so after a look at the
// version that was read; a key that does not exist is not looked at. The value
// keeps its stamp, so a newer write or delete wins whatever the order in which they
// arrive. at is in milliseconds since 1970, zero for never.
func (n *Node) SetExpiry(ctx context.Context, read, write coordinator.Level, key []byte, decide func(lww.Entry) (at int64, ok bool)) (changed bool, err error) {
	r, err := n.coordinating()
	if err != nil {
		return false, err
	}
	defer n.leave()
	ctx, cancel := context.WithTimeout(ctx, r.settings.RequestDeadline)
	defer cancel()
	for range expiryRetries {
		found, err := n.Read(ctx, read, [][]byte{key})
		if err != nil {
			return false, err
		}
		e, ok := found[0].Entry, found[0].OK
		if !ok || !e.Live(n.wall()) {
			return false, nil
		}
		at, ok := decide(e)
		if !ok {
			return false, nil
		}
		results, err := r.writeAll(ctx, r.writeLevel(write), []coordinator.Mutation{{Kind: coordinator.Touch, Key: key, Expires: at, Base: e}})
		if err != nil || results[0] == coordinator.Written {
			return err == nil, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return false, &Error{CodeShadowed, fmt.Sprintf("key %q is written all the time: its expiry was not changed; try again", key)}
}
