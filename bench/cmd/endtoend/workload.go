package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"syntropy/lww"
)

// rowsMax is what the digits of a key count to, and more than disks hold.
const rowsMax = 1e12

// workload says which rows there are. Values are random bytes, which no
// compression makes smaller, and follow from the number of the row, so that
// whatever a node answers can be checked.
type workload struct {
	rows, stale int
	valueBytes  int
	seed        uint64
}

func (w workload) validate() error {
	switch {
	case w.rows < 1:
		return fmt.Errorf("-rows %d: there must be one at least", w.rows)
	case w.stale < 1 || w.stale > w.rows:
		return fmt.Errorf("-stale %d: some row must be stale, and no more than the %d that there are", w.stale, w.rows)
	case w.valueBytes < 16 || w.valueBytes > 1<<20:
		return fmt.Errorf("-value-bytes %d: give 16, so that values differ, to %d", w.valueBytes, 1<<20)
	}
	return nil
}

// staleRow returns the number of the i-th row that is overwritten: they are
// spread evenly over the numbers, and by the hash of keys over the trees.
func (w workload) staleRow(i int) int { return int(int64(i) * int64(w.rows) / int64(w.stale)) }

// keyBytes is the length of every key.
const keyBytes = 20

func key(row int) []byte { return fmt.Appendf(make([]byte, 0, keyBytes), "user:%015d", row) }

// value appends what a row holds in a version: 0 is the load, 1 overwrites.
func (w workload) value(dst []byte, row, version int) []byte {
	random := rand.NewPCG(w.seed<<1|uint64(version), uint64(row))
	end := len(dst) + w.valueBytes
	for len(dst) < end {
		dst = binary.LittleEndian.AppendUint64(dst, random.Uint64())
	}
	return dst[:end]
}

// entryBytes is what a row takes as nodes send it to each other.
func (w workload) entryBytes() int {
	return lww.EncodedLen(lww.Entry{Key: key(0), Value: make([]byte, w.valueBytes)})
}

// retriesMax is how often a batch is written again when its outcome is unknown.
// Writing the same again does no harm.
const retriesMax = 5

// write sets rows, numbered by of(0) to of(n-1), over several connections.
// level is what SYN.CONSISTENCY is told.
func (o options) write(ctx context.Context, addr, level string, n int, of func(i int) int, version int, progress func(done int)) (retried int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, done, again atomic.Int64
	var all sync.WaitGroup
	for range o.connections {
		all.Go(func() {
			c, err := dial(ctx, addr)
			if err == nil {
				defer c.close()
				_, err = c.do("SYN.CONSISTENCY", "WRITE", level)
			}
			for err == nil {
				from := int(next.Add(int64(o.pipeline))) - o.pipeline
				if from >= n {
					return
				}
				to := min(from+o.pipeline, n)
				var tries int
				tries, err = o.writeBatch(c, from, to, of, version)
				again.Add(int64(tries))
				progress(int(done.Add(int64(to - from))))
			}
			cancel(err)
		})
	}
	all.Wait()
	return int(again.Load()), context.Cause(ctx)
}

func (o options) writeBatch(c *client, from, to int, of func(i int) int, version int) (retried int, err error) {
	var value []byte
	for ; ; retried++ {
		for i := from; i < to; i++ {
			value = o.w.value(value[:0], of(i), version)
			c.send([]byte("SET"), key(of(i)), value)
		}
		refused, err := c.receiveOKs(to - from)
		if err != nil || refused == "" {
			return retried, err
		}
		if retried == retriesMax {
			return retried, fmt.Errorf("writing rows %d to %d: %s", of(from), of(to-1), refused)
		}
	}
}

// count reads rows, numbered by of(0) to of(n-1), and returns how many of them
// have the given version.
func (o options) count(ctx context.Context, addr string, n int, of func(i int) int, version int) (good int, err error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if _, err := c.do("SYN.CONSISTENCY", "READ", "ONE"); err != nil {
		return 0, err
	}
	var want []byte
	for from := 0; from < n; from += o.pipeline {
		to := min(from+o.pipeline, n)
		for i := from; i < to; i++ {
			c.send([]byte("GET"), key(of(i)))
		}
		for i := from; i < to; i++ {
			got, err := c.receive()
			if err != nil {
				return good, fmt.Errorf("reading row %d: %w", of(i), err)
			}
			if want = o.w.value(want[:0], of(i), version); bytes.Equal(got, want) {
				good++
			}
		}
	}
	return good, nil
}
