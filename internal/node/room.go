package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/storage/pebblestore"
)

const (
	// roomLook is how often the free space is looked at when nobody writes.
	roomLook = 250 * time.Millisecond
	// roomShare is the part of the space above the reserve that may be written before
	// it is looked at again: a row costs its place in the log, in a table, and in the
	// tables that compactions make of that one.
	roomShare = 8
)

// reserve is how much of a disk is kept free of writes. Below low none is taken,
// above high they are taken again; the gap keeps a node from going back and forth
// with every table that a compaction writes and removes.
type reserve struct{ low, high uint64 }

// reserveOf returns the reserve of a disk by its size: a twentieth, within 256 MiB and
// 16 GiB, but at most a quarter. What compactions need for a while, and the logs of
// what is in memory, have to fit into it.
func reserveOf(total uint64, given int64) reserve {
	low := min(max(total/20, min(256<<20, total/4)), 16<<30)
	if given > 0 {
		low = uint64(given)
	}
	return reserve{low, low + low/4}
}

// room decides whether there is room for writes. It sees the disk through look, and
// reads the time from its caller.
type room struct {
	look    func() (pebblestore.DiskState, error)
	given   int64 // the reserve, if the operator chose it
	changed func(full bool, reason string)

	mu     sync.Mutex
	disk   pebblestore.DiskState
	err    error // of the last look
	full   bool
	since  time.Time // when full last changed
	looked time.Time
	budget int64 // bytes that may be written before the next look
}

// take reserves room for a write, or refuses it.
func (m *room) take(bytes int64, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.budget -= bytes; m.budget < 0 || now.Sub(m.looked) > roomLook {
		m.observe(now)
	}
	return m.refusal()
}

// watch looks at the disk now and then, so that a node that nobody writes to knows
// that there is room again.
func (m *room) watch(ctx context.Context) {
	tick := time.NewTicker(roomLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m.mu.Lock()
			if now.Sub(m.looked) > roomLook/2 {
				m.observe(now)
			}
			m.mu.Unlock()
		}
	}
}

// observe looks at the disk. The caller holds m.mu.
func (m *room) observe(now time.Time) {
	disk, err := m.look()
	m.looked = now
	if m.err = err; err != nil { // what cannot be seen is not refused: the disk itself does that
		m.budget = 1 << 20
		return
	}
	m.disk = disk
	r := reserveOf(disk.TotalBytes, m.given)
	full := disk.FreeBytes < r.low || disk.Waiting > 0 || m.full && disk.FreeBytes < r.high
	m.budget = 0
	if disk.FreeBytes > r.low {
		m.budget = int64(disk.FreeBytes-r.low) / roomShare
	}
	if full != m.full {
		m.full, m.since = full, now
		m.changed(full, m.text())
	}
}

func (m *room) text() string {
	r := reserveOf(m.disk.TotalBytes, m.given)
	return fmt.Sprintf("%s of %s are free, and %s are kept free", bytesText(m.disk.FreeBytes), bytesText(m.disk.TotalBytes), bytesText(r.low))
}

// refusal is the error of a write while the disk is full. The caller holds m.mu.
func (m *room) refusal() error {
	if !m.full {
		return nil
	}
	return &Error{CodeDiskFull, "the disk is full: " + m.text() + "; reads go on, and writes are taken again by themselves when there is space"}
}

// isFull returns the refusal, if there is one.
func (m *room) isFull() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refusal()
}

// stuck returns the refusal if the disk has no room for anything: then a node cannot
// even store how far its clock may go, and must stamp no writes for others either.
func (m *room) stuck() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.full || m.disk.Waiting == 0 {
		return nil
	}
	return &Error{CodeDiskFull, "nothing was written: " + m.refusal().Error() + "; ask another node meanwhile"}
}

func (m *room) state() (disk pebblestore.DiskState, full bool, since time.Time, reserved uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.disk, m.full, m.since, reserveOf(m.disk.TotalBytes, m.given).low
}

func bytesText(n uint64) string {
	const units = "KMGTP"
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// newRoom watches the disk of an engine.
func (r *replica) newRoom(look func() (pebblestore.DiskState, error)) *room {
	return &room{look: look, given: r.node.opts.MinFreeBytes, changed: func(full bool, text string) {
		if full {
			r.log.Error("the disk is full: this node takes no writes until there is space again; reads go on", "space", text)
			return
		}
		r.log.Info("there is space on the disk again: this node takes writes", "space", text)
		r.schedule.reconsider()
	}}
}

// full names the replicas of a shard whose disks are full, this node's own included,
// and says what its disk looks like.
func (r *replica) fullReplicas(ids []hlc.NodeID) (full []hlc.NodeID, why string) {
	l := r.layout()
	for _, id := range ids {
		if id == r.self {
			if err := r.room.isFull(); err != nil {
				full, why = append(full, id), err.Error()
			}
		} else if p := l.peers[id]; p != nil && p.hasNoRoom() {
			full = append(full, id)
		}
	}
	return full, why
}

// unwritable is the error of a write. When it was refused because disks are full, it
// says so.
func (r *replica) unwritable(err error, unavailable *coordinator.UnavailableError) error {
	full, why := r.fullReplicas(unavailable.Down)
	if len(full) == 0 {
		return &Error{CodeUnavailable, err.Error()}
	}
	text := err.Error() + "; full: the disk of " + join(full)
	if why != "" {
		text += "; on this node " + why
	}
	return &Error{CodeDiskFull, text}
}

func (p *peer) hasNoRoom() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full
}

// unwritten is the error of a write that was sent. That a disk is full is why one
// replica did not take it, and says nothing of the others; where there is no other,
// nothing was written.
func (r *replica) unwritten(err error) error {
	var unknown *coordinator.UnknownError
	var full *Error
	if !errors.As(err, &unknown) || !errors.As(err, &full) || full.code != CodeDiskFull {
		return coordinated(err)
	}
	if len(r.layout().table.Replicas(unknown.Shard)) == 1 && unknown.Got == 0 && slices.Contains(unknown.Missing, r.self) {
		return &Error{CodeDiskFull, "nothing was written: " + full.text}
	}
	return &Error{CodeTimeout, err.Error()}
}
