package node

import (
	"fmt"
	"sync"
	"time"

	"syntropy/hlc"
	"syntropy/internal/rpc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
)

// peer is another member as this node sees it.
type peer struct {
	id   hlc.NodeID
	addr string
	link *rpc.Link

	mu          sync.Mutex
	barred      string // why this node does not deal with it; empty: it does
	incarnation string
	state       string
	entries     int64
	tombstones  int64
	skew        time.Duration
	clockOff    bool        // its clock is beyond the bound from this node's
	accepted    bool        // it has accepted this node, since this node last stood still
	refusal     rpc.Refusal // the last one by this peer
	inbound     int         // links that it has to this node
	missed      int         // writes it did not get from this node
}

func (r *replica) newPeer(m topology.Member) *peer {
	p := &peer{id: m.ID, addr: m.Addr, entries: -1}
	p.link = rpc.NewLink(rpc.LinkOptions{
		Addr:        m.Addr,
		Hello:       func() *peerpb.Hello { return r.hello(m.ID) },
		OnUp:        func(ack *peerpb.HelloAck) { r.peerUp(p, ack) },
		OnDown:      func(err error) { r.log.Info("peer is down", "peer", p.id.String(), "error", err) },
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

func (p *peer) addInbound(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inbound += n
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

func (r *replica) heartbeatFrom(p *peer, h *peerpb.HeartbeatReply, rtt time.Duration) {
	skew := time.UnixMicro(h.GetWallUs()).Sub(r.node.wall().Add(-rtt / 2))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.entries, p.tombstones, p.skew = h.GetState(), h.GetEntries(), h.GetTombstones(), skew
	p.clockOff = skew.Abs()-rtt/2 > r.settings.MaxClockSkew // beyond what the measurement can be wrong by
}

// fenced returns an error while this node's clock is beyond the bound from most
// of the nodes it is connected to, itself included: they would refuse what it
// stamps. Of two that disagree, it is the one ahead.
func (r *replica) fenced() error {
	agree, off := 1, 0
	var skew time.Duration
	for _, p := range r.peers {
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
	if off > agree || off == agree && skew < 0 {
		return &Error{CodeClock, fmt.Sprintf("this node's clock is %v apart from those of the other nodes, more than --max-clock-skew %v: set it right; until then this node coordinates no writes", skew.Abs().Round(time.Millisecond), r.settings.MaxClockSkew)}
	}
	return nil
}

func (r *replica) bar(id hlc.NodeID) {
	p := r.peers[id]
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
