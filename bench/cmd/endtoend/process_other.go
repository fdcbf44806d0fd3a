//go:build !linux

package main

import (
	"errors"
	"runtime"
	"syscall"
	"time"
)

func attributes() *syscall.SysProcAttr { return nil }

func cpuTime(int) (time.Duration, error) {
	return 0, errors.New("the CPU time of another process can be told on Linux only")
}

func memoryPeak(int) int64 { return 0 }

func tcpBytes([]string) (int64, bool) { return 0, false }

func machine() string { return runtime.GOOS + "/" + runtime.GOARCH }
