package coordinator

import (
	"bytes"
	"errors"
	"fmt"

	"syntropy/hlc"
	"syntropy/lww"
)

// Kind says what a mutation does to its key.
type Kind uint8

// The kinds of mutations.
const (
	// Put writes a value, and with it whether and when it expires.
	Put Kind = iota
	// Delete writes a tombstone, whether or not there is anything to delete:
	// what this node knows of may not be all that there is.
	Delete
	// Touch sets or removes the expiry of a version that the caller has read,
	// and keeps its value and value stamp. Any newer write or delete beats it,
	// so it never brings anything back.
	Touch
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case Put:
		return "put"
	case Delete:
		return "delete"
	case Touch:
		return "touch"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Mutation is a change of one key that has not been stamped yet.
type Mutation struct {
	Kind    Kind
	Key     []byte
	Value   []byte    // Put only
	Expires int64     // Put and Touch: milliseconds since 1970; 0: never
	Base    lww.Entry // Touch only: the version that was read, of this key
}

// entry returns what is to be stamped, checked but for the stamp.
func (m *Mutation) entry() (lww.Entry, error) {
	e := lww.Entry{Key: m.Key, Value: m.Value}
	e.Expires = m.Expires
	switch m.Kind {
	case Put:
	case Delete:
		e.Tombstone = true
		if m.Expires != 0 {
			return e, errors.New("a delete does not expire")
		}
	case Touch:
		e = m.Base
		e.Expires = m.Expires
		switch {
		case len(m.Value) > 0:
			return e, errors.New("a touch keeps the value that was read and takes no other")
		case m.Base.Tombstone || m.Base.Stamp == 0:
			return e, errors.New("only a key that was read and holds a value can be touched")
		case !bytes.Equal(m.Key, m.Base.Key):
			return e, errors.New("the version that was read is of another key")
		}
	default:
		return e, fmt.Errorf("%v is not a kind of mutation", m.Kind)
	}
	stamped := e
	m.Kind.stamp(&stamped, 1, 1)
	return e, stamped.Validate()
}

// stamp gives the entry a new stamp, in the field that the kind of mutation
// writes. A touch must not get a new value stamp: it would beat a delete that it
// knows nothing of.
func (k Kind) stamp(e *lww.Entry, at hlc.Stamp, by hlc.NodeID) {
	if k != Touch {
		e.Stamp, e.Node = at, by
		if e.Expires == 0 {
			return
		}
	}
	e.ExpiryStamp, e.ExpiryNode = at, by
}

// replaced reports whether the version that shadowed a touched entry holds
// another, newer value, so that there is nothing left to touch.
func replaced(touched, by lww.Version) bool {
	if c, decided := lww.CompareVersions(by, touched, true); decided && c <= 0 {
		// It is not newer by its version, and shadows the entry all the same: two
		// values under one stamp, which a clock gone wrong can leave behind, and
		// theirs is the greater.
		return true
	}
	return by.Stamp != touched.Stamp || by.Node != touched.Node || by.Tombstone != touched.Tombstone
}

// overwritten returns, for each mutation, the index of the last mutation of the
// same key, or nil when every key occurs once.
//
// Of several mutations of a key only the last is sent. Were all of them sent, an
// earlier one could be found shadowed, by the later, be stamped again and win.
func overwritten(ms []Mutation) (last []int, err error) {
	if len(ms) == 1 {
		return nil, nil
	}
	seen := make(map[string]int, len(ms))
	for i := range ms {
		seen[string(ms[i].Key)] = i
	}
	if len(seen) == len(ms) {
		return nil, nil
	}
	last = make([]int, len(ms))
	for i := range ms {
		last[i] = seen[string(ms[i].Key)]
		if last[i] != i && (ms[i].Kind == Touch || ms[last[i]].Kind == Touch) {
			return nil, &InvalidError{Index: i, Key: ms[i].Key,
				Err: errors.New("a touch must be the only mutation of its key in a request")}
		}
	}
	return last, nil
}
