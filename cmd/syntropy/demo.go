package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"syntropy/internal/fleet"
	"syntropy/report"
)

type demoOptions struct {
	dataDir string
	keep    bool
}

func newDemo(a *app) *cobra.Command {
	var opts demoOptions
	cmd := &cobra.Command{
		Use:     "demo",
		GroupID: groupNode,
		Short:   "the whole story on real data, in well under a minute",
		Long: `Starts three nodes on free ports of this machine and shows what Syntropy is for:

  1. loads the names of all Unicode characters, about 35,000 rows, and shows that all
     replicas agree
  2. kills one node, and while it is away overwrites 1,000 keys, deletes 500 and adds
     200 with an ordinary Redis client; the others keep these writes as hints
  3. waits until the hints are too old to be brought (8 s here, 3 h by default), writes
     300 more, and brings the node back
  4. shows what each line of defence then does: the hints bring the 300; reads at
     QUORUM heal the 100 keys that somebody reads; and the other 1,600, old and never
     read, are found by comparing trees. Exactly those travel, and the bytes are
     compared with other ways to do it
  5. proves the end: every key is read back from every node and compared with what
     was written, deleted keys stay deleted, and the trees are summed anew from disk

The figures are measured in front of you, and every "ok" is something that could have
failed. What it writes, and so what must differ, is the same on every run.

The nodes end with the demo, and its data is removed, unless --keep or --data-dir
says otherwise or a check failed: then look at the logs, n1.log to n3.log. "syntropy
dev" gives you a cluster to do the same by hand.

With --json the story goes to stderr, and stdout gets one object: {"ok","error",
"seconds","rows","bytes",...,"repair":[...],"hints_delivered","hints_expired",
"read_repairs","entries_travelled","bytes_travelled","key_by_key_bytes",
"stream_bytes",...,"checks":[{"name","ok","detail"}]}.

Example:
  $ syntropy demo

Exit statuses: 0 every check holds, or stopped as asked by Ctrl-C or SIGTERM; 1 a check
does not hold, or the demo could not go on; 2 usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.demo(cmd.Context(), opts)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.dataDir, "data-dir", "", "empty `directory` to keep the data in (default a temporary one)")
	f.BoolVar(&opts.keep, "keep", false, "do not remove the temporary directory")
	return a.jsonFlag(cmd)
}

// The demo's cluster has short windows, so that nobody has to wait, and repairs
// only when it is told to, so that the figures are the same on every run.
const (
	demoSettle     = time.Second
	demoHintWindow = 8 * time.Second // a slow machine must bring n3 back within it
)

// demo is one run of the story.
type demo struct {
	*story
	app     *app
	data    *demoData
	fleet   *fleet.Fleet
	clients []*redis.Client // one per node, reading at ONE: what that node holds
	gone    *fleet.Node     // the one that was killed and is not back yet
	missed  time.Time       // when the last of the writes that outlive their hints was acknowledged
	written time.Time       // when the last write of all was
	report  demoReport
}

// demoReport is what a demo measured, and its --json.
type demoReport struct {
	OK      bool    `json:"ok"`
	Error   string  `json:"error"` // why it could not go on; empty: it came to its end
	Seconds float64 `json:"seconds"`

	Rows        int     `json:"rows"` // loaded
	Bytes       int64   `json:"bytes"`
	LoadSeconds float64 `json:"load_seconds"`
	Overwritten int     `json:"overwritten"`
	Deleted     int     `json:"deleted"`
	Added       int     `json:"added"`
	Late        int     `json:"late"` // written just before the node came back
	Read        int     `json:"read"` // keys read at QUORUM after it did

	HintsKept      int64 `json:"hints_kept"`
	HintsExpired   int64 `json:"hints_expired"`
	HintsDelivered int64 `json:"hints_delivered"`
	ReadRepairs    int64 `json:"read_repairs"`

	Agreed []report.Repair `json:"agreed"`  // after the load
	DryRun []report.Repair `json:"dry_run"` // of the repair
	Repair []report.Repair `json:"repair"`
	Again  []report.Repair `json:"again"` // a second repair

	// Sums over the pairs of Repair.
	Rounds           int   `json:"rounds"`
	KeysDiverged     int   `json:"keys_diverged"`
	EntriesTravelled int   `json:"entries_travelled"`
	BytesTravelled   int64 `json:"bytes_travelled"`

	// What the same would have cost without trees, for all pairs.
	EntryBytes    int64   `json:"entry_bytes"` // of the entries that had to travel in any case
	KeyByKeyBytes int64   `json:"key_by_key_bytes"`
	StreamBytes   int64   `json:"stream_bytes"`
	KeyByKeyRatio float64 `json:"key_by_key_ratio"`
	StreamRatio   float64 `json:"stream_ratio"`

	Checks []demoCheck `json:"checks"`
}

func (a *app) demo(ctx context.Context, opts demoOptions) (err error) {
	// A terminal that is closed is a way to say stop, too.
	ctx, unnotify := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer unnotify()
	if err := mustBeEmpty(opts.dataDir); err != nil {
		return err
	}
	dir, err := openWorkDir(opts.dataDir, "syntropy-demo-")
	if err != nil {
		return err
	}
	dir.temporary = dir.temporary && !opts.keep
	d := &demo{app: a, data: newDemoData(), story: &story{out: a.out, colour: a.colour}}
	if a.json {
		d.out, d.colour = a.err, false
	}
	if a.progress {
		d.bar = a.err
	}
	fmt.Fprintln(d.out, paint("Replicas that drift apart, come together again, and prove it.", bold, d.colour))
	fmt.Fprintln(d.out, "Three real processes, real data, and figures that are measured here and now.")
	began := a.now()
	if d.fleet, err = demoFleet(dir.path); err != nil {
		return errors.Join(err, dir.remove())
	}
	if err = d.tell(ctx); err != nil {
		err = d.blame(err)
	}
	for _, c := range d.clients {
		c.Close()
	}
	d.fleet.Stop()
	if ctx.Err() != nil {
		if err := dir.remove(); err != nil {
			return err
		}
		return nil // stopped as asked, and clean
	}
	if err != nil {
		d.report.Error = err.Error()
	}
	failed := d.failed()
	took := a.now().Sub(began)
	if err == nil && len(failed) > 0 {
		err = fmt.Errorf("%d of %s failed: %s", len(failed), plural(len(d.checks), "check"), strings.Join(failed, "; "))
	}
	d.end(err, took, dir)
	if a.json {
		d.report.OK, d.report.Seconds, d.report.Checks = err == nil, took.Seconds(), d.checks
		err = errors.Join(a.printJSON(d.report), err)
	}
	if err != nil {
		return err
	}
	return dir.remove()
}

// blameWait is how long the end of a process may take to be known after its
// connections broke.
const blameWait = 500 * time.Millisecond

// blame looks for the cause of an error: a node that ended by itself.
func (d *demo) blame(err error) error {
	if _, ok := errors.AsType[*fleet.EndedError](err); ok {
		return err
	}
	late := time.NewTimer(blameWait)
	defer late.Stop()
	for _, n := range d.fleet.Nodes {
		if n == d.gone {
			continue
		}
		select {
		case <-n.Ended():
		case <-late.C:
			late.Reset(0) // for the others too
		}
		if !n.Running() {
			return fmt.Errorf("%w; %w", err, &fleet.EndedError{Node: n, Cause: n.Cause()})
		}
	}
	return err
}

// end says how it went and what is left behind.
func (d *demo) end(err error, took time.Duration, dir *workDir) {
	fmt.Fprintln(d.out)
	if err == nil {
		fmt.Fprintln(d.out, paint(fmt.Sprintf("All %s hold, after %s. The nodes are stopped.", plural(len(d.checks), "check"), span(took)), green, d.colour))
		fmt.Fprintf(d.out, "To try it with your own hands: syntropy dev\n")
	}
	switch {
	case err != nil:
		fmt.Fprintf(d.out, "The nodes are stopped; their data and logs are kept in %s\n", dir.path)
	case !dir.temporary: // asked for with --data-dir or --keep
		fmt.Fprintf(d.out, "The data and the logs are in %s\n", dir.path)
	}
}

func demoFleet(dir string) (*fleet.Fleet, error) {
	ports, err := fleet.FreePorts(3)
	if err != nil {
		return nil, err
	}
	return fleet.New(fleet.Options{Dir: dir, Ports: ports, Args: []string{
		"--settle", demoSettle.String(), "--hint-window", demoHintWindow.String(), "--repair-interval", "off",
	}})
}

// mustBeEmpty refuses a directory in which the demo would find something: its
// figures are those of a cluster that begins with nothing.
func mustBeEmpty(path string) error {
	if path == "" {
		return nil
	}
	dir, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	switch _, err := dir.Readdirnames(1); {
	case err == nil:
		return usageError("--data-dir %s is not empty: the demo needs an empty or a new directory", path)
	case err != io.EOF:
		return err
	}
	return nil
}
