package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// cacheShare is the part of the memory that goes to the block cache by default.
	// With the table of versions, a quarter as large, that makes a quarter.
	cacheShare = 5
	// cacheLeast and cacheMost bound what comes of it; cacheUnknown is for machines
	// of which the memory is not known.
	cacheLeast, cacheMost, cacheUnknown = 64 << 20, 64 << 30, 256 << 20
)

// cacheOf returns the size of the block cache on a machine with so much memory; zero
// is unknown.
func cacheOf(memory int64) int64 {
	if memory <= 0 {
		return cacheUnknown
	}
	return min(max(memory/cacheShare, cacheLeast), cacheMost)
}

// memoryBytes returns how much memory this process may have: that of the machine, or
// what its control groups allow if that is less. Zero is unknown. root is where the
// file system begins.
func memoryBytes(root string) (least int64) {
	consider := func(n int64) {
		if n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	read := func(path string) string {
		raw, _ := os.ReadFile(filepath.Join(root, path))
		return string(bytes.TrimSpace(raw))
	}
	number := func(s string) int64 {
		n, _ := strconv.ParseInt(s, 10, 64) // "max" is none
		return n
	}
	for line := range strings.Lines(read("proc/meminfo")) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			consider(number(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB"))) << 10)
		}
	}
	for line := range strings.Lines(read("proc/self/cgroup")) {
		// id:controllers:path, with the second version 0::path
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		top, file := "sys/fs/cgroup", "memory.max"
		if fields[0] != "0" {
			if fields[1] != "memory" {
				continue
			}
			top, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		// A group is held to the limits of those above it. In a container the path is
		// often that of the host, and only the top is there.
		for path := filepath.Clean("/" + fields[2]); ; path = filepath.Dir(path) {
			consider(number(read(filepath.Join(top, path, file))))
			if path == "/" {
				break
			}
		}
	}
	return least
}
