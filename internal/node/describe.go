package node

import (
	"syntropy/antientropy"
	"syntropy/report"
)

func addDifference(rep *report.Repair, d antientropy.Difference) {
	if len(rep.Differences) >= report.MaxListed {
		rep.Truncated++
		return
	}
	out := report.Difference{
		Shard: d.Shard, Token: d.Token.String(), Initiator: sideVersion(d.Initiator), Partner: sideVersion(d.Partner),
		Action: d.Action.String(), Reason: d.Reason,
	}
	out.Key, out.KeyBase64 = report.JSONKey(d.Key)
	rep.Differences = append(rep.Differences, out)
}

func sideVersion(s *antientropy.Side) *report.SideVersion {
	if s == nil {
		return nil
	}
	v := &report.SideVersion{
		Timestamp: uint64(s.Stamp), Time: s.Stamp.String(), Writer: s.Node.String(),
		Tombstone: s.Tombstone, ValueBytes: s.ValueBytes,
	}
	if at, ok := s.ExpiresAt(); ok {
		v.Expires = &at
	}
	return v
}

func addStep(rep *report.Repair, c antientropy.Comparison) {
	if len(rep.Descent) >= report.MaxListed {
		rep.Truncated++
		return
	}
	outcome := "differ"
	if c.Then == antientropy.Skip {
		outcome = "match"
	}
	rep.Descent = append(rep.Descent, report.DescentStep{
		Shard: c.Shard, Level: int(c.Node.Level), Node: c.Node.String(),
		Initiator: c.Initiator.Sum.String(), InitiatorEntries: c.Initiator.Count,
		Partner: c.Partner.Sum.String(), PartnerEntries: c.Partner.Count,
		Outcome: outcome, Then: c.Then.String(),
	})
}
