package node

import "syntropy/antientropy"

// MaxListed bounds the differences, and the steps of a descent, that a report
// lists; the rest is counted.
const MaxListed = 10_000

func (rep *RepairReport) addDifference(d antientropy.Difference) {
	if len(rep.Differences) >= MaxListed {
		rep.Truncated++
		return
	}
	out := Difference{
		Shard: d.Shard, Token: d.Token.String(), Initiator: sideVersion(d.Initiator), Partner: sideVersion(d.Partner),
		Action: d.Action.String(), Reason: d.Reason,
	}
	out.Key, out.KeyBase64 = JSONKey(d.Key)
	rep.Differences = append(rep.Differences, out)
}

func sideVersion(s *antientropy.Side) *SideVersion {
	if s == nil {
		return nil
	}
	v := &SideVersion{
		Timestamp: uint64(s.Stamp), Time: s.Stamp.String(), Writer: s.Node.String(),
		Tombstone: s.Tombstone, ValueBytes: s.ValueBytes,
	}
	if at, ok := s.ExpiresAt(); ok {
		v.Expires = &at
	}
	return v
}

func (rep *RepairReport) addStep(c antientropy.Comparison) {
	if len(rep.Descent) >= MaxListed {
		rep.Truncated++
		return
	}
	outcome := "differ"
	if c.Then == antientropy.Skip {
		outcome = "match"
	}
	rep.Descent = append(rep.Descent, DescentStep{
		Shard: c.Shard, Level: int(c.Node.Level), Node: c.Node.String(),
		Initiator: c.Initiator.Sum.String(), InitiatorEntries: c.Initiator.Count,
		Partner: c.Partner.Sum.String(), PartnerEntries: c.Partner.Count,
		Outcome: outcome, Then: c.Then.String(),
	})
}
