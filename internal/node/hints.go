package node

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"syntropy/coordinator"
	"syntropy/lww"
)

const (
	// replayBytes is how much one message of a replay carries at most.
	replayBytes = 256 << 10
	// replayRetry is the pause after a replay that failed while the peer is up.
	replayRetry = 5 * time.Second
	// defaultHintRate bounds the replay to one peer: what piled up in hours must not
	// hit a node that has just come back all at once.
	defaultHintRate = 8 << 20
)

// keepHint stores entries for a replica that did not get them. A write never fails
// because its hint could not be kept: anti-entropy is there for the rest.
func (r *replica) keepHint(s coordinator.Send) {
	p := r.peer(s.To)
	if p == nil {
		return // this node itself: what its disk did not take, no queue on it will
	}
	if r.node.opts.NoHints {
		p.addMissed(s.Entries...)
		return
	}
	err := r.room.take(entriesBytes(s.Entries), time.Now())
	if err == nil {
		err = r.hints.Add(s.To, s.Entries)
	}
	if coded := (*Error)(nil); errors.As(err, &coded) {
		p.addMissed(s.Entries...)
		r.log.Debug("no room to keep writes for a replica that is away", "peer", s.To.String(), "count", len(s.Entries))
		return
	}
	if err != nil {
		p.addMissed(s.Entries...)
		r.log.Warn("could not keep writes for a replica that is away: only a repair will bring them", "peer", s.To.String(), "count", len(s.Entries), "error", err)
		return
	}
	p.wakeReplay()
}

// wakeReplay lets the replay to the peer look for hints.
func (p *peer) wakeReplay() {
	select {
	case p.replay <- struct{}{}:
	default:
	}
}

// replayHints brings a peer what was kept for it, whenever it is up, until ctx
// ends.
func (r *replica) replayHints(ctx context.Context, p *peer) {
	bytes := r.node.opts.HintBytesPerSecond
	if bytes <= 0 {
		bytes = defaultHintRate
	}
	// A message must fit into the burst, however large its one entry is.
	limit := rate.NewLimiter(rate.Limit(bytes), max(int(bytes), replayBytes+lww.MaxKeyBytes+lww.MaxValueBytes))
	p.wakeReplay() // for what is there from before the start
	pause := time.NewTimer(replayRetry)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.replay:
		}
		if err := r.replayTo(ctx, p, limit); err != nil && ctx.Err() == nil {
			r.log.Warn("the replay of hints was interrupted; it goes on in a while", "peer", p.id.String(), "pause", replayRetry, "error", err)
			p.wakeReplay()
			// Whatever makes new hints meanwhile: a peer that cannot take them now
			// is not helped by being asked more often.
			pause.Reset(replayRetry)
			select {
			case <-ctx.Done():
				return
			case <-pause.C:
			}
		}
	}
}

// replayTo sends all hints for a peer while it is up, oldest first.
func (r *replica) replayTo(ctx context.Context, p *peer, limit *rate.Limiter) error {
	delivered := 0
	defer func() {
		if delivered > 0 {
			r.log.Info("brought a node the writes that were kept for it", "peer", p.id.String(), "count", delivered)
			r.node.opts.Events.hintsReplayed(p.id, delivered)
		}
	}()
	for p.takes(StateLive, StateJoining) && !p.hasNoRoom() {
		batch, err := r.hints.Next(p.id, r.clock.now(), replayBytes)
		if err != nil || len(batch.Entries) == 0 {
			return err
		}
		size := 0
		for _, e := range batch.Entries {
			size += lww.EncodedLen(e)
		}
		if err := limit.WaitN(ctx, size); err != nil {
			return nil // the node stops
		}
		call, cancel := context.WithTimeout(ctx, r.settings.RequestDeadline)
		answers, err := r.apply(call, p, batch.Entries, forHint)
		cancel()
		if err != nil {
			if !p.usable() {
				return nil // it has gone again: its return starts a new replay
			}
			return err
		}
		rejected := 0
		for _, a := range answers {
			switch a.Outcome {
			case coordinator.Deferred: // the batch stays, and comes again as a whole
				return errors.New(a.Reason)
			case coordinator.Rejected:
				rejected++
			}
		}
		r.counters.hintsRejected.Add(int64(rejected))
		delivered += len(answers) - rejected
		if err := r.hints.Delivered(batch); err != nil {
			return err
		}
	}
	return nil
}

// expireHints frees, now and then, what is kept of hints that nobody would take
// any more.
func (r *replica) expireHints(ctx context.Context) {
	tick := time.NewTicker(min(max(r.settings.HintWindow/10, time.Second), time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.hints.Expire(r.clock.now()); err != nil {
			r.log.Error("could not drop old hints", "error", err)
		}
	}
}

var errLeaving = errors.New("the peer is about to stop")
