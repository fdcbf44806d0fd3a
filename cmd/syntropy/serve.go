package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"syntropy/internal/admin"
	"syntropy/internal/node"
	"syntropy/internal/resp"
	"syntropy/internal/topology"
)

// serveFlags are the settings of one node, as given on its command line.
type serveFlags struct {
	dataDir     string
	listen      string
	peerListen  string
	adminListen string
	join        []string
	expect      int
	sync        string
	cluster     topology.Settings
	clockOffset time.Duration
	cache       int64
	verbose     bool
}

func newServe(a *app) *cobra.Command {
	f := serveFlags{cluster: topology.DefaultSettings()}
	cmd := &cobra.Command{
		Use:     "serve --data-dir D",
		GroupID: groupNode,
		Short:   "run one node",
		Long: `Runs one node until it gets SIGTERM or Ctrl-C; then it finishes the requests it
has begun, makes everything durable and exits with 0.

A cluster forms itself: start as many empty nodes as --bootstrap-expect says, each
with the peer address of at least one other. They meet, create the cluster
together, and remember it in their data directories; from then on its members are
fixed and every member holds every key. A lone serve on an empty directory on
loopback makes a cluster of one.

Cluster settings (--replicas to --max-clock-skew) must be the same on all nodes when
the cluster forms, and are fixed then. Later they may be left out.

Three nodes on one machine (or let "syntropy dev" do it):

Example:
  $ syntropy serve --data-dir a --listen 127.0.0.1:7001 --peer-listen 127.0.0.1:7101 \
      --admin-listen 127.0.0.1:7201 --bootstrap-expect 3 --join 127.0.0.1:7102
  $ syntropy serve --data-dir b --listen 127.0.0.1:7002 --peer-listen 127.0.0.1:7102 \
      --admin-listen 127.0.0.1:7202 --bootstrap-expect 3 --join 127.0.0.1:7103
  $ syntropy serve --data-dir c --listen 127.0.0.1:7003 --peer-listen 127.0.0.1:7103 \
      --admin-listen 127.0.0.1:7203 --bootstrap-expect 3 --join 127.0.0.1:7101
  $ redis-cli -p 7001 set greeting hello
  $ redis-cli -p 7003 get greeting

Writes go to all nodes that are up. A node that was down lacks what was written
meanwhile until somebody runs "syntropy repair": nobody keeps the writes for it, and
nodes do not repair by themselves in this version.

A node that was away for longer than --gc-grace while the others went on neither serves
nor syncs, since no delete is promised to be remembered for longer: it says so, and
comes back with an empty data directory, which is then filled from the others.

With --sync interval:100ms a write is acknowledged before it is durable: a crash of this
machine loses what this node wrote in the last 100 ms.

The ports carry no encryption and ask for no password in this version: keep them on
loopback or on a network that you trust.

Exit statuses: 0 stopped as asked; 1 it could not start or go on; 2 usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.serve(cmd.Context(), f, cmd.Flags().Changed)
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.dataDir, "data-dir", "", "`directory` for all that the node keeps; created if absent (required)")
	fl.StringVar(&f.listen, "listen", "127.0.0.1:7001", "`H:P` for clients (Redis protocol)")
	fl.StringVar(&f.peerListen, "peer-listen", "127.0.0.1:7101", "`H:P` for other nodes: they dial it")
	fl.StringVar(&f.adminListen, "admin-listen", defaultAdmin, "`H:P` for operators (HTTP)")
	fl.StringArrayVar(&f.join, "join", nil, "peer address `H:P` of another node; repeat for several")
	fl.IntVar(&f.expect, "bootstrap-expect", 0, "form a new cluster as soon as this `number` of empty nodes have met")
	fl.StringVar(&f.sync, "sync", "always", "durable before each OK, or every D: `always|interval:D`")
	fl.Int64Var(&f.cache, "cache-mib", 256, "`MiB` of memory for the block cache")
	fl.BoolVar(&f.verbose, "verbose", false, "log every connection and the storage engine's doings")
	s := &f.cluster
	fl.IntVar(&s.Replicas, "replicas", s.Replicas, "cluster: `number` of nodes at most; each holds every key")
	fl.IntVar(&s.Shards, "shards", s.Shards, "cluster: `number` of shards, a power of two")
	fl.DurationVar(&s.GCGrace, "gc-grace", s.GCGrace, "cluster: a delete is remembered for at least this")
	fl.DurationVar(&s.HintWindow, "hint-window", s.HintWindow, "cluster: older writes reach a node by repair only")
	fl.DurationVar(&s.Settle, "settle", s.Settle, "cluster: younger differences are writes on their way")
	fl.DurationVar(&s.RequestDeadline, "request-deadline", s.RequestDeadline, "cluster: the time a request may take")
	fl.DurationVar(&s.MaxClockSkew, "max-clock-skew", s.MaxClockSkew, "cluster: the most by which two nodes' clocks may differ")
	fl.DurationVar(&f.clockOffset, "test-clock-offset", 0, "added to the machine's clock")
	_ = fl.MarkHidden("test-clock-offset")
	return cmd
}

// parseSync reads --sync; zero means always.
func parseSync(s string) (interval time.Duration, err error) {
	if s == "always" {
		return 0, nil
	}
	if text, ok := strings.CutPrefix(s, "interval:"); ok {
		if d, err := time.ParseDuration(text); err == nil && d > 0 {
			return d, nil
		}
	}
	return 0, usageError("--sync %q: give always, or an interval such as interval:100ms", s)
}

// listen opens a port, or says which flag chose it and what to do.
func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s %s: the port is in use, perhaps by another node: stop that one, or give another port", flag, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("--%s %s: this machine does not have that address", flag, addr)
	case err != nil:
		return nil, fmt.Errorf("--%s %s: %w", flag, addr, err)
	}
	return l, nil
}

// checkAddrs makes sure that all addresses are such, and that peer addresses are
// ones that other nodes can dial.
func (f *serveFlags) checkAddrs() error {
	host, port, err := net.SplitHostPort(f.peerListen)
	if err != nil || port == "" || port == "0" {
		return usageError("--peer-listen %q: give host:port with a fixed port; other nodes dial it, also after a restart", f.peerListen)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return usageError("--peer-listen %q: give the address by which other nodes reach this one, not a wildcard", f.peerListen)
	}
	err = errors.Join(
		checkAddr("--listen", f.listen, 0, "127.0.0.1:7001"),
		checkAddr("--peer-listen", f.peerListen, 1, "127.0.0.1:7101"),
		checkAddr("--admin-listen", f.adminListen, 0, defaultAdmin),
	)
	for _, j := range f.join {
		err = errors.Join(err, checkAddr("--join", j, 1, "127.0.0.1:7102, the peer address of another node"))
	}
	return err
}

// check refuses flags that make no sense. Cluster settings are looked at when the
// cluster is yet to be formed; an existing one has its own.
func (f *serveFlags) check() error {
	if err := f.checkAddrs(); err != nil {
		return err
	}
	if record, err := topology.RecordIn(f.dataDir); record != nil || err != nil {
		return nil // what is wrong with it is found again when the node starts
	}
	if err := f.formAlone(); err != nil {
		return err
	}
	if f.expect < 0 || f.expect > f.cluster.Replicas {
		return fmt.Errorf("--bootstrap-expect %d with --replicas %d: every node holds every key in this version, so expect at most as many nodes as replicas", f.expect, f.cluster.Replicas)
	}
	return f.cluster.Validate()
}

// formAlone decides what a node without --join and --bootstrap-expect does: on
// loopback it makes a cluster of one, elsewhere it was most likely misconfigured.
func (f *serveFlags) formAlone() error {
	if f.expect != 0 || len(f.join) > 0 {
		return nil
	}
	host, _, _ := net.SplitHostPort(f.peerListen)
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		f.expect = 1
		return nil
	}
	return fmt.Errorf("give --join and --bootstrap-expect: on an address that others can reach, a node makes no cluster of one by itself")
}

func (a *app) serve(ctx context.Context, f serveFlags, isSet func(string) bool) (err error) {
	if f.dataDir == "" {
		return usageError("--data-dir is missing: name the directory that holds this node's data")
	}
	interval, err := parseSync(f.sync)
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return &statusError{exitUsage, err}
	}
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))

	// All ports first: a port in use must be found before anything is written.
	var doors [3]net.Listener
	defer func() {
		for _, l := range doors {
			if l != nil && err != nil {
				l.Close()
			}
		}
	}()
	for i, d := range []struct{ flag, addr string }{{"listen", f.listen}, {"peer-listen", f.peerListen}, {"admin-listen", f.adminListen}} {
		if doors[i], err = listen(d.flag, d.addr); err != nil {
			return err
		}
	}
	n, err := node.Start(node.Options{
		DataDir: f.dataDir, PeerListener: doors[1], PeerAddr: f.peerListen, Join: f.join, BootstrapExpect: f.expect,
		Settings: f.cluster, IsSet: isSet, SyncInterval: interval, ClockOffset: f.clockOffset,
		CacheBytes: f.cache << 20, Logger: log,
	})
	if err != nil {
		return err
	}
	return serveDoors(ctx, n, doors[0], doors[2], log)
}

// drainTimeout is how long the requests that are running may take to end.
const drainTimeout = 10 * time.Second

// serveDoors opens the doors of a running node until ctx ends or something
// fails, and then closes them and the node.
func serveDoors(ctx context.Context, n *node.Node, clients, operators net.Listener, log *slog.Logger) error {
	door := frontDoor{n}
	redis := resp.New(door, resp.Options{Logger: log, Version: version})
	ops := admin.New(door, log)
	broken := make(chan error, 2)
	go func() { broken <- redis.Serve(clients) }()
	go func() { broken <- ops.Serve(operators) }()
	log.Info("listening", "clients", clients.Addr().String(), "admin", operators.Addr().String())

	var failure error
	served := 0
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case <-n.Failed():
		failure = n.Err()
	case failure = <-broken:
		served++
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	// Clients and operators first: what they have begun still needs the peers.
	if err := redis.Shutdown(drain); err != nil {
		log.Warn("some client requests were cut off", "error", err)
	}
	if err := ops.Shutdown(drain); err != nil {
		log.Warn("some operator requests were cut off", "error", err)
	}
	for ; served < 2; served++ {
		if err := <-broken; err != nil && failure == nil {
			failure = err
		}
	}
	return errors.Join(failure, n.Close())
}
