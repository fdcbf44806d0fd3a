package syntropy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"syntropy/hlc"
	"syntropy/internal/node"
	"syntropy/report"
)

// DB is a node of a cluster, in this process. It is safe for concurrent use.
type DB struct {
	core        *core
	read, write Level
}

// core is what all handles on a node share.
type core struct {
	node   *node.Node
	offset time.Duration // of this node's clock from the machine's
	levels [2]Level      // of reads and of writes that name none

	mu       sync.Mutex
	closed   bool
	requests sync.WaitGroup // writes that outlive the call that began them
}

// Open starts a node on the directory and returns at once; forming the cluster, or
// finding it again, goes on by itself. [DB.Ready] waits for that. Without options it
// is a cluster of one that nobody else can reach. Open keeps nothing of the options
// but what they refer to.
//
// An error wraps ErrInvalid if the options make no sense, if they contradict the
// cluster that the directory holds, or if another process uses the directory.
func Open(dir string, options *Options) (*DB, error) {
	if options == nil {
		options = &Options{}
	}
	opts, err := options.toNode(dir)
	if err != nil {
		return nil, err
	}
	n, err := node.Start(opts)
	if err != nil {
		return nil, &Error{ErrInvalid, errors.Join(err, opts.PeerListener.Close())}
	}
	return &DB{core: &core{
		node: n, offset: options.ClockOffset,
		levels: [2]Level{orQuorum(options.ReadConsistency), orQuorum(options.WriteConsistency)},
	}}, nil
}

func orQuorum(l Level) Level {
	if l == Default {
		return Quorum
	}
	return l
}

// Close stops the node: it tells the other members, carries through the requests
// that have begun, cancels repairs, makes everything durable and returns when nothing
// of it is left. It closes every handle that At made. Closing again returns the same.
func (db *DB) Close() error {
	c := db.core
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	err := c.node.Close()
	c.requests.Wait()
	return err
}

// At returns a handle on the same node whose reads and writes have that level. It
// costs nothing and needs no Close: closing it closes the node.
func (db *DB) At(l Level) *DB { return db.AtLevels(l, l) }

// AtLevels is At with one level for reads and another for writes.
func (db *DB) AtLevels(read, write Level) *DB {
	return &DB{core: db.core, read: read, write: write}
}

// Levels returns the levels of this handle's reads and writes, never Default.
func (db *DB) Levels() (read, write Level) {
	read, write = db.read, db.write
	if read == Default {
		read = db.core.levels[0]
	}
	if write == Default {
		write = db.core.levels[1]
	}
	return read, write
}

// ID returns this node's name in its cluster, zero while it is in none.
func (db *DB) ID() hlc.NodeID { return db.core.node.ID() }

// Now returns the time by which this node tells whether a key has expired.
func (db *DB) Now() time.Time { return time.Now().Add(db.core.offset) }

// RequestDeadline is the longest that a Get, a Put or any other request of a key
// takes, whatever the context says. It is a setting of the cluster.
func (db *DB) RequestDeadline() time.Duration { return db.core.node.RequestDeadline() }

// Failed is closed when the node cannot go on; [DB.Err] then says why. It has to be
// closed all the same.
func (db *DB) Failed() <-chan struct{} { return db.core.node.Failed() }

// Err returns why the node failed, or nil.
func (db *DB) Err() error {
	if err := db.core.node.Err(); err != nil {
		return &Error{ErrFailed, err}
	}
	return nil
}

// readyPoll is how often Ready looks again: soon for a person and for a test, and
// seldom enough that asking costs the other nodes nothing.
const readyPoll = 20 * time.Millisecond

// Ready waits until this node is in its cluster and as many replicas of every key
// are up as the levels of this handle ask for. Without error, a request that follows
// finds them, unless one of them goes away meanwhile.
//
// An error wraps ErrNotReady and that of ctx when ctx ends first, and says what was
// missing; ErrFailed, when the node cannot go on; or ErrClosed.
func (db *DB) Ready(ctx context.Context) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	missing := errors.New("there was no time to look")
	for ctx.Err() == nil {
		if db.core.closing() {
			return errClosed()
		}
		err := db.missing(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil { // otherwise it is the end of ctx, which explains nothing
			missing = err
		}
		select {
		case <-db.Failed():
			return db.Err()
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return &Error{ErrNotReady, fmt.Errorf("this node is not ready: %w (%w)", missing, context.Cause(ctx))}
}

// missing says what keeps a request from being answered now, if anything.
func (db *DB) missing(ctx context.Context) error {
	read, write := db.Levels()
	// The least that can fail comes first, since it is asked again and again: one
	// key. Then every shard.
	if _, err := db.core.node.Read(ctx, read, [][]byte{[]byte("syntropy")}); err != nil {
		return err
	}
	roots, err := db.core.node.Roots(ctx, false)
	if err != nil {
		return err
	}
	for _, shard := range roots.Shards {
		live, writable := 0, 0
		for _, replica := range shard.Replicas {
			switch replica.State {
			case report.StateLive:
				live++
				writable++
			case report.StateJoining:
				writable++
			}
		}
		n := len(shard.Replicas)
		if live < read.Of(n) || writable < write.Of(n) {
			return fmt.Errorf("of the %d replicas of shard %d, %d can be read and %d written: reads at level %v need %d and writes at level %v need %d",
				n, shard.Shard, live, writable, read, read.Of(n), write, write.Of(n))
		}
	}
	return nil
}

// begin counts a request that Close waits for; unless it fails, the caller calls
// requests.Done.
func (c *core) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed()
	}
	c.requests.Add(1)
	return nil
}

func (c *core) closing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func errClosed() error {
	return &Error{ErrClosed, errors.New("the DB is closed")}
}
