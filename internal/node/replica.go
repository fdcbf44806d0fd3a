package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"syntropy/hint"
	"syntropy/hlc"
	"syntropy/internal/rpc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
)

// metaState keeps over a restart what the state of this disk is: joining, live or
// stale, and behind a newline the reason.
const metaState = "state"

// metaReplaces keeps which disk of this member this one came after.
const metaReplaces = "replaces"

// metaClean keeps whether the node was stopped in order.
const metaClean = "clean"

// replica is a node's part in its cluster: the store, the clock, the links to
// the other members, and what it may do at present.
type replica struct {
	node        *Node
	log         *slog.Logger
	record      *topology.Record
	self        hlc.NodeID
	incarnation string
	replaces    string // the disk that this one came after; empty: none
	settings    topology.Settings
	store       *storage.Store
	engine      storage.Engine
	clock       *clock
	topology    atomic.Pointer[layout]
	gate        *gate
	hints       *hint.Queue
	sessions    *sessionTable
	proofs      *proofs
	schedule    *scheduler
	repairs     operations
	audits      operations // reading all rows to recompute the roots
	room        *room
	rotten      *rotten
	scrubber    *scrubber
	counters    counters

	mu      sync.Mutex
	state   string
	reason  string // why it is not live
	absence *absence
	ticked  time.Time // by the wall: this process was running then

	isFenced atomic.Bool // its clock kept it from coordinating when that was last looked at

	saving sync.Mutex // held while the absence ledger is stored, so that none is stored late

	work sync.WaitGroup
}

func newReplica(n *Node, record *topology.Record, table *topology.Table, self hlc.NodeID, store *storage.Store, engine storage.Engine, rot *rotten, look func() (pebblestore.DiskState, error), founder bool) (*replica, error) {
	clock, err := openClock(store, record.Settings.MaxClockSkew, n.wall)
	if err != nil {
		return nil, err
	}
	r := &replica{
		node: n, log: n.log.With("node", self.String()), record: record, self: self, incarnation: n.dir.Incarnation(),
		settings: record.Settings, store: store, engine: engine, clock: clock,
	}
	r.gate, r.rotten, r.room = newGate(), rot, r.newRoom(look)
	if r.scrubber, err = openScrubber(r); err != nil {
		return nil, err
	}
	r.sessions = newSessionTable(store, func() []int { return r.scrubber.sidelined() }, func(shard int) { r.scrubber.doubt(shard, true) })
	if r.proofs, err = openProofs(store); err != nil {
		return nil, err
	}
	r.hints, err = hint.Open(engine, hint.Options{Window: r.settings.HintWindow, BytesMax: n.opts.HintBytesMax, NoSync: n.opts.SyncInterval > 0})
	if err != nil {
		return nil, err
	}
	r.topology.Store(r.newLayout(table, nil))
	clean, err := r.cleanStop()
	if err != nil {
		return nil, err
	}
	r.schedule = newScheduler(r, clean)
	if err := r.openState(founder); err != nil {
		return nil, err
	}
	stored, _, err := store.Meta(metaAbsence)
	if err != nil {
		return nil, err
	}
	r.absence, err = newAbsence(stored, r.settings.GCGrace, r.layout().others())
	if err != nil {
		return nil, err
	}
	r.checkAway()
	r.ticked = n.wall().Round(0)
	r.alive()
	return r, r.saveAbsence()
}

// checkAway keeps a node that was away for long, or cannot tell for how long,
// from serving before it has heard the others.
func (r *replica) checkAway() {
	away := r.absence.awayFor(r.node.wall())
	var why string
	switch {
	case len(r.layout().peers) == 0 || r.state != StateLive:
		return
	case away > r.settings.GCGrace:
		why = fmt.Sprintf("was away for %v, longer than gc_grace (%v)", away.Round(time.Second), r.settings.GCGrace)
	case away < -r.settings.MaxClockSkew:
		why = fmt.Sprintf("ran until a time that is still %v ahead, so its clock is wrong and it cannot tell for how long it was away", -away.Round(time.Second))
	default:
		return
	}
	r.state = StateChecking
	r.reason = "this node " + why + ": it waits for a majority of the members to tell whether they went on without it"
	r.log.Warn(r.reason)
}

// alive notes that this node is in service now. Running out of service is being
// away: then the noted time stays. The caller holds r.mu, or is alone.
func (r *replica) alive() {
	if r.state == StateLive || r.state == StateJoining {
		r.absence.alive(r.node.wall())
	}
}

// openState reads whether this replica still has to be filled. One whose disk
// was replaced must not serve reads before it was: it would answer "no such key"
// for data that it acknowledged with its old disk.
func (r *replica) openState(founder bool) error {
	raw, found, err := r.store.Meta(metaState)
	if err != nil {
		return err
	}
	r.state, r.reason, _ = strings.Cut(string(raw), "\n")
	if !found {
		r.state = StateLive
		if !founder {
			r.state = StateJoining
			r.reason = "this node started with an empty data directory and is being filled from the other members"
			if self, _ := r.layout().table.Member(r.self); self.Founder != r.incarnation {
				r.replaces = self.Founder
			}
		}
		return errors.Join(r.store.PutMeta(metaReplaces, []byte(r.replaces)), r.saveState())
	}
	replaces, _, err := r.store.Meta(metaReplaces)
	if err != nil {
		return err
	}
	r.replaces = string(replaces)
	if r.state == StateStale {
		r.log.Error(r.reason)
	}
	return nil
}

// saveState stores the state of this disk. The caller holds r.mu, or is alone.
func (r *replica) saveState() error {
	return r.store.PutMeta(metaState, []byte(r.state+"\n"+r.reason))
}

// start begins the replica's background work, which ends with ctx.
func (r *replica) start(ctx context.Context) {
	r.node.opts.Events.stateChanged(r.stateAndReason())
	r.log.Info("this node is in the cluster", "cluster", r.record.ClusterID, "members", len(r.layout().table.Members), "state", r.currentState())
	r.work.Go(func() { r.watchStore(ctx) })
	r.work.Go(func() { r.room.watch(ctx) })
	r.work.Go(func() { r.learnExpiries(ctx) })
	if r.currentState() == StateStale {
		return // it has no business with anybody
	}
	for _, p := range r.layout().peers {
		r.connect(ctx, p)
	}
	r.work.Go(func() { r.followTable(ctx) })
	r.work.Go(func() { r.keepAbsence(ctx) })
	r.work.Go(func() { r.sessions.expire(ctx) })
	r.work.Go(func() { r.expireHints(ctx) })
	r.work.Go(func() { r.schedule.run(ctx) })
	r.work.Go(func() { r.scrubber.run(ctx) })
	if r.node.opts.SyncInterval > 0 {
		r.work.Go(func() { r.keepSynced(ctx, r.node.opts.SyncInterval) })
	}
	if r.currentState() == StateJoining {
		r.work.Go(func() { r.fill(ctx) })
	}
}

func (r *replica) close() error {
	r.work.Wait()
	r.sessions.closeAll()
	r.clock.close()
	r.mu.Lock()
	r.alive()
	r.mu.Unlock()
	err := r.saveAbsence()
	if err == nil {
		err = r.store.PutMeta(metaClean, []byte{1})
	}
	return errors.Join(err, r.store.Close(), r.engine.Close())
}

// cleanStop reports whether this node was stopped in order, and notes that it runs.
// After a crash the end of the log may be missing without anybody noticing, where the
// disk lost what it had confirmed: then proofs from before it are worth little.
func (r *replica) cleanStop() (clean bool, err error) {
	flag, _, err := r.store.Meta(metaClean)
	if err == nil {
		err = r.store.PutMeta(metaClean, []byte{0})
	}
	return len(flag) == 1 && flag[0] == 1, err
}

func (r *replica) currentState() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

func (r *replica) stateAndReason() (string, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.reason
}

// mayServe returns the error for a request that this node must not serve now.
// Reads need a live node; a joining one takes writes.
func (r *replica) mayServe(read bool) error {
	state, reason := r.stateAndReason()
	switch {
	case state == StateLive && r.stoodStill() > r.settings.GCGrace:
		return &Error{CodeChecking, "this node stood still for longer than gc_grace: it first hears from the other members whether it may serve"}
	case state == StateLive, state == StateJoining && !read:
		return nil
	case state == StateJoining:
		return &Error{CodeJoining, reason + "; ask another node meanwhile"}
	case state == StateChecking:
		return &Error{CodeChecking, reason}
	}
	return &Error{CodeStale, reason}
}

// stoodStill is for how long this process has not been seen to run. A request may
// come before the first tick after it was frozen.
func (r *replica) stoodStill() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.layout().peers) == 0 {
		return 0
	}
	return r.node.wall().Round(0).Sub(r.ticked)
}

// ---- contact with the other members

func (r *replica) hello(to hlc.NodeID) *peerpb.Hello {
	state := r.currentState()
	return &peerpb.Hello{
		Protocol: rpc.Protocol, ClusterId: r.record.ClusterID, RecordFingerprint: r.record.Fingerprint(),
		Node: uint32(r.self), ToNode: uint32(to), Incarnation: r.incarnation, State: state,
		WallUs: r.node.wall().UnixMicro(), Addr: r.node.opts.PeerAddr, Replaces: r.replaces,
	}
}

// introduction is what both sides of a link say of themselves.
type introduction interface {
	GetIncarnation() string
	GetState() string
	GetReplaces() string
}

// acceptHello answers a member that opens a link, or refuses it.
func (r *replica) acceptHello(h *peerpb.Hello) (*peerpb.HelloAck, error) {
	refuse := func(code, format string, args ...any) error {
		return &rpc.Refusal{Code: code, Text: fmt.Sprintf(format, args...)}
	}
	from := hlc.NodeID(h.GetNode())
	p := r.peer(from)
	switch {
	case h.GetProtocol() != rpc.Protocol:
		return nil, refuse(rpc.CodeProtocol, "%v speaks version %d of the peer protocol, this node %d: upgrade the older one", from, h.GetProtocol(), rpc.Protocol)
	case h.GetClusterId() != r.record.ClusterID:
		return nil, refuse(rpc.CodeForeignCluster, "%s belongs to cluster %.8s, this node to cluster %.8s: one of them has the wrong data directory or a wrong --join", h.GetAddr(), h.GetClusterId(), r.record.ClusterID)
	case h.GetRecordFingerprint() != r.record.Fingerprint():
		return nil, refuse(rpc.CodeSettings, "%v has another cluster record than this node: restore the cluster.json of one of them", from)
	case from == r.self:
		return nil, refuse(rpc.CodeUnknownNode, "%v is not another member of this cluster", from)
	case p == nil: // it knows the secret, so it was made a member, or will be
		return nil, refuse(rpc.CodeUndecided, "%v is not known here as a member yet: version %d of the topology does not name it", from, r.layout().table.Version)
	case hlc.NodeID(h.GetToNode()) != r.self:
		return nil, refuse(rpc.CodeUnknownNode, "this is %v, not %v: two nodes have swapped addresses or directories", r.self, hlc.NodeID(h.GetToNode()))
	}
	if state, reason := r.stateAndReason(); state == StateStale {
		return nil, refuse(rpc.CodeUndecided, "%v is out of service itself: %s", r.self, reason)
	}
	if h.GetState() == StateStale {
		return nil, refuse(rpc.CodeUndecided, "%v is out of service, as it says itself", from)
	}
	if other := p.connectedTo(); other != "" && other != h.GetIncarnation() {
		return nil, refuse(rpc.CodeUndecided, "%v is running with another data directory (%.8s): stop one of the two nodes that have the address %s", from, other, p.addr)
	}
	if text := r.admit(p, h); text != "" {
		return nil, refuse(rpc.CodeStale, "%s", text)
	}
	p.addInbound(1)
	if !p.link.Up() {
		p.link.Wake() // it is back: do not wait to dial it
	}
	return &peerpb.HelloAck{Node: uint32(r.self), Incarnation: r.incarnation, State: r.currentState(), WallUs: r.node.wall().UnixMicro(), Replaces: r.replaces, ClientAddr: r.node.opts.ClientAddr}, nil
}

// admit decides whether this node deals with a member, and returns why not. A
// new disk of a member is on record before the member is dealt with: a node that
// forgot it in a crash would take the filled member for a mix-up.
func (r *replica) admit(p *peer, hello introduction) (refusal string) {
	incarnation, state := hello.GetIncarnation(), hello.GetState()
	// A member may have been given a new disk, and filled it, while this node was
	// away. The topology names the disk, or the disk says which one it came after;
	// an old disk that is put back does neither.
	table := r.layout().table
	member, _ := table.Member(p.id)
	r.mu.Lock()
	succeeds := r.absence.succeeds(p.id, incarnation, hello.GetReplaces(), member.Founder, table.Version)
	text, refused := r.absence.refusal(p.id, incarnation, state, succeeds)
	changed := !refused && r.absence.contact(p.id, incarnation, table.Version)
	r.mu.Unlock()
	p.met(incarnation, state, text)
	if changed {
		if err := r.saveAbsence(); err != nil {
			r.log.Error("could not record the disk of a member", "peer", p.id.String(), "error", err)
		}
	}
	return text
}

// peerUp is called when a member has accepted this node.
func (r *replica) peerUp(p *peer, ack *peerpb.HelloAck) {
	if text := r.admit(p, ack); text != "" {
		r.log.Warn("this node does not deal with a peer", "peer", p.id.String(), "reason", text)
		return
	}
	r.log.Info("peer is up", "peer", p.id.String())
	p.setClientAddr(ack.GetClientAddr())
	p.returned()
	p.setAccepted()
	r.cleared()
	p.wakeReplay()
	r.schedule.reconsider()
	r.scrubber.again()
	r.node.opts.Events.peerUp(p.id)
}

func (r *replica) peerDown(p *peer, err error) {
	if p.isLeaving() {
		err = errLeft
	}
	r.log.Info("peer is down", "peer", p.id.String(), "error", err)
	r.node.opts.Events.peerDown(p.id, err)
}

// cleared lets a node that was away for long serve again once a majority of the
// members accepted it.
func (r *replica) cleared() {
	accepted := 1
	for _, p := range r.layout().peers {
		if p.hasAccepted() {
			accepted++
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == StateChecking && 2*accepted > len(r.layout().table.Members) {
		r.state, r.reason = StateLive, ""
		r.log.Info("a majority of the members accepted this node: it serves again")
		r.node.opts.Events.stateChanged(r.state, "")
	}
}

// goStale takes the node out of service.
func (r *replica) goStale(by hlc.NodeID, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == StateStale {
		return
	}
	r.state = StateStale
	r.reason = fmt.Sprintf("%v refused this node: %s. This node neither serves nor syncs. To bring it back, stop it, move its data directory away, and start it with an empty one: it is then filled from the other members", by, text)
	r.log.Error(r.reason)
	r.node.opts.Events.stateChanged(r.state, r.reason)
	// The verdict is on this disk, and must not be forgotten when the member that
	// gave it is away at the next start.
	if err := r.saveState(); err != nil {
		r.log.Error("could not store that this node is out of service", "error", err)
	}
}

// afterGap takes the node out of service when it was frozen for longer than
// gc_grace, before it serves what the others may have deleted meanwhile. Every
// link is made anew, so that each member says again whether it accepts this node.
func (r *replica) afterGap(gap time.Duration) {
	r.mu.Lock()
	r.ticked = r.node.wall().Round(0)
	if r.state != StateLive || len(r.layout().peers) == 0 {
		r.mu.Unlock()
		return
	}
	r.state = StateChecking
	r.reason = fmt.Sprintf("this node stood still for %v, longer than gc_grace (%v): it waits for a majority of the members to tell whether they went on without it", gap.Round(time.Second), r.settings.GCGrace)
	r.log.Warn(r.reason)
	r.node.opts.Events.stateChanged(r.state, r.reason)
	r.mu.Unlock()
	for _, p := range r.layout().peers {
		p.forgetAccepted()
		p.link.Break(errors.New("this node stood still"))
	}
}

// usablePeers returns the peers that requests can be sent to, in order.
func (r *replica) usablePeers() []*peer {
	var up []*peer
	l := r.layout()
	for _, id := range l.others() {
		if p := l.peers[id]; p.usable() {
			up = append(up, p)
		}
	}
	return up
}

// keepAbsence accounts for who is away, and persists it.
func (r *replica) keepAbsence(ctx context.Context) {
	interval := min(max(r.settings.GCGrace/20, 200*time.Millisecond), 10*time.Second)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last, lastWall := time.Now(), r.node.wall().Round(0) // time that passed here, and outside
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		elapsed := time.Since(last)
		gap := max(elapsed, r.node.wall().Round(0).Sub(lastWall))
		last, lastWall = time.Now(), r.node.wall().Round(0)
		if gap > r.settings.GCGrace {
			r.afterGap(gap)
		}
		r.mu.Lock()
		r.ticked = lastWall
		r.mu.Unlock()
		// A process that was frozen did not see the others, nor did it run.
		elapsed = min(elapsed, 2*interval)
		r.mu.Lock()
		r.alive()
		l := r.layout()
		died := r.absence.tick(elapsed, func(id hlc.NodeID) bool { return l.peers[id] != nil && l.peers[id].inContact() })
		r.mu.Unlock()
		for _, id := range died {
			r.log.Warn("a member has been away for longer than gc_grace: it must come back with an empty data directory", "member", id.String(), "gc_grace", r.settings.GCGrace)
			r.bar(id)
		}
		if err := r.saveAbsence(); err != nil {
			r.log.Error("could not record who is away", "error", err)
		}
	}
}

// peerRefused takes this node out of service when a member refuses it as stale.
func (r *replica) peerRefused(p *peer, refusal *rpc.Refusal) {
	if p.refusedAgain(refusal) {
		return // it dials again all the time
	}
	if refusal.Code != rpc.CodeUndecided {
		r.log.Warn("a peer refuses this node", "peer", p.id.String(), "code", refusal.Code, "reason", refusal.Text)
	}
	switch refusal.Code {
	case rpc.CodeStale:
		r.goStale(p.id, refusal.Text)
	case rpc.CodeForeignCluster, rpc.CodeSettings, rpc.CodeUnknownNode:
		r.countForeign(refusal)
	}
}

// countForeign stops this node when most of the members refuse it as a stranger:
// then the stranger is this node, with the directory of another cluster. One that
// refuses it alone is astray itself.
func (r *replica) countForeign(refusal *rpc.Refusal) {
	strangers := 0
	for _, p := range r.layout().peers {
		if p.refusesAsStranger() {
			strangers++
		}
	}
	if 2*strangers > len(r.layout().table.Members) {
		r.node.fail(fmt.Errorf("most members refuse this node: %s: %s must hold the data of this node in this cluster", refusal.Text, r.node.dir.Path()))
	}
}

func (r *replica) saveAbsence() error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	b := r.absence.encode()
	r.mu.Unlock()
	return r.store.PutMeta(metaAbsence, b)
}

// watchStore stops the node when its disk has failed: what the store shows may be
// gone after a restart, so it must be neither served nor spread.
func (r *replica) watchStore(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-r.store.Broken():
		r.node.fail(fmt.Errorf("the disk failed, so this node stops: %w; look at the disk of %s before starting it again", r.store.Sync(), r.node.dir.Path()))
	}
}

// keepSynced makes writes durable at an interval.
func (r *replica) keepSynced(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.store.Sync(); err != nil {
			r.log.Error("could not make writes durable", "error", err)
		}
	}
}

// member returns a peer by name, for operators.
func (r *replica) member(id hlc.NodeID) (*peer, error) {
	if p := r.peer(id); p != nil {
		return p, nil
	}
	names := slices.Collect(func(yield func(string) bool) {
		for _, m := range r.layout().table.Members {
			if !yield(m.ID.String()) {
				return
			}
		}
	})
	return nil, &Error{CodeNoSuchNode, fmt.Sprintf("%v is not another member: the members are %v and this is %v", id, names, r.self)}
}
