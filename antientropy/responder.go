package antientropy

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
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
	case !slices.Contains(m.digestVersions, merkle.DigestVersion):
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
	case mine.IsZero() || m.syndrome.IsZero():
		d.what, d.bits = differLevel, r.scope.bits
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

// nameChange says what is here at a position that a difference of syndromes,
// ours minus the initiator's, was decoded to.
func (r *Responder) nameChange(c merkle.Change) (n named, revealed uint64, err error) {
	name := merkle.NodeAt(c.X, r.codec.nameBits)
	return r.state(name, func(mine uint64) bool { return mine == c.F })
}

// state says what is under a name. lacks reports whether the initiator must lack
// a row with that fingerprint.
func (r *Responder) state(name merkle.Node, lacks func(fingerprint uint64) bool) (n named, revealed uint64, err error) {
	n.name = name
	rows := 0
	err = r.scope.rows(name, func(row merkle.Row) bool {
		rows++
		revealed += row.Sum.Lo
		if rows > 1 {
			n = named{name: name, state: nameSeveral}
			return true
		}
		n.late = row.Late
		switch {
		case !row.Late && lacks(row.Fingerprint(r.scope.salt)) && (r.dryRun || r.young(row)):
			n.state, n.full = nameFull, versionOf(r.scope.view, row)
		case !row.Late && lacks(row.Fingerprint(r.scope.salt)):
			n.state, n.entry = nameEntry, row.Entry.Clone()
			n.sum = uint32(row.Sum.Lo)
		default:
			n.state, n.version = nameVersion, row.Entry.Version
			n.key = uint32(r.scope.view.Hash(row.Entry.Key))
		}
		return true
	})
	return n, revealed, err
}

// young reports whether the initiator, lacking a row, would not take it.
func (r *Responder) young(row merkle.Row) bool { return row.Entry.Stamp > r.settled }

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
	s := server{r, a, r.messageBytes}
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

// server fills one response while there is room.
type server struct {
	*Responder
	a    *response
	room int
}

func (s *server) level(req request) (err error) {
	if req.level == 0 {
		return nil
	}
	if s.a.level, err = s.scope.levelSyndromes(req.level - 1); err != nil || !s.codec.textbook {
		return err
	}
	s.scope.levelNodes(req.level-1, func(n merkle.Node) {
		if e := s.count(n, &s.a.counts); e != nil {
			err = e
		}
	})
	return err
}

// count counts the rows under a node, for people who want to see them.
func (s *server) count(n merkle.Node, counts *[]uint64) error {
	rows := uint64(0)
	err := s.scope.rows(n, func(r merkle.Row) bool {
		if r.Sum != (merkle.Sum{}) {
			rows++
		}
		return true
	})
	*counts = append(*counts, rows)
	return err
}

func (s *server) fetches(req request) error {
	for _, f := range req.fetches {
		if s.room <= 0 {
			return nil
		}
		a, err := s.fetch(f)
		if err != nil {
			return err
		}
		s.a.fetches = append(s.a.fetches, a)
	}
	return nil
}

func (s *server) fetch(f fetchAsk) (a fetchAnswer, err error) {
	first := f.node.First() + ring.Position(f.skip)
	var at ring.Position
	err = s.scope.rowsFrom(f.node, first, func(row merkle.Row) bool {
		// A position is sent as a whole, so that the rest has a beginning.
		if s.room <= 0 && len(a.entries)+len(a.young) > 0 && row.Position != at && len(f.sums) == 0 {
			a.next = uint64(row.Position - f.node.First())
			return false
		}
		at = row.Position
		if f.first {
			s.a.revealed += row.Sum.Lo
			if row.Sum == (merkle.Sum{}) {
				return true // it was written after the moment that is compared
			}
			if s.young(row) {
				a.young = append(a.young, versionOf(s.scope.view, row))
				s.room -= len(row.Entry.Key) + 64
				return true
			}
		} else if len(f.sums) > 0 && !slices.Contains(f.sums, row.Sum.Lo) {
			return true
		}
		a.entries = append(a.entries, row.Entry.Clone())
		s.room -= lww.EncodedLen(row.Entry) + 4
		return true
	})
	return a, err
}

func (s *server) probes(req request) error {
	for _, p := range req.probes {
		if s.room <= 0 {
			return nil
		}
		n, revealed, err := s.state(p.name, func(uint64) bool { return p.absent || p.again })
		if err != nil {
			return err
		}
		if p.again {
			revealed = 0
		}
		s.add(revealed, n)
		s.a.probes = append(s.a.probes, n)
	}
	return nil
}

// add takes note of what names reveal and cost.
func (s *server) add(revealed uint64, n named) {
	s.a.revealed += revealed
	s.room -= 24
	switch n.state {
	case nameEntry:
		s.room -= lww.EncodedLen(n.entry)
	case nameFull:
		s.room -= len(n.full.key) + 64
	}
}

func (s *server) versions(req request) error {
	for _, v := range req.versions {
		if s.room <= 0 {
			return nil
		}
		a := versionsAnswer{held: make([]byte, (len(v.except)+7)/8)}
		err := s.scope.rows(v.node, func(row merkle.Row) bool {
			if row.Sum == (merkle.Sum{}) {
				return true // written after the moment that is compared
			}
			if i := slices.Index(v.except, row.Sum.Lo); i >= 0 {
				a.held[i/8] |= 1 << (i % 8)
			} else {
				a.list = append(a.list, versionOf(s.scope.view, row))
				s.room -= len(row.Entry.Key) + 64
			}
			a.tooMany = len(a.list) > maxListed
			return !a.tooMany
		})
		if err != nil {
			return err
		}
		if a.tooMany {
			if v.node.Bits == merkle.MaxBits {
				return fmt.Errorf("more than %d rows share the position %v", maxListed, v.node)
			}
			a.list, a.held = nil, nil
		}
		s.a.versions = append(s.a.versions, a)
		s.room--
	}
	return nil
}

func versionOf(v View, row merkle.Row) keyVersion {
	return keyVersion{
		key:        slices.Clone(row.Entry.Key),
		version:    row.Entry.Version,
		sum:        row.Sum,
		late:       row.Late,
		valueHash:  v.Hash(row.Entry.Value),
		valueBytes: len(row.Entry.Value),
	}
}

// lists compares the rows under a node with those that the initiator has there.
func (s *server) lists(req request) error {
	for _, ask := range req.lists {
		if s.room <= 0 {
			return nil
		}
		s.scope.compared++
		a, err := s.compareRows(ask)
		if err != nil {
			return err
		}
		s.a.lists = append(s.a.lists, a)
		s.room -= 4
	}
	return nil
}

func (s *server) compareRows(ask listAsk) (childAnswer, error) {
	const many = 4 * listRows // then splitting costs less than having read them
	mine, err := s.scope.items(ask.node, s.codec.nameBits, many)
	if err != nil {
		return childAnswer{}, err
	}
	if len(mine) > many && int(ask.node.Bits)+2 <= merkle.MaxBits {
		return s.split(ask.node)
	}
	a := childAnswer{code: childNamed}
	for _, name := range differingNames(mine, ask.items) {
		theirs := slices.ContainsFunc(ask.items, func(it item) bool { return it.name == name })
		n, revealed, err := s.state(merkle.Node{Bits: uint8(s.codec.nameBits), Path: name}, func(uint64) bool { return !theirs })
		if err != nil {
			return a, err
		}
		s.add(revealed, n)
		a.named = append(a.named, n)
	}
	return a, nil
}

// differingNames returns the names under which two lists, each in order, do not
// hold the same fingerprints.
func differingNames(a, b []item) (out []uint64) {
	for len(a) > 0 || len(b) > 0 {
		name := uint64(1 << 63)
		if len(a) > 0 {
			name = a[0].name
		}
		if len(b) > 0 {
			name = min(name, b[0].name)
		}
		var atA, atB []item
		a, atA = cutName(a, name)
		b, atB = cutName(b, name)
		same := len(atA) == len(atB)
		for _, it := range atA {
			same = same && slices.Contains(atB, it)
		}
		if !same {
			out = append(out, name)
		}
	}
	return out
}

func cutName(l []item, name uint64) (rest, at []item) {
	n := 0
	for n < len(l) && l[n].name == name {
		n++
	}
	return l[n:], l[:n]
}

func (s *server) split(n merkle.Node) (a childAnswer, err error) {
	a.code = childSplit
	s.room -= 4 * merkle.SyndromeBytes
	return a, s.scope.syndromes(n, 2, a.split[:])
}

// compares looks at the children of nodes of which the initiator has sent its
// own, and goes on by itself as far as it can.
func (s *server) compares(req request) error {
	for _, ask := range req.compares {
		if s.room <= 0 {
			return nil
		}
		mine := make([]merkle.Syndrome, 1<<ask.bits)
		if err := s.scope.syndromes(ask.node, ask.bits, mine); err != nil {
			return err
		}
		children := make([]childAnswer, len(mine))
		for i := range children {
			s.scope.compared++
			var err error
			if children[i], err = s.compareChild(ask.node.Down(ask.bits, i), mine[i], ask.theirs[i]); err != nil {
				return err
			}
		}
		s.a.compares = append(s.a.compares, children)
		s.room -= 2
	}
	return nil
}

func (s *server) compareChild(n merkle.Node, mine, theirs merkle.Syndrome) (childAnswer, error) {
	d := mine.Minus(theirs)
	switch {
	case d.IsZero():
		return childAnswer{code: childEqual}, nil
	case int(n.Bits) > s.codec.nameBits:
		return childAnswer{code: childSlow}, nil
	case int(n.Bits) >= s.scope.bits && theirs.IsZero():
		return childAnswer{code: childMine}, nil
	case int(n.Bits) >= s.scope.bits && mine.IsZero():
		return childAnswer{code: childYours}, nil
	}
	changes, likely, err := s.scope.decode(n, d, s.codec.nameBits)
	switch {
	case err != nil:
		return childAnswer{}, err
	case likely:
		a := childAnswer{code: childNamed}
		for _, c := range changes {
			m, revealed, err := s.nameChange(c)
			if err != nil {
				return a, err
			}
			s.add(revealed, m)
			a.named = append(a.named, m)
		}
		return a, nil
	case int(n.Bits)+2 > merkle.MaxBits:
		return childAnswer{code: childSlow}, nil
	}
	if int(n.Bits) >= s.scope.bits && s.scope.expected(n) <= listRows {
		items, err := s.scope.items(n, s.codec.nameBits, listRows)
		if err != nil || len(items) <= listRows {
			s.room -= 16 * len(items)
			return childAnswer{code: childList, items: items}, err
		}
	}
	return s.split(n)
}

func (s *server) splits(req request) error {
	for _, ask := range req.splits {
		if s.room <= 0 {
			return nil
		}
		a := splitAnswer{syndromes: make([]merkle.Syndrome, 1<<ask.bits)}
		if err := s.scope.syndromes(ask.node, ask.bits, a.syndromes); err != nil {
			return err
		}
		if s.codec.textbook {
			for i := range a.syndromes {
				if err := s.count(ask.node.Down(ask.bits, i), &a.counts); err != nil {
					return err
				}
			}
		}
		if !ask.all {
			a.syndromes = a.syndromes[:len(a.syndromes)-1]
		}
		s.a.splits = append(s.a.splits, a)
		s.room -= merkle.SyndromeBytes * len(a.syndromes)
	}
	return nil
}

// nameBitsFor returns the length of names that tell apart nearly all rows of a
// view: 20 bits more than it takes to count them.
func nameBitsFor(count uint64) int { return min(merkle.MaxBits, bits.Len64(count)+20) }
