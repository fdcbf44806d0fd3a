package hlc

import (
	"errors"
	"fmt"
	"time"
)

// ErrExhausted reports that all stamps are used up: the wall clock is, or was,
// at the year 2112.
var ErrExhausted = errors.New("hlc: no stamps are left: check this node's clock")

// ErrCeiling reports that the next stamp would pass the durable ceiling. The
// caller makes a higher one durable (Clock.NextCeiling), calls Clock.Extend and
// tries again. Nothing was issued.
var ErrCeiling = errors.New("hlc: the durable ceiling is reached")

// AheadError reports a stamp too far ahead of the wall clock.
type AheadError struct {
	Stamp Stamp
	Ahead time.Duration // how far ahead of the wall clock
	Bound time.Duration // how far it may be
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("stamp %v is %v ahead of this node's clock, more than the bound of %v: check the clocks of both nodes", e.Stamp, e.Ahead, e.Bound)
}

// Clock issues stamps. Its zero value is not usable; see New. A Clock is not
// safe for concurrent use.
type Clock struct {
	last    Stamp         // the highest stamp issued or observed
	ceiling Stamp         // durable: no stamp above it may be issued
	bound   time.Duration // how far ahead of the wall an observed stamp may be
	lease   time.Duration // how far ahead of the wall a new ceiling is put
}

// New returns a clock that issues only stamps above floor, which is the ceiling
// that the previous life of the clock had made durable (zero for a new one).
//
// bound limits how far ahead of the wall an observed stamp may be. lease is how
// far ahead of the wall a ceiling reaches: a longer lease means fewer durable
// writes, but after a crash the clock runs up to one lease ahead of the wall,
// so it must be shorter than the bound, or other nodes refuse what it stamps.
func New(floor Stamp, bound, lease time.Duration) *Clock {
	return &Clock{last: floor, ceiling: floor, bound: bound, lease: lease}
}

// Next issues a stamp above every stamp issued or observed before, and not
// before wall. It fails with ErrCeiling when a higher ceiling must be made
// durable first, and with *AheadError when the clock itself has come to be more
// than the bound ahead of the wall: then the machine's clock was set back, and
// other nodes would refuse the stamp.
func (c *Clock) Next(wall time.Time) (Stamp, error) {
	next := FromTime(wall)
	if max(next, c.last) >= Max-1 {
		return 0, ErrExhausted
	}
	if next <= c.last {
		next = c.last + 1
	}
	if err := c.checkAhead(next, wall); err != nil {
		return 0, err
	}
	if next > c.ceiling {
		return 0, ErrCeiling
	}
	c.last = next
	return next, nil
}

// Idle reports whether the next stamp at wall would pass the durable ceiling, so
// that Next would fail with ErrCeiling.
func (c *Clock) Idle(wall time.Time) bool { return max(FromTime(wall), c.last+1) > c.ceiling }

// Observe takes note of a stamp issued by another node, so that later stamps of
// this clock are above it. A stamp further ahead of wall than the bound is
// refused with *AheadError and leaves the clock as it was.
func (c *Clock) Observe(s Stamp, wall time.Time) error {
	if err := c.checkAhead(s, wall); err != nil {
		return err
	}
	c.last = max(c.last, s)
	return nil
}

func (c *Clock) checkAhead(s Stamp, wall time.Time) error {
	if ahead := s.Sub(FromTime(wall)); ahead > c.bound {
		return &AheadError{Stamp: s, Ahead: ahead, Bound: c.bound}
	}
	return nil
}

// Last returns the highest stamp issued or observed.
func (c *Clock) Last() Stamp { return c.last }

// NextCeiling returns the ceiling that should be made durable now, and whether
// it is due: when less than half a lease is left above the wall or the last
// stamp. The caller persists it and then calls Extend.
//
// It is never put further ahead of the wall than the bound, however far ahead the
// observed stamps are: a clock that starts again from its ceiling must be able to
// go on at once.
func (c *Clock) NextCeiling(wall time.Time) (Stamp, bool) {
	from := max(FromTime(wall), c.last)
	limit := FromTime(wall).Add(c.bound) | (1<<logicalBits - 1)
	if c.ceiling >= min(from.Add(c.lease/2), limit) {
		return c.ceiling, false
	}
	return min(from.Add(c.lease), limit), true
}

// Extend tells the clock that ceiling is durable. A lower one than before is
// ignored.
func (c *Clock) Extend(ceiling Stamp) { c.ceiling = max(c.ceiling, ceiling) }
