package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
)

func TestCourierDelivers(t *testing.T) {
	before := runtime.NumGoroutine()
	n := newNode()
	got := make(chan *peerpb.ConsensusRequest, 10)
	n.consensus = func(_ context.Context, req *peerpb.ConsensusRequest) error {
		if req.To != 2 {
			return fmt.Errorf("this is n2, not n%d", req.To)
		}
		got <- req
		return nil
	}
	server, addr := serve(t, n, "", ServerOptions{})
	c := NewCourier(CourierOptions{})
	req := &peerpb.ConsensusRequest{ClusterId: "c", RecordFingerprint: "f", From: 1, To: 2, Messages: [][]byte{{1}, {2, 3}}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Deliver(ctx, addr, req); err != nil {
		t.Fatal(err)
	}
	if m := await(t, got); m.ClusterId != "c" || m.RecordFingerprint != "f" || m.From != 1 || m.To != 2 || !reflect.DeepEqual(m.Messages, req.Messages) {
		t.Error("arrived as", m)
	}
	if err := c.Deliver(ctx, addr, &peerpb.ConsensusRequest{To: 3}); err == nil || err.Error() != "this is n2, not n3" {
		t.Error("a refusal:", err)
	}

	// While the node is away deliveries fail at once, and go on when it is back.
	server.Close()
	eventually(t, func() bool { return c.Deliver(ctx, addr, req) != nil })
	server, _ = serve(t, n, addr, ServerOptions{})
	eventually(t, func() bool { return c.Deliver(ctx, addr, req) == nil })

	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Deliver(ctx, addr, req); !errors.Is(err, errCourierClosed) {
		t.Error("after the end:", err)
	}
	server.Close()
	eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 }) // those of serve
}

// TestCourierAndSilence: a node that takes connections and never answers costs a
// deadline, and gets a new connection afterwards. Close waits for deliveries.
func TestCourierAndSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conns := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	c := NewCourier(CourierOptions{})
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := c.Deliver(ctx, l.Addr().String(), &peerpb.ConsensusRequest{}); err == nil {
			t.Error("delivered to nobody")
		}
		cancel()
		await(t, conns).Close()
	}

	n := newNode()
	entered := make(chan struct{})
	n.consensus = func(ctx context.Context, _ *peerpb.ConsensusRequest) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}
	_, addr := serve(t, n, "", ServerOptions{})
	failed := make(chan error, 1)
	go func() { failed <- c.Deliver(context.Background(), addr, &peerpb.ConsensusRequest{}) }()
	await(t, entered)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := await(t, failed); err == nil {
		t.Error("a delivery outlived its courier")
	}
}

func TestCourierKnowsNoMoreNodesThanThereCanBe(t *testing.T) {
	c := NewCourier(CourierOptions{})
	defer c.Close()
	for port := range courierConns + 1 {
		_, err := c.begin(fmt.Sprintf("127.0.0.1:%d", port+1))
		if port < courierConns {
			if err != nil {
				t.Fatal(err)
			}
			c.deliveries.Done()
		} else if err == nil || !strings.Contains(err.Error(), "more than a cluster can have") {
			t.Error("one too many:", err)
		}
	}
}

func TestEnrollOverGRPC(t *testing.T) {
	record, err := topology.NewLoneRecord(topology.DefaultSettings(), topology.Identity{Incarnation: fmt.Sprintf("%032x", 1), Addr: "a:1", Zone: "z"}, strings.NewReader(strings.Repeat("x", 100)), time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	want := topology.EnrollRequest{ClusterID: "c", Me: topology.Identity{Incarnation: fmt.Sprintf("%032x", 2), Addr: "b:1", Zone: "y"}}
	reply, failure := topology.EnrollReply{}, error(nil)
	n := newNode()
	n.enroll = func(ctx context.Context, req topology.EnrollRequest) (topology.EnrollReply, error) {
		if req != want {
			t.Errorf("arrived as %+v", req)
		}
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) < 2*time.Second {
			t.Error("there is no time to agree, until", deadline)
		}
		return reply, failure
	}
	_, addr := serve(t, n, "", ServerOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	reply = topology.EnrollReply{Record: record, Table: topology.FirstTable(record)}
	got, err := Dialer{}.Enroll(ctx, addr, want)
	if err != nil || got.Refusal != "" || got.Record.Fingerprint() != record.Fingerprint() || !reflect.DeepEqual(got.Table, reply.Table) || got.Table.Members[0].Zone != "z" {
		t.Error(got, err)
	}
	reply = topology.EnrollReply{Refusal: "never"}
	if got, err = (Dialer{}).Enroll(ctx, addr, want); err != nil || got != reply {
		t.Error(got, err)
	}
	failure = errors.New("not now")
	if _, err = (Dialer{}).Enroll(ctx, addr, want); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Error(err)
	}
	reply, failure = topology.EnrollReply{}, nil
	if _, err = (Dialer{}).Enroll(ctx, addr, want); err == nil {
		t.Error("a reply without a record was accepted")
	}
}

// TestFormedCarriesTable: who asks from a member's address is told the newest
// table with the record, and zones travel everywhere.
func TestFormedCarriesTable(t *testing.T) {
	me := topology.Identity{Incarnation: fmt.Sprintf("%032x", 1), Addr: "a:1", Zone: "z"}
	record, err := topology.NewLoneRecord(topology.DefaultSettings(), me, strings.NewReader(strings.Repeat("x", 100)), time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	want := topology.MeetReply{
		Mine:   topology.MeetRequest{Me: me, Expect: 1, Settings: record.Settings, View: []topology.Identity{me}},
		Formed: &topology.Formed{ClusterID: record.ClusterID, Members: record.Members, Record: record, Table: topology.FirstTable(record)},
	}
	m, err := meetReplyTo(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := meetReplyFrom(m); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	m.Formed.TableJson = []byte("{}")
	if _, err := meetReplyFrom(m); err == nil {
		t.Error("took an unreadable table")
	}
}
