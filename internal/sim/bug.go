package sim

import (
	"syntropy/antientropy"
	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
	"syntropy/storage/memstore"
)

// Bug is a mistake planted around the product, to show that the checks find it.
type Bug int

// Mistakes that real systems made.
const (
	NoBug Bug = iota
	// PhysicalDelete forgets a deleted key instead of keeping a tombstone.
	PhysicalDelete
	// BlindOverwrite takes what arrives without comparing versions.
	BlindOverwrite
	// ClockFromZero forgets the ceiling of the clock in a restart.
	ClockFromZero
	// DigestWithoutValue compares replicas by key, stamp, kind and expiry only.
	DigestWithoutValue
	// LeafForgetsDeletes does not persist the leaf of the tree for a delete, so
	// that the tree is stale after a crash.
	LeafForgetsDeletes
	// IgnoreApplyError calls a session complete though a batch was not applied.
	IgnoreApplyError
	// WrongDirection gives pulled entries to the partner, who has them.
	WrongDirection
	// AcceptOldHint replays hints, and takes them, however old they are.
	AcceptOldHint
	// CountOlderAttempt counts the answer to an earlier attempt at a write for
	// the present one.
	CountOlderAttempt
	// OKWhenShadowed takes a replica that holds something newer for one that
	// has applied the write.
	OKWhenShadowed
	// RepairWithOlder repairs a replica with the older version.
	RepairWithOlder
	// TouchRewrites sets an expiry by writing the value again.
	TouchRewrites

	bugs
)

// String names the bug.
func (b Bug) String() string {
	return [...]string{"none", "PhysicalDelete", "BlindOverwrite", "ClockFromZero", "DigestWithoutValue",
		"LeafForgetsDeletes", "IgnoreApplyError", "WrongDirection",
		"AcceptOldHint", "CountOlderAttempt", "OKWhenShadowed", "RepairWithOlder", "TouchRewrites"}[b]
}

// Bugs returns every bug there is.
func Bugs() (all []Bug) {
	for b := NoBug + 1; b < bugs; b++ {
		all = append(all, b)
	}
	return all
}

func (b Bug) floor(ceiling hlc.Stamp) hlc.Stamp {
	if b == ClockFromZero {
		return 0
	}
	return ceiling
}

func (b Bug) view(v *storage.Snapshot) antientropy.View {
	if b == DigestWithoutValue {
		return valueless{v}
	}
	return v
}

// moment is the moment that a session compares.
func (b Bug) moment(asOf hlc.Stamp) hlc.Stamp {
	if b == DigestWithoutValue {
		return hlc.Max
	}
	return asOf
}

func (b Bug) engine(e *memstore.Engine) storage.Engine {
	if b == LeafForgetsDeletes {
		return forgetful{e}
	}
	return e
}

// answers is what the coordinator is told of the answers to a send.
func (b Bug) answers(r *writing, s coordinator.Send, answers []coordinator.Answer) (coordinator.Send, []coordinator.Answer) {
	switch b {
	case CountOlderAttempt:
		for _, later := range r.sends {
			if later.To == s.To && later.Attempt > s.Attempt && len(later.Index) == len(s.Index) {
				s = later
			}
		}
	case OKWhenShadowed:
		for i := range answers {
			answers[i].Outcome = coordinator.Applied
		}
	}
	return s, answers
}

// touch is the mutation that changes an expiry.
func (b Bug) touch(m coordinator.Mutation) coordinator.Mutation {
	if b == TouchRewrites {
		return coordinator.Mutation{Kind: coordinator.Put, Key: m.Key, Value: m.Base.Value, Expires: m.Expires}
	}
	return m
}

// repair is what a read sends to a replica that it found behind.
func (b Bug) repair(to *node, entries []lww.Entry) []lww.Entry {
	if b != RepairWithOlder {
		return entries
	}
	var older []lww.Entry
	for _, e := range entries {
		if held, ok := to.held[string(e.Key)]; ok {
			older = append(older, held)
		}
	}
	return older
}

// overwrite puts an entry in place of whatever the node holds, by filling a new
// store with the rest: the real one would not do it.
func (n *node) overwrite(e lww.Entry) {
	rows := n.rows()
	old, found := rows[string(e.Key)]
	if !found || lww.Compare(e, old) >= 0 {
		n.apply([]lww.Entry{e})
		return
	}
	rows[string(e.Key)] = e
	ceiling, _, err := n.store.Meta(metaCeiling)
	if err != nil {
		n.fail("n%d cannot read its ceiling: %v", n.id, err)
		return
	}
	n.engine = memstore.New()
	n.store, err = storage.Open(n.engine, storage.Options{Shards: n.opts.Shards, Secret: secret})
	if err != nil {
		n.fail("n%d does not open: %v", n.id, err)
		return
	}
	if ceiling != nil {
		if err := n.store.PutMeta(metaCeiling, ceiling); err != nil {
			n.fail("n%d cannot write its ceiling: %v", n.id, err)
			return
		}
	}
	all := make([]lww.Entry, 0, len(rows))
	for _, e := range rows {
		all = append(all, e)
	}
	if _, err := n.store.Apply(all); err != nil {
		n.fail("n%d cannot apply: %v", n.id, err)
	}
	n.openHints() // the new engine has none
	n.log("n%d overwrites %s by %s", n.id, describe(old), describe(e))
}

// valueless is a view whose digests do not cover values. It shows the present.
type valueless struct{ *storage.Snapshot }

func (v valueless) Sum(e lww.Entry) merkle.Sum {
	e.Value = nil
	return v.Snapshot.Sum(e)
}

func (v valueless) Rows(n merkle.Node, visit func(*merkle.Row) bool) error {
	return v.Snapshot.Rows(n, func(r *merkle.Row) bool {
		row := *r
		row.Sum = v.Sum(r.Entry)
		return visit(&row)
	})
}

func (v valueless) Root(shard int) (d merkle.Digest) {
	root := merkle.Node{Bits: uint8(ring.ShardBits(v.Shards())), Path: uint64(shard)}
	err := v.Rows(root, func(r *merkle.Row) bool {
		d = d.Plus(merkle.DigestOf(r.Position, r.Sum))
		return true
	})
	if err != nil {
		panic(err) // a snapshot in memory can be read
	}
	return d
}

// Syndromes leaves it to the session to sum them from the rows.
func (v valueless) Syndromes(merkle.Node, int, []merkle.Syndrome) bool { return false }

// forgetful is an engine that leaves the trees out of a batch with a tombstone.
type forgetful struct{ *memstore.Engine }

func (f forgetful) NewBatch() storage.Batch { return &forgetfulBatch{Batch: f.Engine.NewBatch()} }

func (f forgetful) Commit(b storage.Batch, sync bool) (func() error, error) {
	return f.Engine.Commit(b.(*forgetfulBatch).Batch, sync)
}

type forgetfulBatch struct {
	storage.Batch
	deletes bool
}

// Set knows rows by the first byte of their key and a tombstone by the first
// bit of its row (storage, layout.go; lww, encoding.go).
func (b *forgetfulBatch) Set(key, value []byte) {
	switch {
	case key[0] == 'd' && value[0]&1 != 0:
		b.deletes = true
	case key[0] == 't' && b.deletes:
		value = make([]byte, 16) // a row of the tree log that changes nothing
	}
	b.Batch.Set(key, value)
}
