package resp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// The clients people use, with their default options.

func TestGoRedis(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprintf("RESP%d", protocol), func(t *testing.T) { useGoRedis(t, protocol) })
	}
}

func useGoRedis(t *testing.T, protocol int) {
	_, addr := startServer(t, newMapBackend(), Options{})
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
	must(client.Time(ctx).Err())
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
