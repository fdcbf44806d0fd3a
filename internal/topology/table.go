package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"syntropy/hlc"
	"syntropy/ring"
)

// tableFormat is the version of the stored form of a Table.
const tableFormat = 1

// Table says who the members of a cluster are and which of them hold which shard.
// It is what changes in a cluster, one version after the other; the [Record] is
// what does not. Share a Table freely, but do not modify it.
type Table struct {
	Format  int      `json:"format"`
	Version uint64   `json:"version"` // 1 for the first
	Members []Member `json:"members"` // by ID; Founder is the disk that each has now
	// Shards holds, for each shard, the members that hold a replica of it, by ID.
	Shards [][]hlc.NodeID `json:"shards"`
}

// FirstTable places the shards of a new cluster on its members.
func FirstTable(r *Record) *Table {
	nodes := make([]ring.Node, len(r.Members))
	for i, m := range r.Members {
		nodes[i] = ring.Node{ID: m.ID, Zone: m.Zone}
	}
	return &Table{
		Format: tableFormat, Version: 1, Members: slices.Clone(r.Members),
		Shards: ring.Place(r.Settings.Shards, r.Settings.Replicas, nodes),
	}
}

// ParseTable reads the JSON form and validates it.
func ParseTable(b []byte) (*Table, error) {
	if err := checkFormat(b, tableFormat, "topology table"); err != nil {
		return nil, err
	}
	t := new(Table)
	if err := unmarshalStrict(b, t); err != nil {
		return nil, fmt.Errorf("unreadable topology table: %w", err)
	}
	if err := t.Validate(); err != nil {
		return nil, fmt.Errorf("invalid topology table: %w", err)
	}
	return t, nil
}

// Encode returns the JSON form.
func (t *Table) Encode() []byte {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // a Table holds nothing that JSON cannot express
	}
	return b
}

// Validate reports what no table may hold.
func (t *Table) Validate() error {
	if t.Version == 0 {
		return errors.New("a table has a version above zero")
	}
	if err := checkMembers(t.Members); err != nil {
		return err
	}
	if n := len(t.Shards); n < 1 || n > maxShards || n&(n-1) != 0 {
		return fmt.Errorf("%d shards: the number is a power of two from 1 to %d", n, maxShards)
	}
	for shard, replicas := range t.Shards {
		if len(replicas) == 0 {
			return fmt.Errorf("shard %d has no replica", shard)
		}
		for i, id := range replicas {
			if i > 0 && id <= replicas[i-1] {
				return fmt.Errorf("the replicas of shard %d are not in ascending order", shard)
			}
			if _, ok := t.Member(id); !ok {
				return fmt.Errorf("shard %d is on %v, which is no member", shard, id)
			}
		}
	}
	return nil
}

// fits reports why a table cannot be one of the cluster of a record.
func (t *Table) fits(r *Record) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("invalid topology table: %w", err)
	}
	if len(t.Shards) != r.Settings.Shards {
		return fmt.Errorf("the topology table has %d shards, cluster %s has %d", len(t.Shards), r.ClusterID, r.Settings.Shards)
	}
	return nil
}

// Member returns the member with that id.
func (t *Table) Member(id hlc.NodeID) (Member, bool) {
	if i := slices.IndexFunc(t.Members, func(m Member) bool { return m.ID == id }); i >= 0 {
		return t.Members[i], true
	}
	return Member{}, false
}

// MemberByAddr returns the member with that peer address.
func (t *Table) MemberByAddr(addr string) (Member, bool) {
	if i := slices.IndexFunc(t.Members, func(m Member) bool { return m.Addr == addr }); i >= 0 {
		return t.Members[i], true
	}
	return Member{}, false
}

// Replicas returns the members that hold a shard, by ID. The slice belongs to the
// table.
func (t *Table) Replicas(shard int) []hlc.NodeID { return t.Shards[shard] }

// Holds reports whether a member holds a shard.
func (t *Table) Holds(id hlc.NodeID, shard int) bool { return slices.Contains(t.Shards[shard], id) }

// HeldBy returns the shards that a member holds, ascending.
func (t *Table) HeldBy(id hlc.NodeID) []int { return t.Shared(id, id) }

// Shared returns the shards that both members hold, ascending: what a session of
// the two is about.
func (t *Table) Shared(a, b hlc.NodeID) (shards []int) {
	for shard := range t.Shards {
		if t.Holds(a, shard) && t.Holds(b, shard) {
			shards = append(shards, shard)
		}
	}
	return shards
}

// Partners returns the other members that hold a shard that id holds too, by ID.
func (t *Table) Partners(id hlc.NodeID) (partners []hlc.NodeID) {
	for _, m := range t.Members {
		if m.ID != id && len(t.Shared(id, m.ID)) > 0 {
			partners = append(partners, m.ID)
		}
	}
	return partners
}
