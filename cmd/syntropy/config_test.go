package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeFile puts a file into a directory of its own.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfig(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	const file = "node.yaml"
	dir := filepath.Dir(writeFile(t, file, "zone: east\nshards: 64\nsync: interval:50ms\njoin: [10.0.0.1:7101, 10.0.0.2:7101]\n"))
	sh.env = []string{"SYNTROPY_SHARDS=128", "SYNTROPY_ADMIN=10.0.0.1:7201", "SYNTROPY_READ_CONSISTENCY=one", "HOME=/root"}
	var text, asJSON result
	t.Run("in the directory of the file", func(t *testing.T) {
		t.Chdir(dir)
		text = sh.run("config", "--config", file, "--peer-listen", "10.0.0.1:7101", "--read-consistency", "all", "--verbose", "--data-dir", "/nonexistent/d")
		asJSON = sh.run("config", "--config", file, "--json")
	})
	if text.status != exitOK || text.err != "" || asJSON.status != exitOK || asJSON.err != "" {
		t.Fatalf("%+v %+v", text, asJSON)
	}
	golden(t, "config.txt", text.out)

	var r configReport
	if err := json.Unmarshal([]byte(asJSON.out), &r); err != nil {
		t.Fatal(err)
	}
	found := map[string]configSetting{}
	for _, s := range r.Settings {
		found[s.Name] = s
	}
	for _, want := range []configSetting{
		{"zone", "east", false, "file", file + ":1"},
		{"shards", "128", true, "environment", "SYNTROPY_SHARDS"},
		{"config", file, false, "flag", "--config"},
		{"settle", "10s", true, "default", ""},
		{"data-dir", "", false, "default", ""},
	} {
		if found[want.Name] != want {
			t.Errorf("got %+v, want %+v", found[want.Name], want)
		}
	}
	if _, shown := found["test-clock-offset"]; shown {
		t.Error("a hidden setting is shown")
	}
}

// TestConfigRefuses: wherever a setting comes from, what is wrong with it is said
// in the same words, with its place, by config as by serve.
func TestConfigRefuses(t *testing.T) {
	file := writeFile(t, "node.yaml", "listen: nonsense\ngc_grace: 1h\n")
	for _, command := range []string{"config", "serve"} {
		sh := newShell(t, &fakeNode{})
		sh.env = []string{"SYNTROPY_LISEN=x", "SYNTROPY_SHARDS=many", "SYNTROPY_CONFIG=" + file}
		got := sh.run(command, "--join", "nowhere", "--data-dir", "/nonexistent/d")
		want := "syntropy: the environment variable SYNTROPY_LISEN is no setting: did you mean SYNTROPY_LISTEN?\n" +
			file + `:2: "gc_grace" is no setting: did you mean gc-grace?` + "\n" +
			file + `:1: listen "nonsense": not an address: give host:port, such as 127.0.0.1:7001` + "\n" +
			`--join "nowhere": not an address: give host:port, such as 127.0.0.1:7102, the peer address of another node` + "\n" +
			`SYNTROPY_SHARDS "many": give a whole number from 1 to 4096` + "\n" +
			"see syntropy " + command + " --help\n"
		if got.status != exitUsage || got.out != "" || got.err != want {
			t.Errorf("%s: status %d\ngot\n%s\nwant\n%s", command, got.status, got.err, want)
		}
	}
}

// TestAGivenSettingCounts: a cluster setting contradicts that of an existing
// cluster in whatever way it is given, and defaults contradict nothing.
func TestAGivenSettingCounts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	sh := newShell(t, &fakeNode{})
	if got := sh.run("init", "--data-dir", dir, "--peer-listen", "127.0.0.1:7101", "--shards", "8", "--gc-grace", "100h"); got.status != exitOK {
		t.Fatalf("%+v", got)
	}
	serve := []string{"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--peer-listen", freeAddr(t), "--admin-listen", "127.0.0.1:0"}
	file := writeFile(t, "node.yaml", "shards: 16\n")
	for _, way := range []struct {
		env   []string
		flags []string
		place string
	}{
		{nil, []string{"--shards", "16"}, "--shards"},
		{[]string{"SYNTROPY_SHARDS=16"}, nil, "SYNTROPY_SHARDS"},
		{nil, []string{"--config", file}, file + ":1"},
	} {
		sh.env = way.env
		got := sh.run(append(serve, way.flags...)...)
		if want := "--shards 16 given, the cluster in " + dir + " was created with 8"; got.status != exitFailed || !strings.Contains(got.err, want) {
			t.Errorf("serve, %s: %+v", way.place, got)
		}
		got = sh.run(append([]string{"config", "--data-dir", dir}, way.flags...)...)
		if want := "shards of 16 was given by " + way.place + ", the cluster in " + dir + " was created with 8"; got.status != exitFailed || !strings.Contains(got.err, want) {
			t.Errorf("config, %s: %+v", way.place, got)
		}
	}
	sh.env = []string{"SYNTROPY_SHARDS=8"}
	got := sh.run("config", "--data-dir", dir)
	for _, want := range []string{"shards             8               SYNTROPY_SHARDS", "gc-grace           100h            the cluster in " + dir} {
		if !strings.Contains(squeeze(got.out), squeeze(want)) {
			t.Errorf("status %d, no %q in\n%s", got.status, want, got.out)
		}
	}
}

// freeAddr is an address on loopback that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// squeeze leaves one space between words.
func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }
