package antientropy_test

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// table is somebody's store: entries in the order of their positions, and the
// tree that a session needs beside them. (Two keys with one position, once in
// 2^60 pairs, are beyond it.)
type table struct {
	rows   []merkle.Row
	tree   *merkle.Tree
	tokens ring.Tokens
	hasher *merkle.Hasher
}

// apply is what a write does: the newer entry stays, and the digest of what
// changed is added to the tree.
func (t *table) apply(entries ...lww.Entry) {
	for _, e := range entries {
		row := merkle.Row{Position: t.Position(e.Key), Entry: e.Clone(), Sum: t.Sum(e)}
		change := merkle.DigestOf(row.Position, row.Sum)
		if i, found := t.find(row.Position); !found {
			t.rows = slices.Insert(t.rows, i, row)
		} else if old := t.rows[i]; lww.Compare(e, old.Entry) > 0 {
			t.rows[i], change = row, change.Minus(merkle.DigestOf(old.Position, old.Sum))
		} else {
			continue
		}
		t.tree.Adjust(row.Position, change)
	}
}

func (t *table) find(x ring.Position) (int, bool) {
	return slices.BinarySearchFunc(t.rows, x, func(r merkle.Row, x ring.Position) int { return cmp.Compare(r.Position, x) })
}

// A session reads a view of the table: a copy, since entries are applied to the
// table itself meanwhile. There is one shard, over all positions.
func (t *table) view() antientropy.View {
	return &table{slices.Clone(t.rows), t.tree.Snapshot(), t.tokens, t.hasher}
}
func (t *table) Shards() int                       { return 1 }
func (t *table) Root(int) merkle.Digest            { return t.tree.Root() }
func (t *table) Position(key []byte) ring.Position { return ring.At(0, t.tokens.Of(key), 1) }
func (t *table) Sum(e lww.Entry) merkle.Sum        { return t.hasher.Entry(e) }
func (t *table) Hash(b []byte) uint64              { return t.hasher.Bytes(b) }
func (t *table) Syndromes(n merkle.Node, bits int, dst []merkle.Syndrome) bool {
	return t.tree.Syndromes(n, bits, dst)
}
func (t *table) Rows(n merkle.Node, visit func(*merkle.Row) bool) error {
	for i, _ := t.find(n.First()); i < len(t.rows) && n.Contains(t.rows[i].Position) && visit(&t.rows[i]); i++ {
	}
	return nil
}

// Two sorted tables of 1,000 keys have drifted: one missed a write, the other a
// delete. What travels is the two entries, and some 150 bytes to find them.
func Example() {
	secret := [32]byte{1} // both sides' alike
	tables := make([]*table, 2)
	for i := range tables {
		// The tree has a leaf for every hundred keys or so.
		tree := merkle.NewTreeOf(merkle.Node{}, 0, 10)
		tables[i] = &table{nil, tree, ring.NewTokens(secret), merkle.NewHasher(secret)}
		for n := range 1000 {
			tables[i].apply(lww.Entry{Key: fmt.Append(nil, "key ", n), Value: []byte("old"), Version: lww.Version{Stamp: 1, Node: 1}})
		}
	}
	a, b := tables[0], tables[1]
	a.apply(lww.Entry{Key: []byte("key 1"), Value: []byte("new"), Version: lww.Version{Stamp: 2, Node: 1}})
	b.apply(lww.Entry{Key: []byte("key 2"), Version: lww.Version{Stamp: 3, Node: 2, Tombstone: true}})

	initiator := antientropy.NewInitiator(a.view(), antientropy.Config{
		Now:   hlc.Stamp(0).Add(time.Hour),
		Found: func(d antientropy.Difference) { fmt.Printf("%s: %v\n", d.Key, d.Action) },
	})
	responder := antientropy.NewResponder(func(hlc.Stamp) (antientropy.View, error) { return b.view(), nil })
	msg, err := initiator.Next() // goes to the partner
	for ; msg != nil && err == nil; msg, err = initiator.Next() {
		pushed, refused := responder.Receive(msg)
		b.apply(pushed...)
		pulled, _ := initiator.Receive(responder.Reply(refused)) // comes back
		a.apply(pulled...)
		initiator.Applied(nil)
	}
	r := initiator.Report()
	fmt.Printf("complete: %v, %d pushed, %d pulled, error: %v\n", r.Complete, r.Pushed, r.Pulled, err)
	fmt.Println("less than 160 bytes beside them:", r.BytesSent+r.BytesReceived-r.EntryBytes < 160)
	fmt.Println("equal:", a.tree.Root() == b.tree.Root())
	// Output:
	// key 2: pull
	// key 1: push
	// complete: true, 1 pushed, 1 pulled, error: <nil>
	// less than 160 bytes beside them: true
	// equal: true
}
