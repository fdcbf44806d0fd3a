package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are where one node listens on 127.0.0.1.
type Ports struct{ Clients, Peers, Admin int }

// ClientAddr is where Redis clients connect.
func (p Ports) ClientAddr() string { return addr(p.Clients) }

// PeerAddr is where other nodes connect, and their name for this one.
func (p Ports) PeerAddr() string { return addr(p.Peers) }

// AdminAddr is where operators connect.
func (p Ports) AdminAddr() string { return addr(p.Admin) }

func addr(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// PortsFrom returns the ports of a number of nodes in the usual pattern: from
// base 7000, clients get 7001, 7002 and so on, peers 7101.., operators 7201...
func PortsFrom(base, nodes int) []Ports {
	ports := make([]Ports, nodes)
	for i := range ports {
		ports[i] = Ports{base + 1 + i, base + 101 + i, base + 201 + i}
	}
	return ports
}

// PortError reports a port that cannot be listened on.
type PortError struct {
	Port int
	Use  string // what it is for, like "clients of n1"
	Err  error
}

func (e *PortError) Error() string {
	return fmt.Sprintf("port %d on %s, for the %s, is not free: %v", e.Port, host, e.Use, e.Err)
}

func (e *PortError) Unwrap() error { return e.Err }

// check tries every port, so that one in use is found before anything is
// started.
func check(ports []Ports) error {
	var errs []error
	for i, p := range ports {
		for _, door := range []struct {
			port int
			use  string
		}{{p.Clients, "clients"}, {p.Peers, "peers"}, {p.Admin, "admin requests"}} {
			if err := try(door.port); err != nil {
				errs = append(errs, &PortError{door.port, fmt.Sprintf("%s of n%d", door.use, i+1), err})
			}
		}
	}
	return errors.Join(errs...)
}

func try(port int) error {
	l, err := net.Listen("tcp", addr(port))
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err // without the address once more
	}
	if err != nil {
		return err
	}
	return l.Close()
}

// Free ports are looked for below the ranges that systems take the ports of
// outgoing connections from (32768 up on Linux, 49152 elsewhere): one of those
// could sit on a node's port while the node is away.
const (
	freeFrom = 17000
	freeTo   = 32000
)

// FreePorts finds free ports for a number of nodes, in ascending order.
func FreePorts(nodes int) ([]Ports, error) {
	want := 3 * nodes
	var free []int
	for port := freeFrom + rand.IntN(freeTo-freeFrom-1000); port < freeTo && len(free) < want; port++ {
		if try(port) == nil {
			free = append(free, port)
		}
	}
	if len(free) < want {
		return nil, fmt.Errorf("found only %d free ports of %d on %s", len(free), want, host)
	}
	ports := make([]Ports, nodes)
	for i := range ports {
		ports[i] = Ports{free[i], free[nodes+i], free[2*nodes+i]}
	}
	return ports, nil
}
