package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"syntropy/hlc"
	"syntropy/internal/rpc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
)

// form waits for the cluster and its topology, and starts this node's replica.
func (n *Node) form(ctx context.Context) error {
	known := n.dir.Record()
	if known != nil {
		if err := n.checkJoin(ctx, known); err != nil {
			return err
		}
	}
	// A directory that no topology was ever kept in has not been served from: it is
	// new, or its record was put there by hand.
	first := known == nil || !n.dir.HasTopology()
	record, table, err := n.registrar.Form(ctx, rpc.Dialer{})
	if err != nil {
		return err
	}
	if table, err = n.agree(ctx, record, table); err != nil {
		return err
	}
	self, ok := table.MemberByAddr(n.opts.PeerAddr)
	if !ok {
		return fmt.Errorf("version %d of the topology does not name %s", table.Version, n.opts.PeerAddr)
	}
	r, err := n.openReplica(record, table, self.ID, first)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.replica = r
	n.mu.Unlock()
	r.start(ctx)
	if self.Founder != n.dir.Incarnation() {
		return n.enroll(ctx, table)
	}
	return nil
}

// agree takes part in the log that holds the topology, and returns the first table
// that it knows.
func (n *Node) agree(ctx context.Context, record *topology.Record, table *topology.Table) (*topology.Table, error) {
	consensus, err := topology.OpenLog(topology.LogOptions{
		Record: record, Me: n.identity(), Dir: n.dir, Table: table, Logger: n.log,
		Send: func(ctx context.Context, to topology.Member, messages [][]byte) error {
			return n.courier.Deliver(ctx, to.Addr, &peerpb.ConsensusRequest{
				ClusterId: record.ClusterID, RecordFingerprint: record.Fingerprint(), To: uint32(to.ID), Messages: messages,
			})
		},
		Changed: n.setTable,
	})
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.consensus, n.record = consensus, record
	n.mu.Unlock()
	if table := consensus.Table(); table != nil {
		n.setTable(table)
	}
	n.work.Go(func() {
		if err := consensus.Run(ctx); err != nil && ctx.Err() == nil {
			n.fail(fmt.Errorf("the log of the topology failed: %w", err))
		}
	})
	if n.newestTable() == nil && !record.IsFounder(n.identity()) {
		// The one who gave the record knew no table yet, and the voters do not know
		// this disk: without being enrolled it would wait for ever.
		if err := n.enroll(ctx, &topology.Table{Members: record.Members}); err != nil {
			return nil, err
		}
	}
	for {
		if table := n.newestTable(); table != nil {
			return table, nil
		}
		select {
		case <-n.tableChanged:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// setTable takes note of a table, unless a newer one is known.
func (n *Node) setTable(t *topology.Table) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.table == nil || t.Version > n.table.Version {
		n.table = t
	}
	select {
	case n.tableChanged <- struct{}{}:
	default:
	}
}

func (n *Node) newestTable() *topology.Table {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.table
}

// enroll makes this disk known as the one of this member, by way of the members of a
// table. It takes until a majority of the voters is there.
func (n *Node) enroll(ctx context.Context, table *topology.Table) error {
	var addrs []string
	for _, m := range table.Members {
		addrs = append(addrs, m.Addr)
	}
	_, table, err := n.registrar.Enroll(ctx, rpc.Dialer{}, addrs)
	if err == nil {
		n.setTable(table)
	}
	return err
}

// consensusOf returns the log of the topology, once this node is in a cluster.
func (n *Node) consensusOf() (*topology.Log, *topology.Record, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.consensus == nil {
		return nil, nil, &Error{CodeLoading, "this node is in no cluster yet"}
	}
	return n.consensus, n.record, nil
}

func (n *Node) identity() topology.Identity {
	return topology.Identity{Incarnation: n.dir.Incarnation(), Addr: n.opts.PeerAddr, Zone: n.opts.Zone}
}

// openReplica opens the store. A founder that had the record before and has no
// state in its store has lost the store, and with it what it acknowledged.
func (n *Node) openReplica(record *topology.Record, table *topology.Table, self hlc.NodeID, first bool) (*replica, error) {
	rot := newRotten(record.Settings.Shards)
	engine, err := pebblestore.Open(filepath.Join(n.dir.Path(), "store"), pebblestore.Options{
		CacheBytes: n.opts.CacheBytes, Logger: n.log, FS: n.opts.fs,
		OnCorruption: func(c pebblestore.Corruption) {
			if rot.add(c, n.wall()) {
				n.log.Error("bytes on disk fail their checksum: they are not served, and the shards of that file are scrubbed", "file", c.File, "error", c.Err)
			}
		},
		OnFatal: func(err error) {
			n.fail(fmt.Errorf("the disk failed, so this node stops: %w; look at the disk of %s before starting it again", err, n.dir.Path()))
		},
	})
	if err != nil {
		return nil, err
	}
	look := engine.Disk
	if n.opts.disk != nil {
		look = n.opts.disk
	}
	var disk storage.Engine = engine
	if n.opts.wrap != nil {
		disk = n.opts.wrap(engine)
	}
	store, err := storage.Open(disk, storage.Options{
		Shards:       record.Settings.Shards,
		Secret:       record.Secret,
		NoSync:       n.opts.SyncInterval > 0,
		VersionBytes: n.opts.CacheBytes / 4, // of about as many keys as its blocks hold
	})
	if err != nil {
		return nil, errors.Join(n.unopened(err), engine.Close())
	}
	r, err := newReplica(n, record, table, self, store, disk, rot, look, first && record.IsFounder(n.identity()))
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return r, nil
}

// unopened is the error of a store that cannot be opened, with what can be done.
func (n *Node) unopened(err error) error {
	if errors.Is(err, storage.ErrRot) || errors.Is(err, lww.ErrMalformed) {
		return fmt.Errorf("%w: keep a copy of %s and start with an empty data directory: the node is then filled from the other members. A node without others has to be restored", err, n.dir.Path())
	}
	return err
}

// checkJoin asks the addresses of --join which cluster they are in: a node with
// the directory of another cluster, by mistake or because its operator wants it to
// join that one, must not be left to run on alone.
func (n *Node) checkJoin(ctx context.Context, record *topology.Record) error {
	me := n.identity()
	var foreign error
	for _, addr := range n.opts.Join {
		if addr == n.opts.PeerAddr {
			continue
		}
		// Expect zero fits nobody, so a node that is still forming its cluster
		// does not count this one in.
		reply, err := rpc.Dialer{}.Meet(ctx, addr, topology.MeetRequest{Me: me, Settings: record.Settings, View: []topology.Identity{me}})
		switch {
		case err != nil || reply.Formed == nil:
		case reply.Formed.ClusterID == record.ClusterID:
			return nil // if another one is astray, it is not this node
		default:
			foreign = fmt.Errorf("%s belongs to cluster %s, but the node at --join %s is in cluster %s: give an empty data directory to join that one, or leave --join out to run on in this one", n.dir.Path(), record.ClusterID, addr, reply.Formed.ClusterID)
		}
	}
	return foreign
}
