package topology

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Seat is a place in a cluster for a node that may not exist yet.
type Seat struct {
	Addr string // peer address, host:port
	Zone string // see Member
}

// Init creates a cluster by hand: a data directory at path for the node me, with
// a record that names it as the founder and the others as members whose disks
// are not known. Each of those becomes known when it first joins. Until then the
// founder alone decides about the topology, and those shards that were placed on
// the others as well are there in name only.
//
// A directory that holds a cluster is refused, and on any error nothing is left
// behind that was not there. now is the time of creation; rand the source of the
// cluster's id and secret.
func Init(path string, settings Settings, me Seat, others []Seat, rand io.Reader, now time.Time) (*Record, error) {
	seats := append([]Seat{me}, others...)
	addrs := make([]string, len(seats))
	for i, s := range seats {
		addrs[i] = s.Addr
	}
	record, err := NewRecord(settings, addrs, rand, now)
	if err != nil {
		return nil, err
	}
	for i, m := range record.Members {
		seat := slices.IndexFunc(seats, func(s Seat) bool { return s.Addr == m.Addr })
		record.Members[i].Zone = seats[seat].Zone
	}
	if err := record.Validate(); err != nil {
		return nil, err
	}
	dir, err := OpenDir(path, rand, now)
	if err != nil {
		return nil, err
	}
	if held := dir.Record(); held != nil {
		return nil, errors.Join(fmt.Errorf("%s holds cluster %s already: give an empty data directory", path, held.ClusterID), dir.Close())
	}
	founder := slices.IndexFunc(record.Members, func(m Member) bool { return m.Addr == me.Addr })
	record.Members[founder].Founder = dir.Incarnation()
	if err := dir.SaveRecord(record); err != nil {
		return nil, errors.Join(err, dir.Discard())
	}
	return record, dir.Close()
}
