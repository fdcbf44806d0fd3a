package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemory(t *testing.T) {
	const info = "MemTotal:       16777216 kB\nMemFree:         1000000 kB\n"
	for name, tc := range map[string]struct {
		files  map[string]string
		memory int64
		cache  int64
	}{
		"nothing is known": {nil, 0, 256 << 20},
		"a machine":        {map[string]string{"proc/meminfo": info}, 16 << 30, (16 << 30) / 5},
		"a group without a limit": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
		}, 16 << 30, (16 << 30) / 5},
		"a limit above": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1073741824\n",
		}, 1 << 30, (1 << 30) / 5},
		"a container": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "0::/docker/0123\n", "sys/fs/cgroup/memory.max": "2147483648\n",
		}, 2 << 30, (2 << 30) / 5},
		"the first version": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "5:cpu,cpuacct:/x\n9:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "104857600\n",
		}, 100 << 20, 64 << 20},
		"no limit there is more than any memory": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "9:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 16 << 30, (16 << 30) / 5},
		"nonsense": {map[string]string{"proc/meminfo": "MemTotal: much\n", "proc/self/cgroup": "0\n:::\n"}, 0, 256 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, text := range tc.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := memoryBytes(root); got != tc.memory {
				t.Errorf("%d bytes of memory, want %d", got, tc.memory)
			}
			if got := cacheOf(memoryBytes(root)); got != tc.cache {
				t.Errorf("%d bytes of cache, want %d", got, tc.cache)
			}
		})
	}
}
