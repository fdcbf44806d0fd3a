// Package purgemodel searches, exhaustively within bounds, what a cluster can come to
// whose replicas forget deletes by the rules of package purge. It runs that package, and
// no description of it: what it finds is true of the code that a node runs.
//
// The cluster has three replicas of one shard and one or two keys. Time passes in ticks,
// of which gc_grace and the hint window are a few; a stamp is a tick and a counter.
// [Search] visits every state that can be reached from the beginning by [Scenario], breadth
// first, so that what it finds wrong it shows by a shortest trace, and checks in each
// state what docs/purge.md promises (check.go).
//
// Two states are the same if they differ only in the names of nodes, in how long ago is
// longer than everything that the rules compare, and in the numbers that positions,
// sessions and incarnations have, not in their order (encode.go). Of the states that were
// visited only 128-bit hashes are kept, under keys drawn at the start: that two of 10^8
// states share one has a probability below 10^-22.
package purgemodel
