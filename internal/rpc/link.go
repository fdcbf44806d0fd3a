package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"syntropy/internal/rpc/peerpb"
)

// LinkOptions configure a Link. Addr and Hello are required; a nil callback is
// not called. All callbacks are called from the link's goroutines,
// OnUp and OnDown alternately. OnHeartbeat delays the replies of all calls while
// it runs, and must not Call.
type LinkOptions struct {
	Addr  string
	Hello func() *peerpb.Hello // what this node says of itself, at each attempt

	OnUp        func(*peerpb.HelloAck)
	OnDown      func(error)    // the link was up and broke
	OnRefused   func(*Refusal) // the peer did not accept this node; again at each attempt
	OnHeartbeat func(reply *peerpb.HeartbeatReply, rtt time.Duration)
	Heartbeat   func() *peerpb.Heartbeat // an empty one by default

	// HeartbeatInterval is 1 s by default. Longer makes reports of the peer older.
	HeartbeatInterval time.Duration
	// DeadAfter is how long a peer may stay silent, 3 s by default. Below some
	// intervals, pauses of a healthy process break links; calls to a dead peer
	// wait as long as this.
	DeadAfter time.Duration
	// BackoffMin and BackoffMax bound the pause before dialling again, which
	// doubles from 100 ms to 2 s by default and is jittered.
	BackoffMin, BackoffMax time.Duration

	Logger *slog.Logger // discards by default
	// Credentials secure the connection; nil: plaintext.
	Credentials credentials.TransportCredentials
}

// Link keeps a connection to one peer. Call is safe for concurrent use; Run is
// called once.
type Link struct {
	opts LinkOptions
	wake chan struct{} // ends a pause

	mu   sync.Mutex
	conn *linkConn // nil: down
	err  error     // why the last attempt or connection ended
}

// NewLink returns a link that is down until Run is called.
func NewLink(opts LinkOptions) *Link {
	if opts.OnUp == nil {
		opts.OnUp = func(*peerpb.HelloAck) {}
	}
	if opts.OnDown == nil {
		opts.OnDown = func(error) {}
	}
	if opts.OnRefused == nil {
		opts.OnRefused = func(*Refusal) {}
	}
	if opts.OnHeartbeat == nil {
		opts.OnHeartbeat = func(*peerpb.HeartbeatReply, time.Duration) {}
	}
	if opts.Heartbeat == nil {
		opts.Heartbeat = func() *peerpb.Heartbeat { return &peerpb.Heartbeat{} }
	}
	if opts.HeartbeatInterval <= 0 {
		opts.HeartbeatInterval = time.Second
	}
	if opts.DeadAfter <= 0 {
		opts.DeadAfter = 3 * time.Second
	}
	if opts.BackoffMin <= 0 {
		opts.BackoffMin = 100 * time.Millisecond
	}
	if opts.BackoffMax <= 0 {
		opts.BackoffMax = 2 * time.Second
	}
	opts.BackoffMax = max(opts.BackoffMax, opts.BackoffMin)
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Link{opts: opts, wake: make(chan struct{}, 1)}
}

// Up reports whether the peer is connected and has accepted this node.
func (l *Link) Up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil
}

// Wake ends the present pause before dialling again, for when the peer is known
// to be back: it has just dialled this node.
func (l *Link) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Break ends the present connection, if there is one; Run dials again.
func (l *Link) Break(reason error) {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn != nil {
		conn.end(reason)
	}
}

// LastError says why the last attempt failed or the last connection ended: a
// *Refusal when the peer does not accept this node. It is nil while the link is
// up and before the first attempt.
func (l *Link) LastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Call sends a request and waits for its reply. m is not modified and may be
// sent to several peers at once. Errors: ErrDown, ErrTooLarge (not sent),
// ErrBroken, that of ctx (outcome unknown), *RemoteError (the peer's answer).
func (l *Link) Call(ctx context.Context, m *peerpb.Message) (*peerpb.Message, error) {
	reply, _, _, err := l.CallSized(ctx, m)
	return reply, err
}

// CallSized is Call that also tells the bytes that request and reply took within
// their frames; zero for what was not sent or received.
func (l *Link) CallSized(ctx context.Context, m *peerpb.Message) (reply *peerpb.Message, sent, received int, err error) {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn == nil {
		return nil, 0, 0, ErrDown
	}
	return conn.call(ctx, m)
}

// Run connects, and connects again, until ctx ends. It returns when all
// goroutines of the link have ended and no callback runs any more.
func (l *Link) Run(ctx context.Context) {
	pause := l.opts.BackoffMin
	for ctx.Err() == nil {
		wasUp, err := l.connection(ctx)
		if ctx.Err() != nil {
			return
		}
		if wasUp {
			pause = l.opts.BackoffMin
			l.opts.Logger.Debug("link down", "addr", l.opts.Addr, "error", err)
		} else {
			l.opts.Logger.Debug("no link", "addr", l.opts.Addr, "error", err)
			if refusal := (*Refusal)(nil); errors.As(err, &refusal) {
				l.opts.OnRefused(refusal)
			}
		}
		// Half of the pause is random, or all nodes would dial a returning one
		// in step.
		timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-timer.C:
		case <-l.wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, l.opts.BackoffMax)
	}
}

// connection is the life of one connection.
func (l *Link) connection(ctx context.Context) (wasUp bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer func() {
		l.mu.Lock()
		l.err = err
		l.mu.Unlock()
	}()
	cc, err := connect(l.opts.Addr, l.opts.Credentials, l.opts.DeadAfter)
	if err != nil {
		return false, err
	}
	defer cc.Close()

	// The stream outlives the handshake, so its deadline is a cancellation.
	timeout := time.AfterFunc(l.opts.DeadAfter, func() {
		cancel(fmt.Errorf("no connection within %v", l.opts.DeadAfter))
	})
	stream, ack, err := l.handshake(ctx, peerpb.NewPeerClient(cc))
	if !timeout.Stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return false, plain(err)
	}

	conn := newLinkConn(stream, cancel)
	var wg sync.WaitGroup
	wg.Go(func() { conn.end(conn.receive(l.opts.OnHeartbeat)) })
	wg.Go(func() { conn.end(conn.out.run(conn.done, stream.Send)) })
	wg.Go(func() { conn.end(conn.beat(ctx, &l.opts)) })

	l.opts.Logger.Debug("link up", "addr", l.opts.Addr, "node", ack.Node)
	l.mu.Lock()
	l.conn, l.err = conn, nil
	l.mu.Unlock()
	l.opts.OnUp(ack)
	wg.Wait()
	l.mu.Lock()
	l.conn = nil
	l.mu.Unlock()
	l.opts.OnDown(conn.err)
	return true, conn.err
}

// plain takes the wrapping of gRPC off an error, which people are to read: of
// `rpc error: code = Unavailable desc = connection error: desc = "transport:
// Error while dialing: dial tcp ..."` what begins with "dial tcp" says it all.
func plain(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := strings.TrimSuffix(strings.TrimPrefix(s.Message(), `connection error: desc = "`), `"`)
	for _, prefix := range []string{"transport: ", "Error while dialing: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return errors.New(text)
}

// handshake opens a stream and says Hello.
func (l *Link) handshake(ctx context.Context, client peerpb.PeerClient) (peerpb.Peer_LinkClient, *peerpb.HelloAck, error) {
	stream, err := client.Link(ctx)
	if err != nil {
		return nil, nil, err
	}
	hello := &peerpb.Message{Body: &peerpb.Message_Hello{Hello: l.opts.Hello()}}
	// A failed Send only says EOF; the reason comes with Recv.
	if err := stream.Send(&peerpb.Frame{Messages: []*peerpb.Message{hello}}); err != nil {
		if _, err2 := stream.Recv(); err2 != nil {
			err = err2
		}
		return nil, nil, err
	}
	frame, err := stream.Recv()
	if err != nil {
		return nil, nil, err
	}
	if len(frame.Messages) != 1 {
		return nil, nil, errors.New("the peer did not answer Hello")
	}
	if f := frame.Messages[0].GetFailure(); f != nil {
		return nil, nil, &Refusal{Code: f.Code, Text: f.Text}
	}
	ack := frame.Messages[0].GetHelloAck()
	if ack == nil {
		return nil, nil, errors.New("the peer did not answer Hello")
	}
	return stream, ack, nil
}
