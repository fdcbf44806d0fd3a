package rpc

import (
	"context"

	"syntropy/internal/rpc/peerpb"
)

// outbox is the queue in front of one stream: many put, one sender takes what
// has gathered as one frame.
type outbox struct {
	queue chan *peerpb.Message
	next  *peerpb.Message // taken from the queue, did not fit; the sender's own
}

func newOutbox() *outbox {
	return &outbox{queue: make(chan *peerpb.Message, outboxMessages)}
}

// put queues m, waiting for room until ctx ends or done is closed. It reports
// whether m was queued.
func (o *outbox) put(ctx context.Context, done <-chan struct{}, m *peerpb.Message) bool {
	select {
	case o.queue <- m:
		return true
	case <-done:
		return false
	case <-ctx.Done():
		return false
	}
}

// frame adds to first all that is ready now and fits. A message too large for a
// frame goes alone.
func (o *outbox) frame(first *peerpb.Message) *peerpb.Frame {
	f := &peerpb.Frame{Messages: []*peerpb.Message{first}}
	for bytes := WireSize(first); len(f.Messages) < frameMessages; {
		var m *peerpb.Message
		select {
		case m = <-o.queue:
		default:
			return f
		}
		if bytes += WireSize(m); bytes > frameBytes {
			o.next = m
			return f
		}
		f.Messages = append(f.Messages, m)
	}
	return f
}

// run sends frames until done is closed or send fails.
func (o *outbox) run(done <-chan struct{}, send func(*peerpb.Frame) error) error {
	for {
		first := o.next
		o.next = nil
		if first == nil {
			select {
			case first = <-o.queue:
			case <-done:
				return nil
			}
		}
		if err := send(o.frame(first)); err != nil {
			return err
		}
	}
}
