package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"syntropy/internal/config"
	"syntropy/internal/fleet"
	"syntropy/internal/topology"
)

// Limits of dev.
const (
	maxDevNodes = 7 // each is a process with a cache of its own; more show nothing new
	devBase     = 7000
	maxDevBase  = 65535 - 200 - maxDevNodes
)

// passedOn are the settings that dev takes as flags and gives to every node.
var passedOn = []string{
	"write-consistency", "read-consistency", "repair-interval", "hinted-handoff", "read-repair",
	"replicas", "shards", "gc-grace", "hint-window", "settle",
}

type devOptions struct {
	nodes   int
	zones   int
	dataDir string
	base    int
	flags   *config.Flags // of passedOn
}

func newDev(a *app) *cobra.Command {
	var opts devOptions
	cmd := &cobra.Command{
		Use:     "dev",
		GroupID: groupNode,
		Short:   "run a whole cluster on this machine, to try things",
		Long: `Starts several nodes, each a "syntropy serve" process of its own on 127.0.0.1, waits
until they have formed a cluster, and tells how to reach them. Ctrl-C stops them all.

  node   clients  peers  admin
  n1        7001   7101   7201
  n2        7002   7102   7202   and so on

Each key is on three nodes (--replicas), or on all of fewer, and any node serves any
key. Do to them what happens to real ones: kill -9 one, write to the others, start it
again, and watch with "syntropy inspect" how it gets what it missed. With
--hinted-handoff off and --read-repair off only repair is left to bring it; "syntropy
repair --explain" then shows how. A node that ends is reported and not restarted, and
dev goes on with the others; the command that starts it again is printed, and is also
the first line of its log. A node that you started so is yours: dev does not stop it.

With --json, one object with every node's pid, addresses, directory and command is
printed on stdout once all nodes are live, and the rest of what there is to tell on
stderr.

The data is in a temporary directory that is removed at the end, or with --data-dir
in D/n1, D/n2 and so on, where the next dev finds it. Logs are beside it: n1.log.

Example:
  $ syntropy dev
  $ syntropy dev --nodes 5 --zones 3 --data-dir ~/cluster --repair-interval 1m

Exit statuses: 0 stopped as asked; 1 the nodes could not start, or all of them have
ended; 2 usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.dev(cmd.Context(), opts)
		},
	}
	a.jsonFlag(cmd)
	f := cmd.Flags()
	f.SortFlags = false
	f.IntVar(&opts.nodes, "nodes", 3, fmt.Sprintf("`number` of nodes, 1 to %d", maxDevNodes))
	f.IntVar(&opts.zones, "zones", 0, "put the nodes into this `number` of zones (default none)")
	f.StringVar(&opts.dataDir, "data-dir", "", "`directory` to keep the data in (default a temporary one)")
	f.IntVar(&opts.base, "base-port", devBase, "`port`: clients +1, +2 .., peers +101, admin +201")
	opts.flags = config.AddFlags(f, passedOn...)
	return cmd
}

// devReport is what dev --json prints once all nodes are live.
type devReport struct {
	Nodes []devNode `json:"nodes"`
}

type devNode struct {
	Node    string `json:"node"`
	PID     int    `json:"pid"`
	Clients string `json:"clients"`
	Peer    string `json:"peer"`
	Admin   string `json:"admin"`
	DataDir string `json:"data_dir"`
	Log     string `json:"log"`
	Command string `json:"command"` // starts it again
}

func devReportOf(f *fleet.Fleet) (r devReport) {
	for _, n := range f.Nodes {
		r.Nodes = append(r.Nodes, devNode{
			Node: n.Name, PID: n.PID(), Clients: n.ClientAddr(), Peer: n.PeerAddr(), Admin: n.AdminAddr(),
			DataDir: n.DataDir, Log: n.LogFile, Command: n.Command(),
		})
	}
	return r
}

// args returns what every node is started with beside its addresses.
func (o *devOptions) args() ([]string, error) {
	c, err := o.flags.Resolve(nil) // what the environment says is for serve alone
	if err == nil {
		err = c.Cluster.Validate()
	}
	if err != nil {
		return nil, &statusError{exitUsage, err}
	}
	args := o.flags.Args()
	if c.IsSet("replicas") {
		return args, nil
	}
	// A cluster that is there keeps what it has.
	replicas := min(c.Cluster.Replicas, o.nodes)
	if o.dataDir != "" {
		if record, err := topology.RecordIn(filepath.Join(o.dataDir, "n1")); err == nil && record != nil {
			replicas = record.Settings.Replicas
		}
	}
	return append(args, "--replicas="+strconv.Itoa(replicas)), nil
}

// zone returns the zone of a node as a flag.
func (o *devOptions) zone(i int) []string {
	if o.zones == 0 {
		return nil
	}
	return []string{"--zone", string(rune('a' + i%o.zones))}
}

func (a *app) dev(ctx context.Context, opts devOptions) (err error) {
	if opts.nodes < 1 || opts.nodes > maxDevNodes {
		return usageError("--nodes %d: give 1 to %d", opts.nodes, maxDevNodes)
	}
	if opts.zones < 0 || opts.zones > opts.nodes {
		return usageError("--zones %d: give at most as many as there are nodes, %d", opts.zones, opts.nodes)
	}
	if opts.base < 1 || opts.base > maxDevBase {
		return usageError("--base-port %d: give 1 to %d", opts.base, maxDevBase)
	}
	args, err := opts.args()
	if err != nil {
		return err
	}
	// A terminal that is closed is a way to say stop, too.
	ctx, unnotify := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer unnotify()

	dir, err := openWorkDir(opts.dataDir, "syntropy-dev-")
	if err != nil {
		return err
	}
	f, err := fleet.New(fleet.Options{Dir: dir.path, Ports: fleet.PortsFrom(opts.base, opts.nodes), Args: args, NodeArgs: opts.zone})
	if err != nil {
		return errors.Join(devPorts(err), dir.remove())
	}
	printReport := func() error { return nil }
	if a.json {
		told := a.printJSON
		printReport = func() error { return told(devReportOf(f)) }
		aside := *a // what else there is to tell goes beside the JSON
		aside.out, aside.colour = a.err, false
		a = &aside
	}
	began := a.now()
	err = f.Start()
	if err == nil {
		fmt.Fprintf(a.out, "starting %s ...\n", plural(opts.nodes, "node"))
		err = f.WaitLive(ctx)
	}
	if err == nil {
		a.printFleet(f, opts, dir, a.now().Sub(began))
		err = errors.Join(printReport(), a.watch(ctx, f))
	}
	asked := ctx.Err() != nil
	if asked {
		fmt.Fprintf(a.out, "\nstopping ...\n")
	}
	if killed := f.Stop(); len(killed) > 0 {
		fmt.Fprintf(a.out, "%s did not stop in time and had to be killed.\n", strings.Join(killed, ", "))
	}
	if !asked && err != nil {
		fmt.Fprintf(a.out, "data and logs are kept in %s\n", dir.path)
		return err
	}
	return a.leave(f, dir)
}

// devPorts adds what to do about ports in use.
func devPorts(err error) error {
	if _, ok := errors.AsType[*fleet.PortError](err); ok {
		return fmt.Errorf("%w\nnothing was started: stop what uses it (another syntropy dev?), or choose other ports with --base-port", err)
	}
	return err
}

// watch reports nodes that end until ctx does; it fails when none is left.
func (a *app) watch(ctx context.Context, f *fleet.Fleet) error {
	endings := make(chan *fleet.Node, len(f.Nodes)) // one each: nobody restarts them
	for _, n := range f.Nodes {
		go func() {
			<-n.Ended() // Stop sees to it that all do
			endings <- n
		}()
	}
	for alive := len(f.Nodes); alive > 0; alive-- {
		select {
		case <-ctx.Done():
			return nil
		case n := <-endings:
			if ctx.Err() != nil {
				return nil
			}
			fmt.Fprintf(a.out, "\n%s\n", paint(fmt.Sprintf("%s (pid %d) has ended: %s.", n.Name, n.PID(), n.Cause()), yellow, a.colour))
			fmt.Fprintf(a.out, "The end of its log:\n%s\n", n.LogTail(4))
			fmt.Fprintf(a.out, "To start it again, in another terminal:\n  %s\n", n.Command())
		}
	}
	return errors.New("all nodes have ended")
}

// leave removes what dev made, unless somebody still uses it.
func (a *app) leave(f *fleet.Fleet, dir *workDir) error {
	var others []string
	for _, n := range f.Nodes {
		if c, err := net.DialTimeout("tcp", n.PeerAddr(), time.Second); err == nil {
			c.Close()
			others = append(others, n.Name)
		}
	}
	switch {
	case len(others) > 0:
		fmt.Fprintf(a.out, "stopped, except what was not started by dev: something listens on the peer port of %s. Data and logs are kept in %s\n", strings.Join(others, ", "), dir.path)
		return nil
	case dir.temporary:
		fmt.Fprintf(a.out, "stopped; %s is removed\n", dir.path)
	default:
		fmt.Fprintf(a.out, "stopped; the data is in %s\n", dir.path)
	}
	return dir.remove()
}

func (a *app) printFleet(f *fleet.Fleet, opts devOptions, dir *workDir, took time.Duration) {
	all := "all nodes are live"
	if len(f.Nodes) == 1 {
		all = "the node is live"
	}
	fmt.Fprintf(a.out, "%s after %s, on 127.0.0.1:\n\n", paint(all, green, a.colour), span(took))
	t := table{align: "lrrrrll", indent: "  "}
	t.head("NODE", "PID", "CLIENTS", "PEERS", "ADMIN", "DATA", "LOG")
	for _, n := range f.Nodes {
		t.row(n.Name, n.PID(), n.Clients, n.Peers, n.Ports.Admin, n.DataDir, n.LogFile)
	}
	t.print(a.out, a.colour)

	first, last := f.Nodes[0], f.Nodes[len(f.Nodes)-1]
	admin := ""
	if opts.base != devBase {
		admin = " --admin " + first.AdminAddr()
	}
	fmt.Fprintf(a.out, "\nTry, in another terminal:\n\n")
	tries := table{indent: "  "}
	tries.row("redis-cli -p "+strconv.Itoa(first.Clients)+" set greeting hello", note("any Redis client works"))
	tries.row("redis-cli -p "+strconv.Itoa(last.Clients)+" get greeting", note("any node serves any key"))
	tries.row("syntropy status"+admin, note("who is there, and since when they are proven to agree"))
	if len(f.Nodes) > 1 {
		tries.row("kill -9 "+strconv.Itoa(last.PID()), note("take "+last.Name+" away; then write, and start it again:"))
		tries.row("head -n 1 "+last.LogFile, note("its command; a node that ends is not restarted"))
		tries.row("syntropy inspect greeting"+admin, note("what does each replica hold of this key?"))
		tries.row("syntropy repair --explain"+admin, note("find every difference, draw how, and mend it"))
	}
	tries.print(a.out, a.colour)
	if dir.temporary {
		fmt.Fprintf(a.out, "\nCtrl-C stops all nodes. The data is temporary and is removed then.\n")
	} else {
		fmt.Fprintf(a.out, "\nCtrl-C stops all nodes. The data stays, for the next dev.\n")
	}
}

func note(text string) cell { return cell{text: text, style: dim} }

// workDir is where a fleet keeps its data.
type workDir struct {
	path      string
	temporary bool
}

// openWorkDir returns the directory that was asked for, or a temporary one.
func openWorkDir(path, prefix string) (*workDir, error) {
	if path != "" {
		return &workDir{path: path}, nil
	}
	path, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	return &workDir{path, true}, nil
}

// remove removes a temporary directory and leaves others.
func (d *workDir) remove() error {
	if !d.temporary {
		return nil
	}
	return os.RemoveAll(d.path)
}
