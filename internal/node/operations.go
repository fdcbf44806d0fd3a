package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
)

// operations are long requests that run here and can be cancelled.
type operations struct {
	mu      sync.Mutex
	running map[uint64]context.CancelCauseFunc
	stopped bool // what begins now is cancelled at once
}

var (
	errCancelled = errors.New("cancelled by an operator")
	errStopping  = errors.New("this node is stopping")
)

func (o *operations) begin(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	id := rand.Uint64()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		cancel(errStopping)
	}
	if o.running == nil {
		o.running = make(map[uint64]context.CancelCauseFunc)
	}
	o.running[id] = cancel
	return ctx, func() {
		cancel(nil)
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.running, id)
	}
}

// cancelAll cancels what runs and tells how much that was.
func (o *operations) cancelAll(cause error) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, cancel := range o.running {
		cancel(cause)
	}
	return len(o.running)
}

// stop cancels what runs and what is yet to begin.
func (o *operations) stop() {
	o.mu.Lock()
	o.stopped = true
	o.mu.Unlock()
	o.cancelAll(errStopping)
}
