package clients

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// units are those of Redis' suite that are about strings, keys and the protocol.
var units = []string{"unit/type/string", "unit/expire", "unit/keyspace", "unit/scan", "unit/protocol"}

// TestRedisSuite runs Redis 7.0's own tests of these units against a node that is
// alone, and against one of three. All must pass but those on the list, of which each
// names the command that it needs; and the node must really refuse that command.
//
// scripts/redis-suite fetches the tests, to where REDIS_SUITE says or beside other
// caches.
func TestRedisSuite(t *testing.T) {
	dir := os.Getenv("REDIS_SUITE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Skipf("SKIPPED: no directory for caches (%v): set REDIS_SUITE", err)
		}
		dir = filepath.Join(cache, "syntropy", "redis-suite")
	}
	if _, err := os.Stat(filepath.Join(dir, "runtest")); err != nil {
		t.Skipf("SKIPPED: Redis' own tests are not in %s: get them with scripts/redis-suite", dir)
	}
	if _, err := exec.LookPath("tclsh"); err != nil {
		t.Skip("SKIPPED: tclsh is not installed: apt-get install tcl")
	}
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			t.Parallel()
			// The tests are about answers, not about disks.
			addr := start(t, nodes, "--enable-flush", "--sync", "interval:100ms").Nodes[0].ClientAddr()
			runSuite(t, dir, addr, skipList(t, plain(t, addr)))
		})
	}
}

// skip is a test that is not run.
type skip struct {
	test, needs string
	seen        bool
}

// skipList reads the list, and asks the node whether it refuses what each test needs.
func skipList(t *testing.T, client *redis.Client) (skips []*skip) {
	t.Helper()
	text, err := os.ReadFile("testdata/redis-suite.skip")
	if err != nil {
		t.Fatal(err)
	}
	refusal := regexp.MustCompile(`is refused|cannot honour|there is only database 0`)
	asked := map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		needs, test, ok := strings.Cut(line, "\t")
		if !ok {
			t.Fatalf("line %d of the list: %q is no command, tab and test", i+1, line)
		}
		skips = append(skips, &skip{test: test, needs: needs})
		if asked[needs] {
			continue
		}
		asked[needs] = true
		var command []any
		for _, word := range strings.Fields(needs) {
			command = append(command, word)
		}
		if needs == "SET NX" || needs == "SET XX" {
			command = []any{"SET", "k", "v", command[1]}
		}
		if err := client.Do(t.Context(), command...).Err(); err == nil || !refusal.MatchString(err.Error()) {
			t.Errorf("tests are skipped for want of %s, which is not refused: %v", needs, err)
		}
	}
	return skips
}

// basePort returns a port for the suite, by which its processes find each other at 32
// below.
func basePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port + 32)
}

// outcome is how the suite tells of one test.
var outcome = regexp.MustCompile(`(?m)^\[(ok|err|skip|ignore|exception)\]:? ?(.*)$`)

func runSuite(t *testing.T, dir, addr string, skips []*skip) {
	t.Helper()
	var names strings.Builder
	for _, s := range skips {
		names.WriteString(s.test + "\n")
	}
	file := filepath.Join(t.TempDir(), "skip")
	if err := os.WriteFile(file, []byte(names.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"tests/test_helper.tcl", "--baseport", basePort(t), "--host", host, "--port", port, "--singledb", "--durable", "--skipfile", file}
	for _, unit := range units {
		args = append(args, "--single", unit)
	}
	cmd := exec.CommandContext(t.Context(), "tclsh", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	log := regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(string(out), "")
	if err != nil || !strings.Contains(log, "All tests passed without errors") {
		t.Errorf("the suite does not pass: %v", err)
	}
	count := map[string]int{}
	for _, m := range outcome.FindAllStringSubmatch(log, -1) {
		kind, name := m[1], m[2]
		count[kind]++
		switch kind {
		case "err", "exception":
			t.Errorf("%s: %s", kind, name)
		case "ignore":
			t.Logf("left out by the suite itself: %s", name)
		case "skip":
			for _, s := range skips {
				if s.test == name {
					s.seen = true
				}
			}
		}
	}
	for _, s := range skips {
		if !s.seen && count["ok"] > 0 {
			t.Errorf("the list has %q, which is no test of these units", s.test)
		}
	}
	if count["ok"] < 100 {
		t.Errorf("only %d tests ran", count["ok"])
	}
	t.Logf("%d tests passed, %d failed, %d skipped for a refused command, %d left out by the suite",
		count["ok"], count["err"]+count["exception"], count["skip"], count["ignore"])
	if t.Failed() {
		t.Logf("what the suite says:\n%s", log)
	}
}
