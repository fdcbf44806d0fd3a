// Package topology holds what all nodes of a cluster must agree on before they
// exchange a single row: the cluster record. It keeps the record on disk, and
// it lets n empty nodes create one together.
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
// cluster: a member with another one has lost its disk and must be rebuilt
// before it serves reads.
//
// # Use
//
//	dir, err := topology.OpenDir("/var/lib/syntropy", rand.Reader, time.Now())
//	registrar, err := topology.NewRegistrar(topology.RegistrarOptions{
//		Me:     topology.Identity{Incarnation: dir.Incarnation(), Addr: "10.0.0.1:7101"},
//		Expect: 3, Join: []string{"10.0.0.2:7101"},
//		Record: dir.Record(), Persist: dir.SaveRecord,
//	})
//	// ... let the peer server answer with registrar.HandleMeet and HandleAdopt ...
//	record, replaced, err := registrar.Form(ctx, transport)
//
// # Caveats
//
// The member set of a record is fixed and every member holds every shard.
//
// The record holds the secret that keys every digest. Whoever asks from a
// member's address gets it, so the peer port must be reachable by peers only.
//
// Formation is pure; datadir.go does the package's disk I/O, and registrar.go
// its waiting.
package topology
