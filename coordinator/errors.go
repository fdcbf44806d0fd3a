package coordinator

import (
	"errors"
	"fmt"
	"strings"

	"syntropy/hlc"
	"syntropy/lww"
)

// ErrDeadline is wrapped by the error of a request that Expire has ended.
var ErrDeadline = errors.New("the request's deadline passed")

// errMisfit ends the part of a replica whose answer does not fit the question.
var errMisfit = errors.New("the replica's answer does not fit the question: do both run the same version?")

// UnavailableError reports that too few replicas of a key can be asked. For a
// write nothing was sent and nothing will happen; for a read, which has no
// effect, it is the only way to fail.
type UnavailableError struct {
	Op       string // "write" or "read"
	Shard    int
	Level    Level
	Need     int          // answers
	Replicas []hlc.NodeID // of the shard
	Down     []hlc.NodeID // those that cannot be asked, or did not answer
	Err      error        // why the last of them did not answer; nil if none was asked
}

// Error says which replicas are missing.
func (e *UnavailableError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "a %s at level %v needs %s of shard %d", e.Op, e.Level, plural(e.Need, "replica"), e.Shard)
	switch {
	case len(e.Replicas) == 0:
		b.WriteString(", which has none: the cluster is not formed yet")
	case len(e.Down) == 0:
		fmt.Fprintf(&b, " (%s), and too few have answered", nodes(e.Replicas))
	default:
		fmt.Fprintf(&b, " (%s), and too few can be reached: not %s", nodes(e.Replicas), nodes(e.Down))
	}
	if e.Op == "write" {
		b.WriteString("; nothing was written")
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns why the last replica did not answer.
func (e *UnavailableError) Unwrap() error { return e.Err }

// UnknownError reports a write that was sent, and that too few replicas have
// confirmed. It may hold on some of them, and become visible on all of them
// later. To find out, read the key; to be sure, write again.
type UnknownError struct {
	Key     []byte // the first that was not confirmed
	Shard   int
	Level   Level
	Need    int          // answers
	Got     int          // answers
	Missing []hlc.NodeID // replicas of the shard that did not confirm
	Err     error        // why the last of them did not answer; may be nil
}

// Error says that the outcome is unknown, and why.
func (e *UnknownError) Error() string {
	text := fmt.Sprintf("the outcome of the write is unknown: key %.40q was confirmed by %d of %s needed at level %v, not by %s",
		e.Key, e.Got, plural(e.Need, "replica"), e.Level, nodes(e.Missing))
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + "; read the key to find out, or write it again"
}

// Unwrap returns why the last replica did not answer.
func (e *UnknownError) Unwrap() error { return e.Err }

// ShadowedError reports a write that lost on arrival: a replica that counts
// holds a newer version, and the write could not be stamped above it and sent
// again: that version is too far ahead of this node's clock, or newer ones came
// each time, or too few replicas were left. It has no effect on what readers see
// in the end; other keys of the same request may have been written.
type ShadowedError struct {
	Key      []byte
	Ours     lww.Version // as it was last stamped; a Touch that was not sent: the version read
	Theirs   lww.Version
	Attempts int   // times that it was stamped and sent
	Err      error // why it could not be stamped again
}

// Error says which version won and why it could not be beaten.
func (e *ShadowedError) Error() string {
	return fmt.Sprintf("the write of key %.40q lost to a version stamped %v by %v: %v",
		e.Key, e.Theirs.Newest(), newestNode(e.Theirs), e.Err)
}

// Unwrap returns why the write could not be stamped again, for example an
// *hlc.AheadError.
func (e *ShadowedError) Unwrap() error { return e.Err }

// InvalidError reports a mutation that is not acceptable. Nothing was sent.
type InvalidError struct {
	Index int // of the mutation
	Key   []byte
	Err   error
}

// Error names the key and what is wrong.
func (e *InvalidError) Error() string { return fmt.Sprintf("key %.40q: %v", e.Key, e.Err) }

// Unwrap returns what is wrong; an error about an entry wraps lww.ErrMalformed.
func (e *InvalidError) Unwrap() error { return e.Err }

func newestNode(v lww.Version) hlc.NodeID {
	if v.ExpiryStamp > v.Stamp {
		return v.ExpiryNode
	}
	return v.Node
}

func nodes(ids []hlc.NodeID) string {
	if len(ids) == 0 {
		return "none"
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	return strings.Join(names, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
