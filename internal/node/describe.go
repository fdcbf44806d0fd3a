package node

import (
	"fmt"

	"syntropy/antientropy"
	"syntropy/merkle"
	"syntropy/report"
)

func (r *replica) addDifference(rep *report.Repair, d antientropy.Difference) {
	if len(rep.Differences) >= report.MaxListed {
		rep.Truncated++
		return
	}
	place := d.Position.String() // of a key that was not told, since nothing is done about it
	if len(d.Key) > 0 {
		_, token := r.store.Locate(d.Key)
		place = token.String()
	}
	out := report.Difference{
		Shard: d.Shard, Token: place, Initiator: sideVersion(d.Initiator), Partner: sideVersion(d.Partner),
		Action: d.Action.String(), Reason: d.Reason(),
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
		Shard: c.Shard, Level: int(c.Node.Bits) / 4, Node: c.Node.String(),
		Initiator: digestOf(c.Initiator), InitiatorEntries: c.InitiatorRows,
		Partner: digestOf(c.Partner), PartnerEntries: c.PartnerRows,
		Outcome: outcome, Then: c.Then.String(),
	})
}

// digestOf is what people are shown of a syndrome: its first word, the sum of the
// fingerprints, tells two nodes apart as well as all four do.
func digestOf(s merkle.Syndrome) string { return fmt.Sprintf("%016x", s[0]) }
