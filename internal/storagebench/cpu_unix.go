//go:build unix

package storagebench

import (
	"syscall"
	"time"
)

// processCPU returns the time that the process has worked, in and out of the
// kernel.
func processCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
