package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"syntropy/internal/config"
	"syntropy/internal/topology"
)

// initSettings are the settings that init has as flags.
var initSettings = []string{
	"config", "data-dir", "peer-listen", "zone",
	"replicas", "shards", "gc-grace", "hint-window", "settle", "request-deadline", "max-clock-skew",
}

// initReport is what init --json prints.
type initReport struct {
	Cluster string       `json:"cluster"`
	DataDir string       `json:"data_dir"`
	Members []initMember `json:"members"`
}

type initMember struct {
	Node string `json:"node"`
	Peer string `json:"peer"`
	Zone string `json:"zone"`
}

func newInit(a *app) *cobra.Command {
	var (
		flags   *config.Flags
		members []string
	)
	cmd := &cobra.Command{
		Use:     "init --data-dir D --peer-listen H:P",
		GroupID: groupNode,
		Short:   "create a cluster by hand, in the directory of its first node",
		Long: `Creates the record of a new cluster in the data directory of its first node, which
is then started with "syntropy serve" and that peer address. It starts nothing and
connects to nobody.

Most clusters need no init: their nodes create them together, see "syntropy serve
--help". Use it where that must not be left to whoever starts first, or where the
members and their zones are to be decided in one place.

Each --member names another node, by its peer address and its zone. It is started
later, on an empty directory, with --join and the address of any node that runs; the
shards are spread over all members from the beginning. Until a majority of the
replicas of a key are there, that key cannot be written at quorum.

Cluster settings are fixed by init. They come from flags, environment and file, as for
serve; so does the rest, but for the members.

Example:
  $ syntropy init --data-dir a --peer-listen 10.0.0.1:7101 --zone east \
      --member 10.0.0.2:7101@west --member 10.0.0.3:7101@north

Exit statuses: 0 the cluster is created; 1 it could not be, or the directory holds one
already; 2 usage.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := flags.Resolve(a.environ())
			if err != nil {
				return &statusError{exitUsage, err}
			}
			return a.init(c, members)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringArrayVar(&members, "member", nil, "another member, `H:P[@ZONE]`; repeat for several")
	flags = config.AddFlags(f, initSettings...)
	return a.jsonFlag(cmd)
}

func (a *app) init(c *config.Config, members []string) error {
	if c.DataDir == "" {
		return usageError("--data-dir is missing: name the directory of the first node")
	}
	if !c.IsSet("peer-listen") {
		return usageError("--peer-listen is missing: give the address by which the other nodes will reach this one, such as 10.0.0.1:7101")
	}
	others, err := parseMembers(c.PeerListen, members)
	if err == nil {
		err = c.Cluster.Validate()
	}
	if err != nil {
		return &statusError{exitUsage, err}
	}
	if there, err := topology.RecordIn(c.DataDir); err != nil {
		return err
	} else if there != nil {
		return fmt.Errorf("%s holds cluster %.8s already, created at %s: start its node with syntropy serve --data-dir %s --peer-listen ADDRESS, or give another directory",
			c.DataDir, there.ClusterID, there.Created.Format("2006-01-02 15:04"), c.DataDir)
	}
	record, err := topology.Init(c.DataDir, c.Cluster, topology.Seat{Addr: c.PeerListen, Zone: c.Zone}, others, rand.Reader, a.now())
	if err != nil {
		return err
	}
	return a.printInit(c, record)
}

// parseMembers reads --member flags. No address may occur twice, also not that of
// the first node.
func parseMembers(first string, texts []string) (members []topology.Seat, err error) {
	if n := len(texts) + 1; n > topology.MaxMembers {
		return nil, fmt.Errorf("%d members: a cluster has 1 to %d", n, topology.MaxMembers)
	}
	seen := map[string]bool{first: true}
	var errs []error
	for _, text := range texts {
		addr, zone, _ := strings.Cut(text, "@")
		err := errors.Join(config.CheckPeerAddr(addr), config.CheckZone(zone))
		if err == nil && seen[addr] {
			err = errors.New("this address is given twice")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--member %q: %w", text, err))
		}
		seen[addr] = true
		members = append(members, topology.Seat{Addr: addr, Zone: zone})
	}
	return members, errors.Join(errs...)
}

func (a *app) printInit(c *config.Config, record *topology.Record) error {
	if a.json {
		r := initReport{Cluster: record.ClusterID, DataDir: c.DataDir}
		for _, m := range record.Members {
			r.Members = append(r.Members, initMember{m.ID.String(), m.Addr, m.Zone})
		}
		return a.printJSON(r)
	}
	fmt.Fprintf(a.out, "created cluster %.8s in %s: %s of %s\n\n", record.ClusterID, c.DataDir,
		plural(record.Settings.Shards, "shard"), plural(record.Settings.Replicas, "replica"))
	t := table{indent: "  "}
	t.head("NODE", "PEER", "ZONE")
	for _, m := range record.Members {
		t.row(m.ID.String(), m.Addr, m.Zone)
	}
	t.print(a.out, a.colour)
	fmt.Fprintf(a.out, "\nStart its first node, with --listen and --admin-listen as you like:\n  %s\n",
		serveLine(c.DataDir, c.PeerListen, c.Zone))
	others := false
	for _, m := range record.Members {
		if m.Addr == c.PeerListen {
			continue
		}
		if !others {
			fmt.Fprintf(a.out, "\nand then the others, each on its machine and an empty directory:\n")
			others = true
		}
		fmt.Fprintf(a.out, "  %s --join %s\n", serveLine("D", m.Addr, m.Zone), c.PeerListen)
	}
	return nil
}

// serveLine is the command that starts a node.
func serveLine(dir, peer, zone string) string {
	line := "syntropy serve --data-dir " + dir + " --peer-listen " + peer
	if zone != "" {
		line += " --zone " + zone
	}
	return line
}
