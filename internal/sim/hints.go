package sim

import (
	"maps"
	"slices"
	"time"

	"syntropy/coordinator"
	"syntropy/hint"
	"syntropy/hlc"
)

// replayEvery is how often a node looks whether a target of its hints is back.
const replayEvery = 200 * time.Millisecond

// replayBytes makes batches of a few hints, so that a crash falls between two.
const replayBytes = 300

// openHints opens the queue that shares the engine of the store.
func (n *node) openHints() {
	window := hintWindow
	if n.opts.Bug == AcceptOldHint {
		window = time.Hour
	}
	q, err := hint.Open(n.engine, hint.Options{Window: window})
	if err != nil {
		n.fail("n%d does not open its hints: %v", n.id, err)
		return
	}
	n.hints = q
}

// keep keeps what a write owes a replica.
func (r *writing) keep(h coordinator.Send) {
	r.log("n%d keeps for n%d: %s", r.id, h.To, describeAll("hint", h.Entries))
	if err := r.hints.Add(h.To, h.Entries); err != nil {
		r.fail("n%d cannot keep a hint: %v", r.id, err)
		return
	}
	r.result.Hinted += len(h.Entries)
	r.replaySoon()
}

// replaySoon looks after the hints of this process until none is left: each is
// delivered, or outlives its window.
func (n *node) replaySoon() {
	life := n.life
	if n.replaying == life || len(n.hints.Stats().Pending) == 0 {
		return
	}
	n.replaying = life
	n.after(replayEvery, func() {
		if !n.up || n.life != life {
			return
		}
		n.replaying = 0
		n.replay()
		n.replaySoon()
	})
}

// replay sends each target that is up the next batch of its hints.
func (n *node) replay() {
	now := hlc.FromTime(n.wall())
	if err := n.hints.Expire(now); err != nil {
		n.fail("n%d cannot expire its hints: %v", n.id, err)
		return
	}
	for _, id := range slices.Sorted(maps.Keys(n.hints.Stats().Pending)) {
		to := n.nodes[id-1]
		if !to.seen {
			continue
		}
		batch, err := n.hints.Next(id, now, replayBytes)
		if err != nil {
			n.fail("n%d cannot read its hints: %v", n.id, err)
			return
		}
		if len(batch.Entries) == 0 {
			continue
		}
		r := n.request()
		r.carry(to, describeAll("hint", batch.Entries), func() func() {
			to.take("hint", batch.Entries)
			return func() {
				// What the target refused it would refuse again.
				n.result.Replayed += len(batch.Entries)
				if err := n.hints.Delivered(batch); err != nil {
					n.fail("n%d cannot forget its hints: %v", n.id, err)
				}
			}
		}, func() {})
	}
}
