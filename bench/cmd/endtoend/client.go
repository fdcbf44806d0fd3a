package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
)

// client speaks as much of the Redis protocol as a load needs: commands go out
// in pipelines, and what comes back is an OK, a bulk string or an error.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	stop func() bool
	// ended tells why the context of dial has ended; nil: it has not.
	ended func() error
}

// bufferBytes holds a good part of a pipeline, for few calls of the kernel.
const bufferBytes = 256 << 10

// dial connects. When ctx ends the connection breaks.
func dial(ctx context.Context, addr string) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, r: bufio.NewReaderSize(conn, bufferBytes), w: bufio.NewWriterSize(conn, bufferBytes)}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() }) // closed twice at worst
	c.ended = func() error { return context.Cause(ctx) }
	return c, nil
}

func (c *client) close() {
	c.stop()
	_ = c.conn.Close() // all answers are there
}

// send adds a command to the pipeline. An error shows at the next receive.
func (c *client) send(args ...[]byte) {
	c.head('*', len(args))
	for _, a := range args {
		c.head('$', len(a))
		_, _ = c.w.Write(a)
		_, _ = c.w.WriteString("\r\n")
	}
}

func (c *client) head(kind byte, n int) {
	_ = c.w.WriteByte(kind)
	_, _ = c.w.Write(strconv.AppendInt(c.w.AvailableBuffer(), int64(n), 10))
	_, _ = c.w.WriteString("\r\n")
}

// refusal is an error that the node answered.
type refusal string

func (r refusal) Error() string { return "the node answered: " + string(r) }

// do is a pipeline of one command.
func (c *client) do(args ...string) ([]byte, error) {
	raw := make([][]byte, len(args))
	for i, a := range args {
		raw[i] = []byte(a)
	}
	c.send(raw...)
	return c.receive()
}

// receive returns the next answer; nil without an error is a missing key.
func (c *client) receive() ([]byte, error) {
	answer, err := c.next()
	if err != nil && c.ended() != nil {
		err = c.ended() // not what the broken connection says
	}
	return answer, err
}

func (c *client) next() ([]byte, error) {
	if c.w.Buffered() > 0 {
		if err := c.w.Flush(); err != nil {
			return nil, err
		}
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, fmt.Errorf("%q is not an answer of the Redis protocol", line)
	}
	text := line[1 : len(line)-2]
	switch line[0] {
	case '+', ':':
		return append([]byte{}, text...), nil
	case '-':
		return nil, refusal(text)
	case '$':
		n, err := strconv.Atoi(string(text))
		if err != nil || n < -1 || n > 64<<20 {
			return nil, fmt.Errorf("%q is not a length", text)
		}
		if n < 0 {
			return nil, nil
		}
		body := make([]byte, n+2)
		_, err = io.ReadFull(c.r, body)
		return body[:n], err
	}
	return nil, fmt.Errorf("%q is not an answer that was asked for", line)
}

// receiveOKs reads the answers to n SETs. If the node refused some, it returns
// the first reason; what it refused may be written all the same.
func (c *client) receiveOKs(n int) (refused string, err error) {
	for range n {
		_, err := c.receive()
		if r, ok := err.(refusal); ok {
			if refused == "" {
				refused = string(r)
			}
			continue
		}
		if err != nil {
			return "", err
		}
	}
	return refused, nil
}
