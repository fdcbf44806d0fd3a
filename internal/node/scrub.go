package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/report"
	"syntropy/storage"
)

const (
	// healTries bounds how often a shard is healed and scrubbed again until it is
	// well: the first time may race with a leaf that is split.
	healTries = 4
	// healLeaves is how many leaves are healed at a time, a few thousand rows: they
	// are held in memory, and the store takes no writes meanwhile.
	healLeaves = 64
	// healRetry is the pause after a shard that could not be healed, such as because
	// no other replica is up.
	healRetry = 15 * time.Second
	// defaultScrubRate bounds what the scrub in the background reads: a small part of
	// what a disk can.
	defaultScrubRate = 16 << 20
)

// metaScrub keeps over a restart how far the scrub in the background has come, and
// what is in quarantine.
const metaScrub = "scrub"

// scrubRecord is what is kept under it.
type scrubRecord struct {
	Finished    time.Time           `json:"finished"` // the last scrub of all shards
	Next        int                 `json:"next"`     // the shard to go on with
	Quarantined []report.Quarantine `json:"quarantined,omitempty"`
}

// scrubber compares disk and trees: slowly and always in the background, and at once
// what there is reason to doubt. What it finds it puts into quarantine, and heals from
// another replica.
type scrubber struct {
	r    *replica
	wake chan struct{}

	one sync.Mutex // held while a shard is scrubbed: one at a time on this node

	mu       sync.Mutex
	doubted  map[int]bool // shards to be scrubbed at once; true: kept out of sessions until then
	record   scrubRecord
	since    map[merkle.Node]time.Time // of what is in quarantine
	progress *report.ScrubProgress
}

func openScrubber(r *replica) (*scrubber, error) {
	s := &scrubber{r: r, wake: make(chan struct{}, 1), doubted: make(map[int]bool), since: make(map[merkle.Node]time.Time)}
	raw, found, err := r.store.Meta(metaScrub)
	if err != nil || !found {
		s.record.Finished = r.node.wall() // of a new store everything has just been written
		return s, err
	}
	if err := json.Unmarshal(raw, &s.record); err != nil {
		r.log.Warn("what is known of the last scrub cannot be read: it begins anew", "error", err)
		s.record = scrubRecord{}
		for shard := range r.store.Shards() {
			s.doubted[shard] = false
		}
	}
	for _, q := range s.record.Quarantined {
		if q.Shard >= 0 && q.Shard < r.store.Shards() {
			r.store.Quarantine(storage.Suspect{Node: r.store.ShardNode(q.Shard), Reason: q.Reason})
			s.doubted[q.Shard] = true
		}
	}
	return s, nil
}

// save stores what is to be known after a restart.
func (s *scrubber) save() {
	s.mu.Lock()
	record := s.record
	s.mu.Unlock()
	record.Quarantined, _, _ = s.describe()
	// A shard is enough: it is scrubbed again as a whole.
	slices.SortStableFunc(record.Quarantined, func(a, b report.Quarantine) int { return cmp.Compare(a.Shard, b.Shard) })
	record.Quarantined = slices.CompactFunc(record.Quarantined, func(a, b report.Quarantine) bool { return a.Shard == b.Shard })
	raw, err := json.Marshal(record)
	if err == nil {
		err = s.r.store.PutMeta(metaScrub, raw)
	}
	if err != nil {
		s.r.log.Error("could not record what is in quarantine", "error", err)
	}
}

// doubt has a shard scrubbed and healed soon. aside keeps it out of sessions until
// then.
func (s *scrubber) doubt(shard int, aside bool) {
	s.mu.Lock()
	before, known := s.doubted[shard]
	s.doubted[shard] = before || aside
	s.mu.Unlock()
	if !known {
		s.again()
	}
}

// again lets the scrubber try again what is in doubt.
func (s *scrubber) again() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sidelined returns the shards that take part in no session now, ascending: what is
// in quarantine, and those that a session found to be wrong.
func (s *scrubber) sidelined() []int {
	aside := make(map[int]bool)
	for _, p := range s.r.store.Suspects() {
		aside[p.Node.First().Shard(s.r.store.Shards())] = true
	}
	s.mu.Lock()
	for shard, out := range s.doubted {
		if out {
			aside[shard] = true
		}
	}
	s.mu.Unlock()
	return slices.Sorted(maps.Keys(aside))
}

// describe returns what is in quarantine and how the scrub is doing.
func (s *scrubber) describe() (parts []report.Quarantine, progress *report.ScrubProgress, finished *time.Time) {
	shards := s.r.store.Shards()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.r.store.Suspects() {
		since, ok := s.since[p.Node]
		if !ok {
			since = s.r.node.wall().Round(0)
			s.since[p.Node] = since
		}
		q := report.Quarantine{Shard: p.Node.First().Shard(shards), Since: since, Reason: p.Reason}
		q.FromToken, q.ToToken = tokensOf(p.Node, shards)
		if parts = append(parts, q); len(parts) == report.MaxListed {
			break
		}
	}
	if s.progress != nil {
		now := *s.progress
		progress = &now
	}
	if at := s.record.Finished; !at.IsZero() {
		finished = &at
	}
	return parts, progress, finished
}

// run scrubs until ctx ends.
func (s *scrubber) run(ctx context.Context) {
	limit := rate.NewLimiter(rate.Limit(cmp.Or(s.r.node.opts.ScrubBytesPerSecond, defaultScrubRate)), 1<<20)
	slowly := func(bytes int) error { return limit.WaitN(ctx, min(bytes, 1<<20)) }
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		background := time.NewTimer(s.untilNext())
		var due bool
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-retry.C:
		case <-s.r.rotten.found:
			for _, shard := range s.r.rotten.takeChecks() {
				s.doubt(shard, false)
			}
		case <-s.r.store.Suspected():
			for _, p := range s.r.store.Suspects() {
				s.doubt(p.Node.First().Shard(s.r.store.Shards()), false)
			}
			s.save()
		case <-background.C:
			due = true
		}
		background.Stop()
		if ctx.Err() != nil {
			return
		}
		if !s.settleDoubts(ctx) {
			retry.Reset(healRetry)
		}
		if due && ctx.Err() == nil {
			s.next(ctx, slowly)
		}
	}
}

// settleDoubts scrubs and heals what is in doubt, and reports whether nothing is left.
func (s *scrubber) settleDoubts(ctx context.Context) (settled bool) {
	s.mu.Lock()
	shards := slices.Sorted(maps.Keys(s.doubted))
	s.mu.Unlock()
	settled = true
	for _, shard := range shards {
		problem, _, err := s.shard(ctx, shard, true, false, nil)
		if ctx.Err() != nil {
			return false
		}
		if err == nil && (problem == nil || problem.Healed) {
			s.mu.Lock()
			delete(s.doubted, shard)
			s.mu.Unlock()
			s.r.schedule.reconsider()
			continue
		}
		settled = false
	}
	return settled
}

// untilNext returns for how long the scrub in the background waits.
func (s *scrubber) untilNext() time.Duration {
	interval := s.r.node.opts.ScrubInterval
	if interval <= 0 {
		return time.Hour // and then it is not due either
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record.Next > 0 { // in the middle of it
		return 0
	}
	return min(max(s.record.Finished.Add(interval).Sub(s.r.node.wall()), 0), interval)
}

// next scrubs one more shard in the background.
func (s *scrubber) next(ctx context.Context, slowly func(int) error) {
	if s.r.node.opts.ScrubInterval <= 0 {
		return
	}
	s.mu.Lock()
	shard := s.record.Next
	s.progress = &report.ScrubProgress{Shards: s.r.store.Shards(), Done: shard}
	s.mu.Unlock()
	problem, _, err := s.shard(ctx, shard, true, false, slowly)
	if ctx.Err() != nil {
		return
	}
	if err != nil || problem != nil && !problem.Healed {
		s.doubt(shard, false)
	}
	s.mu.Lock()
	if s.record.Next++; s.record.Next >= s.r.store.Shards() {
		s.record.Next, s.record.Finished, s.progress = 0, s.r.node.wall().Round(0), nil
	}
	s.mu.Unlock()
	s.save()
}

// shard scrubs one shard, and heals it if asked to. problem is nil if nothing was
// wrong. alone lets it believe what can be read where this is the only replica.
func (s *scrubber) shard(ctx context.Context, shard int, heal, alone bool, read func(int) error) (problem *report.ScrubProblem, seen storage.Findings, err error) {
	s.one.Lock()
	defer s.one.Unlock()
	store := s.r.store
	for try := range healTries {
		f, err := s.look(ctx, shard, read)
		if err != nil {
			return problem, f, err
		}
		if try == 0 {
			seen = f
		}
		if f.Healthy() {
			store.Release(store.ShardNode(shard))
			if problem != nil {
				problem.Healed, problem.Error = true, ""
				s.r.log.Info("a shard is healed: disk and tree agree", "shard", shard, "from", problem.From.String(), "rows", problem.RowsChanged)
			}
			s.forget(shard)
			return problem, seen, nil
		}
		if problem == nil {
			problem = &report.ScrubProblem{
				Shard: shard, WrongLeaves: len(f.Wrong), UnreadableLeaves: len(f.Unreadable), IndexWrong: f.IndexWrong,
				TotalsWrong: len(f.Leaves()) == 0 && (f.Tree != f.Rows || f.TombstonesTree != f.TombstonesRows),
			}
			s.r.log.Error("disk and tree of a shard do not agree: what is wrong is in quarantine", "shard", shard,
				"wrong_leaves", len(f.Wrong), "unreadable_leaves", len(f.Unreadable), "index_wrong", f.IndexWrong, "error", f.Err)
		}
		s.quarantine(f)
		if !heal {
			problem.Error = text(f.Err)
			return problem, seen, nil
		}
		if err := s.heal(ctx, f, alone, problem); err != nil && !errors.Is(err, storage.ErrChanged) {
			problem.Error = err.Error()
			if f.Err != nil {
				problem.Error += "; " + f.Err.Error()
			}
			s.r.log.Warn("a shard could not be healed; it is tried again", "shard", shard, "error", err)
			return problem, seen, nil
		}
	}
	problem.Error = fmt.Sprintf("it is not well after it was healed %d times", healTries)
	return problem, seen, nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s *scrubber) look(ctx context.Context, shard int, read func(int) error) (storage.Findings, error) {
	view := s.r.store.Snapshot()
	defer view.Close()
	return view.Scrub(ctx, shard, func(n int) error {
		s.mu.Lock()
		if s.progress != nil {
			s.progress.Bytes += uint64(n)
		}
		s.mu.Unlock()
		if read != nil {
			return read(n)
		}
		return nil
	})
}

// quarantine keeps what is wrong from being read, now and after a restart.
func (s *scrubber) quarantine(f storage.Findings) {
	for _, leaf := range f.Unreadable {
		s.r.store.Quarantine(storage.Suspect{Node: leaf, Reason: "rows cannot be read: " + text(f.Err)})
	}
	for _, leaf := range f.Wrong {
		s.r.store.Quarantine(storage.Suspect{Node: leaf, Wrong: !slices.Contains(f.Unreadable, leaf), Reason: "rows and digests do not match"})
	}
	s.save()
}

func (s *scrubber) forget(shard int) {
	s.mu.Lock()
	n := len(s.since)
	maps.DeleteFunc(s.since, func(node merkle.Node, _ time.Time) bool {
		return node.First().Shard(s.r.store.Shards()) == shard
	})
	changed := n != len(s.since) || slices.ContainsFunc(s.record.Quarantined, func(q report.Quarantine) bool { return q.Shard == shard })
	s.record.Quarantined = slices.DeleteFunc(slices.Clone(s.record.Quarantined), func(q report.Quarantine) bool { return q.Shard == shard })
	s.mu.Unlock()
	if changed {
		s.save()
	}
}

// heal brings the leaves that are wrong in line with another replica. A block that
// cannot be read may hold rows of the shards before and after; then they are healed
// together.
func (s *scrubber) heal(ctx context.Context, f storage.Findings, alone bool, problem *report.ScrubProblem) error {
	for _, part := range f.Parts(healLeaves) {
		err := s.healTogether(ctx, []storage.Findings{part}, alone, problem)
		var wider *storage.WiderError
		if errors.As(err, &wider) {
			return s.healWider(ctx, f.Shard, wider, alone, problem)
		}
		if err != nil {
			return err
		}
	}
	if f.IndexWrong {
		if _, err := s.r.store.HealIndex(ctx, f.Shard); err != nil {
			return err
		}
	}
	return nil
}

// healWider heals a shard with as many of its neighbours as it takes.
func (s *scrubber) healWider(ctx context.Context, shard int, wider *storage.WiderError, alone bool, problem *report.ScrubProblem) error {
	first, last := shard, shard
	for {
		if wider.Below {
			first--
		}
		if wider.Above {
			last++
		}
		if first < 0 || last >= s.r.store.Shards() {
			return fmt.Errorf("%w: it cannot be healed in place, only with an empty data directory", wider)
		}
		var all []storage.Findings
		for shard := first; shard <= last; shard++ {
			f, err := s.look(ctx, shard, nil)
			if err != nil {
				return err
			}
			s.quarantine(f)
			s.doubt(shard, true) // until it is looked at once more
			all = append(all, f)
		}
		if err := s.healTogether(ctx, all, alone, problem); !errors.As(err, &wider) {
			return err
		}
	}
}

func (s *scrubber) healTogether(ctx context.Context, all []storage.Findings, alone bool, problem *report.ScrubProblem) error {
	var theirs []lww.Entry
	for _, f := range all {
		if len(f.Leaves()) == 0 {
			continue
		}
		from, err := s.source(f.Shard, alone)
		if err != nil {
			return err
		}
		if from == 0 {
			continue
		}
		entries, err := s.r.fetch(ctx, from, f.Shard, f.Leaves())
		if err != nil {
			return fmt.Errorf("reading the rows of %v: %w", from, err)
		}
		theirs, problem.From = append(theirs, entries...), from
	}
	if err := s.r.room.take(entriesBytes(theirs), time.Now()); err != nil {
		return err
	}
	h, err := s.r.store.Heal(theirs, all...)
	problem.RowsChanged += h.Changed
	return err
}

// source chooses the replica to heal a shard from; zero if there is none but this one,
// and it is to be believed alone.
func (s *scrubber) source(shard int, alone bool) (hlc.NodeID, error) {
	l := s.r.layout()
	for _, id := range l.order[shard] {
		p := l.peers[id]
		if p != nil && p.takes(StateLive) && !slices.Contains(p.sidelinedShards(), shard) {
			return id, nil
		}
	}
	switch others := slices.DeleteFunc(slices.Clone(l.order[shard]), func(id hlc.NodeID) bool { return id == s.r.self }); {
	case len(others) > 0:
		return 0, errors.New("no other replica of the shard is up and well: it is healed when one is")
	case !alone:
		return 0, errors.New("this is the only replica, so there is none to heal it from: syntropy scrub --heal accepts what can be read, and forgets the rest")
	}
	return 0, nil
}

// fetch reads all rows under some leaves of a shard from another replica.
func (r *replica) fetch(ctx context.Context, id hlc.NodeID, shard int, leaves []merkle.Node) (entries []lww.Entry, err error) {
	for _, leaf := range leaves {
		from, _ := leaf.First().Tokens(r.store.Shards())
		_, last := leaf.Last().Tokens(r.store.Shards())
		for more := true; more; {
			p, err := r.fetchPage(ctx, id, pageRequest{shard: shard, from: from, to: last + 1, count: maxScanned, bytesMax: maxScannedBytes, values: true})
			if err != nil {
				return nil, err
			}
			for _, e := range p.entries {
				// What is stamped too far ahead of this clock is left to sessions, which
				// bring it when its time has come.
				if r.clock.Observe(e.Newest()) == nil {
					entries = append(entries, e)
				}
			}
			if from, more = p.next, p.more && p.next <= last; !more {
				break
			}
		}
	}
	return entries, nil
}

func (r *replica) fetchPage(ctx context.Context, id hlc.NodeID, req pageRequest) (page, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return r.pageOf(ctx, id, req)
}

func entriesBytes(entries []lww.Entry) (n int64) {
	for _, e := range entries {
		n += int64(lww.EncodedLen(e))
	}
	return n
}

// Scrub compares the disk of this node, or of another one, with its trees.
func (n *Node) Scrub(ctx context.Context, opts report.ScrubOptions) (report.Scrub, error) {
	r, err := n.enter()
	if err != nil {
		return report.Scrub{}, err
	}
	defer n.leave()
	if opts.Shard != nil && (*opts.Shard < 0 || *opts.Shard >= r.store.Shards()) {
		return report.Scrub{}, &Error{CodeNoSuchShard, fmt.Sprintf("there is no shard %d: shards are 0 to %d", *opts.Shard, r.store.Shards()-1)}
	}
	ctx, end := r.audits.begin(ctx)
	defer end()
	if opts.Node == 0 || opts.Node == r.self {
		return r.scrub(ctx, opts), nil
	}
	p, err := r.member(opts.Node)
	if err != nil {
		return report.Scrub{}, err
	}
	return r.askScrub(ctx, p, opts)
}

// scrub carries out what an operator asks for.
func (r *replica) scrub(ctx context.Context, opts report.ScrubOptions) report.Scrub {
	began := time.Now()
	out := report.Scrub{Node: r.self, Problems: []report.ScrubProblem{}}
	shards := r.layout().table.HeldBy(r.self)
	if opts.Shard != nil {
		shards = []int{*opts.Shard}
	}
	r.scrubber.begin(len(shards))
	for i, shard := range shards {
		problem, seen, err := r.scrubber.shard(ctx, shard, opts.Heal, opts.Heal, nil)
		if err != nil {
			out.Error = cmp.Or(context.Cause(ctx), err).Error()
			break
		}
		out.Shards++
		out.Rows += seen.Rows.Count
		out.Bytes += seen.Bytes
		if problem == nil {
			out.Healthy++
		} else if len(out.Problems) < report.MaxListed {
			out.Problems = append(out.Problems, *problem)
		}
		if problem != nil && !problem.Healed {
			r.scrubber.doubt(shard, false)
		}
		r.scrubber.done(i + 1)
	}
	r.scrubber.done(-1)
	out.DurationMS = float64(time.Since(began).Microseconds()) / 1000
	return out
}

func (s *scrubber) begin(shards int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress = &report.ScrubProgress{Shards: shards}
}

// done tells how many shards are scrubbed; -1: the scrub is over.
func (s *scrubber) done(shards int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case shards < 0:
		s.progress = nil
	case s.progress != nil:
		s.progress.Done = shards
	}
}

func (r *replica) askScrub(ctx context.Context, p *peer, opts report.ScrubOptions) (out report.Scrub, err error) {
	if !p.usable() {
		return out, &Error{CodeUnavailable, fmt.Sprintf("%v is not connected: %s", p.id, p.whyNot())}
	}
	raw, err := json.Marshal(opts)
	if err != nil {
		return out, err
	}
	reply, err := p.link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Scrub{Scrub: &peerpb.Scrub{OptionsJson: raw}}})
	if err == nil {
		err = json.Unmarshal(reply.GetScrubReply().GetReportJson(), &out)
	}
	return out, err
}

// handleScrub scrubs for an operator who asked another node, or doubts a shard
// because a session with the sender found its digests to be wrong.
func (r *replica) handleScrub(ctx context.Context, req *peerpb.Scrub) (*peerpb.Message, error) {
	var opts report.ScrubOptions
	if err := json.Unmarshal(req.OptionsJson, &opts); err != nil {
		return nil, fmt.Errorf("malformed scrub options: %w", err)
	}
	if opts.Shard != nil && (*opts.Shard < 0 || *opts.Shard >= r.store.Shards()) {
		return nil, &Error{CodeNoSuchShard, "there is no such shard"}
	}
	ctx, end := r.audits.begin(ctx)
	defer end()
	raw, err := json.Marshal(r.scrub(ctx, opts))
	if err != nil {
		return nil, err
	}
	return &peerpb.Message{Body: &peerpb.Message_ScrubReply{ScrubReply: &peerpb.ScrubReply{ReportJson: raw}}}, nil
}

// treesDiffer has both sides of a session look at a shard whose digests contradict
// its entries: nobody knows yet whose are wrong.
func (r *replica) treesDiffer(p *peer, shard int) {
	r.scrubber.doubt(shard, true)
	r.work.Go(func() {
		ctx, end := r.audits.begin(context.Background())
		defer end()
		if _, err := r.askScrub(ctx, p, report.ScrubOptions{Shard: &shard, Heal: true}); err != nil {
			r.log.Warn("a partner did not scrub a shard that a session found wrong", "partner", p.id.String(), "shard", shard, "error", err)
		}
	})
}
