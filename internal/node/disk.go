package node

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"syntropy/internal/rpc/peerpb"
	"syntropy/merkle"
	"syntropy/report"
	"syntropy/ring"
	"syntropy/storage/pebblestore"
)

// rotMax bounds the damaged files that are kept for status.
const rotMax = 100

// rotten keeps what was found to be damaged on the disk, from before there is a
// replica to tell.
type rotten struct {
	shards int // of the cluster

	mu    sync.Mutex
	files []report.Rot
	found chan struct{} // there is something new in check
	check map[int]bool  // shards that may have rows in a damaged file
}

func newRotten(shards int) *rotten {
	return &rotten{shards: shards, found: make(chan struct{}, 1), check: make(map[int]bool)}
}

// add takes note of a damaged file. It is called from the goroutine that reads.
func (d *rotten) add(c pebblestore.Corruption, now time.Time) (first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.ContainsFunc(d.files, func(f report.Rot) bool { return f.File == c.File }) || len(d.files) == rotMax {
		return false
	}
	from, to := shardsBetween(c.Lower, c.Upper, d.shards)
	d.files = append(d.files, report.Rot{File: c.File, FirstShard: from, LastShard: to, Since: now, Error: c.Err.Error()})
	for shard := from; shard >= 0 && shard <= to; shard++ {
		d.check[shard] = true
	}
	select {
	case d.found <- struct{}{}:
	default:
	}
	return true
}

// dataPrefix begins the keys of rows, as package storage draws them; a shard of two
// bytes follows.
const dataPrefix = 'd'

// shardsBetween returns the shards that may have rows between two keys of the engine;
// -1 if none has.
func shardsBetween(lower, upper []byte, shards int) (from, to int) {
	if len(lower) == 0 || len(upper) == 0 || lower[0] > dataPrefix || upper[0] < dataPrefix {
		return -1, -1
	}
	to = shards - 1
	if lower[0] == dataPrefix && len(lower) >= 3 {
		from = int(binary.BigEndian.Uint16(lower[1:]))
	}
	if upper[0] == dataPrefix && len(upper) >= 3 {
		to = min(to, int(binary.BigEndian.Uint16(upper[1:])))
	}
	return from, to
}

// takeChecks returns the shards that are to be looked at.
func (d *rotten) takeChecks() (shards []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for shard := range d.check {
		shards = append(shards, shard)
	}
	clear(d.check)
	return shards
}

func (d *rotten) list() []report.Rot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.files)
}

// describeDisk is what this node says of its disk. It waits for nothing.
func (r *replica) describeDisk() report.Disk {
	disk, full, since, reserved := r.room.state()
	out := report.Disk{
		FreeBytes: disk.FreeBytes, TotalBytes: disk.TotalBytes, ReservedBytes: reserved, Full: full,
		SlowSeconds: disk.SlowFor.Truncate(time.Millisecond).Seconds(), SlowFile: disk.SlowFile, Rot: r.rotten.list(),
	}
	if full {
		out.FullSince = &since
	}
	out.Quarantined, out.Scrub, out.ScrubbedAt = r.scrubber.describe()
	return out
}

// diskMessage is the same for heartbeats; nil says that there is nothing to say.
func (r *replica) diskMessage() *peerpb.Disk {
	m := &peerpb.Disk{Full: r.room.isFull() != nil}
	for _, shard := range r.scrubber.sidelined() {
		m.Quarantined = append(m.Quarantined, uint32(shard))
	}
	d := r.describeDisk()
	if len(d.Quarantined) > quarantinedTold {
		d.Quarantined = d.Quarantined[:quarantinedTold]
	}
	if raw, err := json.Marshal(d); err == nil {
		m.StatusJson = string(raw)
	}
	return m
}

// quarantinedTold bounds the parts in quarantine that a heartbeat lists.
const quarantinedTold = 10

// diskFrom takes note of what a peer says of its disk. The caller holds p.mu.
func (p *peer) diskFrom(m *peerpb.Disk) {
	p.full, p.sidelined, p.disk = m.GetFull(), nil, nil
	for _, shard := range m.GetQuarantined() {
		p.sidelined = append(p.sidelined, int(shard))
	}
	var d report.Disk
	if m != nil && json.Unmarshal([]byte(m.StatusJson), &d) == nil {
		p.disk = &d
	}
}

func (p *peer) sidelinedShards() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sidelined
}

// tokensOf returns the tokens under a node, in words.
func tokensOf(n merkle.Node, shards int) (first, last string) {
	from, _ := n.First().Tokens(shards)
	_, to := n.Last().Tokens(shards)
	return from.String(), min(to, ring.MaxToken).String()
}
