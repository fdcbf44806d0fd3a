// Package hlc provides a hybrid logical clock: timestamps that follow wall time,
// never run backwards on one node, and order every write after each write that
// its node had already seen.
//
// # Problem
//
// Last-write-wins needs one order for all writes. Wall clocks of different
// machines disagree by milliseconds and may step; logical clocks order causes
// before effects but say nothing about time, so nobody can tell "older than ten
// days" from them.
//
// # Idea
//
// A [Stamp] is a 64-bit integer: 52 bits of microseconds since 1970 (enough
// until the year 2112) over 12 bits of a counter. A [Clock] issues the wall
// time if that is ahead of everything it has issued or seen, and otherwise the
// last stamp plus one. Comparing two stamps is comparing two integers.
//
// The clock reads no time and writes no disk. The caller passes wall time in,
// and persists the clock's *ceiling*: a stamp that was made durable before any
// stamp up to it was issued. A clock that starts again from its last ceiling
// can therefore never repeat itself, even when the machine's clock stepped back
// while it was down.
//
// # Caveats
//
// A clock accepts stamps of other nodes only up to a bound ahead of its own
// wall time ([Clock.Observe]). Without that bound one node with a clock set to
// 2099 would write values that nothing could overwrite for decades.
//
// The algorithm is the one of Kulkarni, Demirbas, Madappa, Avva and Leone,
// "Logical Physical Clocks" (OPODIS 2014), with the physical and the logical
// part packed into one word.
package hlc
