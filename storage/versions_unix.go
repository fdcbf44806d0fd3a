//go:build unix

package storage

import (
	"runtime"
	"syscall"
	"unsafe"
)

// mapBuckets gives v memory that is the process's once it is written to, and goes
// back when nobody has v any more.
func (v *versions) mapBuckets(n int) (ok bool) {
	raw, err := syscall.Mmap(-1, 0, n*int(unsafe.Sizeof(bucket{})), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return false
	}
	v.buckets = unsafe.Slice((*bucket)(unsafe.Pointer(&raw[0])), n)
	runtime.AddCleanup(v, func(raw []byte) { _ = syscall.Munmap(raw) }, raw)
	return true
}
