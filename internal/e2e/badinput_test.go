package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree is all that is below a directory, in one string; "absent" if it is not
// there. The lock file is left out: who may use a directory must lock it to find
// out, and writes its pid there.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == "lock" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%s %v", rel, d.IsDir())
		if !d.IsDir() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %v %x", info.ModTime().UnixNano(), raw)
		}
		b.WriteByte('\n')
		return nil
	})
	if os.IsNotExist(err) {
		return "absent"
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// refused runs `syntropy serve`, which must end by itself with the status and
// say the words, and leave the data directory as it was.
func (s *server) refused(status int, args []string, words ...string) {
	s.t.Helper()
	before := tree(s.t, s.dir)
	_, got, stderr := syntropy(s.t, nil, args...)
	if got != status {
		s.t.Errorf("exit status %d, want %d: %s", got, status, stderr)
	}
	wantWords(s.t, stderr, words...)
	if strings.Contains(stderr, "panic") || strings.Contains(stderr, "goroutine ") {
		s.t.Errorf("it panics: %s", stderr)
	}
	if after := tree(s.t, s.dir); after != before {
		s.t.Errorf("the data directory was changed:\n%.500s\nnow:\n%.500s", before, after)
	}
}

// lone prepares one server that is not started.
func lone(t *testing.T, flags ...string) *server {
	t.Helper()
	s := newServers(t, 1)[0]
	s.flags = append([]string{"--cache-mib", "8"}, flags...)
	return s
}

// TestServeRefuses: command lines that make no sense, on an absent directory.
func TestServeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		args   []string
		words  []string
	}{
		{"unknown flag", 2, []string{"--bogus"}, []string{"--bogus", "syntropy serve --help"}},
		{"argument", 2, []string{"extra"}, []string{"extra"}},
		{"listen", 2, []string{"--listen", "nonsense"}, []string{"--listen", "nonsense", "host:port"}},
		{"listen port", 2, []string{"--listen", "127.0.0.1:99999"}, []string{"--listen", "99999"}},
		{"listen address", 1, []string{"--listen", "203.0.113.9:7001"}, []string{"--listen", "203.0.113.9", "does not have that address"}},
		{"admin address", 2, []string{"--admin-listen", "7201"}, []string{"--admin-listen", "host:port"}},
		{"peer wildcard", 2, []string{"--peer-listen", "0.0.0.0:7101"}, []string{"--peer-listen", "not a wildcard"}},
		{"peer port", 2, []string{"--peer-listen", "127.0.0.1:0"}, []string{"--peer-listen", "fixed port"}},
		{"join", 2, []string{"--join", "nowhere"}, []string{"--join", "nowhere", "peer address"}},
		{"shards", 2, []string{"--shards", "3"}, []string{"shards is 3", "power of two"}},
		{"grace", 2, []string{"--gc-grace", "1m"}, []string{"gc_grace 1m0s must exceed", "raise gc_grace or lower hint_window"}},
		{"duration", 2, []string{"--settle", "soon"}, []string{"--settle", "soon"}},
		{"expect", 2, []string{"--bootstrap-expect", "65"}, []string{"--bootstrap-expect", "65", "0 to 64"}},
		{"sync", 2, []string{"--sync", "sometimes"}, []string{"--sync", "sometimes", "always"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := lone(t)
			s.refused(tc.status, s.args(tc.args...), tc.words...)
		})
	}
	t.Run("no data-dir", func(t *testing.T) {
		lone(t).refused(2, []string{"serve"}, "--data-dir")
	})
	t.Run("unknown command", func(t *testing.T) {
		lone(t).refused(2, []string{"sreve"}, "sreve", "serve")
	})
}

// TestDirectoryRefused: directories that this node must not use.
func TestDirectoryRefused(t *testing.T) {
	put := func(s *server, name, text string) {
		t.Helper()
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("not a data directory", func(t *testing.T) {
		s := lone(t)
		put(s, "thesis.tex", "years of work")
		s.refused(1, s.args(), s.dir, "is not a Syntropy data directory", "thesis.tex", "give an empty one")
	})
	t.Run("a file", func(t *testing.T) {
		s := lone(t)
		if err := os.WriteFile(s.dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, status, stderr := syntropy(t, nil, s.args()...)
		if status != 1 {
			t.Errorf("exit status %d", status)
		}
		wantWords(t, stderr, s.dir, "not a directory")
	})

	// The rest needs a directory that was used.
	used := startServers(t, 1, "--shards", "8")[0]
	used.end(sigTerm)
	copyOf := func(t *testing.T) *server {
		t.Helper()
		s := lone(t)
		s.peer, s.client, s.admin = used.peer, used.client, used.admin
		if err := os.CopyFS(s.dir, os.DirFS(used.dir)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("newer node.json", func(t *testing.T) {
		s := copyOf(t)
		put(s, "node.json", `{"format": 99, "something": "new"}`)
		s.refused(1, s.args(), "node.json", "format 99", "newer version")
	})
	t.Run("newer cluster.json", func(t *testing.T) {
		s := copyOf(t)
		put(s, "cluster.json", `{"format": 99}`)
		s.refused(1, s.args(), "cluster.json", "format 99", "newer version")
	})
	t.Run("broken cluster.json", func(t *testing.T) {
		s := copyOf(t)
		put(s, "cluster.json", `{"format": 1, "cluster_id"`)
		s.refused(1, s.args(), "cluster.json", "unreadable")
	})
	t.Run("other settings", func(t *testing.T) {
		s := copyOf(t)
		s.refused(1, s.args("--shards", "16"), "--shards 16 given", "created with 8")
	})
	t.Run("other address", func(t *testing.T) {
		s := copyOf(t)
		s.peer = freeAddrs(t, 1)[0]
		s.refused(1, s.args(), s.peer, used.peer, "--peer-listen it had")
	})
	t.Run("another cluster", func(t *testing.T) {
		other := startServers(t, 1)[0]
		s := copyOf(t)
		s.refused(1, s.args("--join", other.peer), s.dir, "--join "+other.peer, "give an empty data directory")
	})
	t.Run("in use", func(t *testing.T) {
		s := copyOf(t)
		s.start()
		s.ready(1)
		second := lone(t)
		second.dir, second.peer = s.dir, freeAddrs(t, 1)[0]
		_, status, stderr := syntropy(t, nil, second.args()...)
		if status != 1 {
			t.Errorf("exit status %d", status)
		}
		wantWords(t, stderr, fmt.Sprintf("pid %d", s.cmd.Process.Pid), s.dir, "stop it first")
		s.ready(1)
	})
}

// TestPortInUse: found before anything is written, whichever port it is.
func TestPortInUse(t *testing.T) {
	taken := startServers(t, 1)[0]
	for flag, addr := range map[string]string{"--listen": taken.client, "--peer-listen": taken.peer, "--admin-listen": taken.admin} {
		s := lone(t)
		s.refused(1, s.args(flag, addr), flag+" "+addr, "in use", "give another port")
		if got := tree(t, s.dir); got != "absent" {
			t.Errorf("%s: the directory was made: %s", flag, got)
		}
	}
}

// TestNewcomers: the member set is fixed.
func TestNewcomers(t *testing.T) {
	servers := startServers(t, 3)
	t.Run("a fourth node", func(t *testing.T) {
		s := lone(t, "--bootstrap-expect", "3", "--join", servers[0].peer)
		_, status, stderr := syntropy(t, nil, s.args()...)
		if status != 1 {
			t.Errorf("exit status %d", status)
		}
		wantWords(t, stderr, "refuses this node", s.peer+" is not in it", servers[2].peer, "start it with --join and without --bootstrap-expect")
	})
	t.Run("other settings", func(t *testing.T) {
		s := lone(t, "--bootstrap-expect", "3", "--join", servers[0].peer, "--shards", "8")
		_, status, stderr := syntropy(t, nil, s.args()...)
		if status != 1 {
			t.Errorf("exit status %d", status)
		}
		wantWords(t, stderr, "refuses this node")
	})
	t.Run("an empty directory at a member's address", func(t *testing.T) {
		s := lone(t, servers[1].flags...)
		s.peer = servers[1].peer
		s.refused(1, s.args(), "--peer-listen "+s.peer, "in use")
	})
	for _, s := range servers {
		s.ready(3)
	}
	t.Run("join without expect", func(t *testing.T) { // the way in
		s := lone(t, "--join", servers[0].peer)
		s.start()
		s.ready(4)
		if err := s.redis().Set(t.Context(), "k", "v", 0).Err(); err != nil {
			t.Error(err)
		}
		if got, err := servers[2].redis().Get(t.Context(), "k").Result(); err != nil || got != "v" {
			t.Errorf("%q, %v", got, err)
		}
		if status := s.end(sigTerm); status != 0 {
			t.Errorf("exit status %d", status)
		}
		s.start()
		s.ready(4)
	})
}

// TestInit: a cluster made by hand. Its members come one after the other, on empty
// directories, and each serves when it has come.
func TestInit(t *testing.T) {
	servers := newServers(t, 3)
	args := []string{"init", "--data-dir", servers[0].dir, "--peer-listen", servers[0].peer, "--shards", "16"}
	for _, s := range servers[1:] {
		args = append(args, "--member", s.peer)
	}
	if out, status, stderr := syntropy(t, nil, args...); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, stderr)
	}
	if _, status, stderr := syntropy(t, nil, args...); status == 0 {
		t.Error("a second init in the same directory is not refused")
	} else {
		wantWords(t, stderr, "holds cluster", "already")
	}
	for i, s := range servers[:2] {
		s.flags = []string{"--cache-mib", "8", "--join", servers[0].peer, "--settle", "10s"}
		s.start()
		s.ready(i + 1)
	}
	servers[2].flags = servers[0].flags
	servers[2].start()
	servers[2].ready(3)
	for i, s := range servers {
		key := fmt.Sprint("k", i)
		if err := s.redis().Set(t.Context(), key, "v", 0).Err(); err != nil {
			t.Error(err)
		}
		for _, o := range servers {
			if got, err := o.redis().Get(t.Context(), key).Result(); err != nil || got != "v" {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
}

// TestInitAllAtOnce: the members come at the same moment, before the founder knows
// who holds what. Restarts in between do no harm.
func TestInitAllAtOnce(t *testing.T) {
	for range 3 {
		servers := newServers(t, 3)
		args := []string{"init", "--data-dir", servers[0].dir, "--peer-listen", servers[0].peer, "--member", servers[1].peer, "--member", servers[2].peer}
		if out, status, stderr := syntropy(t, nil, args...); status != 0 {
			t.Fatalf("status %d: %s%s", status, out, stderr)
		}
		for _, s := range servers {
			s.flags = []string{"--cache-mib", "8", "--join", servers[0].peer}
			s.start()
		}
		servers[1].end(sigKill)
		servers[1].start()
		for _, s := range servers {
			s.ready(3)
		}
	}
}

// TestRejoinEmpty: a member whose disk was replaced is filled, also when it is
// killed again and again meanwhile.
func TestRejoinEmpty(t *testing.T) {
	servers := startServers(t, 3, "--settle", "100ms", "--shards", "16")
	var rows strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&rows, "key%d\tvalue %d\n", i, i)
	}
	if _, status, stderr := syntropy(t, []byte(rows.String()), "import", "-", "--format", "tsv", "--admin", servers[0].admin); status != 0 {
		t.Fatal(stderr)
	}
	s := servers[2]
	s.end(sigKill)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		s.start()
		passed(t, time.Duration(100+50*i)*time.Millisecond)
		s.end(sigKill)
	}
	s.start()
	s.ready(3)
	passed(t, 150*time.Millisecond)
	s.equal()
	if got, err := s.redis().Get(t.Context(), "key19999").Result(); err != nil || got != "value 19999" {
		t.Errorf("%q, %v", got, err)
	}
}
