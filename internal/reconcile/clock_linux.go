package reconcile

import (
	"syscall"
	"time"
	"unsafe"
)

// threadTime returns the processor time of the thread that calls. getrusage will
// not do: it knows of the last tick of the scheduler only.
func threadTime() (time.Duration, bool) {
	const threadClock = 3 // CLOCK_THREAD_CPUTIME_ID
	var t syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadClock, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano()), errno == 0
}
