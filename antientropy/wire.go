package antientropy

import (
	"encoding/binary"
	"errors"
	"fmt"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// A message is a kind byte and a body. Numbers are uvarints unless their size is
// given; a list is its length and its elements. docs/protocol.md draws them.
const (
	kindOpen     = 1
	kindEqual    = 2
	kindRoots    = 3
	kindRequest  = 4
	kindResponse = 5
	kindFinish   = 6
	kindFinished = 7
	kindRefusal  = 8
)

// protocolVersion is refused by a partner that does not know it.
const protocolVersion = 1

// Flags of an open message.
const (
	flagDryRun = 1 << 0
	flagOnly   = 1 << 1
)

type openMessage struct {
	protocol, digestVersion byte
	dryRun                  bool
	shards                  int   // of the cluster
	only                    []int // ascending; nil: all of them
	digest                  merkle.Sum
}

// nodeRef names a node of one shard's tree.
type nodeRef struct {
	shard int
	node  merkle.Node
}

// tokenRef names the entries under one token: in a request for versions all but
// those with the given sums, in a pull just those. A sum here is the low half
// of an entry's digest.
type tokenRef struct {
	shard int
	token ring.Token
	sums  []uint64
}

type request struct {
	expand   []nodeRef
	list     []nodeRef
	versions []tokenRef
	pull     []tokenRef
	push     []lww.Entry
}

// response answers a request, section by section. Each section may be cut short
// when the message is full: the rest is asked for again.
type response struct {
	expanded [][merkle.Fanout]merkle.Digest
	listed   [][]item
	versions [][]keyVersion
	pulled   [][]lww.Entry
	applied  int // pushed entries
}

// item is an entry in a list: no key, no value.
type item struct {
	token ring.Token
	sum   uint64
}

// keyVersion is an entry without its value.
type keyVersion struct {
	key        []byte
	version    lww.Version
	sum        uint64
	valueHash  uint64
	valueBytes int
}

type refusal struct{ code, text string }

// ---- encoding

func appendList[T any](dst []byte, list []T, element func([]byte, T) []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, e := range list {
		dst = element(dst, e)
	}
	return dst
}

func (m openMessage) append(dst []byte) []byte {
	var flags byte
	if m.dryRun {
		flags |= flagDryRun
	}
	if m.only != nil {
		flags |= flagOnly
	}
	dst = append(dst, kindOpen, m.protocol, m.digestVersion, flags)
	dst = binary.AppendUvarint(dst, uint64(m.shards))
	if m.only != nil {
		dst = appendList(dst, m.only, func(dst []byte, s int) []byte { return binary.AppendUvarint(dst, uint64(s)) })
	}
	return m.digest.Append(dst)
}

// appendDigest spends one byte on an empty digest. The low bit of the count
// says whether a sum follows, so that even a tree that is wrong travels as is.
func appendDigest(dst []byte, d merkle.Digest) []byte {
	if d.Sum == (merkle.Sum{}) {
		return binary.AppendUvarint(dst, d.Count<<1)
	}
	dst = binary.AppendUvarint(dst, d.Count<<1|1)
	return d.Sum.Append(dst)
}

func appendRoots(dst []byte, roots []merkle.Digest) []byte {
	return appendList(append(dst, kindRoots), roots, appendDigest)
}

func appendNodeRef(dst []byte, n nodeRef) []byte {
	dst = binary.AppendUvarint(dst, uint64(n.shard))
	dst = append(dst, n.node.Level)
	return binary.AppendUvarint(dst, n.node.Path)
}

func appendTokenRef(dst []byte, t tokenRef) []byte {
	dst = binary.AppendUvarint(dst, uint64(t.shard))
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.token))
	return appendList(dst, t.sums, binary.BigEndian.AppendUint64)
}

func (m request) append(dst []byte) []byte {
	dst = append(dst, kindRequest)
	dst = appendList(dst, m.expand, appendNodeRef)
	dst = appendList(dst, m.list, appendNodeRef)
	dst = appendList(dst, m.versions, appendTokenRef)
	dst = appendList(dst, m.pull, appendTokenRef)
	return appendList(dst, m.push, lww.AppendEntry)
}

// appendChildren writes a bitmap of the children that hold anything, and those.
func appendChildren(dst []byte, c [merkle.Fanout]merkle.Digest) []byte {
	var there uint16
	for i, d := range c {
		if d != (merkle.Digest{}) {
			there |= 1 << i
		}
	}
	dst = binary.BigEndian.AppendUint16(dst, there)
	for _, d := range c {
		if d != (merkle.Digest{}) {
			dst = appendDigest(dst, d)
		}
	}
	return dst
}

func appendItem(dst []byte, it item) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(it.token))
	return binary.BigEndian.AppendUint64(dst, it.sum)
}

func appendKeyVersion(dst []byte, v keyVersion) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(v.key)))
	dst = append(dst, v.key...)
	row := lww.AppendRow(nil, lww.Entry{Version: v.version})
	dst = binary.AppendUvarint(dst, uint64(len(row)))
	dst = append(dst, row...)
	dst = binary.BigEndian.AppendUint64(dst, v.sum)
	dst = binary.BigEndian.AppendUint64(dst, v.valueHash)
	return binary.AppendUvarint(dst, uint64(v.valueBytes))
}

func (m response) append(dst []byte) []byte {
	dst = append(dst, kindResponse)
	dst = appendList(dst, m.expanded, appendChildren)
	dst = appendList(dst, m.listed, func(dst []byte, l []item) []byte { return appendList(dst, l, appendItem) })
	dst = appendList(dst, m.versions, func(dst []byte, l []keyVersion) []byte { return appendList(dst, l, appendKeyVersion) })
	dst = appendList(dst, m.pulled, func(dst []byte, l []lww.Entry) []byte { return appendList(dst, l, lww.AppendEntry) })
	return binary.AppendUvarint(dst, uint64(m.applied))
}

func (m refusal) append(dst []byte) []byte {
	dst = append(dst, kindRefusal)
	dst = binary.AppendUvarint(dst, uint64(len(m.code)))
	dst = append(dst, m.code...)
	return append(dst, m.text...)
}

// ---- decoding

var errWire = errors.New("malformed message")

// reader takes a message apart. The first fault is kept; everything read after
// it is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errWire, what)
	}
	r.b = nil
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail("it is cut short")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("a number is cut short")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int(limit int) int {
	v := r.uvarint()
	if v > uint64(limit) {
		r.fail(fmt.Sprintf("a number is over %d", limit))
		return 0
	}
	return int(v)
}

// end checks that the message was read to its end.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes are left over")
	}
	return r.err
}

// readList reads a list of at most limit elements, which take at least one byte
// each: a forged length claims no memory, and a long list of empty elements,
// which are much larger in memory than on the wire, is refused.
func readList[T any](r *reader, limit int, element func(*reader) T) []T {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail("a list is longer than its message")
	}
	if n > uint64(limit) {
		r.fail(fmt.Sprintf("a list has more than %d elements", limit))
	}
	if r.err != nil || n == 0 {
		return nil
	}
	list := make([]T, 0, min(n, 4096))
	for range n {
		e := element(r)
		if r.err != nil {
			return nil
		}
		list = append(list, e)
	}
	return list
}

func (r *reader) sum() merkle.Sum {
	if b := r.bytes(merkle.SumBytes); b != nil {
		return merkle.SumFrom(b)
	}
	return merkle.Sum{}
}

func (r *reader) digest() (d merkle.Digest) {
	v := r.uvarint()
	d.Count = v >> 1
	if v&1 != 0 {
		d.Sum = r.sum()
	}
	return d
}

func (r *reader) shard() int { return r.int(ring.Slots - 1) }

func (r *reader) token() ring.Token {
	t := ring.Token(r.uint64())
	if t > ring.MaxToken {
		r.fail("a token has more than 60 bits")
	}
	return t
}

func readOpen(r *reader) (m openMessage) {
	m.protocol = r.byte()
	if m.protocol != protocolVersion && r.err == nil {
		return m // the rest may mean anything
	}
	m.digestVersion = r.byte()
	flags := r.byte()
	if flags&^(flagDryRun|flagOnly) != 0 {
		r.fail("a flag is unknown")
	}
	m.dryRun = flags&flagDryRun != 0
	m.shards = r.int(ring.Slots)
	if flags&flagOnly != 0 {
		m.only = append([]int{}, readList(r, ring.Slots, (*reader).shard)...)
	}
	m.digest = r.sum()
	r.end()
	return m
}

func (r *reader) nodeRef() (n nodeRef) {
	n.shard = r.shard()
	n.node.Level = r.byte()
	n.node.Path = r.uvarint()
	if !n.node.Valid() {
		r.fail("a node has a level or path that cannot be")
	}
	return n
}

func (r *reader) tokenRef() (t tokenRef) {
	t.shard = r.shard()
	t.token = r.token()
	t.sums = readList(r, maxListed, (*reader).uint64)
	return t
}

func (r *reader) entry() lww.Entry {
	e, rest, err := lww.DecodeEntry(r.b)
	if err != nil {
		r.fail(err.Error())
		return lww.Entry{}
	}
	r.b = rest
	return e
}

func readRequest(r *reader) (m request) {
	m.expand = readList(r, maxItems, (*reader).nodeRef)
	m.list = readList(r, maxItems, (*reader).nodeRef)
	m.versions = readList(r, maxItems, (*reader).tokenRef)
	m.pull = readList(r, maxItems, (*reader).tokenRef)
	m.push = readList(r, maxPushed, (*reader).entry)
	r.end()
	return m
}

func (r *reader) children() (c [merkle.Fanout]merkle.Digest) {
	there := r.uint16()
	for i := range c {
		if there&(1<<i) != 0 {
			c[i] = r.digest()
		}
	}
	return c
}

func (r *reader) item() item { return item{r.token(), r.uint64()} }

func (r *reader) keyVersion() (v keyVersion) {
	v.key = r.bytes(r.uvarint())
	row := r.bytes(r.uvarint())
	v.sum = r.uint64()
	v.valueHash = r.uint64()
	v.valueBytes = r.int(lww.MaxValueBytes)
	if r.err != nil {
		return v
	}
	e, err := lww.DecodeRow(v.key, row)
	if err != nil || len(e.Value) > 0 {
		r.fail("a version is not one")
	}
	v.version = e.Version
	return v
}

func readResponse(r *reader) (m response) {
	m.expanded = readList(r, maxItems, (*reader).children)
	m.listed = readList(r, maxItems, func(r *reader) []item { return readList(r, maxListed, (*reader).item) })
	m.versions = readList(r, maxItems, func(r *reader) []keyVersion { return readList(r, maxListed, (*reader).keyVersion) })
	m.pulled = readList(r, maxItems, func(r *reader) []lww.Entry { return readList(r, maxListed, (*reader).entry) })
	m.applied = r.int(maxPushed)
	r.end()
	return m
}

func readRefusal(r *reader) (m refusal) {
	m.code = string(r.bytes(r.uvarint()))
	m.text = string(r.b)
	return m
}
