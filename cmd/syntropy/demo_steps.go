package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"syntropy/hlc"
	"syntropy/internal/admin"
	"syntropy/internal/fleet"
	"syntropy/report"
)

// demoBatch is how many rows or commands the demo sends at a time.
const demoBatch = 1000

// tell tells the story. It fails when it cannot go on; a check that fails is
// only noted.
func (d *demo) tell(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.start, d.load, d.agree, d.takeAway, d.write, d.outlive, d.bringBack, d.readSome, d.find, d.repair, d.prove, d.repairAgain, d.tombstones,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) node(i int) *fleet.Node { return d.fleet.Nodes[i] }

// away is the node that the demo kills.
func (d *demo) away() *fleet.Node { return d.node(2) }

func (d *demo) start(ctx context.Context) error {
	d.step("Three nodes")
	d.say("Three processes of this program meet on 127.0.0.1 and form a cluster. There is no leader: any of them takes reads and writes, and each holds a copy of every key.")
	began := d.app.now()
	if err := d.fleet.Start(); err != nil {
		return err
	}
	if err := d.fleet.WaitLive(ctx); err != nil {
		return err
	}
	took := d.app.now().Sub(began)
	t := table{align: "lrrrr"}
	t.head("NODE", "PID", "CLIENTS", "PEERS", "ADMIN")
	for _, n := range d.fleet.Nodes {
		t.row(n.Name, n.PID(), n.Clients, n.Peers, n.Ports.Admin)
		d.clients = append(d.clients, newDemoClient(n, "ONE"))
	}
	d.table(t)
	d.check(true, "all three are live", "after %s", span(took))
	return nil
}

func (d *demo) load(ctx context.Context) error {
	d.step("Real data")
	d.say("The name of every Unicode character, U+0041 = LATIN CAPITAL LETTER A and so on, goes in through n1, which sends every write to all three and says OK when two of them have it on disk.")
	began := d.app.now()
	done := 0
	for batch := range slices.Chunk(d.data.rows, demoBatch) {
		rows := make([]admin.Row, len(batch))
		for i, row := range batch {
			rows[i] = admin.Row{Key: []byte(row.key), Value: []byte(row.value)}
		}
		if err := d.node(0).Admin.Load(ctx, rows); err != nil {
			return err
		}
		done += len(batch)
		d.progress(done, len(d.data.rows), "rows")
	}
	took := d.app.now().Sub(began)
	d.report.Rows, d.report.Bytes, d.report.LoadSeconds = done, d.data.bytes, took.Seconds()
	d.check(true, "loaded", "%s, %s, in %s", plural(done, "row"), size(d.data.bytes), span(took))
	return nil
}

func (d *demo) agree(ctx context.Context) error {
	d.step("Do the replicas agree?")
	d.say("Each node keeps a Merkle tree over its keys, brought up to date with every write. To compare all they hold, two nodes exchange one digest.")
	if err := d.delivered(ctx); err != nil { // the third of each write may still be on its way
		return err
	}
	reports, err := d.node(0).Admin.Repair(ctx, report.RepairOptions{DryRun: true})
	if err != nil {
		return err
	}
	d.report.Agreed = reports
	d.command("repair --dry-run", func(a *app) { a.printRepair(reports, report.RepairOptions{DryRun: true}) })
	sum := sumUp(reports)
	d.check(oneDigestEach(reports), "all three agree", "%s for %s on %s", size(sum.bytes), plural(len(d.data.rows), "row"), plural(len(reports), "pair"))
	return nil
}

func (d *demo) takeAway(ctx context.Context) error {
	gone := d.away()
	d.step("Take a node away")
	d.say("kill -9 %d: %s is gone at once, with no chance to tidy up or to say goodbye.", gone.PID(), gone.Name)
	gone.Kill()
	d.gone = gone
	began := d.app.now()
	if err := d.fleet.WaitDown(ctx, gone); err != nil {
		return err
	}
	d.check(true, "n1 and n2 have noticed and go on", "after %s", span(d.app.now().Sub(began)))
	return nil
}

func (d *demo) write(ctx context.Context) error {
	d.step("Life goes on")
	d.say("An ordinary Redis client writes to n1 and n2: %s names in lower case (as long as before), deletes %s keys, adds %s. Two of three is a quorum, so every write is acknowledged; and for n3 they keep it as a hint.",
		count(demoOverwritten), count(demoDeleted), count(demoAdded))
	began := d.app.now()
	if err := d.sendWrites(ctx, d.data.whileAway()); err != nil {
		return err
	}
	d.missed = d.app.now()
	d.report.Overwritten, d.report.Deleted, d.report.Added = len(d.data.overwritten), len(d.data.deleted), len(d.data.added)
	d.check(true, "every write was acknowledged", "%s in %s; %s knows of none", plural(demoEntries, "write"), span(d.missed.Sub(began)), d.away().Name)
	defended, err := d.defences(ctx)
	if err != nil {
		return err
	}
	d.report.HintsKept = defended.HintsKept
	d.check(defended.HintsKept == demoEntries, "each is kept for n3", "%s on the disks of n1 and n2", plural(defended.HintsKept, "hint"))
	return nil
}

// outlive lets the hints grow too old.
func (d *demo) outlive(ctx context.Context) error {
	d.step("It stays away for too long")
	d.say("Hints are for short absences. Older than the hint window (%v here, 3 h by default) a write is not brought any more. n3 stays away for that long; then %s more keys are written, and it comes back.", demoHintWindow, count(demoLate))
	if err := d.wait(ctx, d.missed.Add(demoHintWindow+50*time.Millisecond)); err != nil {
		return err
	}
	if err := d.sendWrites(ctx, d.data.lateWrites()); err != nil {
		return err
	}
	d.written = d.app.now()
	d.report.Late = len(d.data.late)
	d.check(true, "the late writes were acknowledged", "%s", plural(len(d.data.late), "write"))
	return nil
}

func (d *demo) bringBack(ctx context.Context) error {
	back := d.away()
	d.step("First line of defence: hinted handoff")
	d.say("%s starts on the data that it had, and is brought what was kept for it and is young enough.", back.Name)
	if err := back.Start(); err != nil {
		return err
	}
	d.gone = nil
	if err := d.fleet.WaitLive(ctx); err != nil {
		return err
	}
	if err := d.delivered(ctx); err != nil {
		return err
	}
	defended, err := d.defences(ctx)
	if err != nil {
		return err
	}
	d.report.HintsDelivered, d.report.HintsExpired = defended.HintsDelivered, defended.HintsExpired
	d.check(defended.HintsDelivered == demoLate && defended.HintsExpired == demoEntries, "the hints brought what was young enough, and no more",
		"%s brought, %s too old and dropped", count(defended.HintsDelivered), count(defended.HintsExpired))
	d.say("So n3 is healthy, and behind. Asked for its own copy (read consistency ONE), it says:")
	stale, err := d.showReads(ctx)
	if err != nil {
		return err
	}
	in, err := d.node(0).Admin.Inspect(ctx, []byte(demoFace))
	if err != nil {
		return err
	}
	d.command("inspect "+demoFace, func(a *app) { a.printInspection(in, []byte(demoFace)) })
	d.check(stale && !in.Agree, back.Name+" has the old value and the deleted key", "")
	return nil
}

// readSome reads a few of the keys that n3 missed, at QUORUM.
func (d *demo) readSome(ctx context.Context) error {
	d.step("Second line of defence: read repair")
	d.say("A client asks n3 for %s of the keys that it missed, at QUORUM, which is the default. n3 compares its copy with another replica's, answers with the newer one, and is healed by it: these keys, and no others.", count(demoRead))
	c := newDemoClient(d.away(), "QUORUM")
	defer c.Close()
	right := 0
	for _, row := range d.data.read() {
		value, err := c.Get(ctx, row.key).Result()
		if err != nil {
			return err
		}
		if value == row.value {
			right++
		}
	}
	defended, err := d.defences(ctx)
	if err != nil {
		return err
	}
	d.report.Read, d.report.ReadRepairs = demoRead, defended.ReadRepairs
	d.check(right == demoRead, "every read saw the newest value, at the node that did not have it", "%s", plural(right, "key"))
	d.check(defended.ReadRepairs == demoRead, "and healed it", "%s", plural(defended.ReadRepairs, "read repair"))
	return nil
}

func (d *demo) find(ctx context.Context) error {
	d.step("Third line of defence: anti-entropy")
	d.say("%s writes are left that n3 missed, too old for a hint and read by nobody. Every pair of nodes compares its trees within each repair interval (1 h by default; here only when told to), and \"repair --dry-run\" shows what that finds.", count(demoLeft))
	d.say("A difference younger than the settle window (%v here) is left alone: it is most likely a write that is just arriving, and would be sent twice.", demoSettle)
	if err := d.wait(ctx, d.written.Add(demoSettle+50*time.Millisecond)); err != nil {
		return err
	}
	opts := report.RepairOptions{DryRun: true}
	reports, err := d.node(0).Admin.Repair(ctx, opts)
	if err != nil {
		return err
	}
	differences := make([][]report.Difference, len(reports))
	for i := range reports { // thousands of lines, kept out of the table and the JSON
		differences[i], reports[i].Differences = reports[i].Differences, nil
	}
	d.report.DryRun = reports
	d.command("repair --dry-run", func(a *app) { a.printRepair(reports, opts) })
	want := map[string]int{"n1 - n2": 0, "n1 - n3": demoLeft, "n2 - n3": demoLeft}
	ok := len(reports) == len(want) && total(reports).failed == 0
	var found []string
	for _, r := range reports {
		of := pair(r.Initiator, r.Partner)
		ok = ok && r.KeysDiverged == want[of] && r.KeysInFlight == 0
		found = append(found, of+" "+count(r.KeysDiverged))
	}
	d.check(ok, "found exactly the keys that nothing else has healed", "%s; a key that is old at n3 counts for both pairs with it", strings.Join(found, ", "))
	if !ok {
		return nil
	}
	return d.explain(ctx, differences[slices.IndexFunc(reports, func(r report.Repair) bool { return r.KeysDiverged > 0 })])
}

// defences adds up what the nodes that are up have done in each line of defence.
func (d *demo) defences(ctx context.Context) (sum report.Counters, err error) {
	for _, n := range d.fleet.Nodes {
		if n == d.gone {
			continue
		}
		st, err := n.Admin.Status(ctx)
		if err != nil {
			return sum, err
		}
		c := st.Counters
		sum.HintsKept += c.HintsKept
		sum.HintsDelivered += c.HintsDelivered
		sum.HintsExpired += c.HintsExpired
		sum.ReadRepairs += c.ReadRepairs
		sum.WritesInFlight += c.WritesInFlight
		sum.HintsPending += c.HintsPending
	}
	return sum, nil
}

// delivered waits until no write is on its way to a replica any more, and no hint
// waits to be brought to one.
func (d *demo) delivered(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		sum, err := d.defences(ctx)
		if err != nil || sum.WritesInFlight == 0 && sum.HintsPending == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wait waits until a moment.
func (d *demo) wait(ctx context.Context, until time.Time) error {
	left := until.Sub(d.app.now())
	if left <= 0 {
		return nil
	}
	over := time.NewTimer(left)
	defer over.Stop()
	select {
	case <-over.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// explainCandidates is how many shards are drawn to find the shortest picture.
const explainCandidates = 8

// explain draws the descent through the trees of one shard: one in which few
// keys differ, so that the picture is short.
func (d *demo) explain(ctx context.Context, differences []report.Difference) error {
	keys := map[int]int{}
	for _, diff := range differences {
		keys[diff.Shard]++
	}
	shards := slices.SortedFunc(maps.Keys(keys), func(x, y int) int {
		return cmp.Or(cmp.Compare(keys[x], keys[y]), cmp.Compare(x, y))
	})
	back, err := hlc.ParseNodeID(d.away().Name)
	if err != nil {
		return err
	}
	best, bestShard := report.Repair{}, -1
	lines := func(r report.Repair) int { return len(r.Descent) + 5*len(r.Differences) }
	for _, shard := range shards[:min(len(shards), explainCandidates)] {
		reports, err := d.node(0).Admin.Repair(ctx, report.RepairOptions{Node: back, Shard: &shard, DryRun: true, Explain: true})
		if err != nil {
			return err
		}
		if r := reports[0]; r.Error == "" && (bestShard < 0 || lines(r) < lines(best)) {
			best, bestShard = r, shard
		}
	}
	d.say("How it finds them, in the shard with the shortest picture: the digests of the roots differ, so both sides compare the 16 children, and go down only where these differ. That is the textbook's way. A session that nobody watches stops where the difference of two digests tells which keys it is of.")
	d.command(fmt.Sprintf("repair --dry-run --explain --node %v --shard %d", back, bestShard), func(a *app) { a.printExplanation(best) })
	d.check(bestShard >= 0 && len(best.Differences) == keys[bestShard], "the descent ends at the keys that differ", "%s of shard %d, %s compared", plural(len(best.Differences), "key"), bestShard, plural(len(best.Descent), "digest"))
	return nil
}
