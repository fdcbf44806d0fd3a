package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
	"syntropy/ring"
)

// A scan's cursor is the place to go on from: the shard in the upper 14 bits,
// the first 50 bits of a token below. It stays valid over restarts and on other
// nodes, since the same keys are at the same places everywhere. A page ends only
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

const (
	// maxScanned bounds the rows that one page of a scan looks at, so that a long
	// run of tombstones gives short pages rather than a long wait.
	maxScanned = 10_000
	// maxScannedBytes bounds the keys and values of one page: a page of the largest
	// is shorter than was asked for.
	maxScannedBytes = 1 << 20
)

// Scan returns about count entries from a cursor on, and the cursor to go on from;
// both begin and end with zero. Keys that exist throughout the scan are returned
// exactly once, as long as the level is met by the same rule as for reads: each
// shard is read on as many replicas as it demands, and the newest version counts.
// Only live entries are returned, without their values unless asked for.
func (n *Node) Scan(ctx context.Context, level coordinator.Level, cursor uint64, count int, values bool) (next uint64, entries []lww.Entry, err error) {
	r, err := n.enter()
	if err != nil {
		return 0, nil, err
	}
	defer n.leave()
	if err := r.mayCoordinate(); err != nil {
		return 0, nil, err
	}
	if level == coordinator.Default {
		level = n.opts.ReadConsistency
	}
	ctx, cancel := context.WithTimeout(ctx, r.settings.RequestDeadline)
	defer cancel()
	began := time.Now()
	count = max(count, 1) // a page without progress would make the scan endless
	shard, from := unpackCursor(cursor)
	now, visited, size := n.wall(), 0, 0
	for shard < r.store.Shards() {
		page, err := r.scanPage(ctx, level, pageRequest{shard: shard, from: from, count: max(count-len(entries), 1), bytesMax: maxScannedBytes - size, values: values})
		if at := packCursor(shard, from); err != nil && ctx.Err() != nil && at != cursor {
			return at, entries, nil // what there is so far, and where to go on
		}
		if err != nil {
			return 0, nil, err
		}
		for _, e := range page.entries {
			visited++
			size += len(e.Key) + len(e.Value)
			if e.Live(now) {
				entries = append(entries, e)
			}
		}
		shard, from = shard+1, 0
		if page.more {
			shard, from = shard-1, page.next
		}
		full := len(entries) >= count || visited >= maxScanned || size >= maxScannedBytes ||
			time.Since(began) > r.settings.RequestDeadline/4 // a short page, or none, is better than none ever
		if full && shard < r.store.Shards() {
			return packCursor(shard, from), entries, nil
		}
	}
	return 0, entries, nil
}

// pageRequest asks for the entries of a shard from a token on.
type pageRequest struct {
	shard    int
	from     ring.Token
	to       ring.Token // to end before; 0: the end of the shard
	count    int
	bytesMax int
	values   bool
}

// page is the answer: all entries with tokens below next, or to the end of the
// shard if there is no more.
type page struct {
	entries []lww.Entry // in the order of token and key; tombstones included
	next    ring.Token
	more    bool
}

// scanPage reads a page from as many replicas as the level demands and merges.
func (r *replica) scanPage(ctx context.Context, level coordinator.Level, req pageRequest) (page, error) {
	l := r.layout()
	var candidates, down []hlc.NodeID
	for _, id := range l.order[req.shard] {
		if r.readable(l, id) {
			candidates = append(candidates, id)
		} else {
			down = append(down, id)
		}
	}
	need := level.Of(len(l.order[req.shard]))
	var pages []page
	var failure error
	for len(pages) < need {
		missing := need - len(pages)
		if len(candidates) < missing {
			text := fmt.Sprintf("a scan at level %v needs %d of the %d replicas of shard %d, and %s cannot be read now", level, need, len(l.order[req.shard]), req.shard, join(down))
			if failure != nil {
				text += ": " + failure.Error()
			}
			return page{}, &Error{CodeUnavailable, text}
		}
		asked := candidates[:missing]
		candidates = candidates[missing:]
		type answer struct {
			from hlc.NodeID
			page page
			err  error
		}
		answers := make(chan answer, missing)
		for _, id := range asked {
			r.node.requests.Go(func() {
				p, err := r.pageOf(ctx, id, req)
				answers <- answer{id, p, err}
			})
		}
		for range asked {
			select {
			case a := <-answers:
				if a.err != nil {
					down, failure = append(down, a.from), a.err
				} else {
					pages = append(pages, a.page)
				}
			case <-ctx.Done():
				if errors.Is(context.Cause(ctx), context.Canceled) {
					return page{}, errGone
				}
				return page{}, &Error{CodeTimeout, "the scan took longer than the request deadline: ask for fewer keys"}
			}
		}
	}
	return r.mergePages(pages), nil
}

// mergePages keeps the newest version of each key as far as all pages reach.
func (r *replica) mergePages(pages []page) page {
	if len(pages) == 1 {
		return pages[0]
	}
	out := page{next: ring.MaxToken}
	for _, p := range pages {
		if p.more {
			out.more = true
			out.next = min(out.next, p.next)
		}
	}
	type placed struct {
		token ring.Token
		entry lww.Entry
	}
	var all []placed
	for _, p := range pages {
		for _, e := range p.entries {
			_, t := r.store.Locate(e.Key)
			if !out.more || t < out.next {
				all = append(all, placed{t, e})
			}
		}
	}
	slices.SortFunc(all, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.token, b.token), bytes.Compare(a.entry.Key, b.entry.Key), lww.Compare(b.entry, a.entry))
	})
	for i, p := range all {
		if i == 0 || !bytes.Equal(p.entry.Key, all[i-1].entry.Key) {
			out.entries = append(out.entries, p.entry)
		}
	}
	return out
}

// pageOf reads a page from one replica.
func (r *replica) pageOf(ctx context.Context, id hlc.NodeID, req pageRequest) (page, error) {
	if id == r.self {
		return r.pageHere(req)
	}
	reply, err := r.peer(id).link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Scan{Scan: &peerpb.Scan{
		Shard: uint32(req.shard), From: uint64(req.from), To: uint64(req.to), EntriesMax: uint32(req.count), BytesMax: uint32(req.bytesMax), Values: req.values,
	}}})
	if err != nil {
		return page{}, err
	}
	s := reply.GetScanReply()
	if s == nil || s.More && (ring.Token(s.Next) <= req.from || ring.Token(s.Next) > ring.MaxToken) {
		return page{}, errMalformedAnswer
	}
	p := page{next: ring.Token(s.Next), more: s.More}
	for _, raw := range s.Entries {
		e, _, err := lww.DecodeEntry(raw)
		if err != nil {
			return page{}, err
		}
		p.entries = append(p.entries, e)
	}
	return p, nil
}

// pageHere reads a page from this node's store.
func (r *replica) pageHere(req pageRequest) (p page, err error) {
	size := 0
	now := r.node.wall()
	live, visited := 0, 0
	var last ring.Token
	err = r.store.ScanTo(req.shard, req.from, req.to, func(t ring.Token, e lww.Entry) bool {
		full := live >= req.count || visited >= maxScanned || size >= req.bytesMax
		if full && t>>cursorDropped != last>>cursorDropped {
			p.next, p.more = t>>cursorDropped<<cursorDropped, true
			return false
		}
		if !req.values {
			e.Value = nil
		}
		e = e.Clone()
		p.entries = append(p.entries, e)
		if e.Live(now) {
			live++
		}
		visited++
		size += len(e.Key) + len(e.Value)
		last = t
		return true
	})
	return p, err
}

// Size returns about how many keys there are: exact where this node holds every
// shard, nobody writes and nothing expires, else by what the shards hold that it has.
func (n *Node) Size(context.Context) (int64, error) {
	r, err := n.enter()
	if err != nil {
		return 0, err
	}
	defer n.leave()
	l := r.layout()
	if l.held > 0 && r.mayServe(true) == nil {
		st := r.store.Stats()
		live := max(0, int64(st.Entries-st.Tombstones)-r.store.Expired(n.wall()))
		return live * int64(len(l.table.Shards)) / int64(l.held), nil
	}
	if err := r.mayCoordinate(); err != nil {
		return 0, err
	}
	var rows, shards int64
	for id, p := range l.peers {
		if entries, tombstones, ok := p.counts(); ok {
			rows += entries - tombstones
			shards += int64(len(l.table.HeldBy(id)))
		}
	}
	if shards == 0 {
		return 0, &Error{CodeUnavailable, "this node holds no replica that serves reads, and no other node has told how many keys it holds"}
	}
	return rows * int64(len(l.table.Shards)) / shards, nil
}

// learnExpiries lets Size leave out what has expired. Until it has, and if it fails,
// such keys count.
func (r *replica) learnExpiries(ctx context.Context) {
	if err := r.store.LearnExpiries(ctx, r.node.wall()); err != nil && ctx.Err() == nil {
		r.log.Warn("keys that have expired count among the keys", "error", err)
	}
}
