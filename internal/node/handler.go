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
	"syntropy/report"
	"syntropy/ring"
	"syntropy/storage"
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

func (h *peerHandler) Enroll(ctx context.Context, req topology.EnrollRequest) (topology.EnrollReply, error) {
	consensus, _, err := h.node.consensusOf()
	if err != nil {
		return topology.EnrollReply{}, err
	}
	return consensus.HandleEnroll(ctx, req)
}

func (h *peerHandler) Consensus(_ context.Context, req *peerpb.ConsensusRequest) error {
	consensus, record, err := h.node.consensusOf()
	if err != nil {
		return err
	}
	switch {
	case req.GetClusterId() != record.ClusterID:
		return &rpc.Refusal{Code: rpc.CodeForeignCluster, Text: fmt.Sprintf("the sender belongs to cluster %.8s, this node to cluster %.8s", req.GetClusterId(), record.ClusterID)}
	case req.GetRecordFingerprint() != record.Fingerprint():
		return &rpc.Refusal{Code: rpc.CodeSettings, Text: "the sender has another cluster record than this node"}
	}
	if table := h.node.newestTable(); table != nil {
		if self, ok := table.MemberByAddr(h.node.opts.PeerAddr); ok && hlc.NodeID(req.GetTo()) != self.ID {
			return &rpc.Refusal{Code: rpc.CodeUnknownNode, Text: fmt.Sprintf("this is %v, not %v", self.ID, hlc.NodeID(req.GetTo()))}
		}
	}
	return consensus.Receive(req.GetMessages())
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
		// A peer that has dialled again goes on over its new link; what it began on
		// this one is found idle in time.
		if p := r.peer(from); p == nil || p.addInbound(-1) == 0 {
			r.sessions.drop(from)
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
	case *peerpb.Message_Leaving:
		return r.handleLeaving(ctx, from)
	case *peerpb.Message_Scrub:
		return r.handleScrub(ctx, body.Scrub)
	}
	if err := r.mayServe(false); err != nil {
		return nil, err
	}
	switch body := req.Body.(type) {
	case *peerpb.Message_Apply:
		return r.handleApply(body.Apply)
	case *peerpb.Message_Lookup:
		return r.handleLookup(body.Lookup)
	case *peerpb.Message_Scan:
		return r.handleScan(body.Scan)
	case *peerpb.Message_Session:
		return r.handleSession(from, body.Session), nil
	case *peerpb.Message_Repair:
		return r.handleRepair(ctx, body.Repair)
	}
	return nil, &Error{rpc.CodeUnsupported, fmt.Sprintf("this node does not know requests of type %T", req.Body)}
}

func (r *replica) handleHeartbeat() *peerpb.Message {
	st := r.store.Stats()
	reply := &peerpb.HeartbeatReply{
		WallUs: r.node.wall().UnixMicro(), State: r.currentState(), Entries: int64(st.Entries), Tombstones: int64(st.Tombstones),
		TopologyVersion: r.layout().table.Version, HintsPending: r.hintsPending(), Disk: r.diskMessage(),
	}
	for _, id := range r.layout().partners() {
		if until, ok := r.proofs.get(id); ok {
			reply.Proofs = append(reply.Proofs, &peerpb.Proof{With: uint32(id), UntilUs: until.UnixMicro()})
		}
	}
	return &peerpb.Message{Body: &peerpb.Message_HeartbeatReply{HeartbeatReply: reply}}
}

// oldestFirstArrival is the stamp below which no write may arrive here for the
// first time from a client's coordinator: whatever is older comes in sessions.
// Deletes can be forgotten one day only because nothing older can still arrive.
func (r *replica) oldestFirstArrival() hlc.Stamp {
	s := r.settings
	return r.clock.now().Add(-(s.HintWindow + s.RequestDeadline + s.MaxClockSkew))
}

// handleApply applies what another node sends for its clients: their writes, now or
// later, and the newer versions that their reads have seen elsewhere.
func (r *replica) handleApply(req *peerpb.Apply) (*peerpb.Message, error) {
	l := r.layout()
	reply := new(peerpb.ApplyReply)
	reject := func(i int, err error, forGood bool) {
		reply.Rejected = append(reply.Rejected, &peerpb.Rejected{Index: uint32(i), Reason: err.Error(), ForGood: forGood})
	}
	size := int64(0)
	for _, raw := range req.Entries {
		size += int64(len(raw))
	}
	if err := r.room.take(size, time.Now()); err != nil {
		return nil, err
	}
	oldest := r.oldestFirstArrival()
	if req.Flags == forReadRepair {
		oldest = 0 // it has arrived long ago, on another replica
	}
	entries := make([]lww.Entry, 0, len(req.Entries))
	index := make([]uint32, 0, len(req.Entries)) // of each entry, in the request
	for i, raw := range req.Entries {
		e, rest, err := lww.DecodeEntry(raw)
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("%w: %d bytes follow it", lww.ErrMalformed, len(rest))
		}
		if err == nil && e.Newest() < oldest {
			err = fmt.Errorf("stamped %v, which is too old to arrive now", e.Newest())
		}
		if err != nil {
			reject(i, err, true)
			continue
		}
		if shard, _ := r.store.Locate(e.Key); !l.table.Holds(r.self, shard) {
			err = fmt.Errorf("%v holds no replica of shard %d in version %d of the topology", r.self, shard, l.table.Version)
		} else {
			err = r.clock.Observe(e.Newest())
		}
		if err != nil { // a later topology, or a clock that is set right, may make it welcome
			reject(i, err, false)
			continue
		}
		entries = append(entries, e)
		index = append(index, uint32(i))
	}
	results, err := r.store.Apply(entries)
	if err != nil {
		return nil, err
	}
	for i, res := range results {
		if res.Outcome == storage.Shadowed {
			reply.Shadowed = append(reply.Shadowed, &peerpb.Shadowed{Index: index[i], Version: lww.AppendRow(nil, lww.Entry{Version: res.Version})})
		}
	}
	reply.Applied = uint32(len(results) - len(reply.Shadowed))
	return &peerpb.Message{Body: &peerpb.Message_ApplyReply{ApplyReply: reply}}, nil
}

// handleLookup returns what this replica holds of some keys.
func (r *replica) handleLookup(req *peerpb.Lookup) (*peerpb.Message, error) {
	if err := r.mayServe(true); err != nil && !req.Inspect {
		return nil, err
	}
	reply := &peerpb.LookupReply{Digests: make([][]byte, 0, len(req.Keys)+len(req.DigestKeys))}
	found, err := r.lookupHere(req.Keys)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		var raw, digest []byte
		if f.OK {
			raw, digest = lww.AppendEntry(nil, f.Entry), r.digest(f.Entry).Append(nil)
		}
		reply.Entries, reply.Digests = append(reply.Entries, raw), append(reply.Digests, digest)
	}
	for _, key := range req.DigestKeys {
		e, ok, err := r.store.Get(key)
		if err != nil {
			return nil, err
		}
		var digest []byte
		if ok {
			digest = r.digest(e).Append(nil)
		}
		reply.Digests = append(reply.Digests, digest)
	}
	return &peerpb.Message{Body: &peerpb.Message_LookupReply{LookupReply: reply}}, nil
}

// handleScan returns a page of one shard.
func (r *replica) handleScan(req *peerpb.Scan) (*peerpb.Message, error) {
	if err := r.mayServe(true); err != nil {
		return nil, err
	}
	if int(req.Shard) >= r.store.Shards() || req.From > uint64(ring.MaxToken) || req.To > uint64(ring.MaxToken)+1 {
		return nil, &Error{CodeInvalid, "a scan from a place that does not exist"}
	}
	p, err := r.pageHere(pageRequest{
		shard: int(req.Shard), from: ring.Token(req.From), to: ring.Token(req.To), count: min(int(req.EntriesMax), maxScanned),
		bytesMax: min(int(req.BytesMax), maxScannedBytes), values: req.Values,
	})
	if err != nil {
		return nil, err
	}
	reply := &peerpb.ScanReply{Next: uint64(p.next), More: p.more}
	for _, e := range p.entries {
		reply.Entries = append(reply.Entries, lww.AppendEntry(nil, e))
	}
	return &peerpb.Message{Body: &peerpb.Message_ScanReply{ScanReply: reply}}, nil
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
	var opts report.RepairOptions
	if err := json.Unmarshal(req.OptionsJson, &opts); err != nil {
		return nil, fmt.Errorf("malformed repair options: %w", err)
	}
	ctx, end := r.repairs.begin(ctx)
	defer end()
	outcome := r.repairPair(ctx, hlc.NodeID(req.Partner), opts)
	raw, err := json.Marshal(outcome)
	if err != nil {
		return nil, err
	}
	return &peerpb.Message{Body: &peerpb.Message_RepairReply{RepairReply: &peerpb.RepairReply{ReportJson: raw}}}, nil
}

// callTimeout bounds a request between nodes that no client waits for. A
// session's message may make the partner read many rows and write many entries.
const callTimeout = 30 * time.Second
