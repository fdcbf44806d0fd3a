package purge

import (
	"encoding/binary"
	"errors"
	"fmt"

	"syntropy/hlc"
)

// A state has one encoding, for the disk and for the other side of a meeting:
//
//	state    version 1 | mode 1 | self 8 | upto | cut | pairs, count | pair ...
//	cut      at 8 | [ raiser 8 | replicas, count | ( replica 8 | session | position ) ... ]
//	pair     with 8 | confirmed record | pending record
//	record   session | [ cut 8 | position | theirs | time 8 | nodes, count | node ... ]
//	session  seq | [ nonce 8 ]
//
// What has no width is a uvarint; the rest is big-endian. What is in brackets follows
// unless the field before it is zero. Replicas and pairs are in ascending order, and
// every number is as short as it can be: equal states have equal bytes, so that a digest
// of them tells whether two replicas still know the same of each other.

// encodingVersion is the first byte. A later form gets another one, so that this code
// never misreads it.
const encodingVersion = 1

// ErrMalformed is wrapped by every error about bytes that are not a state.
var ErrMalformed = errors.New("malformed purge state")

// Limits of what is decoded, far above what a shard can have.
const (
	maxReplicas = 64
	maxNodes    = 64
)

// AppendState appends a state and the mode of its replica.
func AppendState(dst []byte, s State, m Mode) []byte {
	dst = append(dst, encodingVersion, byte(m))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Self))
	dst = binary.AppendUvarint(dst, uint64(s.Upto))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Cut.At))
	if s.Cut.At != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.Cut.Raiser))
		dst = binary.AppendUvarint(dst, uint64(len(s.Cut.Set)))
		for _, p := range s.Cut.Set {
			dst = binary.BigEndian.AppendUint64(dst, uint64(p.Replica))
			dst = appendSession(dst, p.Session)
			dst = binary.AppendUvarint(dst, uint64(p.Position))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Pairs)))
	for _, p := range s.Pairs {
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.With))
		dst = appendRecord(dst, p.Confirmed)
		dst = appendRecord(dst, p.Pending)
	}
	return dst
}

func appendSession(dst []byte, s Session) []byte {
	dst = binary.AppendUvarint(dst, s.Seq)
	if s.Seq != 0 {
		dst = binary.BigEndian.AppendUint64(dst, s.Nonce)
	}
	return dst
}

func appendRecord(dst []byte, r Record) []byte {
	dst = appendSession(dst, r.Session)
	if r.Session.Seq == 0 {
		return dst
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Cut))
	dst = binary.AppendUvarint(dst, uint64(r.Position))
	dst = binary.AppendUvarint(dst, uint64(r.Theirs))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Time))
	dst = binary.AppendUvarint(dst, uint64(len(r.Unreached)))
	for _, n := range r.Unreached {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

// ParseState reads what AppendState has written. It shares no memory with b, and every
// error wraps ErrMalformed.
func ParseState(b []byte) (State, Mode, error) {
	d := decoder{b: b}
	s, m := d.state()
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes follow it", len(d.b))
	}
	if d.err != nil {
		return State{}, Joining, d.err
	}
	return s, m, nil
}

type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("it is cut off")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) fixed() uint64 {
	if len(d.b) < 8 {
		d.fail("it is cut off")
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.fail("a number is cut off, too long or padded")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) count(what string, limit int) int {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail("%d %s, the limit is %d", n, what, limit)
		return 0
	}
	return int(n)
}

func (d *decoder) state() (s State, m Mode) {
	if v := d.byte(); v != encodingVersion {
		d.fail("its version is %d, this program knows %d", v, encodingVersion)
		return s, m
	}
	if m = Mode(d.byte()); m > Live {
		d.fail("no mode is %d", m)
	}
	s.Self = Incarnation(d.fixed())
	s.Upto = Position(d.uvarint())
	if s.Cut.At = hlc.Stamp(d.fixed()); s.Cut.At != 0 {
		s.Cut.Raiser = Incarnation(d.fixed())
		last := Incarnation(0)
		for range d.count("replicas in a cut", maxReplicas) {
			p := Proven{Incarnation(d.fixed()), d.session(), Position(d.uvarint())}
			d.ascending(&last, p.Replica)
			s.Cut.Set = append(s.Cut.Set, p)
		}
	}
	last := Incarnation(0)
	for range d.count("pairs", 2*MaxPairs) {
		p := Pair{Incarnation(d.fixed()), d.record(), d.record()}
		d.ascending(&last, p.With)
		s.Pairs = append(s.Pairs, p)
	}
	return s, m
}

func (d *decoder) ascending(last *Incarnation, next Incarnation) {
	if next <= *last {
		d.fail("incarnations are out of order")
	}
	*last = next
}

func (d *decoder) session() (s Session) {
	if s.Seq = d.uvarint(); s.Seq != 0 {
		s.Nonce = d.fixed()
	}
	return s
}

func (d *decoder) record() (r Record) {
	if r.Session = d.session(); r.Session.Seq == 0 {
		return r
	}
	r.Cut = hlc.Stamp(d.fixed())
	r.Position, r.Theirs = Position(d.uvarint()), Position(d.uvarint())
	r.Time = hlc.Stamp(d.fixed())
	for range d.count("nodes not reached", maxNodes) {
		n := d.uvarint()
		if n == 0 || n > 1<<16-1 {
			d.fail("no node is %d", n)
		}
		r.Unreached = append(r.Unreached, hlc.NodeID(n))
	}
	return r
}
