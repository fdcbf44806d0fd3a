package pebblestore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// roomRetry is the pause before a write is tried again that found no room and
	// that Pebble cannot do without.
	roomRetry = 100 * time.Millisecond
	// tablePause is the pause before such an error of a table is returned: Pebble
	// begins a failed flush again at once, and for ever.
	tablePause = 500 * time.Millisecond
	// compactionPauseMax bounds the pause after compactions that failed, which
	// doubles from tablePause. A compaction that fails has read and written up to
	// gigabytes for nothing.
	compactionPauseMax = 16 * time.Second
	// slowAfter is how long an operation may take before the disk counts as slow.
	slowAfter = time.Second
)

// disk is the file system below Pebble. It waits where Pebble would end the process
// or spin:
//
//   - A full disk. A log or a manifest that cannot be written is fatal to Pebble, so
//     such a write waits until there is room, and goes on where it stopped. A table
//     that cannot be written fails, which frees what was written of it, but only
//     after a pause.
//   - Any other failure of a log or of the directory is told to Options.OnFatal, and
//     the call does not return: Pebble would end the process from within its locks.
//   - Compactions that fail, for lack of room or because of a rotten block, are begun
//     again after a pause that grows.
//
// It also knows what is under way, and since when.
type disk struct {
	vfs.FS
	*diskState
}

type diskState struct {
	// patient is set while the engine is open: who opens or closes one wants to
	// hear that the disk is full, and not to wait.
	patient atomic.Bool
	fatal   *fatal
	closing chan struct{} // closed when nothing waits any more
	close   sync.Once
	waiting atomic.Int64 // writes that wait for room

	mu         sync.Mutex
	failures   int       // compactions in a row
	compactAt  time.Time // not before
	operations operations
}

func newDisk(fs vfs.FS, f *fatal) *disk {
	return &disk{fs, &diskState{fatal: f, closing: make(chan struct{})}}
}

// opened lets writes wait from now on.
func (s *diskState) opened() { s.patient.Store(true) }

// closed lets nothing wait any more.
func (s *diskState) closed() {
	s.patient.Store(false)
	s.close.Do(func() { close(s.closing) })
}

// pause waits, and reports whether it is worth trying again.
func (s *diskState) pause(d time.Duration) bool {
	if d <= 0 || !s.patient.Load() {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closing:
		return false
	}
}

// compacted takes note of how a compaction ended. It is called with Pebble's lock
// held.
func (s *diskState) compacted(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.failures = 0
		return
	}
	s.compactAt = time.Now().Add(min(tablePause<<min(s.failures, 10), compactionPauseMax))
	s.failures++
}

// compactIn returns for how long no compaction is to begin.
func (s *diskState) compactIn() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures == 0 {
		return 0
	}
	return time.Until(s.compactAt)
}

func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// insist does what changes a file until there is room for it, or fails after a
// pause where the file is a table.
func (s *diskState) insist(name string, try func() error) error {
	do := func() error {
		defer s.operations.end(s.operations.begin(name))
		return try()
	}
	err := do()
	if !noRoom(err) {
		return s.must(name, err)
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	if isTable(name) {
		s.pause(tablePause)
		return err
	}
	for noRoom(err) && s.pause(roomRetry) {
		err = do()
	}
	if noRoom(err) {
		err = do() // the engine is being closed: a last time
	}
	return s.must(name, err)
}

// must does not return if a file has failed that Pebble cannot do without, and there is
// somebody to be told.
func (s *diskState) must(name string, err error) error {
	if err != nil && !isTable(name) && s.patient.Load() && s.fatal.tell != nil {
		s.fatal.stop(fmt.Errorf("pebblestore: the disk failed: %s: %w", name, err))
	}
	return err
}

func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }

// Create implements vfs.FS.
func (d *disk) Create(name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	if strings.Contains(string(category), "compaction") {
		d.pause(d.compactIn())
	}
	err = d.insist(name, func() error { f, err = d.FS.Create(name, category); return err })
	return d.wrap(f, name, err)
}

// ReuseForWrite implements vfs.FS.
func (d *disk) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = d.insist(name, func() error { f, err = d.FS.ReuseForWrite(old, name, category); return err })
	return d.wrap(f, name, err)
}

// Open implements vfs.FS.
func (d *disk) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	// A compaction opens what it reads in this way, and one that meets a rotten block
	// at once never comes to Create. So does a long scan, which can bear the pause.
	if isTable(name) && slices.Contains(opts, vfs.SequentialReadsOption) {
		d.pause(min(d.compactIn(), tablePause))
	}
	f, err := d.FS.Open(name, opts...)
	return d.wrap(f, name, err)
}

// OpenReadWrite implements vfs.FS.
func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (f vfs.File, err error) {
	err = d.insist(name, func() error { f, err = d.FS.OpenReadWrite(name, category, opts...); return err })
	return d.wrap(f, name, err)
}

// OpenDir implements vfs.FS.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	return d.wrap(f, name, err)
}

// Rename implements vfs.FS.
func (d *disk) Rename(old, name string) error {
	return d.insist(name, func() error { return d.FS.Rename(old, name) })
}

// Link implements vfs.FS.
func (d *disk) Link(old, name string) error {
	return d.insist(name, func() error { return d.FS.Link(old, name) })
}

// Unwrap implements vfs.FS.
func (d *disk) Unwrap() vfs.FS { return d.FS }

func (d *disk) wrap(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &diskFile{f, name, d.diskState}, nil
}

type diskFile struct {
	vfs.File
	name string
	disk *diskState
}

// Write implements vfs.File. What a full disk took of the bytes is not written again.
func (f *diskFile) Write(p []byte) (n int, err error) {
	err = f.disk.insist(f.name, func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	return n, err
}

// Preallocate implements vfs.File. It is a wish: a disk on which it finds no room may
// have some for what is written.
func (f *diskFile) Preallocate(offset, length int64) error {
	if err := f.File.Preallocate(offset, length); !noRoom(err) {
		return err
	}
	return nil
}

// ReadAt implements vfs.File.
func (f *diskFile) ReadAt(p []byte, off int64) (int, error) {
	defer f.disk.operations.end(f.disk.operations.begin(f.name))
	return f.File.ReadAt(p, off)
}

// Sync implements vfs.File.
func (f *diskFile) Sync() error {
	defer f.disk.operations.end(f.disk.operations.begin(f.name))
	return f.disk.must(f.name, f.File.Sync())
}

// SyncData implements vfs.File.
func (f *diskFile) SyncData() error {
	defer f.disk.operations.end(f.disk.operations.begin(f.name))
	return f.disk.must(f.name, f.File.SyncData())
}

// SyncTo implements vfs.File.
func (f *diskFile) SyncTo(length int64) (bool, error) {
	defer f.disk.operations.end(f.disk.operations.begin(f.name))
	return f.File.SyncTo(length)
}

// operations are those that the disk has not finished: up to as many as there are
// places, which is all that one needs to know to call a disk slow. A place costs two
// atomic operations, because every read of a block takes one.
type operations struct {
	next   atomic.Uint32
	places [64]struct {
		since atomic.Int64 // nanoseconds since processStart; 0: free
		name  atomic.Pointer[string]
	}
}

var processStart = time.Now()

func (o *operations) begin(name string) (place int) {
	i := int(o.next.Add(1)) % len(o.places)
	if !o.places[i].since.CompareAndSwap(0, int64(time.Since(processStart))+1) {
		return -1
	}
	o.places[i].name.Store(&name)
	return i
}

func (o *operations) end(place int) {
	if place >= 0 {
		o.places[place].since.Store(0)
	}
}

// oldest returns the operation that has been under way for longest, and for how long.
func (o *operations) oldest() (name string, took time.Duration) {
	now := int64(time.Since(processStart))
	for i := range o.places {
		since := o.places[i].since.Load()
		if p := o.places[i].name.Load(); since != 0 && p != nil && time.Duration(now-since) > took {
			name, took = *p, time.Duration(now-since)
		}
	}
	return name, took
}
