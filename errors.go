package syntropy

import (
	"context"
	"errors"
	"fmt"

	"syntropy/internal/node"
)

// Errors that calls return, for [errors.Is]. What the error says beyond them, such
// as which replicas are down, is in its text.
//
// After ErrUnknownOutcome a write may have happened, may still happen, or may never
// happen: read the key, or write it again. ErrShadowed and ErrFailed of a write of
// several keys leave open which of them were written. All others mean that nothing
// was written.
var (
	// ErrNotFound: the key does not exist; it was never written, was deleted, or has
	// expired.
	ErrNotFound = errors.New("syntropy: the key does not exist")
	// ErrInvalid: the call makes no sense, now or later: a key that is too long, a
	// setting out of range.
	ErrInvalid = errors.New("syntropy: invalid")
	// ErrNotReady: this node is not in its cluster yet, or may not serve yet. See
	// [DB.Ready].
	ErrNotReady = errors.New("syntropy: not ready")
	// ErrStale: this node was away for longer than deletes are remembered. It comes
	// back with an empty directory.
	ErrStale = errors.New("syntropy: away for too long")
	// ErrClock: this node's clock is too far from those of the others for it to stamp
	// writes.
	ErrClock = errors.New("syntropy: the clock is wrong")
	// ErrUnavailable: fewer replicas of the key can be reached than the consistency
	// asks for.
	ErrUnavailable = errors.New("syntropy: too few replicas")
	// ErrDiskFull: too few disks of the replicas have room for the write. Reads go on, and
	// so do writes when there is space again.
	ErrDiskFull = errors.New("syntropy: the disk is full")
	// ErrUnknownOutcome: too few replicas confirmed a write in time.
	ErrUnknownOutcome = errors.New("syntropy: the outcome is unknown")
	// ErrShadowed: a write lost against a newer one and could not be put above it,
	// because that is stamped further ahead than clocks may differ by, because too many
	// write the key at once, or because too few replicas were left to try again.
	ErrShadowed = errors.New("syntropy: shadowed by a newer write")
	// ErrFailed: the disk failed, or the node cannot go on. See [DB.Err].
	ErrFailed = errors.New("syntropy: the node failed")
	// ErrClosed: the DB is closed, or is being closed.
	ErrClosed = errors.New("syntropy: closed")
)

// Error is an error of a node. It is one of the sentinels above and, where there is
// one, the cause below it. Code is the word that Redis clients get for it.
type Error struct {
	sentinel error
	cause    error
}

// Error says what is wrong and what to do.
func (e *Error) Error() string { return e.cause.Error() }

// Unwrap returns the sentinel and the cause.
func (e *Error) Unwrap() []error { return []error{e.sentinel, e.cause} }

// Code returns an upper-case word without spaces that names the condition for
// programs, such as UNAVAILABLE.
func (e *Error) Code() string {
	if coded, ok := errors.AsType[interface {
		error
		Code() string
	}](e.cause); ok {
		return coded.Code()
	}
	switch e.sentinel {
	case ErrUnknownOutcome:
		return node.CodeTimeout
	case ErrInvalid:
		return node.CodeInvalid
	}
	return node.CodeFailed
}

func invalid(format string, args ...any) error {
	return &Error{ErrInvalid, fmt.Errorf(format, args...)}
}

// kind is what a call was about: the same condition means more after a write.
type kind bool

const (
	reading kind = false
	writing kind = true
)

var sentinels = map[string]error{
	node.CodeInvalid:     ErrInvalid,
	node.CodeNoSuchNode:  ErrInvalid,
	node.CodeNoSuchShard: ErrInvalid,
	node.CodeLoading:     ErrNotReady,
	node.CodeJoining:     ErrNotReady,
	node.CodeChecking:    ErrNotReady,
	node.CodeStale:       ErrStale,
	node.CodeClock:       ErrClock,
	node.CodeShadowed:    ErrShadowed,
	node.CodeUnavailable: ErrUnavailable,
	node.CodeTimeout:     ErrUnknownOutcome,
	node.CodeStorage:     ErrFailed,
	node.CodeDiskFull:    ErrDiskFull,
	node.CodeFailed:      ErrFailed,
}

// explain turns an error of the node into one of this package. A context that has
// ended is part of it.
func (db *DB) explain(ctx context.Context, k kind, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{ErrFailed, err}
	if coded, ok := errors.AsType[*node.Error](err); ok {
		e.sentinel = sentinels[coded.Code()]
	}
	switch {
	case db.core.closing() && (e.sentinel == ErrFailed || e.sentinel == ErrNotReady):
		e.sentinel = ErrClosed
	case k == reading && e.sentinel == ErrUnknownOutcome:
		e.sentinel = ErrUnavailable // a read that was not answered has no outcome
	}
	if ended := context.Cause(ctx); ended != nil && !errors.Is(err, ended) {
		e.cause = fmt.Errorf("%w (%w)", err, ended)
	}
	return e
}
