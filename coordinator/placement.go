package coordinator

import (
	"slices"

	"syntropy/hlc"
	"syntropy/lww"
)

// Placement says who holds what, as one request sees it. All functions are
// called only during calls of the request's own methods.
type Placement struct {
	// Self is the node that coordinates. Its name goes into the stamps, and a
	// read asks it for the value if it may; apart from that it is a replica like
	// any other.
	Self hlc.NodeID
	// Shard returns the shard of a key.
	Shard func(key []byte) int
	// Replicas returns the replicas of a shard, each once. The slice is only
	// read, and must not change until the request is dropped.
	Replicas func(shard int) []hlc.NodeID
	// May reports whether a replica takes requests of this kind now. A replica
	// that is being rebuilt takes writes and serves no reads, so the two kinds
	// are given different functions.
	May func(hlc.NodeID) bool
}

// down returns the replicas that take no requests now.
func (p Placement) down(replicas []hlc.NodeID) []hlc.NodeID {
	return slices.DeleteFunc(slices.Clone(replicas), p.May)
}

// Clock issues the stamps of writes; an *hlc.Clock with the wall time filled in
// is one.
type Clock interface {
	// Next issues a stamp above all issued or observed before.
	Next() (hlc.Stamp, error)
	// Observe takes note of a stamp that another node issued, or refuses it for
	// being too far ahead.
	Observe(hlc.Stamp) error
}

// Send is one message to one replica: entries to be applied, or to be kept as a
// hint. Its slices are shared with other messages and only to be read.
type Send struct {
	To hlc.NodeID
	// Attempt counts the times that entries of this request were stamped. A
	// replica's answer to one attempt says nothing about another.
	Attempt int
	Index   []int // Entries[i] is of the mutation (in a repair: key) Index[i]
	Entries []lww.Entry

	id int // position among the sends of the request
}

// mail is the sends of one request: queued, taken by the caller, and closed by
// what came of them.
type mail struct {
	sends []Send
	open  []bool
	taken int // sends that the caller has got
	left  int // sends that are not closed
}

func (m *mail) add(s Send) {
	s.id = len(m.sends)
	m.sends = append(m.sends, s)
	m.open = append(m.open, true)
	m.left++
}

// take returns the sends that were added since it was last called.
func (m *mail) take() []Send {
	fresh := m.sends[m.taken:len(m.sends):len(m.sends)]
	m.taken = len(m.sends)
	return fresh
}

// close reports whether s was open. What is said about a send after the first
// word on it is ignored: a failure may be reported twice, and an answer may
// arrive after its time is up.
func (m *mail) close(s Send) bool {
	if s.id < 0 || s.id >= len(m.sends) || m.sends[s.id].To != s.To || !m.open[s.id] {
		return false
	}
	m.open[s.id] = false
	m.left--
	return true
}

// addGrouped adds one send for each replica that holds at least one of the given
// items. Sends that carry all of them share their slices, so that the usual
// request, whose keys have the same replicas, costs one copy.
func (m *mail) addGrouped(attempt int, items []item) {
	type group struct {
		to    hlc.NodeID
		count int
	}
	var few [8]group // enough for most clusters to stay on the stack
	groups := few[:0]
	whole := 0 // items are ordered by index; one item for each replica of an index
	for n, it := range items {
		if n == 0 || items[n-1].index != it.index {
			whole++
		}
		at := slices.IndexFunc(groups, func(g group) bool { return g.to == it.to })
		if at < 0 {
			at = len(groups)
			groups = append(groups, group{to: it.to})
		}
		groups[at].count++
	}
	m.sends, m.open = slices.Grow(m.sends, len(groups)), slices.Grow(m.open, len(groups))
	var shared Send
	for _, g := range groups {
		s := shared
		if g.count < whole || s.Index == nil {
			s = Send{Index: make([]int, 0, g.count), Entries: make([]lww.Entry, 0, g.count)}
			for _, it := range items {
				if it.to == g.to {
					s.Index = append(s.Index, it.index)
					s.Entries = append(s.Entries, *it.entry)
				}
			}
			if g.count == whole {
				shared = s
			}
		}
		s.To, s.Attempt = g.to, attempt
		m.add(s)
	}
}

// item is one entry for one replica.
type item struct {
	to    hlc.NodeID
	index int
	entry *lww.Entry
}
