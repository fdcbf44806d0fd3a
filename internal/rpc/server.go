package rpc

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
)

// Handler is what a node answers with. All methods are called concurrently.
type Handler interface {
	// Meet and Adopt form a cluster; see topology.Registrar.
	Meet(ctx context.Context, req topology.MeetRequest) topology.MeetReply
	Adopt(ctx context.Context, req topology.AdoptRequest) error
	// Enroll makes a node a member of the cluster that exists; its error is one of
	// the moment, and what is final is in the reply. Consensus takes messages of the
	// log that holds the topology. See topology.Log. The handler refuses those of
	// another cluster or for another node before it looks at anything else.
	Enroll(ctx context.Context, req topology.EnrollRequest) (topology.EnrollReply, error)
	Consensus(ctx context.Context, req *peerpb.ConsensusRequest) error
	// Hello accepts a link, or refuses it with a *Refusal. A peer that dials
	// again may have a new link accepted before the old one is closed.
	Hello(ctx context.Context, hello *peerpb.Hello) (*peerpb.HelloAck, error)
	// Handle carries out one request; the call number of its reply is filled in.
	// ctx ends when the link does.
	Handle(ctx context.Context, from hlc.NodeID, req *peerpb.Message) *peerpb.Message
	// LinkClosed is called once for each accepted Hello, after the last Handle of
	// that link returned.
	LinkClosed(from hlc.NodeID)
}

// ServerOptions configure a Server; the zero value works.
type ServerOptions struct {
	Logger *slog.Logger // discards by default
	// Credentials secure the port. nil: plaintext, for trusted networks only.
	Credentials credentials.TransportCredentials
	// HelloTimeout is how long a new connection or stream may stay silent: 5 s by
	// default. Shorter cuts off slow networks, longer lets strangers hold sockets.
	HelloTimeout time.Duration
}

// Server answers other nodes on the peer port.
type Server struct {
	handler Handler
	opts    ServerOptions
	grpc    *grpc.Server

	closing   chan struct{}
	closeOnce sync.Once
	readers   sync.WaitGroup // outlive their gRPC handler, which must return to unblock them
}

// NewServer returns a server that answers with h once Serve is called.
func NewServer(h Handler, opts ServerOptions) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Credentials == nil {
		opts.Credentials = insecure.NewCredentials()
	}
	if opts.HelloTimeout <= 0 {
		opts.HelloTimeout = 5 * time.Second
	}
	s := &Server{handler: h, opts: opts, closing: make(chan struct{})}
	s.grpc = grpc.NewServer(
		grpc.Creds(opts.Credentials),
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(grpcBytes),
		grpc.MaxSendMsgSize(grpcBytes),
		// One peer needs one stream, and one more while it reconnects.
		grpc.MaxConcurrentStreams(16),
		// A port scanner that connects and stays silent must not hold a socket.
		grpc.ConnectionTimeout(opts.HelloTimeout),
		// A peer whose machine vanished sends no FIN: probe, or its links would
		// stay open for hours.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: time.Minute, Time: 5 * time.Second, Timeout: 5 * time.Second,
		}),
		grpc.WaitForHandlers(true),
	)
	peerpb.RegisterPeerServer(s.grpc, service{server: s})
	return s
}

// Serve accepts connections on l until Close, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(loggedListener{l, s.opts.Logger})
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// Close breaks all links and returns when every call of the handler has ended.
func (s *Server) Close() {
	s.closeOnce.Do(func() { close(s.closing) })
	s.grpc.Stop()
	s.readers.Wait()
}

// service keeps the methods that gRPC calls out of Server's API.
type service struct {
	peerpb.UnimplementedPeerServer
	server *Server
}

func (v service) Meet(ctx context.Context, req *peerpb.MeetRequest) (*peerpb.MeetReply, error) {
	in, err := meetRequestFrom(req)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	reply, err := meetReplyTo(v.server.handler.Meet(ctx, in))
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return reply, nil
}

func (v service) Adopt(ctx context.Context, req *peerpb.AdoptRequest) (*peerpb.AdoptReply, error) {
	in, err := adoptRequestFrom(req)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := v.server.handler.Adopt(ctx, in); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &peerpb.AdoptReply{}, nil
}

func (v service) Enroll(ctx context.Context, req *peerpb.EnrollRequest) (*peerpb.EnrollReply, error) {
	reply, err := v.server.handler.Enroll(ctx, enrollRequestFrom(req))
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	m, err := enrollReplyTo(reply)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return m, nil
}

func (v service) Consensus(ctx context.Context, req *peerpb.ConsensusRequest) (*peerpb.ConsensusReply, error) {
	if err := v.server.handler.Consensus(ctx, req); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &peerpb.ConsensusReply{}, nil
}

// Link serves one stream. This goroutine sends; a reader receives and starts a
// goroutine for each request. It returns when either side is lost or done; that
// ends the stream and with it the reader.
func (v service) Link(stream grpc.BidiStreamingServer[peerpb.Frame, peerpb.Frame]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	c := &serverLink{
		server:   v.server,
		stream:   stream,
		out:      newOutbox(),
		hello:    make(chan *peerpb.Message),
		accepted: make(chan hlc.NodeID, 1),
	}
	// Close may have begun to wait for readers: then start no other.
	select {
	case <-v.server.closing:
		return errClosing
	default:
	}
	v.server.readers.Go(func() { c.read(ctx, cancel) })
	if err := c.greet(ctx); err != nil {
		close(c.accepted)
		return err
	}

	ended := make(chan struct{})
	v.server.readers.Go(func() {
		select {
		case <-v.server.closing:
		case <-ctx.Done():
		}
		close(ended)
	})
	if err := c.out.run(ended, stream.Send); err != nil {
		return err
	}
	select {
	case <-v.server.closing:
		return errClosing
	default:
		return ctx.Err()
	}
}

var errClosing = status.Error(codes.Unavailable, "the node is shutting down")

// serverLink is one stream from a peer.
type serverLink struct {
	server   *Server
	stream   grpc.BidiStreamingServer[peerpb.Frame, peerpb.Frame]
	out      *outbox
	hello    chan *peerpb.Message // the first message, from reader to sender
	accepted chan hlc.NodeID      // the peer, from sender to reader; closed: refused
}

// greet waits for the Hello and answers it.
func (c *serverLink) greet(ctx context.Context) error {
	timer := time.NewTimer(c.server.opts.HelloTimeout)
	defer timer.Stop()
	var first *peerpb.Message
	select {
	case first = <-c.hello:
	case <-timer.C:
		return status.Error(codes.DeadlineExceeded, "no Hello in time")
	case <-c.server.closing:
		return errClosing
	case <-ctx.Done():
		return ctx.Err()
	}
	hello := first.GetHello()
	if hello == nil {
		return status.Error(codes.InvalidArgument, "the first message of a link must be Hello")
	}
	if hello.Node == 0 || hello.Node > math.MaxUint16 {
		return c.refuse(first, &Refusal{CodeUnknownNode, "a node id is 1 to 65535"})
	}
	ack, err := c.server.handler.Hello(ctx, hello)
	if err != nil {
		refusal := &Refusal{Code: CodeInternal, Text: err.Error()}
		errors.As(err, &refusal)
		return c.refuse(first, refusal)
	}
	// From here on LinkClosed is due, whatever happens; the reader sees to it.
	c.accepted <- hlc.NodeID(hello.Node)
	return c.stream.Send(&peerpb.Frame{Messages: []*peerpb.Message{
		{Call: first.Call, Body: &peerpb.Message_HelloAck{HelloAck: ack}},
	}})
}

// refuse tells the reason twice: the message for programs, the status for
// whoever looks at the connection with standard tools.
func (c *serverLink) refuse(hello *peerpb.Message, r *Refusal) error {
	m := failure(r.Code, r.Text)
	m.Call = hello.Call
	if err := c.stream.Send(&peerpb.Frame{Messages: []*peerpb.Message{m}}); err != nil {
		return err
	}
	return status.Error(codes.FailedPrecondition, r.Text)
}

// read receives until the stream ends, and then waits for all it started. cancel
// makes the sender end too: a peer that asks no more has left.
func (c *serverLink) read(ctx context.Context, cancel context.CancelFunc) {
	defer cancel()
	frame, err := c.stream.Recv()
	if err != nil {
		return
	}
	messages := frame.Messages
	if len(messages) == 0 {
		messages = []*peerpb.Message{{}} // no Hello, which greet reports
	}
	select {
	case c.hello <- messages[0]:
	case <-ctx.Done(): // greet gave up waiting
		return
	}
	from, ok := <-c.accepted
	if !ok {
		return
	}

	var handlers sync.WaitGroup
	slots := make(chan struct{}, maxInFlight)
	heart := make(chan struct{}, 1) // a slot of its own: see the package comment
	start := func(m *peerpb.Message) {
		slot := slots
		if m.GetHeartbeat() != nil {
			slot = heart
		}
		select {
		case slot <- struct{}{}:
		case <-ctx.Done(): // nobody would hear the answer
			return
		}
		handlers.Go(func() {
			defer func() { <-slot }()
			c.out.put(ctx, nil, c.answer(ctx, from, m))
		})
	}
	for messages = messages[1:]; ; messages = frame.Messages {
		for _, m := range messages {
			start(m)
		}
		if frame, err = c.stream.Recv(); err != nil {
			break
		}
	}
	cancel()
	handlers.Wait()
	c.server.opts.Logger.Debug("link closed", "from", from, "error", err)
	c.server.handler.LinkClosed(from)
}

// answer carries out one request. What is no request that this version knows
// comes from a newer peer, which learns so without losing the link.
func (c *serverLink) answer(ctx context.Context, from hlc.NodeID, m *peerpb.Message) *peerpb.Message {
	var reply *peerpb.Message
	switch m.Body.(type) {
	case *peerpb.Message_Heartbeat, *peerpb.Message_Apply, *peerpb.Message_Lookup,
		*peerpb.Message_Session, *peerpb.Message_Roots, *peerpb.Message_Repair, *peerpb.Message_Scrub,
		*peerpb.Message_Scan, *peerpb.Message_Leaving:
		reply = c.server.handler.Handle(ctx, from, m)
		if reply == nil {
			reply = failure(CodeInternal, "no reply")
		}
	default:
		reply = failure(CodeUnsupported, "this node does not know such a request: it may run an older version")
	}
	reply = &peerpb.Message{Call: m.Call, Body: reply.Body}
	if size := WireSize(reply); size > MaxMessage {
		reply = failure(CodeTooLarge, "the reply is too large: ask for less at once")
		reply.Call = m.Call
	}
	return reply
}

// loggedListener logs connections at debug level. What gRPC cannot make sense of
// it drops silently, so this is the only trace of strangers.
type loggedListener struct {
	net.Listener
	logger *slog.Logger
}

func (l loggedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.logger.Debug("connection", "from", conn.RemoteAddr().String())
	}
	return conn, err
}
