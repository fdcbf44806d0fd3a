package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"syntropy"
)

// The codes of errors. They are stable; the text beside them is not.
const (
	CodeBadRequest  = "bad_request"        // 400: the request makes no sense; nothing was done
	CodeForbidden   = "forbidden"          // 403: a browser page may not do this
	CodeNotFound    = "not_found"          // 404: no such path
	CodeMethod      = "method_not_allowed" // 405: GET where POST is meant, or the reverse
	CodeConflict    = "conflict"           // 409: not in the present state of the node
	CodeTooLarge    = "too_large"          // 413: more bytes than the limit
	CodeInternal    = "internal"           // 500: the node failed
	CodeUnavailable = "unavailable"        // 503: too few replicas, or the node is shutting down
	CodeTimeout     = "timeout"            // 504: not done in time; the outcome is unknown
)

// Error is an error of the API on both of its ends: what a [Node] returns to
// choose the answer, and what a [Client] returns when the node answered with an
// error. A Node's other errors are answered as internal.
type Error struct {
	Status  int    // HTTP status
	Code    string // one of the codes above
	Message string // for people: what is wrong and what to do
	err     error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the error that the answer was made of, on the node's side.
func (e *Error) Unwrap() error { return e.err }

// BadRequest makes an error of what the caller asked for: nothing was done.
func BadRequest(format string, args ...any) *Error {
	return newError(http.StatusBadRequest, CodeBadRequest, format, args...)
}

// Conflict makes an error of a request that does not fit the node's state, such
// as a second one of what may only run once.
func Conflict(format string, args ...any) *Error {
	return newError(http.StatusConflict, CodeConflict, format, args...)
}

// Unavailable makes an error of what cannot be done now but may be later.
func Unavailable(format string, args ...any) *Error {
	return newError(http.StatusServiceUnavailable, CodeUnavailable, format, args...)
}

func newError(status int, code, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Status: status, Code: code, Message: wrapped.Error(), err: errors.Unwrap(wrapped)}
}

// notNow are the conditions in which a node, or its cluster, cannot do what it may do
// later, or another node now.
var notNow = []error{
	syntropy.ErrNotReady, syntropy.ErrStale, syntropy.ErrClock, syntropy.ErrUnavailable, syntropy.ErrDiskFull, syntropy.ErrClosed,
}

// toError chooses the answer for an error of a Node.
func toError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		if msg := err.Error(); msg != e.Message { // keep what was wrapped around it
			return &Error{Status: e.Status, Code: e.Code, Message: msg, err: err}
		}
		return e
	}
	switch {
	case errors.Is(err, errStopping):
		return Unavailable("the node is shutting down and has cancelled this request: ask again when it is back, or ask another node")
	case errors.Is(err, syntropy.ErrInvalid):
		return BadRequest("%w", err)
	case errors.Is(err, syntropy.ErrUnknownOutcome):
		return newError(http.StatusGatewayTimeout, CodeTimeout, "%w", err)
	case slices.ContainsFunc(notNow, func(condition error) bool { return errors.Is(err, condition) }):
		return Unavailable("%w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return newError(http.StatusGatewayTimeout, CodeTimeout, "not done in time, so the outcome is unknown: %w", err)
	case errors.Is(err, context.Canceled):
		return newError(http.StatusServiceUnavailable, CodeUnavailable, "cancelled before it was done: %w", err)
	}
	return newError(http.StatusInternalServerError, CodeInternal, "%w", err)
}
