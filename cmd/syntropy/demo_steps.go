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
	"syntropy/internal/node"
)

// demoBatch is how many rows or commands the demo sends at a time.
const demoBatch = 1000

// tell tells the story. It fails when it cannot go on; a check that fails is
// only noted.
func (d *demo) tell(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.start, d.load, d.agree, d.takeAway, d.write, d.bringBack, d.find, d.repair, d.prove, d.repairAgain, d.tombstones,
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
	d.say("Three processes of this program meet on 127.0.0.1 and form a cluster. There is no leader, and each node holds a copy of every key.")
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
		d.clients = append(d.clients, newDemoClient(n))
	}
	d.table(t)
	d.check(true, "all three are live", "after %s", span(took))
	return nil
}

func (d *demo) load(ctx context.Context) error {
	d.step("Real data")
	d.say("The name of every Unicode character, U+0041 = LATIN CAPITAL LETTER A and so on, goes in through n1, which sends every write to the other two as well.")
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
	reports, err := d.node(0).Admin.Repair(ctx, node.RepairOptions{DryRun: true})
	if err != nil {
		return err
	}
	d.report.Agreed = reports
	d.command("repair --dry-run", func(a *app) { a.printRepair(reports, node.RepairOptions{DryRun: true}) })
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
	d.say("An ordinary Redis client writes to n1 and n2: %s names in lower case (as long as before), deletes %s keys, adds %s.",
		count(demoOverwritten), count(demoDeleted), count(demoAdded))
	began := d.app.now()
	if err := d.sendWrites(ctx); err != nil {
		return err
	}
	d.written = d.app.now()
	d.report.Overwritten, d.report.Deleted, d.report.Added = len(d.data.overwritten), len(d.data.deleted), len(d.data.added)
	d.check(true, "every write was acknowledged", "%s in %s; %s knows of none", plural(demoEntries, "write"), span(d.written.Sub(began)), d.away().Name)
	return nil
}

func (d *demo) bringBack(ctx context.Context) error {
	back := d.away()
	d.step("The node comes back")
	d.say("%s starts on the data that it had. It is healthy, and behind:", back.Name)
	if err := back.Start(); err != nil {
		return err
	}
	d.gone = nil
	if err := d.fleet.WaitLive(ctx); err != nil {
		return err
	}
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

func (d *demo) find(ctx context.Context) error {
	d.step("What differs?")
	d.say("A repair leaves alone what is younger than the settle window (%v here): it is most likely a write that is just arriving, and would be sent twice.", demoSettle)
	waited, err := d.settle(ctx)
	if err != nil {
		return err
	}
	if waited > 0 {
		d.say("Waited %s for the last write to be older than that.", span(waited))
	} else {
		d.say("The last write is older than that by now.")
	}
	opts := node.RepairOptions{DryRun: true}
	reports, err := d.node(0).Admin.Repair(ctx, opts)
	if err != nil {
		return err
	}
	differences := make([][]node.Difference, len(reports))
	for i := range reports { // thousands of lines, kept out of the table and the JSON
		differences[i], reports[i].Differences = reports[i].Differences, nil
	}
	d.report.DryRun = reports
	d.command("repair --dry-run", func(a *app) { a.printRepair(reports, opts) })
	want := map[string]int{"n1 - n2": 0, "n1 - n3": demoEntries, "n2 - n3": demoEntries}
	ok := len(reports) == len(want) && total(reports).failed == 0
	var found []string
	for _, r := range reports {
		of := pair(r.Initiator, r.Partner)
		ok = ok && r.KeysDiverged == want[of] && r.KeysInFlight == 0
		found = append(found, of+" "+count(r.KeysDiverged))
	}
	d.check(ok, "found exactly the keys that were written meanwhile", "%s; a key that is old at n3 counts for both pairs with it", strings.Join(found, ", "))
	if !ok {
		return nil
	}
	return d.explain(ctx, differences[slices.IndexFunc(reports, func(r node.RepairReport) bool { return r.KeysDiverged > 0 })])
}

// settle waits until the last write is older than the settle window.
func (d *demo) settle(ctx context.Context) (time.Duration, error) {
	wait := d.written.Add(demoSettle + 50*time.Millisecond).Sub(d.app.now())
	if wait <= 0 {
		return 0, nil
	}
	settled := time.NewTimer(wait)
	defer settled.Stop()
	select {
	case <-settled.C:
		return wait, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// explainCandidates is how many shards are drawn to find the shortest picture.
const explainCandidates = 8

// explain draws the descent through the trees of one shard: one in which few
// keys differ, so that the picture is short.
func (d *demo) explain(ctx context.Context, differences []node.Difference) error {
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
	best, bestShard := node.RepairReport{}, -1
	lines := func(r node.RepairReport) int { return len(r.Descent) + 5*len(r.Differences) }
	for _, shard := range shards[:min(len(shards), explainCandidates)] {
		reports, err := d.node(0).Admin.Repair(ctx, node.RepairOptions{Node: back, Shard: &shard, DryRun: true, Explain: true})
		if err != nil {
			return err
		}
		if r := reports[0]; r.Error == "" && (bestShard < 0 || lines(r) < lines(best)) {
			best, bestShard = r, shard
		}
	}
	d.say("How it finds them, in the shard with the shortest picture: the digests of the roots differ, so both sides compare the 16 children, and go down only where these differ.")
	d.command(fmt.Sprintf("repair --dry-run --explain --node %v --shard %d", back, bestShard), func(a *app) { a.printExplanation(best) })
	d.check(bestShard >= 0 && len(best.Differences) == keys[bestShard], "the descent ends at the keys that differ", "%s of shard %d, %s compared", plural(len(best.Differences), "key"), bestShard, plural(len(best.Descent), "digest"))
	return nil
}
