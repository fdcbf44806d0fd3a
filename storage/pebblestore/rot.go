package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"syntropy/storage"
)

// Corruption is bytes on disk that fail their checksum.
type Corruption struct {
	File string
	// Lower and Upper are the least and the greatest key of the file; any row
	// between them may be unreadable.
	Lower, Upper []byte
	Err          error
}

func corrupted(tell func(Corruption), info pebble.DataCorruptionInfo) {
	if tell != nil {
		tell(Corruption{info.Path, bytes.Clone(info.Bounds.Start), bytes.Clone(info.Bounds.End.Key), info.Details})
	}
}

// backgroundError logs what goes wrong behind everybody's back. The same thing goes
// wrong again and again until somebody does something, so it is not told each time.
func (s *diskState) backgroundError(log *slog.Logger) func(error) {
	const quiet = time.Minute
	var (
		mu   sync.Mutex
		last string
		told time.Time
	)
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		// The names of files differ each time.
		text := strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, err.Error())
		if text != last || time.Since(told) > quiet {
			last, told = text, time.Now()
			log.Error("storage background work failed; it is tried again", "error", err.Error())
		}
	}
}

// DiskState is what is known of the disk below an engine.
type DiskState struct {
	TotalBytes, FreeBytes uint64 // of the file system; free: for this process
	// Waiting is how many writes wait for room at this moment.
	Waiting int
	// SlowFor is for how long the disk has not finished an operation, and SlowFile
	// of which file; zero if that is not worth a word.
	SlowFor  time.Duration
	SlowFile string
}

// Disk returns the state of the disk. It touches no file.
func (e *Engine) Disk() (s DiskState, err error) {
	usage, err := e.disk.GetDiskUsage(e.dir)
	s.TotalBytes, s.FreeBytes = usage.TotalBytes, usage.AvailBytes
	s.Waiting = int(e.disk.waiting.Load())
	if name, took := e.disk.operations.oldest(); took > slowAfter {
		s.SlowFor, s.SlowFile = took, name
	}
	return s, err
}

var _ storage.Replacer = (*Engine)(nil)

// rotten marks errors that say that bytes fail their checksum.
func rotten(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", storage.ErrRot, err)
	}
	return err
}

// readableAround makes sure that the rows next to a range can be read. Pebble looks for
// them where it cuts a table in two, and takes an error for the end of the table: the
// rest of it would be gone.
func (e *Engine) readableAround(lower, upper []byte) (err error) {
	it, err := e.db.NewIter(nil)
	if err != nil {
		return rotten(err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	wider := storage.WiderError{}
	if !it.SeekGE(upper) && it.Error() != nil {
		wider.Above, wider.Err = true, rotten(it.Error())
	}
	if !it.SeekLT(lower) && it.Error() != nil {
		wider.Below, wider.Err = true, rotten(it.Error())
	}
	if wider.Err != nil {
		return &wider
	}
	return nil
}

// Replace implements storage.Replacer. The rows become a table, which takes the place
// of all that overlaps it without that being read.
func (e *Engine) Replace(lower, upper []byte, rows func(set func(key, value []byte) error) error) (err error) {
	if err := e.readableAround(lower, upper); err != nil {
		return err
	}
	path := e.disk.PathJoin(e.dir, "replacement.tmp")
	f, err := e.disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), e.opts.MakeWriterOptions(0, e.db.TableFormat()))
	count := 0
	err = rows(func(k, v []byte) error { count++; return w.Set(k, v) })
	if err = errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, e.disk.Remove(path))
	}
	span := pebble.KeyRange{Start: lower, End: upper}
	if count == 0 {
		return errors.Join(e.db.Excise(context.Background(), span), e.disk.Remove(path))
	}
	if _, err = e.db.IngestAndExcise(context.Background(), []string{path}, nil, nil, span); err != nil {
		return errors.Join(err, e.disk.Remove(path))
	}
	return nil
}
