package storage

// Engine is the ordered key-value store below a Store. It knows nothing of
// entries, trees or shards. Keys and values passed to it are copied before a
// method returns.
type Engine interface {
	Reader
	// Snapshot returns a view of everything committed so far that no later
	// commit changes. The caller closes it.
	Snapshot() Reader
	// Lookup reads several rows as they are at one moment and calls visit for
	// each key in turn. It is for the old versions of what is being written: a
	// key that has no row should cost no read of the disk. The value belongs to
	// the engine and changes after visit returns; visit must not call the engine.
	Lookup(keys [][]byte, visit func(i int, value []byte, found bool)) error
	// NewBatch returns an empty batch.
	NewBatch() Batch
	// Commit applies a batch as a whole, visible to readers when it returns,
	// and takes the batch over. Commits survive a crash in their order: a
	// later one never without an earlier one. With sync, wait blocks until the
	// batch is durable; without, it survives a crash only by luck. wait must be
	// called exactly once.
	Commit(b Batch, sync bool) (wait func() error, err error)
	// NewLoad begins to take many rows at once. There may be several loads.
	NewLoad() (Load, error)
}

// Load takes rows in the order of their keys, into ranges where there are none.
type Load interface {
	// Set adds a row. Its key is greater than that of the row before.
	Set(key, value []byte) error
	// Commit makes all rows visible and durable at once, and everything durable
	// that was committed before. After an error nobody knows.
	Commit() error
	// Abort drops the rows, unless they are committed. It releases what the load
	// took, and must be called if Commit was not.
	Abort() error
}

// Reader reads rows in the order of their keys.
type Reader interface {
	// Get returns the value of a key. The caller owns it.
	Get(key []byte) (value []byte, found bool, err error)
	// Scan visits the rows in [lower, upper) until visit returns false. Key and
	// value belong to the engine and change after visit returns.
	Scan(lower, upper []byte, visit func(key, value []byte) (more bool)) error
	Close() error
}

// Batch collects changes that Commit applies together.
type Batch interface {
	Set(key, value []byte)
	Delete(key []byte)
	// DeleteRange deletes the rows in [lower, upper), those that the batch has
	// set before included.
	DeleteRange(lower, upper []byte)
}
