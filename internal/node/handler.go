package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"syntropy/hlc"
	"syntropy/internal/rpc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
	"syntropy/lww"
)

// peerHandler answers other nodes.
type peerHandler struct{ node *Node }

var _ rpc.Handler = (*peerHandler)(nil)

func (h *peerHandler) Meet(ctx context.Context, req topology.MeetRequest) topology.MeetReply {
	return h.node.registrar.HandleMeet(ctx, req)
}

func (h *peerHandler) Adopt(ctx context.Context, req topology.AdoptRequest) error {
	return h.node.registrar.HandleAdopt(ctx, req)
}

func (h *peerHandler) Hello(_ context.Context, hello *peerpb.Hello) (*peerpb.HelloAck, error) {
	r, err := h.node.running()
	if err != nil {
		return nil, &rpc.Refusal{Code: rpc.CodeUndecided, Text: "this node is still starting"}
	}
	return r.acceptHello(hello)
}

func (h *peerHandler) LinkClosed(from hlc.NodeID) {
	if r, err := h.node.running(); err == nil {
		r.sessions.drop(from)
		if p := r.peers[from]; p != nil {
			p.addInbound(-1)
		}
	}
}

func (h *peerHandler) Handle(ctx context.Context, from hlc.NodeID, req *peerpb.Message) *peerpb.Message {
	r, err := h.node.running()
	if err != nil {
		return failure(err)
	}
	reply, err := r.handle(ctx, from, req)
	if err != nil {
		return failure(err)
	}
	return reply
}

func failure(err error) *peerpb.Message {
	code := CodeFailed
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		code = coded.Code()
	}
	return &peerpb.Message{Body: &peerpb.Message_Failure{Failure: &peerpb.Failure{Code: code, Text: err.Error()}}}
}

func (r *replica) handle(ctx context.Context, from hlc.NodeID, req *peerpb.Message) (*peerpb.Message, error) {
	switch body := req.Body.(type) {
	case *peerpb.Message_Heartbeat:
		return r.handleHeartbeat(), nil
	case *peerpb.Message_Roots:
		return r.handleRoots(ctx, body.Roots)
	}
	if err := r.mayServe(false); err != nil {
		return nil, err
	}
	switch body := req.Body.(type) {
	case *peerpb.Message_Apply:
		return r.handleApply(body.Apply)
	case *peerpb.Message_Lookup:
		return r.handleLookup(body.Lookup)
	case *peerpb.Message_Session:
		return r.handleSession(from, body.Session), nil
	case *peerpb.Message_Repair:
		return r.handleRepair(ctx, body.Repair)
	}
	return nil, &Error{rpc.CodeUnsupported, fmt.Sprintf("this node does not know requests of type %T", req.Body)}
}

func (r *replica) handleHeartbeat() *peerpb.Message {
	st := r.store.Stats()
	return &peerpb.Message{Body: &peerpb.Message_HeartbeatReply{HeartbeatReply: &peerpb.HeartbeatReply{
		WallUs: r.node.wall().UnixMicro(), State: r.currentState(), Entries: int64(st.Entries), Tombstones: int64(st.Tombstones),
	}}}
}

// oldestFirstArrival is the stamp below which no write may arrive here for the
// first time from a client's coordinator: whatever is older comes in sessions.
// Deletes can be forgotten one day only because nothing older can still arrive.
func (r *replica) oldestFirstArrival() hlc.Stamp {
	s := r.settings
	return r.clock.now().Add(-(s.HintWindow + s.RequestDeadline + s.MaxClockSkew))
}

// handleApply applies the writes of another node's clients.
func (r *replica) handleApply(req *peerpb.Apply) (*peerpb.Message, error) {
	reply := new(peerpb.ApplyReply)
	reject := func(i int, err error) {
		reply.Rejected = append(reply.Rejected, &peerpb.Rejected{Index: uint32(i), Reason: err.Error()})
	}
	oldest := r.oldestFirstArrival()
	entries := make([]lww.Entry, 0, len(req.Entries))
	for i, raw := range req.Entries {
		e, rest, err := lww.DecodeEntry(raw)
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("%w: %d bytes follow it", lww.ErrMalformed, len(rest))
		}
		if err == nil && e.Newest() < oldest {
			err = fmt.Errorf("stamped %v, which is too old to arrive now", e.Newest())
		}
		if err == nil {
			err = r.clock.observe(e.Newest())
		}
		if err != nil {
			reject(i, err)
			continue
		}
		entries = append(entries, e)
	}
	results, err := r.store.Apply(entries)
	if err != nil {
		return nil, err
	}
	reply.Applied, reply.Shadowed = count(results)
	return &peerpb.Message{Body: &peerpb.Message_ApplyReply{ApplyReply: reply}}, nil
}

// handleLookup returns what this replica holds of some keys.
func (r *replica) handleLookup(req *peerpb.Lookup) (*peerpb.Message, error) {
	reply := &peerpb.LookupReply{Entries: make([][]byte, len(req.Keys)), Digests: make([][]byte, len(req.Keys))}
	for i, key := range req.Keys {
		e, found, err := r.store.Get(key)
		if err != nil {
			return nil, err
		}
		if found {
			reply.Digests[i] = r.store.Digest(e).Sum.Append(nil)
			reply.Entries[i] = lww.AppendEntry(nil, e)
		}
	}
	return &peerpb.Message{Body: &peerpb.Message_LookupReply{LookupReply: reply}}, nil
}

func (r *replica) handleRoots(ctx context.Context, req *peerpb.Roots) (*peerpb.Message, error) {
	roots, err := r.localRoots(ctx, req.Recompute)
	if err != nil {
		return nil, err
	}
	return &peerpb.Message{Body: &peerpb.Message_RootsReply{RootsReply: roots}}, nil
}

// handleRepair runs a session with a third node on behalf of the operator who
// asked the sender. Partner zero cancels what runs.
func (r *replica) handleRepair(ctx context.Context, req *peerpb.Repair) (*peerpb.Message, error) {
	if req.Partner == 0 {
		r.repairs.cancelAll(errCancelled)
		return &peerpb.Message{Body: &peerpb.Message_RepairReply{RepairReply: &peerpb.RepairReply{}}}, nil
	}
	var opts RepairOptions
	if err := json.Unmarshal(req.OptionsJson, &opts); err != nil {
		return nil, fmt.Errorf("malformed repair options: %w", err)
	}
	ctx, end := r.repairs.begin(ctx)
	defer end()
	report := r.repairPair(ctx, hlc.NodeID(req.Partner), opts)
	raw, err := json.Marshal(report)
	if err != nil {
		return nil, err
	}
	return &peerpb.Message{Body: &peerpb.Message_RepairReply{RepairReply: &peerpb.RepairReply{ReportJson: raw}}}, nil
}

// callTimeout bounds a request between nodes that no client waits for. A
// session's message may make the partner read many rows and write many entries.
const callTimeout = 30 * time.Second
