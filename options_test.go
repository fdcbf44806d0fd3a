package syntropy

import (
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"syntropy/internal/topology"
)

func TestOptionsAreRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Options
		says    string
	}{
		{"a wildcard", Options{PeerAddr: "0.0.0.0:7101"}, "not a wildcard"},
		{"no host", Options{PeerAddr: ":7101"}, "not a wildcard"},
		{"port zero", Options{PeerAddr: "127.0.0.1:0"}, "fixed port"},
		{"no port", Options{PeerAddr: "127.0.0.1"}, "fixed port"},
		{"a port by name", Options{PeerAddr: "127.0.0.1:http"}, "fixed port"},
		{"join without an address", Options{Join: []string{"127.0.0.1:7102"}}, "PeerAddr is missing"},
		{"expect without an address", Options{BootstrapExpect: 3}, "PeerAddr is missing"},
		{"alone where others can reach it", Options{PeerAddr: "192.0.2.1:7101"}, "no cluster of one by itself"},
		{"negative expect", Options{BootstrapExpect: -1}, "BootstrapExpect is -1"},
		{"negative cache", Options{CacheBytes: -1}, "CacheBytes is -1"},
		{"negative hints", Options{HintBytesMax: -1}, "HintBytesMax is -1"},
		{"negative rate", Options{HintBytesPerSecond: -1}, "HintBytesPerSecond is -1"},
		{"negative sync", Options{SyncInterval: -1}, "SyncInterval is -1ns"},
		{"no such level", Options{ReadConsistency: 9}, "ReadConsistency is level(9)"},
		{"too many replicas", Options{Replicas: 8}, "replicas is 8"},
		{"shards", Options{Shards: 3}, "power of two"},
		{"gc_grace too short", Options{GCGrace: time.Hour}, "gc_grace 1h0m0s must exceed"},
		{"a zone with a space", Options{Zone: "rack 1"}, "is not a zone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := Open(filepath.Join(t.TempDir(), "data"), &c.options)
			if err == nil {
				db.Close()
				t.Fatal("it was accepted")
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %q, which should wrap ErrInvalid and say %q", err, c.says)
			}
		})
	}
	if _, err := Open("", nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("a directory without a name: %v", err)
	}
}

// A listener that was handed over is closed, whatever becomes of the node.
func TestOpenClosesTheListenerWhenItFails(t *testing.T) {
	for name, o := range map[string]Options{
		"before the node": {SyncInterval: -1},
		"by the node":     {Replicas: 8},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.PeerListener = l
		if _, err := Open(t.TempDir(), &o); err == nil {
			t.Fatalf("%s: it was accepted", name)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener is still open: %v", name, err)
		}
	}
}

func TestClusterSettings(t *testing.T) {
	s, isSet := (&Options{}).cluster()
	if s != topology.DefaultSettings() {
		t.Errorf("without options a new cluster has %+v", s)
	}
	flags := []string{"replicas", "shards", "gc-grace", "hint-window", "settle", "request-deadline", "max-clock-skew"}
	if i := slices.IndexFunc(flags, isSet); i >= 0 {
		t.Errorf("without options %s counts as given", flags[i])
	}

	s, isSet = (&Options{
		Replicas: 5, Shards: 8, GCGrace: time.Hour, HintWindow: 2 * time.Second, Settle: -1,
		RequestDeadline: 3 * time.Second, MaxClockSkew: 4 * time.Second,
	}).cluster()
	want := topology.Settings{
		Replicas: 5, Shards: 8, GCGrace: time.Hour, HintWindow: 2 * time.Second, Settle: 0,
		RequestDeadline: 3 * time.Second, MaxClockSkew: 4 * time.Second, DigestVersion: topology.DefaultSettings().DigestVersion,
	}
	if s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	for _, flag := range flags {
		if !isSet(flag) {
			t.Errorf("%s does not count as given", flag)
		}
	}
}

func TestDefaults(t *testing.T) {
	opts, err := (&Options{}).toNode(filepath.Join(t.TempDir(), "absent"))
	if err != nil {
		t.Fatal(err)
	}
	defer opts.PeerListener.Close()
	if opts.PeerAddr != loneAddr || opts.BootstrapExpect != 1 {
		t.Errorf("without options the node is at %s and expects %d: want a cluster of one, alone", opts.PeerAddr, opts.BootstrapExpect)
	}
	if _, ok := opts.PeerListener.(*loneListener); !ok {
		t.Errorf("a node that nobody is to reach opened a port: %T", opts.PeerListener)
	}
	if opts.RepairInterval != time.Hour {
		t.Errorf("pairs are compared within %v by default, want 1h", opts.RepairInterval)
	}
	never, err := (&Options{RepairInterval: -1}).toNode(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer never.PeerListener.Close()
	if never.RepairInterval != 0 {
		t.Errorf("a negative RepairInterval is passed on as %v, want 0: never", never.RepairInterval)
	}
}

func TestAddressOfTheListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opts, err := (&Options{PeerListener: l}).toNode(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer opts.PeerListener.Close()
	if opts.PeerAddr != l.Addr().String() {
		t.Errorf("the peer address is %s, the listener's is %s", opts.PeerAddr, l.Addr())
	}
}
