package resp

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// INFO, in the sections and fields that monitoring tools look for, as far as this
// server can fill them truthfully.

func info(ctx context.Context, c *conn, args [][]byte) {
	wanted := map[string]bool{}
	for _, arg := range args[1:] {
		wanted[strings.ToLower(string(arg))] = true
	}
	all := len(wanted) == 0 || wanted["all"] || wanted["default"] || wanted["everything"]
	var text strings.Builder
	for _, section := range c.srv.info(ctx, c.nc.LocalAddr()) {
		if !all && !wanted[strings.ToLower(section.Name)] {
			continue
		}
		if text.Len() > 0 {
			text.WriteString("\r\n")
		}
		fmt.Fprintf(&text, "# %s\r\n", oneLine(section.Name))
		for _, field := range section.Fields {
			fmt.Fprintf(&text, "%s:%s\r\n", oneLine(field[0]), oneLine(field[1]))
		}
	}
	c.w.text(text.String())
}

func oneLine(s string) string { return strings.NewReplacer("\r", " ", "\n", " ").Replace(s) }

// info is what the server knows of itself, joined with the backend's sections.
func (s *Server) info(ctx context.Context, local net.Addr) []InfoSection {
	_, port, _ := net.SplitHostPort(local.String())
	now := time.Now()
	uptime := now.Sub(s.started)
	connected := len(s.clients())
	memory := memoryBytes()
	user, system := cpuTime()
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	sections := []InfoSection{
		{"Server", [][2]string{
			{"redis_version", redisVersion},
			{"redis_mode", "standalone"},
			{"syntropy_version", s.opts.Version},
			{"os", runtime.GOOS},
			{"arch_bits", strconv.Itoa(strconv.IntSize)},
			{"go_version", runtime.Version()},
			{"process_id", strconv.Itoa(os.Getpid())},
			{"run_id", s.runID},
			{"tcp_port", port},
			{"server_time_usec", number(s.opts.Now().UnixMicro())},
			{"uptime_in_seconds", number(int64(uptime.Seconds()))},
			{"uptime_in_days", number(int64(uptime.Hours() / 24))},
		}},
		{"Clients", [][2]string{
			{"connected_clients", strconv.Itoa(connected)},
			{"maxclients", strconv.Itoa(s.opts.MaxClients)},
			{"blocked_clients", "0"},
		}},
		{"Memory", [][2]string{
			{"used_memory", number(memory)},
			{"used_memory_human", human(memory)},
			{"used_memory_rss", number(memory)},
			{"used_memory_rss_human", human(memory)},
			{"maxmemory", "0"},
			{"maxmemory_human", "0B"},
			{"maxmemory_policy", "noeviction"},
		}},
		{"Persistence", [][2]string{
			{"loading", "0"},
			{"async_loading", "0"},
			{"rdb_bgsave_in_progress", "0"},
			{"aof_enabled", "1"},
			{"aof_rewrite_in_progress", "0"},
		}},
		{"Stats", [][2]string{
			{"total_connections_received", number(s.connections.Load())},
			{"total_commands_processed", number(s.executed.Load())},
			{"instantaneous_ops_per_sec", number(s.rate.perSecond(now, s.executed.Load()))},
			{"rejected_connections", number(s.rejected.Load())},
			{"evicted_keys", "0"},
			{"keyspace_hits", number(s.hits.Load())},
			{"keyspace_misses", number(s.misses.Load())},
		}},
		{"Replication", [][2]string{
			{"role", "master"},
			{"connected_slaves", "0"},
		}},
		{"CPU", [][2]string{
			{"used_cpu_sys", strconv.FormatFloat(system.Seconds(), 'f', 6, 64)},
			{"used_cpu_user", strconv.FormatFloat(user.Seconds(), 'f', 6, 64)},
		}},
		{"Modules", nil},
		{"Cluster", [][2]string{{"cluster_enabled", "0"}}},
	}
	for _, more := range s.backend.Info(ctx) {
		i := slices.IndexFunc(sections, func(have InfoSection) bool { return strings.EqualFold(have.Name, more.Name) })
		if i < 0 {
			sections = append(sections, more)
			continue
		}
		sections[i].Fields = append(sections[i].Fields, more.Fields...)
	}
	return sections
}

// rate tells how many commands a second there were since it was last asked.
type rate struct {
	mu       sync.Mutex
	since    time.Time
	executed int64
	last     int64
}

// rateTime is the shortest time that a rate is taken over: two tools that ask at
// the same moment are told the same.
const rateTime = time.Second

func (r *rate) perSecond(now time.Time, executed int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if passed := now.Sub(r.since); passed >= rateTime {
		r.last = int64(math.Round(float64(executed-r.executed) / passed.Seconds()))
		r.since, r.executed = now, executed
	}
	return r.last
}

// memoryBytes is what the process takes of the machine's memory. What the storage
// engine allocates is not on Go's heap, so the system is asked where it tells.
func memoryBytes() int64 {
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := bytes.Fields(text); len(fields) > 1 {
			if pages, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
				return pages * int64(os.Getpagesize())
			}
		}
	}
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64() - sample[1].Value.Uint64())
}

// human writes a size as Redis does: 1.50M.
func human(n int64) string {
	size, unit := float64(n), 0
	for size >= 1024 && unit < 4 {
		size, unit = size/1024, unit+1
	}
	if unit == 0 {
		return strconv.FormatInt(n, 10) + "B"
	}
	return strconv.FormatFloat(size, 'f', 2, 64) + string("BKMGT"[unit])
}

// cpuTime is what the process has used; zero where the system does not tell.
func cpuTime() (user, system time.Duration) {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0, 0
	}
	return time.Duration(used.Utime.Nano()), time.Duration(used.Stime.Nano())
}
