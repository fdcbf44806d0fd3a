package antientropy

import (
	"encoding/binary"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Limits of what one message may hold. A longer list is refused before memory is
// taken for it.
const (
	// maxItems bounds each section of a request but the pushed entries, and the
	// section that answers it.
	maxItems = 4096
	// maxListed bounds the rows in a list, and the versions and sums under one
	// node.
	maxListed = 4096
	// maxPushed bounds the entries pushed in one message, and those sent for one
	// question. The smallest takes 18 bytes, so messages of DefaultMessageBytes
	// never come near.
	maxPushed = 1 << 17
	// maxSample bounds the bytes of a sample.
	maxSample = sampleNodes * merkle.MaxBits / sampleStep
)

// reader takes a message apart. The first fault is kept; everything read after
// it is zero.
type reader struct {
	codec
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = wireError(format, args...)
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

// flags reads a byte of which some bits have a meaning.
func (r *reader) flags(known byte) byte {
	b := r.byte()
	if b&^known != 0 {
		r.fail("a flag is unknown")
	}
	return b & known
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
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
		r.fail("a number is over %d", limit)
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
	return readN(r, r.uvarint(), limit, 1, element)
}

// readN reads n elements of at least size bytes each.
func readN[T any](r *reader, n uint64, limit, size int, element func(*reader) T) []T {
	if n > uint64(limit) {
		r.fail("a list has more than %d elements", limit)
	}
	if n > uint64(len(r.b)/size) {
		r.fail("a list is longer than its message")
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

func (r *reader) syndrome() (s merkle.Syndrome) {
	b := r.bytes(merkle.SyndromeBytes)
	if b == nil {
		return s
	}
	if s = merkle.SyndromeFrom(b); !s.Valid() || b[merkle.SyndromeBytes-1]>>4 != 0 {
		r.fail("a syndrome has a word that cannot be")
	}
	return s
}

func (r *reader) node() (n merkle.Node) {
	n = merkle.Node{Bits: r.byte(), Path: r.uvarint()}
	if !n.Valid() {
		r.fail("a node has a path that cannot be")
		return merkle.Node{}
	}
	return n
}

func (r *reader) shard() int { return r.int(ring.Slots - 1) }

func (r *reader) runs() (numbers []int) {
	numbers = []int{}
	next := 0
	for _, run := range readList(r, ring.Slots, func(r *reader) [2]int { return [2]int{r.shard(), r.int(ring.Slots)} }) {
		if next+run[0]+run[1] > ring.Slots {
			r.fail("a run of shards goes beyond the last one there can be")
			return nil
		}
		for i := range run[1] {
			numbers = append(numbers, next+run[0]+i)
		}
		next += run[0] + run[1]
	}
	return numbers
}

func (r *reader) open() (m openMessage) {
	m.protocol = r.byte()
	if m.protocol != protocolVersion && r.err == nil {
		return m // the rest may mean anything
	}
	m.digestVersions = r.bytes(r.uvarint())
	flags := r.flags(flagDryRun | flagOnly | flagSalt | flagTextbook | flagAsOf | flagOutline)
	m.dryRun, m.textbook, m.asOf = flags&flagDryRun != 0, flags&flagTextbook != 0, flags&flagAsOf != 0
	m.shards = r.int(ring.Slots)
	if flags&flagOnly != 0 {
		m.only = r.runs()
	}
	if flags&flagSalt != 0 {
		if m.salt = r.byte(); m.salt == 0 {
			r.fail("a salt is zero")
		}
	}
	m.moment = hlc.Stamp(r.uint64())
	ok := false
	if m.settled, ok = hlc.Join(m.moment.Micros()-unzigzag(r.uvarint()), 0); !ok {
		r.fail("a stamp cannot be")
	}
	m.expected = r.uvarint()
	if m.nameBits = int(r.byte()); m.nameBits > merkle.MaxBits || m.nameBits < nameBitsFor(0) {
		r.fail("names are longer than positions, or too short to be names")
	}
	m.count = r.uvarint()
	m.check = r.uint64()
	m.syndrome = r.syndrome()
	if flags&flagOutline != 0 {
		m.outline = r.bytes(outlineNodes)
	}
	r.end()
	return m
}

func (r *reader) differ() (m differMessage) {
	m.what = r.byte()
	m.check = r.uint64()
	switch m.what {
	case differNamed:
		m.named = readList(r, 2, func(r *reader) named { return r.named(merkle.Node{}, true) })
	case differLevel:
		m.count = r.uvarint()
		if m.bits = int(r.byte()); m.bits > merkle.MaxBits {
			r.fail("a level is below the last one")
		}
		m.level = r.level()
	case differPart:
		m.count = r.uvarint()
		if m.bits = int(r.byte()); m.bits > merkle.MaxBits {
			r.fail("a level is below the last one")
		}
		m.marked = r.uint64()
		m.rest = r.syndrome()
		m.level = r.level()
	case differSample:
		m.count = r.uvarint()
		if m.sample = r.bytes(uint64(len(r.b))); len(m.sample) > maxSample {
			r.fail("a sample has more than %d bytes", maxSample)
		}
	case differOnly:
		m.count = r.uvarint()
	default:
		r.fail("it is not known what it says")
	}
	r.end()
	return m
}

func (r *reader) level() []merkle.Syndrome {
	return readN(r, r.uvarint(), maxLevelNodes, merkle.SyndromeBytes, (*reader).syndrome)
}

func (r *reader) name(under merkle.Node) merkle.Node {
	rest := uint64(0)
	for range r.nameBytes(under) {
		rest = rest<<8 | uint64(r.byte())
	}
	bits := r.nameBits - int(under.Bits)
	if bits < 0 || rest>>bits != 0 {
		r.fail("a name is longer than agreed")
		return merkle.Node{}
	}
	return merkle.Node{Bits: uint8(r.nameBits), Path: under.Path<<bits | rest}
}

// entry reads an entry and its check.
func (r *reader) entry() lww.Entry {
	sum := r.uint32()
	e, rest, err := lww.DecodeEntry(r.b)
	if err != nil {
		r.fail("%v", err)
		return lww.Entry{}
	}
	r.b = rest
	if r.check(e) != sum {
		r.fail("an entry was changed on its way, or not hashed with this cluster's secret")
	}
	return e
}

// version reads what appendVersion wrote behind the state byte.
func (r *reader) version(state byte) (v lww.Version) {
	v.Tombstone = state&nameTombstone != 0
	v.Node = hlc.NodeID(r.int(1<<16 - 1))
	micros := r.moment.Micros() - unzigzag(r.uvarint())
	logical := uint16(0)
	if state&nameLogical != 0 {
		if logical = r.uint16(); logical == 0 {
			r.fail("a counter is zero")
		}
	}
	ok := false
	if v.Stamp, ok = hlc.Join(micros, logical); !ok || v.Stamp == 0 {
		r.fail("a stamp cannot be")
	}
	if state&nameExpiry != 0 {
		v.ExpiryStamp = hlc.Stamp(r.uint64())
		v.ExpiryNode = hlc.NodeID(r.int(1<<16 - 1))
		if v.Expires = int64(r.uvarint()); v.Expires < 0 || v.ExpiryStamp == 0 && v.ExpiryNode == 0 && v.Expires == 0 {
			r.fail("an expiry cannot be")
		}
	}
	return v
}

// stateFlags checks that a state byte without a version has no flags of one.
func (r *reader) stateFlags(state byte) {
	if state&^(nameState|nameLate) != 0 {
		r.fail("a state has flags of a version")
	}
}

func (r *reader) named(under merkle.Node, withName bool) (n named) {
	state := r.byte()
	n.state, n.late = state&nameState, state&nameLate != 0
	switch n.state {
	case nameVersion:
		n.version = r.version(state)
		n.key = r.uint32()
	case nameEntry:
		r.stateFlags(state)
		e := r.entry()
		n.entry = &e
		return n
	case nameFull:
		r.stateFlags(state)
		v := r.keyVersion()
		n.full = &v
		return n
	case nameAbsent, nameSeveral:
		r.stateFlags(state)
	default:
		r.fail("a state is unknown")
	}
	if withName {
		n.name = r.name(under)
	}
	return n
}

func (r *reader) keyVersion() (v keyVersion) {
	v.key = r.bytes(r.uvarint())
	flags := r.byte()
	if flags&nameState != 0 {
		r.fail("a version has a state")
	}
	v.late = flags&nameLate != 0
	v.version = r.version(flags)
	v.sum = r.sum()
	v.valueHash = r.uint64()
	v.valueBytes = r.int(lww.MaxValueBytes)
	if len(v.key) == 0 || len(v.key) > lww.MaxKeyBytes || v.version.Tombstone && v.valueBytes > 0 {
		r.fail("a version is not one")
	}
	return v
}

func (r *reader) request(kind byte) (m request) {
	sections := r.byte()
	m.finish = kind == kindFinish
	if sections&askLevel != 0 {
		if m.level = int(r.byte()); m.level == 0 || m.level > merkle.MaxBits+1 {
			r.fail("a level cannot be")
		}
	}
	if sections&askSplits != 0 {
		m.splits = readList(r, maxItems, (*reader).splitAsk)
	}
	if sections&askCompares != 0 {
		m.compares = readList(r, maxItems, func(r *reader) (a compareAsk) {
			a.node, a.bits = r.node(), int(r.byte())
			if a.bits < 1 || a.bits > 3 || int(a.node.Bits)+a.bits > merkle.MaxBits {
				r.fail("a node has no such children")
				return a
			}
			a.theirs = readN(r, 1<<a.bits, 1<<a.bits, merkle.SyndromeBytes, (*reader).syndrome)
			return a
		})
	}
	if sections&askLists != 0 {
		m.lists = readList(r, maxItems, (*reader).listAsk)
	}
	if sections&askProbes != 0 {
		at, first := uint64(0), true
		m.probes = readList(r, maxItems, func(r *reader) probeAsk {
			v := r.uvarint()
			if (at+v>>2)>>r.nameBits != 0 || !first && v>>2 == 0 {
				r.fail("the names of a request do not ascend")
			}
			at, first = at+v>>2, false
			return probeAsk{merkle.Node{Bits: uint8(r.nameBits), Path: at}, v&probeAbsent != 0, v&probeAgain != 0}
		})
	}
	if sections&askVersions != 0 {
		m.versions = readList(r, maxItems, func(r *reader) versionsAsk {
			return versionsAsk{r.node(), readList(r, maxListed, (*reader).uint64)}
		})
	}
	if sections&askFetches != 0 {
		m.fetches = readList(r, maxItems, (*reader).fetchAsk)
	}
	if sections&askPush != 0 {
		m.push = readList(r, maxPushed, (*reader).entry)
	}
	for i, has := range []bool{
		m.level > 0, len(m.splits) > 0, len(m.compares) > 0, len(m.lists) > 0,
		len(m.probes) > 0, len(m.versions) > 0, len(m.fetches) > 0, len(m.push) > 0,
	} {
		if has != (sections&(1<<i) != 0) {
			r.fail("a section is empty")
		}
	}
	r.end()
	return m
}

func (r *reader) splitAsk() (a splitAsk) {
	a.node = r.node()
	shape := r.byte()
	a.bits, a.all = int(shape&^splitAll), shape&splitAll != 0
	if a.bits < 1 || a.bits > 4 || int(a.node.Bits)+a.bits > merkle.MaxBits {
		r.fail("a node cannot be split like that")
	}
	return a
}

func (r *reader) listAsk() (a listAsk) {
	a.node = r.node()
	a.items = r.items(a.node)
	return a
}

// items reads the rows under a node, in order.
func (r *reader) items(under merkle.Node) []item {
	bits := r.nameBits - int(under.Bits)
	if bits < 0 {
		r.fail("names are too short for what is under node %q", under)
		return nil
	}
	at := under.Path << bits
	return readList(r, maxListed, func(r *reader) item {
		step := r.uvarint()
		if at += step; at>>bits != under.Path || step>>merkle.MaxBits != 0 {
			r.fail("the list of node %q is out of order", under)
		}
		return item{at, r.uint64()}
	})
}

func (r *reader) fetchAsk() (a fetchAsk) {
	a.node = r.node()
	flags := r.flags(fetchSums | fetchFirst | fetchSkip)
	a.first = flags&fetchFirst != 0
	if flags&fetchSkip != 0 {
		if a.skip = r.uvarint(); a.skip == 0 || a.skip > uint64(a.node.Last()-a.node.First()) {
			r.fail("a question begins outside of its node")
		}
	}
	if flags&fetchSums != 0 {
		if a.sums = readList(r, maxListed, (*reader).uint64); len(a.sums) == 0 {
			r.fail("a list of sums is empty")
		}
	}
	return a
}

// response reads the answer to q.
func (r *reader) response(q request) (m response) {
	flags := r.flags(responseFinished | responseRevealed)
	m.finished = flags&responseFinished != 0
	if flags&responseRevealed != 0 {
		m.revealed = r.uint64()
	}
	if q.level > 0 {
		m.level = r.level()
		if r.textbook {
			m.counts = readList(r, maxLevelNodes, (*reader).uvarint)
		}
	}
	if len(q.splits) > 0 {
		i := 0
		m.splits = readList(r, len(q.splits), func(r *reader) (a splitAnswer) {
			ask := q.splits[i]
			i++
			n := 1 << ask.bits
			if !ask.all {
				n--
			}
			a.syndromes = readN(r, uint64(n), n, merkle.SyndromeBytes, (*reader).syndrome)
			if r.textbook {
				a.counts = readN(r, uint64(n), n, 1, (*reader).uvarint)
			}
			return a
		})
	}
	if len(q.compares) > 0 {
		i := 0
		m.compares = readList(r, len(q.compares), func(r *reader) []childAnswer {
			ask := q.compares[i]
			i++
			children := make([]childAnswer, 1<<ask.bits)
			codes := r.bytes(uint64(len(children) / 2))
			for j := range children {
				if r.err == nil {
					children[j] = r.child(ask.node.Down(ask.bits, j), codes[j/2]>>(4*(j%2))&15)
				}
			}
			return children
		})
	}
	if len(q.lists) > 0 {
		i := 0
		m.lists = readList(r, len(q.lists), func(r *reader) childAnswer {
			node := q.lists[i].node
			i++
			return r.child(node, r.byte())
		})
	}
	if len(q.probes) > 0 {
		i := 0
		m.probes = readList(r, len(q.probes), func(r *reader) named {
			n := r.named(merkle.Node{}, false)
			n.name = q.probes[i].name
			i++
			return n
		})
	}
	if len(q.versions) > 0 {
		i := 0
		m.versions = readList(r, len(q.versions), func(r *reader) (a versionsAnswer) {
			excepted := uint64(len(q.versions[i].except))
			i++
			if a.tooMany = r.flags(1) != 0; !a.tooMany {
				a.held = r.bytes((excepted + 7) / 8)
				a.list = readList(r, maxListed, (*reader).keyVersion)
			}
			return a
		})
	}
	if len(q.fetches) > 0 {
		m.fetches = readList(r, len(q.fetches), func(r *reader) (a fetchAnswer) {
			a.next = r.uvarint()
			a.entries = readList(r, maxPushed, (*reader).entry)
			a.young = readList(r, maxPushed, (*reader).keyVersion)
			return a
		})
	}
	if len(q.push) > 0 {
		m.applied = r.int(maxPushed)
	}
	if m.finished {
		m.rowsRead, m.compared = r.uvarint(), r.uvarint()
	}
	r.end()
	return m
}

func (r *reader) child(n merkle.Node, code byte) (a childAnswer) {
	switch a.code = code; code {
	case childEqual, childMine, childYours, childSlow:
	case childNamed:
		a.named = readList(r, maxListed, func(r *reader) named { return r.named(n, true) })
	case childSplit:
		if int(n.Bits)+2 > merkle.MaxBits {
			r.fail("a single position has no children")
		}
		for i := range a.split {
			a.split[i] = r.syndrome()
		}
	case childList:
		a.items = r.items(n)
	default:
		r.fail("an answer has an unknown code")
	}
	return a
}

func (r *reader) refusal() (m refusal) {
	m.code = string(r.bytes(r.uvarint()))
	m.text = string(r.b)
	return m
}
