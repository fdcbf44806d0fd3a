package antientropy

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
)

// Limits of one session.
const (
	// DefaultMessageBytes is the size at which a message is full: large enough
	// that a round trip carries thousands of nodes, small enough to hold a few
	// of them for every session.
	DefaultMessageBytes = 1 << 20
	// maxListed bounds the entries that a partner may ask to be listed at once;
	// an initiator asks for lists of at most Config.ListMax by its own count.
	maxListed = 4096
	// maxItems bounds each section of a request but the pushed entries, and the
	// section that answers it.
	maxItems = 4096
	// maxPushed bounds the entries pushed in one message. The smallest takes 14
	// bytes, so messages of DefaultMessageBytes never come near.
	maxPushed = 1 << 17
)

// allDigest is one digest over the roots of the given shards: what the first
// message carries. The roots are keyed sums already; SHA-256 binds them to
// their shards.
func allDigest(v View, shards []int) merkle.Sum {
	h := sha256.New()
	var buf []byte
	for _, s := range shards {
		root := v.Root(s)
		buf = binary.BigEndian.AppendUint64(buf[:0], uint64(s))
		buf = binary.BigEndian.AppendUint64(buf, root.Count)
		h.Write(root.Sum.Append(buf))
	}
	return merkle.SumFrom(h.Sum(nil))
}

func allShards(v View) []int {
	shards := make([]int, v.Shards())
	for i := range shards {
		shards[i] = i
	}
	return shards
}

// checkShards checks that the shards of a session exist, ascend, and come once.
func checkShards(only []int, shards int) error {
	for i, s := range only {
		if s < 0 || s >= shards {
			return fmt.Errorf("there is no shard %d", s)
		}
		if i > 0 && s <= only[i-1] {
			return fmt.Errorf("the shards %v are not in ascending order", only)
		}
	}
	return nil
}

// Responder is the partner's side of a session. It is not safe for concurrent
// use.
type Responder struct {
	view         View
	messageBytes int
	shards       []int
	dryRun       bool
	opened, done bool
	complete     bool
	// What Receive leaves for Reply.
	message []byte
	answer  *response
}

// NewResponder returns the side that answers, over its view.
func NewResponder(view View) *Responder {
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
	r.message, r.answer = nil, nil
	apply, err = r.receive(msg)
	if err != nil {
		r.refuse("failed", err.Error())
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
	if applied != nil {
		r.refuse("apply", "the partner could not apply entries: "+applied.Error())
	}
	if r.answer != nil {
		return r.answer.append(nil)
	}
	return r.message
}

// Done reports whether the session is over and the view can be released.
func (r *Responder) Done() bool { return r.done }

// Complete reports whether the session ended with all that it found applied on
// both sides: the partner's counterpart of Report.Complete. The initiator applies
// what it pulls before it says that it has finished.
func (r *Responder) Complete() bool { return r.complete }

// Shards returns the shards that the session is over, once it was opened.
func (r *Responder) Shards() int { return len(r.shards) }

// Refuse returns the answer of a node that takes part in no session now, with
// a code for programs and a text for people.
func Refuse(code, text string) []byte { return refusal{code, text}.append(nil) }

var errOutOfTurn = errors.New("a message came out of turn")

func (r *Responder) receive(msg []byte) ([]lww.Entry, error) {
	if len(msg) == 0 {
		return nil, fmt.Errorf("%w: it is empty", errWire)
	}
	rd := &reader{b: msg[1:]}
	switch kind := msg[0]; {
	case r.done:
		return nil, errOutOfTurn
	case kind == kindOpen && !r.opened:
		return nil, r.open(rd)
	case kind == kindRequest && r.opened:
		req := readRequest(rd)
		if rd.err != nil {
			return nil, rd.err
		}
		return req.push, r.serve(req)
	case kind == kindFinish && r.opened:
		r.done, r.complete = true, !r.dryRun
		r.message = []byte{kindFinished}
		return nil, rd.end()
	default:
		return nil, errOutOfTurn
	}
}

func (r *Responder) open(rd *reader) error {
	m := readOpen(rd)
	switch {
	case rd.err != nil:
		return rd.err
	case m.protocol != protocolVersion:
		return fmt.Errorf("the initiator speaks session protocol %d, this node speaks %d", m.protocol, protocolVersion)
	case m.digestVersion != merkle.DigestVersion:
		return fmt.Errorf("the initiator has digests of version %d, this node of version %d", m.digestVersion, merkle.DigestVersion)
	case m.shards != r.view.Shards():
		return fmt.Errorf("the initiator has %d shards, this node has %d", m.shards, r.view.Shards())
	}
	r.opened, r.dryRun, r.shards = true, m.dryRun, m.only
	if r.shards == nil {
		r.shards = allShards(r.view)
	}
	if err := checkShards(r.shards, r.view.Shards()); err != nil {
		return err
	}
	if allDigest(r.view, r.shards) == m.digest {
		r.done, r.complete = true, !r.dryRun
		r.message = []byte{kindEqual}
		return nil
	}
	roots := make([]merkle.Digest, len(r.shards))
	for i, s := range r.shards {
		roots[i] = r.view.Root(s)
	}
	r.message = appendRoots(nil, roots)
	return nil
}

// serve answers a request until the message is full, in the order in which the
// initiator can make progress, and at least one thing.
func (r *Responder) serve(req request) error {
	if r.dryRun && (len(req.pull) > 0 || len(req.push) > 0) {
		return errors.New("entries in a dry run")
	}
	if err := r.inScope(req); err != nil {
		return err
	}
	a := &response{applied: len(req.push)}
	room := r.messageBytes
	for _, t := range req.pull {
		entries, err := pick(r.view, t)
		if err != nil {
			return err
		}
		for _, e := range entries {
			room -= lww.EncodedLen(e)
		}
		if room < 0 && len(a.pulled) > 0 {
			break
		}
		a.pulled = append(a.pulled, entries)
	}
	for _, t := range req.versions {
		if room <= 0 {
			break
		}
		versions, err := r.versions(t)
		if err != nil {
			return err
		}
		for _, v := range versions {
			room -= len(v.key) + 64
		}
		a.versions = append(a.versions, versions)
	}
	for _, n := range req.list {
		if room <= 0 {
			break
		}
		items, err := list(r.view, n)
		if err != nil {
			return err
		}
		room -= 16 * len(items)
		a.listed = append(a.listed, items)
	}
	for _, n := range req.expand {
		if room <= 0 {
			break
		}
		children, err := r.view.Children(n.shard, n.node)
		if err != nil {
			return err
		}
		room -= len(appendChildren(nil, children))
		a.expanded = append(a.expanded, children)
	}
	r.answer = a
	return nil
}

// inScope checks that a request is only about the shards of the session, what it
// pushes included, and asks only for nodes that have children.
func (r *Responder) inScope(req request) error {
	var shards []int
	for _, n := range slices.Concat(req.expand, req.list) {
		shards = append(shards, n.shard)
	}
	for _, t := range slices.Concat(req.versions, req.pull) {
		shards = append(shards, t.shard)
	}
	for _, e := range req.push {
		shard, _ := r.view.Locate(e.Key)
		shards = append(shards, shard)
	}
	for _, shard := range shards {
		if _, ok := slices.BinarySearch(r.shards, shard); !ok {
			return fmt.Errorf("shard %d is not part of this session", shard)
		}
	}
	for _, n := range req.expand {
		if int(n.node.Level) >= merkle.MaxLevel {
			return errors.New("a single token has no children")
		}
	}
	return nil
}

// list returns token and sum of each entry under a node.
func list(v View, n nodeRef) (items []item, err error) {
	err = v.Rows(n.shard, n.node, func(t ring.Token, _ lww.Entry, d merkle.Digest) bool {
		items = append(items, item{t, d.Sum.Lo})
		return len(items) <= maxListed
	})
	if err == nil && len(items) > maxListed {
		err = fmt.Errorf("node %q of shard %d has more than %d entries to list", n.node, n.shard, maxListed)
	}
	return items, err
}

func atToken(t ring.Token) merkle.Node { return merkle.NodeOf(t, merkle.MaxLevel) }

// versions returns the entries under a token but those the initiator has.
func (r *Responder) versions(t tokenRef) (versions []keyVersion, err error) {
	err = r.view.Rows(t.shard, atToken(t.token), func(_ ring.Token, e lww.Entry, d merkle.Digest) bool {
		if !slices.Contains(t.sums, d.Sum.Lo) {
			versions = append(versions, versionOf(r.view, e, d))
		}
		return true
	})
	return versions, err
}

func versionOf(v View, e lww.Entry, d merkle.Digest) keyVersion {
	return keyVersion{
		key:        slices.Clone(e.Key),
		version:    e.Version,
		sum:        d.Sum.Lo,
		valueHash:  v.ValueHash(e.Value),
		valueBytes: len(e.Value),
	}
}

// pick returns the entries under a token that have the given sums.
func pick(v View, t tokenRef) (entries []lww.Entry, err error) {
	err = v.Rows(t.shard, atToken(t.token), func(_ ring.Token, e lww.Entry, d merkle.Digest) bool {
		if slices.Contains(t.sums, d.Sum.Lo) {
			entries = append(entries, e.Clone())
		}
		return true
	})
	return entries, err
}
