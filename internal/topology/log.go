package topology

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"syntropy/hlc"
)

// LogOptions configure a Log. Record, Me, Dir and Send are required.
type LogOptions struct {
	Record *Record
	Me     Identity
	// Dir is where the log is kept. The Log alone writes D/topology.log and
	// D/topology.json while it runs.
	Dir *Dir
	// Table is the newest table known from elsewhere, such as from the node that
	// let this one in; nil: none.
	Table *Table
	// Send delivers messages to the Receive of another member. It is called on
	// goroutines of the Log, one at a time for each target, with a deadline. An
	// error only says that they may not have arrived.
	Send func(ctx context.Context, to Member, messages [][]byte) error
	// Changed is called with newer tables, each newer than the one before and than
	// Table() was after OpenLog, from one goroutine. While it takes its time,
	// tables that are succeeded by others are left out. nil: not called.
	Changed func(*Table)
	// Tick is the unit of time, 100 ms by default: a leader is missed after 10 to
	// 20 of them. Shorter than a round trip, no leader lasts.
	Tick   time.Duration
	Logger *slog.Logger // discards by default
}

const (
	electionTicks  = 10 // up to twice that: the library randomises it
	heartbeatTicks = 3  // two may get lost
	// promoteTicks is how often a leader looks whether there should be more voters.
	// The library forgets every electionTicks whom it has heard of, so that looking
	// in step with it would find nobody.
	promoteTicks = 7
	// campaignTicks is how often the first leader of a new cluster tries to become
	// one: the others start within a moment of each other, and a cluster that is
	// being formed has somebody waiting for it.
	campaignTicks = 2
	// inflightMessages and inflightBytes bound what a leader sends to one node
	// before it answers. Entries are few, and small but for the first.
	inflightMessages = 32
	inflightBytes    = 1 << 20
	// compactEntries is after how many entries those that are applied are
	// replaced by what came of them. Fewer make a node that missed some need the
	// whole table again; more make the file longer.
	compactEntries = 32
	// inboxBatches is how much may have been received and not been looked at. The
	// loop only falls behind while the disk is slow; the senders repeat it all.
	inboxBatches = 64
)

// Log is a node's part in the log that holds the Table of a cluster. A Raft
// library does the agreeing; Log gives it a disk, a clock and a post, and applies
// what was agreed on. Nobody has to wait for it: each node goes by the newest
// table that it knows. Its methods are safe for concurrent use.
type Log struct {
	opts LogOptions
	id   uint64 // of this disk, among the voters
	post *post

	inbox     chan []raftpb.Message
	proposals chan proposal
	ended     chan struct{} // Run has returned

	state logState // Run's

	mu     sync.Mutex
	newest *Table
	newer  chan struct{} // closed when newest is replaced
	status LogStatus
}

// LogStatus is for people who look after a cluster.
type LogStatus struct {
	Role      string       // leader, candidate, follower; learner: does not vote; outsider: not enrolled
	Leader    hlc.NodeID   // 0: none known, so the table cannot change now
	Term      uint64       // counts elections
	Committed uint64       // how much of the log is agreed on, as far as known here
	Applied   uint64       // and how much of that is in this node's table
	Voters    []hlc.NodeID // who decides; a member that has replaced its disk is not in it
}

// OpenLog reads this node's part of the log, or begins one. It starts nothing; see
// Run.
func OpenLog(o LogOptions) (*Log, error) {
	if o.Tick <= 0 {
		o.Tick = 100 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func(*Table) {}
	}
	if err := checkIdentity(o.Me); err != nil {
		return nil, err
	}
	if o.Me.Incarnation != o.Dir.Incarnation() {
		return nil, fmt.Errorf("%v has the data directory of disk %.8s", o.Me, o.Dir.Incarnation())
	}
	l := &Log{
		opts: o, id: raftID(o.Me.Incarnation), post: newPost(o.Send),
		inbox:     make(chan []raftpb.Message, inboxBatches),
		proposals: make(chan proposal),
		ended:     make(chan struct{}),
		newer:     make(chan struct{}),
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	for _, t := range []*Table{o.Dir.Table(), o.Table} {
		if t == nil {
			continue
		}
		if err := t.fits(o.Record); err != nil {
			return nil, err
		}
		if err := l.keep(t); err != nil {
			return nil, err
		}
	}
	l.publish()
	return l, nil
}

// Table returns the newest table that this node knows, or nil before the first.
func (l *Log) Table() *Table {
	t, _ := l.watch()
	return t
}

// watch returns the newest table, and a channel that is closed when there is a
// newer one.
func (l *Log) watch() (*Table, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest, l.newer
}

// Status tells where this node stands.
func (l *Log) Status() LogStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Receive takes messages that another node's Send delivers. The caller has made
// sure that they come from a member of this cluster. An error says what is wrong
// with them or that there are too many; what was not taken is sent again.
func (l *Log) Receive(messages [][]byte) error {
	batch := make([]raftpb.Message, len(messages))
	for i, b := range messages {
		m := &batch[i]
		if err := m.Unmarshal(b); err != nil {
			return fmt.Errorf("unreadable message of the topology log: %w", err)
		}
		if m.To != l.id {
			return fmt.Errorf("a message of the topology log for disk %x arrived at %x, which has replaced it", m.To, l.id)
		}
		if m.From == 0 || m.From == l.id || raft.IsLocalMsg(m.Type) {
			return fmt.Errorf("a message of the topology log of type %v from %x cannot have come from another node", m.Type, m.From)
		}
		// The library trusts proposals to be readable.
		for _, e := range m.Entries {
			if e.Type == raftpb.EntryConfChangeV2 {
				if err := new(raftpb.ConfChangeV2).Unmarshal(e.Data); err != nil {
					return fmt.Errorf("unreadable entry of the topology log: %w", err)
				}
			}
		}
		if m.Type == raftpb.MsgProp && len(m.Entries) == 0 {
			return errors.New("an empty proposal for the topology log")
		}
	}
	select {
	case l.inbox <- batch:
		return nil
	default:
		return errors.New("the topology log has too much to do at this moment")
	}
}

// Enroll makes a disk known as that of the member at its address, or as a new
// member, and returns the first table in which this node sees it so: the present
// one, if it is there already. It proposes that until it is agreed on or ctx ends.
// Errors: *RefusedError, which is final, and that of ctx.
func (l *Log) Enroll(ctx context.Context, me Identity) (*Table, error) {
	retry := time.NewTicker(electionTicks * l.opts.Tick)
	defer retry.Stop()
	for {
		t, newer := l.watch()
		var next proposal
		proposals := l.proposals
		if t == nil {
			proposals = nil // there is nothing yet to be enrolled in
		} else {
			todo, done, err := t.planEnroll(me)
			if err != nil {
				return nil, err
			}
			if done {
				return t, nil
			}
			next = proposeEnroll(todo)
		}
		select {
		case proposals <- next:
			// It may get lost, and a second one does no harm.
			select {
			case <-newer:
			case <-retry.C:
			case <-l.ended:
			case <-ctx.Done():
			}
		case <-newer:
		case <-l.ended:
			return nil, errors.New("this node is stopping")
		case <-ctx.Done():
			return nil, l.whyNotEnrolled(ctx)
		}
	}
}

func (l *Log) whyNotEnrolled(ctx context.Context) error {
	if s := l.Status(); s.Leader == 0 {
		return fmt.Errorf("more than half of the voters of the topology, %v, have to be up for a node to be enrolled: %w", s.Voters, ctx.Err())
	}
	return fmt.Errorf("waiting for the members to agree on it: %w", ctx.Err())
}

// Run takes part until ctx ends, and then returns nil, when all that it started
// has ended. An error means that this node cannot go on: its disk failed, or does
// not hold what it held. Run is called once.
func (l *Log) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	var announcer sync.WaitGroup
	defer func() {
		if p := recover(); p != nil {
			text, ok := p.(raftPanic)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("the topology log of this node contradicts what the other members know, as when a data directory was restored from an old copy: give this node an empty one, and it becomes a member with a new disk (%s)", string(text))
		}
		close(l.ended)
		cancel()
		l.post.work.Wait()
		announcer.Wait()
	}()
	known := l.Table()
	announcer.Go(func() { l.announce(ctx, known) })

	if l.opens() {
		l.campaign()
	}
	ticker := time.NewTicker(l.opts.Tick)
	defer ticker.Stop()
	for {
		if err := l.settle(ctx); err != nil {
			return err
		}
		select {
		case <-ticker.C:
			l.tick()
		case batch := <-l.inbox:
			for _, m := range batch {
				// What does not fit the state is no error here: messages arrive
				// late, and from nodes that know less.
				_ = l.state.node.Step(m)
			}
		case p := <-l.proposals:
			l.propose(ctx, p)
		case s := <-l.post.sent:
			l.report(s)
		case <-ctx.Done():
			return nil
		}
	}
}

// announce calls Changed with the newest table whenever that is newer than the
// last.
func (l *Log) announce(ctx context.Context, last *Table) {
	for {
		t, newer := l.watch()
		if t != nil && (last == nil || t.Version > last.Version) {
			l.opts.Changed(t)
			last = t
		}
		select {
		case <-newer:
		case <-ctx.Done():
			return
		}
	}
}

// keep makes a table durable and then the newest, unless a newer one is known.
func (l *Log) keep(t *Table) error {
	if known := l.Table(); known != nil && known.Version >= t.Version {
		return nil
	}
	if kept := l.opts.Dir.Table(); kept == nil || kept.Version != t.Version {
		if err := l.opts.Dir.writeTable(t); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest = t
	close(l.newer)
	l.newer = make(chan struct{})
	l.state.members = diskOwners(l.opts.Record, t)
	return nil
}

// diskOwners tells which member has which disk. Members of the record are in it
// as long as no table says otherwise.
func diskOwners(r *Record, t *Table) map[uint64]Member {
	owners := make(map[uint64]Member)
	for _, m := range membersOf(r, t) {
		if m.Founder != "" {
			owners[raftID(m.Founder)] = m
		}
	}
	return owners
}

func raftConfig(id uint64, store raft.Storage, logger *slog.Logger) *raft.Config {
	return &raft.Config{
		ID: id, Storage: store, Logger: raftLogger{logger},
		ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		MaxSizePerMsg: inflightBytes, MaxInflightMsgs: inflightMessages,
		MaxUncommittedEntriesSize: postBytes,
		// A node that was cut off must not disturb the others when it is back.
		PreVote: true, CheckQuorum: true,
		StepDownOnRemoval: true,
	}
}
