package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// change is what an entry of the topology log says is to be done. Exactly one
// field is set. An entry that only changes who votes carries none.
type change struct {
	First  *Table      `json:"first,omitempty"`  // there is to be a table at all
	Enroll *enrollment `json:"enroll,omitempty"` // in an entry that changes who votes, too
}

func (c change) encode() []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // a change holds nothing that JSON cannot express
	}
	return b
}

// proposal is an entry on its way into the log.
type proposal struct {
	data   []byte               // of a plain entry
	voters *raftpb.ConfChangeV2 // of one that changes who votes
}

func proposeFirst(r *Record) proposal {
	return proposal{data: change{First: FirstTable(r)}.encode()}
}

func proposeEnroll(e enrollment) proposal {
	c := enrollChange(e)
	c.Context = change{Enroll: &e}.encode()
	return proposal{voters: &c}
}

func proposePromotion(ids []uint64) proposal {
	c := promoteChange(ids)
	return proposal{voters: &c}
}

// effect is what a committed entry does.
type effect struct {
	table   *Table               // the next one; nil: it stays
	voters  *raftpb.ConfChangeV2 // nil: they stay
	because error                // why an entry that wanted something does nothing
}

// decide returns the effect of an entry on the table (nil before the first) and
// the voters that it meets. Every node decides by the same entries in the same
// order and comes to the same table. An entry that does not fit has no effect: it
// was proposed by somebody who did not know of the one before it. An error means
// that this program does not understand the entry, and must not go on.
func decide(r *Record, t *Table, conf raftpb.ConfState, e raftpb.Entry) (effect, error) {
	if len(e.Data) == 0 && e.Type == raftpb.EntryNormal {
		return effect{}, nil // a new leader begins its term with such a one
	}
	var voters *raftpb.ConfChangeV2
	data := e.Data
	switch e.Type {
	case raftpb.EntryNormal:
	case raftpb.EntryConfChangeV2:
		voters = new(raftpb.ConfChangeV2)
		if err := voters.Unmarshal(e.Data); err != nil {
			return effect{}, errUnknownEntry(e, err)
		}
		data = voters.Context
		if len(data) == 0 {
			return decidePromotion(conf, voters), nil
		}
	default:
		return effect{}, errUnknownEntry(e, fmt.Errorf("type %v", e.Type))
	}
	var c change
	if err := unmarshalStrict(data, &c); err != nil {
		return effect{}, errUnknownEntry(e, err)
	}
	switch {
	case c.First != nil && c.Enroll == nil && voters == nil:
		return decideFirst(r, t, c.First), nil
	case c.Enroll != nil && c.First == nil && voters != nil:
		return decideEnroll(t, conf, *c.Enroll), nil
	default:
		return effect{}, errUnknownEntry(e, errors.New("no known change"))
	}
}

func errUnknownEntry(e raftpb.Entry, err error) error {
	return fmt.Errorf("entry %d of the topology log is not known to this program, so a newer version wrote it; run that one: %w", e.Index, err)
}

func decideFirst(r *Record, t, first *Table) effect {
	if t != nil {
		return effect{because: fmt.Errorf("there is a table, version %d", t.Version)}
	}
	if err := first.fits(r); err != nil {
		return effect{because: err}
	}
	if first.Version != 1 || !slices.Equal(first.Members, r.Members) {
		return effect{because: errors.New("the first table does not name the members of the record")}
	}
	return effect{table: first}
}

func decideEnroll(t *Table, conf raftpb.ConfState, e enrollment) effect {
	if t == nil {
		return effect{because: errors.New("there is no table yet")}
	}
	if err := checkIdentity(Identity{e.Incarnation, e.Addr, e.Zone}); err != nil {
		return effect{because: err}
	}
	next, err := t.enroll(e)
	if err != nil {
		return effect{because: err}
	}
	if len(conf.VotersOutgoing) > 0 {
		return effect{because: errUnfinished}
	}
	if e.Replaces != "" && len(conf.Voters) == 1 && conf.Voters[0] == raftID(e.Replaces) {
		// It was there to vote for this, so it is not lost.
		return effect{because: &RefusedError{fmt.Sprintf("the disk %.8s, which %.8s is to replace, is the only voter and still in use", e.Replaces, e.Incarnation)}}
	}
	voters := enrollChange(e)
	return effect{table: next, voters: &voters}
}

var errUnfinished = errors.New("the last change of voters is not complete")

func decidePromotion(conf raftpb.ConfState, c *raftpb.ConfChangeV2) effect {
	switch unfinished := len(conf.VotersOutgoing) > 0; {
	case len(c.Changes) == 0 && unfinished: // completes the change before it
		return effect{voters: c}
	case len(c.Changes) == 0:
		return effect{because: errors.New("no change of voters is under way")}
	case unfinished:
		return effect{because: errUnfinished}
	}
	for _, single := range c.Changes {
		if single.Type != raftpb.ConfChangeAddNode || !slices.Contains(conf.Learners, single.NodeID) {
			return effect{because: fmt.Errorf("%x is no learner any more", single.NodeID)}
		}
	}
	return effect{voters: c}
}
