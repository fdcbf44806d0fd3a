package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/mst"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	cbor "github.com/ipfs/go-ipld-cbor"
	"github.com/multiformats/go-multihash"

	"syntropy/internal/reconcile"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// MST compares Merkle search trees, those of the AT protocol as indigo has them:
// the initiator fetches the partner's nodes that it does not hold itself, level
// by level, and then lets the library take the difference of the two trees.
type MST struct{}

func (MST) Name() string { return "mst" }

func (MST) Limit(w reconcile.Workload) string {
	if w.Keys > 1e5 {
		return "its tree is built key by key and takes 160 bytes of each: at most 1e5 keys"
	}
	return ""
}

// blockMap is a block store in memory, with another below it.
type blockMap struct {
	blocks map[cid.Cid]blocks.Block
	below  *blockMap
}

func newBlockMap(below *blockMap) *blockMap {
	return &blockMap{make(map[cid.Cid]blocks.Block), below}
}

func (m *blockMap) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	for ; m != nil; m = m.below {
		if b, ok := m.blocks[c]; ok {
			return b, nil
		}
	}
	return nil, fmt.Errorf("there is no block %v", c)
}

func (m *blockMap) Put(_ context.Context, b blocks.Block) error {
	m.blocks[b.Cid()] = b
	return nil
}

func (m *blockMap) has(c cid.Cid) bool {
	_, err := m.Get(context.Background(), c)
	return err == nil
}

func (m *blockMap) store() *cbor.BasicIpldStore {
	s := cbor.NewCborStore(m)
	s.DefaultMultihash = multihash.SHA2_256
	return s
}

type mstSide struct {
	rows  *reconcile.Replica
	nodes *blockMap
	root  cid.Cid
}

// mstCollection makes a position a key: they are of the form collection/name.
const mstCollection = "k/"

func mstKey(x ring.Position) string { return mstCollection + x.String() }

func mstPosition(key string) (ring.Position, error) {
	x, err := strconv.ParseUint(strings.TrimPrefix(key, mstCollection), 16, ring.PositionBits)
	return ring.Position(x), err
}

func (MST) Build(rows *reconcile.Replica) (Side, error) {
	ctx := context.Background()
	s := &mstSide{rows: rows, nodes: newBlockMap(nil)}
	tree := mst.NewEmptyMST(s.nodes.store())
	var err error
	rows.Rows(0, ring.MaxPosition, func(x ring.Position, _ lww.Entry, sum merkle.Sum) bool {
		var value cid.Cid
		if value, err = mstValue(sum); err == nil {
			tree, err = tree.Add(ctx, mstKey(x), value, -1)
		}
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	if s.root, err = tree.GetPointer(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// mstValue makes a row's hash a content id, as that of a record would be.
func mstValue(sum merkle.Sum) (cid.Cid, error) {
	var digest [32]byte
	sum.Append(digest[:0])
	mh, err := multihash.Encode(digest[:], multihash.SHA2_256)
	return cid.NewCidV1(cid.DagCBOR, mh), err
}

func (s *mstSide) Initiate() Initiator {
	return initiate(s.rows, &mstFinder{mstSide: s, fetched: newBlockMap(s.nodes)})
}

func (s *mstSide) Answer() Party { return answer(s.rows, mstAnswerer{s}) }

// What the initiator asks for, in the first byte.
const (
	mstRoot  = iota // the id of the root
	mstNodes        // the nodes with some ids
)

type mstAnswerer struct{ *mstSide }

func (a mstAnswerer) compared() int { return 0 } // the library does not say

func (a mstAnswerer) answer(in, out []byte) ([]byte, error) {
	if len(in) == 0 {
		return nil, errCutShort
	}
	op, in := in[0], in[1:]
	if op == mstRoot {
		return append(out, a.root.Bytes()...), nil
	}
	for len(in) > 0 {
		n, c, err := cid.CidFromBytes(in)
		if err != nil {
			return nil, err
		}
		in = in[n:]
		block, err := a.nodes.Get(context.Background(), c)
		if err != nil {
			return nil, err
		}
		out = binary.AppendUvarint(out, uint64(len(block.RawData())))
		out = append(out, block.RawData()...)
	}
	return out, nil
}

type mstFinder struct {
	*mstSide
	started bool
	theirs  cid.Cid
	fetched *blockMap
	asked   []cid.Cid
	v       verdict
}

func (f *mstFinder) compared() int { return 0 }

func (f *mstFinder) found() (named, ask []ring.Position) {
	return append(f.v.onlyUs, f.v.onlyYou...), f.v.stale
}

func (f *mstFinder) find(in, out []byte) (_ []byte, err error) {
	if !f.started {
		f.started = true
		return append(out, mstRoot), nil
	}
	var lacking []cid.Cid
	if f.asked == nil {
		if f.theirs, err = cid.Cast(in); err != nil {
			return nil, err
		}
		if f.theirs.Equals(f.root) {
			return nil, nil
		}
		lacking = append(lacking, f.theirs)
	}
	for _, c := range f.asked {
		n, w := binary.Uvarint(in)
		if w <= 0 || n > uint64(len(in)-w) {
			return nil, errCutShort
		}
		raw := bytes.Clone(in[w : w+int(n)])
		in = in[w+int(n):]
		block, err := blocks.NewBlockWithCid(raw, c)
		if err != nil {
			return nil, err
		}
		if err := f.fetched.Put(context.Background(), block); err != nil {
			return nil, err
		}
		var node mst.NodeData
		if err := node.UnmarshalCBOR(bytes.NewReader(raw)); err != nil {
			return nil, err
		}
		if node.Left != nil {
			lacking = append(lacking, *node.Left)
		}
		for _, e := range node.Entries {
			if e.Tree != nil {
				lacking = append(lacking, *e.Tree)
			}
		}
	}
	f.asked = []cid.Cid{}
	out = append(out, mstNodes)
	for _, c := range lacking {
		if !f.fetched.has(c) {
			f.asked = append(f.asked, c)
			out = append(out, c.Bytes()...)
		}
	}
	if len(f.asked) > 0 {
		return out, nil
	}
	return nil, f.diff()
}

func (f *mstFinder) diff() error {
	ops, err := mst.DiffTrees(context.Background(), f.fetched, f.root, f.theirs)
	if err != nil {
		return err
	}
	// A key that has moved to another node of the tree comes up as taken out and
	// put in again.
	type change struct{ out, in cid.Cid }
	changes := make(map[string]change)
	for _, op := range ops {
		c := changes[op.Rpath]
		if op.OldCid.Defined() {
			c.out = op.OldCid
		}
		if op.NewCid.Defined() {
			c.in = op.NewCid
		}
		changes[op.Rpath] = c
	}
	for key, c := range changes {
		x, err := mstPosition(key)
		switch {
		case err != nil:
			return err
		case !c.in.Defined():
			f.v.onlyUs = append(f.v.onlyUs, x)
		case !c.out.Defined():
			f.v.onlyYou = append(f.v.onlyYou, x)
		case c.in != c.out:
			f.v.stale = append(f.v.stale, x)
		}
	}
	return nil
}
