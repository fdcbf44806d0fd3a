package hint

import (
	"maps"

	"syntropy/hlc"
)

// Pending is what is kept for one target.
type Pending struct {
	Count  int64     // hints
	Bytes  int64     // of their rows, as they count against Options.BytesMax
	Oldest hlc.Stamp // of the hint that comes first
}

// Stats says what a queue holds and what became of hints since it was opened:
// what was there then, plus Added, less all others, is what is pending.
type Stats struct {
	Pending map[hlc.NodeID]Pending // the targets that have hints; the caller's

	Added     int64 // handed to Add without an error, those dropped at once included
	Delivered int64 // taken over by their target
	Expired   int64 // outside the window before they could be delivered
	Dropped   int64 // for lack of room
	Damaged   int64 // could not be decoded, or were no hints at all: rotten or written by others
	Forgotten int64 // dropped by Forget
}

// Stats returns the present counts, from memory. After a failed commit they are
// those from before it until the next call that changes the queue.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.Pending = maps.Clone(q.targets)
	return s
}

func (s *Stats) count(why reason, n int64) {
	switch why {
	case delivered:
		s.Delivered += n
	case expired:
		s.Expired += n
	case forgotten:
		s.Forgotten += n
	case damagedHints:
		s.Damaged += n
	}
}
