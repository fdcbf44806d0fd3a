package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"syntropy/hlc"
	"syntropy/storage"
)

// metaClock is the durable ceiling of the clock.
const metaClock = "clock"

// clock is an hlc.Clock that is shared between goroutines and keeps its ceiling
// in the store. After a crash it runs ahead of the wall by at most the bound up to
// which other nodes believe it, and usually by one lease, half of that.
type clock struct {
	wall  func() time.Time
	store *storage.Store

	mu        sync.Mutex
	hlc       *hlc.Clock
	extending bool           // a higher ceiling is being made durable
	work      sync.WaitGroup // those who make it
}

func openClock(store *storage.Store, bound time.Duration, wall func() time.Time) (*clock, error) {
	raw, found, err := store.Meta(metaClock)
	if err != nil {
		return nil, err
	}
	var floor hlc.Stamp
	if found {
		if len(raw) != 8 {
			return nil, errors.New("the stored clock is malformed")
		}
		floor = hlc.Stamp(binary.BigEndian.Uint64(raw))
	}
	return &clock{wall: wall, store: store, hlc: hlc.New(floor, bound, bound/2)}, nil
}

// Next issues a stamp. It implements coordinator.Clock.
func (c *clock) Next() (hlc.Stamp, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.wall()
	stamp, err := c.hlc.Next(now)
	if errors.Is(err, hlc.ErrCeiling) {
		// The clock was idle: make a ceiling durable before going on.
		ceiling, _ := c.hlc.NextCeiling(now)
		if err := c.persist(ceiling); err != nil {
			return 0, err
		}
		c.hlc.Extend(ceiling)
		stamp, err = c.hlc.Next(now)
	}
	if ahead := (*hlc.AheadError)(nil); errors.As(err, &ahead) {
		return 0, &Error{CodeClock, fmt.Sprintf("this node's clock is %v behind a stamp it has issued or seen: set the clock right; until then this node coordinates no writes", ahead.Ahead)}
	}
	if err != nil {
		return 0, err
	}
	if ceiling, due := c.hlc.NextCeiling(now); due && !c.extending {
		c.extending = true
		c.work.Go(func() { c.extend(ceiling) })
	}
	return stamp, nil
}

// extend raises the ceiling ahead of need, so that no write waits for it.
func (c *clock) extend(ceiling hlc.Stamp) {
	err := c.persist(ceiling)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.extending = false
	if err == nil {
		c.hlc.Extend(ceiling)
	}
}

func (c *clock) persist(ceiling hlc.Stamp) error {
	return c.store.PutMeta(metaClock, binary.BigEndian.AppendUint64(nil, uint64(ceiling)))
}

// Observe takes note of another node's stamp, or refuses it.
func (c *clock) Observe(s hlc.Stamp) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hlc.Observe(s, c.wall())
}

// now is the wall time as a stamp, which nobody else is given.
func (c *clock) now() hlc.Stamp { return hlc.FromTime(c.wall()) }

// close waits until nothing is written any more.
func (c *clock) close() { c.work.Wait() }
