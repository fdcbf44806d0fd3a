package topology

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// EnrollRequest asks to become a member of a cluster that exists, or to become
// known as the disk that a member has now.
type EnrollRequest struct {
	ClusterID string // empty: whichever the asked node is in
	Me        Identity
}

// EnrollReply answers an EnrollRequest.
type EnrollReply struct {
	Record  *Record
	Table   *Table // names the asker as a member, with its disk
	Refusal string // why it cannot be; final, for people
}

// RefusedError is an enrolment that this cluster will not accept. Trying again
// does not help.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// enrollTimeout bounds one attempt to be enrolled through one member. It covers
// an election of at most 2 s and the agreement after it.
const enrollTimeout = 5 * time.Second

// enter enrolls this node in the cluster that it found, if it is in none.
func (r *Registrar) enter(ctx context.Context, t Transport) error {
	r.mu.Lock()
	inside := r.formation.Record() != nil
	cluster, doors := r.formation.Doors()
	r.mu.Unlock()
	if inside || cluster == "" {
		return nil
	}
	record, table, err := r.enrollOnce(ctx, t, cluster, doors)
	if err != nil || record == nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.formation.Record() != nil {
		return nil
	}
	if err := r.formation.checkFormed(record, table); err != nil {
		return fmt.Errorf("cannot enter cluster %s: %w", cluster, err)
	}
	if err := r.commit(record, table); err != nil {
		return err
	}
	m, _ := table.MemberByAddr(r.opts.Me.Addr)
	r.opts.Logger.Info("entered the cluster", "cluster", record.ClusterID, "as", m.ID)
	return nil
}

// Enroll makes this node's disk known to the cluster that it is in, by way of
// any of the members at addrs, for as long as it takes: until a member answers
// while more than half of the voters of the topology log are up. It returns the
// table that names the disk. A *RefusedError is final; any other error is that of
// ctx.
func (r *Registrar) Enroll(ctx context.Context, t Transport, addrs []string) (*Record, *Table, error) {
	ticker := time.NewTicker(r.opts.Interval)
	defer ticker.Stop()
	cluster := ""
	if record := r.Record(); record != nil {
		cluster = record.ClusterID
	}
	for {
		record, table, err := r.enrollOnce(ctx, t, cluster, addrs)
		if err != nil || record != nil {
			return record, table, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("waiting for a member to enroll this disk: %w", ctx.Err())
		}
	}
}

// enrollOnce asks one address after the other. It returns only final errors, and
// nothing if nobody could do it now.
func (r *Registrar) enrollOnce(ctx context.Context, t Transport, cluster string, addrs []string) (*Record, *Table, error) {
	for _, addr := range addrs {
		if addr == r.opts.Me.Addr {
			continue
		}
		reply, err := r.askToEnroll(ctx, t, addr, EnrollRequest{ClusterID: cluster, Me: r.opts.Me})
		if err != nil {
			r.opts.Logger.Info("not enrolled yet", "addr", addr, "error", err)
			continue
		}
		if reply.Refusal != "" {
			return nil, nil, fmt.Errorf("the node at %s refuses this node: %w", addr, &RefusedError{reply.Refusal})
		}
		if err := r.checkEnrolled(cluster, reply); err != nil {
			return nil, nil, fmt.Errorf("the node at %s answers nonsense: %w", addr, err)
		}
		return reply.Record, reply.Table, nil
	}
	return nil, nil, nil
}

func (r *Registrar) askToEnroll(ctx context.Context, t Transport, addr string, req EnrollRequest) (EnrollReply, error) {
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	return t.Enroll(ctx, addr, req)
}

func (r *Registrar) checkEnrolled(cluster string, reply EnrollReply) error {
	if reply.Record == nil || reply.Table == nil {
		return errors.New("record or table is missing")
	}
	if err := reply.Record.Validate(); err != nil {
		return err
	}
	if cluster != "" && reply.Record.ClusterID != cluster {
		return fmt.Errorf("the record is of cluster %s, not of %s", reply.Record.ClusterID, cluster)
	}
	if known := r.Record(); known != nil && known.Fingerprint() != reply.Record.Fingerprint() {
		return errors.New("its record is not the one that this node has")
	}
	if err := reply.Table.fits(reply.Record); err != nil {
		return err
	}
	if m, ok := reply.Table.MemberByAddr(r.opts.Me.Addr); !ok || m.Founder != r.opts.Me.Incarnation {
		return fmt.Errorf("the table does not name %v", r.opts.Me)
	}
	return nil
}

// HandleEnroll answers another node's Enroll. The error is one of the moment,
// such as no majority of voters; what is final is in the reply.
func (l *Log) HandleEnroll(ctx context.Context, req EnrollRequest) (EnrollReply, error) {
	record := l.opts.Record
	if req.ClusterID != "" && req.ClusterID != record.ClusterID {
		return EnrollReply{Refusal: fmt.Sprintf("%s asks for cluster %s, this node is in cluster %s: one of them has the wrong data directory or a wrong --join", req.Me.Addr, req.ClusterID, record.ClusterID)}, nil
	}
	table, err := l.Enroll(ctx, req.Me)
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		l.opts.Logger.Warn("refused a node", "addr", req.Me.Addr, "reason", refused.Reason)
		return EnrollReply{Refusal: refused.Reason}, nil
	}
	if err != nil {
		return EnrollReply{}, err
	}
	return EnrollReply{Record: record, Table: table}, nil
}

// enrollment is what is to be done to a table for a disk to be in it.
type enrollment struct {
	Addr        string `json:"addr"`
	Incarnation string `json:"incarnation"`
	Zone        string `json:"zone,omitempty"`
	// Replaces is the disk that the address has; empty if it has none yet, or is
	// no member's. An enrolment that was long on its way must not undo a later one.
	Replaces string `json:"replaces,omitempty"`
}

// planEnroll says what it takes to enroll a disk in a table: nothing if it is in
// it already (done), or why it cannot be (*RefusedError).
func (t *Table) planEnroll(me Identity) (e enrollment, done bool, err error) {
	if err := checkIdentity(me); err != nil {
		return e, false, &RefusedError{err.Error()}
	}
	e = enrollment{Addr: me.Addr, Incarnation: me.Incarnation, Zone: me.Zone}
	m, ok := t.MemberByAddr(me.Addr)
	if ok {
		if err := m.checkZone(me); err != nil {
			return e, false, &RefusedError{err.Error()}
		}
		e.Replaces = m.Founder
	}
	if e.Replaces == e.Incarnation {
		return e, true, nil
	}
	_, err = t.enroll(e)
	return e, false, err
}

// enroll returns the next table, in which the disk is a member's, or a
// *RefusedError that says why this table allows no such change. It decides by its
// arguments alone, since every node has to come to the same table.
func (t *Table) enroll(e enrollment) (*Table, error) {
	for _, m := range t.Members {
		if m.Founder != "" && (m.Founder == e.Incarnation || raftID(m.Founder) == raftID(e.Incarnation)) {
			return nil, &RefusedError{fmt.Sprintf("the disk %.8s of %s is that of %v already: was a data directory copied, or did the node change its address? Give it an empty one, or its old address", e.Incarnation, e.Addr, m)}
		}
	}
	next := *t
	next.Version++
	next.Members = slices.Clone(t.Members)
	i := slices.IndexFunc(next.Members, func(m Member) bool { return m.Addr == e.Addr })
	switch {
	case i >= 0 && next.Members[i].Founder != e.Replaces:
		return nil, &RefusedError{fmt.Sprintf("%v has the disk %.8s by now, and not %.8s", next.Members[i], next.Members[i].Founder, e.Replaces)}
	case i >= 0:
		next.Members[i].Founder = e.Incarnation
	case e.Replaces != "":
		return nil, &RefusedError{fmt.Sprintf("%s is not a member's address", e.Addr)}
	case len(t.Members) >= MaxMembers:
		return nil, &RefusedError{fmt.Sprintf("the cluster has %d members, which is the most there can be", len(t.Members))}
	default:
		last := t.Members[len(t.Members)-1].ID
		next.Members = append(next.Members, Member{ID: last + 1, Addr: e.Addr, Founder: e.Incarnation, Zone: e.Zone})
	}
	return &next, next.Validate()
}

// checkZone reports that a member was started with another zone than it has. A
// node that was given none is where its cluster has it.
func (m Member) checkZone(me Identity) error {
	if me.Zone == "" || me.Zone == m.Zone {
		return nil
	}
	return fmt.Errorf("%v is in zone %q of its cluster, and --zone %s was given: leave the flag out, or give the zone that it has", m, m.Zone, me.Zone)
}
