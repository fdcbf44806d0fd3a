package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"pgregory.net/rapid"

	"syntropy/coordinator"
	"syntropy/internal/topology"
)

// try resolves a command line, an environment and the text of a file, which is
// called node.yaml in the errors; no file if the text is empty.
func try(t interface {
	TempDir() string
	Fatal(...any)
}, args, environ []string, file string) (*Config, error) {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags := AddFlags(fs)
	if file != "" {
		path := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags.Resolve(environ)
}

func resolve(t *testing.T, args, environ []string, file string) *Config {
	t.Helper()
	c, err := try(t, args, environ, file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := resolve(t, nil, []string{"PATH=/bin", "SYNTROPY_ADMIN=127.0.0.1:7201", "SYNTROPY_ZONE="}, "")
	if c.Cluster != topology.DefaultSettings() {
		t.Errorf("cluster settings %+v, a cluster has %+v", c.Cluster, topology.DefaultSettings())
	}
	c.Cluster, c.values = topology.Settings{}, nil
	want := &Config{
		Listen: "127.0.0.1:7001", PeerListen: "127.0.0.1:7101", AdminListen: "127.0.0.1:7201",
		WriteConsistency: coordinator.Quorum, ReadConsistency: coordinator.Quorum, RepairInterval: time.Hour,
		HintedHandoff: true, ReadRepair: true, HintBytesMax: 1 << 30, HintBytesPerSec: 8 << 20, CacheBytes: cacheOf(memoryBytes("/")),
		ScrubInterval: 168 * time.Hour, ScrubBytesPerSec: 16 << 20,
		MaxClients: 10_000,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// TestEachWay gives each setting in each way alone, and expects the same.
func TestEachWay(t *testing.T) {
	other := map[string]string{
		"data-dir": "/d", "listen": "10.0.0.1:1", "peer-listen": "10.0.0.1:2", "admin-listen": "10.0.0.1:3", "join": "10.0.0.2:2",
		"bootstrap-expect": "5", "zone": "rack-7", "write-consistency": "all", "read-consistency": "one", "repair-interval": "90s",
		"hinted-handoff": "off", "read-repair": "off", "hint-max-mib": "7", "hint-rate-mib": "3", "sync": "interval:100ms",
		"cache-mib": "9", "min-free-mib": "512", "scrub-interval": "24h", "scrub-rate-mib": "5", "enable-flush": "on", "max-clients": "77", "client-timeout": "5m", "verbose": "on", "test-clock-offset": "-3s", "replicas": "5", "shards": "64", "gc-grace": "100h",
		"hint-window": "1h", "settle": "0s", "request-deadline": "1s", "max-clock-skew": "1s",
	}
	plain := resolve(t, nil, nil, "")
	for _, s := range Settings() {
		if s.Name == fileSetting {
			continue
		}
		text, ok := other[s.Name]
		if !ok {
			t.Errorf("%s is not tested", s.Name)
			continue
		}
		inFile := fmt.Sprintf("# a comment\n%s: %s\n", s.Name, text)
		if s.List {
			inFile = fmt.Sprintf("# a comment\n%s: [%s]\n", s.Name, text)
		}
		byFlag := resolve(t, []string{"--" + s.Name + "=" + text}, nil, "")
		for way, c := range map[Source]*Config{
			Flag:        byFlag,
			Environment: resolve(t, nil, []string{s.Env() + "=" + text}, ""),
			File:        resolve(t, nil, nil, inFile),
		} {
			var v Value
			for _, v = range c.values {
				if v.Setting == s {
					break
				}
			}
			if v.Source != way || v.Text != text || !c.IsSet(s.Name) || plain.IsSet(s.Name) {
				t.Errorf("%s by %v: %q by %v from %s", s.Name, way, v.Text, v.Source, v.Place)
			}
			c.File = ""
			if a, b := typed(c), typed(byFlag); !reflect.DeepEqual(a, b) || reflect.DeepEqual(a, typed(plain)) {
				t.Errorf("%s by %v: %+v", s.Name, way, a)
			}
		}
	}
}

// typed is a Config without where it came from.
func typed(c *Config) Config {
	copied := *c
	copied.values = nil
	return copied
}

// TestPrecedence: for any set of ways in which a setting is given, the strongest
// counts, and the others do not shine through.
func TestPrecedence(t *testing.T) {
	temp := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		type way struct{ flag, env, file bool }
		ways := make(map[string]way)
		var args, environ, lines []string
		for i, name := range []string{"shards", "zone", "join", "settle"} {
			w := way{rapid.Bool().Draw(rt, "flag"), rapid.Bool().Draw(rt, "env"), rapid.Bool().Draw(rt, "file")}
			ways[name] = w
			if w.flag {
				args = append(args, "--"+name, []string{"2", "flag", "f:1", "1s"}[i])
			}
			if w.env {
				environ = append(environ, Find(name).Env()+"="+[]string{"4", "env", "e:1,e:2", "2s"}[i])
			}
			if w.file {
				lines = append(lines, name+": "+[]string{"8", "file", "[x:1, x:2, x:3]", "3s"}[i])
			}
		}
		path := filepath.Join(temp, "p.yaml")
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			rt.Fatal(err)
		}
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		flags := AddFlags(fs)
		if err := fs.Parse(append(args, "--config", path)); err != nil {
			rt.Fatal(err)
		}
		c, err := flags.Resolve(environ)
		if err != nil {
			rt.Fatal(err)
		}
		pick := func(name string, flag, env, file, otherwise any) any {
			switch w := ways[name]; {
			case w.flag:
				return flag
			case w.env:
				return env
			case w.file:
				return file
			}
			return otherwise
		}
		for _, check := range []struct{ got, want any }{
			{c.Cluster.Shards, pick("shards", 2, 4, 8, 256)},
			{c.Zone, pick("zone", "flag", "env", "file", "")},
			{strings.Join(c.Join, " "), pick("join", "f:1", "e:1 e:2", "x:1 x:2 x:3", "")},
			{c.Cluster.Settle, pick("settle", time.Second, 2*time.Second, 3*time.Second, 10*time.Second)},
		} {
			if check.got != check.want {
				rt.Fatalf("got %v, want %v", check.got, check.want)
			}
		}
		for name, w := range ways {
			if c.IsSet(name) != (w.flag || w.env || w.file) {
				rt.Fatalf("%s counts as given: %v", name, c.IsSet(name))
			}
		}
	})
}

// TestTheFileIsNamedByAVariable too, and a flag names another one.
func TestTheFileIsNamedByAVariable(t *testing.T) {
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b := write("a.yaml", "zone: a"), write("b.yaml", "zone: b")
	if c := resolve(t, nil, []string{"SYNTROPY_CONFIG=" + a}, ""); c.Zone != "a" {
		t.Errorf("zone %q", c.Zone)
	}
	if c := resolve(t, []string{"--config", b}, []string{"SYNTROPY_CONFIG=" + a}, ""); c.Zone != "b" {
		t.Errorf("zone %q", c.Zone)
	}
}

func TestSpellings(t *testing.T) {
	c := resolve(t, []string{"--verbose", "--join", "a:1", "--join", "b:2, c:3"}, []string{"SYNTROPY_REPAIR_INTERVAL=off"},
		"hinted-handoff: false\nread-repair: 'off'\nshards: \"16\"\nwrite-consistency: ONE\nzone:   # none\n  \"\"\njoin: []\n")
	if !c.Verbose || strings.Join(c.Join, " ") != "a:1 b:2 c:3" || c.RepairInterval != 0 || c.HintedHandoff || c.ReadRepair ||
		c.Cluster.Shards != 16 || c.WriteConsistency != coordinator.One || c.Zone != "" {
		t.Errorf("%+v", c)
	}
	if c := resolve(t, []string{"--shards", "2", "--shards", "4", "--repair-interval", "0"}, nil, "# nothing\n"); c.Cluster.Shards != 4 || c.RepairInterval != 0 {
		t.Errorf("%+v", c)
	}
}

// TestSubset: a command may have some of the settings as flags; the others still
// come from the environment, checked like all.
func TestSubset(t *testing.T) {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags := AddFlags(fs, "shards", "join", "zone")
	if err := fs.Parse([]string{"--shards", "8", "--join", "a:1,b:2"}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(flags.Args()); got != "[--join=a:1 --join=b:2 --shards=8]" {
		t.Error(got)
	}
	c, err := flags.Resolve([]string{"SYNTROPY_SETTLE=1s"})
	if err != nil || c.Cluster.Shards != 8 || c.Cluster.Settle != time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	if fs.Lookup("listen") != nil {
		t.Error("a flag too many")
	}
	defer func() {
		if recover() == nil {
			t.Error("a name that is no setting did not panic")
		}
	}()
	AddFlags(fs, "lisen")
}

// TestLimitsAgree: the limits that the settings name are those of a cluster.
func TestLimitsAgree(t *testing.T) {
	for _, tc := range []struct {
		name string
		text string
		ok   bool
	}{
		{"replicas", "7", true}, {"replicas", "8", false}, {"shards", "4096", true}, {"shards", "8192", false},
	} {
		cluster := topology.DefaultSettings()
		fmt.Sscan(tc.text, map[string]*int{"replicas": &cluster.Replicas, "shards": &cluster.Shards}[tc.name])
		_, err := try(t, []string{"--" + tc.name, tc.text}, nil, "")
		if (err == nil) != tc.ok || (cluster.Validate() == nil) != tc.ok {
			t.Errorf("--%s %s: %v; a cluster: %v", tc.name, tc.text, err, cluster.Validate())
		}
	}
}

// TestIn: what a cluster has, given again as a setting, is the same.
func TestIn(t *testing.T) {
	cluster := topology.Settings{
		Replicas: 5, Shards: 64, GCGrace: 100 * time.Hour, HintWindow: 90 * time.Minute, Settle: 0,
		RequestDeadline: 61 * time.Second, MaxClockSkew: 250 * time.Millisecond, DigestVersion: 2,
	}
	var args, texts []string
	for _, s := range Settings() {
		text := s.In(cluster)
		if s.Cluster != (text != "") {
			t.Errorf("%s: %q", s.Name, text)
		}
		if s.Cluster {
			args, texts = append(args, "--"+s.Name, text), append(texts, text)
		}
	}
	if got := strings.Join(texts, " "); got != "5 64 100h 1h30m 0s 1m1s 250ms" {
		t.Error(got)
	}
	if c := resolve(t, args, nil, ""); c.Cluster != cluster {
		t.Errorf("%+v", c.Cluster)
	}
	for _, s := range Settings() {
		if s.Cluster && s.In(topology.DefaultSettings()) != s.Default {
			t.Errorf("the default of %s is written %s", s.Name, s.Default)
		}
	}
}
