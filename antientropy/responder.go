package antientropy

import (
	"errors"
	"fmt"
	"math/bits"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// DefaultMessageBytes is the size at which a message is full: large enough that
// a round trip carries thousands of nodes, small enough to hold a few of them
// for every session.
const DefaultMessageBytes = 1 << 20

// listRows is the number of rows under a differing node up to which they are
// listed rather than split further. A row in a list takes some 14 bytes; to tell
// three or more of them apart by syndromes takes 31 bytes for each of four
// children, and another round.
const listRows = 16

// Responder is the partner's side of a session: it answers questions and knows
// nothing of what was asked before. It is not safe for concurrent use.
type Responder struct {
	view         func(asOf hlc.Stamp) (View, error)
	messageBytes int
	scope        *scope
	codec        codec
	dryRun       bool
	settled      hlc.Stamp
	done         bool
	complete     bool
	finishing    bool
	// What Receive leaves for Reply.
	message []byte
	request request
	answer  *response
}

// NewResponder returns the side that answers. view is called once, when the
// first message tells the moment that both sides' views are to show, hlc.Max
// being the present.
func NewResponder(view func(asOf hlc.Stamp) (View, error)) *Responder {
	return &Responder{view: view, messageBytes: DefaultMessageBytes}
}

// Receive takes a message of the initiator. The caller applies the returned
// entries, durably, and then calls Reply, in any case exactly once. The entries
// point into msg.
//
// A message that is malformed or out of turn, or a view that cannot be read, is
// answered with a refusal: Reply says so to the initiator, Done becomes true,
// and the error is returned for this side's log.
func (r *Responder) Receive(msg []byte) (apply []lww.Entry, err error) {
	r.message, r.answer, r.finishing = nil, nil, false
	apply, err = r.receive(msg)
	if err != nil {
		code := "failed"
		if errors.Is(err, errVersion) {
			code = CodeVersion
		}
		r.refuse(code, err.Error())
		return nil, err
	}
	return apply, nil
}

func (r *Responder) refuse(code, text string) {
	r.done, r.complete = true, false
	if r.scope != nil {
		r.scope.cache.release()
	}
	r.answer = nil
	r.message = refusal{code, text}.append(nil)
}

// Reply returns the answer to the last message. applied is what became of the
// entries that Receive returned: if they are not all durable, the session ends
// incomplete.
func (r *Responder) Reply(applied error) []byte {
	// Whoever passes on the error of Receive must not hide the reason.
	refused := len(r.message) > 0 && r.message[0] == kindRefusal
	if applied != nil && !refused {
		r.refuse("apply", "the partner could not apply entries: "+applied.Error())
	}
	if r.answer != nil {
		if r.finishing {
			r.done, r.complete = true, !r.dryRun
			r.scope.cache.release()
		}
		return r.codec.appendResponse(nil, r.request, *r.answer)
	}
	return r.message
}

// Done reports whether the session is over and the view can be released.
func (r *Responder) Done() bool { return r.done }

// Complete reports whether the session ended with all that it found applied on
// both sides: the partner's counterpart of Report.Complete. The initiator applies
// what it pulls before it says that it has finished.
func (r *Responder) Complete() bool { return r.complete }

// Shards returns the number of shards that the session is over, once it was
// opened.
func (r *Responder) Shards() int {
	if r.scope == nil {
		return 0
	}
	return len(r.scope.shards)
}

// Settled returns the stamp up to which the initiator repairs differences, once
// the session was opened: what a complete session proves, and no more.
func (r *Responder) Settled() hlc.Stamp { return r.settled }

// RowsRead returns the number of rows that this side has read for the session.
func (r *Responder) RowsRead() uint64 {
	if r.scope == nil {
		return 0
	}
	return r.scope.rowsRead
}

// Refuse returns the answer of a node that takes part in no session now, with
// a code for programs and a text for people.
func Refuse(code, text string) []byte { return refusal{code, text}.append(nil) }

// CodeVersion is the code of a refusal by a partner that speaks another version
// of the session or has digests of another version.
const CodeVersion = "version"

var (
	errOutOfTurn = errors.New("a message came out of turn")
	errVersion   = errors.New("versions differ: upgrade the node with the older release")
)

func (r *Responder) receive(msg []byte) ([]lww.Entry, error) {
	if len(msg) == 0 {
		return nil, wireError("it is empty")
	}
	rd := &reader{codec: r.codec, b: msg[1:]}
	switch kind := msg[0]; {
	case r.done:
		return nil, errOutOfTurn
	case kind == kindOpen && r.scope == nil:
		return nil, r.open(rd)
	case (kind == kindRequest || kind == kindFinish) && r.scope != nil:
		req := rd.request(kind)
		if rd.err != nil {
			return nil, rd.err
		}
		return req.push, r.serve(req)
	default:
		return nil, errOutOfTurn
	}
}

func (r *Responder) open(rd *reader) error {
	m := rd.open()
	switch {
	case rd.err != nil:
		return rd.err
	case m.protocol != protocolVersion:
		return fmt.Errorf("the initiator speaks session protocol %d, this node speaks %d: %w", m.protocol, protocolVersion, errVersion)
	case len(m.digestVersions) == 0 || m.digestVersions[len(m.digestVersions)-1] != merkle.DigestVersion:
		return fmt.Errorf("the initiator has digests of version %d, this node of version %d: %w", m.digestVersions, merkle.DigestVersion, errVersion)
	}
	asOf := hlc.Max
	if m.asOf {
		asOf = m.moment
	}
	view, err := r.view(asOf)
	if err != nil {
		return err
	}
	if m.shards != view.Shards() {
		return fmt.Errorf("the initiator has %d shards, this node has %d", m.shards, view.Shards())
	}
	sc, err := newScope(view, m.only, m.salt)
	if err != nil {
		return err
	}
	r.scope, r.dryRun, r.settled = sc, m.dryRun, m.settled
	r.codec = codec{m.nameBits, m.moment, m.textbook, func(e lww.Entry) uint32 { return uint32(view.Sum(e).Lo) }}
	check, syndrome, count := sc.total()
	sc.compared++
	if check == m.check && syndrome == m.syndrome {
		r.done, r.complete = true, !r.dryRun
		r.message = []byte{kindEqual}
		return nil
	}
	answer, err := r.firstAnswer(m, differMessage{check: check, count: count}, syndrome)
	if err != nil {
		return err
	}
	r.message = r.codec.appendDiffer(nil, answer)
	return nil
}

// firstAnswer chooses what helps the initiator most: the one or two keys that
// differ, if they are no more; a level to descend from, if it knows how many may
// differ or one side has nothing; else what it needs to estimate that.
func (r *Responder) firstAnswer(m openMessage, d differMessage, mine merkle.Syndrome) (differMessage, error) {
	if m.textbook {
		d.what = differOnly
		return d, nil
	}
	changes, likely, err := r.scope.decode(merkle.Node{}, mine.Minus(m.syndrome), m.nameBits)
	switch {
	case err != nil:
		return d, err
	case likely || len(changes) == 2 && m.count == d.count+2: // both missing here
		for _, c := range changes {
			named, revealed, err := r.nameChange(c)
			if err != nil {
				return d, err
			}
			d.named, d.check = append(d.named, named), d.check-revealed
		}
		d.what = differNamed
		return d, nil
	}
	switch {
	case mine.IsZero():
		d.what = differLevel // the root says it all
	case m.syndrome.IsZero():
		// As deep as there are rows, so that a few of them cost a few nodes.
		d.what, d.bits = differLevel, min(r.scope.bits, bits.Len64(d.count))
	case m.outline != nil:
		return r.firstPart(m, d, mine)
	case m.expected > 0:
		d.what, d.bits = differLevel, r.scope.startLevel(m.expected, d.count)
	default:
		d.what = differSample
		d.sample, err = r.scope.sample(r.scope.sampleLevels(d.count))
		return d, err
	}
	d.level, err = r.scope.levelSyndromes(d.bits)
	return d, err
}

// firstPart answers an outline: with a part of a level, or with all of it if most
// of its nodes differ.
func (r *Responder) firstPart(m openMessage, d differMessage, mine merkle.Syndrome) (differMessage, error) {
	outline, ok := r.scope.outlineBits()
	if !ok {
		return d, errors.New("there can be no outline of this session's shards")
	}
	nodes, err := r.scope.outline(outline)
	if err != nil {
		return d, err
	}
	for i, b := range nodes {
		if b != m.outline[i] {
			d.marked |= 1 << i
		}
	}
	marked := bits.OnesCount64(d.marked)
	if marked == 0 || marked > outlineMost {
		d.what, d.marked, d.bits = differLevel, 0, r.scope.startLevel(m.expected, d.count)
		d.level, err = r.scope.levelSyndromes(d.bits)
		return d, err
	}
	d.what, d.bits = differPart, r.scope.partLevel(outline, marked, m.expected, d.count)
	var sum merkle.Syndrome
	d.level, sum, err = r.scope.part(outline, d.bits, d.marked)
	d.rest = mine.Minus(sum)
	return d, err
}

// nameChange says what is here at a position that a difference of syndromes,
// ours minus the initiator's, was decoded to.
func (r *Responder) nameChange(c merkle.Change) (n named, revealed uint64, err error) {
	name := merkle.NodeAt(c.X, r.codec.nameBits)
	return r.state(name, func(mine uint64) bool { return mine == c.F })
}

// alongBytes is the size up to which an entry is sent along with the name of a
// key that differs. Larger ones are told of and fetched, one by one: there may be
// dozens of them in one answer that is not cut short.
const alongBytes = 16 << 10

// state says what is under a name. lacks reports whether the initiator must lack
// a row with that fingerprint: then the entry is sent along, if it is not large.
func (r *Responder) state(name merkle.Node, lacks func(fingerprint uint64) bool) (n named, revealed uint64, err error) {
	n.name = name
	if under, ok := r.scope.cache.under(name); ok && len(under.rows) <= 1 {
		if len(under.rows) == 0 {
			return n, 0, nil
		}
		if row := &under.rows[0]; row.late || !lacks(row.f) {
			return r.versionNamed(name, under, row), row.sum.Lo, nil
		}
	}
	rows := 0
	err = r.scope.rows(name, func(row *merkle.Row) bool {
		rows++
		revealed += row.Sum.Lo
		if rows > 1 {
			n = named{name: name, state: nameSeveral}
			return true
		}
		n.late = row.Late
		switch {
		case row.Late || !lacks(row.Fingerprint(r.scope.salt)):
			n.state, n.version = nameVersion, row.Entry.Version
			n.key = uint32(r.scope.view.Hash(row.Entry.Key))
		case r.dryRun || r.young(row) || lww.EncodedLen(row.Entry) > alongBytes:
			v := versionOf(r.scope.view, row)
			n.state, n.full = nameFull, &v
		default:
			e := row.Entry.Clone()
			n.state, n.entry, n.sum = nameEntry, &e, uint32(row.Sum.Lo)
		}
		return true
	})
	return n, revealed, err
}

// versionNamed is what is told of the only row under a name, which both sides are
// thought to have.
func (r *Responder) versionNamed(name merkle.Node, of run, row *cachedRow) named {
	return named{name: name, state: nameVersion, late: row.late, version: row.version, key: uint32(r.scope.view.Hash(of.key(row)))}
}

// young reports whether the initiator, lacking a row, would not take it.
func (r *Responder) young(row *merkle.Row) bool { return row.Entry.Stamp > r.settled }

// serve answers a request until the message is full, in the order in which the
// initiator can make progress, and at least one thing.
func (r *Responder) serve(req request) error {
	if r.dryRun && (len(req.fetches) > 0 || len(req.push) > 0) {
		return errors.New("entries in a dry run")
	}
	if err := r.inSession(req); err != nil {
		return err
	}
	r.request = req
	a := &response{applied: len(req.push)}
	s := server{r, a, r.messageBytes, r.scope.rowsRead}
	for _, step := range []func(request) error{s.level, s.fetches, s.probes, s.versions, s.lists, s.compares, s.splits} {
		if err := step(req); err != nil {
			return err
		}
	}
	if req.finish {
		a.finished, a.rowsRead, a.compared = true, r.scope.rowsRead, r.scope.compared
		r.finishing = true
	}
	r.answer = a
	return nil
}

// inSession checks that a request is only about the shards of the session, what
// it pushes included.
func (r *Responder) inSession(req request) error {
	var nodes []merkle.Node
	for _, a := range req.splits {
		nodes = append(nodes, a.node)
	}
	for _, a := range req.compares {
		nodes = append(nodes, a.node)
	}
	for _, a := range req.lists {
		nodes = append(nodes, a.node)
	}
	for _, a := range req.probes {
		nodes = append(nodes, a.name)
	}
	for _, a := range req.versions {
		nodes = append(nodes, a.node)
	}
	for _, a := range req.fetches {
		nodes = append(nodes, a.node)
	}
	for _, e := range req.push {
		nodes = append(nodes, merkle.NodeAt(r.scope.view.Position(e.Key), merkle.MaxBits))
	}
	for _, n := range nodes {
		if !r.scope.covers(n) {
			return fmt.Errorf("shard %d is not part of this session", r.scope.shardOf(n))
		}
	}
	if req.level > 0 && r.scope.level(req.level-1) > maxLevelNodes {
		return fmt.Errorf("a level of more than %d nodes was asked for", maxLevelNodes)
	}
	return nil
}

// nameBitsFor returns the length of names that tell apart nearly all rows of a
// view: 20 bits more than it takes to count them.
func nameBitsFor(count uint64) int { return min(merkle.MaxBits, bits.Len64(count)+20) }
