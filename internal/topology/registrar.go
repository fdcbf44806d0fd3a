package topology

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Transport reaches the Registrar of another node.
type Transport interface {
	Meet(ctx context.Context, addr string, req MeetRequest) (MeetReply, error)
	Adopt(ctx context.Context, addr string, req AdoptRequest) error
	Enroll(ctx context.Context, addr string, req EnrollRequest) (EnrollReply, error)
}

// RegistrarOptions configure a Registrar. Me is required.
type RegistrarOptions struct {
	Me Identity
	// Expect is how many nodes form the cluster. Not used with a Record.
	Expect int
	// Settings of the cluster to be. Not used with a Record.
	Settings Settings
	// Given tells which settings the user gave, by flag, such as "gc-grace". A node
	// that joins a cluster takes over the others; nil: all were given.
	Given func(flag string) bool
	// Join lists addresses to ask. One that turns out to be this node is fine.
	Join []string
	// Record is the record that this node holds already; nil on an empty disk.
	Record *Record
	// Persist makes a record durable; it is not called again once it succeeded.
	// Required without a Record.
	Persist func(*Record) error
	// PersistTable makes durable the table that came with a record, before Persist
	// is called; it may be called again. nil: not kept.
	PersistTable func(*Table) error
	// Table returns the newest table that this node knows, or nil; it is called
	// for each answer to a member, and must not wait. nil: no table is known.
	Table func() *Table
	// Rand is the source of cluster id and secret; crypto/rand by default.
	Rand io.Reader
	// Now dates the record; time.Now by default.
	Now func() time.Time
	// Interval is the pause between two rounds of asking everybody, 200 ms by
	// default: short for a person who waits, long for a network.
	Interval time.Duration
	Logger   *slog.Logger // discards by default
}

const (
	// exchangeTimeout bounds one message to one node, so that an address that
	// swallows packets does not hold up a round for ever.
	exchangeTimeout = 2 * time.Second
	// offerRounds is how often a leader offers the record to those that have
	// not acknowledged before it starts to serve. It may stop at any time: who
	// missed the offer keeps asking, and is answered by every node in the cluster.
	offerRounds = 10
	// remindRounds is after how many rounds without news the log repeats what
	// the node is waiting for: every 10 s.
	remindRounds = 50
)

// Registrar runs a Formation: it asks other nodes and answers them. A node keeps
// it for life, since members that lost their disk come back and ask. It is safe
// for concurrent use, but Form is called once.
type Registrar struct {
	opts    RegistrarOptions
	decided chan struct{} // closed when there is a record

	mu        sync.Mutex // held while persisting, so that a record is persisted once
	formation *Formation
	table     *Table // that came with the record; nil if none did
}

// NewRegistrar checks the options and starts nothing. It can answer at once.
func NewRegistrar(opts RegistrarOptions) (*Registrar, error) {
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Interval <= 0 {
		opts.Interval = 200 * time.Millisecond
	}
	if opts.Table == nil {
		opts.Table = func() *Table { return nil }
	}
	if opts.PersistTable == nil {
		opts.PersistTable = func(*Table) error { return nil }
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	for _, addr := range opts.Join {
		if err := checkAddr(addr); err != nil {
			return nil, err
		}
	}
	formation, err := NewFormation(opts.Me, opts.Expect, opts.Settings, opts.Record)
	if err != nil {
		return nil, err
	}
	formation.given = opts.Given
	if opts.Record == nil && opts.Persist == nil {
		return nil, errors.New("topology: a Registrar without a record needs Persist")
	}
	r := &Registrar{opts: opts, decided: make(chan struct{}), formation: formation}
	if opts.Record != nil {
		close(r.decided)
	}
	return r, nil
}

// Record returns the record once this node is in a cluster, else nil.
func (r *Registrar) Record() *Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.formation.Record()
}

// HandleMeet answers another node's Meet.
func (r *Registrar) HandleMeet(_ context.Context, req MeetRequest) MeetReply {
	table := r.newestTable()
	r.mu.Lock()
	reply := r.formation.Meet(req, table)
	r.mu.Unlock()
	if reply.Refusal != "" {
		r.opts.Logger.Warn("refused a node", "addr", req.Me.Addr, "reason", reply.Refusal)
	}
	return reply
}

// newestTable is what this node answers with. Between entering a cluster and
// taking part in its log that is what it was let in with.
func (r *Registrar) newestTable() *Table {
	newest := r.opts.Table()
	r.mu.Lock()
	defer r.mu.Unlock()
	if newest == nil {
		newest = r.table
	}
	return newest
}

// HandleAdopt answers another node's Adopt: without error the record is durable
// here.
func (r *Registrar) HandleAdopt(_ context.Context, req AdoptRequest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	record, err := r.formation.Adopt(req)
	if err != nil || record == nil {
		return err
	}
	return r.commit(record, nil)
}

// commit is called with the lock held. The table that comes with the record is
// kept first: see Dir.SaveTable.
func (r *Registrar) commit(record *Record, table *Table) error {
	if table != nil {
		if err := r.opts.PersistTable(table); err != nil {
			return fmt.Errorf("keeping the topology table: %w", err)
		}
		r.table = table
	}
	if err := r.opts.Persist(record); err != nil {
		return fmt.Errorf("keeping the cluster record: %w", err)
	}
	r.formation.Commit(record)
	close(r.decided)
	return nil
}

// Form brings this node into a cluster: it asks everybody it knows until a
// record is durable here. A node that forms no cluster and is a member of none is
// enrolled in the one that it finds. The table names this node as a member; it is
// nil if none is known, as in a cluster that has just been formed. An error is
// final, unless ctx ended.
func (r *Registrar) Form(ctx context.Context, t Transport) (*Record, *Table, error) {
	ticker := time.NewTicker(r.opts.Interval)
	defer ticker.Stop()
	var said string
	for round := 0; ; round++ {
		if err := r.meetAll(ctx, t); err != nil {
			return nil, nil, err
		}
		led, err := r.lead()
		if err != nil {
			return nil, nil, err
		}
		if led {
			r.offer(ctx, t, ticker.C)
		}
		if err := r.enter(ctx, t); err != nil {
			return nil, nil, err
		}
		r.mu.Lock()
		record, waiting := r.formation.Record(), r.formation.Waiting()
		r.mu.Unlock()
		if record != nil {
			return record, r.newestTable(), nil
		}
		if waiting != said || round%remindRounds == 0 {
			said = waiting
			r.opts.Logger.Info(waiting)
		}
		select {
		case <-ticker.C:
		case <-r.decided:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%s: %w", waiting, ctx.Err())
		}
	}
}

// meetAll asks every known address once and takes in the answers. It returns
// only final errors; who does not answer is asked again.
func (r *Registrar) meetAll(ctx context.Context, t Transport) error {
	r.mu.Lock()
	if r.formation.Record() != nil {
		r.mu.Unlock()
		return nil
	}
	req := r.formation.Request()
	targets := append(slices.Clone(r.opts.Join), r.formation.Addrs()...)
	r.mu.Unlock()
	slices.Sort(targets)
	targets = slices.Compact(targets)

	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, addr := range targets {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
			defer cancel()
			reply, err := t.Meet(ctx, addr, req)
			if err != nil {
				r.opts.Logger.Debug("no answer", "addr", addr, "error", err)
				return
			}
			errs[i] = r.met(addr, reply)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (r *Registrar) met(addr string, reply MeetReply) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	record, err := r.formation.Met(addr, reply)
	if err != nil || record == nil {
		return err
	}
	return r.commit(record, reply.Formed.Table)
}

// lead creates the record if that falls to this node.
func (r *Registrar) lead() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.formation.Leads() {
		return false, nil
	}
	record, err := r.formation.Found(r.opts.Rand, r.opts.Now())
	if err != nil {
		return false, err
	}
	if err := r.commit(record, nil); err != nil {
		return false, err
	}
	r.opts.Logger.Info("created the cluster", "cluster", record.ClusterID, "members", membersText(record.Members))
	return true, nil
}

// offer sends the new record to the other members. Without it they would find
// it at their next Meet, so it only saves them the wait.
func (r *Registrar) offer(ctx context.Context, t Transport, tick <-chan time.Time) {
	r.mu.Lock()
	req := AdoptRequest{From: r.opts.Me, Record: r.formation.Record()}
	pending := r.formation.Addrs()
	r.mu.Unlock()
	for range offerRounds {
		acked := make([]bool, len(pending))
		var wg sync.WaitGroup
		for i, addr := range pending {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
				defer cancel()
				err := t.Adopt(ctx, addr, req)
				acked[i] = err == nil
				if err != nil {
					r.opts.Logger.Debug("has not adopted the record yet", "addr", addr, "error", err)
				}
			})
		}
		wg.Wait()
		var rest []string
		for i, addr := range pending {
			if !acked[i] {
				rest = append(rest, addr)
			}
		}
		if pending = rest; len(pending) == 0 {
			return
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
	}
	r.opts.Logger.Warn("members have not taken the cluster record yet; they get it when they ask", "addrs", pending)
}
