// Program endtoend measures one repair between two real nodes, as an operator
// would see it: two `syntropy serve` processes with their data on disk, filled
// through the Redis port; one is stopped while some rows are overwritten, stays
// away until no hint is left that could bring them, and comes back. Then `syntropy
// repair` has to make both equal, and its costs are taken from its report and from
// outside of the processes.
//
//	go run ./endtoend -rows 1e5                         # in bench/cmd; half a minute
//	go run ./endtoend -doc ../../docs/endtoend.md       # 1e7 rows; the figures into the page
//
// It prints a table, and below it the same figures as one line of JSON. It needs
// about 400 bytes of disk for each row, in the directory for temporary files.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	// A second Ctrl-C ends the program at once; the nodes then get SIGTERM from
	// the kernel.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "endtoend:", err)
		os.Exit(1)
	}
}

// options are what can be chosen.
type options struct {
	w           workload
	connections int
	pipeline    int
	sync        string
	cacheMiB    int
	hintWindow  time.Duration
	recompute   bool
	binary      string
	doc         string
}

// hintWindowMin is a little above the default of serve's --settle.
const hintWindowMin = 12 * time.Second

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("endtoend", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rows := flags.String("rows", "1e7", "rows on each node")
	stale := flags.String("stale", "0.1%", "rows that one node misses, as a number or as a share")
	flags.IntVar(&o.w.valueBytes, "value-bytes", 100, "length of a value; 16 or more")
	flags.Uint64Var(&o.w.seed, "seed", 1, "seed of the values")
	flags.IntVar(&o.connections, "connections", 8, "connections that load")
	flags.IntVar(&o.pipeline, "pipeline", 1000, "SETs that a connection sends before it waits for the answers")
	flags.StringVar(&o.sync, "sync", "interval:100ms", "serve's --sync: the load is not what is measured, so nobody need wait for the disk")
	flags.IntVar(&o.cacheMiB, "cache-mib", 256, "serve's --cache-mib")
	flags.DurationVar(&o.hintWindow, "hint-window", 15*time.Second, "serve's --hint-window: the node is away for longer")
	flags.BoolVar(&o.recompute, "recompute", true, "at the end, sum all rows of both nodes and compare with their trees")
	flags.StringVar(&o.binary, "binary", "", "a syntropy to run; built from this tree if empty")
	flags.StringVar(&o.doc, "doc", "", "a Markdown file whose figures to replace")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	if o.w.rows, err = number(*rows, 0); err != nil {
		return o, fmt.Errorf("-rows: %w", err)
	}
	if o.w.stale, err = number(*stale, o.w.rows); err != nil {
		return o, fmt.Errorf("-stale: %w", err)
	}
	if o.connections < 1 || o.connections > 256 || o.pipeline < 1 || o.pipeline > 100_000 {
		return o, fmt.Errorf("-connections are 1 to 256 and -pipeline is 1 to 100000, not %d and %d", o.connections, o.pipeline)
	}
	if o.hintWindow < hintWindowMin {
		return o, fmt.Errorf("-hint-window %v: what is stale would be younger than serve's --settle, and the repair would wait for it; give %v or more", o.hintWindow, hintWindowMin)
	}
	return o, o.w.validate()
}

// number reads "1000", "1e6" or, of something, "0.1%".
func number(s string, of int) (int, error) {
	if share, ok := strings.CutSuffix(s, "%"); ok {
		f, err := strconv.ParseFloat(share, 64)
		if err != nil || !(f >= 0 && f <= 100) {
			return 0, fmt.Errorf("%q is not a share: give 0%% to 100%%", s)
		}
		return int(math.Round(f / 100 * float64(of))), nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || !(f >= 0 && f <= rowsMax) {
		return 0, fmt.Errorf("%q is not a number of rows: give one such as 1000 or 1e6", s)
	}
	return int(f), nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.doc != "" { // before an hour of work
		if _, err := replaceFigures(o.doc, ""); err != nil {
			return err
		}
	}
	// Linux tells the nodes of the death of the thread that started them: it must
	// live as long as they do.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir, err := os.MkdirTemp("", "syntropy-endtoend-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(stderr, "%7.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	if o.binary == "" {
		say("building syntropy")
		if o.binary, err = build(ctx, dir); err != nil {
			return err
		}
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	f, err := measure(ctx, o, dir, say)
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted: the nodes are stopped and their data is removed")
		}
		return err
	}
	text := f.table()
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\n%s\n", text, line)
	if o.doc != "" {
		page, err := replaceFigures(o.doc, text)
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.doc, []byte(page), 0o644); err != nil {
			return err
		}
	}
	return f.wrong()
}

// The page is written by hand but for what is between these lines.
const (
	figuresBegin = "<!-- measured: make bench-endtoend -->"
	figuresEnd   = "<!-- end of what is measured -->"
)

func replaceFigures(doc, text string) (string, error) {
	page, err := os.ReadFile(doc)
	if err != nil {
		return "", err
	}
	before, rest, begins := strings.Cut(string(page), figuresBegin)
	_, after, ends := strings.Cut(rest, figuresEnd)
	if !begins || !ends {
		return "", fmt.Errorf("%s: the lines %q and %q are not there", doc, figuresBegin, figuresEnd)
	}
	return before + figuresBegin + "\n\n" + text + "\n" + figuresEnd + after, nil
}
