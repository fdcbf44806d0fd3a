package rpc

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"syntropy/internal/rpc/peerpb"
)

// Protocol is the version of the protocol that Hello carries.
const Protocol = 1

const (
	// maxInFlight is how many calls of one link the server works on at a time.
	// Beyond it more concurrency only means more memory and longer queues.
	maxInFlight = 256
	// frameBytes and frameMessages bound what is coalesced: larger frames save
	// nothing more, and delay the first message by the encoding of the last.
	frameBytes    = 1 << 20
	frameMessages = 1024
	// grpcBytes bounds what gRPC sends or accepts at once.
	grpcBytes = 16 << 20
	// MaxMessage bounds one Message, framing included: what grpcBytes can carry.
	MaxMessage = grpcBytes - 1024
	// outboxMessages is how much may wait to be sent: all that can be in flight,
	// and the heartbeat, so that replies never wait for each other.
	outboxMessages = maxInFlight + 1
)

var (
	// ErrDown reports that the peer is not connected. Nothing was sent.
	ErrDown = errors.New("peer is down")
	// ErrBroken reports that the connection broke after the request was taken:
	// whether the peer carried it out is unknown.
	ErrBroken = errors.New("connection to the peer broke")
	// ErrTooLarge refuses a message above MaxMessage. Nothing was sent.
	ErrTooLarge = fmt.Errorf("message exceeds %d bytes", MaxMessage)
)

// Codes of a Refusal.
const (
	CodeForeignCluster = "FOREIGN_CLUSTER" // the peer belongs to another cluster
	CodeSettings       = "SETTINGS"        // same cluster, another record
	CodeProtocol       = "PROTOCOL"        // no common protocol version
	CodeStale          = "STALE"           // the peer's disk went back in time or was replaced
	CodeUnknownNode    = "UNKNOWN_NODE"    // the peer is no member, or not the one it is taken for
	CodeUndecided      = "UNDECIDED"       // no cluster record here yet
)

// Codes of a Failure that this package itself replies.
const (
	CodeUnsupported = "UNSUPPORTED" // the receiver does not know this request
	CodeTooLarge    = "TOO_LARGE"   // the reply exceeds MaxMessage
	CodeInternal    = "INTERNAL"    // the handler gave no reply
)

// Refusal is a Hello that was not accepted.
type Refusal struct {
	Code string // one of the codes above
	Text string // for people
}

func (r *Refusal) Error() string { return "link refused: " + r.Text + " (" + r.Code + ")" }

// RemoteError is a request that the peer received and could not carry out.
type RemoteError struct {
	Code string
	Text string
}

func (e *RemoteError) Error() string { return "peer: " + e.Text + " (" + e.Code + ")" }

// failure makes a Failure reply.
func failure(code, text string) *peerpb.Message {
	return &peerpb.Message{Body: &peerpb.Message_Failure{Failure: &peerpb.Failure{Code: code, Text: text}}}
}

// WireSize is what a message adds to a frame: its encoding, tag and length.
func WireSize(m *peerpb.Message) int {
	return protowire.SizeTag(1) + protowire.SizeBytes(m.SizeVT())
}

// codec encodes with the generated code. It is given to client and server
// explicitly: registering it would change every user of gRPC in the process.
type codec struct{}

var _ encoding.CodecV2 = codec{}

type vtMessage interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVT([]byte) error
}

// Name is the content subtype; the bytes are ordinary protobuf.
func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(vtMessage)
	if !ok {
		return nil, fmt.Errorf("rpc: cannot encode %T", v)
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(m.SizeVT())
	if _, err := m.MarshalToSizedBufferVT(*buf); err != nil {
		pool.Put(buf)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

// Unmarshal copies every byte field out of the buffer, so messages may be kept.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(vtMessage)
	if !ok {
		return fmt.Errorf("rpc: cannot decode %T", v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return m.UnmarshalVT(buf.ReadOnlyData())
}
