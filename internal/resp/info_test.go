package resp

import (
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// infoOf asks for sections, and returns the reply without its header.
func infoOf(t *testing.T, nc net.Conn, sections string) string {
	t.Helper()
	nc.Write([]byte("INFO " + sections + "\r\nECHO end\r\n"))
	const end = "\r\n$3\r\nend\r\n"
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.HasSuffix(got.String(), end) {
		n, err := nc.Read(buf)
		if err != nil {
			t.Fatalf("INFO %s: %q, %v", sections, got.String(), err)
		}
		got.Write(buf[:n])
	}
	_, text, _ := strings.Cut(strings.TrimSuffix(got.String(), end), "\r\n")
	return text
}

// TestInfo: the fields that monitoring tools read are there, each in the section where
// they look for it, and with a value.
func TestInfo(t *testing.T) {
	_, addr := startServer(t, newMapBackend(), Options{})
	nc := dial(t, addr)
	nc.Write([]byte("MSET a 1 b 2\r\nGET a\r\nGET none\r\nMGET a b none none\r\n"))
	expect(t, nc, "+OK\r\n$1\r\n1\r\n$-1\r\n*4\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n$-1\r\n")
	for section, fields := range map[string]string{
		"server":      "redis_version=7.0.15 redis_mode=standalone process_id=[0-9]+ run_id=[0-9a-f]{40} tcp_port=[0-9]+ uptime_in_seconds=[0-9]+",
		"clients":     "connected_clients=1 blocked_clients=0 maxclients=10000",
		"memory":      "used_memory=[0-9]{6,} used_memory_human=[0-9.]+M used_memory_rss=[0-9]{6,} maxmemory=0 maxmemory_policy=noeviction",
		"persistence": "loading=0 rdb_bgsave_in_progress=0 aof_enabled=1 aof_rewrite_in_progress=0",
		"stats":       "total_connections_received=1 total_commands_processed=[0-9]+ instantaneous_ops_per_sec=[0-9]+ keyspace_hits=3 keyspace_misses=3 evicted_keys=0 hints_pending=0",
		"replication": "role=master connected_slaves=0",
		"cpu":         `used_cpu_sys=[0-9]+\.[0-9]+ used_cpu_user=[0-9]+\.[0-9]+`,
		"cluster":     "cluster_enabled=0",
		"keyspace":    "db0=keys=1,expires=0,avg_ttl=0",
	} {
		text := infoOf(t, nc, section)
		if strings.Count(text, "# ") != 1 || !strings.EqualFold(strings.TrimSpace(strings.Split(text, "\r\n")[0]), "# "+section) {
			t.Errorf("INFO %s answers %q", section, text)
		}
		for _, field := range strings.Fields(fields) {
			name, value, _ := strings.Cut(field, "=")
			if !regexp.MustCompile(`(?m)^` + name + `:` + value + "\r$").MatchString(text) {
				t.Errorf("INFO %s has no %s like %s: %q", section, name, value, text)
			}
		}
	}
	if text := infoOf(t, nc, "CPU memory"); strings.Count(text, "# ") != 2 {
		t.Errorf("INFO of two sections answers %q", text)
	}
	if text := infoOf(t, nc, "nosuch"); text != "" {
		t.Errorf("INFO of an unknown section answers %q", text)
	}
	for _, all := range []string{"", "all", "default", "everything"} {
		if text := infoOf(t, nc, all); strings.Count(text, "# ") != 10 {
			t.Errorf("INFO %s has %d sections", all, strings.Count(text, "# "))
		}
	}
}

// TestRate: commands a second, over a second at least.
func TestRate(t *testing.T) {
	began := time.Unix(1000, 0)
	r := rate{since: began}
	for _, step := range []struct {
		after    time.Duration
		executed int64
		want     int64
	}{
		{500 * time.Millisecond, 100, 0}, {2 * time.Second, 300, 150}, {2500 * time.Millisecond, 9000, 150},
		{12 * time.Second, 300, 0}, {13 * time.Second, 301, 1}, {14 * time.Second, 1_000_301, 1_000_000},
	} {
		if got := r.perSecond(began.Add(step.after), step.executed); got != step.want {
			t.Errorf("after %v: %d a second, want %d", step.after, got, step.want)
		}
	}
}

func TestHuman(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1.00K", 1536 << 10: "1.50M", 3 << 30: "3.00G", 5 << 50: "5120.00T"} {
		if got := human(n); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
}
