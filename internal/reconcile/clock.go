package reconcile

import (
	"runtime"
	"time"
)

// shortest is the time from which on the clock of the thread is believed: reading
// it takes up to a microsecond.
const shortest = 20 * time.Microsecond

// Timed returns the processor time that f takes on its goroutine. What f starts
// on others is not in it.
//
// The clock on the wall also runs while another program has the processor. That
// of the thread does not, but it is slow to read, which counts if f is short.
func Timed(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, ok := threadTime()
	wall := time.Now()
	f()
	took := time.Since(wall)
	if end, _ := threadTime(); ok && took >= shortest {
		took = min(took, end-thread)
	}
	return took
}
