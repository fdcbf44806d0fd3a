package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
)

// The decision what shares a frame, without a network.
func TestOutboxCoalesces(t *testing.T) {
	key := func(size int) *peerpb.Message { return lookup(strings.Repeat("k", size)) }
	o := newOutbox()
	var frames []*peerpb.Frame
	var want []*peerpb.Message
	for i := range outboxMessages {
		size := 10
		switch i {
		case 100, 101:
			size = frameBytes - 100 // fits alone, not together
		case 200:
			size = 2 * frameBytes // goes alone
		}
		m := key(size)
		want = append(want, m)
		o.queue <- m
	}
	done := make(chan struct{})
	sent := 0
	err := o.run(done, func(f *peerpb.Frame) error {
		frames = append(frames, f)
		if f.SizeVT() > frameBytes && len(f.Messages) > 1 {
			t.Errorf("frame %d has %d messages and %d bytes", len(frames), len(f.Messages), f.SizeVT())
		}
		for _, m := range f.Messages {
			if m != want[sent] {
				t.Fatalf("message %d is out of order", sent)
			}
			sent++
		}
		if sent == len(want) {
			close(done)
		}
		return nil
	})
	if err != nil || len(frames) > 6 {
		t.Fatalf("%d frames for %d messages, %v", len(frames), len(want), err)
	}
	broken := errors.New("broken")
	o.queue <- key(1)
	if err := o.run(nil, func(*peerpb.Frame) error { return broken }); err != broken {
		t.Fatal(err)
	}
}

// While one Send is under way others gather: calls share frames.
func TestConcurrentCallsShareFrames(t *testing.T) {
	release := make(chan struct{})
	var inFlight, most atomic.Int64
	n := newNode()
	n.handle = func(ctx context.Context, req *peerpb.Message) *peerpb.Message {
		now := inFlight.Add(1)
		defer inFlight.Add(-1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return echo(ctx, req)
	}
	_, addr := serve(t, n, "", ServerOptions{})
	beats := make(chan struct{}, 1000)
	link, _ := dialUp(t, LinkOptions{
		Addr:              addr,
		HeartbeatInterval: 5 * time.Millisecond,
		OnHeartbeat: func(*peerpb.HeartbeatReply, time.Duration) {
			select {
			case beats <- struct{}{}:
			default:
			}
		},
	})
	var wg sync.WaitGroup
	const calls = 4 * maxInFlight
	for i := range calls {
		wg.Go(func() {
			key := fmt.Sprint("key ", i)
			reply, err := link.Call(context.Background(), lookup(key))
			if err != nil || string(reply.GetLookupReply().Entries[0]) != key {
				t.Error(i, reply, err)
			}
		})
	}
	eventually(t, func() bool { return inFlight.Load() == maxInFlight })
	// The window is full; heartbeats still pass, and a caller can give up.
	for len(beats) > 0 {
		<-beats
	}
	for range 3 {
		await(t, beats)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, sent, _, err := link.CallSized(ctx, lookup("late")); !errors.Is(err, context.DeadlineExceeded) || sent != 0 {
		t.Error("a call beyond the window:", sent, err)
	}
	close(release)
	wg.Wait()
	if most.Load() > maxInFlight {
		t.Errorf("%d handlers at once, at most %d are allowed", most.Load(), maxInFlight)
	}
}

// A client of another make that ignores the window meets the server's limit.
func TestServerStopsReadingAtItsLimit(t *testing.T) {
	release := make(chan struct{})
	var inFlight atomic.Int64
	n := newNode()
	n.handle = func(ctx context.Context, req *peerpb.Message) *peerpb.Message {
		if now := inFlight.Add(1); now > maxInFlight {
			t.Errorf("%d handlers at once", now)
		}
		defer inFlight.Add(-1)
		select {
		case <-release:
		case <-ctx.Done():
		}
		return echo(ctx, req)
	}
	_, addr := serve(t, n, "", ServerOptions{})
	stream := rawStream(t, addr)
	const calls = 3 * maxInFlight
	messages := []*peerpb.Message{{Body: &peerpb.Message_Hello{Hello: &peerpb.Hello{Node: 1}}}}
	for i := range calls {
		m := lookup("k")
		m.Call = uint64(i + 1)
		messages = append(messages, m)
	}
	if err := stream.Send(&peerpb.Frame{Messages: messages}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return inFlight.Load() == maxInFlight })
	close(release)
	frames := 0
	for got := 0; got < calls+1; frames++ {
		f, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		got += len(f.Messages)
	}
	t.Logf("%d replies came in %d frames", calls+1, frames)
}

func rawStream(t *testing.T, addr string) peerpb.Peer_LinkClient {
	t.Helper()
	cc, err := connect(addr, nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	stream, err := peerpb.NewPeerClient(cc).Link(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestAbandonedCallKeepsItsPlace(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, 1)
	n := newNode()
	n.handle = func(ctx context.Context, req *peerpb.Message) *peerpb.Message {
		entered <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return echo(ctx, req)
	}
	_, addr := serve(t, n, "", ServerOptions{})
	link, _ := dialUp(t, LinkOptions{Addr: addr})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, sent, _, err := link.CallSized(ctx, lookup("k")); !errors.Is(err, context.Canceled) || sent == 0 {
		t.Fatal(sent, err)
	}
	if held := len(link.conn.window); held != 1 {
		t.Fatal("places held:", held)
	}
	close(release)
	eventually(t, func() bool { return len(link.conn.window) == 0 })
	if _, err := link.Call(t.Context(), lookup("k")); err != nil {
		t.Fatal("the late reply broke the link:", err)
	}
}

// mute answers nothing at all, heartbeats included.
type mute struct{ *node }

func (m mute) Handle(ctx context.Context, _ hlc.NodeID, _ *peerpb.Message) *peerpb.Message {
	<-ctx.Done()
	return nil
}

func TestSilentPeerIsDead(t *testing.T) {
	n := mute{newNode()}
	_, addr := serve(t, n, "", ServerOptions{})
	down := make(chan error, 100)
	link, _ := dialUp(t, LinkOptions{
		Addr: addr, HeartbeatInterval: 5 * time.Millisecond, DeadAfter: 50 * time.Millisecond,
		BackoffMin: time.Hour, // once is enough
		OnDown:     func(err error) { down <- err },
	})
	_, err := link.Call(t.Context(), lookup("k"))
	if !errors.Is(err, ErrBroken) {
		t.Error("the pending call:", err)
	}
	if err := await(t, down); !strings.Contains(err.Error(), "silent") {
		t.Error(err)
	}
	await(t, n.closed)
}

func TestSilenceBeforeHelloEndsTheStream(t *testing.T) {
	_, addr := serve(t, newNode(), "", ServerOptions{HelloTimeout: 20 * time.Millisecond})
	if _, err := rawStream(t, addr).Recv(); status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	for _, messages := range [][]*peerpb.Message{nil, {lookup("k")}} {
		stream := rawStream(t, addr)
		if err := stream.Send(&peerpb.Frame{Messages: messages}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Error(err)
		}
	}
}

func TestStrangersDisturbNobody(t *testing.T) {
	n := newNode()
	n.handle = echo
	_, addr := serve(t, n, "", ServerOptions{HelloTimeout: 50 * time.Millisecond})
	before, _ := dialUp(t, LinkOptions{Addr: addr})
	noise := make([]byte, 4096)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for _, talk := range [][]byte{noise, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), nil} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(talk); err != nil {
			t.Fatal(err)
		}
		// The server hangs up, if only because nothing came.
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if _, err := bytes.NewBuffer(nil).ReadFrom(conn); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("the connection of %.3q stays open", talk)
		}
		conn.Close()
	}
	after, _ := dialUp(t, LinkOptions{Addr: addr})
	for _, link := range []*Link{before, after} {
		if _, err := link.Call(t.Context(), lookup("k")); err != nil {
			t.Error(err)
		}
	}
}

func TestLargestMessagePasses(t *testing.T) {
	n := newNode()
	n.handle = func(ctx context.Context, req *peerpb.Message) *peerpb.Message {
		if string(req.GetLookup().Keys[0]) == "huge" {
			return found(make([]byte, MaxMessage))
		}
		return echo(ctx, req)
	}
	_, addr := serve(t, n, "", ServerOptions{})
	link, _ := dialUp(t, LinkOptions{Addr: addr, DeadAfter: patience})
	overhead := WireSize(lookup(strings.Repeat("k", 1<<22))) - 1<<22
	big := strings.Repeat("k", MaxMessage-overhead-maxCallBytes)
	reply, err := link.Call(t.Context(), lookup(big))
	if err != nil || string(reply.GetLookupReply().Entries[0]) != big {
		t.Fatal("the largest:", err)
	}
	if _, err := link.Call(t.Context(), lookup(big+"k")); !errors.Is(err, ErrTooLarge) {
		t.Fatal("one byte more:", err)
	}
	var remote *RemoteError
	if _, err := link.Call(t.Context(), lookup("huge")); !errors.As(err, &remote) || remote.Code != CodeTooLarge {
		t.Fatal("a huge reply:", err)
	}
	if _, err := link.Call(t.Context(), lookup("k")); err != nil {
		t.Fatal("afterwards:", err)
	}
}
