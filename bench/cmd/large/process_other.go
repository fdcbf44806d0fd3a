//go:build !linux

package main

import (
	"runtime"
	"time"
)

// cpuTime is not known.
func cpuTime() time.Duration { return 0 }

// memory is not known.
func memory(string) int64 { return 0 }

func machine() string { return runtime.GOOS + ", " + runtime.Version() }
