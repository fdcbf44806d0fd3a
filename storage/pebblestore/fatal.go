package pebblestore

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// fatal keeps what Pebble could not go on with.
type fatal struct {
	tell func(error) // nil: panic

	mu   sync.Mutex
	err  error
	done chan struct{} // closed when err is set
	open bool          // Open has returned: from now on somebody has to be told
}

func newFatal(opts Options) *fatal { return &fatal{tell: opts.OnFatal, done: make(chan struct{})} }

func (f *fatal) met() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// stop does not return: the state on disk is unknown.
func (f *fatal) stop(err error) {
	f.mu.Lock()
	first, open := f.err == nil, f.open
	if first {
		f.err = err
		close(f.done)
	}
	f.mu.Unlock()
	if open && f.tell == nil {
		panic(err)
	}
	if open && first {
		f.tell(err)
	}
	select {}
}

// opened reports whether nothing fatal was met while the database was opened.
func (f *fatal) opened() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open = f.err == nil
	return f.open
}

// openPebble opens the database. A file that cannot be read is an error that names it
// and what can be done, and so is what Pebble takes for fatal.
func openPebble(dir string, opts Options, d *disk, f *fatal) (*pebble.DB, error) {
	type result struct {
		db  *pebble.DB
		err error
	}
	results := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r = result{nil, fmt.Errorf("%v", p)}
			}
			results <- r
		}()
		r.db, r.err = pebble.Open(dir, opts.settings(d, f))
	}()
	var r result
	select {
	case r = <-results:
	case <-f.done:
		r.err = f.met()
	}
	if r.err != nil {
		return nil, explain(dir, r.err)
	}
	return r.db, nil
}

// ErrDamaged is wrapped by the error of Open for a database that lacks what it needs
// or holds bytes that fail their checksum.
var ErrDamaged = errors.New("a file of the store is damaged")

func explain(dir string, err error) error {
	switch text := err.Error(); {
	case errors.Is(err, fs.ErrPermission), strings.Contains(text, "lock"), strings.Contains(text, "in use"):
		return err
	case noRoom(err):
		return fmt.Errorf("the disk is full: free some space, then start again: %w", err)
	case pebble.IsCorruptionError(err), strings.Contains(text, "corrupt"), strings.Contains(text, "checksum"),
		strings.Contains(text, "unexpected EOF"), strings.Contains(text, "invalid"), strings.Contains(text, "does not exist"):
		return fmt.Errorf("%w: %w; keep a copy of %s and start with an empty data directory: the node is then filled from the other members. A node without others has to be restored", ErrDamaged, err, dir)
	}
	return err
}

// pebbleLogger forwards Pebble's log. What Pebble calls fatal must not return. An
// fsync of the log that failed is not among it: that error, and the same one for
// every later commit, is returned by wait.
type pebbleLogger struct {
	*slog.Logger
	fatal *fatal
}

func (l pebbleLogger) Infof(format string, args ...any) {
	l.Debug("pebble", "message", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.Error("pebble", "message", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("pebblestore: the disk failed: %s", fmt.Sprintf(format, args...))
	l.Error("the disk failed, this node stops", "error", err)
	l.fatal.stop(err)
}

// memTableBytes is the size of a memtable by that of the disk: memtables, the logs
// behind them and what is kept of logs for reuse take ten times as much, and a disk of
// 64 MiB has other things to hold.
func memTableBytes(disk vfs.FS, dir string) uint64 {
	const most, least, share = 32 << 20, 512 << 10, 64
	usage, err := disk.GetDiskUsage(dir)
	if err != nil || usage.TotalBytes == 0 {
		return most
	}
	return min(max(usage.TotalBytes/share, least), most)
}
