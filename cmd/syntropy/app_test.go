package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"syntropy/internal/admin"
	"syntropy/report"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fakeNode answers what its fields say and notes what it was asked.
type fakeNode struct {
	status     report.Status
	inspection report.Inspection
	reports    []report.Repair
	roots      report.Roots
	err        error
	loadErr    func(batch int) error

	opts      report.RepairOptions
	key       string
	recompute bool
	batches   [][]admin.Row
	scrub     report.Scrub
	scrubbed  report.ScrubOptions
	blocked   chan struct{} // closed when a repair runs that waits for its end
}

func (f *fakeNode) Status(context.Context) (report.Status, error) { return f.status, f.err }

func (f *fakeNode) Inspect(_ context.Context, key []byte) (report.Inspection, error) {
	f.key = string(key)
	return f.inspection, f.err
}

func (f *fakeNode) Repair(ctx context.Context, opts report.RepairOptions) ([]report.Repair, error) {
	f.opts = opts
	if f.blocked != nil {
		close(f.blocked)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return f.reports, f.err
}

func (f *fakeNode) CancelRepair(context.Context) (int, error) { return len(f.reports), f.err }

func (f *fakeNode) Roots(_ context.Context, recompute bool) (report.Roots, error) {
	f.recompute = recompute
	return f.roots, f.err
}

func (f *fakeNode) Scrub(_ context.Context, opts report.ScrubOptions) (report.Scrub, error) {
	f.scrubbed = opts
	return f.scrub, f.err
}

func (f *fakeNode) Load(_ context.Context, rows []admin.Row) error {
	if f.loadErr != nil {
		if err := f.loadErr(len(f.batches)); err != nil {
			return err
		}
	}
	f.batches = append(f.batches, rows)
	return f.err
}

// result is what a command line did.
type result struct {
	status   int
	out, err string
}

// shell runs command lines against one fake node.
type shell struct {
	t      *testing.T
	addr   string
	stdin  io.Reader
	colour bool
	bar    bool
	env    []string // for the settings of nodes
	ctx    context.Context
	tick   time.Duration // how far the clock moves with each look at it
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newShell(t *testing.T, f *fakeNode) *shell {
	t.Helper()
	srv := httptest.NewServer(admin.New(f, nil))
	t.Cleanup(srv.Close)
	return &shell{t: t, addr: strings.TrimPrefix(srv.URL, "http://"), ctx: t.Context()}
}

func (s *shell) run(args ...string) result {
	s.t.Helper()
	var out, errs bytes.Buffer
	now := noon
	a := &app{
		in: s.stdin, out: &out, err: &errs, colour: s.colour, progress: s.bar,
		getenv: func(name string) string {
			if name == "SYNTROPY_ADMIN" {
				return s.addr
			}
			return ""
		},
		environ: func() []string { return s.env },
		now:     func() time.Time { now = now.Add(s.tick); return now },
	}
	status := a.run(s.ctx, args)
	return result{status, out.String(), errs.String()}
}

// golden compares an output with testdata/NAME.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
	for line := range strings.Lines(got) {
		if strings.HasSuffix(line, " \n") {
			t.Errorf("%s: a line ends in a space: %q", name, line)
		}
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 100 && !strings.Contains(line, "\x1b") {
			t.Errorf("%s: a line has %d columns: %s", name, n, line)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	f := &fakeNode{err: context.DeadlineExceeded}
	sh := newShell(t, f)
	for _, tc := range []struct{ line, want, see string }{
		{"repiar", `unknown command "repiar": did you mean repair?`, "syntropy"},
		{"frobnicate", `unknown command "frobnicate"`, "syntropy"},
		{"--nope", "unknown flag: --nope", "syntropy"},
		{"help frobnicate", `there is no command "frobnicate"`, "syntropy help"},
		{"status now", `takes no argument "now"`, "syntropy status"},
		{"status --verbose", "unknown flag: --verbose", "syntropy status"},
		{"status --admin foo", `--admin "foo": not an address: give host:port, such as 127.0.0.1:7201`, "syntropy status"},
		{"status --admin http://127.0.0.1:7201", "not an address", "syntropy status"},
		{"status --admin 127.0.0.1/x:7201", "not an address", "syntropy status"},
		{"inspect k --admin 127.0.0.1", "not an address", "syntropy inspect"},
		{"repair --admin 127.0.0.1:0", `--admin "127.0.0.1:0": ports are 1 to 65535`, "syntropy repair"},
		{"repair cancel --admin 127.0.0.1:65536", "ports are 1 to 65535", "syntropy repair cancel"},
		{"roots --admin 127.0.0.1:", "ports are 1 to 65535", "syntropy roots"},
		{"import x.tsv --admin 127.0.0.1:http", "ports are 1 to 65535", "syntropy import"},
		{"serve --data-dir /nonexistent/d --listen 127.0.0.1:99999", `--listen "127.0.0.1:99999": ports are 0 (any free one) to 65535`, "syntropy serve"},
		{"serve --data-dir /nonexistent/d --listen 127.0.0.1:-1", "0 (any free one) to 65535", "syntropy serve"},
		{"serve --data-dir /nonexistent/d --listen nonsense", `--listen "nonsense": not an address`, "syntropy serve"},
		{"serve --data-dir /nonexistent/d --admin-listen 127.0.0.1:99999", "--admin-listen", "syntropy serve"},
		{"serve --data-dir /nonexistent/d --peer-listen 127.0.0.1:99999", "ports are 1 to 65535", "syntropy serve"},
		{"serve --data-dir /nonexistent/d --peer-listen 127.0.0.1:0", "fixed port", "syntropy serve"},
		{"serve --data-dir /nonexistent/d --join 127.0.0.1:99999", `--join "127.0.0.1:99999": ports are 1 to 65535`, "syntropy serve"},
		{"serve --data-dir /nonexistent/d --join foo", `--join "foo": not an address`, "syntropy serve"},
		{"serve", "--data-dir is missing", "syntropy serve"},
		{"serve --data-dir /nonexistent/d --peer-listen 10.0.0.1:7101", "give --join, and --bootstrap-expect", "syntropy serve"},
		{"serve --data-dir /nonexistent/d --gc-grace 1m", "raise gc_grace or lower hint_window", "syntropy serve"},
		{"serve --data-dir /nonexistent/d --config /nonexistent/f.yaml", "there is no such file", "syntropy serve"},
		{"serve --test-clock-offset 1", "the unit is missing", "syntropy serve"},
		{"config --shards many", `--shards "many": give a whole number`, "syntropy config"},
		{"config --shards 3", "shards is 3: give a power of two", "syntropy config"},
		{"config file.yaml", `takes no argument "file.yaml"`, "syntropy config"},
		{"init --peer-listen 10.0.0.1:7101", "--data-dir is missing", "syntropy init"},
		{"init --data-dir /nonexistent/d", "--peer-listen is missing", "syntropy init"},
		{"init --data-dir /nonexistent/d --peer-listen 10.0.0.1:7101 --shards 3", "power of two", "syntropy init"},
		{"init --data-dir /nonexistent/d --peer-listen 10.0.0.1:7101 --listen 10.0.0.1:7001", "unknown flag: --listen", "syntropy init"},
		{"init --data-dir /nonexistent/d --peer-listen 10.0.0.1:7101 --member 10.0.0.2", `--member "10.0.0.2": not an address`, "syntropy init"},
		{"init --data-dir /nonexistent/d --peer-listen 10.0.0.1:7101 --member 10.0.0.2:7101@a/b", "a zone is a name", "syntropy init"},
		{"init --data-dir /nonexistent/d --peer-listen 10.0.0.1:7101 --member 10.0.0.1:7101@west", "given twice", "syntropy init"},
		{"status --admin", "flag needs an argument: --admin", "syntropy status"},
		{"inspect", "takes one argument, the key, not 0", "syntropy inspect"},
		{"inspect a b", "takes one argument, the key, not 2", "syntropy inspect"},
		{"inspect --base64 !", "not base64", "syntropy inspect"},
		{"repair cancle", `unknown command "cancle": did you mean cancel?`, "syntropy repair"},
		{"repair cancel all", `takes no argument "all"`, "syntropy repair cancel"},
		{"repair --node x", `"x" is not a node`, "syntropy repair"},
		{"repair --shard -1", "counted from 0", "syntropy repair"},
		{"repair --shard seven", "invalid argument", "syntropy repair"},
		{"roots --recalc", "unknown flag: --recalc", "syntropy roots"},
		{"import", "takes one argument, the file, not 0", "syntropy import"},
		{"import x.tsv --format xml", `"xml" is not a format`, "syntropy import"},
		{"import x.dat", "does not tell the format", "syntropy import"},
		{"import x.tsv --on-error retry", "stop or skip", "syntropy import"},
		{"import x.tsv --batch 0", "1 to 10000", "syntropy import"},
		{"import x.jsonl --header", "no header", "syntropy import"},
		{"version --admin x", "unknown flag: --admin", "syntropy version"},
	} {
		got := sh.run(strings.Fields(tc.line)...)
		if got.status != exitUsage || got.out != "" || !strings.HasPrefix(got.err, "syntropy: ") ||
			!strings.Contains(got.err, tc.want) || !strings.HasSuffix(got.err, "\nsee "+tc.see+" --help\n") {
			t.Errorf("%s: %+v, want %q", tc.line, got, tc.want)
		}
	}
}

func TestTheEnvironmentNamesNoAddress(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	sh.addr = "foo"
	if got := sh.run("status"); got.status != exitUsage || !strings.HasPrefix(got.err, `syntropy: SYNTROPY_ADMIN "foo": not an address`) {
		t.Errorf("%+v", got)
	}
}

func TestNobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rows := filepath.Join(t.TempDir(), "rows.tsv")
	if err := os.WriteFile(rows, []byte("k\tv\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh := newShell(t, &fakeNode{})
	for _, line := range []string{"status", "inspect k", "repair", "repair cancel", "roots", "import " + rows} {
		got := sh.run(append(strings.Fields(line), "--admin", addr)...)
		want := "syntropy: no node answers at " + addr + ": is `syntropy serve` or `syntropy dev` running? give its admin address with --admin"
		if got.status != exitFailed || got.out != "" || !strings.HasPrefix(got.err, want) {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// TestHelpTeaches holds every command's help to the same contract.
func TestHelpTeaches(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Name() == "help" || sub.Name() == "completion" {
				continue
			}
			path := strings.Fields(sub.CommandPath())[1:]
			got := sh.run(append(path, "--help")...)
			for _, want := range []string{"Example:\n  $ syntropy " + strings.Join(path, " "), "Exit statuses: 0 ", "2\nusage.", "Usage:"} {
				if !strings.Contains(strings.ReplaceAll(got.out, "2 usage.", "2\nusage."), want) {
					t.Errorf("the help of %s lacks %q", path, want)
				}
			}
			if got.status != exitOK || got.err != "" {
				t.Errorf("%s --help: %d %s", path, got.status, got.err)
			}
			if help := sh.run(append([]string{"help"}, path...)...); help.out != got.out {
				t.Errorf("help %s differs from --help:\n%s\n%s", path, help.out, got.out)
			}
			sub.Flags().VisitAll(func(f *pflag.Flag) {
				name, _ := pflag.UnquoteUsage(f)
				if !slices.Contains(strings.Fields("directory file name H:P H:P[@ZONE] number duration always|interval:D one|quorum|all on|off auto|MiB MiB port N S tsv|csv|jsonl stop|skip"), name) && f.Value.Type() != "bool" {
					t.Errorf("%s: --%s takes %q: what is that?", path, f.Name, name)
				}
			})
			for line := range strings.Lines(got.out) {
				if len([]rune(line)) > 110 {
					t.Errorf("%s: a long line of help: %s", path, line)
				}
			}
			walk(sub)
		}
	}
	walk(newRoot(&app{getenv: func(string) string { return "" }}))
	if got := sh.run(); got.status != exitOK || !strings.Contains(got.out, "Exit statuses") {
		t.Errorf("no command: %+v", got)
	}
}

// TestTextsKeepTheirPromises: what help and answers send people to exists.
func TestTextsKeepTheirPromises(t *testing.T) {
	root := newRoot(&app{getenv: func(string) string { return "" }})
	var flags func(cmd *cobra.Command) []string
	flags = func(cmd *cobra.Command) (names []string) {
		note := func(f *pflag.Flag) { names = append(names, f.Name) }
		cmd.Flags().VisitAll(note)
		cmd.PersistentFlags().VisitAll(note)
		for _, sub := range cmd.Commands() {
			names = append(names, flags(sub)...)
		}
		return names
	}
	known := append(flags(root), "help")
	var sources []string
	for _, pattern := range []string{"*.go", "../../internal/resp/*.go", "../../internal/admin/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatal(pattern, err)
		}
		sources = append(sources, found...)
	}
	command := regexp.MustCompile("(?:['\"`$]|see|have|run) ?syntropy ([a-z]+)")
	flagName := regexp.MustCompile("[ '\"`]--([a-z][a-z-]+)")
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range command.FindAllStringSubmatch(string(raw), -1) {
			if sub, _, err := root.Find([]string{m[1]}); err != nil || sub == root {
				t.Errorf("%s: there is no %q", path, m[0])
			}
		}
		for _, m := range flagName.FindAllStringSubmatch(string(raw), -1) {
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s: there is no flag --%s", path, m[1])
			}
		}
	}
}

func TestVersion(t *testing.T) {
	sh := newShell(t, &fakeNode{})
	if got := sh.run("version"); got.status != exitOK || !strings.HasPrefix(got.out, "syntropy dev (commit ") {
		t.Errorf("%+v", got)
	}
	var v versionReport
	if got := sh.run("version", "--json"); json.Unmarshal([]byte(got.out), &v) != nil || v.Version != "dev" || v.Go == "" {
		t.Errorf("%+v", got)
	}
}

func TestLittleRoomForALongText(t *testing.T) {
	table := table{indent: "  "}
	wide := strings.Repeat("w", 85)
	table.row("n1", wide, cell{text: "fits", brief: true})
	table.row("n2", wide, cell{text: "does not fit", brief: true})
	var out bytes.Buffer
	table.print(&out, false)
	if want := "  n1  " + wide + "  fits\n  n2  " + wide + "  see below\n\n  n2  does not fit\n"; out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestNumbersForPeople(t *testing.T) {
	for got, want := range map[string]string{
		count(0): "0", count(999): "999", count(1000): "1,000", count(int64(1234567)): "1,234,567", count(-1000): "-1,000", count(-100): "-100",
		size(1023): "1023 B", size(1536): "1.5 KiB", size(1 << 40): "1.0 TiB",
		span(0): "0 ms", span(1500 * time.Millisecond): "1.5 s", span(125 * time.Second): "2 min 05 s",
		span(3 * time.Hour): "3 h 00 min", span(240 * time.Hour): "10 days",
		showKey("plain key", 20): "plain key", showKey("", 20): `""`, showKey(" x", 20): `" x"`,
		showKey("\x1b[2J\xff", 20): `"\x1b[2J\xff"`, showKey(`say "hi"`, 20): `"say \"hi\""`,
		showKey("a very long key indeed", 10): "a very l..", showKey("日本語日本語", 8): "日本語..",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
