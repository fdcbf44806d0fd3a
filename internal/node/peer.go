package node

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"syntropy/hlc"
	"syntropy/internal/rpc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
	"syntropy/lww"
	"syntropy/report"
)

// peer is another member as this node sees it.
type peer struct {
	id   hlc.NodeID
	addr string
	link *rpc.Link

	mu          sync.Mutex
	barred      string // why this node does not deal with it; empty: it does
	incarnation string
	clientAddr  string // where clients reach it, as it said last
	state       string
	entries     int64
	tombstones  int64
	skew        time.Duration
	clockOff    bool        // its clock is beyond the bound from this node's
	accepted    bool        // it has accepted this node, since this node last stood still
	refusal     rpc.Refusal // the last one by this peer
	inbound     int         // links that it has to this node
	missed      int         // writes that it did not get and that nobody keeps for it
	missedUntil hlc.Stamp   // of the latest of them
	diverged    [2]int      // keys that the last two sessions with it found to differ
	links       int         // connections that were made to it
	hints       int64       // writes that it keeps for others
	proofs      map[hlc.NodeID]time.Time
	version     uint64        // of its topology
	backlog     int64         // bytes on their way to it
	requests    int           // on their way to it
	full        bool          // its disk: it takes no writes
	sidelined   []int         // shards that it takes out of sessions
	disk        *report.Disk  // what it says of its disk
	leaving     bool          // it stops: no request begins
	drained     chan struct{} // closed when it is leaving and requests is zero; nil: nobody waits

	replay chan struct{} // there may be hints to replay
}

func (r *replica) newPeer(m topology.Member) *peer {
	p := &peer{id: m.ID, addr: m.Addr, entries: -1, replay: make(chan struct{}, 1)}
	p.link = rpc.NewLink(rpc.LinkOptions{
		Addr:        m.Addr,
		Hello:       func() *peerpb.Hello { return r.hello(m.ID) },
		OnUp:        func(ack *peerpb.HelloAck) { r.peerUp(p, ack) },
		OnDown:      func(err error) { r.peerDown(p, err) },
		OnRefused:   func(refusal *rpc.Refusal) { r.peerRefused(p, refusal) },
		OnHeartbeat: func(h *peerpb.HeartbeatReply, rtt time.Duration) { r.heartbeatFrom(p, h, rtt) },
		Logger:      r.log,
	})
	return p
}

// connectedTo returns the disk of the peer that this node is connected to, if it
// is.
func (p *peer) connectedTo() (incarnation string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.link.Up() {
		return ""
	}
	return p.incarnation
}

// addInbound counts the links that the peer has to this node, and returns how many
// these are.
func (p *peer) addInbound(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inbound += n
	return p.inbound
}

// inContact reports whether the peer can reach this node or this node the peer.
func (p *peer) inContact() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.barred == "" && (p.inbound > 0 || p.link.Up())
}

func (p *peer) met(incarnation, state, barred string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.incarnation, p.state, p.barred = incarnation, state, barred
}

// usable reports whether requests can be sent to a peer now.
func (p *peer) usable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.barred == "" && p.link.Up()
}

// takes reports whether requests that need one of these states can be sent to the
// peer now.
func (p *peer) takes(states ...string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.barred == "" && !p.leaving && slices.Contains(states, p.state) && p.link.Up()
}

func (p *peer) addMissed(entries ...lww.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed += len(entries)
	for _, e := range entries {
		p.missedUntil = max(p.missedUntil, e.Newest())
	}
}

// missedWrites returns how many writes the peer has missed if a session as of that
// moment sees all of them, and zero otherwise.
func (p *peer) missedWrites(asOf hlc.Stamp) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.missedUntil > asOf {
		return 0
	}
	return p.missed
}

func (p *peer) forgetMissed(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed -= n
}

// counts returns the rows that the peer holds, if it has told.
func (p *peer) counts() (entries, tombstones int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.entries, p.tombstones, p.entries >= 0
}

// provenUntil returns what the peer says of its agreement with another node.
func (p *peer) provenUntil(with hlc.NodeID) (until time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok = p.proofs[with]
	return until, ok
}

func (r *replica) heartbeatFrom(p *peer, h *peerpb.HeartbeatReply, rtt time.Duration) {
	skew := time.UnixMicro(h.GetWallUs()).Sub(r.node.wall().Add(-rtt / 2))
	p.mu.Lock()
	defer p.mu.Unlock()
	full, sidelined := p.full, len(p.sidelined)
	p.diskFrom(h.GetDisk())
	if p.state != h.GetState() || full && !p.full { // it may take now what it did not take before
		p.wakeReplay()
		r.schedule.reconsider()
	}
	if len(p.sidelined) < sidelined {
		r.scrubber.again()
	}
	p.state, p.entries, p.tombstones, p.skew = h.GetState(), h.GetEntries(), h.GetTombstones(), skew
	p.hints, p.version = h.GetHintsPending(), h.GetTopologyVersion()
	p.proofs = make(map[hlc.NodeID]time.Time, len(h.Proofs))
	for _, proof := range h.Proofs {
		p.proofs[hlc.NodeID(proof.With)] = time.UnixMicro(proof.UntilUs).UTC()
	}
	p.clockOff = skew.Abs()-rtt/2 > r.settings.MaxClockSkew // beyond what the measurement can be wrong by
}

// fenced returns an error while this node's clock is beyond the bound from most
// of the nodes it is connected to, itself included: they would refuse what it
// stamps. Of two that disagree, it is the one ahead.
func (r *replica) fenced() error {
	agree, off := 1, 0
	var skew time.Duration
	for _, p := range r.layout().peers {
		if !p.usable() {
			continue
		}
		p.mu.Lock()
		if p.clockOff {
			off, skew = off+1, p.skew
		} else {
			agree++
		}
		p.mu.Unlock()
	}
	fenced := off > agree || off == agree && skew < 0
	if r.isFenced.Swap(fenced) != fenced {
		r.log.Warn("the clocks of this node and of most others have come apart, or together again", "fenced", fenced, "apart", skew, "max_clock_skew", r.settings.MaxClockSkew)
	}
	if fenced {
		return &Error{CodeClock, fmt.Sprintf("this node's clock is %v apart from those of the other nodes, more than --max-clock-skew %v: set it right; until then this node coordinates no writes", skew.Abs().Round(time.Millisecond), r.settings.MaxClockSkew)}
	}
	return nil
}

func (r *replica) bar(id hlc.NodeID) {
	p := r.peer(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.barred = "away for longer than gc_grace"
}

func (p *peer) refusedAgain(refusal *rpc.Refusal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	again := p.refusal == *refusal
	p.refusal = *refusal
	return again
}

func (p *peer) refusesAsStranger() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.link.Up() && (p.refusal.Code == rpc.CodeForeignCluster || p.refusal.Code == rpc.CodeSettings || p.refusal.Code == rpc.CodeUnknownNode)
}

func (p *peer) setAccepted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted, p.refusal = true, rpc.Refusal{}
}

func (p *peer) forgetAccepted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted = false
}

func (p *peer) hasAccepted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted && p.barred == "" && p.link.Up()
}
