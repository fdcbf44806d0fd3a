package clients

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/tidwall/redcon"

	"syntropy/internal/fleet"
)

// tap notes to which node each command on a key is sent, from the bytes that a client
// writes.
type tap struct {
	mu   sync.Mutex
	sent []call
}

type call struct{ addr, key string }

// dial connects a client, and listens to it.
func (p *tap) dial(ctx context.Context, addr string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &tapped{Conn: nc, addr: addr, tap: p}, nil
}

// taken returns the calls since it was called last.
func (p *tap) taken() []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := p.sent
	p.sent = nil
	return sent
}

type tapped struct {
	net.Conn
	addr string
	tap  *tap
	rest []byte // the beginning of a command
}

func (c *tapped) Write(b []byte) (int, error) {
	c.rest = append(c.rest, b...)
	for {
		complete, args, _, rest, err := redcon.ReadNextCommand(c.rest, nil)
		if err != nil || !complete {
			break
		}
		if name := strings.ToUpper(string(args[0])); name == "GET" || name == "SET" {
			c.tap.mu.Lock()
			c.tap.sent = append(c.tap.sent, call{c.addr, string(args[1])})
			c.tap.mu.Unlock()
		}
		c.rest = slices.Clone(rest)
	}
	return c.Conn.Write(b)
}

// replicas returns who holds a key, by client address, as a node itself says.
func replicas(t *testing.T, nodes []*fleet.Node, client *redis.Client, key string) (addrs []string) {
	t.Helper()
	answer, err := client.Do(t.Context(), "SYN.INSPECT", key).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, replica := range answer.(map[any]any)["replicas"].([]any) {
		name := replica.(map[any]any)["node"].(string)
		i := slices.IndexFunc(nodes, func(n *fleet.Node) bool { return n.Name == name })
		addrs = append(addrs, nodes[i].ClientAddr())
	}
	return addrs
}

// direct returns how many of the calls went to a replica of their key, and to how many
// nodes there were any.
func direct(t *testing.T, nodes []*fleet.Node, client *redis.Client, calls []call) (n, reached int) {
	t.Helper()
	holders, asked := map[string][]string{}, map[string]bool{}
	for _, call := range calls {
		if holders[call.key] == nil {
			holders[call.key] = replicas(t, nodes, client, call.key)
		}
		if slices.Contains(holders[call.key], call.addr) {
			n++
		}
		asked[call.addr] = true
	}
	return n, len(asked)
}

// routed is a client that knows where keys are.
type routed struct {
	name string
	set  func(ctx context.Context, key, value string) error
	get  func(ctx context.Context, key string) (string, error)
}

// routedClients returns clients that were told of two nodes of a cluster.
func routedClients(t *testing.T, tap *tap, addrs []string) []routed {
	t.Helper()
	var clients []routed
	// Clients learn of a node that is gone when they ask again who holds what; go-redis
	// does it once a minute by itself, rueidis only after a redirection.
	const refresh = time.Second
	for _, options := range []redis.ClusterOptions{{}, {ReadOnly: true}, {RouteRandomly: true}, {RouteByLatency: true}} {
		options.Addrs, options.ClusterStateReloadInterval = addrs, refresh
		options.Dialer = func(ctx context.Context, _, addr string) (net.Conn, error) { return tap.dial(ctx, addr) }
		client := redis.NewClusterClient(&options)
		t.Cleanup(func() { client.Close() })
		clients = append(clients, routed{
			fmt.Sprintf("go-redis, ReadOnly %v, RouteRandomly %v, RouteByLatency %v", options.ReadOnly, options.RouteRandomly, options.RouteByLatency),
			func(ctx context.Context, key, value string) error { return client.Set(ctx, key, value, 0).Err() },
			func(ctx context.Context, key string) (string, error) { return client.Get(ctx, key).Result() },
		})
	}
	for _, shards := range []bool{false, true} {
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: addrs, DisableCache: true, ClusterOption: rueidis.ClusterOption{PreferClusterShards: shards, ShardsRefreshInterval: refresh},
			DialCtxFn: func(ctx context.Context, addr string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
				return tap.dial(ctx, addr)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		clients = append(clients, routed{
			fmt.Sprintf("rueidis, by CLUSTER SHARDS %v", shards),
			func(ctx context.Context, key, value string) error {
				return client.Do(ctx, client.B().Set().Key(key).Value(value).Build()).Error()
			},
			func(ctx context.Context, key string) (string, error) {
				return client.Do(ctx, client.B().Get().Key(key).Build()).ToString()
			},
		})
	}
	return clients
}

// TestRouting: of five nodes three hold each key. Clients that know Redis Cluster send
// at least 99% of their commands to one of those three, also after a node was lost and
// they had time to see it, and use all nodes.
func TestRouting(t *testing.T) {
	f := start(t, 5, "--replicas", "3", "--sync", "interval:100ms")
	ctx, tap := t.Context(), new(tap)
	judge := plain(t, f.Nodes[0].ClientAddr())
	clients := routedClients(t, tap, []string{f.Nodes[0].ClientAddr(), f.Nodes[1].ClientAddr()})

	const keys = 200
	use := func(c routed, round string) error {
		for i := range keys {
			key, value := fmt.Sprintf("user:%d", i), fmt.Sprint(c.name, round, i)
			if err := c.set(ctx, key, value); err != nil {
				return fmt.Errorf("%s: SET: %w", c.name, err)
			}
			if got, err := c.get(ctx, key); got != value || err != nil {
				return fmt.Errorf("%s: GET returns %q, %v; want %q", c.name, got, err, value)
			}
		}
		return nil
	}
	check := func(c routed, when string, nodes int) {
		calls := tap.taken()
		n, reached := direct(t, f.Nodes, judge, calls)
		t.Logf("%s, %s: %d of %d commands went to a replica, over %d nodes", c.name, when, n, len(calls), reached)
		if len(calls) < 2*keys || 100*n < 99*len(calls) || reached != nodes {
			t.Errorf("%s, %s: want 99%% of at least %d commands, over %d nodes", c.name, when, 2*keys, nodes)
		}
	}
	for _, c := range clients {
		if err := use(c, "before"); err != nil {
			t.Fatal(err)
		}
		check(c, "all nodes up", 5)
	}
	gone := f.Nodes[4]
	gone.Kill()
	if err := f.WaitDown(ctx, gone); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		// A client notices by its first commands that fail.
		eventually(t, func() error {
			tap.taken()
			err := use(c, "after")
			if calls := tap.taken(); err == nil && slices.ContainsFunc(calls, func(sent call) bool { return sent.addr == gone.ClientAddr() }) {
				return errors.New(c.name + " still asks the node that is gone")
			}
			return err
		})
		if err := use(c, "settled"); err != nil {
			t.Fatal(err)
		}
		check(c, "one node gone", 4)
	}
}
