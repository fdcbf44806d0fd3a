package storage

import (
	"errors"
	"fmt"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// offer is an entry on its way into the store, with all that can be had before
// the lock is taken.
type offer struct {
	lww.Entry
	shard       int
	token       ring.Token
	sum         merkle.Sum
	check       uint64 // of the key, see versions
	rowKey, row []byte

	// met is what was there when the stripe of the key had seen so many writes.
	met  held
	seen uint64
	// below is the write before this one in the same stripe and group.
	below *offer
}

// held is the version of a key that an offer meets.
type held struct {
	found bool
	order int // of the offer to it, as lww.Compare has it
	lww.Version
	sum merkle.Sum
}

// Apply offers entries to the store. Each replaces the version that the store
// has if it is newer. All changes of one call are atomic, durable when Apply
// returns (unless Options.NoSync). The entries remain the caller's.
//
// Calls that come at the same time become one batch and share its fsync; one
// that comes alone waits for nobody.
//
// A malformed entry, or an old version that cannot be read, is an error before
// anything of this call happens; one that has rotted is replaced, and its place in
// quarantine from then on. Any other error means that nothing can be said of any of
// the entries; the store then refuses every further write, since memory and disk may
// differ until it is opened again.
func (s *Store) Apply(entries []lww.Entry) ([]Result, error) {
	offers, err := s.prepare(entries)
	if err != nil {
		return nil, err
	}
	if err := s.meet(offers); err != nil {
		return nil, err
	}
	return s.submit(offers)
}

// prepare checks entries and encodes their rows.
func (s *Store) prepare(entries []lww.Entry) ([]offer, error) {
	size := 0
	for _, e := range entries {
		if err := e.Validate(); err != nil {
			return nil, fmt.Errorf("storage: refusing entry %q: %w", e.Key, err)
		}
		size += dataHead + lww.EncodedLen(e)
	}
	offers, buf := make([]offer, len(entries)), make([]byte, 0, size)
	cut := func(from int) []byte { return buf[from:len(buf):len(buf)] }
	for i, e := range entries {
		o := &offers[i]
		o.Entry = e
		o.shard, o.token = s.Locate(e.Key)
		if s.versions != nil {
			o.check = s.hasher.Bytes(e.Key)
		}
		if !s.opts.WithoutTree {
			o.sum = s.hasher.Entry(e)
		}
		from := len(buf)
		buf = appendDataKey(buf, o.shard, o.token, e.Key)
		o.rowKey = cut(from)
		from = len(buf)
		buf = lww.AppendRow(buf, e)
		o.row = cut(from)
	}
	return offers, nil
}

// meet finds what the offers will meet. It is most of the work of a write, so it
// is done without the lock, by all callers side by side; commit notices if a
// version was replaced since.
func (s *Store) meet(offers []offer) error {
	var keys [][]byte
	var unknown []*offer
	for i := range offers {
		o := &offers[i]
		o.met, o.seen = held{}, s.stripe(o.token).writes.Load() // before reading
		if s.versions == nil || !s.versions.meet(o) {
			keys, unknown = append(keys, o.rowKey), append(unknown, o)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	var bad error
	err := s.engine.Lookup(keys, func(i int, row []byte, found bool) {
		if found {
			bad = errors.Join(bad, s.meetRow(unknown[i], row))
		}
	})
	switch {
	case errors.Is(err, ErrRot):
		return s.meetOneByOne(unknown)
	case err != nil:
		return fmt.Errorf("storage: reading old versions: %w", err)
	}
	return bad
}

// meetRow sets what an offer meets to the entry of a row.
func (s *Store) meetRow(o *offer, row []byte) error {
	old, err := lww.DecodeRow(o.Key, row)
	switch {
	case err == nil:
		o.met = held{found: true, order: lww.Compare(o.Entry, old), Version: old.Version}
		if !s.opts.WithoutTree {
			o.met.sum = s.hasher.Entry(old)
		}
	case !s.noteUnreadable(o.position(s), err):
		return fmt.Errorf("storage: the old version of %q: %w", o.Key, err)
	}
	return nil
}

// meetOneByOne is meet for offers of which some meet what cannot be read. What has
// rotted is lost here, as on a disk that was replaced, and the write is taken as
// there. Its leaf still counts the old row: it is in quarantine until it is healed.
func (s *Store) meetOneByOne(offers []*offer) error {
	for _, o := range offers {
		o.met = held{}
		row, found, err := s.engine.Get(o.rowKey)
		switch {
		case err == nil && found:
			if err := s.meetRow(o, row); err != nil {
				return err
			}
		case err != nil && !s.noteUnreadable(o.position(s), err):
			return fmt.Errorf("storage: reading the old version of %q: %w", o.Key, err)
		}
	}
	return nil
}

func (o *offer) position(s *Store) ring.Position { return ring.At(o.shard, o.token, s.opts.Shards) }

// commitFailed is for a batch of which nobody knows whether it was applied. The
// caller holds s.mu.
func (s *Store) commitFailed(err error) error {
	return s.failWith(fmt.Errorf("storage: a commit failed, the store takes no more writes: %w", err))
}

// fail is for a batch that was applied and may not survive.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failWith(fmt.Errorf("storage: a commit did not become durable, the store takes no more writes: %w", err))
}

// failWith keeps the first failure. The caller holds s.mu.
func (s *Store) failWith(err error) error {
	if s.failed == nil || errors.Is(s.failed, ErrClosed) {
		s.failed = err
		close(s.broken)
	}
	return s.failed
}
