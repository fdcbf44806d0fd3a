package hlc

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// NodeID names the node that owns a clock. Equal stamps of two nodes are
// ordered by it. Zero means "no node" and is never a member of a cluster.
type NodeID uint16

// String prints the id the way people type it, for example "n2".
func (n NodeID) String() string { return "n" + strconv.Itoa(int(n)) }

// ParseNodeID reads "n2" or "2".
func ParseNodeID(s string) (NodeID, error) {
	v, err := strconv.ParseUint(strings.TrimPrefix(s, "n"), 10, 16)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("%q is not a node: nodes are named n1, n2 and so on", s)
	}
	return NodeID(v), nil
}

// MarshalText implements encoding.TextMarshaler, so that JSON says "n2".
func (n NodeID) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *NodeID) UnmarshalText(b []byte) error {
	v, err := ParseNodeID(string(b))
	if err != nil {
		return err
	}
	*n = v
	return nil
}

// Stamp is a point in hybrid logical time. Stamps sort as integers; zero is
// before every write.
type Stamp uint64

// logicalBits is the width of the counter below the microseconds: 4,096 stamps
// a microsecond, more than one node can issue, so the counter spills over into
// the physical part only when the clock is ahead of the wall.
const logicalBits = 12

// Max is after every stamp that a clock can issue.
const Max = Stamp(1<<64 - 1)

// FromTime returns the first stamp of t's microsecond. Times before 1970 give
// zero and times after 2112 give Max.
func FromTime(t time.Time) Stamp {
	// Bounds first: UnixMicro wraps round for times far away, such as an expiry
	// that a client has set to the greatest number it could think of.
	switch {
	case !t.After(time.UnixMicro(0)):
		return 0
	case !t.Before(time.UnixMicro(1 << (64 - logicalBits))):
		return Max
	}
	return Stamp(t.UnixMicro()) << logicalBits
}

// Time returns the physical part, in UTC with microsecond precision.
func (s Stamp) Time() time.Time { return time.UnixMicro(int64(s >> logicalBits)).UTC() }

// Micros returns the physical part: microseconds since 1970.
func (s Stamp) Micros() int64 { return int64(s >> logicalBits) }

// Join returns the stamp with a physical part and a counter, the inverse of
// Micros and Logical. ok is false if either is out of range.
func Join(micros int64, logical uint16) (s Stamp, ok bool) {
	if micros < 0 || micros >= 1<<(64-logicalBits) || logical >= 1<<logicalBits {
		return 0, false
	}
	return Stamp(micros)<<logicalBits | Stamp(logical), true
}

// Logical returns the counter within the microsecond.
func (s Stamp) Logical() uint16 { return uint16(s & (1<<logicalBits - 1)) }

// Add returns s moved by d, saturating at zero and Max. The counter is kept.
func (s Stamp) Add(d time.Duration) Stamp {
	us := int64(s>>logicalBits) + d.Microseconds()
	switch {
	case us < 0:
		return 0
	case us >= 1<<(64-logicalBits):
		return Max
	}
	return Stamp(us)<<logicalBits | Stamp(s.Logical())
}

// Sub returns the physical time from o to s.
func (s Stamp) Sub(o Stamp) time.Duration {
	return time.Duration(int64(s>>logicalBits)-int64(o>>logicalBits)) * time.Microsecond
}

// String prints the stamp for people, for example
// "2026-11-22T09:30:00.000125Z+3": the time, then the counter if it is not 0.
func (s Stamp) String() string {
	if s == 0 {
		return "never"
	}
	t := s.Time().Format("2006-01-02T15:04:05.000000Z")
	if l := s.Logical(); l != 0 {
		t += "+" + strconv.Itoa(int(l))
	}
	return t
}
