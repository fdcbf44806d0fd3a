package resp

import (
	"context"
	"errors"
	"time"

	"syntropy/lww"
	"syntropy/report"
)

// Backend is the store behind the protocol, as this package needs it.
//
// Ownership: the key and value slices given to a Backend are copies that it may
// keep for ever (a coordinator still sends to a late replica after it has
// answered) but must not modify. The slices of one call share an allocation, so
// who keeps one small slice for long should clone it. Slices returned by a
// Backend are only read, and only until the next call on the same connection.
//
// Keys are 1 to [KeyBytesMax] bytes and values at most [ValueBytesMax]: it was
// checked. Calls come from many goroutines at once, each with the deadline of
// RequestDeadline. An error that implements Code() string is sent to the client
// as "-CODE text", any other as "-ERR text".
type Backend interface {
	// Get returns the value of key; an empty value is found.
	Get(ctx context.Context, key []byte) (value []byte, found bool, err error)
	// MGet returns the values of the first of the keys, in order: of all of
	// them, or of fewer once these values hold MGetBytes, but of at least one.
	// It is asked for the others when these are written, so the values of a
	// long list are never all in memory. nil means missing, so a present but
	// empty value must not be nil.
	MGet(ctx context.Context, keys [][]byte) (values [][]byte, err error)
	// Put writes all pairs. Their keys are distinct. Each pair replaces the
	// whole entry: one without an expiry does not expire, whatever was there.
	Put(ctx context.Context, pairs []Pair) error
	// Delete removes keys, which are distinct, and says how many existed.
	Delete(ctx context.Context, keys [][]byte) (existed int, err error)
	// Exists counts the keys that exist; a key given twice counts twice.
	Exists(ctx context.Context, keys [][]byte) (int, error)
	// Expire sets when key expires, in milliseconds since 1970, at least 1; a
	// time that has passed makes the key go away at once. It changes nothing
	// and returns false when the key does not exist (an expired one does not)
	// or when cond, asked with [ExpireCondition.Allows] about the version
	// that was read, does not allow it. Reading and writing are two steps:
	// of two calls at the same time both may find their condition true, and
	// the later one stays. It never undoes a delete and never changes a value.
	Expire(ctx context.Context, key []byte, at int64, cond ExpireCondition) (done bool, err error)
	// Persist removes the expiry of key; false when there is no key or no
	// expiry. What is said of races at Expire holds for it too.
	Persist(ctx context.Context, key []byte) (done bool, err error)
	// ExpiryOf returns when key expires, in milliseconds since 1970; 0 means
	// that it does not. A key that has expired is not found.
	ExpiryOf(ctx context.Context, key []byte) (expires int64, found bool, err error)
	// Scan returns about count keys from cursor on, and the cursor to go on
	// from; both begin and end with 0.
	Scan(ctx context.Context, cursor uint64, count int) (next uint64, keys [][]byte, err error)
	// Stamp returns the version of key's value. A key that has expired is not
	// found.
	Stamp(ctx context.Context, key []byte) (version Version, found bool, err error)
	// Inspect asks every replica what it holds of key.
	Inspect(ctx context.Context, key []byte) (report.Inspection, error)
	// Layout says which nodes hold which slots. It asks nobody.
	Layout(ctx context.Context) (Layout, error)
	// Size is the number of keys, as DBSIZE reports it.
	Size(ctx context.Context) (int64, error)
	// Info returns the sections INFO adds to the server's own.
	Info(ctx context.Context) []InfoSection
	// At returns the same store, read and written at the given levels;
	// [ConsistencyDefault] stands for the level that the node is set to. It is
	// called on the Backend given to [New], once for each SYN.CONSISTENCY, and
	// holds nothing that must be closed.
	At(read, write Consistency) Backend
	// Consistency returns the levels in effect, the default ones resolved.
	Consistency() (read, write Consistency)
	// RequestDeadline is the time one command may take; 0 or less is no limit.
	RequestDeadline() time.Duration
}

// Pair is a key and what to write to it.
type Pair struct {
	Key, Value []byte
	// Expires is when the key goes away, in milliseconds since 1970. 0 is
	// never; a time that has passed writes a key that nobody will see.
	Expires int64
}

// InfoSection is one "# Name" section of INFO. Fields of a section the server
// has too (Server, Clients, Stats) are added to it.
type InfoSection struct {
	Name   string
	Fields [][2]string
}

// Sizes of what is stored. Keys travel in every tree leaf and digest exchange,
// so they are kept small; a value is one row and one peer message.
const (
	KeyBytesMax   = lww.MaxKeyBytes
	ValueBytesMax = lww.MaxValueBytes
)

// Limits of one command, checked on the declared lengths before any of it is
// buffered.
const (
	// CommandArgsMax is Redis' own limit.
	CommandArgsMax = 1 << 20
	// CommandBytesMax bounds a command on the wire, its headers included.
	CommandBytesMax = 64 << 20
	// bulkBytesMax leaves some slack over ValueBytesMax, so that a value a
	// little too long gets an ordinary error and keeps its connection.
	bulkBytesMax = ValueBytesMax + 64<<10
	// inlineBytesMax bounds a command typed as a line; Redis' own limit.
	inlineBytesMax = 64 << 10
)

// Limits of what neighbouring commands are joined into.
const (
	putRunPairsMax = 1024
	putRunBytesMax = 4 << 20
	getRunKeysMax  = mgetKeysMax
)

// Limits of one call of MGet.
const (
	// MGetBytes of values are enough for one call of [Backend.MGet]: with the
	// value that reaches it, a call brings less than MGetBytes + ValueBytesMax.
	MGetBytes = 4 << 20
	// mgetKeysMax bounds the keys of a call, and with that the time it takes.
	mgetKeysMax = 128
)

var (
	errKeyEmpty   = errors.New("the key is empty: a key has 1 to 65536 bytes")
	errKeyLong    = errors.New("the key is too long: a key has at most 65536 bytes")
	errValueLong  = errors.New("the value is too long: a value has at most 8388608 bytes (8 MiB)")
	errMGetAnswer = errors.New("internal error: the store answered another number of keys than it may")
)

func checkKey(key []byte) error {
	switch {
	case len(key) == 0:
		return errKeyEmpty
	case len(key) > KeyBytesMax:
		return errKeyLong
	}
	return nil
}

func checkKeys(keys [][]byte) error {
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return err
		}
	}
	return nil
}

func checkPair(key, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > ValueBytesMax {
		return errValueLong
	}
	return nil
}

// cloneAll copies slices into one allocation: they leave the connection's read
// buffer, which the next command overwrites.
func cloneAll(slices [][]byte) [][]byte {
	size := 0
	for _, s := range slices {
		size += len(s)
	}
	slab := make([]byte, 0, size)
	out := make([][]byte, len(slices))
	for i, s := range slices {
		n := len(slab)
		slab = append(slab, s...)
		out[i] = slab[n:len(slab):len(slab)]
	}
	return out
}

// clonePairs is cloneAll for keys and values that alternate. expires holds the
// expiry of each pair, or is nil when there is none.
func clonePairs(flat [][]byte, expires []int64) []Pair {
	owned := cloneAll(flat)
	pairs := make([]Pair, len(owned)/2)
	for i := range pairs {
		pairs[i] = Pair{Key: owned[2*i], Value: owned[2*i+1]}
		if expires != nil {
			pairs[i].Expires = expires[i]
		}
	}
	return pairs
}
