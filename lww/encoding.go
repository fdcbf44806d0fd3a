package lww

import (
	"encoding/binary"
	"errors"
	"fmt"

	"syntropy/hlc"
)

// An entry has one encoding of everything but its key, the *row*. It is what
// the store keeps under the key, what its digest is taken of, and, behind the
// length and bytes of the key, what travels between nodes:
//
//	row    flags 1 | stamp 8 | node 2 | [expiry stamp 8 | node 2 | expires 8] | value ...
//	entry  key length, uvarint | key | row length, uvarint | row
//
// Integers are big-endian. Flag 1: tombstone. Flag 2: the expiry fields are
// there. Any other flag is refused, so that a newer format is never misread.
const (
	flagTombstone = 1 << 0
	flagExpiry    = 1 << 1

	rowHead   = 1 + 8 + 2
	rowExpiry = 8 + 2 + 8
)

// ErrMalformed is wrapped by every error about bytes that are not an entry.
var ErrMalformed = errors.New("malformed entry")

// AppendRow appends e without its key.
func AppendRow(dst []byte, e Entry) []byte {
	var flags byte
	if e.Tombstone {
		flags |= flagTombstone
	}
	expiry := e.ExpiryStamp != 0 || e.ExpiryNode != 0 || e.Expires != 0
	if expiry {
		flags |= flagExpiry
	}
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.Stamp))
	dst = binary.BigEndian.AppendUint16(dst, uint16(e.Node))
	if expiry {
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.ExpiryStamp))
		dst = binary.BigEndian.AppendUint16(dst, uint16(e.ExpiryNode))
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.Expires))
	}
	return append(dst, e.Value...)
}

// DecodeRow reads a row into an entry with the given key. The entry's value
// points into row.
func DecodeRow(key, row []byte) (Entry, error) {
	e := Entry{Key: key}
	if len(row) < rowHead {
		return Entry{}, fmt.Errorf("%w: a row of %d bytes is shorter than its head", ErrMalformed, len(row))
	}
	flags := row[0]
	if flags&^(flagTombstone|flagExpiry) != 0 {
		return Entry{}, fmt.Errorf("%w: unknown flags %#x", ErrMalformed, flags)
	}
	e.Tombstone = flags&flagTombstone != 0
	e.Stamp = hlc.Stamp(binary.BigEndian.Uint64(row[1:]))
	e.Node = hlc.NodeID(binary.BigEndian.Uint16(row[9:]))
	row = row[rowHead:]
	if flags&flagExpiry != 0 {
		if len(row) < rowExpiry {
			return Entry{}, fmt.Errorf("%w: the expiry is cut short", ErrMalformed)
		}
		e.ExpiryStamp = hlc.Stamp(binary.BigEndian.Uint64(row))
		e.ExpiryNode = hlc.NodeID(binary.BigEndian.Uint16(row[8:]))
		e.Expires = int64(binary.BigEndian.Uint64(row[10:]))
		if e.ExpiryStamp == 0 && e.ExpiryNode == 0 && e.Expires == 0 {
			// AppendRow leaves such an expiry out; an entry with two encodings
			// would be equal to itself and differ in its bytes.
			return Entry{}, fmt.Errorf("%w: the expiry is empty", ErrMalformed)
		}
		row = row[rowExpiry:]
	}
	e.Value = row
	return e, e.Validate()
}

// AppendEntry appends e with its key.
func AppendEntry(dst []byte, e Entry) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(e.Key)))
	dst = append(dst, e.Key...)
	dst = binary.AppendUvarint(dst, uint64(rowLen(e)))
	return AppendRow(dst, e)
}

// EncodedLen returns the number of bytes that AppendEntry appends.
func EncodedLen(e Entry) int {
	row := rowLen(e)
	return uvarintLen(uint64(len(e.Key))) + len(e.Key) + uvarintLen(uint64(row)) + row
}

func rowLen(e Entry) int {
	n := rowHead + len(e.Value)
	if e.ExpiryStamp != 0 || e.ExpiryNode != 0 || e.Expires != 0 {
		n += rowExpiry
	}
	return n
}

func uvarintLen(n uint64) int {
	l := 1
	for ; n >= 1<<7; n >>= 7 {
		l++
	}
	return l
}

// DecodeEntry reads one entry from the front of b and returns what follows it.
// The entry's key and value point into b.
func DecodeEntry(b []byte) (e Entry, rest []byte, err error) {
	key, b, err := cutBytes(b, MaxKeyBytes)
	if err != nil {
		return Entry{}, nil, fmt.Errorf("%w: key: %v", ErrMalformed, err)
	}
	row, b, err := cutBytes(b, rowHead+rowExpiry+MaxValueBytes)
	if err != nil {
		return Entry{}, nil, fmt.Errorf("%w: row: %v", ErrMalformed, err)
	}
	e, err = DecodeRow(key, row)
	return e, b, err
}

func cutBytes(b []byte, limit uint64) (field, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 {
		return nil, nil, errors.New("its length is cut short")
	}
	if w != uvarintLen(n) {
		return nil, nil, errors.New("its length is padded")
	}
	if n > limit {
		return nil, nil, fmt.Errorf("%d bytes are over the limit of %d", n, limit)
	}
	if n > uint64(len(b)-w) {
		return nil, nil, fmt.Errorf("%d bytes announced, %d there", n, len(b)-w)
	}
	return b[w : w+int(n)], b[w+int(n):], nil
}

// Validate checks an entry against the limits of the package and for fields
// that contradict each other. Its errors wrap ErrMalformed.
func (e Entry) Validate() error {
	switch {
	case len(e.Key) == 0:
		return fmt.Errorf("%w: the key is empty", ErrMalformed)
	case len(e.Key) > MaxKeyBytes:
		return fmt.Errorf("%w: a key of %d bytes is over the limit of %d", ErrMalformed, len(e.Key), MaxKeyBytes)
	case len(e.Value) > MaxValueBytes:
		return fmt.Errorf("%w: a value of %d bytes is over the limit of %d", ErrMalformed, len(e.Value), MaxValueBytes)
	case e.Tombstone && len(e.Value) > 0:
		return fmt.Errorf("%w: a tombstone holds a value", ErrMalformed)
	case e.Stamp == 0:
		return fmt.Errorf("%w: it has no stamp", ErrMalformed)
	case e.Expires < 0:
		return fmt.Errorf("%w: it expires before 1970", ErrMalformed)
	}
	return nil
}
