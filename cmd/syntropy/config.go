package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"syntropy/internal/config"
	"syntropy/internal/topology"
)

// configReport is what config --json prints.
type configReport struct {
	Settings []configSetting `json:"settings"`
}

type configSetting struct {
	Name    string `json:"name"`
	Value   string `json:"value"` // as it was given; a list is separated by ", "
	Cluster bool   `json:"cluster"`
	Source  string `json:"source"` // flag, environment, file, cluster or default
	Place   string `json:"place"`  // such as SYNTROPY_SHARDS or node.yaml:7; empty for a default
}

func newConfig(a *app) *cobra.Command {
	var flags *config.Flags
	cmd := &cobra.Command{
		Use:     "config",
		GroupID: groupNode,
		Short:   "what would serve run with, and where does it come from?",
		Long: `Takes the flags, the environment and the file that "syntropy serve" would take, and
prints what counts of them, without starting anything or touching the disk. Values that
serve would refuse, this refuses too, with the same words; whether ports are free, and
whether the directory is that of this node, only serve finds out.

A flag wins over an environment variable (SYNTROPY_ and the name in capitals, as in
SYNTROPY_GC_GRACE), that over the YAML file that --config names, and that over the
default. If --data-dir holds a cluster, the settings that it was created with count,
and it is an error to give others.

Example:
  $ syntropy config --config node.yaml
  $ SYNTROPY_SYNC=interval:100ms syntropy config --json

Exit statuses: 0 serve would take these settings; 1 they contradict those of the cluster
in --data-dir; 2 usage.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.resolve(flags)
			if err != nil {
				return err
			}
			return a.printConfig(c)
		},
	}
	cmd.Flags().SortFlags = false
	flags = config.AddFlags(cmd.Flags())
	return a.jsonFlag(cmd)
}

func (a *app) printConfig(c *config.Config) error {
	var record *topology.Record
	if c.DataDir != "" {
		var err error
		if record, err = topology.RecordIn(c.DataDir); err != nil {
			return err
		}
	}
	var r configReport
	for _, v := range c.Values() {
		s := configSetting{v.Setting.Name, v.Text, v.Setting.Cluster, v.Source.String(), v.Place}
		if record != nil && s.Cluster {
			recorded := v.Setting.In(record.Settings)
			switch {
			case v.Source == config.Default:
				s.Value, s.Source, s.Place = recorded, "cluster", c.DataDir
			case v.Setting.In(c.Cluster) != recorded:
				return fmt.Errorf("%s of %s was given by %s, the cluster in %s was created with %s: leave it out", s.Name, s.Value, s.Place, c.DataDir, recorded)
			}
		}
		r.Settings = append(r.Settings, s)
	}
	if a.json {
		return a.printJSON(r)
	}
	var t table
	t.head("SETTING", "VALUE", "FROM")
	for _, s := range r.Settings {
		from := cell{text: s.Source, style: dim}
		switch s.Source {
		case config.Default.String():
		case "cluster":
			from = cell{text: "the cluster in " + s.Place}
		default:
			from = cell{text: s.Place}
		}
		t.row(s.Name, s.Value, from)
	}
	t.print(a.out, a.colour)
	return nil
}
