package resp

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"hash/maphash"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options of a [Server]. The zero value works.
type Options struct {
	// Logger gets what operators should see: accept errors, refused clients,
	// protocol errors. Default: discard.
	Logger *slog.Logger
	// MaxClients is the number of connections served at once, default 10,000;
	// more are told so and closed. Each idle one costs a goroutine and about
	// 10 KiB; mind the limit of open files too.
	MaxClients int
	// WriteTimeout is how long a client may take to accept the next 256 KiB of
	// its replies before it is cut off, default 30 s. Too short cuts off thin
	// lines; too long lets a client that never reads keep its replies alive.
	WriteTimeout time.Duration
	// IdleBuffers is how long a silent connection keeps its buffers, default
	// 10 s. Short costs allocations, long costs up to 64 KiB per connection.
	IdleBuffers time.Duration
	// CommandTimeout is how long a client may take for the rest of a command that it
	// has begun to send, or for the next 256 KiB of it; default 60 s. Then it is told
	// so and cut off. Too short cuts off thin lines; too long lets a client that
	// feeds a byte now and then hold what it has sent.
	CommandTimeout time.Duration
	// IdleTimeout is how long a client may be silent between commands before it is
	// cut off. Zero, the default, is for ever: an idle connection costs little, and
	// clients keep connections for later.
	IdleTimeout time.Duration
	// ReplyBytesMax bounds the bytes of values that wait for clients to take them,
	// over all connections and beyond the first 64 KiB of each, default 1 GiB. A
	// read over it gets an error. Below 8 MiB the largest values cannot be read.
	ReplyBytesMax int64
	// BufferedBytesMax bounds the bytes of commands buffered over all
	// connections beyond the first 64 KiB of each, default 1 GiB. A command
	// over it is refused and its connection closed. Below 64 MiB the largest
	// commands cannot be sent.
	BufferedBytesMax int64
	// EnableFlush lets FLUSHALL and FLUSHDB delete everything. By default they
	// are refused.
	EnableFlush bool
	// Now is the clock that relative expiry times (EX 10, TTL) count from, and
	// that TIME shows; default time.Now. It must be the clock by which the
	// backend decides what has expired, or keys go away early or late by the
	// difference.
	Now func() time.Time
	// Version of Syntropy, as INFO reports it. Default "dev".
	Version string
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxClients <= 0 {
		o.MaxClients = 10_000
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 30 * time.Second
	}
	if o.IdleBuffers <= 0 {
		o.IdleBuffers = 10 * time.Second
	}
	if o.CommandTimeout <= 0 {
		o.CommandTimeout = 60 * time.Second
	}
	if o.ReplyBytesMax <= 0 {
		o.ReplyBytesMax = 1 << 30
	}
	if o.BufferedBytesMax <= 0 {
		o.BufferedBytesMax = 1 << 30
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	return o
}

// Server serves the Redis protocol from a [Backend].
type Server struct {
	backend  Backend
	opts     Options
	commands map[string]*command
	refused  map[string]string
	seed     maphash.Seed
	started  time.Time

	buffered    atomic.Int64 // bytes held beyond the first 64 KiB of each connection
	replying    atomic.Int64 // bytes of values that are being written, of more than 64 KiB
	connections atomic.Int64 // accepted since the start
	rejected    atomic.Int64
	executed    atomic.Int64
	hits        atomic.Int64 // keys that a GET or MGET found
	misses      atomic.Int64 // and those that it did not
	rate        rate
	runID       string // of this start, as INFO reports it

	stopping chan struct{} // closed when Shutdown begins
	running  sync.WaitGroup

	mu        sync.Mutex
	stopped   bool
	nextID    int64
	conns     map[int64]*conn
	listeners map[net.Listener]context.CancelFunc
	refusals  int // clients being told that there are too many
}

// New returns a server that answers from backend.
func New(backend Backend, opts Options) *Server {
	return &Server{
		backend:   backend,
		opts:      opts.withDefaults(),
		commands:  commandTable(),
		refused:   refusedTable(),
		seed:      maphash.MakeSeed(),
		started:   time.Now(),
		rate:      rate{since: time.Now()},
		runID:     newRunID(),
		stopping:  make(chan struct{}),
		conns:     make(map[int64]*conn),
		listeners: make(map[net.Listener]context.CancelFunc),
	}
}

// newRunID is a name of 40 hexadecimal digits, as Redis has them.
func newRunID() string {
	var random [20]byte
	rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// Serve accepts connections from ln, which it closes, until Shutdown or Close;
// then it returns nil. Any other return is an error of the listener, and the
// connections made so far go on.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	ctx, cancel := context.WithCancel(context.Background())
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		cancel()
		return nil
	}
	s.listeners[ln] = cancel
	s.mu.Unlock()

	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			s.admit(ctx, nc)
		case s.isStopping():
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			// Out of file descriptors: those who are connected stay, and a
			// little later there may be room again.
			s.opts.Logger.Warn("cannot accept a client", "err", err)
			pause := time.NewTimer(50 * time.Millisecond)
			select {
			case <-pause.C:
			case <-s.stopping:
				pause.Stop()
			}
		default:
			return err
		}
	}
}

// now is the time that expiry counts from, in milliseconds since 1970.
func (s *Server) now() int64 { return s.opts.Now().UnixMilli() }

func (s *Server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// refusalsMax bounds the goroutines that say goodbye to clients over MaxClients;
// beyond it clients are closed without a word.
const refusalsMax = 64

func (s *Server) admit(ctx context.Context, nc net.Conn) {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		nc.Close()
		return
	}
	s.nextID++
	c := newConn(s, s.nextID, nc)
	if len(s.conns) < s.opts.MaxClients {
		s.conns[c.id] = c
		s.running.Add(1)
		s.mu.Unlock()
		s.connections.Add(1)
		go func() {
			defer s.running.Done()
			c.serve(ctx)
			s.mu.Lock()
			delete(s.conns, c.id)
			s.mu.Unlock()
		}()
		return
	}
	polite := s.refusals < refusalsMax
	if polite {
		s.refusals++
		s.running.Add(1)
	}
	s.mu.Unlock()
	s.rejected.Add(1)
	if !polite {
		nc.Close()
		return
	}
	s.opts.Logger.Warn("refused a client: max number of clients reached", "client", nc.RemoteAddr(), "max", s.opts.MaxClients)
	go func() {
		defer s.running.Done()
		defer nc.Close()
		c.w.timeout = refusalTime
		c.w.error("ERR max number of clients reached")
		c.hangUp(refusalTime, flushBytes)
		s.mu.Lock()
		s.refusals--
		s.mu.Unlock()
	}()
}

const refusalTime = time.Second

// clients returns the connections of this moment, in no order.
func (s *Server) clients() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		all = append(all, c)
	}
	return all
}

// Shutdown stops accepting, closes idle connections, lets commands that were
// received finish and their replies leave, and returns when the last goroutine
// has ended. When ctx ends first, the contexts of running commands are canceled,
// their connections closed, and ctx's error is returned, after the last goroutine
// all the same.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopped {
		s.stopped = true
		close(s.stopping)
	}
	for ln := range s.listeners {
		ln.Close()
	}
	s.mu.Unlock()
	for _, c := range s.clients() {
		c.stopReading()
	}

	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	for _, cancel := range s.listeners {
		cancel()
	}
	s.mu.Unlock()
	for _, c := range s.clients() {
		c.nc.Close()
	}
	<-done
	return err
}

// Close is Shutdown without patience: running commands are canceled. It returns
// after the last goroutine has ended.
func (s *Server) Close() error {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	s.Shutdown(now)
	return nil
}

// hold takes the bytes of values about to be written out of the budget of replies, and
// returns how to give them back. Small ones are written, and forgotten, at once.
func (s *Server) hold(values ...[]byte) (release func(), err error) {
	n := int64(0)
	for _, value := range values {
		n += int64(len(value))
	}
	if n < flushBytes {
		return func() {}, nil
	}
	if s.replying.Add(n) > s.opts.ReplyBytesMax {
		s.replying.Add(-n)
		return nil, errRepliesWait
	}
	return func() { s.replying.Add(-n) }, nil
}

var errRepliesWait = errors.New("too many bytes of values wait on this node for clients to take them: try again later, or read fewer at a time")

// reserve takes n bytes of the budget for buffered commands; a negative n gives
// them back.
func (s *Server) reserve(n int64) bool {
	if s.buffered.Add(n) <= s.opts.BufferedBytesMax || n <= 0 {
		return true
	}
	s.buffered.Add(-n)
	return false
}

// hangUp sends what is in the reply buffer and closes the connection so that it
// arrives: closing a socket with unread bytes resets it, and a reset throws away
// the error the client was about to read. So its bytes are read and dropped for
// a while, up to a bound; who sends more has to live without the reason.
func (c *conn) hangUp(patience time.Duration, bytesMax int64) {
	c.w.flush()
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok && c.w.err == nil {
		if half.CloseWrite() == nil && c.armRead(time.Now().Add(patience)) {
			io.CopyN(io.Discard, c.nc, bytesMax)
		}
	}
	c.nc.Close()
}
