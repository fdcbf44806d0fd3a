package node

import (
	"context"
	"slices"
	"strings"
	"time"

	"syntropy/hlc"
	"syntropy/report"
)

// fill brings a node that started empty level with every member that holds a shard
// that it holds too, and then lets it serve. Each of them may hold something that no other does.
func (r *replica) fill(ctx context.Context) {
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	missing := r.layout().partners()
	// A member that has never had a disk holds nothing that this node could lack.
	missing = slices.DeleteFunc(missing, func(id hlc.NodeID) bool {
		m, _ := r.layout().table.Member(id)
		return m.Founder == ""
	})
	for {
		missing = slices.DeleteFunc(missing, func(id hlc.NodeID) bool {
			var outcome report.Repair
			now := r.clock.now()
			run := r.runSession(ctx, id, report.RepairOptions{}, look{asOf: now, settled: now}, &outcome)
			if run.err == nil {
				r.log.Info("filled from a member", "member", id.String(), "entries", outcome.KeysPulled, "bytes", outcome.BytesReceived)
			}
			return run.err == nil
		})
		if len(missing) == 0 {
			break
		}
		r.setReason("this node started with an empty data directory and still needs a session with " + join(missing))
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != StateJoining {
		return
	}
	r.state, r.reason = StateLive, ""
	if err := r.saveState(); err != nil {
		r.log.Error("could not record that this node is filled: it will be filled again at the next start", "error", err)
		return
	}
	r.log.Info("this node is filled and serves reads")
	r.node.opts.Events.stateChanged(r.state, "")
}

func (r *replica) setReason(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == StateJoining {
		r.reason = reason
	}
}

func join(ids []hlc.NodeID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	return strings.Join(names, ", ")
}
