package syntropy

import (
	"bytes"
	"context"
	"sync"
	"time"

	"syntropy/lww"
)

// Expire sets when a key goes away, in milliseconds and no finer; a time that has
// passed makes it go away at once. It returns false if there is no such key. It
// changes only the expiry: the value keeps the stamp of its write, so a newer write or
// delete wins, in whatever order the replicas learn of the two.
func (db *DB) Expire(ctx context.Context, key []byte, at time.Time) (bool, error) {
	return db.ExpireIf(ctx, key, at, func(time.Time) bool { return true })
}

// ExpireIf is Expire if allow says so, given when the key expires at present: the zero
// time if never. Reading and writing are two steps: of two calls at the same time both
// may find their condition true, and the later one stays. allow is called again when
// the key was written in between, and not after ExpireIf has returned; it must not
// call the DB.
func (db *DB) ExpireIf(ctx context.Context, key []byte, at time.Time, allow func(current time.Time) bool) (bool, error) {
	expires, err := millis(at)
	if err != nil {
		return false, err
	}
	return db.setExpiry(ctx, key, func(e lww.Entry) (int64, bool) {
		return expires, allow(expiryOf(e))
	})
}

// Persist lets a key stay for good. It returns false if there is no such key, or if
// it does not expire.
func (db *DB) Persist(ctx context.Context, key []byte) (bool, error) {
	return db.setExpiry(ctx, key, func(e lww.Entry) (int64, bool) { return 0, e.Expires != 0 })
}

// Expiry returns when a key goes away, and whether it does. The error wraps
// ErrNotFound if there is no such key; one that has expired is none.
func (db *DB) Expiry(ctx context.Context, key []byte) (at time.Time, expires bool, err error) {
	entries, err := db.readLive(ctx, [][]byte{key})
	if err != nil {
		return time.Time{}, false, err
	}
	if entries[0] == nil {
		return time.Time{}, false, notFound(key)
	}
	at = expiryOf(*entries[0])
	return at, !at.IsZero(), nil
}

func expiryOf(e lww.Entry) time.Time {
	if e.Expires == 0 {
		return time.Time{}
	}
	return time.UnixMilli(e.Expires)
}

// setExpiry decides on what it reads and writes what was decided, as often as a newer
// write comes in between.
func (db *DB) setExpiry(ctx context.Context, key []byte, decide func(lww.Entry) (int64, bool)) (bool, error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	key = bytes.Clone(key)
	var (
		mu      sync.Mutex
		gone    bool // the caller has returned: decide is not called any more
		changed bool
	)
	err := db.carryOut(ctx, func(ctx context.Context) (err error) {
		changed, err = db.core.node.SetExpiry(ctx, db.read, db.write, key, func(e lww.Entry) (int64, bool) {
			mu.Lock()
			defer mu.Unlock()
			if gone {
				return 0, false
			}
			return decide(e)
		})
		return err
	})
	mu.Lock()
	gone = true
	mu.Unlock()
	if err != nil {
		return false, err
	}
	return changed, nil
}
