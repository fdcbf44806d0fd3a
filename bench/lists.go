package bench

import (
	"encoding/binary"
	"errors"
	"slices"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// What most peers have in common: lists of rows, and asking for versions.

var errCutShort = errors.New("the message is cut short")

// Sizes of what lists are made of. Eight bytes of a keyed hash are enough to
// tell the versions of one key apart.
const (
	tokenBytes   = 8
	hashBytes    = 8
	rowBytes     = tokenBytes + hashBytes
	versionBytes = 12
)

// listed is a row in a list.
type listed struct {
	x    ring.Position
	hash uint64
}

// readList appends the rows from first to last to dst. Each is read and hashed.
func readList(r *reconcile.Replica, first, last ring.Position, dst []listed) []listed {
	r.Rows(first, last, func(x ring.Position, _ lww.Entry, s merkle.Sum) bool {
		dst = append(dst, listed{x, s.Lo})
		return true
	})
	return dst
}

// appendList appends the number of rows, and token and hash of each.
func appendList(dst []byte, rows []listed) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(rows)))
	for _, r := range rows {
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.x))
		dst = binary.BigEndian.AppendUint64(dst, r.hash)
	}
	return dst
}

// cutList reads a list from the front of b into dst.
func cutList(b []byte, dst []listed) (rows []listed, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w)/rowBytes {
		return nil, nil, errCutShort
	}
	b = b[w:]
	for range n {
		dst = append(dst, listed{ring.Position(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[tokenBytes:])})
		b = b[rowBytes:]
	}
	return dst, b, nil
}

// verdict is what two lists of one range, compared, say about it.
type verdict struct {
	stale           []ring.Position // on both sides, in two versions
	onlyUs, onlyYou []ring.Position
	comparisons     int
}

// compareLists adds what differs between two lists in ascending order.
func (v *verdict) compareLists(us, you []listed) {
	for len(us) > 0 || len(you) > 0 {
		v.comparisons++
		switch {
		case len(you) == 0 || len(us) > 0 && us[0].x < you[0].x:
			v.onlyUs, us = append(v.onlyUs, us[0].x), us[1:]
		case len(us) == 0 || you[0].x < us[0].x:
			v.onlyYou, you = append(v.onlyYou, you[0].x), you[1:]
		default:
			if us[0].hash != you[0].hash {
				v.stale = append(v.stale, us[0].x)
			}
			us, you = us[1:], you[1:]
		}
	}
}

// append appends a verdict as the partner reports it to the initiator, who has
// sent the lists: what the initiator alone has, what it lacks, and the tokens of
// stale keys with the partner's versions, so that nobody has to ask again.
func (v *verdict) append(dst []byte, r *reconcile.Replica) []byte {
	dst = appendPositions(dst, v.onlyYou)
	dst = appendPositions(dst, v.onlyUs)
	dst = appendPositions(dst, v.stale)
	return appendVersions(dst, r, v.stale)
}

// receiveVerdict reads the report and returns all positions that do differ.
func receiveVerdict(b []byte, r *reconcile.Replica) (named []ring.Position, err error) {
	var stale []ring.Position
	if named, b, err = cutPositions(b, nil); err != nil {
		return nil, err
	}
	if named, b, err = cutPositions(b, named); err != nil {
		return nil, err
	}
	if stale, b, err = cutPositions(b, nil); err != nil {
		return nil, err
	}
	return receiveVersions(b, r, stale, named)
}

func appendPositions(dst []byte, xs []ring.Position) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(xs)))
	for _, x := range xs {
		dst = binary.BigEndian.AppendUint64(dst, uint64(x))
	}
	return dst
}

func cutPositions(b []byte, dst []ring.Position) (xs []ring.Position, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w)/tokenBytes {
		return nil, nil, errCutShort
	}
	b = b[w:]
	dst = slices.Grow(dst, int(n))
	for range n {
		dst = append(dst, ring.Position(binary.BigEndian.Uint64(b)))
		b = b[tokenBytes:]
	}
	return dst, b, nil
}

// appendVersions appends the versions of rows: stamp, node and flags, or zeros
// for a row that is absent.
func appendVersions(dst []byte, r *reconcile.Replica, xs []ring.Position) []byte {
	for _, x := range xs {
		v := versionAt(r, x)
		dst = append(dst, v[:]...)
	}
	return dst
}

func versionAt(r *reconcile.Replica, x ring.Position) (v [versionBytes]byte) {
	r.Rows(x, x, func(_ ring.Position, e lww.Entry, _ merkle.Sum) bool {
		binary.BigEndian.PutUint64(v[:], uint64(e.Stamp))
		binary.BigEndian.PutUint16(v[8:], uint16(e.Node))
		if e.Tombstone {
			v[11] = 1
		}
		return true
	})
	return v
}

// receiveVersions appends those of xs of which the other side's version is not
// ours.
func receiveVersions(b []byte, r *reconcile.Replica, xs, named []ring.Position) ([]ring.Position, error) {
	if len(b) != len(xs)*versionBytes {
		return nil, errCutShort
	}
	for i, x := range xs {
		if versionAt(r, x) != [versionBytes]byte(b[i*versionBytes:]) {
			named = append(named, x)
		}
	}
	return named, nil
}

// finder is the part of an initiator that is the peer's own. find takes the
// partner's message, nil at first, and appends the next one to out; if it appends
// nothing, the partner goes on. It returns nil when the partner has nothing more
// to tell, and then found has what came out: named is known for sure, of ask the
// versions are still to be compared.
type finder interface {
	find(in, out []byte) ([]byte, error)
	found() (named, ask []ring.Position)
	compared() int
}

// answerer is the partner's part.
type answerer interface {
	answer(in, out []byte) ([]byte, error)
	compared() int
}

// The first byte of what the initiator sends tells what it is.
const (
	tagFind = iota
	tagConfirm
)

// initiator lets a finder find, and then asks for versions.
type initiator struct {
	rows       *reconcile.Replica
	f          finder
	out        []byte
	confirming bool
	named, ask []ring.Position
}

func initiate(rows *reconcile.Replica, f finder) Initiator { return &initiator{rows: rows, f: f} }

func (i *initiator) Comparisons() int       { return i.f.compared() }
func (i *initiator) Named() []ring.Position { return i.named }

func (i *initiator) Step(in []byte) (out []byte, err error) {
	if i.confirming {
		i.named, err = receiveVersions(in, i.rows, i.ask, i.named)
		return nil, err
	}
	out, err = i.f.find(in, append(i.out[:0], tagFind))
	if out != nil || err != nil {
		i.out = out
		if len(out) == 1 {
			out = out[:0] // go on
		}
		return out, err
	}
	i.named, i.ask = i.f.found()
	if len(i.ask) == 0 {
		return nil, nil
	}
	i.confirming = true
	return appendPositions(append(i.out[:0], tagConfirm), i.ask), nil
}

// partner answers what an initiator asks.
type partner struct {
	rows *reconcile.Replica
	a    answerer
	out  []byte
}

func answer(rows *reconcile.Replica, a answerer) Party {
	return &partner{rows: rows, a: a, out: []byte{}} // not nil: an empty answer is one, too
}

func (p *partner) Comparisons() int { return p.a.compared() }

func (p *partner) Step(in []byte) (out []byte, err error) {
	switch {
	case len(in) > 0 && in[0] == tagConfirm:
		xs, _, err := cutPositions(in[1:], nil)
		if err != nil {
			return nil, err
		}
		p.out = appendVersions(p.out[:0], p.rows, xs)
	case len(in) > 0:
		p.out, err = p.a.answer(in[1:], p.out[:0])
	default:
		p.out, err = p.a.answer(nil, p.out[:0]) // go on
	}
	return p.out, err
}
