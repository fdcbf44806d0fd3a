package storage

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// ErrRot is wrapped by the errors of an engine whose bytes on disk fail their
// checksum. What else goes wrong with a read may go right the next time.
var ErrRot = errors.New("bytes on disk fail their checksum")

// ErrQuarantined is wrapped by the error of a read that this store cannot answer
// truly: what is missing, or what is there, may be wrong. Another replica can.
var ErrQuarantined = errors.New("storage: the rows or the digests here are damaged and in quarantine")

// Suspect is a part of a shard of which this store cannot tell the truth.
type Suspect struct {
	// Node is where it is, at a shard or below.
	Node merkle.Node
	// Wrong: what can be read may be wrong as well, since rows and digests do not
	// match. Otherwise rows cannot be read, and those that can are good.
	Wrong bool
	// Reason is for people.
	Reason string
}

// quarantine holds what is suspect. Readers look at it without a lock, and there is
// usually nothing in it.
type quarantine struct {
	parts  atomic.Pointer[[]Suspect]
	mu     sync.Mutex    // of those who change it
	signal chan struct{} // something new is in it
}

func newQuarantine() *quarantine { return &quarantine{signal: make(chan struct{}, 1)} }

func (q *quarantine) all() []Suspect {
	if parts := q.parts.Load(); parts != nil {
		return *parts
	}
	return nil
}

// add takes a part in, unless what is in it says as much, and reports whether it did.
func (q *quarantine) add(s Suspect) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	parts := q.all()
	for _, p := range parts {
		if p.Node.Above(s.Node) && (p.Wrong || !s.Wrong) {
			return false
		}
	}
	parts = slices.DeleteFunc(slices.Clone(parts), func(p Suspect) bool {
		return s.Node.Above(p.Node) && (s.Wrong || !p.Wrong)
	})
	parts = append(parts, s)
	q.parts.Store(&parts)
	return true
}

func (q *quarantine) release(under merkle.Node) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.parts.Load() == nil {
		return
	}
	parts := slices.DeleteFunc(slices.Clone(q.all()), func(p Suspect) bool { return under.Above(p.Node) })
	if len(parts) == 0 {
		q.parts.Store(nil)
		return
	}
	q.parts.Store(&parts)
}

// refuses returns an error if the answer to a read at x cannot be trusted.
func (q *quarantine) refuses(x ring.Position, found bool) error {
	for _, p := range q.all() {
		if p.Node.Contains(x) && (p.Wrong || !found) {
			return fmt.Errorf("%w: %s", ErrQuarantined, p.Reason)
		}
	}
	return nil
}

// first returns the first position from x to last that is in quarantine.
func (q *quarantine) first(x, last ring.Position) (first ring.Position, s Suspect, found bool) {
	for _, p := range q.all() {
		if p.Node.First() > last || p.Node.Last() < x {
			continue
		}
		if at := max(p.Node.First(), x); !found || at < first {
			first, s, found = at, p, true
		}
	}
	return first, s, found
}

// Quarantine keeps a part of a shard from being read until Release. Writes to it are
// taken: what they replace is lost here already.
func (s *Store) Quarantine(p Suspect) {
	s.quarantine.add(p)
}

// Release ends the quarantine of whatever is under a node.
func (s *Store) Release(under merkle.Node) { s.quarantine.release(under) }

// Suspects returns what is in quarantine. The slice is only to be read.
func (s *Store) Suspects() []Suspect { return s.quarantine.all() }

// Suspected tells that a read or a write has put something into quarantine since this
// was last received from.
func (s *Store) Suspected() <-chan struct{} { return s.quarantine.signal }

// ShardNode returns the node of a shard: all positions of it are under it.
func (s *Store) ShardNode(shard int) merkle.Node { return shardNode(shard, s.opts.Shards) }

func shardNode(shard, shards int) merkle.Node {
	return merkle.Node{Bits: uint8(ring.ShardBits(shards)), Path: uint64(shard)}
}

// suspectBits is how far below the root what a single read finds is put into
// quarantine: a few rows, whatever the shape of the tree.
const suspectBits = 40

// noteUnreadable puts the place of a row into quarantine if the error says that it
// has rotted.
func (s *Store) noteUnreadable(x ring.Position, err error) (rotten bool) {
	if rotten = errors.Is(err, ErrRot) || errors.Is(err, lww.ErrMalformed); !rotten {
		return false
	}
	if s.quarantine.add(Suspect{Node: merkle.NodeAt(x, suspectBits), Reason: err.Error()}) {
		select {
		case s.quarantine.signal <- struct{}{}:
		default:
		}
	}
	return true
}
