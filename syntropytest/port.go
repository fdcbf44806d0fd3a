package syntropytest

import (
	"errors"
	"net"
	"sync"
)

// port is the peer port of one node. It is open from the beginning to the end of the
// test, so no other program can take it while the node is stopped; who connects then
// is hung up on.
type port struct {
	listener net.Listener
	closed   chan struct{} // serve has returned

	mu   sync.Mutex
	node *portListener // of the node that runs; nil: none does
}

// openPort opens a free port on loopback.
func openPort() (*port, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &port{listener: l, closed: make(chan struct{})}
	go p.serve()
	return p, nil
}

func (p *port) addr() string { return p.listener.Addr().String() }

// serve hands connections to the node that runs, until the port is closed.
func (p *port) serve() {
	defer close(p.closed)
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // the connection, not the port
		}
		p.mu.Lock()
		node := p.node
		p.mu.Unlock()
		if node == nil || !node.offer(conn) {
			conn.Close()
		}
	}
}

// listen returns a listener for a node that starts. Closing it does not close the
// port.
func (p *port) listen() net.Listener {
	l := &portListener{port: p, conns: make(chan net.Conn), closed: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node = l
	return l
}

// close closes the port and returns when nothing of it is left.
func (p *port) close() error {
	err := p.listener.Close()
	<-p.closed
	return err
}

// portListener is the port as one run of a node sees it.
type portListener struct {
	port   *port
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *portListener) offer(conn net.Conn) bool {
	select {
	case l.conns <- conn:
		return true
	case <-l.closed:
		return false
	}
}

// Accept returns the next connection to the node.
func (l *portListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the node's part in the port.
func (l *portListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	l.port.mu.Lock()
	defer l.port.mu.Unlock()
	if l.port.node == l {
		l.port.node = nil
	}
	return nil
}

// Addr returns the address of the port.
func (l *portListener) Addr() net.Addr { return l.port.listener.Addr() }
