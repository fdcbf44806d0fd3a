package syntropy

import (
	"net"
	"sync"
)

// loneAddr is the peer address of a node that was given none. A member's address is
// part of the cluster's record, so it must be the same at every start; a port that
// happened to be free once is not. This one cannot be dialled by anybody: ".invalid"
// is a name that never resolves.
const loneAddr = "alone.invalid:1"

// loneListener is the peer port of a node that no other node can reach: it opens no
// socket, and nobody ever connects.
type loneListener struct {
	closed chan struct{}
	once   sync.Once
}

func newLoneListener() *loneListener { return &loneListener{closed: make(chan struct{})} }

// Accept waits until the listener is closed.
func (l *loneListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

// Close ends Accept.
func (l *loneListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr returns the address that nobody can dial.
func (l *loneListener) Addr() net.Addr { return loneNetAddr{} }

type loneNetAddr struct{}

func (loneNetAddr) Network() string { return "none" }
func (loneNetAddr) String() string  { return loneAddr }
