// Package syntropy is a leaderless, replicated key-value store whose replicas provably
// agree, as a library: a node of a cluster inside a Go program.
//
// # Problem
//
// A program keeps state that must survive the machine that it runs on, and several
// copies of the program, on several machines, want to read and write it without
// asking one of them for permission. So each key has replicas on several nodes, any
// node takes any request, and nobody is in charge. Then replicas drift: a node was
// down, a message was lost, a disk forgot a block.
//
// # Idea
//
// A write is stamped by the node that takes it, and the newest stamp wins, on every
// replica alike. It is sent to all replicas of its key and acknowledged when a quorum
// of them has it on disk; a read asks a quorum, so the two meet in one replica. What a
// replica misses it gets by one of three lines of defence: the write is kept for it
// while it is down (hinted handoff), a read that meets an older version brings the
// newest (read repair), and at an interval each pair of replicas compares Merkle trees
// and moves exactly what differs (anti-entropy). A delete is a version too, so no
// repair brings a deleted key back.
//
// # The smallest program
//
//	db, err := syntropy.Open("data", nil) // a cluster of one, in this process
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//	if err := db.Ready(ctx); err != nil {
//		return err
//	}
//	if err := db.Put(ctx, []byte("greeting"), []byte("hello")); err != nil {
//		return err
//	}
//	value, err := db.Get(ctx, []byte("greeting"))
//
// # A cluster
//
// Three programs, each with the peer addresses of the others, find each other and
// create the cluster together; they remember it in their directories:
//
//	db, err := syntropy.Open(dir, &syntropy.Options{
//		PeerAddr:        "10.0.0.1:7101",
//		Join:            []string{"10.0.0.2:7101", "10.0.0.3:7101"},
//		BootstrapExpect: 3,
//	})
//
// The same nodes may as well be processes of the command "syntropy serve": a cluster
// does not tell them apart. Package syntropytest starts any number of nodes in one
// test.
//
// # Consistency
//
// Reads and writes wait for a quorum of the replicas unless the options say otherwise,
// and [DB.At] chooses for some requests:
//
//	fast := db.At(syntropy.One)
//	value, err := fast.Get(ctx, key) // may be stale
//
// # Deadlines
//
// A request ends with its context or after [Options.RequestDeadline], whichever is
// first. A write that has begun is carried through even so: after ErrUnknownOutcome it
// may hold on some replicas, and come to hold on all of them.
//
// # Who owns what
//
// The DB copies keys and values that it is given before a call returns, so the caller
// may use them again then. Slices that it returns belong to the caller.
//
// # Caveats
//
// Of two concurrent writes to a key one is lost, and both callers were told that all
// is well: no counters, no locks, no transactions. Clocks must agree within
// [Options.MaxClockSkew]. The peer port has neither encryption nor passwords: it
// belongs on loopback or on a network that you trust. GUARANTEES.md says in full what
// an acknowledged write means and what can lose it.
package syntropy
