package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"syntropy/hint"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/memstore"
)

var secret = [32]byte{'s', 'i', 'm'}

// metaCeiling is where a node keeps the ceiling of its clock.
const metaCeiling = "ceiling"

// node is one replica of everything, with a clock of its own.
type node struct {
	*world
	id   hlc.NodeID
	up   bool
	seen bool          // the others believe that it is up
	life int           // counts its processes
	skew time.Duration // of its wall clock against true time

	engine *memstore.Engine
	store  *storage.Store
	hints  *hint.Queue
	clock  *hlc.Clock
	// replaying is the process that has a replay of hints under way.
	replaying int
	// Sessions that this process takes part in; gone when it dies.
	opened  map[int]*session
	partner map[int]*partner

	// What must stay true over all lives of the node.
	issued hlc.Stamp            // the greatest stamp it ever issued
	held   map[string]lww.Entry // the version it has of each key, all of it durable
}

// create brings up a node on an empty disk.
func (n *node) create() {
	n.engine = memstore.New()
	n.held = make(map[string]lww.Entry)
	n.open()
}

// open starts a process on what the disk holds.
func (n *node) open() {
	var err error
	n.store, err = storage.Open(n.opts.Bug.engine(n.engine), storage.Options{
		Shards: n.opts.Shards, Secret: secret,
		// Trees of several shapes, and nodes that remember too few writes for a
		// view as of a moment.
		LeafKeys: 1 + 3*(int(n.id)%3), RecentEntries: []int{0, 20, 200}[int(n.id)%3],
		PhysicalDelete: n.opts.Bug == PhysicalDelete,
	})
	if err != nil {
		n.fail("n%d does not open: %v", n.id, err)
		return
	}
	n.clock = hlc.New(n.opts.Bug.floor(n.ceiling()), clockBound, clockLease)
	if n.openHints(); n.violation != nil {
		return
	}
	n.life++
	n.opened = make(map[int]*session)
	n.partner = make(map[int]*partner)
	n.up = true
	n.noticed()
	n.replaySoon()
}

// noticed lets the others find out that the node went away or came back.
func (n *node) noticed() {
	n.after(n.between(0, detection), func() { n.seen = n.up })
}

func (n *node) ceiling() hlc.Stamp {
	raw, found, err := n.store.Meta(metaCeiling)
	if err != nil {
		n.fail("n%d cannot read its ceiling: %v", n.id, err)
	}
	if !found {
		return 0
	}
	return hlc.Stamp(binary.BigEndian.Uint64(raw))
}

func (n *node) wall() time.Time { return start.Add(n.now + n.skew) }

// crash takes the power away and, some time later, gives it back. While the node
// is down its clock may be set to something else.
func (n *node) crash() {
	if !n.up {
		return
	}
	n.result.Crashes++
	n.log("n%d crashes", n.id)
	n.up = false
	n.engine = n.engine.Crash()
	n.noticed()
	away := n.between(50*time.Millisecond, 3*time.Second)
	if n.chance(0.08) {
		away = n.between(hintWindow, 5*hintWindow) // longer than hints live
	}
	n.after(away, func() {
		if n.up {
			return
		}
		n.skew = n.between(-skewMax, skewMax)
		if n.chance(0.2) {
			n.skew -= n.between(0, setBackMax)
			// Until it is noticed; a node so far behind takes part in little.
			n.after(n.between(0, setBackMax), func() { n.skew = max(n.skew, n.between(-skewMax, skewMax)) })
		}
		n.restart()
	})
}

func (n *node) restart() {
	n.log("n%d restarts, its clock is off by %v", n.id, n.skew)
	n.open()
	if n.violation == nil {
		n.checkHeld()
		n.checkTree()
	}
}

// stamp issues a stamp, making a higher ceiling durable first where that is due.
func (n *node) stamp() (hlc.Stamp, error) {
	if ceiling, due := n.clock.NextCeiling(n.wall()); due {
		if err := n.store.PutMeta(metaCeiling, binary.BigEndian.AppendUint64(nil, uint64(ceiling))); err != nil {
			return 0, err
		}
		n.clock.Extend(ceiling)
	}
	s, err := n.clock.Next(n.wall())
	if errors.Is(err, hlc.ErrCeiling) {
		n.fail("I4: n%d has no ceiling to stamp under", n.id)
	}
	if err != nil {
		return 0, err
	}
	if s <= n.issued {
		n.fail("I4: n%d issued %v after %v", n.id, s, n.issued)
	}
	n.issued = s
	return s, nil
}

// apply offers entries to the store, and checks what became of them.
func (n *node) apply(entries []lww.Entry) []storage.Result {
	results, err := n.store.Apply(entries)
	if err != nil {
		n.fail("n%d cannot apply: %v", n.id, err)
		return nil
	}
	for i, r := range results {
		if r.Outcome == storage.Applied {
			n.holds(entries[i])
		}
	}
	return results
}

// twins gives two nodes versions of a key with one stamp and writer and
// different values: the same row imported from two files, or two nodes that
// were given one id. It must not happen, and must be settled when it does. No
// quorum has them, so reads need not see them; but they must not get lost.
func (w *world) twins(key string) {
	a := w.nodes[w.rand.IntN(len(w.nodes))]
	b := w.other(a)
	if !a.up || !b.up {
		return
	}
	stamp, err := a.stamp()
	if err != nil {
		return
	}
	for i, n := range []*node{a, b} {
		e := lww.Entry{Key: []byte(key), Value: fmt.Appendf(nil, "twin %d of %v", i, stamp), Version: lww.Version{Stamp: stamp, Node: a.id}}
		w.oracle.wrote(e)
		w.oracle.put(e)
		results, err := n.store.Apply([]lww.Entry{e})
		if err != nil {
			w.fail("n%d cannot apply: %v", n.id, err)
			return
		}
		w.log("n%d: import %s: %v", n.id, describe(e), results[0].Outcome)
		if results[0].Outcome == storage.Applied {
			w.oracle.kept(e)
			n.holds(e)
		}
	}
}

func describeAll(as string, entries []lww.Entry) string {
	for _, e := range entries {
		as += " " + describe(e)
	}
	return as
}

func describe(e lww.Entry) string {
	what := fmt.Sprintf("= %q", e.Value)
	if e.Tombstone {
		what = "deleted"
	}
	if e.ExpiryStamp != 0 {
		what += fmt.Sprintf(" expires %d set %v by %v", e.Expires, e.ExpiryStamp, e.ExpiryNode)
	}
	return fmt.Sprintf("%s %s @%v %v", e.Key, what, e.Stamp, e.Node)
}
