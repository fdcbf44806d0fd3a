package clients

import (
	"fmt"
	"strings"
	"testing"
)

// TestRedisCLI uses redis-cli in every way that it has, on one node of three.
func TestRedisCLI(t *testing.T) {
	nodes := start(t, 3).Nodes
	addr, other := nodes[0].ClientAddr(), nodes[1].ClientAddr()

	// One-shot, and the same from another node.
	if out := tool(t, "redis-cli", addr, "", "SET", "greeting", "hello"); out != "OK\n" {
		t.Errorf("SET says %q", out)
	}
	if out := tool(t, "redis-cli", other, "", "GET", "greeting"); out != "hello\n" {
		t.Errorf("GET says %q", out)
	}
	if out := tool(t, "redis-cli", other, "a value from stdin", "-x", "SET", "x"); out != "OK\n" {
		t.Errorf("SET -x says %q", out)
	}
	// -e makes errors of the server one of the program.
	if out := failing(t, "redis-cli", addr, "-e", "INCR", "x"); !strings.Contains(out, "INCR is refused: last write wins") {
		t.Errorf("INCR says %q", out)
	}

	// Interactive, in both protocols, and as a client of a cluster.
	session := "SET k v EX 100\nTTL k\nGETSET k w\nGETEX k PERSIST\nTTL k\nGETRANGE k 0 0\nGETDEL k\nGET k\nTYPE k\n"
	for _, args := range [][]string{nil, {"-3"}, {"-c"}, {"-3", "-c"}} {
		if out, want := tool(t, "redis-cli", addr, session, args...), "OK\n100\nv\nw\n-1\nw\nw\n\nnone\n"; out != want {
			t.Errorf("redis-cli %v says %q, want %q", args, out, want)
		}
	}
	if out := tool(t, "redis-cli", addr, "HELP SET\nCLIENT HELP\nCOMMAND DOCS getex\n", "-3"); !strings.Contains(out, "CLIENT <subcommand>") || !strings.Contains(out, "sets or removes its expiry") {
		t.Errorf("help says %q", out)
	}
	if out := tool(t, "redis-cli", addr, "", "SYN.INSPECT", "greeting"); strings.Count(out, "value") != 3 {
		t.Errorf("SYN.INSPECT says %q", out)
	}
	if out := tool(t, "redis-cli", addr, "", "CLUSTER", "NODES"); strings.Count(out, "master - 0 0") != 3 || !strings.Contains(out, other) {
		t.Errorf("CLUSTER NODES says %q", out)
	}

	const keys = 5000
	var load strings.Builder
	for i := range keys {
		fmt.Fprintf(&load, "SET key:%04d %s\r\n", i, strings.Repeat("v", 1+i%100))
	}
	load.WriteString("SET key:big " + strings.Repeat("v", 10_000) + "\r\n")
	if out := tool(t, "redis-cli", addr, load.String(), "--pipe"); !strings.Contains(out, fmt.Sprintf("errors: 0, replies: %d", keys+1)) {
		t.Errorf("--pipe says %q", out)
	}
	if out := tool(t, "redis-cli", other, "", "--scan", "--pattern", "key:0*"); strings.Count(out, "\n") != 1000 {
		t.Errorf("--scan finds %d keys", strings.Count(out, "\n"))
	}
	if out := tool(t, "redis-cli", other, "", "--bigkeys"); !strings.Contains(out, fmt.Sprintf("Sampled %d keys", keys+3)) || !strings.Contains(out, "Biggest string found '\"key:big\"' has 10000 bytes") {
		t.Errorf("--bigkeys says %q", out)
	}

	// --stat goes on until it is stopped: the first line that it writes is enough.
	stat := follow(t, "redis-cli", addr, "--stat", "-i", "0.1")
	eventually(t, func() error {
		if out := stat(); !strings.Contains(out, fmt.Sprintf("\n%d ", keys+3)) {
			return fmt.Errorf("--stat says %q", out)
		}
		return nil
	})
}

// TestRedisBenchmark: on one node, and as a client of the cluster.
func TestRedisBenchmark(t *testing.T) {
	addr := start(t, 3, "--sync", "interval:100ms").Nodes[0].ClientAddr()
	for _, args := range [][]string{
		{"-t", "ping_inline,ping_mbulk,set,get,mset", "-n", "2000", "-r", "1000"},
		{"-t", "set,get", "-n", "20000", "-r", "1000", "-P", "16", "-3"},
		{"-t", "set,get", "-n", "2000", "-r", "1000", "--cluster"},
		{"-n", "2000", "-r", "1000", "SET", "key:__rand_int__", "v", "EX", "100"},
	} {
		out := tool(t, "redis-benchmark", addr, "", append([]string{"-q"}, args...)...)
		if !strings.Contains(out, "requests per second") || strings.Contains(strings.ToLower(out), "error") || strings.Contains(out, "WARN") {
			t.Errorf("redis-benchmark %v says %q", args, out)
		}
	}
}
