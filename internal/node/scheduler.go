package node

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
)

// scheduler lets this node go round its partners: one session at a time, the pair
// with the oldest proof first, each pair within each repair interval.
type scheduler struct {
	r    *replica
	wake chan struct{}

	mu       sync.Mutex
	schedule *antientropy.Schedule
}

// newScheduler returns the scheduler of a node. Unless it was stopped in order, it
// compares with every partner soon.
func newScheduler(r *replica, clean bool) *scheduler {
	var seed uint64 // different on each node, or all would begin at once
	if raw, err := hex.DecodeString(r.incarnation); err == nil && len(raw) >= 8 {
		seed = binary.BigEndian.Uint64(raw)
	}
	s := &scheduler{r: r, wake: make(chan struct{}, 1)}
	s.schedule = antientropy.NewSchedule(r.self, antientropy.ScheduleOptions{
		Interval: r.node.opts.RepairInterval, Settle: r.settings.Settle, Seed: seed,
	})
	s.setPartners()
	for _, id := range r.layout().partners() {
		if until, ok := r.proofs.get(id); ok && clean {
			s.schedule.Proven(id, until)
		}
	}
	return s
}

func (s *scheduler) setPartners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedule.SetPartners(s.r.layout().partners())
}

// proven takes note of a completed session, whoever began it.
func (s *scheduler) proven(partner hlc.NodeID, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedule.Proven(partner, until)
}

// reconsider lets the scheduler look again at what is due.
func (s *scheduler) reconsider() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (r *replica) rescheduled() {
	r.schedule.setPartners()
	r.schedule.reconsider()
}

// run begins the sessions that are due until ctx ends.
func (s *scheduler) run(ctx context.Context) {
	if s.r.node.opts.RepairInterval <= 0 {
		return
	}
	for {
		partner, wait := s.next()
		if partner == 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			case <-s.wake:
				timer.Stop()
			}
			continue
		}
		s.session(ctx, partner)
		if ctx.Err() != nil {
			return
		}
	}
}

// idleLook is how often the schedule is looked at when nothing wakes it.
const idleLook = 15 * time.Second

// next returns the partner that is due now, or zero and for how long to wait.
func (s *scheduler) next() (hlc.NodeID, time.Duration) {
	if s.r.mayServe(false) != nil {
		return 0, time.Second
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.r.layout()
	partner, wait, ok := s.schedule.Next(s.r.node.wall(), func(id hlc.NodeID) bool {
		p := l.peers[id]
		return p != nil && p.takes(StateLive, StateJoining)
	})
	switch {
	case !ok:
		return 0, idleLook
	case wait > 0:
		return 0, min(wait, idleLook)
	}
	return partner, 0
}

// session runs one session. What is in flight is left to the next one.
func (s *scheduler) session(ctx context.Context, partner hlc.NodeID) {
	ctx, end := s.r.repairs.begin(ctx)
	defer end()
	before, _ := s.r.proofs.get(partner)
	outcome := s.r.repairSettled(ctx, partner)
	log := s.r.log.With("partner", partner.String(), "duration_ms", outcome.DurationMS)
	if after, _ := s.r.proofs.get(partner); outcome.Error != "" || !after.After(before) {
		s.mu.Lock()
		s.schedule.Failed(partner, s.r.node.wall())
		s.mu.Unlock()
		log.Info("a scheduled session did not complete; it is tried again", "error", outcome.Error)
		return
	}
	s.r.counters.sessions.Add(1)
	if outcome.KeysDiverged > 0 {
		log.Info("a scheduled session repaired differences", "diverged", outcome.KeysDiverged, "pulled", outcome.KeysPulled, "pushed", outcome.KeysPushed)
	}
}
