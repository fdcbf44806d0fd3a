package config

import (
	"strings"
	"time"

	"syntropy/coordinator"
	"syntropy/internal/topology"
)

// Prefix begins the name of every environment variable that is a setting.
const Prefix = "SYNTROPY_"

// Setting is one thing about a node that can be chosen.
type Setting struct {
	// Name is the name of the flag and the key in the file: words in lower case
	// with hyphens.
	Name string
	// Takes says what a value looks like, in one word, as help shows it: "H:P",
	// "duration", "on|off".
	Takes string
	// Default is the text that counts when nobody gives the setting; empty if
	// there is none.
	Default string
	// Cluster marks settings that are the same on all nodes and are fixed when
	// the cluster is created. The others are each node's own.
	Cluster bool
	// List settings have any number of values.
	List bool
	// Switch settings are flags that need no value: --verbose.
	Switch bool
	// Hidden settings are for tests, and are in no help and on no page.
	Hidden bool
	// Usage is the line of help.
	Usage string
	// Doc explains the setting to somebody who has to choose.
	Doc string
	// Range is the unit and the limits; Low and High are what goes wrong towards
	// either end. Empty where there is no such end.
	Range, Low, High string

	read func(*Config, []string) error // one text, or all those of a list
}

// Env is the name of the environment variable.
func (s *Setting) Env() string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// inFile tells whether the setting can be given in the file.
func (s *Setting) inFile() bool { return s.Name != fileSetting }

// fileSetting names the file, and so cannot be in it.
const fileSetting = "config"

// Config is what a node runs with.
type Config struct {
	File            string // the configuration file; empty for none
	DataDir         string
	Listen          string   // for clients
	PeerListen      string   // for other nodes
	AdminListen     string   // for operators
	Join            []string // peer addresses
	BootstrapExpect int
	Zone            string

	WriteConsistency coordinator.Level
	ReadConsistency  coordinator.Level
	RepairInterval   time.Duration // 0: never
	HintedHandoff    bool
	ReadRepair       bool
	HintBytesMax     int64 // kept on this node's disk for others
	HintBytesPerSec  int64 // replayed to one node

	SyncInterval time.Duration // 0: durable before each OK
	CacheBytes   int64
	MinFree      int64 // of the disk, below which no writes are taken; 0: by its size

	ScrubInterval    time.Duration // 0: never
	ScrubBytesPerSec int64

	MaxClients    int
	ClientTimeout time.Duration // 0: never
	EnableFlush   bool          // clients may delete everything

	Verbose     bool
	ClockOffset time.Duration // for fault tests

	Cluster topology.Settings

	values []Value
}

// Value is one setting as it was resolved.
type Value struct {
	Setting *Setting
	Text    string // as it was given; the values of a list are separated by ", "
	Source  Source
	// Place is where it was given, such as "--shards", "SYNTROPY_SHARDS" or
	// "node.yaml:7"; empty for a default.
	Place string
}

// Source says which of the ways of giving a setting was used.
type Source int

// The sources, the weakest first.
const (
	Default Source = iota
	File
	Environment
	Flag
)

var sourceNames = [...]string{Default: "default", File: "file", Environment: "environment", Flag: "flag"}

// String returns "default", "file", "environment" or "flag".
func (s Source) String() string { return sourceNames[s] }

// Values returns all settings in the order of the reference, hidden ones only if
// they were given. The slice is the caller's.
func (c *Config) Values() []Value {
	var shown []Value
	for _, v := range c.values {
		if !v.Setting.Hidden || v.Source != Default {
			shown = append(shown, v)
		}
	}
	return shown
}

// IsSet reports whether somebody gave the setting of that name, in any way but
// by default.
func (c *Config) IsSet(name string) bool {
	for _, v := range c.values {
		if v.Setting.Name == name {
			return v.Source != Default
		}
	}
	return false
}

// Settings returns the definition of every setting, in the order of the
// reference. The caller must not change them.
func Settings() []*Setting { return settings }

var settings = append(nodeSettings(), clusterSettings()...)

// Find returns the setting of that name, or nil.
func Find(name string) *Setting {
	for _, s := range settings {
		if s.Name == name {
			return s
		}
	}
	return nil
}
