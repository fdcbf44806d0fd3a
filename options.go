package syntropy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"syntropy/internal/node"
	"syntropy/internal/topology"
)

// Options configure a node. The zero value of every field works.
//
// The fields under "cluster" are the same on all nodes of a cluster. They are fixed
// when it is created: then zero means the default that is named. Later zero means
// whatever the cluster has, and anything else has to be that. Errors call settings by
// the flags of the command "syntropy serve": RequestDeadline is --request-deadline.
type Options struct {
	// PeerAddr is where other nodes reach this one, host:port. It is the node's name
	// for life: give the same at every start, and no wildcard. By default it is the
	// address of PeerListener, and without one there is no peer port: the node is a
	// cluster of one, reachable by nobody, to which no other node can be added.
	PeerAddr string
	// PeerListener is the open port behind PeerAddr. Open takes it over and closes
	// it, also if it fails. By default Open listens on PeerAddr.
	PeerListener net.Listener
	// ClientAddr is where the clients of a server around this node reach it, host:port.
	// The other nodes are told, so that each can tell its clients where a key is: see
	// [DB.Whereabouts]. It may be another one at each start. By default there is none.
	ClientAddr string
	// Join names peer addresses of other nodes. One that turns out to be this node's
	// own is fine. An empty directory with Join alone enters the cluster that it finds
	// there.
	Join []string
	// BootstrapExpect is how many empty nodes form a cluster together, once they have
	// met by way of Join. By default a node on a loopback address without Join makes a
	// cluster of one; give it on all nodes, and the same number. Too low a number
	// can make two clusters of what was to be one.
	BootstrapExpect int
	// Zone is where this node is, such as the name of a rack: the replicas of a shard
	// are put into as many zones as there are. Printable ASCII without spaces, at
	// most 64 bytes; all nodes are in one zone by default.
	Zone string

	// Replicas (cluster) is how many nodes hold each key, 1 to 7, 3 by default. More
	// survive more failures and cost as many times the disk and the writes.
	Replicas int
	// Shards (cluster) is the number of units of placement and repair, a power of two
	// from 1 to 4096, 256 by default. Few make large units; many cost memory and
	// messages for each.
	Shards int
	// GCGrace (cluster) is how long a delete is remembered at least, 240 h by default.
	// A node away for longer is filled anew. It must exceed HintWindow, Settle,
	// RequestDeadline and MaxClockSkew together, or a late write could undo a delete.
	GCGrace time.Duration
	// HintWindow (cluster) is how long a write is kept for a replica that is down, 3 h
	// by default. Shorter leaves more to repair, longer takes disk.
	HintWindow time.Duration
	// Settle (cluster) is the age below which a difference between replicas counts as
	// a write on its way, 10 s by default; negative is none. A repair waits this
	// long for what is younger; without, it chases writes that arrive by themselves.
	Settle time.Duration
	// RequestDeadline (cluster) is how long one request may take, 5 s by default.
	// Shorter gives up on replicas that are only slow; longer makes callers wait for
	// those that are gone.
	RequestDeadline time.Duration
	// MaxClockSkew (cluster) is how far the clocks of two nodes may be apart, 500 ms by
	// default. Too low fences healthy nodes; too high lets a wrong clock win every
	// conflict.
	MaxClockSkew time.Duration

	// ReadConsistency and WriteConsistency are the levels of requests that name none,
	// Quorum by default. See [DB.At].
	ReadConsistency, WriteConsistency Level
	// RepairInterval is within which each pair of replicas is compared and made to
	// agree, 1 h by default; negative is never, but when Repair is called. Shorter
	// costs an exchange of some hundred bytes per pair more often; longer leaves
	// replicas stale for longer. It has to be far below GCGrace.
	RepairInterval time.Duration
	// NoHints keeps no writes for replicas that are down or late, and NoReadRepair
	// leaves replicas as reads find them. Both leave the work to repair.
	NoHints, NoReadRepair bool
	// HintBytesMax bounds what is kept for others on this disk, 1 GiB by default. What
	// does not fit is left to repair; a write never fails for it.
	HintBytesMax int64
	// HintBytesPerSecond bounds how fast what was kept is brought to one node that is
	// back, 8 MiB by default. Faster slows it down while it is most needed.
	HintBytesPerSecond int64
	// SyncInterval makes writes durable this often instead of before they are
	// acknowledged: a crash of this machine loses what this node acknowledged in that
	// time. Zero, the default, loses nothing.
	SyncInterval time.Duration
	// CacheBytes bounds the block cache, the most of this node's memory; zero is a
	// default of the storage engine. Too small reads the disk for every write.
	CacheBytes int64
	// MinFreeBytes is the free space of the disk below which no writes are taken; reads
	// go on. Zero is a share of the disk: a twentieth, within 256 MiB and 16 GiB, but at
	// most a quarter. Too little leaves no room for compactions.
	MinFreeBytes int64
	// ScrubInterval is how often every row is read and compared with the trees, 168 h by
	// default; negative is never. Rare finds rot late.
	ScrubInterval time.Duration
	// ScrubBytesPerSecond bounds how fast, 16 MiB by default.
	ScrubBytesPerSecond int64
	// Events are told what happens.
	Events Events
	// Logger gets what an operator should know; nil discards.
	Logger *slog.Logger
	// ClockOffset is added to the machine's clock, for tests of what wrong clocks do.
	ClockOffset time.Duration
}

const (
	defaultRepairInterval = time.Hour
	defaultScrubInterval  = 7 * 24 * time.Hour
)

// toNode checks the options and makes those of a node of them. On error the listener
// is closed.
func (o *Options) toNode(dir string) (opts node.Options, err error) {
	listener := o.PeerListener
	defer func() {
		if err != nil && listener != nil {
			err = errors.Join(err, listener.Close())
		}
	}()
	if err := o.check(dir); err != nil {
		return opts, err
	}
	settings, isSet := o.cluster()
	opts = node.Options{
		DataDir: dir, ClientAddr: o.ClientAddr, Join: o.Join, BootstrapExpect: o.BootstrapExpect, Settings: settings, IsSet: isSet, Zone: o.Zone,
		WriteConsistency: o.WriteConsistency, ReadConsistency: o.ReadConsistency,
		RepairInterval: o.RepairInterval, NoHints: o.NoHints, NoReadRepair: o.NoReadRepair,
		HintBytesMax: o.HintBytesMax, HintBytesPerSecond: o.HintBytesPerSecond, Events: o.Events.toNode(),
		MinFreeBytes: o.MinFreeBytes, ScrubInterval: o.ScrubInterval, ScrubBytesPerSecond: o.ScrubBytesPerSecond,
		SyncInterval: o.SyncInterval, ClockOffset: o.ClockOffset, CacheBytes: o.CacheBytes, Logger: o.Logger,
	}
	if o.RepairInterval == 0 {
		opts.RepairInterval = defaultRepairInterval
	}
	opts.RepairInterval = max(0, opts.RepairInterval)
	if o.ScrubInterval == 0 {
		opts.ScrubInterval = defaultScrubInterval
	}
	opts.ScrubInterval = max(0, opts.ScrubInterval)
	record, err := topology.RecordIn(dir)
	if err != nil {
		return opts, &Error{ErrInvalid, err}
	}
	if opts.PeerAddr, err = o.peerAddr(record); err != nil {
		return opts, err
	}
	if record == nil {
		if err := o.mayForm(opts.PeerAddr); err != nil {
			return opts, err
		}
		if o.BootstrapExpect == 0 && len(o.Join) == 0 {
			opts.BootstrapExpect = 1
		}
	}
	switch {
	case listener != nil:
	case opts.PeerAddr == loneAddr:
		listener = newLoneListener()
	default:
		if listener, err = net.Listen("tcp", opts.PeerAddr); err != nil {
			return opts, &Error{ErrInvalid, fmt.Errorf("PeerAddr %s: %w", opts.PeerAddr, err)}
		}
	}
	opts.PeerListener = listener
	return opts, nil
}

// check refuses values that no node can have. Those of the cluster are left to where
// they are known to count.
func (o *Options) check(dir string) error {
	if dir == "" {
		return invalid("the directory has no name: give the one that is to hold this node's data")
	}
	var errs []error
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"BootstrapExpect", int64(o.BootstrapExpect)}, {"HintBytesMax", o.HintBytesMax},
		{"HintBytesPerSecond", o.HintBytesPerSecond}, {"CacheBytes", o.CacheBytes},
		{"MinFreeBytes", o.MinFreeBytes}, {"ScrubBytesPerSecond", o.ScrubBytesPerSecond},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %d: it must not be negative; 0 is the default", f.name, f.value))
		}
	}
	if o.SyncInterval < 0 {
		errs = append(errs, fmt.Errorf("SyncInterval is %v: it must not be negative; 0 makes every write durable before it is acknowledged", o.SyncInterval))
	}
	for _, l := range []struct {
		name  string
		level Level
	}{{"ReadConsistency", o.ReadConsistency}, {"WriteConsistency", o.WriteConsistency}} {
		if l.level > All {
			errs = append(errs, fmt.Errorf("%s is %v: give One, Quorum or All", l.name, l.level))
		}
	}
	if len(errs) > 0 {
		return &Error{ErrInvalid, errors.Join(errs...)}
	}
	return nil
}

// cluster returns the settings of a cluster that this node would create, and which
// of them were given, by flag.
func (o *Options) cluster() (s topology.Settings, isSet func(flag string) bool) {
	s = topology.DefaultSettings()
	given := make(map[string]bool)
	number := func(flag string, to *int, value int) {
		if value != 0 {
			*to, given[flag] = value, true
		}
	}
	span := func(flag string, to *time.Duration, value time.Duration) {
		if value != 0 {
			*to, given[flag] = value, true
		}
	}
	number("replicas", &s.Replicas, o.Replicas)
	number("shards", &s.Shards, o.Shards)
	span("gc-grace", &s.GCGrace, o.GCGrace)
	span("hint-window", &s.HintWindow, o.HintWindow)
	span("settle", &s.Settle, o.Settle)
	span("request-deadline", &s.RequestDeadline, o.RequestDeadline)
	span("max-clock-skew", &s.MaxClockSkew, o.MaxClockSkew)
	s.Settle = max(0, s.Settle)
	return s, func(flag string) bool { return given[flag] }
}

// peerAddr decides on the address of this node.
func (o *Options) peerAddr(record *topology.Record) (string, error) {
	addr := o.PeerAddr
	if addr == "" && o.PeerListener != nil {
		addr = o.PeerListener.Addr().String()
	}
	if addr != "" {
		return addr, checkPeerAddr(addr)
	}
	if len(o.Join) > 0 || o.BootstrapExpect > 1 {
		return "", invalid("PeerAddr is missing: nodes of a cluster of several reach each other there")
	}
	if record != nil {
		if _, alone := record.MemberByAddr(loneAddr); !alone {
			return "", invalid("PeerAddr is missing: the directory holds a member of a cluster, one of %v; give the address that this node had", record.Members)
		}
	}
	return loneAddr, nil
}

func checkPeerAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if n, notNumber := strconv.Atoi(port); err != nil || notNumber != nil || n < 1 || n > 65535 {
		return invalid("PeerAddr %q: give host:port with a fixed port; other nodes dial it, also after a restart", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return invalid("PeerAddr %q: give the address by which other nodes reach this one, not a wildcard", addr)
	}
	return nil
}

// mayForm refuses to make a cluster of one on an address that others can reach: most
// likely the names of the others were forgotten.
func (o *Options) mayForm(addr string) error {
	if o.BootstrapExpect > 0 || len(o.Join) > 0 || addr == loneAddr {
		return nil
	}
	host, _, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return invalid("give Join, and BootstrapExpect if there is no cluster yet: on %s, an address that others can reach, a node makes no cluster of one by itself", addr)
}
