package topology

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// maxVoters is how many disks decide about the topology. Five go on when any two
// are lost; more only make each decision wait for more disks. The other members
// are learners: they have the log and do not vote.
const maxVoters = 5

// raftID names a disk in the topology log. It is the disk and not the member that
// votes: one that came back with another disk has forgotten what the old one
// promised, and must not vote under its name.
func raftID(incarnation string) uint64 {
	raw, err := hex.DecodeString(incarnation)
	if err != nil || len(raw) != 16 {
		panic(fmt.Sprintf("topology: incarnation %q was not checked", incarnation))
	}
	id := binary.BigEndian.Uint64(raw) ^ binary.BigEndian.Uint64(raw[8:])
	if id == 0 || id >= math.MaxUint64-1 {
		return 1 // the library uses these three itself
	}
	return id
}

// wantedVoters is how many of so many disks are to vote: an odd number, since an
// even one tolerates no more losses than one less, and is decided by more. In
// particular a cluster of two has one voter, and goes on when the other is lost.
func wantedVoters(disks int) int {
	n := min(disks, maxVoters)
	return n - (n+1)%2
}

// firstVoters returns the configuration with which the topology log of a cluster
// begins. Every node starts with this as if it had been agreed on, so it depends
// on the record alone.
func firstVoters(r *Record) (raftpb.ConfState, error) {
	var founders []Member
	for _, m := range r.Members {
		if m.Founder != "" {
			founders = append(founders, m)
		}
	}
	if len(founders) == 0 {
		return raftpb.ConfState{}, fmt.Errorf("the record of cluster %s names no disk of any member, so nobody can decide about its topology: create the cluster with syntropy init or --bootstrap-expect", r.ClusterID)
	}
	var conf raftpb.ConfState
	voters := spread(wantedVoters(len(founders)), nil, founders)
	for _, m := range founders {
		if slices.Contains(voters, m) {
			conf.Voters = append(conf.Voters, raftID(m.Founder))
		} else {
			conf.Learners = append(conf.Learners, raftID(m.Founder))
		}
	}
	slices.Sort(conf.Voters)
	slices.Sort(conf.Learners)
	return conf, nil
}

// spread picks n of the candidates, one after the other from the zone of which
// fewest are picked already, in their order.
func spread(n int, picked, candidates []Member) []Member {
	inZone := make(map[string]int)
	for _, m := range picked {
		inZone[m.Zone]++
	}
	var chosen []Member
	rest := slices.Clone(candidates)
	for len(chosen) < n && len(rest) > 0 {
		best := 0
		for i, m := range rest {
			if inZone[m.Zone] < inZone[rest[best].Zone] {
				best = i
			}
		}
		inZone[rest[best].Zone]++
		chosen = append(chosen, rest[best])
		rest = slices.Delete(rest, best, best+1)
	}
	return chosen
}

// promotion returns the learners that are to become voters now, so that there is
// the wanted number of voters; current are those learners that have the whole log
// and were heard of lately. They are promoted together: the way from one voter to
// three must not rest at two.
func promotion(members []Member, conf raftpb.ConfState, current func(id uint64) bool) []uint64 {
	if len(conf.VotersOutgoing) > 0 {
		return nil // the last change is not complete
	}
	var voters, candidates []Member
	disks := 0
	for _, m := range members {
		if m.Founder == "" {
			continue
		}
		disks++
		switch id := raftID(m.Founder); {
		case slices.Contains(conf.Voters, id):
			voters = append(voters, m)
		case slices.Contains(conf.Learners, id) && current(id):
			candidates = append(candidates, m)
		}
	}
	n := min(wantedVoters(disks)-len(conf.Voters), len(candidates))
	if (len(conf.Voters)+n)%2 == 0 {
		n--
	}
	var ids []uint64
	for _, m := range spread(n, voters, candidates) {
		ids = append(ids, raftID(m.Founder))
	}
	return ids
}

func promoteChange(ids []uint64) raftpb.ConfChangeV2 {
	var c raftpb.ConfChangeV2
	for _, id := range ids {
		c.Changes = append(c.Changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddNode, NodeID: id})
	}
	return c
}

// enrollChange is the change of voters that goes with an enrolment: the new disk
// learns, and the one that it replaces is out.
func enrollChange(e enrollment) raftpb.ConfChangeV2 {
	var c raftpb.ConfChangeV2
	if e.Replaces != "" {
		c.Changes = append(c.Changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeRemoveNode, NodeID: raftID(e.Replaces)})
	}
	c.Changes = append(c.Changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddLearnerNode, NodeID: raftID(e.Incarnation)})
	return c
}
