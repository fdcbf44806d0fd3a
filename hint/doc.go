// Package hint keeps writes for replicas that are down or late, on disk, until
// they can be brought to them.
//
// # Problem
//
// A write goes to all replicas of its key and succeeds when enough of them have
// it. A replica that is down for a minute would then lack a minute of writes
// until the next anti-entropy session, although the coordinator had them all in
// its hands.
//
// # Idea
//
// The coordinator keeps a *hint*: the entry, and the replica that it is for, the
// target. When the target is back the hints are replayed, oldest first. An entry
// carries its stamp and the target keeps the newer version of a key, so a hint
// may arrive late, twice or after newer writes and does no harm:
//
//	for {
//		batch, err := queue.Next(target, now, 256<<10)
//		if err != nil || len(batch.Entries) == 0 {
//			return err
//		}
//		if err := send(target, batch.Entries); err != nil {
//			return err // the same batch comes again
//		}
//		if err := queue.Delivered(batch); err != nil {
//			return err
//		}
//	}
//
// Hints are rows of the engine that the store of the node lives in, so that they
// share its log, its fsyncs and its care for the disk.
//
// # Why hints must end
//
// A hint is worth something for a window only (three hours by default), counted
// from the stamp of the entry and not from the moment at which the hint was made:
// the count goes on over restarts and cannot begin anew by passing an entry on.
// A delete that everybody has may be forgotten one day, and a write from before
// it that turned up later would bring the key back. So receivers refuse writes
// that arrive for the first time with a stamp outside the window, and the queue
// drops such hints rather than send them.
//
// # Caveats
//
// Hints are a shortcut, not a promise. They expire, they are dropped when the
// queue is full, and they are lost with the disk of their coordinator. What they
// did not bring, anti-entropy brings. For the same reason a caller never fails a
// client's write over its hint.
//
// The deletion of hints is not synced: after a power failure some that were
// delivered or dropped are there again, and are delivered or dropped again.
//
// A [Queue] starts no goroutine and reads no clock. It has nothing to close; the
// engine is the caller's.
package hint
