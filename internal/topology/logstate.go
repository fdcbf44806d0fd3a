package topology

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"syntropy/hlc"
)

// logState is what Run's goroutine works on.
type logState struct {
	node    *raft.RawNode
	store   *raft.MemoryStorage // what is or will be in D/topology.log
	voters  raftpb.ConfState    // after the entries applied
	table   *Table              // the same; the newest known may be newer
	applied uint64
	members map[uint64]Member // by disk, of the newest table
	ticks   int
	asked   int // members asked to propose something for this node
}

// open brings the state to where the disk has it.
func (l *Log) open() error {
	s := &l.state
	s.members = diskOwners(l.opts.Record, nil)
	store, err := l.opts.Dir.loadLog(l.opts.Record)
	if err == nil && store == nil {
		store, err = newLogStore(l.opts.Record)
	}
	if err != nil {
		return err
	}
	s.store = store
	snapshot, err := store.Snapshot()
	if err != nil {
		return err
	}
	if err := l.restore(snapshot); err != nil {
		return err
	}
	s.node, err = raft.NewRawNode(raftConfig(l.id, store, l.opts.Logger))
	return err
}

// restore takes over the state that a snapshot holds.
func (l *Log) restore(snapshot raftpb.Snapshot) error {
	s := &l.state
	s.voters, s.applied = snapshot.Metadata.ConfState, snapshot.Metadata.Index
	if len(snapshot.Data) == 0 {
		s.table = nil
		return nil
	}
	t, err := ParseTable(snapshot.Data)
	if err != nil {
		return fmt.Errorf("in the topology log: %w", err)
	}
	if err := t.fits(l.opts.Record); err != nil {
		return fmt.Errorf("in the topology log: %w", err)
	}
	s.table = t
	return l.keep(t)
}

// settle carries out what the library wants to be done, in the order that it
// demands: nothing is sent before what it rests on is on disk.
func (l *Log) settle(ctx context.Context) error {
	s := &l.state
	for s.node.HasReady() {
		ready := s.node.Ready()
		if !raft.IsEmptySnap(ready.Snapshot) {
			if err := s.store.ApplySnapshot(ready.Snapshot); err != nil {
				return err
			}
		}
		if err := s.store.Append(ready.Entries); err != nil {
			return err
		}
		if !raft.IsEmptyHardState(ready.HardState) {
			if err := s.store.SetHardState(ready.HardState); err != nil {
				return err
			}
		}
		if ready.MustSync || !raft.IsEmptySnap(ready.Snapshot) {
			if err := l.save(); err != nil {
				return err
			}
		}
		if !raft.IsEmptySnap(ready.Snapshot) {
			if err := l.restore(ready.Snapshot); err != nil {
				return err
			}
		}
		for _, m := range ready.Messages {
			if err := l.mail(ctx, m); err != nil {
				return err
			}
		}
		if err := l.apply(ready.CommittedEntries); err != nil {
			return err
		}
		s.node.Advance(ready)
		if ready.SoftState != nil && ready.RaftState == raft.StateLeader {
			l.lead()
		}
	}
	l.publish()
	return nil
}

func (l *Log) save() error { return l.opts.Dir.saveLog(l.state.store, l.opts.Record.ClusterID) }

// apply carries out entries that were agreed on.
func (l *Log) apply(entries []raftpb.Entry) error {
	s := &l.state
	news := false
	for _, e := range entries {
		does, err := decide(l.opts.Record, s.table, s.voters, e)
		if err != nil {
			return err
		}
		if does.because != nil {
			l.opts.Logger.Debug("an entry of the topology log has no effect", "index", e.Index, "reason", does.because)
		}
		s.applied = e.Index
		if does.voters != nil {
			s.voters = *s.node.ApplyConfChange(*does.voters)
		}
		if does.table != nil {
			s.table = does.table
		}
		news = news || does.voters != nil || does.table != nil
	}
	first, err := s.store.FirstIndex()
	if err != nil || !news && s.applied < first+compactEntries {
		return err
	}
	return l.compact(first)
}

// compact replaces entries by what came of them. The state is put into the store
// at each change, so that a node that is sent it whole finds itself in it, but
// the last entries stay for those that have missed only these.
func (l *Log) compact(first uint64) error {
	s := &l.state
	var data []byte
	if s.table != nil {
		data = s.table.Encode()
	}
	if _, err := s.store.CreateSnapshot(s.applied, &s.voters, data); err != nil {
		return err
	}
	if s.applied >= first+compactEntries {
		if err := s.store.Compact(s.applied - compactEntries/2); err != nil {
			return err
		}
	}
	if err := l.save(); err != nil {
		return err
	}
	if s.table == nil {
		return nil
	}
	return l.keep(s.table)
}

// mail sends a message of the library to the member that has the disk now.
func (l *Log) mail(ctx context.Context, m raftpb.Message) error {
	to, known := l.state.members[m.To]
	queued := false
	if known {
		var err error
		if queued, err = l.post.put(ctx, to, m); err != nil {
			return err
		}
	}
	if !queued {
		l.report(sent{to: m.To, snapshot: m.Type == raftpb.MsgSnap, err: errors.New("not sent")})
	}
	return nil
}

// report tells the library what became of a batch.
func (l *Log) report(s sent) {
	if s.err != nil {
		l.opts.Logger.Debug("messages of the topology log may not have arrived", "to", l.state.members[s.to], "error", s.err)
		l.state.node.ReportUnreachable(s.to)
	}
	if s.snapshot {
		status := raft.SnapshotFinish
		if s.err != nil {
			status = raft.SnapshotFailure
		}
		l.state.node.ReportSnapshot(s.to, status)
	}
}

// tick lets time pass.
func (l *Log) tick() {
	s := &l.state
	s.node.Tick()
	s.ticks++
	status := s.node.BasicStatus()
	switch {
	case status.RaftState == raft.StateLeader && s.ticks%promoteTicks == 0:
		l.lead()
	case status.Lead == raft.None && s.ticks%campaignTicks == 0 && l.opens():
		l.campaign()
	}
}

func (l *Log) campaign() {
	if err := l.state.node.Campaign(); err != nil {
		l.opts.Logger.Debug("no election of a topology leader", "error", err)
	}
}

// opens reports whether this node is the one that begins: in a cluster without a
// table, the voter with the lowest id. Others would do as well, a second later.
func (l *Log) opens() bool {
	s := &l.state
	return l.Table() == nil && s.applied == firstIndex && len(s.voters.Voters) > 0 && slices.Min(s.voters.Voters) == l.id
}

// lead is what a leader does when it becomes one and now and then: there should
// be a table, and the wanted number of voters.
func (l *Log) lead() {
	s := &l.state
	if l.Table() == nil {
		l.proposeHere(proposeFirst(l.opts.Record))
		return
	}
	if s.table == nil {
		return // it is still to be applied
	}
	status := s.node.BasicStatus()
	current := make(map[uint64]bool)
	s.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		current[id] = pr.RecentActive && pr.Match >= status.Commit
	})
	if ids := promotion(s.table.Members, s.voters, func(id uint64) bool { return current[id] }); len(ids) > 0 {
		l.proposeHere(proposePromotion(ids))
	}
}

// proposeHere gives an entry to the library. That it is dropped, because there is
// no leader, is not reported: who wants it proposes it again.
func (l *Log) proposeHere(p proposal) bool {
	if p.voters != nil {
		return l.state.node.ProposeConfChange(*p.voters) == nil
	}
	return l.state.node.Propose(p.data) == nil
}

// propose also finds a way for a disk that is not enrolled yet and so is told of
// no leader: it asks one member after the other to propose for it.
func (l *Log) propose(ctx context.Context, p proposal) {
	s := &l.state
	if l.proposeHere(p) || p.voters == nil || l.role() != roleOutsider {
		return
	}
	ids := slices.Sorted(maps.Keys(s.members))
	ids = slices.DeleteFunc(ids, func(id uint64) bool { return id == l.id })
	data, err := p.voters.Marshal()
	if err != nil || len(ids) == 0 {
		return
	}
	s.asked++
	to := ids[s.asked%len(ids)]
	// One of a kind that the library never sends: only the type, since the term
	// of one who takes no part means nothing.
	_ = l.mail(ctx, raftpb.Message{
		Type: raftpb.MsgProp, From: l.id, To: to,
		Entries: []raftpb.Entry{{Type: raftpb.EntryConfChangeV2, Data: data}},
	})
}

const (
	roleOutsider = "outsider"
	roleLearner  = "learner"
)

func (l *Log) role() string {
	s := &l.state
	voters := append(slices.Clone(s.voters.Voters), s.voters.VotersOutgoing...)
	if !slices.Contains(voters, l.id) {
		if slices.Contains(s.voters.Learners, l.id) {
			return roleLearner
		}
		return roleOutsider
	}
	switch s.node.BasicStatus().RaftState {
	case raft.StateLeader:
		return "leader"
	case raft.StateFollower:
		return "follower"
	default:
		return "candidate"
	}
}

// publish makes the status visible to others.
func (l *Log) publish() {
	s := &l.state
	status := s.node.BasicStatus()
	var voters []hlc.NodeID
	for _, id := range s.voters.Voters {
		if m, ok := s.members[id]; ok {
			voters = append(voters, m.ID)
		}
	}
	slices.Sort(voters)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = LogStatus{
		Role: l.role(), Leader: s.members[status.Lead].ID, Term: status.Term,
		Committed: status.Commit, Applied: s.applied, Voters: voters,
	}
}
