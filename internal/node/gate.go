package node

import (
	"context"
	"slices"
	"sync"

	"syntropy/coordinator"
)

// gate lets one write of a key be on its way at a time, of those that this node
// coordinates. Without it, writes of one key would overtake each other on the way
// to the replicas, and every one that arrives behind a later one has lost and must
// be stamped and sent again: with fifty clients on one key, hardly any would ever
// be acknowledged.
//
// Plain writes that wait for the same key join: only the last of them is sent, and
// what comes of it is the outcome of all. It is as if each had been written just
// before the next; no reader could have been quick enough to see those in between.
type gate struct {
	mu    sync.Mutex
	lines map[string][]*turn // per key; the first turn of a line is under way
}

// turn is a write, or several joined ones, in the line of one key.
type turn struct {
	level  coordinator.Level
	single *coordinator.Mutation // the last of those joined; nil: this turn takes no others
	ready  chan struct{}         // closed when it has come to the front
	done   chan struct{}         // closed when it is over
	err    error                 // for those that joined; set before done is closed
	left   bool                  // given up before it came to the front
}

func newGate() *gate { return &gate{lines: make(map[string][]*turn)} }

// enter puts a turn into the line of a key, or joins the last one there. joined
// says that the caller only has to wait for done.
func (g *gate) enter(key []byte, level coordinator.Level, m *coordinator.Mutation) (t *turn, joined bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	line := g.lines[string(key)]
	if n := len(line); n > 1 && m != nil {
		if last := line[n-1]; last.single != nil && last.level == level && !last.left {
			last.single = m
			return last, true
		}
	}
	t = &turn{level: level, single: m, ready: make(chan struct{}), done: make(chan struct{})}
	if len(line) == 0 {
		close(t.ready)
	}
	g.lines[string(key)] = append(line, t)
	return t, false
}

// begin returns what a turn that has come to the front is to write. From then on
// nobody joins it.
func (g *gate) begin(t *turn) coordinator.Mutation {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := *t.single
	t.single = nil
	return m
}

// leave ends the first turn of a line and lets the next one go.
func (g *gate) leave(key []byte, t *turn, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.err = err
	close(t.done)
	line := g.lines[string(key)][1:]
	for len(line) > 0 && line[0].left {
		line = line[1:]
	}
	if len(line) == 0 {
		delete(g.lines, string(key))
		return
	}
	g.lines[string(key)] = line
	close(line[0].ready)
}

// giveUp takes a turn out of its line before it has come to the front. It reports
// false if it has come there in the meantime.
func (g *gate) giveUp(t *turn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-t.ready:
		return false
	default:
	}
	t.left = true
	return true
}

// pass waits until the writes of all the keys that are on their way are over, and
// returns what to call when those of the caller are. The keys are entered in their
// order, so that two requests never wait for each other.
func (g *gate) pass(ctx context.Context, level coordinator.Level, ms []coordinator.Mutation) (leave func(), err error) {
	keys := make([]string, len(ms))
	for i := range ms {
		keys[i] = string(ms[i].Key)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	turns := make([]*turn, 0, len(keys))
	leave = func() {
		for i, t := range turns {
			g.leave([]byte(keys[i]), t, nil)
		}
	}
	for _, key := range keys {
		t, _ := g.enter([]byte(key), level, nil)
		select {
		case <-t.ready:
		case <-ctx.Done():
			if g.giveUp(t) {
				leave()
				return nil, &Error{CodeTimeout, "nothing was written: other writes of the same keys took until the request deadline"}
			}
		}
		turns = append(turns, t)
	}
	return leave, nil
}
