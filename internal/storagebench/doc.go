// Package storagebench measures what a replica's store costs on top of Pebble.
//
// # Problem
//
// Figures of one machine say nothing about another, and those of one minute
// little about the next: disks and neighbours drift by tens of percent.
//
// # Idea
//
// Every figure is a ratio. The ways to write that are compared take turns in one
// process, a slice of the work each, over and over; a run yields the ratio of
// their costs, and the figure is the median of several runs. Each way adds one
// thing to the one before: Pebble alone, a merge operator that keeps the newer
// version without reading, the old version read and compared, and the trees.
//
// # Caveats
//
// What Pebble does in the background counts for the slice that caused it: a slice
// ends when no compaction runs. CPU is that of the whole process.
package storagebench
