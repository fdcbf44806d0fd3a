package node

import (
	"context"
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

	mu        sync.Mutex // never held while anything is written
	hlc       *hlc.Clock
	extending chan struct{}  // closed when the higher ceiling that is being made durable is; nil: none is
	failed    error          // why the last one could not be
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

// ready waits until stamps can be issued without waiting for the disk: after an idle
// time the ceiling must be raised first.
func (c *clock) ready(ctx context.Context) error {
	for {
		c.mu.Lock()
		due := c.extend(c.wall())
		idle := c.hlc.Idle(c.wall())
		c.mu.Unlock()
		if !idle || due == nil {
			return nil
		}
		select {
		case <-due:
		case <-ctx.Done():
			return &Error{CodeTimeout, "nothing was written: the disk of this node did not answer before the request deadline"}
		}
		c.mu.Lock()
		err := c.failed
		c.mu.Unlock()
		if err != nil {
			return &Error{CodeStorage, "nothing was written: " + err.Error()}
		}
	}
}

// Next issues a stamp. It implements coordinator.Clock.
func (c *clock) Next() (hlc.Stamp, error) {
	for {
		c.mu.Lock()
		now := c.wall()
		stamp, err := c.hlc.Next(now)
		due := c.extend(now)
		c.mu.Unlock()
		if errors.Is(err, hlc.ErrCeiling) && due != nil {
			<-due // rare after ready
			c.mu.Lock()
			err = c.failed
			c.mu.Unlock()
			if err != nil {
				return 0, err
			}
			continue
		}
		if ahead := (*hlc.AheadError)(nil); errors.As(err, &ahead) {
			return 0, &Error{CodeClock, fmt.Sprintf("this node's clock is %v behind a stamp it has issued or seen: set the clock right; until then this node coordinates no writes", ahead.Ahead)}
		}
		return stamp, err
	}
}

// extend raises the ceiling if that is due, ahead of need, so that no write waits
// for it; it returns what is closed when that is done, nil if nothing is being
// done. The caller holds c.mu.
func (c *clock) extend(now time.Time) <-chan struct{} {
	if c.extending != nil {
		return c.extending
	}
	ceiling, due := c.hlc.NextCeiling(now)
	if !due {
		return nil
	}
	done := make(chan struct{})
	c.extending = done
	c.work.Go(func() {
		err := c.persist(ceiling)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.extending, c.failed = nil, err; err == nil {
			c.hlc.Extend(ceiling)
		}
		close(done)
	})
	return done
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
func (c *clock) now() hlc.Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return hlc.FromTime(c.wall())
}

// close waits until nothing is written any more.
func (c *clock) close() { c.work.Wait() }
