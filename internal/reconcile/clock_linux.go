package reconcile

import (
	"syscall"
	"time"
)

// threadTime returns the processor time of the thread that calls.
func threadTime() (time.Duration, bool) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err == nil
}
