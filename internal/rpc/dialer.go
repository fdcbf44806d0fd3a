package rpc

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
)

// Dialer reaches nodes that are not in a cluster yet, with a connection for each
// message: a few hundred in the life of a node. Its zero value works.
type Dialer struct {
	// Timeout bounds one exchange: by default 2 s, or what ctx has left for Enroll,
	// whose answer waits for an agreement.
	Timeout time.Duration
	// Credentials secure the connection; nil: plaintext.
	Credentials credentials.TransportCredentials
}

var _ topology.Transport = Dialer{}

// Meet implements topology.Transport.
func (d Dialer) Meet(ctx context.Context, addr string, req topology.MeetRequest) (topology.MeetReply, error) {
	m, err := meetRequestTo(req)
	if err != nil {
		return topology.MeetReply{}, err
	}
	var reply *peerpb.MeetReply
	err = d.exchange(ctx, addr, func(ctx context.Context, c peerpb.PeerClient) error {
		reply, err = c.Meet(ctx, m)
		return err
	})
	if err != nil {
		return topology.MeetReply{}, err
	}
	return meetReplyFrom(reply)
}

// Adopt implements topology.Transport.
func (d Dialer) Adopt(ctx context.Context, addr string, req topology.AdoptRequest) error {
	m, err := adoptRequestTo(req)
	if err != nil {
		return err
	}
	return d.exchange(ctx, addr, func(ctx context.Context, c peerpb.PeerClient) error {
		_, err := c.Adopt(ctx, m)
		return err
	})
}

// Enroll implements topology.Transport. An error is one of the moment; what is
// final is in the reply.
func (d Dialer) Enroll(ctx context.Context, addr string, req topology.EnrollRequest) (topology.EnrollReply, error) {
	if deadline, ok := ctx.Deadline(); ok && d.Timeout <= 0 {
		d.Timeout = time.Until(deadline)
	}
	var reply *peerpb.EnrollReply
	err := d.exchange(ctx, addr, func(ctx context.Context, c peerpb.PeerClient) (err error) {
		reply, err = c.Enroll(ctx, enrollRequestTo(req))
		return err
	})
	if err != nil {
		return topology.EnrollReply{}, err
	}
	return enrollReplyFrom(reply)
}

func (d Dialer) exchange(ctx context.Context, addr string, do func(context.Context, peerpb.PeerClient) error) error {
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := connect(addr, d.Credentials, timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := do(ctx, peerpb.NewPeerClient(conn)); err != nil {
		return fmt.Errorf("asking the node at %s: %w", addr, err)
	}
	return nil
}

// connect prepares a connection; the first use of it dials. The one place where
// client connections are configured.
func connect(addr string, creds credentials.TransportCredentials, timeout time.Duration, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		// A dialer of our own also keeps gRPC from using the proxy that the
		// environment may name: peers are no web sites.
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			d := net.Dialer{Timeout: timeout}
			return d.DialContext(ctx, "tcp", addr)
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}),
			grpc.MaxCallRecvMsgSize(grpcBytes),
			grpc.MaxCallSendMsgSize(grpcBytes),
		),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), // retries are the caller's decision
		grpc.WithIdleTimeout(0),
	}
	// passthrough: net.Dialer resolves names each time, and sees them change.
	return grpc.NewClient("passthrough:///"+addr, append(opts, more...)...)
}
