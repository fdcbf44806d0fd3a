package main

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"syntropy/internal/node"
	"syntropy/internal/resp"
	"syntropy/internal/topology"
)

// TestMGetStopsInTime: one call brings no more than resp asks for, and tells an
// empty value from none.
func TestMGetStopsInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(node.Options{
		DataDir: t.TempDir(), PeerListener: l, PeerAddr: l.Addr().String(), BootstrapExpect: 1,
		Settings: topology.DefaultSettings(), IsSet: func(string) bool { return false },
		CacheBytes: 1 << 20, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	d := frontDoor{n}
	large := bytes.Repeat([]byte("v"), resp.ValueBytesMax)
	pairs := []resp.Pair{{Key: []byte("large"), Value: large}, {Key: []byte("empty"), Value: []byte{}}}
	again := time.NewTicker(10 * time.Millisecond) // until the node has formed its cluster
	defer again.Stop()
	for d.Put(t.Context(), pairs) != nil {
		select {
		case <-again.C:
		case <-t.Context().Done():
			t.Fatal("the node does not take writes")
		}
	}
	keys := func(names ...string) (list [][]byte) {
		for _, name := range names {
			list = append(list, []byte(name))
		}
		return list
	}
	values, err := d.MGet(t.Context(), keys("empty", "nothing", "large", "large", "large"))
	if err != nil || len(values) != 3 || values[0] == nil || len(values[0]) > 0 || values[1] != nil || !bytes.Equal(values[2], large) {
		t.Errorf("%d values, %v", len(values), err)
	}
	values, err = d.MGet(t.Context(), keys("nothing", "empty"))
	if err != nil || len(values) != 2 || values[0] != nil || values[1] == nil {
		t.Errorf("%q, %v", values, err)
	}
}
