package node

import (
	"context"
	"slices"
	"strings"
	"time"

	"syntropy/hlc"
)

// fill brings a node that started empty level with every other member, and then
// lets it serve. Each of them may hold something that no other does.
func (r *replica) fill(ctx context.Context) {
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	missing := r.others()
	for {
		missing = slices.DeleteFunc(missing, func(id hlc.NodeID) bool {
			var report RepairReport
			run := r.runSession(ctx, id, nil, RepairOptions{}, r.clock.now(), &report)
			if run.err == nil {
				r.log.Info("filled from a member", "member", id.String(), "entries", report.KeysPulled, "bytes", report.BytesReceived)
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
