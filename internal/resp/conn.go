package resp

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of a connection's read buffer. A connection waits with wakeBytes only, of
// its own; a client that fills them gets a buffer of readBytes, which doubles while
// it fills that too, up to pipelineBytes. Only a single long command grows it
// further, and it goes back as soon as that command is done.
const (
	wakeBytes     = 512
	readBytes     = 4 << 10
	pipelineBytes = 64 << 10
)

// Bounds on reading on after a protocol error, so that the error arrives.
const (
	drainTime  = 2 * time.Second
	drainBytes = CommandBytesMax
)

// conn is one client. Its goroutine owns everything but the fields under mu and
// the atomics, which CLIENT LIST and Shutdown look at.
type conn struct {
	srv   *Server
	id    int64
	nc    net.Conn
	since time.Time

	// levels are those chosen with SYN.CONSISTENCY, and backend is the
	// server's at these levels.
	levels  levels
	backend Backend

	w     replyWriter
	frame framer
	run   run
	args  [][]byte
	wake  [wakeBytes]byte
	in    []byte // received; nil while idle
	start int    // of in, the bytes before it are done with
	quit  bool   // no more commands are read

	// While a command has begun and is not whole: when its present piece began, and
	// how many bytes of that have come.
	pieceBegan time.Time
	pieceBytes int

	lastActive  atomic.Int64 // Unix nanoseconds
	lastCommand atomic.Pointer[string]

	mu       sync.Mutex
	stopping bool
	identity identity
}

// identity is what a client says about itself.
type identity struct {
	name, libName, libVersion string
	resp3                     bool
}

func newConn(s *Server, id int64, nc net.Conn) *conn {
	c := &conn{srv: s, id: id, nc: nc, since: time.Now(), backend: s.backend}
	c.w = replyWriter{nc: nc, timeout: s.opts.WriteTimeout}
	c.run.seed, c.run.now = s.seed, s.now
	c.lastActive.Store(c.since.UnixNano())
	return c
}

// serve reads and executes commands until the client leaves, misbehaves or the
// server stops.
func (c *conn) serve(ctx context.Context) {
	defer c.nc.Close()
	defer c.release()
	for {
		err := c.execute(ctx)
		c.w.flush()
		if err == nil && !c.quit && c.w.err == nil {
			if err = c.fill(); err == nil {
				continue
			}
		}
		if c.quit {
			c.hangUp(refusalTime, flushBytes)
			return
		}
		var broken *protocolError
		if errors.As(err, &broken) {
			c.srv.opts.Logger.Info("closing a client", "client", c.nc.RemoteAddr(), "err", broken)
			c.w.error("ERR " + broken.Error())
			c.release()
			c.hangUp(drainTime, drainBytes)
		}
		return
	}
}

// execute runs every whole command in the buffer. What it returns ends the
// connection; the replies before it are still sent.
func (c *conn) execute(ctx context.Context) error {
	for !c.quit && c.w.err == nil {
		size, err := c.frame.next(c.in[c.start:])
		if err == nil && size > 0 {
			c.args, err = parse(c.in[c.start:c.start+size], c.args)
		}
		if err != nil || size == 0 {
			c.run.finish(ctx, c)
			return err
		}
		c.start += size
		if len(c.args) == 0 {
			continue
		}
		if c.run.join(c.args) {
			continue
		}
		c.run.finish(ctx, c)
		if !c.run.join(c.args) {
			c.dispatch(ctx, c.args)
		}
		c.w.grown()
	}
	return nil
}

var errStopping = errors.New("the server is stopping")

// fill reads more bytes; nothing in the buffer is referred to any more.
func (c *conn) fill() error {
	if c.start == len(c.in) {
		if cap(c.in) > pipelineBytes {
			c.release()
		} else {
			c.in, c.start = c.in[:0], 0
		}
		if cap(c.args) > readBytes/16 {
			c.args = nil
		}
		if cap(c.w.buf) > 2*flushBytes {
			c.w.buf = nil
		}
	}
	half := c.start < len(c.in)
	switch {
	case !half:
		c.pieceBegan, c.pieceBytes = time.Time{}, 0
	case c.pieceBegan.IsZero() || c.pieceBytes >= pieceBytes:
		c.pieceBegan, c.pieceBytes = time.Now(), 0
	}
	for {
		now := time.Now()
		deadline, err := c.patience(now, half)
		if err != nil {
			return err
		}
		var n int
		if cap(c.in) == 0 {
			if !c.armRead(deadline) {
				return errStopping
			}
			n, err = c.nc.Read(c.wake[:])
			c.in = c.wake[:n]
		} else {
			if err := c.makeRoom(); err != nil {
				return err
			}
			if idle := now.Add(c.srv.opts.IdleBuffers); deadline.IsZero() || idle.Before(deadline) {
				deadline = idle
			}
			if !c.armRead(deadline) {
				return errStopping
			}
			n, err = c.nc.Read(c.in[len(c.in):cap(c.in)])
			c.in = c.in[:len(c.in)+n]
		}
		if n > 0 {
			c.pieceBytes += n
			c.lastActive.Store(time.Now().UnixNano())
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.rest()
			continue
		}
		if err != nil {
			return err
		}
	}
}

// pieceBytes is how much of a command must come within one CommandTimeout. A limit on
// progress, not on the whole command: 8 MiB over a thin line is fine.
const pieceBytes = 256 << 10

var errIdle = errors.New("the client was silent for too long")

// patience returns until when the client may be silent, the zero time for ever, or the
// error that ends its connection.
func (c *conn) patience(now time.Time, half bool) (deadline time.Time, err error) {
	switch limit := c.srv.opts.IdleTimeout; {
	case half:
		deadline = c.pieceBegan.Add(c.srv.opts.CommandTimeout)
		err = tooSlow(c.srv.opts.CommandTimeout)
	case limit > 0:
		deadline, err = time.Unix(0, c.lastActive.Load()).Add(limit), errIdle
	default:
		return time.Time{}, nil
	}
	if now.Before(deadline) {
		return deadline, nil
	}
	return time.Time{}, err
}

// rest gives the buffers back: the client was silent for a while. The beginning of a
// command is kept, in little room if it is little; many clients that feed a byte now and
// then must not cost more than silent ones.
func (c *conn) rest() {
	c.w.buf, c.args = nil, nil
	c.run.release()
	switch {
	case len(c.in) == 0:
		c.release()
	case len(c.in) <= wakeBytes/2 && cap(c.in) > wakeBytes:
		c.srv.reserve(-int64(budgeted(cap(c.in))))
		c.in = c.wake[:copy(c.wake[:], c.in)]
	}
}

// makeRoom moves what is left to the front of the buffer, and doubles it when
// that leaves little room: as bytes arrive, never because a length was declared.
func (c *conn) makeRoom() error {
	full := len(c.in) == cap(c.in)
	if c.start > 0 {
		c.in = c.in[:copy(c.in, c.in[c.start:])]
		c.start = 0
	}
	size := cap(c.in)
	switch {
	case full && size < pipelineBytes:
		size = max(2*size, readBytes)
	case size-len(c.in) < size/8:
		size = max(min(2*size, CommandBytesMax+pipelineBytes), readBytes)
	}
	if size == cap(c.in) {
		return nil
	}
	if !c.srv.reserve(int64(budgeted(size) - budgeted(cap(c.in)))) {
		return tooBig("too many bytes of commands are in flight on this node: try again later or send smaller commands")
	}
	c.in = append(make([]byte, 0, size), c.in...)
	return nil
}

// budgeted is what a buffer of a given size takes from the server's budget.
func budgeted(size int) int { return max(0, size-pipelineBytes) }

// release gives the read buffer back.
func (c *conn) release() {
	c.srv.reserve(-int64(budgeted(cap(c.in))))
	c.in, c.start = nil, 0
	// The arguments of the last command would keep the buffer alive.
	clear(c.args[:cap(c.args)])
}

// armRead sets the deadline of the next read, unless the server is stopping:
// without the lock a deadline set here could undo the one of stopReading.
func (c *conn) armRead(deadline time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.stopping && c.nc.SetReadDeadline(deadline) == nil
}

// stopReading ends a read in progress and those to come.
func (c *conn) stopReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// deadline gives a command's calls of the backend their time.
func (c *conn) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if d := c.srv.backend.RequestDeadline(); d > 0 {
		return context.WithTimeout(ctx, d)
	}
	return ctx, func() {}
}
