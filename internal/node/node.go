package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"syntropy/hlc"
	"syntropy/internal/rpc"
	"syntropy/internal/topology"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
)

// States of a node, as status and inspect name them.
const (
	StateForming  = "forming"  // it is in no cluster yet
	StateChecking = "checking" // it was away for long and waits to hear that it may serve
	StateJoining  = "joining"  // it takes writes and serves no reads until it is filled
	StateLive     = "live"
	StateStale    = "stale" // it was away too long: it neither serves nor syncs
	StateDown     = "down"  // of another node: not connected
)

// Codes of an Error.
const (
	CodeInvalid     = "INVALID"     // the request makes no sense; nothing was done
	CodeNoSuchNode  = "NOSUCHNODE"  // an operator named a node that is no member
	CodeNoSuchShard = "NOSUCHSHARD" // or a shard that does not exist
	CodeLoading     = "LOADING"     // the cluster is not formed yet
	CodeJoining     = "JOINING"     // this node is being filled and serves no reads
	CodeChecking    = "CHECKING"    // this node waits to hear whether it may serve
	CodeStale       = "STALE"       // this node was away too long to serve or sync
	CodeClock       = "CLOCK"       // this node's clock is wrong
	CodeShadowed    = "SHADOWED"    // the write lost against one from the future
	CodeTimeout     = "TIMEOUT"     // the outcome is unknown
	CodeStorage     = "STORAGE"     // the disk failed
	CodeFailed      = "FAILED"      // this node cannot go on
)

// Error is a condition that a client or operator is told of, with a code for
// programs.
type Error struct {
	code string
	text string
}

func (e *Error) Error() string { return e.text }

// Code returns the code, an upper-case word as Redis clients expect it.
func (e *Error) Code() string { return e.code }

// Options configure a node.
type Options struct {
	// DataDir holds all that the node keeps. It is created if absent.
	DataDir string
	// PeerListener is where other nodes reach this one; the node closes it.
	PeerListener net.Listener
	// PeerAddr is the address that other nodes dial, host:port.
	PeerAddr string
	// Join names peer addresses of other members.
	Join []string
	// BootstrapExpect is how many empty nodes form a cluster together. Zero
	// only joins an existing one.
	BootstrapExpect int
	// Settings are those of the cluster, used when it is formed.
	Settings topology.Settings
	// IsSet tells which settings the user gave, by flag name: they must not
	// contradict those of an existing cluster.
	IsSet func(flag string) bool
	// SyncInterval, if not zero, makes writes durable every so often instead of
	// before they are acknowledged: a crash may lose that much.
	SyncInterval time.Duration
	// ClockOffset is added to the machine's clock, for fault tests.
	ClockOffset time.Duration
	// CacheBytes bounds the block cache; zero means the engine's default.
	CacheBytes int64
	Logger     *slog.Logger // nil discards
}

// Node is one running member of a cluster, or one that waits to become one.
type Node struct {
	opts      Options
	log       *slog.Logger
	dir       *topology.Dir
	registrar *topology.Registrar
	server    *rpc.Server

	stop context.CancelFunc
	work sync.WaitGroup // everything that the node started

	mu      sync.Mutex
	replica *replica // nil until the cluster is formed
	fatal   error    // why the node cannot go on
	failed  chan struct{}
}

// Start opens the data directory, begins to answer peers and returns. Forming
// or rejoining the cluster goes on by itself; Failed tells if it cannot.
func Start(opts Options) (*Node, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.IsSet == nil {
		opts.IsSet = func(string) bool { return false }
	}
	if err := opts.Settings.Validate(); err != nil {
		return nil, err
	}
	if opts.BootstrapExpect > opts.Settings.Replicas {
		return nil, fmt.Errorf("--bootstrap-expect %d is more than --replicas %d: every node holds every key, so give the same number to both", opts.BootstrapExpect, opts.Settings.Replicas)
	}
	n := &Node{opts: opts, log: opts.Logger, failed: make(chan struct{})}
	dir, err := topology.OpenDir(opts.DataDir, rand.Reader, n.wall())
	if err != nil {
		return nil, err
	}
	n.dir = dir
	if err := n.open(); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.server = rpc.NewServer(&peerHandler{n}, rpc.ServerOptions{Logger: n.log})
	n.work.Go(func() {
		if err := n.server.Serve(opts.PeerListener); err != nil {
			n.fail(fmt.Errorf("the peer port failed: %w", err))
		}
	})
	n.work.Go(func() {
		if err := n.form(ctx); err != nil && ctx.Err() == nil {
			n.fail(err)
		}
	})
	return n, nil
}

// open checks the directory against the options before anything is started.
func (n *Node) open() error {
	var err error
	record := n.dir.Record()
	if record != nil {
		if err := n.dir.SettingsConflict(n.opts.Settings, n.opts.IsSet); err != nil {
			return err
		}
		if _, ok := record.MemberByAddr(n.opts.PeerAddr); !ok {
			return fmt.Errorf("the cluster in %s has the members %v, and none has the peer address %s: start this node with the --peer-listen it had", n.dir.Path(), record.Members, n.opts.PeerAddr)
		}
	}
	n.registrar, err = topology.NewRegistrar(topology.RegistrarOptions{
		Me:       topology.Identity{Incarnation: n.dir.Incarnation(), Addr: n.opts.PeerAddr},
		Expect:   n.opts.BootstrapExpect,
		Settings: n.opts.Settings,
		Join:     n.opts.Join,
		Record:   record,
		Persist:  n.dir.SaveRecord,
		Rand:     rand.Reader,
		Now:      n.wall,
		Logger:   n.log,
	})
	return err
}

func (n *Node) wall() time.Time { return time.Now().Add(n.opts.ClockOffset) }

// form waits for the cluster and starts this node's replica of it.
func (n *Node) form(ctx context.Context) error {
	record, _, err := n.registrar.Form(ctx, rpc.Dialer{})
	if err != nil {
		return err
	}
	self, ok := record.MemberByAddr(n.opts.PeerAddr)
	if !ok {
		return fmt.Errorf("the cluster record does not name %s", n.opts.PeerAddr)
	}
	engine, err := pebblestore.Open(filepath.Join(n.dir.Path(), "store"), pebblestore.Options{
		CacheBytes: n.opts.CacheBytes,
		Logger:     n.log,
	})
	if err != nil {
		return err
	}
	store, err := storage.Open(engine, storage.Options{
		Shards: record.Settings.Shards,
		Secret: record.Secret,
		NoSync: n.opts.SyncInterval > 0,
	})
	if err != nil {
		return errors.Join(err, engine.Close())
	}
	founder := record.IsFounder(topology.Identity{Incarnation: n.dir.Incarnation(), Addr: n.opts.PeerAddr})
	r, err := newReplica(n, record, self.ID, store, engine, founder)
	if err != nil {
		return errors.Join(err, engine.Close())
	}
	n.mu.Lock()
	n.replica = r
	n.mu.Unlock()
	r.start(ctx)
	return nil
}

func (n *Node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fatal == nil {
		n.fatal = err
		close(n.failed)
	}
}

// Failed is closed when the node cannot go on; Err then says why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Err returns why the node failed.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fatal
}

// Close stops the node and returns when all that it started has ended and all
// that it acknowledged is on disk.
func (n *Node) Close() error {
	n.stop()
	n.server.Close()
	n.work.Wait()
	n.mu.Lock()
	r := n.replica
	n.mu.Unlock()
	var err error
	if r != nil {
		err = r.close()
	}
	return errors.Join(err, n.dir.Close())
}

// running returns the replica, or why there is none yet.
func (n *Node) running() (*replica, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.replica != nil:
		return n.replica, nil
	case n.fatal != nil:
		return nil, &Error{CodeFailed, n.fatal.Error()}
	}
	return nil, &Error{CodeLoading, "the cluster is not formed yet: this node waits for the others named by --join and --bootstrap-expect; its log says for whom"}
}

// RequestDeadline is how long one request of a client may take.
func (n *Node) RequestDeadline() time.Duration {
	if r, err := n.running(); err == nil {
		return r.settings.RequestDeadline
	}
	return n.opts.Settings.RequestDeadline
}

// ID returns this node's name in the cluster, zero while there is none.
func (n *Node) ID() hlc.NodeID {
	if r, err := n.running(); err == nil {
		return r.self
	}
	return 0
}
