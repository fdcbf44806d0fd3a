package node

import (
	"syntropy/hlc"
)

// Whereabouts say who holds which keys and where clients reach them, as this node
// sees it.
type Whereabouts struct {
	Cluster string
	Version uint64 // of the topology
	Self    hlc.NodeID
	Members []Whereabout // by id
	// Replicas are the members that hold each shard, ascending. It is shared:
	// only to be read.
	Replicas [][]hlc.NodeID
}

// Whereabout is where one member is.
type Whereabout struct {
	ID         hlc.NodeID
	PeerAddr   string
	ClientAddr string // empty if it has none, or was never met by this node
	Serves     bool   // it answers reads of the shards that it holds
}

// Whereabouts asks nobody: it tells what this node knows at the moment. Where a
// member's clients reach it, that member says whenever a link to it is made.
func (n *Node) Whereabouts() (Whereabouts, error) {
	r, err := n.enter()
	if err != nil {
		return Whereabouts{}, err
	}
	defer n.leave()
	l := r.layout()
	w := Whereabouts{
		Cluster: r.record.ClusterID, Version: l.table.Version, Self: r.self,
		Members: make([]Whereabout, len(l.table.Members)), Replicas: l.table.Shards,
	}
	for i, m := range l.table.Members {
		w.Members[i] = Whereabout{ID: m.ID, PeerAddr: m.Addr, Serves: r.readable(l, m.ID)}
		if m.ID == r.self {
			w.Members[i].ClientAddr = n.opts.ClientAddr
		} else {
			w.Members[i].ClientAddr = l.peers[m.ID].clients()
		}
	}
	return w, nil
}

func (p *peer) setClientAddr(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clientAddr = addr
}

func (p *peer) clients() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clientAddr
}
