// Package node is the shell around the pure packages: it owns the goroutines,
// timers, disks and peers of one Syntropy node and wires clock, store,
// sessions and membership into a running replica.
package node
