package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// attributes keep the terminal's Ctrl-C away from a node and end the node when
// this program dies, however it does.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// cpuTime returns the CPU time that a process has taken so far, user and system.
// It is what /proc/PID/stat tells, in nanoseconds rather than hundredths of a
// second.
func cpuTime(pid int) (time.Duration, error) {
	const schedulerClock = 2
	clock := int32(^pid<<3 | schedulerClock)
	var t syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0, fmt.Errorf("the CPU time of process %d: %w", pid, errno)
	}
	return time.Duration(t.Nano()), nil
}

// memoryPeak returns the most memory that a process has had, in bytes; 0: unknown.
func memoryPeak(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	line, _, _ := strings.Cut(rest, " kB")
	kib, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return kib << 10
}

// tcpBytes returns what has been received on all connections to some addresses so
// far, on both ends together: each byte that crossed, once. It is what the kernel
// counts, so it knows of nothing that a report may have forgotten. It needs ss; ok
// is false without.
func tcpBytes(addrs []string) (received int64, ok bool) {
	var filter []string
	for _, a := range addrs {
		filter = append(filter, "or", "src", a, "or", "dst", a)
	}
	out, err := exec.Command("ss", append([]string{"-Htin", "state", "established"}, filter[1:]...)...).Output()
	if err != nil {
		return 0, false
	}
	for _, m := range tcpReceived.FindAllSubmatch(out, -1) {
		n, err := strconv.ParseInt(string(m[1]), 10, 64)
		if err != nil {
			return 0, false
		}
		received += n
	}
	return received, received > 0
}

var tcpReceived = regexp.MustCompile(`bytes_received:(\d+)`)

// machine describes what this runs on, in a few words.
func machine() string {
	cpu := "unknown CPU"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, found := strings.CutPrefix(lines.Text(), "model name"); found {
				cpu = strings.TrimLeft(name, "\t :")
				break
			}
		}
	}
	var info syscall.Sysinfo_t
	_ = syscall.Sysinfo(&info) // nothing is known then
	return fmt.Sprintf("%s, %.0f GiB of memory, Linux", cpu, float64(info.Totalram)*float64(info.Unit)/(1<<30))
}
