package storage

import "sync"

// queue gathers concurrent calls into groups, each committed as one batch.
//
// The first call of a group leads it: it commits for all, hands the lead to the
// first of those that have come meanwhile, and only then waits for the disk. So a
// group is decided while the one before it is synced, and groups grow with the
// load. A call that finds nobody leading leads at once.
type queue struct {
	mu      sync.Mutex
	waiting []*call
	leading bool
	// flying bounds the groups between their commit and their fsync. With more,
	// groups stay small, and every batch costs.
	flying chan struct{}
}

const maxFlying = 2

// maxGroup bounds the entries of a group. A larger call is a group by itself.
const maxGroup = 1024

// call is one call of Apply.
type call struct {
	offers  []offer
	results []Result
	err     error
	turn    chan turn
}

type turn uint8

const (
	done turn = iota
	lead
)

var turns = sync.Pool{New: func() any { return make(chan turn, 1) }}

// submit brings the offers into the store, in a group with others or alone.
func (s *Store) submit(offers []offer) ([]Result, error) {
	c := &call{offers: offers, turn: turns.Get().(chan turn)}
	defer turns.Put(c.turn) // empty: a call gets one turn, and takes it
	q := &s.queue
	q.mu.Lock()
	q.waiting = append(q.waiting, c)
	mine := !q.leading
	q.leading = true
	q.mu.Unlock()
	if mine || <-c.turn == lead {
		s.lead()
	}
	return c.results, c.err
}

// lead commits the calls that wait. The caller's is the first of them.
func (s *Store) lead() {
	q := &s.queue
	q.flying <- struct{}{}
	q.mu.Lock()
	group := q.take()
	q.mu.Unlock()

	wait, err := s.commit(group)

	q.mu.Lock()
	if q.leading = len(q.waiting) > 0; q.leading {
		q.waiting[0].turn <- lead
	}
	q.mu.Unlock()

	if err == nil {
		if err = wait(); err != nil {
			err = s.fail(err)
		}
	}
	<-q.flying
	for i, c := range group {
		if err != nil {
			c.err = err
		}
		if c.err != nil {
			c.results = nil
		}
		if i > 0 {
			c.turn <- done
		}
	}
}

// take cuts the next group off the queue. The caller holds q.mu.
func (q *queue) take() []*call {
	n, entries := 1, len(q.waiting[0].offers)
	for n < len(q.waiting) && entries+len(q.waiting[n].offers) <= maxGroup {
		entries += len(q.waiting[n].offers)
		n++
	}
	group := q.waiting[:n:n]
	q.waiting = append([]*call(nil), q.waiting[n:]...)
	return group
}
