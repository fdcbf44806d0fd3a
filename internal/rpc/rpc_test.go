package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
)

const patience = 20 * time.Second // for what happens soon, on any machine

// node is a Handler; its functions may be replaced before it serves.
type node struct {
	registrar *topology.Registrar
	hello     func(*peerpb.Hello) (*peerpb.HelloAck, error)
	handle    func(ctx context.Context, req *peerpb.Message) *peerpb.Message
	enroll    func(context.Context, topology.EnrollRequest) (topology.EnrollReply, error)
	consensus func(context.Context, *peerpb.ConsensusRequest) error
	closed    chan hlc.NodeID
}

func newNode() *node {
	return &node{
		hello: func(*peerpb.Hello) (*peerpb.HelloAck, error) {
			return &peerpb.HelloAck{Node: 2, State: "live"}, nil
		},
		handle: func(context.Context, *peerpb.Message) *peerpb.Message { return nil },
		closed: make(chan hlc.NodeID, 100),
	}
}

func (n *node) Meet(ctx context.Context, req topology.MeetRequest) topology.MeetReply {
	return n.registrar.HandleMeet(ctx, req)
}

func (n *node) Adopt(ctx context.Context, req topology.AdoptRequest) error {
	return n.registrar.HandleAdopt(ctx, req)
}

func (n *node) Enroll(ctx context.Context, req topology.EnrollRequest) (topology.EnrollReply, error) {
	return n.enroll(ctx, req)
}

func (n *node) Consensus(ctx context.Context, req *peerpb.ConsensusRequest) error {
	return n.consensus(ctx, req)
}

func (n *node) Hello(_ context.Context, h *peerpb.Hello) (*peerpb.HelloAck, error) { return n.hello(h) }

func (n *node) Handle(ctx context.Context, _ hlc.NodeID, req *peerpb.Message) *peerpb.Message {
	if req.GetHeartbeat() != nil {
		return &peerpb.Message{Body: &peerpb.Message_HeartbeatReply{HeartbeatReply: &peerpb.HeartbeatReply{Entries: 7}}}
	}
	return n.handle(ctx, req)
}

func (n *node) LinkClosed(from hlc.NodeID) { n.closed <- from }

// serve starts a server, on a free port if addr is empty.
func serve(t *testing.T, h Handler, addr string, opts ServerOptions) (*Server, string) {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(h, opts)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error("Serve:", err)
		}
	})
	return s, l.Addr().String()
}

// dial runs a link until the test ends, or until the returned stop is called.
func dial(t *testing.T, opts LinkOptions) (link *Link, stop func()) {
	t.Helper()
	opts.Hello = func() *peerpb.Hello { return &peerpb.Hello{Protocol: Protocol, Node: 1, ToNode: 2} }
	if opts.BackoffMin == 0 {
		opts.BackoffMin, opts.BackoffMax = time.Millisecond, 10*time.Millisecond
	}
	link = NewLink(opts)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		link.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return link, stop
}

// dialUp is dial that waits until the link is up.
func dialUp(t *testing.T, opts LinkOptions) (link *Link, stop func()) {
	t.Helper()
	up := make(chan struct{}, 100)
	given := opts.OnUp
	opts.OnUp = func(ack *peerpb.HelloAck) {
		if given != nil {
			given(ack)
		}
		up <- struct{}{}
	}
	link, stop = dial(t, opts)
	await(t, up)
	return link, stop
}

func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("it did not happen")
		panic("unreachable")
	}
}

// eventually polls what has no channel to wait on.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not happen")
		}
	}
}

func lookup(key string) *peerpb.Message {
	return &peerpb.Message{Body: &peerpb.Message_Lookup{Lookup: &peerpb.Lookup{Keys: [][]byte{[]byte(key)}}}}
}

func found(entries ...[]byte) *peerpb.Message {
	return &peerpb.Message{Body: &peerpb.Message_LookupReply{LookupReply: &peerpb.LookupReply{Entries: entries}}}
}

func echo(_ context.Context, req *peerpb.Message) *peerpb.Message {
	return found(req.GetLookup().GetKeys()...)
}

func TestLinkCallsAndCounts(t *testing.T) {
	n := newNode()
	n.handle = echo
	_, addr := serve(t, n, "", ServerOptions{})
	acks := make(chan *peerpb.HelloAck, 1)
	beats := make(chan *peerpb.HeartbeatReply, 100)
	link, stop := dialUp(t, LinkOptions{
		Addr: addr,
		OnUp: func(ack *peerpb.HelloAck) { acks <- ack },
		OnHeartbeat: func(r *peerpb.HeartbeatReply, rtt time.Duration) {
			if rtt <= 0 {
				t.Error("round trip:", rtt)
			}
			select {
			case beats <- r:
			default:
			}
		},
		HeartbeatInterval: 10 * time.Millisecond,
	})
	if ack := await(t, acks); ack.Node != 2 || ack.State != "live" {
		t.Error("HelloAck:", ack)
	}
	for range 3 {
		if r := await(t, beats); r.Entries != 7 {
			t.Error("heartbeat:", r)
		}
	}
	req := lookup("apple")
	reply, sent, received, err := link.CallSized(t.Context(), req)
	if err != nil || string(reply.GetLookupReply().Entries[0]) != "apple" {
		t.Fatal(reply, err)
	}
	// frame tag and length, call, body tag and length, key tag and length, key
	if want := 2 + 2 + 2 + 2 + 5; sent != want || received != want {
		t.Errorf("sent %d, received %d bytes, want %d", sent, received, want)
	}
	if req.Call != 0 {
		t.Error("the request was modified")
	}
	if !link.Up() || link.LastError() != nil {
		t.Error("up:", link.Up(), link.LastError())
	}
	stop()
	if _, err := link.Call(t.Context(), req); !errors.Is(err, ErrDown) {
		t.Error("after the end:", err)
	}
	if from := await(t, n.closed); from != 1 {
		t.Error("closed:", from)
	}
}

func TestRefusalCarriesItsReason(t *testing.T) {
	n := newNode()
	n.hello = func(h *peerpb.Hello) (*peerpb.HelloAck, error) {
		return nil, fmt.Errorf("checking: %w", &Refusal{CodeForeignCluster, "this is cluster A, you are in B"})
	}
	_, addr := serve(t, n, "", ServerOptions{})
	link, _ := dial(t, LinkOptions{Addr: addr})
	eventually(t, func() bool { return link.LastError() != nil })
	var r *Refusal
	if err := link.LastError(); !errors.As(err, &r) || r.Code != CodeForeignCluster || !strings.Contains(err.Error(), "cluster A") {
		t.Fatal(link.LastError())
	}
	if _, err := link.Call(t.Context(), lookup("k")); !errors.Is(err, ErrDown) {
		t.Fatal(err)
	}
	if len(n.closed) != 0 {
		t.Fatal("a link that never was has been closed")
	}
	// The status says it too, for other tools.
	cc, err := connect(addr, nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	stream, err := peerpb.NewPeerClient(cc).Link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hello := &peerpb.Message{Body: &peerpb.Message_Hello{Hello: &peerpb.Hello{Node: 1}}}
	if err := stream.Send(&peerpb.Frame{Messages: []*peerpb.Message{hello}}); err != nil {
		t.Fatal(err)
	}
	if f, err := stream.Recv(); err != nil || f.Messages[0].GetFailure().GetCode() != CodeForeignCluster {
		t.Fatal(f, err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "cluster A") {
		t.Fatal(err)
	}
}

func TestFailuresAreRemoteErrors(t *testing.T) {
	n := newNode()
	n.handle = func(_ context.Context, req *peerpb.Message) *peerpb.Message {
		if req.GetLookup() != nil {
			return failure("BUSY", "come again")
		}
		return nil
	}
	_, addr := serve(t, n, "", ServerOptions{})
	link, _ := dialUp(t, LinkOptions{Addr: addr})
	for _, test := range []struct {
		req  *peerpb.Message
		code string
	}{
		{lookup("k"), "BUSY"},
		{&peerpb.Message{Body: &peerpb.Message_Roots{Roots: &peerpb.Roots{}}}, CodeInternal},
		{&peerpb.Message{}, CodeUnsupported}, // as a newer peer's request would look
		{found(), CodeUnsupported},
	} {
		_, _, received, err := link.CallSized(t.Context(), test.req)
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Code != test.code || received == 0 {
			t.Errorf("%v: %v", test.req, err)
		}
	}
}

func TestLinkReturnsAfterServerRestart(t *testing.T) {
	n := newNode()
	entered := make(chan struct{})
	n.handle = func(ctx context.Context, req *peerpb.Message) *peerpb.Message {
		if string(req.GetLookup().Keys[0]) == "wait" {
			close(entered)
			<-ctx.Done()
		}
		return echo(ctx, req)
	}
	server, addr := serve(t, n, "", ServerOptions{})
	down := make(chan error, 10)
	up := make(chan struct{}, 10)
	link, _ := dialUp(t, LinkOptions{
		Addr:   addr,
		OnUp:   func(*peerpb.HelloAck) { up <- struct{}{} },
		OnDown: func(err error) { down <- err },
	})
	await(t, up)
	pending := make(chan error, 1)
	go func() {
		_, err := link.Call(context.Background(), lookup("wait"))
		pending <- err
	}()
	await(t, entered)
	server.Close()
	if len(n.closed) != 1 {
		t.Error("Close returned before the handler was done")
	}
	if err := await(t, pending); !errors.Is(err, ErrBroken) {
		t.Error("the pending call:", err)
	}
	if err := await(t, down); err == nil {
		t.Error("down without a reason")
	}
	if _, err := link.Call(t.Context(), lookup("k")); !errors.Is(err, ErrDown) {
		t.Error("while the server is away:", err)
	}
	serve(t, n, addr, ServerOptions{})
	await(t, up)
	if _, err := link.Call(t.Context(), lookup("k")); err != nil {
		t.Error("after the restart:", err)
	}
}

func TestFormOverGRPC(t *testing.T) {
	const nodes = 3
	listeners := make([]net.Listener, nodes)
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = l
	}
	records := make([]*topology.Record, nodes)
	var wg sync.WaitGroup
	for i, l := range listeners {
		r, err := topology.NewRegistrar(topology.RegistrarOptions{
			Me:       topology.Identity{Incarnation: fmt.Sprintf("%032x", i+1), Addr: l.Addr().String()},
			Expect:   nodes,
			Settings: topology.DefaultSettings(),
			Join:     []string{listeners[0].Addr().String()},
			Persist:  func(*topology.Record) error { return nil },
			Interval: 5 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		n := newNode()
		n.registrar = r
		s := NewServer(n, ServerOptions{})
		go s.Serve(l)
		t.Cleanup(s.Close)
		wg.Go(func() {
			var err error
			if records[i], _, err = r.Form(t.Context(), Dialer{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, r := range records {
		if r == nil || r.Fingerprint() != records[0].Fingerprint() {
			t.Fatal("not one cluster:", records)
		}
	}
	// A stranger is told so, and gets no secret.
	reply, err := Dialer{}.Meet(t.Context(), records[0].Members[2].Addr, topology.MeetRequest{
		Me: topology.Identity{Incarnation: fmt.Sprintf("%032x", 9), Addr: "127.0.0.1:1"}, Expect: 3, Settings: topology.DefaultSettings(),
	})
	if err != nil || reply.Formed == nil || reply.Formed.Record != nil || len(reply.Formed.Members) != nodes || !strings.Contains(reply.Refusal, "start it with --join and without --bootstrap-expect") {
		t.Fatal(reply, err)
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	n := newNode()
	n.handle = echo
	server, addr := serve(t, n, "", ServerOptions{})
	for range 5 {
		link, stop := dialUp(t, LinkOptions{Addr: addr})
		if _, err := link.Call(t.Context(), lookup("k")); err != nil {
			t.Fatal(err)
		}
		stop()
	}
	_, stop := dial(t, LinkOptions{Addr: "127.0.0.1:1"}) // nobody is there
	stop()
	server.Close()
	eventually(t, func() bool { return runtime.NumGoroutine() <= before })
}
