package antientropy

import (
	"encoding/binary"
	"errors"
	"fmt"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// A message is a kind byte and a body. Numbers are uvarints unless their size is
// given; a list is its length and its elements. docs/protocol.md draws them.
const (
	kindOpen     = 1
	kindEqual    = 2
	kindDiffer   = 3
	kindRequest  = 4
	kindResponse = 5
	kindRefusal  = 6
	kindFinish   = 7 // a request after which nothing is left to ask
)

// protocolVersion is refused by a partner that does not know it.
const protocolVersion = 3

// Flags of an open message.
const (
	flagDryRun   = 1 << 0
	flagOnly     = 1 << 1 // the session is about some shards
	flagSalt     = 1 << 2
	flagTextbook = 1 << 3
	flagAsOf     = 1 << 4 // the views show a moment, not the present
	flagOutline  = 1 << 5
)

// openMessage begins a session.
type openMessage struct {
	protocol         byte
	digestVersions   []byte // that the initiator can compare by
	dryRun, textbook bool
	shards           int   // of the cluster
	only             []int // ascending; nil: all of them
	salt             uint8
	moment           hlc.Stamp // to which stamps are told relatively
	asOf             bool      // the views show that moment, not the present
	settled          hlc.Stamp // entries written after it are not to travel
	expected         uint64    // keys that may differ; 0: unknown
	outline          []byte    // of outlineNodes bytes, or nil
	nameBits         int
	count            uint64
	check            uint64
	syndrome         merkle.Syndrome
}

// What a differ message holds beside the check.
const (
	differNamed  = 1 // the one or two keys that differ
	differLevel  = 2 // the digests of one level
	differSample = 3 // what to estimate the number of differences from
	differOnly   = 4 // nothing: the initiator asks for what it wants
	differPart   = 5 // the digests of a part of one level: where the outlines differ
)

// differMessage is the answer to an open message whose digest is not ours.
type differMessage struct {
	check  uint64 // less that of the rows that are named
	count  uint64 // rows in the scope
	what   byte
	named  []named
	bits   int
	level  []merkle.Syndrome
	sample []byte
	marked uint64          // differPart: which nodes of the outline differ
	rest   merkle.Syndrome // differPart: what is under the others
}

// request asks for what each of its sections says, and brings entries.
type request struct {
	level    int // one more than its bits; 0: none
	splits   []splitAsk
	compares []compareAsk
	lists    []listAsk
	probes   []probeAsk
	versions []versionsAsk
	fetches  []fetchAsk
	push     []lww.Entry
	finish   bool
}

// splitAsk asks for the syndromes of the nodes bits below a node: all of them,
// or all but the last, which follows from that of the node.
type splitAsk struct {
	node merkle.Node
	bits int
	all  bool
}

// compareAsk brings the syndromes of the nodes bits below a node, one to three, to
// be compared.
type compareAsk struct {
	node   merkle.Node
	bits   int
	theirs []merkle.Syndrome // of the initiator
}

// listAsk brings the rows under a node to be compared.
type listAsk struct {
	node  merkle.Node
	items []item
}

// item is a row in a list: no key, no value.
type item struct {
	name uint64 // path of the name
	f    uint64 // fingerprint
}

// probeAsk asks what is there under a name. absent says that the initiator has
// nothing there, so that the entry may come at once; again, that the entry is
// wanted of a name that has been dealt with before.
type probeAsk struct {
	name          merkle.Node
	absent, again bool
}

// versionsAsk asks for the versions of the rows under a node but those whose
// sums are given by their low halves.
type versionsAsk struct {
	node   merkle.Node
	except []uint64
}

// fetchAsk asks for entries under a node: those with the given sums, or all, from
// a position on.
type fetchAsk struct {
	node merkle.Node
	skip uint64 // positions from the node's first one
	sums []uint64
	// first says that the rows have not been named before, so that they count
	// among those revealed.
	first bool
}

// response answers a request, section by section. Each section may be cut short
// when the message is full: the rest is asked for again.
type response struct {
	level    []merkle.Syndrome
	counts   []uint64 // of a level, in a textbook session
	splits   []splitAnswer
	compares [][]childAnswer
	lists    []childAnswer
	probes   []named
	versions []versionsAnswer
	fetches  []fetchAnswer
	applied  int    // pushed entries
	revealed uint64 // low halves of the sums of the rows named or sent first here
	finished bool
	rowsRead uint64 // in the whole session, with finished
	compared uint64
}

type splitAnswer struct {
	syndromes []merkle.Syndrome
	counts    []uint64 // in a textbook session
}

// childAnswer is what a partner makes of one node whose digest or rows it was
// sent.
type childAnswer struct {
	code  byte
	named []named
	split [4]merkle.Syndrome
	items []item
}

// Codes of a childAnswer.
const (
	childEqual = 0
	childNamed = 1 // the keys that differ
	childSplit = 2 // more than can be named: the syndromes of its children
	childMine  = 3 // the partner alone has anything there
	childYours = 4 // the initiator alone has anything there
	childSlow  = 5 // names are too short for what is there
	childList  = 6 // few rows: all that the partner has
)

// named is what a partner has under a name that differs or may differ.
type named struct {
	name    merkle.Node
	state   byte
	late    bool
	version lww.Version // nameVersion
	key     uint32      // nameVersion: a hash of the key
	full    *keyVersion // nameFull
	entry   *lww.Entry  // nameEntry
	sum     uint32      // nameEntry: a check of the entry
}

// States of a named. The flags of a version share their byte.
const (
	nameAbsent  = 0
	nameVersion = 1 // one row, that both sides are thought to have
	nameEntry   = 2 // one row, that the initiator is thought to lack
	nameSeveral = 3 // several rows
	nameFull    = 4 // one row, that does not travel now: too young, too large, or in a dry run

	nameState     = 7
	nameTombstone = 1 << 3
	nameExpiry    = 1 << 4
	nameLogical   = 1 << 5
	nameLate      = 1 << 6
)

type versionsAnswer struct {
	tooMany bool
	held    []byte // a bit for each row that was excepted: it is here, too
	list    []keyVersion
}

// keyVersion is an entry without its value.
type keyVersion struct {
	key        []byte
	version    lww.Version
	sum        merkle.Sum
	late       bool
	valueHash  uint64
	valueBytes int // -1: not told
}

// fresh reports whether a row was not there at all at the moment that is compared.
// What is told under a name comes without a hash, and with its stamp alone.
func (v *keyVersion) fresh() bool { return v.late && v.sum == (merkle.Sum{}) && v.valueBytes >= 0 }

type fetchAnswer struct {
	entries []lww.Entry
	young   []keyVersion // too young or too late to travel; only of rows not named before
	next    uint64       // skip of the rest; 0: that was all
}

type refusal struct{ code, text string }

// ---- writing

func appendList[T any](dst []byte, list []T, element func([]byte, T) []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, e := range list {
		dst = element(dst, e)
	}
	return dst
}

func appendSyndrome(dst []byte, s merkle.Syndrome) []byte { return s.Append(dst) }

func appendNode(dst []byte, n merkle.Node) []byte {
	return binary.AppendUvarint(append(dst, n.Bits), n.Path)
}

func appendBytes[B ~[]byte | ~string](dst []byte, b B) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// codec knows what both sides of a session know from its first message, without
// which the messages after it cannot be read.
type codec struct {
	nameBits int
	moment   hlc.Stamp
	textbook bool
	// check returns the check of an entry that travels.
	check func(lww.Entry) uint32
}

// nameBytes is the length of a name under a node: the bits that the node does
// not say already.
func (c codec) nameBytes(under merkle.Node) int { return (c.nameBits - int(under.Bits) + 7) / 8 }

func (c codec) appendName(dst []byte, under, name merkle.Node) []byte {
	rest := name.Path & (1<<(name.Bits-under.Bits) - 1)
	for i := c.nameBytes(under) - 1; i >= 0; i-- {
		dst = append(dst, byte(rest>>(8*i)))
	}
	return dst
}

func (c codec) appendEntry(dst []byte, e lww.Entry) []byte {
	return lww.AppendEntry(binary.BigEndian.AppendUint32(dst, c.check(e)), e)
}

func zigzag(v int64) uint64 { return uint64(v<<1 ^ v>>63) }

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// appendVersion writes the state byte and the version behind it. The moment of
// the write is told relative to that of the views, in microseconds.
func (c codec) appendVersion(dst []byte, state byte, v lww.Version) []byte {
	if v.Tombstone {
		state |= nameTombstone
	}
	if v.ExpiryStamp != 0 || v.ExpiryNode != 0 || v.Expires != 0 {
		state |= nameExpiry
	}
	if v.Stamp.Logical() != 0 {
		state |= nameLogical
	}
	dst = append(dst, state)
	dst = binary.AppendUvarint(dst, uint64(v.Node))
	dst = binary.AppendUvarint(dst, zigzag(c.moment.Micros()-v.Stamp.Micros()))
	if state&nameLogical != 0 {
		dst = binary.BigEndian.AppendUint16(dst, v.Stamp.Logical())
	}
	if state&nameExpiry != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.ExpiryStamp))
		dst = binary.AppendUvarint(dst, uint64(v.ExpiryNode))
		dst = binary.AppendUvarint(dst, uint64(v.Expires))
	}
	return dst
}

// appendNamed writes what is under a name; withName says whether the name, too,
// or the reader knows it.
func (c codec) appendNamed(dst []byte, under merkle.Node, n named, withName bool) []byte {
	state := n.state
	if n.late {
		state |= nameLate
	}
	if n.state == nameVersion {
		dst = c.appendVersion(dst, state, n.version)
		dst = binary.BigEndian.AppendUint32(dst, n.key)
	} else {
		dst = append(dst, state)
	}
	switch n.state {
	case nameEntry:
		return lww.AppendEntry(binary.BigEndian.AppendUint32(dst, n.sum), *n.entry) // the key tells the name
	case nameFull:
		return c.appendKeyVersion(dst, *n.full)
	}
	if withName {
		dst = c.appendName(dst, under, n.name)
	}
	return dst
}

func (c codec) appendKeyVersion(dst []byte, v keyVersion) []byte {
	dst = appendBytes(dst, v.key)
	var flags byte
	if v.late {
		flags = nameLate
	}
	dst = c.appendVersion(dst, flags, v.version)
	dst = v.sum.Append(dst)
	dst = binary.BigEndian.AppendUint64(dst, v.valueHash)
	return binary.AppendUvarint(dst, uint64(v.valueBytes))
}

func (m openMessage) append(dst []byte) []byte {
	var flags byte
	for _, f := range []struct {
		set  bool
		flag byte
	}{{m.dryRun, flagDryRun}, {m.only != nil, flagOnly}, {m.salt != 0, flagSalt}, {m.textbook, flagTextbook}, {m.asOf, flagAsOf}, {m.outline != nil, flagOutline}} {
		if f.set {
			flags |= f.flag
		}
	}
	dst = append(dst, kindOpen, m.protocol)
	dst = appendBytes(dst, m.digestVersions)
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(m.shards))
	if m.only != nil {
		dst = appendRuns(dst, m.only)
	}
	if m.salt != 0 {
		dst = append(dst, m.salt)
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.moment))
	dst = binary.AppendUvarint(dst, zigzag(m.moment.Micros()-m.settled.Micros()))
	dst = binary.AppendUvarint(dst, m.expected)
	dst = append(dst, byte(m.nameBits))
	dst = binary.AppendUvarint(dst, m.count)
	dst = binary.BigEndian.AppendUint64(dst, m.check)
	return append(m.syndrome.Append(dst), m.outline...)
}

// appendRuns writes ascending numbers as runs: how many are left out, and how
// many follow each other.
func appendRuns(dst []byte, numbers []int) []byte {
	var runs [][2]int // gap, length
	next := 0
	for _, n := range numbers {
		if len(runs) > 0 && n == next {
			runs[len(runs)-1][1]++
		} else {
			runs = append(runs, [2]int{n - next, 1})
		}
		next = n + 1
	}
	return appendList(dst, runs, func(dst []byte, r [2]int) []byte {
		return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(r[0])), uint64(r[1]))
	})
}

func (c codec) appendDiffer(dst []byte, m differMessage) []byte {
	dst = append(dst, kindDiffer, m.what)
	dst = binary.BigEndian.AppendUint64(dst, m.check)
	switch m.what {
	case differNamed:
		return appendList(dst, m.named, func(dst []byte, n named) []byte {
			return c.appendNamed(dst, merkle.Node{}, n, true)
		})
	case differLevel:
		dst = binary.AppendUvarint(dst, m.count)
		return appendList(append(dst, byte(m.bits)), m.level, appendSyndrome)
	case differPart:
		dst = append(binary.AppendUvarint(dst, m.count), byte(m.bits))
		dst = m.rest.Append(binary.BigEndian.AppendUint64(dst, m.marked))
		return appendList(dst, m.level, appendSyndrome)
	case differSample:
		return append(binary.AppendUvarint(dst, m.count), m.sample...)
	}
	return binary.AppendUvarint(dst, m.count)
}

// Flags of a request.
const (
	askLevel = 1 << iota
	askSplits
	askCompares
	askLists
	askProbes
	askVersions
	askFetches
	askPush
)

// Flags within the sections.
const (
	probeAbsent = 1 << 0
	probeAgain  = 1 << 1
	splitAll    = 1 << 7
	fetchSums   = 1 << 0
	fetchFirst  = 1 << 1
	fetchSkip   = 1 << 2
)

func (c codec) appendRequest(dst []byte, m request) []byte {
	var sections byte
	for i, has := range []bool{
		m.level > 0, len(m.splits) > 0, len(m.compares) > 0, len(m.lists) > 0,
		len(m.probes) > 0, len(m.versions) > 0, len(m.fetches) > 0, len(m.push) > 0,
	} {
		if has {
			sections |= 1 << i
		}
	}
	kind := byte(kindRequest)
	if m.finish {
		kind = kindFinish
	}
	dst = append(dst, kind, sections)
	if m.level > 0 {
		dst = append(dst, byte(m.level))
	}
	if len(m.splits) > 0 {
		dst = appendList(dst, m.splits, func(dst []byte, a splitAsk) []byte {
			shape := byte(a.bits)
			if a.all {
				shape |= splitAll
			}
			return append(appendNode(dst, a.node), shape)
		})
	}
	if len(m.compares) > 0 {
		dst = appendList(dst, m.compares, func(dst []byte, a compareAsk) []byte {
			dst = append(appendNode(dst, a.node), byte(a.bits))
			for _, s := range a.theirs {
				dst = s.Append(dst)
			}
			return dst
		})
	}
	if len(m.lists) > 0 {
		dst = appendList(dst, m.lists, func(dst []byte, a listAsk) []byte {
			dst = appendNode(dst, a.node)
			return c.appendItems(dst, a.node, a.items)
		})
	}
	if len(m.probes) > 0 {
		// Ascending, so that a difference and two bits say it all.
		at := uint64(0)
		dst = appendList(dst, m.probes, func(dst []byte, a probeAsk) []byte {
			v := (a.name.Path - at) << 2
			at = a.name.Path
			if a.absent {
				v |= probeAbsent
			}
			if a.again {
				v |= probeAgain
			}
			return binary.AppendUvarint(dst, v)
		})
	}
	if len(m.versions) > 0 {
		dst = appendList(dst, m.versions, func(dst []byte, a versionsAsk) []byte {
			return appendList(appendNode(dst, a.node), a.except, binary.BigEndian.AppendUint64)
		})
	}
	if len(m.fetches) > 0 {
		dst = appendList(dst, m.fetches, func(dst []byte, a fetchAsk) []byte {
			var flags byte
			if len(a.sums) > 0 {
				flags |= fetchSums
			}
			if a.first {
				flags |= fetchFirst
			}
			if a.skip > 0 {
				flags |= fetchSkip
			}
			dst = append(appendNode(dst, a.node), flags)
			if a.skip > 0 {
				dst = binary.AppendUvarint(dst, a.skip)
			}
			if len(a.sums) > 0 {
				dst = appendList(dst, a.sums, binary.BigEndian.AppendUint64)
			}
			return dst
		})
	}
	if len(m.push) > 0 {
		dst = appendList(dst, m.push, c.appendEntry)
	}
	return dst
}

// Flags of a response. Its sections are those of the request.
const (
	responseFinished = 1 << 0
	responseRevealed = 1 << 1
)

func (c codec) appendResponse(dst []byte, q request, m response) []byte {
	var flags byte
	if m.finished {
		flags |= responseFinished
	}
	if m.revealed != 0 {
		flags |= responseRevealed
	}
	dst = append(dst, kindResponse, flags)
	if m.revealed != 0 {
		dst = binary.BigEndian.AppendUint64(dst, m.revealed)
	}
	if q.level > 0 {
		dst = appendList(dst, m.level, appendSyndrome)
		if c.textbook {
			dst = appendList(dst, m.counts, binary.AppendUvarint)
		}
	}
	if len(q.splits) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.splits)))
		for _, a := range m.splits {
			for _, s := range a.syndromes {
				dst = s.Append(dst)
			}
			for _, n := range a.counts {
				dst = binary.AppendUvarint(dst, n)
			}
		}
	}
	if len(q.compares) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.compares)))
		for i, children := range m.compares {
			for j := 0; j < len(children); j += 2 {
				dst = append(dst, children[j].code|children[j+1].code<<4)
			}
			for j, a := range children {
				dst = c.appendChild(dst, q.compares[i].node.Down(q.compares[i].bits, j), a)
			}
		}
	}
	if len(q.lists) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.lists)))
		for i, a := range m.lists {
			dst = c.appendChild(append(dst, a.code), q.lists[i].node, a)
		}
	}
	if len(q.probes) > 0 {
		dst = appendList(dst, m.probes, func(dst []byte, n named) []byte {
			return c.appendNamed(dst, n.name, n, false)
		})
	}
	if len(q.versions) > 0 {
		dst = appendList(dst, m.versions, func(dst []byte, a versionsAnswer) []byte {
			if a.tooMany {
				return append(dst, 1)
			}
			return appendList(append(append(dst, 0), a.held...), a.list, c.appendKeyVersion)
		})
	}
	if len(q.fetches) > 0 {
		dst = appendList(dst, m.fetches, func(dst []byte, a fetchAnswer) []byte {
			dst = appendList(binary.AppendUvarint(dst, a.next), a.entries, c.appendEntry)
			return appendList(dst, a.young, c.appendKeyVersion)
		})
	}
	if len(q.push) > 0 {
		dst = binary.AppendUvarint(dst, uint64(m.applied))
	}
	if m.finished {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, m.rowsRead), m.compared)
	}
	return dst
}

func (c codec) appendChild(dst []byte, n merkle.Node, a childAnswer) []byte {
	switch a.code {
	case childNamed:
		return appendList(dst, a.named, func(dst []byte, m named) []byte { return c.appendNamed(dst, n, m, true) })
	case childSplit:
		for _, s := range a.split {
			dst = s.Append(dst)
		}
	case childList:
		return c.appendItems(dst, n, a.items)
	}
	return dst
}

func (c codec) appendItems(dst []byte, under merkle.Node, items []item) []byte {
	at := under.Path << (c.nameBits - int(under.Bits))
	return appendList(dst, items, func(dst []byte, it item) []byte {
		dst = binary.AppendUvarint(dst, it.name-at)
		at = it.name
		return binary.BigEndian.AppendUint64(dst, it.f)
	})
}

func (m refusal) append(dst []byte) []byte {
	return append(appendBytes(append(dst, kindRefusal), m.code), m.text...)
}

var errWire = errors.New("malformed message")

func wireError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errWire, fmt.Sprintf(format, args...))
}
