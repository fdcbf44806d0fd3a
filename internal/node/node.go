package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/internal/rpc"
	"syntropy/internal/topology"
	"syntropy/report"
	"syntropy/storage"
	"syntropy/storage/pebblestore"
)

// States of a node, as status and inspect name them.
const (
	StateChecking = report.StateChecking
	StateJoining  = report.StateJoining
	StateLive     = report.StateLive
	StateStale    = report.StateStale
	StateDown     = report.StateDown
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
	CodeUnavailable = "UNAVAILABLE" // too few replicas are up; nothing was written
	CodeTimeout     = "TIMEOUT"     // the outcome is unknown
	CodeStorage     = "STORAGE"     // the disk failed
	CodeDiskFull    = "DISKFULL"    // too few disks have room; nothing was written
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
	// ClientAddr is where clients reach this node, host:port, as it tells the
	// other nodes. Empty: it has no door for clients.
	ClientAddr string
	// Join names peer addresses of other members.
	Join []string
	// BootstrapExpect is how many empty nodes form a cluster together. It may be
	// zero when the directory holds a cluster already.
	BootstrapExpect int
	// Settings are those of the cluster, used when it is formed.
	Settings topology.Settings
	// IsSet tells which settings the user gave, by flag name: they must not
	// contradict those of an existing cluster.
	IsSet func(flag string) bool
	// Zone is where this node is, in the operator's words; replicas are spread over
	// zones.
	Zone string
	// WriteConsistency and ReadConsistency are the levels of requests that name
	// none; QUORUM by default.
	WriteConsistency, ReadConsistency coordinator.Level
	// RepairInterval is within which each pair of replicas is compared. Zero: never,
	// but when an operator asks for it.
	RepairInterval time.Duration
	// NoHints keeps no writes for replicas that are down or late, and NoReadRepair
	// leaves replicas as reads find them.
	NoHints, NoReadRepair bool
	// HintBytesMax bounds what is kept for others on this disk, 1 GiB by default, and
	// HintBytesPerSecond how fast it is brought to one of them, 8 MiB by default.
	HintBytesMax, HintBytesPerSecond int64
	// Events are told what happens.
	Events Events
	// SyncInterval, if not zero, makes writes durable every so often instead of
	// before they are acknowledged: a crash may lose that much.
	SyncInterval time.Duration
	// ClockOffset is added to the machine's clock, for fault tests.
	ClockOffset time.Duration
	// CacheBytes bounds the block cache; zero means the engine's default.
	CacheBytes int64
	// MinFreeBytes is the free space below which no writes are taken; zero means one
	// by the size of the disk.
	MinFreeBytes int64
	// ScrubInterval is how often all rows are read and compared with the trees, zero
	// for never but when there is reason to, and ScrubBytesPerSecond how fast, 16 MiB
	// by default.
	ScrubInterval       time.Duration
	ScrubBytesPerSecond int64
	Logger              *slog.Logger // nil discards

	wrap func(storage.Engine) storage.Engine   // lets tests put a disk that misbehaves under the store
	disk func() (pebblestore.DiskState, error) // and show a node another disk than there is
	fs   vfs.FS                                // or put files of their own under it; nil: the real ones
}

// Node is one running member of a cluster, or one that waits to become one.
type Node struct {
	opts      Options
	log       *slog.Logger
	dir       *topology.Dir
	registrar *topology.Registrar
	server    *rpc.Server
	courier   *rpc.Courier

	tableChanged chan struct{} // there may be a newer table

	stop context.CancelFunc
	work sync.WaitGroup // everything that the node started

	mu        sync.Mutex
	record    *topology.Record // nil until there is one
	consensus *topology.Log    // nil until there is a record
	table     *topology.Table  // the newest known; nil until there is one
	replica   *replica         // nil until the cluster is formed
	fatal     error            // why the node cannot go on
	failed    chan struct{}
	closing   bool           // no request may begin
	requests  sync.WaitGroup // of clients and operators, that have begun

	closeOnce sync.Once
	closeErr  error
}

// Start opens the data directory, begins to answer peers and returns. Forming
// or rejoining the cluster goes on by itself; Failed tells if it cannot.
func Start(opts Options) (*Node, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.WriteConsistency == coordinator.Default {
		opts.WriteConsistency = coordinator.Quorum
	}
	if opts.ReadConsistency == coordinator.Default {
		opts.ReadConsistency = coordinator.Quorum
	}
	if opts.IsSet == nil {
		opts.IsSet = func(string) bool { return false }
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	n := &Node{opts: opts, log: opts.Logger, failed: make(chan struct{}), tableChanged: make(chan struct{}, 1)}
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
	n.courier = rpc.NewCourier(rpc.CourierOptions{})
	n.server = rpc.NewServer(&peerHandler{n}, rpc.ServerOptions{Logger: n.log})
	n.work.Go(func() {
		if err := n.server.Serve(opts.PeerListener); err != nil {
			n.fail(fmt.Errorf("the peer port failed: %w", err))
		}
	})
	n.work.Go(func() {
		select {
		case <-n.failed:
			n.server.Close() // nobody is to count on this node any more
		case <-ctx.Done():
		}
	})
	n.work.Go(func() {
		if err := n.form(ctx); err != nil && ctx.Err() == nil {
			n.fail(err)
		}
	})
	return n, nil
}

// check refuses what can be refused before anything is written. The settings of
// the cluster are only looked at when there is none yet: later those on record
// count, and what was given must not contradict them.
func (o *Options) check() error {
	record, err := topology.RecordIn(o.DataDir)
	if err != nil || record != nil {
		return err
	}
	if o.BootstrapExpect == 0 && len(o.Join) == 0 {
		return fmt.Errorf("%s holds no cluster yet: give --bootstrap-expect, the number of nodes that are to form one, and --join; or --join alone to join one that exists", o.DataDir)
	}
	return o.Settings.Validate()
}

// open checks the directory against the options before anything is started.
func (n *Node) open() error {
	var err error
	record := n.dir.Record()
	if record != nil {
		if err := n.dir.SettingsConflict(n.opts.Settings, n.opts.IsSet); err != nil {
			return err
		}
		if expect := n.opts.BootstrapExpect; expect != 0 && expect != len(record.Members) {
			return fmt.Errorf("--bootstrap-expect %d given, the cluster in %s consists of %v: leave the flag out, or give an empty directory to form another cluster", expect, n.dir.Path(), record.Members)
		}
		members := record.Members
		if table := n.dir.Table(); table != nil {
			members = table.Members
		}
		i := slices.IndexFunc(members, func(m topology.Member) bool { return m.Addr == n.opts.PeerAddr })
		if i >= 0 && n.opts.Zone != "" && n.opts.Zone != members[i].Zone {
			return fmt.Errorf("--zone %s given, but %v is in zone %q in the topology, by which replicas are placed: leave the flag out", n.opts.Zone, members[i], members[i].Zone)
		}
		if i < 0 {
			return fmt.Errorf("the cluster in %s has the members %v, and none has the peer address %s: start this node with the --peer-listen it had", n.dir.Path(), members, n.opts.PeerAddr)
		}
	}
	n.table = n.dir.Table() // what is known already is told to whoever asks
	n.registrar, err = topology.NewRegistrar(topology.RegistrarOptions{
		Me:       n.identity(),
		Expect:   n.opts.BootstrapExpect,
		Settings: n.opts.Settings,
		Given:    n.opts.IsSet,
		Join:     n.opts.Join,
		Record:   record,
		Persist:  n.dir.SaveRecord,
		Table:    n.newestTable,

		PersistTable: n.dir.SaveTable,
		Rand:         rand.Reader,
		Now:          n.wall,
		Logger:       n.log,
	})
	return err
}

func (n *Node) wall() time.Time { return time.Now().Add(n.opts.ClockOffset) }

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
// that it acknowledged is on disk. Requests that have begun are carried through,
// except for repairs and recomputed roots, which are cancelled.
func (n *Node) Close() error {
	n.closeOnce.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

func (n *Node) close() error {
	n.mu.Lock()
	n.closing = true
	r := n.replica
	n.mu.Unlock()
	if r != nil {
		r.repairs.stop()
		r.audits.stop()
	}
	n.requests.Wait() // they still need the peers
	if r != nil {
		r.sayGoodbye()
	}
	n.stop()
	n.server.Close()
	n.work.Wait()
	err := n.courier.Close()
	n.mu.Lock()
	r = n.replica
	n.mu.Unlock()
	if r != nil {
		err = errors.Join(err, r.close())
	}
	if n.Err() != nil {
		return errors.Join(err, n.dir.Discard())
	}
	return errors.Join(err, n.dir.Close())
}

// enter begins a request of a client or operator; unless it fails, the caller
// calls leave at the end. Without it the store would be closed under a reader.
func (n *Node) enter() (*replica, error) {
	r, err := n.running()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return nil, &Error{CodeFailed, "this node is stopping: ask another one"}
	}
	n.requests.Add(1)
	return r, nil
}

func (n *Node) leave() { n.requests.Done() }

// running returns the replica, or why there is none yet.
func (n *Node) running() (*replica, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.fatal != nil: // what it shows may be wrong
		return nil, &Error{CodeFailed, n.fatal.Error()}
	case n.replica != nil:
		return n.replica, nil
	}
	if len(n.opts.Join) == 0 && n.opts.BootstrapExpect <= 1 {
		return nil, &Error{CodeLoading, "this node is still starting: try again in a moment"}
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
