package config

import (
	"strconv"
	"strings"
	"time"

	"syntropy/internal/topology"
)

// clusterSettings are agreed on when a cluster is created and recorded by every
// member. What they may be together is topology.Settings.Validate's to say.
func clusterSettings() []*Setting {
	list := []*Setting{{
		Name: "replicas", Takes: "number", Default: "3",
		Usage: "of each shard, on different nodes",
		Doc:   "How many members hold a replica of each key. A cluster may have more members than that: then each holds a part of the keys. With fewer, all of them hold everything.",
		Range: "1 to 7",
		Low:   "1: the loss of a disk is the loss of data. 2: a quorum is both, so that one node down stops writes at `quorum`.",
		High:  "Beyond 5: each write is stored and sent that often, for failures that are rare.",
		read:  number(func(c *Config) *int { return &c.Cluster.Replicas }, 1, 7),
	}, {
		Name: "shards", Takes: "number", Default: "256",
		Usage: "a power of two",
		Doc:   "Into how many parts the keys are divided. A shard is what is placed on members, compared and repaired as one, and its number can never be changed.",
		Range: "a power of two from 1 to 4096",
		Low:   "Few: more members than shards times replicas hold nothing, and each step of a repair concerns much data.",
		High:  "Many: each costs every member a little memory and every comparison that finds a difference a few bytes.",
		read:  number(func(c *Config) *int { return &c.Cluster.Shards }, 1, 4096),
	}, {
		Name: "gc-grace", Takes: "duration", Default: "240h",
		Usage: "for at least this, a delete is remembered",
		Doc:   "For how long at least a delete is remembered, and so for how long a member may be away and still come back with its data. One that was away longer, while the others went on, neither serves nor syncs until it gets an empty directory. This version remembers deletes for ever, but keeps to the rule.",
		Range: "more than `hint-window` + `settle` + `request-deadline` + `max-clock-skew`, at most 10 years",
		Low:   "Short: a node that is away over a holiday has to be filled from nothing.",
		High:  "Long: deletes will take room for that long, once later versions forget them.",
		read:  duration(func(c *Config) *time.Duration { return &c.Cluster.GCGrace }),
	}, {
		Name: "hint-window", Takes: "duration", Default: "3h",
		Usage: "older writes are not kept for others",
		Doc:   "How old a write may be, by its own stamp, that is kept for a replica which missed it and brought later. Older hints are dropped, and no node takes them any more: what they held comes by anti-entropy.",
		Range: "above 0",
		Low:   "Short: after an absence of minutes already, anti-entropy has to do it.",
		High:  "Long: the other members keep all that is written meanwhile; `gc-grace` must be longer still.",
		read:  duration(func(c *Config) *time.Duration { return &c.Cluster.HintWindow }),
	}, {
		Name: "settle", Takes: "duration", Default: "10s",
		Usage: "younger differences are writes on their way",
		Doc:   "A difference between replicas that is younger than this is taken for a write on its way: it is counted, and left alone until the next comparison.",
		Range: "0 or more",
		Low:   "0: repair chases writes that are about to arrive by themselves.",
		High:  "Long: what was lost a moment ago is repaired one interval later.",
		read:  duration(func(c *Config) *time.Duration { return &c.Cluster.Settle }),
	}, {
		Name: "request-deadline", Takes: "duration", Default: "5s",
		Usage: "the time that a request may take",
		Doc:   "How long a request may take. After that the client is told that the outcome is unknown. It never waits when too few replicas are up: then it is told at once.",
		Range: "above 0",
		Low:   "Short: a pause of a disk or of the network becomes an error to clients.",
		High:  "Long: a client waits that long for a replica that hangs without being down.",
		read:  duration(func(c *Config) *time.Duration { return &c.Cluster.RequestDeadline }),
	}, {
		Name: "max-clock-skew", Takes: "duration", Default: "500ms",
		Usage: "the most by which two clocks may differ",
		Doc:   "By how much the clocks of two members may differ. A node refuses stamps that are further ahead of its clock, and one whose clock is further apart from those of most others takes no writes from clients.",
		Range: "above 0",
		Low:   "Below what your time service holds: healthy nodes are fenced, and stamps refused.",
		High:  "Long: a wrong clock wins conflicts against later writes for that long.",
		read:  duration(func(c *Config) *time.Duration { return &c.Cluster.MaxClockSkew }),
	}}
	for _, s := range list {
		s.Cluster = true
		s.Usage = "cluster: " + s.Usage
	}
	return list
}

// In returns the value that a cluster has of a cluster setting, as one would give
// it; empty for other settings.
func (s *Setting) In(cluster topology.Settings) string {
	switch s.Name {
	case "replicas":
		return strconv.Itoa(cluster.Replicas)
	case "shards":
		return strconv.Itoa(cluster.Shards)
	case "gc-grace":
		return short(cluster.GCGrace)
	case "hint-window":
		return short(cluster.HintWindow)
	case "settle":
		return short(cluster.Settle)
	case "request-deadline":
		return short(cluster.RequestDeadline)
	case "max-clock-skew":
		return short(cluster.MaxClockSkew)
	}
	return ""
}

// short writes 240h for 240h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
