package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
)

// CourierOptions configure a Courier; the zero value works.
type CourierOptions struct {
	// Credentials secure the connections; nil: plaintext.
	Credentials credentials.TransportCredentials
}

const (
	// courierDial bounds the making of a connection.
	courierDial = time.Second
	// courierBackoff is the longest pause before a node that could not be reached
	// is tried again. The log elects a leader within 2 s, and one that is back
	// should have a say.
	courierBackoff = time.Second
	// courierConns bounds the nodes that a courier may know: all that a cluster
	// can have, and once more for those that were replaced.
	courierConns = 2 * topology.MaxMembers
)

// Courier carries the messages of the topology's log to other nodes. It keeps a
// connection to each, apart from the Links: the log decides who is a member, so it
// must work before there is anybody to link to. It is safe for concurrent use.
type Courier struct {
	opts CourierOptions

	mu         sync.Mutex
	conns      map[string]*grpc.ClientConn // by address
	closed     bool
	deliveries sync.WaitGroup
}

// NewCourier returns a courier without connections; each is made at first use and
// made again when it breaks.
func NewCourier(opts CourierOptions) *Courier {
	return &Courier{opts: opts, conns: make(map[string]*grpc.ClientConn)}
}

var errCourierClosed = errors.New("this node is stopping")

// Deliver brings messages to the node at an address. It does not wait for a node
// that cannot be reached, but ctx must have a deadline for one that has gone
// silent. An error says that the messages may not have arrived.
func (c *Courier) Deliver(ctx context.Context, addr string, req *peerpb.ConsensusRequest) error {
	conn, err := c.begin(addr)
	if err != nil {
		return err
	}
	defer c.deliveries.Done()
	if _, err := peerpb.NewPeerClient(conn).Consensus(ctx, req); err != nil {
		if status.Code(err) == codes.DeadlineExceeded {
			// The machine may be gone without a word, and be back at the same
			// address: a new connection finds out, this one would not for minutes.
			c.drop(addr, conn)
		}
		return plain(err)
	}
	return nil
}

// begin counts a delivery that is to end with deliveries.Done.
func (c *Courier) begin(addr string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errCourierClosed
	}
	conn := c.conns[addr]
	if conn == nil {
		if len(c.conns) >= courierConns {
			return nil, fmt.Errorf("%d nodes are known already, which is more than a cluster can have", len(c.conns))
		}
		pause := backoff.DefaultConfig
		pause.BaseDelay, pause.MaxDelay = 100*time.Millisecond, courierBackoff
		var err error
		conn, err = connect(addr, c.opts.Credentials, courierDial,
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause, MinConnectTimeout: courierDial}))
		if err != nil {
			return nil, err
		}
		c.conns[addr] = conn
	}
	c.deliveries.Add(1)
	return conn, nil
}

func (c *Courier) drop(addr string, conn *grpc.ClientConn) {
	c.mu.Lock()
	known := c.conns[addr] == conn
	if known {
		delete(c.conns, addr)
	}
	c.mu.Unlock()
	if known {
		_ = conn.Close() // it only says that it is closed
	}
}

// Close closes all connections and returns when every delivery has ended; those
// that are on their way fail.
func (c *Courier) Close() error {
	c.mu.Lock()
	c.closed = true
	conns := c.conns
	c.conns = nil
	c.mu.Unlock()
	var errs []error
	for _, conn := range conns {
		errs = append(errs, conn.Close())
	}
	c.deliveries.Wait()
	return errors.Join(errs...)
}
