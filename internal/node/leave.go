package node

import (
	"context"
	"errors"
	"sync"

	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
)

// sayGoodbye tells the other nodes that this one stops, and returns when none of
// them has a request here that is unanswered. From then on they treat it as down,
// without having lost anything to it: what they had sent is applied and
// acknowledged, so none of it becomes a hint. It waits as long as a request may
// take, and no longer for a node that does not answer.
func (r *replica) sayGoodbye() {
	ctx, cancel := context.WithTimeout(context.Background(), r.settings.RequestDeadline)
	defer cancel()
	var told sync.WaitGroup
	for _, p := range r.usablePeers() {
		told.Go(func() {
			_, err := p.link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Leaving{Leaving: &peerpb.Leaving{}}})
			if err != nil {
				r.log.Debug("a peer did not take note that this node stops", "peer", p.id.String(), "error", err)
			}
		})
	}
	told.Wait()
}

// handleLeaving sends the peer nothing more, and answers when it has answered all
// that it was sent.
func (r *replica) handleLeaving(ctx context.Context, from hlc.NodeID) (*peerpb.Message, error) {
	p, err := r.member(from)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.settings.RequestDeadline)
	defer cancel()
	select {
	case <-p.leave():
	case <-ctx.Done():
	}
	r.log.Info("peer is about to stop", "peer", from.String())
	return &peerpb.Message{Body: &peerpb.Message_LeavingReply{LeavingReply: &peerpb.LeavingReply{}}}, nil
}

// leave marks the peer as leaving; the channel is closed when no request to it is
// unanswered.
func (p *peer) leave() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = true
	drained := make(chan struct{})
	if p.requests == 0 {
		close(drained)
		return drained
	}
	if p.drained == nil {
		p.drained = drained
	}
	return p.drained
}

// errLeft is why a connection ended to a peer that had said goodbye.
var errLeft = errors.New("the peer has stopped, as it said it would")

func (p *peer) isLeaving() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leaving
}

// returned ends what leave began: the peer is connected.
func (p *peer) returned() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = false
	p.links++
}
