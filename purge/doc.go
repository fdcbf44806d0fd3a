// Package purge decides when a replica may forget a delete, and recognises a
// replica that could bring a forgotten one back.
//
// # Problem
//
// A tombstone can be dropped once every replica has it. Dropped earlier, a replica
// that never saw it offers the deleted value to the others, who cannot tell it from
// a write that they missed. Most systems drop tombstones by age and trust that
// repair ran often enough, that no old message is on its way, and that no disk
// comes back from a backup.
//
// # Idea
//
// Each replica of a shard keeps, durably and in the same batches as the data they
// speak of:
//
//   - a pair ledger ([Pair], [Record]): for each other replica the last complete
//     session, and how much of this replica it has proven to be there;
//   - a purge cut ([Cut]): a stamp at or under which every delete is proven on every
//     replica that counts, and is gone here. The cut names who raised it, and what
//     the proof was for each replica.
//
// The cut rises by proofs, not by age ([State.Raise]). It spreads when replicas meet
// ([Meet]): a replica takes a higher cut over only if its own ledger shows that it is
// the one whose state was proven. One that was away too long, was restored from a
// backup or has a new disk cannot show that, and is rebuilt. Until then its cut is
// lower, which every reply that it gives says, and what it sends at or under the cut
// of others is not believed ([State.Admit], [Judge]).
//
// # The smallest use
//
//	before a session:       verdict := purge.Meet(mine, theirs)
//	                        record, err := purge.Open(mine, theirs, snapshots...)
//	when it is complete:    mine, err = mine.Complete(record, purge.Partner)   // durable first
//	                        mine, err = mine.Complete(record, purge.Initiator) // then here
//	from time to time:      cut, holds := mine.Raise(...)
//
// All functions are pure: they take values and return values, and never change the
// slices that they are given. What they return must be stored in one batch with what
// it speaks of; docs/purge.md says what that is for each.
//
// # Caveats
//
// The rules are checked by exhaustive search, in internal/purgemodel, which runs this
// code and no second description of it. The search is bounded; docs/purge.md states
// the bounds, and what the rules promise in them.
package purge
