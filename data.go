package syntropy

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/lww"
)

// Limits of what is stored.
const (
	MaxKeyBytes   = lww.MaxKeyBytes   // a key has 1 to 64 KiB
	MaxValueBytes = lww.MaxValueBytes // a value has 0 to 8 MiB
)

// Pair is a key with its value.
type Pair struct {
	Key, Value []byte
	// Expires is when the key goes away, in milliseconds and no finer; the zero time
	// is never. A time that has passed makes it go away at once.
	Expires time.Time
}

// Get returns the value of a key, which is the caller's; it is not nil. The error
// wraps ErrNotFound if there is no such key.
func (db *DB) Get(ctx context.Context, key []byte) ([]byte, error) {
	values, err := db.GetSome(ctx, key)
	if err != nil {
		return nil, err
	}
	if values[0] == nil {
		return nil, notFound(key)
	}
	return values[0], nil
}

// MultiGet returns the values of the keys, in their order; nil for one that does not
// exist, and not nil for an empty value. The slices are the caller's. Each replica is
// asked once for all of the keys, and again for the rest if the values are large.
// The versions are not of one moment.
func (db *DB) MultiGet(ctx context.Context, keys ...[]byte) ([][]byte, error) {
	values := make([][]byte, 0, len(keys))
	for len(values) < len(keys) {
		some, err := db.GetSome(ctx, keys[len(values):]...)
		if err != nil {
			return nil, err
		}
		values = append(values, some...)
	}
	return values, nil
}

// GetSome is MultiGet for a caller that must not hold all of the values at a time: it
// returns those of the first of the keys, as many as one answer of a replica holds
// (4 MiB, or one larger value) and at least one.
func (db *DB) GetSome(ctx context.Context, keys ...[]byte) ([][]byte, error) {
	entries, err := db.readLive(ctx, keys)
	if err != nil {
		return nil, err
	}
	values := make([][]byte, len(entries))
	for i, e := range entries {
		if e != nil {
			values[i] = append([]byte{}, e.Value...)
		}
	}
	return values, nil
}

// Stamp returns when, by the clocks of the cluster, the value of a key was written, and
// by which node: of two versions of a key the one with the greater stamp stays. Changing
// an expiry leaves it as it is. The error wraps ErrNotFound if there is no such key.
func (db *DB) Stamp(ctx context.Context, key []byte) (hlc.Stamp, hlc.NodeID, error) {
	entries, err := db.readLive(ctx, [][]byte{key})
	if err != nil {
		return 0, 0, err
	}
	if entries[0] == nil {
		return 0, 0, notFound(key)
	}
	return entries[0].Stamp, entries[0].Node, nil
}

// readLive returns the entries of the first of the keys, nil where there is none that
// is live.
func (db *DB) readLive(ctx context.Context, keys [][]byte) ([]*lww.Entry, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return nil, err
		}
	}
	// A replica that answers late may be asked for them still when this has returned.
	found, err := db.core.node.Read(ctx, db.read, cloneAll(keys))
	if err != nil {
		return nil, db.explain(ctx, reading, err)
	}
	now := db.Now()
	entries := make([]*lww.Entry, len(found))
	for i := range found {
		if found[i].OK && found[i].Entry.Live(now) {
			entries[i] = &found[i].Entry
		}
	}
	return entries, nil
}

// Put writes a value. It copies key and value. What was there is replaced, its expiry
// included. Without error, as many replicas as the level asks for hold it durably.
func (db *DB) Put(ctx context.Context, key, value []byte) error {
	return db.PutAll(ctx, Pair{Key: key, Value: value})
}

// PutAll writes several pairs, each with its expiry, and copies them. Each replica
// gets its pairs in one message. The pairs are not written together: after an error
// some may be written and others not, and readers may see some before others. Of two
// pairs with one key the last one counts.
func (db *DB) PutAll(ctx context.Context, pairs ...Pair) error {
	ms := make([]coordinator.Mutation, len(pairs))
	for i, p := range pairs {
		if err := checkPair(p); err != nil {
			return err
		}
		ms[i] = coordinator.Mutation{Kind: coordinator.Put, Key: bytes.Clone(p.Key), Value: bytes.Clone(p.Value)}
		if !p.Expires.IsZero() {
			at, err := millis(p.Expires)
			if err != nil {
				return err
			}
			ms[i].Expires = at
		}
	}
	return db.change(ctx, ms)
}

// Delete deletes keys, whether or not they exist, and copies them. What PutAll says
// of several pairs holds for several keys.
func (db *DB) Delete(ctx context.Context, keys ...[]byte) error {
	ms := make([]coordinator.Mutation, len(keys))
	for i, key := range cloneAll(keys) {
		if err := checkKey(key); err != nil {
			return err
		}
		ms[i] = coordinator.Mutation{Kind: coordinator.Delete, Key: key}
	}
	return db.change(ctx, ms)
}

func (db *DB) change(ctx context.Context, ms []coordinator.Mutation) error {
	if len(ms) == 0 {
		return nil
	}
	return db.carryOut(ctx, func(ctx context.Context) error {
		return db.core.node.Write(ctx, db.write, ms)
	})
}

// carryOut runs a write and returns when it is decided or ctx ends. A write that has
// begun is carried through in any case: half of it is on its way already.
func (db *DB) carryOut(ctx context.Context, write func(context.Context) error) error {
	if ctx.Err() != nil {
		return &Error{ErrUnavailable, fmt.Errorf("nothing was written: %w", context.Cause(ctx))}
	}
	if ctx.Done() == nil {
		return db.explain(ctx, writing, write(ctx))
	}
	if err := db.core.begin(); err != nil {
		return err
	}
	outcome := make(chan error, 1)
	go func() {
		defer db.core.requests.Done()
		outcome <- write(ctx)
	}()
	select {
	case err := <-outcome:
		return db.explain(ctx, writing, err)
	case <-ctx.Done():
		return &Error{ErrUnknownOutcome, fmt.Errorf("the caller stopped waiting (%w), so the outcome of the write is unknown: read the key to find out, or write it again", context.Cause(ctx))}
	}
}

func cloneAll(slices [][]byte) [][]byte {
	clones := make([][]byte, len(slices))
	for i, s := range slices {
		clones[i] = bytes.Clone(s)
	}
	return clones
}

func notFound(key []byte) error {
	return &Error{ErrNotFound, fmt.Errorf("key %.40q does not exist", key)}
}

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > MaxKeyBytes {
		return invalid("a key of %d bytes cannot exist: keys have 1 to %d", len(key), MaxKeyBytes)
	}
	return nil
}

func checkPair(p Pair) error {
	if len(p.Value) > MaxValueBytes {
		return invalid("the value of key %.40q has %d bytes: values have at most %d", p.Key, len(p.Value), MaxValueBytes)
	}
	return checkKey(p.Key)
}

var lastMoment = time.UnixMilli(math.MaxInt64)

// millis returns a moment as it is stored. Zero is "never" there, and a moment before
// 1970 has passed like any other of that age.
func millis(at time.Time) (int64, error) {
	if at.IsZero() {
		return 0, invalid("the zero time is no time to expire: use Persist for a key that is to stay")
	}
	if at.After(lastMoment) {
		return 0, invalid("%v is too far away to expire at: milliseconds since 1970 are stored in 64 bits", at)
	}
	return max(1, at.UnixMilli()), nil
}
