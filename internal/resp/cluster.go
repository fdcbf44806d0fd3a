package resp

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"syntropy/ring"
)

// CLUSTER, as far as it tells where keys are. A client that knows the slots of
// Redis Cluster goes straight to a replica of a key, which saves a hop. It need
// not: any node serves any key, so nobody is ever sent elsewhere (-MOVED), and an
// answer that is out of date does no harm.
//
// Redis gives each slot one master. Here all replicas of a slot are alike, and one
// of those that serve is shown as its master, such that each node is that for about
// as many slots as any other.

// Layout says which nodes hold which slots, as a node sees it.
type Layout struct {
	Cluster string // its id
	Version uint64 // of the topology
	Self    int    // the node that answers, in Nodes
	Nodes   []LayoutNode
	// Shards are the nodes that hold each of so many equal, consecutive ranges of
	// slots, as indices into Nodes. Their number divides that of the slots.
	Shards [][]int
}

// LayoutNode is one node of a Layout.
type LayoutNode struct {
	Name       string // for people, such as n1
	ClientAddr string // host:port; empty if it is not known
	PeerAddr   string
	Serves     bool // reads and writes of what it holds
}

const clusterDiffers = "differs: all replicas of a slot are alike, and one that serves is shown as its master; no node redirects"

func clusterCommands() []command {
	return []command{{name: "cluster", arity: -2, flags: []string{"stale"}, group: "cluster", since: "3.0.0",
		summary: "A container for commands about where keys are.", subcommands: []command{
			{name: "info", arity: 2, since: "3.0.0", note: "differs: fewer fields", summary: "Describes the cluster.", run: clusterInfo},
			{name: "keyslot", arity: 3, since: "3.0.0", usage: "key", summary: "Returns the slot of a key.",
				run: func(_ context.Context, c *conn, args [][]byte) { c.w.integer(int64(ring.Slot(args[2]))) }},
			{name: "myid", arity: 2, since: "3.0.0", summary: "Returns the id of this node.", run: clusterMyID},
			{name: "nodes", arity: 2, since: "3.0.0", note: clusterDiffers, summary: "Lists the nodes, each with the slots of which it is shown as master.", run: clusterNodes},
			{name: "shards", arity: 2, since: "7.0.0", note: clusterDiffers, summary: "Lists the nodes with the slots of which each is shown as master, those that hold all of these besides, and how they are.", run: clusterShards},
			{name: "slots", arity: 2, since: "3.0.0", note: clusterDiffers, summary: "Lists the slots, with the nodes that hold and serve them.", run: clusterSlots},
		}}}
}

// slotRange is a run of slots that the same nodes hold, in the same roles.
type slotRange struct {
	first, last int
	// nodes hold the slots, as indices into Layout.Nodes: those that serve and can
	// be named come first, so the first one of these is the master.
	nodes  []int
	usable int // how many of them serve and can be named
}

// ranges shares the slots out. A node stays master from one shard to the next until
// it has its part, so that equal neighbours make one range: with as many nodes as
// replicas there are as many ranges as nodes, and not as shards.
func (l *Layout) ranges() []slotRange {
	if len(l.Shards) == 0 {
		return nil
	}
	serving := 0
	for _, node := range l.Nodes {
		if node.usable() {
			serving++
		}
	}
	part := (len(l.Shards) + max(serving, 1) - 1) / max(serving, 1)
	mastered := make([]int, len(l.Nodes))
	width := ring.Slots / len(l.Shards)
	var ranges []slotRange
	previous := -1
	for shard, holders := range l.Shards {
		usable := make([]int, 0, len(holders))
		var rest []int
		for _, node := range holders {
			if l.Nodes[node].usable() {
				usable = append(usable, node)
			} else {
				rest = append(rest, node)
			}
		}
		if len(usable) > 0 {
			master := slices.MinFunc(usable, func(a, b int) int { return mastered[a] - mastered[b] })
			if slices.Contains(usable, previous) && mastered[previous] < part {
				master = previous
			}
			mastered[master]++
			previous = master
			i := slices.Index(usable, master)
			usable = slices.Insert(slices.Delete(usable, i, i+1), 0, master)
		}
		next := slotRange{first: shard * width, last: (shard+1)*width - 1, nodes: append(usable, rest...), usable: len(usable)}
		if n := len(ranges) - 1; n >= 0 && ranges[n].usable == next.usable && slices.Equal(ranges[n].nodes, next.nodes) {
			ranges[n].last = next.last
			continue
		}
		ranges = append(ranges, next)
	}
	return ranges
}

// usable tells whether a client can be sent to the node.
func (n *LayoutNode) usable() bool { return n.Serves && n.ClientAddr != "" }

// nodeID is a name of 40 hexadecimal digits, as Redis has them, that is the same at
// every node and for the node's life.
func (l *Layout) nodeID(node int) string {
	sum := sha1.Sum([]byte(l.Cluster + " " + l.Nodes[node].Name))
	return hex.EncodeToString(sum[:])
}

// place splits a client address. Port 0 and an empty host stand for an unknown one;
// a client takes an empty host for the one that it is connected to.
func (n *LayoutNode) place() (host string, port int) {
	host, text, _ := net.SplitHostPort(n.ClientAddr)
	port, _ = strconv.Atoi(text)
	return host, port
}

// layout asks the backend, and answers the client itself when that has an error.
func (c *conn) layout(ctx context.Context) (Layout, bool) {
	l, err := c.backend.Layout(ctx)
	if err != nil {
		c.w.backendError(err)
		return Layout{}, false
	}
	return l, true
}

func clusterSlots(ctx context.Context, c *conn, _ [][]byte) {
	l, ok := c.layout(ctx)
	if !ok {
		return
	}
	// As in Redis, slots that nobody serves are left out, and so is who does not.
	ranges := slices.DeleteFunc(l.ranges(), func(r slotRange) bool { return r.usable == 0 })
	c.w.array(len(ranges))
	for _, r := range ranges {
		c.w.array(2 + r.usable)
		c.w.integer(int64(r.first))
		c.w.integer(int64(r.last))
		for _, node := range r.nodes[:r.usable] {
			host, port := l.Nodes[node].place()
			c.w.array(4)
			c.w.bulkString(host)
			c.w.integer(int64(port))
			c.w.bulkString(l.nodeID(node))
			c.w.array(0)
		}
	}
}

// clusterShard is an entry of CLUSTER SHARDS: what one node is shown as master of.
type clusterShard struct {
	slots []int // first and last of each range
	nodes []int // the master, and who holds all of these slots besides
}

// shards are the ranges by their masters: clients take each entry for another master.
// A node that is master of nothing and comes after no other has an entry without slots,
// so that each node is seen.
func (l *Layout) shards() (shards []clusterShard) {
	byMaster := make(map[int]int)
	shown := make([]bool, len(l.Nodes))
	for _, r := range l.ranges() {
		if r.usable == 0 {
			continue
		}
		i, ok := byMaster[r.nodes[0]]
		if !ok {
			i = len(shards)
			byMaster[r.nodes[0]] = i
			shards = append(shards, clusterShard{nodes: slices.Clone(r.nodes)})
		}
		s := &shards[i]
		s.slots = append(s.slots, r.first, r.last)
		s.nodes = slices.DeleteFunc(s.nodes, func(node int) bool { return !slices.Contains(r.nodes, node) })
	}
	for _, s := range shards {
		for _, node := range s.nodes {
			shown[node] = true
		}
	}
	for node := range l.Nodes {
		if !shown[node] {
			shards = append(shards, clusterShard{nodes: []int{node}})
		}
	}
	return shards
}

func clusterShards(ctx context.Context, c *conn, _ [][]byte) {
	l, ok := c.layout(ctx)
	if !ok {
		return
	}
	shards := l.shards()
	c.w.array(len(shards))
	for _, s := range shards {
		c.w.mapOf(2)
		c.w.bulkString("slots")
		c.w.array(len(s.slots))
		for _, slot := range s.slots {
			c.w.integer(int64(slot))
		}
		c.w.bulkString("nodes")
		c.w.array(len(s.nodes))
		for i, node := range s.nodes {
			host, port := l.Nodes[node].place()
			role, health := "replica", "online"
			if i == 0 {
				role = "master"
			}
			if !l.Nodes[node].usable() {
				health = "fail"
			}
			c.w.mapOf(7)
			c.w.bulkString("id")
			c.w.bulkString(l.nodeID(node))
			c.w.bulkString("port")
			c.w.integer(int64(port))
			for _, field := range [][2]string{{"ip", host}, {"endpoint", host}, {"role", role}} {
				c.w.bulkString(field[0])
				c.w.bulkString(field[1])
			}
			c.w.bulkString("replication-offset")
			c.w.integer(0)
			c.w.bulkString("health")
			c.w.bulkString(health)
		}
	}
}

func clusterNodes(ctx context.Context, c *conn, _ [][]byte) {
	l, ok := c.layout(ctx)
	if !ok {
		return
	}
	slots := make([]string, len(l.Nodes))
	for _, r := range l.ranges() {
		if r.usable > 0 {
			slots[r.nodes[0]] += fmt.Sprintf(" %d-%d", r.first, r.last)
		}
	}
	var list strings.Builder
	for i, node := range l.Nodes {
		flags, link := "master", "connected"
		if !node.Serves {
			flags, link = "master,fail", "disconnected"
		}
		if i == l.Self {
			flags = "myself," + flags
		}
		host, port := node.place()
		_, peerPort, _ := net.SplitHostPort(node.PeerAddr)
		fmt.Fprintf(&list, "%s %s@%s %s - 0 0 %d %s%s\n", l.nodeID(i), net.JoinHostPort(host, strconv.Itoa(port)), peerPort, flags, l.Version, link, slots[i])
	}
	c.w.text(list.String())
}

func clusterInfo(ctx context.Context, c *conn, _ [][]byte) {
	l, ok := c.layout(ctx)
	if !ok {
		return
	}
	served, size := 0, map[int]bool{}
	for _, r := range l.ranges() {
		if r.usable > 0 {
			served += r.last - r.first + 1
			size[r.nodes[0]] = true
		}
	}
	state := "ok"
	if served < ring.Slots {
		state = "fail"
	}
	var text strings.Builder
	for _, field := range []struct {
		name  string
		value any
	}{
		{"cluster_enabled", 1}, {"cluster_state", state},
		{"cluster_slots_assigned", ring.Slots}, {"cluster_slots_ok", served}, {"cluster_slots_pfail", 0}, {"cluster_slots_fail", ring.Slots - served},
		{"cluster_known_nodes", len(l.Nodes)}, {"cluster_size", len(size)}, {"cluster_current_epoch", l.Version}, {"cluster_my_epoch", l.Version},
	} {
		fmt.Fprintf(&text, "%s:%v\r\n", field.name, field.value)
	}
	c.w.text(text.String())
}

func clusterMyID(ctx context.Context, c *conn, _ [][]byte) {
	if l, ok := c.layout(ctx); ok {
		c.w.bulkString(l.nodeID(l.Self))
	}
}
