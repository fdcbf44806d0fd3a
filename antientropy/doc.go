// Package antientropy finds out where two replicas differ and makes them agree,
// at a cost that grows with the differences and not with the data.
//
// # Problem
//
// Two replicas hold the same shards and have drifted: a node was down, a write
// was dropped, a disk lost a block. Which keys differ, which side is newer, and
// how do both come to hold the newer one without sending anything else?
//
// # Idea
//
// A session compares the Merkle trees of two frozen views (package merkle) and
// descends only where digests differ. The side that opened it, the [Initiator],
// asks and decides; its partner, the [Responder], answers:
//
//	initiator                                        responder
//	   open: one digest over all roots           ->
//	                                             <-  equal                 (done)
//	                                             <-  or: the root of each shard
//	   expand: children of nodes that differ?    ->
//	                                             <-  16 digests a node
//	   list: token and digest of each entry?     ->
//	                                             <-  16 bytes an entry, no keys
//	   versions of the tokens that differ?       ->
//	                                             <-  key and version, no values
//	   pull entries newer there, push newer here ->
//	                                             <-  entries; pushes are applied
//	   finish                                    ->
//	                                             <-  finished
//
// All shards advance together: each message carries whatever can be asked of
// any of them. Only keys found to differ are ever named, and only the newer
// entry of a key travels, in the one direction that needs it.
//
// Initiator and Responder do no I/O, start no goroutine and read no clock. The
// caller carries bytes from one to the other and applies the entries it is
// handed:
//
//	for msg := init.Next(); msg != nil; msg = init.Next() {
//		pushed, err := resp.Receive(msg)   // on the partner
//		reply := resp.Reply(apply(pushed)) // on the partner
//		pulled, err := init.Receive(reply)
//		init.Applied(apply(pulled))
//	}
//
// A [Schedule] decides with which partner a node begins its next session, and
// when: every pair within each interval, the oldest proof first.
//
// # Caveats
//
// A session reads views that do not change while writes go on beside it.
// Differences younger than the settle window are most likely writes still on
// their way, and are counted but not repaired.
//
// The session is complete only when every entry was applied durably on both
// sides ([Report].Complete); until then it proves nothing.
package antientropy
