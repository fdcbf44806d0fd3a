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
// A session compares the Merkle trees of two frozen views. The digests of a tree
// (package merkle) are syndromes: subtract the partner's from your own, and if no
// more than two keys differ below the node, the difference says which. So it is
// enough to descend to where the differences are thinned out, and how far that
// is depends on how many they are, not on how many keys agree. The side that
// opened the session, the [Initiator], asks and decides; its partner, the
// [Responder], answers:
//
//	initiator                                          responder
//	   open: one digest over everything             ->
//	                                                <-  equal            (done)
//	                                                <-  or: the one or two keys that differ
//	                                                <-  or: a level of its tree,
//	                                                    a sample if it cannot know which
//	   split: the children of this node?            ->
//	                                                <-  their digests
//	   compare: my digests of its children          ->
//	                                                <-  for each: equal, these keys, or
//	                                                    its digests of the grandchildren
//	   list: my few rows under this node            ->
//	                                                <-  these keys
//	   probe: what have you under this name?        ->
//	                                                <-  nothing, this version, this entry
//	   entries newer here                           ->
//	                                                <-  applied
//	   finish                                       ->
//	                                                <-  finished
//
// All shards advance together, as one tree of which they are the upper branches:
// each message carries whatever can be asked of any of them. A key is named by
// the first bits of its position, and only the newer entry of a key travels, in
// the one direction that needs it.
//
// What is named is a conjecture until the other side has confirmed it: more than
// two differences can look like two. A refuted name sends the descent on. In the
// end both sides' hashes of all rows, less those that were named, must agree
// ([ErrHidden] if not), so a session that completes has proven that nothing else
// differs, be it that two fingerprints collide.
//
// Initiator and Responder do no I/O, start no goroutine and read no clock. The
// caller carries bytes from one to the other and applies the entries it is
// handed:
//
//	msg, err := init.Next()
//	for ; msg != nil && err == nil; msg, err = init.Next() {
//		pushed, refused := resp.Receive(msg) // on the partner
//		if refused == nil {
//			refused = apply(pushed)
//		}
//		pulled, _ := init.Receive(resp.Reply(refused)) // an error ends the session: Next returns it
//		init.Applied(apply(pulled))
//	}
//
// A [Schedule] decides with which partner a node begins its next session, and
// when: every pair within each interval, the oldest proof first.
//
// # Over your own store
//
// A [View] is all that a session needs: rows in the order of their positions, and
// a tree over them that merkle.Tree keeps for you, at the cost of a few
// additions for each write. Example does it for a sorted map. Both sides must
// use the same secret, number of shards and digests; see the caveats.
//
// # Caveats
//
// A view must not change while a session reads it. Writes go on beside it, and
// of those that are on their way one side has what the other has not. Two things
// keep a session from repairing them: views that show a moment some time ago
// ([Config].AsOf), and the settle window: younger differences are counted and
// left alone.
//
// The session is complete only when every entry was applied durably on both
// sides ([Report].Complete); until then it proves nothing. One that breaks off
// has lost nothing either: what was applied is no difference to the next one,
// which finds what is left.
//
// The partner is trusted with the data and not with the initiator's time or
// memory: whatever it answers leads to a clear error or to bounded work.
package antientropy
