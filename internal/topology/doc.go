// Package topology holds what all nodes of a cluster must agree on: the cluster
// record, before they exchange a single row, and the table that says who the
// members are and which of them hold which shard. It keeps both on disk, lets n
// empty nodes create a cluster together, and lets nodes and disks join it later.
//
// # Problem
//
// Two nodes that count shards differently, hash with different keys or keep
// deletes for different times can look healthy for weeks and then lose data.
// Such nodes must never talk. And a cluster must come into being exactly once:
// if two nodes each create a cluster from the same start-up command, half the
// data ends up in each.
//
// # Idea
//
// A [Record] is created once and is the same on every node; its
// [Record.Fingerprint] travels in every handshake. Nobody edits it: flags that
// contradict it are refused at start ([Dir.SettingsConflict]).
//
// A [Formation] creates it from n empty nodes without election, timeout or
// clock. Each disk has a random identity, its incarnation. Nodes tell each
// other whom they know until they know exactly n, and then freeze that view for
// the rest of their life. When every member of a view reports that same view,
// the one with the lowest incarnation creates the record, makes it durable and
// only then shows it. A node freezes one view, so no two views that share a
// node can both be complete. (One exception needs a mistake and a crash: n+1
// nodes told to form a cluster of n, one of which restarts at the wrong moment
// and freezes another view. It then adopts one record and refuses the other, so
// data never mixes.)
//
// A node that holds the record answers every later question with it, so a
// member that crashed at any point, or comes back with an empty disk, asks
// again and gets it. The record names the incarnations that founded the
// cluster: a member with another one has lost its disk, or came later, and must be
// rebuilt before it serves reads.
//
// The [Table] is what changes. A [Log] keeps it: a Raft log of a library, by up to
// five voting disks, with the other members as learners. Its entries say what is
// to be done (there is to be a first table; this disk is to be enrolled), and each
// is checked against the table that it meets, so a repeated or late one does
// nothing. Nobody waits for the log but who wants a change: a node goes by the
// newest table that it knows, after a restart too, and without a majority of
// voters nothing is lost but the ability to enroll somebody.
//
// It is disks that vote, not members: one that came back empty has forgotten what
// it promised. Enrolling its new disk puts the old one out of the log with the
// same entry; the new one learns, and votes when it has caught up. All nodes begin
// with the voters that the record implies, as if those had been agreed on, so the
// log needs no beginning of its own.
//
// # Use
//
//	dir, err := topology.OpenDir("/var/lib/syntropy", rand.Reader, time.Now())
//	registrar, err := topology.NewRegistrar(topology.RegistrarOptions{
//		Me:     topology.Identity{Incarnation: dir.Incarnation(), Addr: "10.0.0.1:7101"},
//		Expect: 3, Join: []string{"10.0.0.2:7101"},
//		Record: dir.Record(), Persist: dir.SaveRecord, PersistTable: dir.SaveTable,
//	})
//	// ... let the peer server answer with registrar.HandleMeet and HandleAdopt ...
//	record, table, err := registrar.Form(ctx, transport)
//	log, err := topology.OpenLog(topology.LogOptions{Record: record, Table: table, Dir: dir, ...})
//	go log.Run(ctx)
//	// ... let the peer server answer with log.HandleEnroll and log.Receive ...
//	if table := log.Table(); table does not name this disk as the member's {
//		_, table, err = registrar.Enroll(ctx, transport, addresses of members)
//	}
//
// # Caveats
//
// A new member holds no shard. Shards are placed once, with the first table.
//
// Of two founders one votes: a vote of both would need both. If its disk is lost,
// or the disks of most voters of a larger cluster are, the table can never change
// again, though everything else goes on.
//
// A data directory that is restored from an old copy has forgotten promises, like
// an empty one, but under the old name. Such a node stops when it hears from a
// leader; it should be given an empty directory.
//
// The record holds the secret that keys every digest. Whoever asks to be enrolled
// gets it, so the peer port must be reachable by peers only.
//
// Formation, placement and what an entry does to a table are pure; datadir.go and
// logfile.go do the package's disk I/O, registrar.go and log.go its waiting.
package topology
