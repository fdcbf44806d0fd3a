package resp

import (
	"bytes"
	"context"
	"hash/maphash"
)

// run gathers neighbouring commands of a pipeline that can share one call of the
// backend: SETs of different keys, with an expiry or without, into one Put, GETs into one MGet. It
// waits for nothing, it only joins what has already arrived, and it is finished
// before any other command is executed, so replies and effects keep their order.
//
// What cannot be joined (an option in error, a bad key) ends the run and is handled
// alone: an error must be that command's only.
type run struct {
	kind runKind
	args [][]byte // SET: key, value, key, value; GET: keys
	// expires of each key of a SET run.
	expires []int64
	bytes   int
	// keys are hashes of the keys of a SET run. Two keys with one hash end the
	// run early, which costs a call and changes nothing.
	keys map[uint64]struct{}
	seed maphash.Seed
	now  func() int64 // milliseconds since 1970
}

type runKind int

const (
	noRun runKind = iota
	setRun
	getRun
)

// join takes a command into the run, or says that it cannot.
func (r *run) join(args [][]byte) bool {
	switch {
	case len(args) == 3 && bytes.EqualFold(args[0], []byte("set")):
		return r.joinSet(args[1], args[2], 0)
	case len(args) == 5 && bytes.EqualFold(args[0], []byte("set")):
		options, problem := parseSetOptions(args[3:], r.now())
		return problem == "" && options.plain() && r.joinSet(args[1], args[2], options.expires)
	case len(args) == 2 && bytes.EqualFold(args[0], []byte("get")):
		return r.joinGet(args[1])
	}
	return false
}

func (r *run) joinSet(key, value []byte, expires int64) bool {
	size := len(key) + len(value)
	switch {
	case r.kind == getRun, checkPair(key, value) != nil:
		return false
	case r.kind == setRun && (len(r.args) >= 2*putRunPairsMax || r.bytes+size > putRunBytesMax):
		return false
	}
	if r.keys == nil {
		r.keys = make(map[uint64]struct{})
	}
	hash := maphash.Bytes(r.seed, key)
	if _, twice := r.keys[hash]; twice {
		return false
	}
	r.keys[hash] = struct{}{}
	r.kind = setRun
	r.args = append(r.args, key, value)
	r.expires = append(r.expires, expires)
	r.bytes += size
	return true
}

func (r *run) joinGet(key []byte) bool {
	if r.kind == setRun || checkKey(key) != nil || len(r.args) >= getRunKeysMax {
		return false
	}
	r.kind = getRun
	r.args = append(r.args, key)
	return true
}

// finish executes the run and writes one reply for each of its commands.
func (r *run) finish(ctx context.Context, c *conn) {
	if r.kind == noRun {
		return
	}
	switch r.kind {
	case setRun:
		c.ran("set", len(r.args)/2)
		ctx, cancel := c.deadline(ctx)
		defer cancel()
		err := c.backend.Put(ctx, clonePairs(r.args, r.expires))
		for range len(r.args) / 2 {
			if err != nil {
				c.w.backendError(err)
			} else {
				c.w.ok()
			}
		}
	case getRun:
		c.ran("get", len(r.args))
		c.getEach(ctx, r.args)
	}
	clear(r.args)
	clear(r.keys)
	r.kind, r.args, r.expires, r.bytes = noRun, r.args[:0], r.expires[:0], 0
}

// release gives memory back.
func (r *run) release() { r.args, r.expires, r.keys = nil, nil, nil }

// getEach writes the replies of one GET per key.
func (c *conn) getEach(ctx context.Context, keys [][]byte) {
	if len(keys) > 1 {
		values, err := c.mgetSome(ctx, keys)
		c.writeValues(ctx, keys, values, err)
		return
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	value, found, err := c.backend.Get(ctx, bytes.Clone(keys[0]))
	switch {
	case err != nil:
	case found:
		c.looked(1, 0)
	default:
		c.looked(0, 1)
	}
	c.value(value, found, err)
}
