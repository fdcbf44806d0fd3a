// Package node is the shell around the pure packages: it owns the goroutines,
// timers, disks and peers of one Syntropy node and wires clock, store, coordinator,
// hints, sessions and topology into a running replica.
//
// Where to look:
//
//	node.go, form.go        options, start and stop; how a node comes into its cluster
//	replica.go, layout.go   a node's part in the cluster: its state, its peers, who holds what
//	write.go, gate.go       a client's write, and why writes of one key take turns
//	read.go, scan.go        reads, read repair, and scans over several replicas
//	hints.go, leave.go      writes kept for others, and how a node says goodbye
//	repair.go, session.go   sessions as initiator and as partner
//	scheduler.go            which pair is compared when
//	absence.go, fill.go     who was away too long, and how an empty disk is filled
//	handler.go, status.go   what other nodes and operators are told
//
// Decisions belong in the pure packages. What is here moves messages and bytes, keeps
// time, and waits for what it started.
package node
