// Package coordinator carries one client's request to the replicas of its keys:
// quorum writes, quorum reads, read repair, and the decision who is owed a hint.
//
// # Problem
//
// A key lives on N replicas, and some of them are down, slow, or behind. When
// may a write be called done? Which of several versions is the answer to a
// read? And who makes sure that a replica that missed something hears of it?
//
// # Idea
//
// A write is done when `need` replicas have it, a read when `need` replicas were
// heard. With W+R > N the two sets share a replica, so a read sees every write
// that was acknowledged before it began, or something newer.
//
// A [Write] stamps each mutation and sends all entries of one replica in one
// message. A replica answers for each entry: applied, or *shadowed* by a newer
// version that it holds, or rejected. An entry with enough answers is decided:
//
//	all applied      written
//	one is shadowed  the write would be lost on arrival, and OK would be a lie:
//	                 it is stamped again above that version and sent again
//	                 (a Touch of a value that was replaced is Superseded instead)
//
// A replica that is down, fails or stays silent is owed a hint: the entry, to be
// kept and delivered when it returns.
//
// A [Read] asks one replica for the value and the others for a digest of theirs.
// Equal digests end it. For those that differ the entries are fetched and merged
// by the rule of package lww; the newest is the answer, and the replicas that
// hold an older one are repaired before it is given.
//
// Both are state machines that do no I/O, start no goroutine and read no clock.
// The caller carries messages, reports what came of them, and calls Expire when
// the time is up:
//
//	w, err := coordinator.NewWrite(place, clock, coordinator.Quorum, mutations)
//	for {
//		for _, s := range w.Sends() {
//			go send(s, events) // an event is an answer or a failure
//		}
//		for _, h := range w.Hints() {
//			keep(h)
//		}
//		if done, err := w.Done(); done {
//			reply(err) // once; then go on until w.Finished()
//		}
//		event := <-events // ends in w.Answered, w.Failed or w.Expire
//	}
//
// # Caveats
//
// An error after something was sent is not "no": [UnknownError] means that some
// replicas may hold the write, and that it may become visible later.
//
// Of two concurrent writes the one with the greater stamp stays, and both
// clients are told OK. What is excluded is an OK for a write that a counted
// replica was known to shadow.
//
// A reader does not see whether a value was acknowledged. What a write that
// failed left on one replica may be read, and is then repaired to a quorum, so
// that later reads do not go backwards. A repair that fails does not fail the
// read; until another repair succeeds a later read may then miss the value.
//
// Neither Write nor Read is safe for concurrent use, and both keep the slices
// that they are given: the caller leaves keys, values and answers unchanged
// until it drops the request.
package coordinator
