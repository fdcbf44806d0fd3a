package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"syntropy"
	"syntropy/internal/admin"
	"syntropy/internal/config"
	"syntropy/internal/resp"
	"syntropy/internal/topology"
)

func newServe(a *app) *cobra.Command {
	var flags *config.Flags
	cmd := &cobra.Command{
		Use:     "serve --data-dir D",
		GroupID: groupNode,
		Short:   "run one node",
		Long: `Runs one node until it gets SIGTERM or Ctrl-C; then it tells the other nodes, finishes
the requests it has begun, makes everything durable and exits with 0.

A cluster forms itself: start as many empty nodes as --bootstrap-expect says, each
with the peer address of at least one other. They meet, create the cluster together,
and remember it in their data directories. A node that is started on an empty
directory with --join alone enters the cluster that it finds there: with the peer
address of a member whose disk was lost it takes that one's place and is filled from
the others; with a new one it serves clients, and holds no shards in this version.
A lone serve on an empty directory on loopback makes a cluster of one; "syntropy init"
makes a cluster by hand.

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

Each key is on --replicas members, spread over the zones that nodes name, and clients
may ask any node for any key. A write goes to all replicas of its key and is OK when
--write-consistency of them have it durably; a read asks --read-consistency of them,
answers the newest version, and repairs those that had an older one. With quorum for
both, a read sees every write that was OK before it. When too few replicas are up the
client is told so at once; an error that does not say that nothing was written means
that nobody knows.

A replica that was down gets what it missed three times over: the others keep hints
for it (up to --hint-window and --hint-max-mib), reads repair what they come across,
and every --repair-interval each pair of nodes compares all that it shares.

A node that was away for longer than --gc-grace while the others went on neither serves
nor syncs, since no delete is promised to be remembered for longer: it says so, and
comes back with an empty data directory, which is then filled from the others.

With --sync interval:100ms this node acknowledges a write before it is durable: a crash
of it or of its machine loses what it acknowledged in the last 100 ms.

Cluster settings must be the same on all nodes when the cluster forms, and are fixed
then. Later they may be left out. Every setting can also be given as an environment
variable (SYNTROPY_REPAIR_INTERVAL=30m) or in a YAML file (--config); a flag wins over a
variable, and that over the file. "syntropy config" shows what counts.

The ports carry no encryption and ask for no password in this version: keep them on
loopback or on a network that you trust.

A node whose disk is full takes no writes and goes on serving reads until there is space
again. One whose disk fails a write or a sync stops, with status 1.

Exit statuses: 0 stopped as asked; 1 it could not start or go on; 2 usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.resolve(flags)
			if err != nil {
				return err
			}
			return a.serve(cmd.Context(), c)
		},
	}
	cmd.Flags().SortFlags = false
	flags = config.AddFlags(cmd.Flags())
	return cmd
}

// resolve reads the settings of a node from flags, environment and file, and
// refuses what makes no sense.
func (a *app) resolve(flags *config.Flags) (*config.Config, error) {
	c, err := flags.Resolve(a.environ())
	if err == nil {
		err = checkConfig(c)
	}
	if err != nil {
		return nil, &statusError{exitUsage, err}
	}
	return c, nil
}

// checkConfig refuses settings that do not fit together. Those of the cluster are
// looked at when it is yet to be formed; an existing one has its own.
func checkConfig(c *config.Config) error {
	if c.DataDir != "" {
		if record, err := topology.RecordIn(c.DataDir); record != nil || err != nil {
			return nil // what is wrong with it is found again when the node starts
		}
	}
	return errors.Join(formAlone(c), c.Cluster.Validate())
}

// formAlone decides what a node without --join and --bootstrap-expect does: on
// loopback it makes a cluster of one, elsewhere it was most likely misconfigured.
func formAlone(c *config.Config) error {
	if c.BootstrapExpect != 0 || len(c.Join) > 0 {
		return nil
	}
	host, _, _ := net.SplitHostPort(c.PeerListen)
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		c.BootstrapExpect = 1
		return nil
	}
	return fmt.Errorf("give --join, and --bootstrap-expect if there is no cluster yet: on an address that others can reach, a node makes no cluster of one by itself")
}

// listen opens a port, or says which setting chose it and what to do.
func listen(setting, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s %s: the port is in use, perhaps by another node: stop that one, or give another port", setting, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("--%s %s: this machine does not have that address", setting, addr)
	case err != nil:
		return nil, fmt.Errorf("--%s %s: %w", setting, addr, err)
	}
	return l, nil
}

func (a *app) serve(ctx context.Context, c *config.Config) (err error) {
	if c.DataDir == "" {
		return usageError("--data-dir is missing: name the directory that holds this node's data")
	}
	level := slog.LevelInfo
	if c.Verbose {
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
	for i, d := range []struct{ setting, addr string }{{"listen", c.Listen}, {"peer-listen", c.PeerListen}, {"admin-listen", c.AdminListen}} {
		if doors[i], err = listen(d.setting, d.addr); err != nil {
			return err
		}
	}
	db, err := syntropy.Open(c.DataDir, openOptions(c, clientAddr(c, doors[0].Addr().String()), doors[1], log))
	if err != nil {
		return err
	}
	return serveDoors(ctx, db, doors[0], doors[2], clientOptions(c, db, log), log)
}

// clientOptions returns the settings as options of the door for clients.
func clientOptions(c *config.Config, db *syntropy.DB, log *slog.Logger) resp.Options {
	return resp.Options{
		Logger: log, Version: version, Now: db.Now,
		MaxClients: c.MaxClients, IdleTimeout: c.ClientTimeout, EnableFlush: c.EnableFlush,
	}
}

// clientAddr is where clients reach this node, as the other nodes tell theirs. Who
// listens on all addresses has none to tell but the one where the nodes reach it.
func clientAddr(c *config.Config, listening string) string {
	host, port, err := net.SplitHostPort(listening)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		host, _, _ = net.SplitHostPort(c.PeerListen)
	}
	return net.JoinHostPort(host, port)
}

// openOptions returns the settings as options of a node. Cluster settings that nobody
// gave are left out: an existing cluster has its own. A duration of zero was asked for
// here; in the options it would mean the default, and a negative one means zero.
func openOptions(c *config.Config, clients string, peers net.Listener, log *slog.Logger) *syntropy.Options {
	o := &syntropy.Options{
		ClientAddr: clients, PeerAddr: c.PeerListen, PeerListener: peers, Join: c.Join, BootstrapExpect: c.BootstrapExpect, Zone: c.Zone,
		WriteConsistency: c.WriteConsistency, ReadConsistency: c.ReadConsistency,
		RepairInterval: cmp.Or(c.RepairInterval, -1), NoHints: !c.HintedHandoff, NoReadRepair: !c.ReadRepair,
		HintBytesMax: c.HintBytesMax, HintBytesPerSecond: c.HintBytesPerSec,
		MinFreeBytes: c.MinFree, ScrubInterval: cmp.Or(c.ScrubInterval, -1), ScrubBytesPerSecond: c.ScrubBytesPerSec,
		SyncInterval: c.SyncInterval, ClockOffset: c.ClockOffset, CacheBytes: c.CacheBytes, Logger: log,
	}
	number := func(name string, to *int, value int) {
		if c.IsSet(name) {
			*to = value
		}
	}
	span := func(name string, to *time.Duration, value time.Duration) {
		if c.IsSet(name) {
			*to = cmp.Or(value, -1)
		}
	}
	number("replicas", &o.Replicas, c.Cluster.Replicas)
	number("shards", &o.Shards, c.Cluster.Shards)
	span("gc-grace", &o.GCGrace, c.Cluster.GCGrace)
	span("hint-window", &o.HintWindow, c.Cluster.HintWindow)
	span("settle", &o.Settle, c.Cluster.Settle)
	span("request-deadline", &o.RequestDeadline, c.Cluster.RequestDeadline)
	span("max-clock-skew", &o.MaxClockSkew, c.Cluster.MaxClockSkew)
	return o
}

// closeTimeout is how long a node may take to close after that: longer than any
// request, and than a memtable takes to become a table.
const closeTimeout = 30 * time.Second

// failedTimeout is how long either may take on a node that has failed.
const failedTimeout = 3 * time.Second

// drainTimeout is how long the requests that are running may take to end.
const drainTimeout = 10 * time.Second

// serveDoors opens the doors of a running node until ctx ends or something
// fails, and then closes them and the node.
func serveDoors(ctx context.Context, db *syntropy.DB, clients, operators net.Listener, options resp.Options, log *slog.Logger) error {
	door := frontDoor{db}
	redis := resp.New(door, options)
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
	case <-db.Failed():
		failure = db.Err()
	case failure = <-broken:
		served++
	}
	drainFor, closeFor := drainTimeout, closeTimeout
	if failure != nil { // a disk that failed may hold up requests for ever
		drainFor, closeFor = failedTimeout, failedTimeout
	}
	drain, cancel := context.WithTimeout(context.Background(), drainFor)
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
	return errors.Join(failure, closeWithin(db, closeFor))
}

// closeWithin closes a node. A disk that does not answer must not keep the process
// from ending.
func closeWithin(db *syntropy.DB, limit time.Duration) error {
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		return fmt.Errorf("the disk did not answer for %v: this process ends without closing its files", limit)
	}
}
