package resp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// The clients people use, with their default options.

func TestGoRedis(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprintf("RESP%d", protocol), func(t *testing.T) { useGoRedis(t, protocol) })
	}
}

func useGoRedis(t *testing.T, protocol int) {
	clock, backend := newTestClock(), newMapBackend()
	backend.now = clock.now
	_, addr := startServer(t, backend, Options{Now: clock.now})
	client := redis.NewClient(&redis.Options{Addr: addr, Protocol: protocol})
	defer client.Close()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(client.Ping(ctx).Err())
	must(client.Set(ctx, "k", "v", 0).Err())
	if v, err := client.Get(ctx, "k").Result(); v != "v" || err != nil {
		t.Errorf("Get: %q, %v", v, err)
	}
	if err := client.Get(ctx, "nothing").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("Get of nothing: %v", err)
	}
	must(client.MSet(ctx, "m1", 1, "m2", 2).Err())
	if vs, err := client.MGet(ctx, "m1", "nothing", "m2").Result(); fmt.Sprint(vs) != "[1 <nil> 2]" || err != nil {
		t.Errorf("MGet: %v, %v", vs, err)
	}
	if err := client.SetNX(ctx, "k", "v", 0).Err(); err == nil || !strings.Contains(err.Error(), "last write") && !strings.Contains(err.Error(), "read-modify-write") {
		t.Errorf("SetNX: %v", err)
	}
	_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 3000 {
			p.Set(ctx, fmt.Sprintf("s:%04d", i), i, 0)
		}
		return nil
	})
	must(err)
	gets := make([]*redis.StringCmd, 3000)
	_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range gets {
			gets[i] = p.Get(ctx, fmt.Sprintf("s:%04d", i))
		}
		return nil
	})
	must(err)
	for i, get := range gets {
		if get.Val() != fmt.Sprint(i) {
			t.Fatalf("s:%04d is %q", i, get.Val())
		}
	}
	seen := map[string]bool{}
	for it := client.Scan(ctx, 0, "s:*", 100).Iterator(); it.Next(ctx); {
		seen[it.Val()] = true
	}
	if len(seen) != 3000 {
		t.Errorf("Scan found %d keys", len(seen))
	}
	if n, err := client.DBSize(ctx).Result(); n != 3003 || err != nil {
		t.Errorf("DBSize: %d, %v", n, err)
	}
	if n, err := client.Del(ctx, "k", "m1", "m1").Result(); n != 2 || err != nil {
		t.Errorf("Del: %d, %v", n, err)
	}
	if infos, err := client.Command(ctx).Result(); err != nil || infos["mset"] == nil || infos["mset"].StepCount != 2 {
		t.Errorf("Command: %v", err)
	}
	if settings, err := client.ConfigGet(ctx, "max*").Result(); err != nil || settings["maxmemory"] != "0" {
		t.Errorf("ConfigGet: %v, %v", settings, err)
	}
	if text, err := client.Info(ctx, "server").Result(); err != nil || !strings.Contains(text, "syntropy_version:dev") {
		t.Errorf("Info: %q, %v", text, err)
	}
	if list, err := client.ClientList(ctx).Result(); err != nil || !strings.Contains(list, "lib-name=go-redis") {
		t.Errorf("ClientList: %q, %v", list, err)
	}
	if now, err := client.Time(ctx).Result(); !now.Equal(clock.now()) || err != nil {
		t.Errorf("Time: %v, %v", now, err)
	}
	useExpiry(t, client, clock)
	if levels, err := client.Do(ctx, "SYN.CONSISTENCY").Result(); err != nil || !strings.Contains(fmt.Sprint(levels), "write") {
		t.Errorf("SYN.CONSISTENCY: %v, %v", levels, err)
	}
}

// useExpiry makes the calls about expiry, each with what it must answer.
func useExpiry(t *testing.T, client *redis.Client, clock *testClock) {
	ctx := t.Context()
	at := clock.now().Add(90 * time.Second).Truncate(time.Second)
	for i, step := range []struct {
		cmd  redis.Cmder
		want any
	}{
		{client.Set(ctx, "e", "v", time.Minute), "OK"},
		{client.TTL(ctx, "e"), time.Minute},
		{client.Expire(ctx, "e", 2*time.Minute), true},
		{client.PTTL(ctx, "e"), 2 * time.Minute},
		{client.ExpireNX(ctx, "e", time.Minute), false},
		{client.ExpireXX(ctx, "e", time.Minute), true},
		{client.ExpireGT(ctx, "e", time.Second), false},
		{client.ExpireLT(ctx, "e", time.Second), true},
		{client.PExpire(ctx, "e", 1500*time.Millisecond), true},
		{client.PTTL(ctx, "e"), 1500 * time.Millisecond},
		{client.ExpireAt(ctx, "e", at), true},
		{client.ExpireTime(ctx, "e"), time.Duration(at.Unix()) * time.Second},
		{client.PExpireAt(ctx, "e", at), true},
		{client.PExpireTime(ctx, "e"), time.Duration(at.UnixMilli()) * time.Millisecond},
		{client.Persist(ctx, "e"), true},
		{client.Persist(ctx, "e"), false},
		{client.TTL(ctx, "e"), time.Duration(-1)},
		//lint:ignore SA1019 programs that call it must go on working
		{client.SetEx(ctx, "e", "w", time.Hour), "OK"},
		{client.TTL(ctx, "e"), time.Hour},
		{client.Set(ctx, "e", "v", 1500*time.Millisecond), "OK"},
		{client.PTTL(ctx, "e"), 1500 * time.Millisecond},
		{client.SetArgs(ctx, "e", "v", redis.SetArgs{ExpireAt: at}), "OK"},
		{client.TTL(ctx, "e"), 89 * time.Second},
		{client.Set(ctx, "e", "v", 0), "OK"},
		{client.TTL(ctx, "e"), time.Duration(-1)},
		{client.Expire(ctx, "e", -time.Second), true},
		{client.TTL(ctx, "e"), time.Duration(-2)},
		{client.Get(ctx, "e"), redis.Nil},
		{client.Expire(ctx, "e", time.Second), false},
		{client.Set(ctx, "e", "v", time.Second), "OK"},
	} {
		got := any(step.cmd.Err())
		switch cmd := step.cmd.(type) {
		case *redis.BoolCmd:
			got = cmd.Val()
		case *redis.DurationCmd:
			got = cmd.Val()
		case *redis.StatusCmd:
			got = cmd.Val()
		}
		if err := step.cmd.Err(); got != step.want || err != nil && err != step.want {
			t.Errorf("call %d, %v: got %v, want %v", i, step.cmd, got, step.want)
		}
	}
	clock.advance(time.Second)
	if err := client.Get(ctx, "e").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("Get of an expired key: %v", err)
	}
	client.Set(ctx, "e", "v", time.Minute)
	if err := client.Set(ctx, "e", "w", redis.KeepTTL).Err(); err != nil || client.TTL(ctx, "e").Val() != time.Minute {
		t.Errorf("Set with KEEPTTL: %v", err)
	}
	pipe := client.Pipeline()
	for i := range 100 {
		pipe.Set(ctx, fmt.Sprint("e", i), i, time.Duration(i+1)*time.Second)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Error(err)
	}
	for i := range 100 {
		if ttl := client.TTL(ctx, fmt.Sprint("e", i)).Val(); ttl != time.Duration(i+1)*time.Second {
			t.Errorf("e%d has %v left", i, ttl)
		}
	}
}

func tool(t *testing.T, name, addr, stdin string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: %v", name, err)
	}
	host, port, _ := net.SplitHostPort(addr)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"-h", host, "-p", port}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestRedisCLI(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{})
	var load strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&load, "SET key:%04d value\r\n", i)
	}
	if out := tool(t, "redis-cli", addr, load.String(), "--pipe"); !strings.Contains(out, "errors: 0, replies: 5000") {
		t.Errorf("--pipe says %q", out)
	}
	if out := tool(t, "redis-cli", addr, "", "--scan", "--pattern", "key:0*"); strings.Count(out, "\n") != 1000 {
		t.Errorf("--scan finds %d keys", strings.Count(out, "\n"))
	}
	for _, tc := range []struct{ in, want string }{
		{"GET key:0001", "value\n"},
		{"GET nothing", "\n"},
		{"SET big \"a\\r\\nb\"", "OK\n"},
		{"STRLEN big", "4\n"},
		{"INCR k", "ERR INCR is refused: " + refusedTable()["incr"] + "\n\n"},
		{"HELP GET", ""},
		{"SET e v EX 100\nEXPIRE e 50 GT\nEXPIRE e 50 XX LT\nPERSIST e\nTTL e", "OK\n0\n1\n1\n-1\n"},
		{"EXPIRE e 10 NX XX", "ERR NX and XX, GT or LT options at the same time are not compatible\n\n"},
		{"SYN.CONSISTENCY READ ALL", "OK\n"},
		{"COMMAND COUNT", fmt.Sprint(len(commandTable())) + "\n"},
	} {
		for _, args := range [][]string{nil, {"-3"}} {
			if out := tool(t, "redis-cli", addr, tc.in+"\n", args...); tc.want != "" && out != tc.want {
				t.Errorf("redis-cli %v: %q says %q, want %q", args, tc.in, out, tc.want)
			}
		}
	}
	for _, args := range [][]string{{"INFO"}, {"-3", "INFO"}, {"CLIENT", "LIST"}, {"-3", "COMMAND", "DOCS"}, {"COMMAND"}, {"CLIENT", "HELP"}} {
		if out := tool(t, "redis-cli", addr, "", args...); len(out) < 50 || strings.Contains(out, "ERR") {
			t.Errorf("redis-cli %v says %q", args, out)
		}
	}
}

func TestRedisBenchmark(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{})
	out := tool(t, "redis-benchmark", addr, "", "-n", "2000", "-t", "set,get,mset", "-P", "16", "-q")
	if strings.Count(out, "requests per second") != 3 || strings.Contains(out, "rror") {
		t.Errorf("redis-benchmark says %q", out)
	}
}
