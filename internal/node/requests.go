package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
	"syntropy/ring"
	"syntropy/storage"
)

// Op is one write of a client.
type Op struct {
	Key    []byte
	Value  []byte
	Delete bool
}

// Write stamps the writes and applies them here and on every replica that is
// up. It returns when all of those have answered, or the request deadline
// passed. nil means: durable here, and sent to every replica that was up. A
// replica that failed meanwhile is behind until a repair. An error means that
// the outcome is unknown, unless it says that nothing was written.
func (n *Node) Write(ctx context.Context, ops []Op) error {
	r, err := n.enter()
	if err != nil {
		return err
	}
	defer n.leave()
	if err := r.mayServe(false); err != nil {
		return err
	}
	if err := r.fenced(); err != nil {
		return err
	}
	ops = lastOfEachKey(ops)
	// A write that was stamped is carried through even if the client has gone:
	// half of it is on its way already.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.settings.RequestDeadline)
	defer cancel()
	for len(ops) > 0 {
		entries := make([]lww.Entry, len(ops))
		for i, op := range ops {
			stamp, err := r.clock.next()
			if err != nil {
				return err
			}
			entries[i] = lww.Entry{Key: op.Key, Value: op.Value, Version: lww.Version{Stamp: stamp, Node: r.self, Tombstone: op.Delete}}
			if err := entries[i].Validate(); err != nil {
				return &Error{CodeInvalid, "nothing was written: " + err.Error()}
			}
		}
		results, err := r.replicate(ctx, entries)
		if err != nil {
			return err
		}
		// A write that lost against a version with a stamp ahead of ours was
		// not accepted: it gets a stamp above that and another try.
		var again []Op
		for i, res := range results {
			if res.Outcome == storage.Shadowed {
				if err := r.clock.observe(res.Version.Newest()); err != nil {
					return &Error{CodeShadowed, fmt.Sprintf("key %q holds a version from the future: %v", ops[i].Key, err)}
				}
				again = append(again, ops[i])
			}
		}
		ops = again
		if len(ops) > 0 && ctx.Err() != nil {
			return &Error{CodeTimeout, "the request deadline passed; whether the write holds is unknown"}
		}
	}
	return nil
}

// lastOfEachKey leaves of the writes to one key the last one, which is all that
// anybody could see in the end. Kept together they would race: the messages that
// carry them may arrive in any order, and whichever lost would be stamped again
// and win.
func lastOfEachKey(ops []Op) []Op {
	last := make(map[string]int, len(ops))
	for i, op := range ops {
		last[string(op.Key)] = i
	}
	if len(last) == len(ops) {
		return ops
	}
	kept := make([]Op, 0, len(last))
	for i, op := range ops {
		if last[string(op.Key)] == i {
			kept = append(kept, op)
		}
	}
	return kept
}

// maxApplyBytes bounds the entries of one message between nodes; a larger entry
// travels alone.
const maxApplyBytes = 1 << 20

// replicate applies entries here and on all usable peers at the same time. An
// entry is shadowed if it lost anywhere.
func (r *replica) replicate(ctx context.Context, entries []lww.Entry) ([]storage.Result, error) {
	messages := applyMessages(entries)
	var sends sync.WaitGroup
	var mu sync.Mutex
	lost := make(map[*peer]bool) // at which an entry was shadowed
	for _, id := range r.others() {
		p := r.peers[id]
		if !p.usable() {
			p.addMissed(len(entries))
			continue
		}
		for _, m := range messages {
			sends.Go(func() {
				if r.sendApply(ctx, p, m) > 0 {
					mu.Lock()
					defer mu.Unlock()
					lost[p] = true
				}
			})
		}
	}
	results, err := r.store.Apply(entries)
	sends.Wait()
	if err != nil {
		return nil, &Error{CodeStorage, "whether the write holds is unknown: " + err.Error()}
	}
	for p := range lost {
		r.findShadows(ctx, p, entries, results)
	}
	return results, nil
}

// findShadows asks a peer which versions the entries lost against. That is rare:
// this node had missed a version from a clock ahead of its own.
func (r *replica) findShadows(ctx context.Context, p *peer, entries []lww.Entry, results []storage.Result) {
	for i, e := range entries {
		theirs, _, found, err := r.lookup(ctx, p, e.Key)
		if err != nil {
			p.addMissed(len(entries) - i)
			return
		}
		if found && lww.Compare(theirs, e) > 0 && theirs.Newest() > results[i].Version.Newest() {
			results[i] = storage.Result{Outcome: storage.Shadowed, Version: theirs.Version}
		}
	}
}

func applyMessages(entries []lww.Entry) []*peerpb.Message {
	var messages []*peerpb.Message
	var apply *peerpb.Apply
	size := 0
	for _, e := range entries {
		raw := lww.AppendEntry(make([]byte, 0, lww.EncodedLen(e)), e)
		if apply == nil || size+len(raw) > maxApplyBytes {
			apply, size = new(peerpb.Apply), 0
			messages = append(messages, &peerpb.Message{Body: &peerpb.Message_Apply{Apply: apply}})
		}
		apply.Entries = append(apply.Entries, raw)
		size += len(raw)
	}
	return messages
}

// sendApply sends one message to one peer. What the peer did not take is
// counted, and left to repair.
func (r *replica) sendApply(ctx context.Context, p *peer, m *peerpb.Message) (shadowed uint32) {
	total := len(m.GetApply().Entries)
	reply, err := p.link.Call(ctx, m)
	if err == nil {
		rejected := reply.GetApplyReply().GetRejected()
		p.addMissed(len(rejected))
		if len(rejected) > 0 {
			r.log.Warn("a peer rejected writes", "peer", p.id.String(), "count", len(rejected), "reason", rejected[0].Reason)
		}
		return reply.GetApplyReply().GetShadowed()
	}
	p.addMissed(total)
	r.log.Debug("a peer missed writes", "peer", p.id.String(), "count", total, "error", err)
	return 0
}

func (p *peer) addMissed(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed += n
}

func (p *peer) missedWrites() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.missed
}

func count(results []storage.Result) (applied, shadowed uint32) {
	for _, res := range results {
		if res.Outcome == storage.Shadowed {
			shadowed++
		} else {
			applied++
		}
	}
	return applied, shadowed
}

// readable is enter for reads.
func (n *Node) readable() (*replica, error) {
	r, err := n.enter()
	if err != nil {
		return nil, err
	}
	if err := r.mayServe(true); err != nil {
		n.leave()
		return nil, err
	}
	return r, nil
}

// Get returns the value that this node's replica holds of a key.
func (n *Node) Get(_ context.Context, key []byte) (value []byte, found bool, err error) {
	r, err := n.readable()
	if err != nil {
		return nil, false, err
	}
	defer n.leave()
	e, found, err := r.store.Get(key)
	if err != nil || !found || !e.Live(n.wall()) {
		return nil, false, err
	}
	return e.Value, true, nil
}

// Size returns the number of keys that this node's replica holds.
func (n *Node) Size(context.Context) (int64, error) {
	r, err := n.readable()
	if err != nil {
		return 0, err
	}
	defer n.leave()
	st := r.store.Stats()
	return int64(st.Entries - st.Tombstones), nil
}

// A scan's cursor is the place to go on from: the shard in the upper 14 bits,
// the first 50 bits of a token below. It stays valid over restarts and on other
// nodes, since they hold the same keys at the same places. A page ends only
// where the 50 bits change, so keys that share them come in one page.
const (
	cursorTokenBits = 50
	cursorDropped   = ring.TokenBits - cursorTokenBits
)

func packCursor(shard int, t ring.Token) uint64 {
	return uint64(shard)<<cursorTokenBits | uint64(t)>>cursorDropped
}

func unpackCursor(c uint64) (shard int, t ring.Token) {
	return int(c >> cursorTokenBits), ring.Token(c&(1<<cursorTokenBits-1)) << cursorDropped
}

// maxScanned bounds the rows that one page of a scan looks at, so that a long
// run of tombstones gives short pages rather than a long wait.
const maxScanned = 10_000

// maxScannedBytes bounds the keys of one page: a page of the largest keys is
// shorter than was asked for.
const maxScannedBytes = 1 << 20

// Scan returns about count keys from a cursor on, and the cursor to go on from;
// both begin and end with zero. Keys that exist throughout the scan are returned
// exactly once.
func (n *Node) Scan(ctx context.Context, cursor uint64, count int) (next uint64, keys [][]byte, err error) {
	r, err := n.readable()
	if err != nil {
		return 0, nil, err
	}
	defer n.leave()
	count = max(count, 1) // a page without progress would make the scan endless
	shard, from := unpackCursor(cursor)
	now, visited, size := n.wall(), 0, 0
	full := func() bool { return len(keys) >= count || visited >= maxScanned || size >= maxScannedBytes }
	for ; shard < r.store.Shards(); shard, from = shard+1, 0 {
		var last ring.Token
		ended := false
		err := r.store.Scan(shard, from, func(t ring.Token, e lww.Entry) bool {
			if full() && t>>cursorDropped != last>>cursorDropped {
				next, ended = packCursor(shard, t), true
				return false
			}
			if e.Live(now) {
				keys = append(keys, bytes.Clone(e.Key))
				size += len(e.Key)
			}
			last = t
			visited++
			return true
		})
		if err != nil {
			return 0, nil, err
		}
		if ended {
			return next, keys, nil
		}
		if full() && shard+1 < r.store.Shards() {
			return packCursor(shard+1, 0), keys, nil
		}
		if err := context.Cause(ctx); err != nil {
			return 0, nil, err
		}
	}
	return 0, keys, nil
}

// lookup asks one peer what it holds of a key.
func (r *replica) lookup(ctx context.Context, p *peer, key []byte) (e lww.Entry, digest []byte, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.settings.RequestDeadline)
	defer cancel()
	reply, err := p.link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Lookup{Lookup: &peerpb.Lookup{Keys: [][]byte{key}}}})
	if err != nil {
		return e, nil, false, err
	}
	l := reply.GetLookupReply()
	if l == nil || len(l.Entries) != 1 || len(l.Digests) != 1 {
		return e, nil, false, errors.New("the peer gave a malformed answer")
	}
	if len(l.Entries[0]) == 0 {
		return e, nil, false, nil
	}
	e, _, err = lww.DecodeEntry(l.Entries[0])
	return e, l.Digests[0], err == nil, err
}
