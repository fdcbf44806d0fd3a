//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// tmpfs mounts a small disk for the test, or skips it.
func tmpfs(t *testing.T, bytes int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(bytes)); err != nil {
		t.Skipf("a disk of its own is needed, and this user may mount none: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// cpu returns the CPU time that a process has used.
func (s *server) cpu() time.Duration {
	s.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // user and system, in hundredths of a second
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// idle fails unless the process uses little CPU while nobody asks it for anything.
func (s *server) idle() {
	s.t.Helper()
	const look = 3 * time.Second
	before, began := s.cpu(), time.Now()
	passed(s.t, look)
	if used, took := s.cpu()-before, time.Since(began); used > took/4 {
		s.t.Errorf("the process used %v of CPU in %v, with nothing to do", used, took)
	} else {
		s.t.Logf("%v of CPU in %v", used, took)
	}
}

// filler writes values that do not compress until told to stop, and remembers what
// was acknowledged.
type filler struct {
	t      *testing.T
	client *redis.Client
	next   atomic.Int64

	mu       sync.Mutex
	acked    map[string]uint64 // the seed of the value
	refused  int
	refusals map[string]int // other errors
}

const fillBytes = 64 << 10

func fillValue(seed uint64) []byte {
	b := make([]byte, fillBytes)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	rng.Read(b)
	return b
}

// write offers so many values, four at a time.
func (f *filler) write(values int) {
	end := f.next.Load() + int64(values)
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for i := f.next.Add(1); i <= end; i = f.next.Add(1) {
				key := fmt.Sprintf("key%05d", i)
				err := f.client.Set(f.t.Context(), key, fillValue(uint64(i)), 0).Err()
				f.mu.Lock()
				switch {
				case err == nil:
					f.acked[key] = uint64(i)
				case strings.HasPrefix(err.Error(), "DISKFULL"):
					f.refused++
					if f.refused == 1 {
						wantWords(f.t, err.Error(), "nothing was written", "the disk is full", "are free")
					}
				default:
					f.refusals[err.Error()]++
				}
				f.mu.Unlock()
			}
		})
	}
	writers.Wait()
	f.next.Store(end)
}

// readAll reads what was acknowledged.
func (f *filler) readAll() {
	f.t.Helper()
	for key, seed := range f.acked {
		got, err := f.client.Get(f.t.Context(), key).Bytes()
		if err != nil || !bytes.Equal(got, fillValue(seed)) {
			f.t.Fatalf("%s: %d bytes, %v", key, len(got), err)
		}
	}
}

func fill(t *testing.T, s *server) *filler {
	return &filler{t: t, client: s.redis(), acked: make(map[string]uint64), refusals: make(map[string]int)}
}

// onDisk starts a node alone on a small disk, beside a file of somebody else.
func onDisk(t *testing.T, disk string, ballast int, flags ...string) (s *server, file string) {
	t.Helper()
	file = filepath.Join(disk, "ballast")
	if err := os.WriteFile(file, make([]byte, ballast), 0o600); err != nil {
		t.Fatal(err)
	}
	s = newServers(t, 1, append(flags, "--request-deadline", "2s")...)[0]
	s.dir = filepath.Join(disk, "n1")
	s.start()
	s.ready(1)
	return s, file
}

// TestFullDisk: 200 MiB are offered to a node on a disk of 64 MiB. It takes what it
// has room for, refuses the rest with the reason, rests, serves reads, and takes writes
// again when somebody makes room, without a restart and without a delete.
func TestFullDisk(t *testing.T) {
	s, ballast := onDisk(t, tmpfs(t, 64<<20), 24<<20)
	f := fill(t, s)
	f.write(200 << 20 / fillBytes)
	if len(f.refusals) > 0 {
		t.Errorf("other errors than a full disk: %v", f.refusals)
	}
	if len(f.acked)*fillBytes < 8<<20 || f.refused == 0 {
		t.Fatalf("%d writes were taken, %d refused", len(f.acked), f.refused)
	}
	t.Logf("%d MiB were taken, %d writes refused", len(f.acked)*fillBytes>>20, f.refused)
	s.idle()
	f.readAll()
	out, _, _ := syntropy(t, nil, "status", "--admin", s.admin)
	wantWords(t, out, "n1: the disk is full")
	if n := strings.Count(s.stderr.String(), "the disk is full"); n == 0 || n > 20 {
		t.Errorf("the log says %d times that the disk is full", n)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	before := len(f.acked)
	eventually(t, "writes are taken again", func() bool { f.write(1); return len(f.acked) > before })
	f.write(64)
	f.readAll()
	if len(f.acked) < before+32 {
		t.Errorf("%d writes were taken after there was space", len(f.acked)-before)
	}
	if status := s.end(sigTerm); status != 0 {
		t.Errorf("exit status %d", status)
	}
	s.start()
	s.ready(1)
	f.readAll()
	s.treesAreExact(1)
}

// TestNoSpaceAtAll: somebody else takes the very last byte of the disk under a node
// that writes. Nothing ends or spins, reads go on, and so do writes when the space is
// back.
func TestNoSpaceAtAll(t *testing.T) {
	disk := tmpfs(t, 64<<20)
	s, ballast := onDisk(t, disk, 0, "--min-free-mib", "1")
	f := fill(t, s)
	f.write(16)
	taken := takeAll(t, ballast)
	f.write(200)
	s.idle()
	f.readAll()
	if f.refused == 0 {
		t.Errorf("nothing was refused: %v", f.refusals)
	}
	t.Logf("%d writes were taken, %d refused, others: %v; %d MiB were in the way", len(f.acked), f.refused, f.refusals, taken>>20)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	before := len(f.acked)
	eventually(t, "writes are taken again", func() bool { f.write(1); return len(f.acked) > before })
	f.write(32)
	f.readAll()
	if status := s.end(sigTerm); status != 0 {
		t.Errorf("exit status %d", status)
	}
	s.start()
	s.ready(1)
	f.readAll()
	s.treesAreExact(1)
}

// takeAll fills the disk with one file.
func takeAll(t *testing.T, file string) (taken int) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := 1 << 20; chunk > 0; {
		n, err := f.Write(make([]byte, chunk))
		taken += n
		if errors.Is(err, syscall.ENOSPC) {
			chunk /= 16
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return taken
}
