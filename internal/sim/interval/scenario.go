package main

import (
	"fmt"
	"strings"
	"time"
)

// replicas is the size of the cluster: the usual three, written and read at a
// quorum of two.
const (
	replicas = 3
	quorum   = 2
)

// scenario is everything that a run depends on beside its seed and the repair
// interval. Two runs of one seed and scenario live through the same writes,
// reads, losses and outages, whatever their interval.
type scenario struct {
	Days       int
	Keys       int
	ValueBytes int
	Shards     int

	WritesPerSecond float64
	ReadsPerSecond  float64
	QuorumShare     float64 // of the reads; the others ask one replica
	// HotShare of all reads and writes go to HotKeys of the keys.
	HotKeys, HotShare float64

	// LostPerMillion is how many of a million acknowledged writes one replica
	// misses though it is up and without a hint being kept: a coordinator that
	// died after the quorum answered, a hint dropped for want of room.
	LostPerMillion float64
	// Each node fails OutageEvery on average (exponential) and is away for a
	// time with median OutageMedian, log-normal with OutageSigma.
	OutageEvery  time.Duration
	OutageMedian time.Duration
	OutageSigma  float64
	HintWindow   time.Duration
	Settle       time.Duration
}

// outageMax cuts the longest outages off: a node that was away for longer than
// gc_grace (10 days) is rebuilt and not repaired, and that is another story.
const outageMax = 8 * 24 * time.Hour

// published is the scenario of docs/repair-interval.md. The write rate is what
// lets a run of a month end within ten seconds; costs are given per missed
// write as well, so that they can be scaled.
func published() scenario {
	return scenario{
		Days: 30, Keys: 100_000, ValueBytes: 100, Shards: 256,
		WritesPerSecond: 0.1, ReadsPerSecond: 0.5, QuorumShare: 0.5,
		HotKeys: 0.2, HotShare: 0.8,
		LostPerMillion: 1000,
		OutageEvery:    7 * 24 * time.Hour, OutageMedian: 20 * time.Minute, OutageSigma: 1.8,
		HintWindow: 3 * time.Hour, Settle: 10 * time.Second,
	}
}

// String lists the parameters, one a line, as the page shows them.
func (s scenario) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "- "+format+"\n", args...) }
	line("%d replicas, W=%d, %d shards, %s keys with values of %d bytes, %d days of virtual time",
		replicas, quorum, s.Shards, thousands(s.Keys), s.ValueBytes, s.Days)
	line("%g writes and %g reads a second; %.0f%% of the reads at QUORUM, with read repair, the others at ONE",
		s.WritesPerSecond, s.ReadsPerSecond, 100*s.QuorumShare)
	line("%.0f%% of the operations go to %.0f%% of the keys", 100*s.HotShare, 100*s.HotKeys)
	line("%g in a million acknowledged writes miss one replica that is up, without a hint", s.LostPerMillion)
	line("each node fails once in %s on average (exponential), for a median of %s (log-normal, sigma %g, at most %s)",
		short(s.OutageEvery), short(s.OutageMedian), s.OutageSigma, short(outageMax))
	line("hint window %s, settle window %s", short(s.HintWindow), short(s.Settle))
	return b.String()
}
