package syntropy

import "syntropy/coordinator"

// Level is a consistency level: how many replicas of a key must answer a request.
type Level = coordinator.Level

// The levels. With N replicas of each key, a read sees every write that was
// acknowledged before it began if the two levels together ask more than N of them:
// Quorum and Quorum, One and All, or All and One.
const (
	// Default is the level that the node was opened with, Quorum if it was not told.
	Default = coordinator.Default
	// One replica: the fastest. An acknowledged write is lost with that one disk if
	// it dies before the others have it, and a read may be stale.
	One = coordinator.One
	// Quorum is the majority.
	Quorum = coordinator.Quorum
	// All replicas: one that is down fails the request.
	All = coordinator.All
)
