package main

import (
	"context"
	"fmt"
	"slices"

	"syntropy/report"
)

// sums are a repair's reports added up.
type sums struct {
	tally
	rounds int
	bytes  int64
}

func sumUp(reports []report.Repair) sums {
	s := sums{tally: total(reports)}
	for _, r := range reports {
		s.rounds += r.Rounds
		s.bytes += r.BytesSent + r.BytesReceived
	}
	return s
}

// oneDigestEach reports whether all three pairs agreed at the first exchange.
func oneDigestEach(reports []report.Repair) bool {
	return len(reports) == 3 && !slices.ContainsFunc(reports, func(r report.Repair) bool {
		return r.Error != "" || r.Rounds != 1 || r.ShardsEqual != r.Shards ||
			r.KeysDiverged+r.KeysInFlight+r.KeysPulled+r.KeysPushed != 0
	})
}

func (d *demo) repair(ctx context.Context) error {
	d.step("Repair")
	d.say("Now for good: the schedule would do the same by itself. Of each key the newer version wins, and it alone travels, to the side that lacks it. After n1 has brought n3 up to date, n2 and n3 find nothing left to do.")
	reports, err := d.node(0).Admin.Repair(ctx, report.RepairOptions{})
	if err != nil {
		return err
	}
	d.report.Repair = reports
	d.command("repair", func(a *app) { a.printRepair(reports, report.RepairOptions{}) })

	sum, costs := sumUp(reports), d.data.costs()
	pairs := int64(len(reports))
	r := &d.report
	r.Rounds, r.KeysDiverged, r.EntriesTravelled, r.BytesTravelled = sum.rounds, sum.diverged, sum.pulled+sum.pushed, sum.bytes
	r.EntryBytes = costs.diverged
	r.KeyByKeyBytes = pairs*costs.listed + costs.diverged
	r.StreamBytes = pairs * costs.held
	r.KeyByKeyRatio = float64(r.KeyByKeyBytes) / float64(max(1, r.BytesTravelled))
	r.StreamRatio = float64(r.StreamBytes) / float64(max(1, r.BytesTravelled))

	d.say("What the three pairs cost together, next to what they would have cost without trees (computed from the same rows, without any framing):")
	t := table{align: "lrr"}
	t.head("", "BYTES", "TIMES", "")
	t.row("this repair, all messages", size(r.BytesTravelled), times(1), note(fmt.Sprintf("%s of it are the entries that differ", size(costs.diverged))))
	t.row("comparing key by key", size(r.KeyByKeyBytes), times(r.KeyByKeyRatio), note(fmt.Sprintf("key and version of %s entries, for each pair", count(costs.entries))))
	t.row("streaming everything", size(r.StreamBytes), times(r.StreamRatio), note("the values as well"))
	d.table(t)
	d.check(sum.failed == 0 && sum.inFlight == 0, "every pair was compared to the end", "%s in %d rounds", plural(len(reports), "pair"), sum.rounds)
	d.check(r.EntriesTravelled == demoLeft && sum.diverged == demoLeft, fmt.Sprintf("exactly %s entries travelled", count(demoLeft)),
		"%s pushed, %s pulled, %s found to differ", count(sum.pushed), count(sum.pulled), count(sum.diverged))
	return d.oneKey(ctx)
}

// oneKey ends the walk of the key that was shown stale: past the first two lines of
// defence, and healed by the third.
func (d *demo) oneKey(ctx context.Context) error {
	d.say("One of them is %s, shown above. n3 was down when it was written; its hint grew too old; nobody has read it; and this session found it by its digest:", demoFace)
	in, err := d.node(2).Admin.Inspect(ctx, []byte(demoFace))
	if err != nil {
		return err
	}
	d.command("inspect "+demoFace, func(a *app) { a.printInspection(in, []byte(demoFace)) })
	d.check(in.Agree && len(in.Replicas) == 3 && in.Replicas[2].Found, "one key through the whole picture: brought by neither hint nor read, healed by anti-entropy", "")
	return nil
}

func times(ratio float64) string {
	if ratio >= 100 {
		return count(int(ratio))
	}
	return fmt.Sprintf("%.1f", ratio)
}

func (d *demo) repairAgain(ctx context.Context) error {
	d.step("Repair once more")
	d.say("It costs next to nothing when nothing differs, so the schedule can afford to compare every pair all the time, whether or not anything seems wrong.")
	reports, err := d.node(0).Admin.Repair(ctx, report.RepairOptions{})
	if err != nil {
		return err
	}
	d.report.Again = reports
	d.command("repair", func(a *app) { a.printRepair(reports, report.RepairOptions{}) })
	sum, costs := sumUp(reports), d.data.costs()
	keyByKey := int64(len(reports)) * costs.listed
	d.check(oneDigestEach(reports), "one exchange per pair, and no entry", "%s; key by key it would take %s again, %s times as much",
		size(sum.bytes), size(keyByKey), times(float64(keyByKey)/float64(max(1, sum.bytes))))
	return nil
}

func (d *demo) tombstones(ctx context.Context) error {
	d.step("What tombstones are for")
	d.say("%s GHOST was deleted while n3 was away. Had n1 and n2 just forgotten the key, they could not tell \"deleted\" from \"not yet written\", and n3 would have given its value back to them. So a delete is an entry as well, newer than the value, and wins:", demoGhost)
	in, err := d.node(2).Admin.Inspect(ctx, []byte(demoGhost))
	if err != nil {
		return err
	}
	d.command("inspect "+demoGhost, func(a *app) { a.printInspection(in, []byte(demoGhost)) })
	ok := in.Agree && len(in.Replicas) == 3
	for _, r := range in.Replicas {
		ok = ok && r.Error == "" && r.Found && r.Tombstone
	}
	d.check(ok, "one tombstone on all three", "in this version it is kept for good")
	return nil
}
