package coordinator

import (
	"fmt"
	"strings"
)

// Level says how many of a key's replicas must answer a request.
type Level uint8

// The levels. Reads and writes at Quorum overlap in at least one replica, as do
// writes at All with reads at One; other pairs promise less.
const (
	// Default leaves the choice to whoever runs the node. Where no choice was
	// made it counts as Quorum.
	Default Level = iota
	// One replica: the fastest. A write is lost with that one disk if it dies
	// before the others have it, and a read may be stale.
	One
	// Quorum is the majority.
	Quorum
	// All replicas: one that is down fails the request.
	All
)

// Of returns how many answers a request at this level needs when the key has
// that many replicas. It is never less than one: a key without replicas must
// not look as if all of them had answered.
func (l Level) Of(replicas int) int {
	switch l {
	case One:
		return 1
	case All:
		return max(1, replicas)
	}
	return replicas/2 + 1
}

// String returns the name that ParseLevel reads.
func (l Level) String() string {
	switch l {
	case Default:
		return "default"
	case One:
		return "one"
	case Quorum:
		return "quorum"
	case All:
		return "all"
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// ParseLevel reads "one", "quorum" or "all", in any case.
func ParseLevel(s string) (Level, error) {
	switch strings.ToLower(s) {
	case "one":
		return One, nil
	case "quorum":
		return Quorum, nil
	case "all":
		return All, nil
	}
	return Default, fmt.Errorf("consistency level %.20q is unknown: use one, quorum or all", s)
}
