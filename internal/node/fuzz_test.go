package node

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"syntropy/hlc"
	"syntropy/internal/rpc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
)

// fuzzed is one of two nodes that are up, which is sent what the fuzzer makes up, as if
// by the other.
var fuzzed = sync.OnceValues(func() (*Node, error) {
	settings := testSettings()
	settings.Replicas = 2
	nodes := make([]*Node, 2)
	var listeners []net.Listener
	var addrs []string
	for range nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners, addrs = append(listeners, l), append(addrs, l.Addr().String())
	}
	for i := range nodes {
		n, err := Start(Options{
			DataDir: filepath.Join(fuzzDir, fmt.Sprint(i)), PeerListener: listeners[i], PeerAddr: addrs[i], Join: addrs,
			BootstrapExpect: len(nodes), Settings: settings, CacheBytes: 1 << 20,
		})
		if err != nil {
			return nil, err
		}
		nodes[i] = n
	}
	ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ; ctx.Err() == nil; <-tick.C {
		if st, err := nodes[0].Status(ctx); err == nil && len(st.Nodes) == 2 && st.Nodes[0].Up && st.Nodes[1].Up {
			fuzzStop = func() error {
				nodes[1].Close()
				return nodes[0].Close()
			}
			return nodes[0], nil
		}
	}
	return nil, ctx.Err()
})

var (
	fuzzDir  string
	fuzzStop = func() error { return nil }
)

// FuzzPeerMessage: whatever another member says, the node answers it, or says what is
// wrong with it, and goes on; and its trees say what its rows add up to.
func FuzzPeerMessage(f *testing.F) {
	fuzzDir = f.TempDir()
	now := hlc.FromTime(time.Now())
	e := lww.Entry{Key: []byte("k"), Value: []byte("v"), Version: lww.Version{Stamp: now, Node: 2}}
	row := lww.AppendEntry(nil, e)
	for _, m := range []*peerpb.Message{
		{Body: &peerpb.Message_Heartbeat{Heartbeat: &peerpb.Heartbeat{WallUs: now.Micros(), State: "live"}}},
		{Body: &peerpb.Message_HeartbeatReply{HeartbeatReply: &peerpb.HeartbeatReply{WallUs: 1, State: "live", Entries: -1, Proofs: []*peerpb.Proof{{With: 1, UntilUs: 5}}}}},
		{Body: &peerpb.Message_Apply{Apply: &peerpb.Apply{Entries: [][]byte{row, row[:3]}}}},
		{Body: &peerpb.Message_Apply{Apply: &peerpb.Apply{Entries: [][]byte{row}, Flags: 255}}},
		{Body: &peerpb.Message_Lookup{Lookup: &peerpb.Lookup{Keys: [][]byte{[]byte("k"), nil}, DigestKeys: [][]byte{[]byte("k")}, Inspect: true}}},
		{Body: &peerpb.Message_Scan{Scan: &peerpb.Scan{Shard: 3, From: 1, EntriesMax: 10, BytesMax: 100, Values: true}}},
		{Body: &peerpb.Message_Scan{Scan: &peerpb.Scan{Shard: 1 << 31, From: 1 << 63}}},
		{Body: &peerpb.Message_Session{Session: &peerpb.Session{Id: 1, Open: true, Payload: []byte{1, 3}}}},
		{Body: &peerpb.Message_Session{Session: &peerpb.Session{Id: 1, Cancel: true}}},
		{Body: &peerpb.Message_Roots{Roots: &peerpb.Roots{}}},
		{Body: &peerpb.Message_Repair{Repair: &peerpb.Repair{OptionsJson: []byte(`{"dry_run":true,"no_wait":true}`), Partner: 2}}},
		{Body: &peerpb.Message_Repair{Repair: &peerpb.Repair{OptionsJson: []byte(`{`), Partner: 9}}},
		{Body: &peerpb.Message_Leaving{Leaving: &peerpb.Leaving{}}},
		{Body: &peerpb.Message_Hello{Hello: &peerpb.Hello{Protocol: rpc.Protocol, Node: 2, ToNode: 1, State: "live"}}},
		{Body: &peerpb.Message_HelloAck{HelloAck: &peerpb.HelloAck{Node: 2, State: "live", ClientAddr: "x:1"}}},
		{},
	} {
		raw, err := m.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Cleanup(func() {
		if err := fuzzStop(); err != nil {
			f.Errorf("closing: %v", err)
		}
	})
	f.Fuzz(func(t *testing.T, raw []byte) {
		msg := new(peerpb.Message)
		if msg.UnmarshalVT(raw) != nil {
			return
		}
		n, err := fuzzed()
		if err != nil {
			t.Fatal(err)
		}
		r, err := n.running()
		if err != nil {
			t.Fatal(err)
		}
		other := 3 - n.ID() // of 1 and 2
		ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
		defer cancel()
		if hello := msg.GetHello(); hello != nil {
			if _, err := (&peerHandler{n}).Hello(ctx, hello); err == nil {
				(&peerHandler{n}).LinkClosed(other)
			}
		}
		if h := msg.GetHeartbeatReply(); h != nil {
			r.heartbeatFrom(r.peer(other), h, time.Millisecond)
		}
		reply := (&peerHandler{n}).Handle(ctx, other, msg)
		if reply == nil || reply.Body == nil {
			t.Fatalf("%v is answered %v", msg, reply)
		}
		if failure := reply.GetFailure(); failure != nil && (failure.Code == "" || failure.Text == "") {
			t.Errorf("%v fails with %v", msg, failure)
		}
		if _, err := reply.MarshalVT(); err != nil {
			t.Errorf("the answer to %v cannot be sent: %v", msg, err)
		}
		if msg.GetApply() == nil {
			return
		}
		roots, err := n.Roots(ctx, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, shard := range roots.Shards {
			for _, replica := range shard.Replicas {
				if replica.Node == n.ID() && replica.Root != replica.Recomputed {
					t.Errorf("after %v the root of shard %d is %s, its rows say %s", msg, shard.Shard, replica.Root, replica.Recomputed)
				}
			}
		}
	})
}
