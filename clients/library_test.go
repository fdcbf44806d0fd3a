package clients

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// TestGoRedis uses what go-redis has for strings, on one connection pool, and with the
// client of a cluster; both see the same keys.
func TestGoRedis(t *testing.T) {
	nodes := start(t, 3).Nodes
	single := plain(t, nodes[0].ClientAddr())
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{nodes[1].ClientAddr()}})
	t.Cleanup(func() { cluster.Close() })
	for _, tc := range []struct {
		name   string
		client redis.UniversalClient
		other  redis.UniversalClient
	}{{"plain", single, cluster}, {"cluster", cluster, single}} {
		t.Run(tc.name, func(t *testing.T) {
			useStrings(t, tc.client)
			ctx := t.Context()
			if err := tc.client.Set(ctx, "shared", tc.name, 0).Err(); err != nil {
				t.Fatal(err)
			}
			if got, err := tc.other.Get(ctx, "shared").Result(); got != tc.name || err != nil {
				t.Errorf("the other client reads %q, %v", got, err)
			}
			// Keys of one slot, as clients of a cluster want it.
			if err := tc.client.MSet(ctx, "{tag}a", "1", "{tag}b", "2").Err(); err != nil {
				t.Error(err)
			}
			if got, err := tc.client.MGet(ctx, "{tag}a", "{tag}none", "{tag}b").Result(); fmt.Sprint(got) != "[1 <nil> 2]" || err != nil {
				t.Errorf("MGET answers %v, %v", got, err)
			}
			// A pipeline is split over the nodes and put together again.
			gets := make([]*redis.StringCmd, 300)
			_, err := tc.client.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i := range gets {
					p.Set(ctx, fmt.Sprint("p", i), i, time.Hour)
					gets[i] = p.Get(ctx, fmt.Sprint("p", i))
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			for i, get := range gets {
				if get.Val() != fmt.Sprint(i) {
					t.Fatalf("p%d is %q", i, get.Val())
				}
			}
		})
	}
	seen, it := map[string]bool{}, single.Scan(t.Context(), 0, "p*", 50).Iterator()
	for it.Next(t.Context()) {
		seen[it.Val()] = true
	}
	if len(seen) != 300 || it.Err() != nil {
		t.Errorf("SCAN finds %d keys, %v", len(seen), it.Err())
	}
	//lint:ignore SA1019 programs that call it must go on working
	slots, err := single.ClusterSlots(t.Context()).Result()
	if err != nil || len(slots) != 3 || slots[0].Start != 0 || slots[2].End != 16383 || len(slots[0].Nodes) != 3 {
		t.Errorf("ClusterSlots: %+v, %v", slots, err)
	}
	shards, err := single.ClusterShards(t.Context()).Result()
	if err != nil || len(shards) != 3 || len(shards[1].Nodes) != 3 || shards[1].Nodes[0].Role != "master" || shards[1].Nodes[2].Health != "online" {
		t.Errorf("ClusterShards: %+v, %v", shards, err)
	}
}

// useStrings calls the commands on one key, each with what it must answer.
func useStrings(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	ctx := t.Context()
	client.Del(ctx, "k")
	for i, step := range []struct {
		cmd  redis.Cmder
		want any
	}{
		{client.GetSet(ctx, "k", "one"), redis.Nil},
		{client.GetSet(ctx, "k", "two"), "one"},
		{client.SetArgs(ctx, "k", "three", redis.SetArgs{Get: true}), "two"},
		{client.Expire(ctx, "k", time.Hour), true},
		{client.Set(ctx, "k", "four", redis.KeepTTL), "OK"},
		{client.TTL(ctx, "k"), time.Hour},
		{client.GetEx(ctx, "k", 2*time.Hour), "four"},
		{client.TTL(ctx, "k"), 2 * time.Hour},
		{client.GetEx(ctx, "k", 0), "four"},
		{client.TTL(ctx, "k"), time.Duration(-1)},
		{client.GetRange(ctx, "k", 1, 2), "ou"},
		{client.StrLen(ctx, "k"), int64(4)},
		{client.Touch(ctx, "k"), int64(1)},
		{client.Exists(ctx, "k", "k"), int64(2)},
		{client.Type(ctx, "k"), "string"},
		{client.GetDel(ctx, "k"), "four"},
		{client.GetDel(ctx, "k"), redis.Nil},
		{client.Unlink(ctx, "k"), int64(0)},
	} {
		got := any(step.cmd.Err())
		if got == nil || got == any(error(nil)) {
			switch cmd := step.cmd.(type) {
			case *redis.BoolCmd:
				got = cmd.Val()
			case *redis.DurationCmd:
				got = cmd.Val()
			case *redis.StatusCmd:
				got = cmd.Val()
			case *redis.StringCmd:
				got = cmd.Val()
			case *redis.IntCmd:
				got = cmd.Val()
			}
		}
		if got != step.want {
			t.Errorf("call %d, %v: got %v, want %v", i, step.cmd, got, step.want)
		}
	}
	if err := client.SetNX(ctx, "k", "v", 0).Err(); err == nil || errors.Is(err, redis.Nil) {
		t.Errorf("SetNX: %v", err)
	}
	if n, err := client.Do(ctx, "WAIT", 1, 1000).Int(); n != 1 || err != nil {
		t.Errorf("Wait: %d, %v", n, err)
	}
}

// TestRueidis: it takes a node for one of a cluster, or is told not to.
func TestRueidis(t *testing.T) {
	nodes := start(t, 3).Nodes
	for _, single := range []bool{false, true} {
		t.Run(fmt.Sprint("single ", single), func(t *testing.T) {
			client, err := rueidis.NewClient(rueidis.ClientOption{
				InitAddress: []string{nodes[0].ClientAddr()}, DisableCache: true, ForceSingleClient: single, ClientName: "test",
			})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			useRueidis(t, client)
			if single {
				// Of keys of several slots, a client that takes this for Redis Cluster makes
				// no command by itself.
				ctx := t.Context()
				if err := client.Do(ctx, client.B().Mset().KeyValue().KeyValue("a", "1").KeyValue("b", "2").Build()).Error(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	// Client-side caching needs a server that knows all writes. It says so, and what to
	// do about it.
	_, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{nodes[0].ClientAddr()}})
	if err == nil || !errors.Is(err, rueidis.ErrNoCache) {
		t.Errorf("with client-side caching: %v", err)
	}
}

func useRueidis(t *testing.T, client rueidis.Client) {
	t.Helper()
	ctx, b := t.Context(), client.B()
	if err := client.Do(ctx, b.Set().Key("r").Value("v").ExSeconds(100).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if ttl, err := client.Do(ctx, b.Ttl().Key("r").Build()).AsInt64(); ttl != 100 || err != nil {
		t.Errorf("TTL: %d, %v", ttl, err)
	}
	if v, err := client.Do(ctx, b.Getdel().Key("r").Build()).ToString(); v != "v" || err != nil {
		t.Errorf("GETDEL: %q, %v", v, err)
	}
	if err := client.Do(ctx, b.Get().Key("r").Build()).Error(); !rueidis.IsRedisNil(err) {
		t.Errorf("GET: %v", err)
	}
	if err := client.Do(ctx, b.Incr().Key("r").Build()).Error(); err == nil {
		t.Error("INCR is answered")
	}
	var sets, gets rueidis.Commands
	pairs, keys := map[string]string{}, []string{}
	for i := range 200 {
		key := fmt.Sprint("r", i)
		pairs[key], keys = fmt.Sprint(i), append(keys, key)
		sets = append(sets, b.Set().Key(key).Value(fmt.Sprint(i)).Build())
		gets = append(gets, b.Get().Key(key).Build())
	}
	for _, answer := range client.DoMulti(ctx, sets...) {
		if err := answer.Error(); err != nil {
			t.Fatal(err)
		}
	}
	for i, answer := range client.DoMulti(ctx, gets...) {
		if v, err := answer.ToString(); v != fmt.Sprint(i) || err != nil {
			t.Fatalf("r%d is %q, %v", i, v, err)
		}
	}
	// The library's own MGET and MSET over many slots.
	for key, err := range rueidis.MSet(client, ctx, pairs) {
		if err != nil {
			t.Fatalf("MSET of %s: %v", key, err)
		}
	}
	values, err := rueidis.MGet(client, ctx, keys)
	if err != nil || len(values) != 200 {
		t.Fatalf("MGET: %d values, %v", len(values), err)
	}
	for key, value := range values {
		if v, err := value.ToString(); v != pairs[key] || err != nil {
			t.Errorf("%s is %q, %v", key, v, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if pong, err := client.Do(ctx, b.Ping().Build()).ToString(); pong != "PONG" || err != nil {
		t.Errorf("PING: %q, %v", pong, err)
	}
}
