package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"syntropy/internal/rpc/peerpb"
)

// linkConn is one connection of a Link: the calls in flight on it and the
// goroutines that serve them.
type linkConn struct {
	stream peerpb.Peer_LinkClient
	cancel context.CancelCauseFunc
	out    *outbox
	window chan struct{} // one token for each call in flight, abandoned ones included
	heard  atomic.Int64  // when the last frame arrived, as time since start
	asked  atomic.Int64  // when the unanswered heartbeat was queued, as time since start; 0: none
	start  time.Time

	endOnce sync.Once
	done    chan struct{} // closed when the connection is lost
	err     error         // why; set before done is closed

	mu       sync.Mutex
	lastCall uint64
	pending  map[uint64]chan *peerpb.Message // buffered; nil: abandoned
}

func newLinkConn(stream peerpb.Peer_LinkClient, cancel context.CancelCauseFunc) *linkConn {
	return &linkConn{
		stream:  stream,
		cancel:  cancel,
		out:     newOutbox(),
		window:  make(chan struct{}, maxInFlight),
		start:   time.Now(),
		done:    make(chan struct{}),
		pending: make(map[uint64]chan *peerpb.Message),
	}
}

// end closes the connection; the first reason counts.
func (c *linkConn) end(err error) {
	c.endOnce.Do(func() {
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("the peer closed the connection")
		}
		c.err = err
		close(c.done)
		c.cancel(err)
	})
}

func (c *linkConn) call(ctx context.Context, m *peerpb.Message) (reply *peerpb.Message, sent, received int, err error) {
	if WireSize(m)+maxCallBytes > MaxMessage {
		return nil, 0, 0, ErrTooLarge
	}
	select {
	case <-c.done: // select picks at random, and this case must win
		return nil, 0, 0, ErrDown
	default:
	}
	select {
	case c.window <- struct{}{}:
	case <-c.done:
		return nil, 0, 0, ErrDown
	case <-ctx.Done():
		return nil, 0, 0, ctx.Err()
	}
	call, replies := c.register()
	m = &peerpb.Message{Call: call, Body: m.Body} // the caller's stays untouched
	if !c.out.put(ctx, c.done, m) {
		c.forget(call)
		<-c.window
		if err := ctx.Err(); err != nil {
			return nil, 0, 0, err
		}
		return nil, 0, 0, ErrDown
	}
	sent = WireSize(m)
	select {
	case reply = <-replies:
	case <-ctx.Done():
		if c.abandon(call) {
			return nil, sent, 0, ctx.Err()
		}
		reply = <-replies
	case <-c.done:
		select {
		case reply = <-replies:
		default:
			return nil, sent, 0, fmt.Errorf("%w: %w", ErrBroken, c.err)
		}
	}
	received = WireSize(reply)
	if f := reply.GetFailure(); f != nil {
		return nil, sent, received, &RemoteError{Code: f.Code, Text: f.Text}
	}
	return reply, sent, received, nil
}

// maxCallBytes is what the call number adds to a message: a tag and a varint.
const maxCallBytes = 11

func (c *linkConn) register() (uint64, chan *peerpb.Message) {
	replies := make(chan *peerpb.Message, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastCall++
	c.pending[c.lastCall] = replies
	return c.lastCall, replies
}

func (c *linkConn) forget(call uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, call)
}

// abandon gives up waiting for a reply. It reports false if the reply is there.
func (c *linkConn) abandon(call uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.pending[call]
	if ok {
		c.pending[call] = nil
	}
	return ok
}

// receive hands replies to their callers until the stream ends.
func (c *linkConn) receive(onHeartbeat func(*peerpb.HeartbeatReply, time.Duration)) error {
	for {
		frame, err := c.stream.Recv()
		if err != nil {
			return err
		}
		c.heard.Store(int64(time.Since(c.start)))
		for _, m := range frame.Messages {
			if m.Call == 0 { // the heartbeat's, which is no call
				asked := time.Duration(c.asked.Swap(0))
				if reply := m.GetHeartbeatReply(); reply != nil && asked != 0 {
					onHeartbeat(reply, time.Since(c.start)-asked)
				}
				continue
			}
			c.mu.Lock()
			replies, ok := c.pending[m.Call]
			delete(c.pending, m.Call)
			if ok && replies != nil {
				replies <- m
			}
			c.mu.Unlock()
			if !ok {
				return fmt.Errorf("the peer answered call %d, which is not in flight", m.Call)
			}
			<-c.window
		}
	}
}

// beat sends heartbeats and reports a peer that has fallen silent. Any frame
// shows life, so that a heartbeat behind megabytes of replies breaks nothing.
func (c *linkConn) beat(ctx context.Context, opts *LinkOptions) error {
	due := time.NewTimer(0) // the first at once: it brings what the peer reports of itself
	defer due.Stop()
	dead := time.NewTimer(opts.DeadAfter)
	defer dead.Stop()
	for {
		select {
		case <-due.C:
			due.Reset(opts.HeartbeatInterval)
			// One at a time, or a peer that is slow would get a heap of them.
			if c.asked.CompareAndSwap(0, max(1, int64(time.Since(c.start)))) {
				c.out.put(ctx, c.done, &peerpb.Message{Body: &peerpb.Message_Heartbeat{Heartbeat: opts.Heartbeat()}})
			}
		case <-dead.C:
			silent := time.Since(c.start) - time.Duration(c.heard.Load())
			if silent >= opts.DeadAfter {
				return fmt.Errorf("the peer has been silent for %v", silent.Round(time.Millisecond))
			}
			dead.Reset(opts.DeadAfter - silent)
		case <-c.done:
			return nil
		}
	}
}
