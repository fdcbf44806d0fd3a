package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"syntropy/internal/fleet"
)

// demoClientTimeout bounds a pipeline of the demo's client. The nodes are on
// this machine, which may be a slow one.
const demoClientTimeout = 30 * time.Second

// newDemoClient returns a client that reads at a consistency.
func newDemoClient(n *fleet.Node, consistency string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: n.ClientAddr(),
		OnConnect: func(ctx context.Context, c *redis.Conn) error {
			return c.Do(ctx, "SYN.CONSISTENCY", "READ", consistency).Err()
		},
		ReadTimeout: demoClientTimeout, WriteTimeout: demoClientTimeout,
		MaxRetries: -1, // a write that is repeated would be another write
	})
}

// sendWrites writes and deletes, through the nodes that are there in turn.
func (d *demo) sendWrites(ctx context.Context, writes demoWrites) error {
	var commands []func(redis.Pipeliner)
	for _, row := range writes.set {
		commands = append(commands, func(p redis.Pipeliner) { p.Set(ctx, row.key, row.value, 0) })
	}
	for _, key := range writes.del {
		commands = append(commands, func(p redis.Pipeliner) { p.Del(ctx, key) })
	}
	turn, done := 0, 0
	for batch := range slices.Chunk(commands, demoBatch/10) {
		_, err := d.clients[turn%2].Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, command := range batch {
				command(p)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("writing through %s: %w", d.node(turn%2).Name, err)
		}
		turn++
		done += len(batch)
		d.progress(done, len(commands), "writes")
	}
	return nil
}

// showReads reads the two known keys on each node, and tells whether n3 alone
// holds what they were before the writes.
func (d *demo) showReads(ctx context.Context) (stale bool, err error) {
	t := table{}
	t.head("NODE", "GET "+demoFace, "GET "+demoGhost)
	stale = true
	for i, c := range d.clients {
		values, err := c.MGet(ctx, demoFace, demoGhost).Result()
		if err != nil {
			return false, err
		}
		name := d.node(i).Name
		old := values[0] == "GRINNING FACE" && values[1] == "GHOST"
		current := values[0] == "grinning face" && values[1] == nil
		style := plain
		if old {
			style = yellow
		}
		t.row(name, cell{text: shown(values[0]), style: style}, cell{text: shown(values[1]), style: style})
		if d.node(i) == d.away() {
			stale = stale && old
		} else {
			stale = stale && current
		}
	}
	d.table(t)
	return stale, nil
}

func shown(value any) string {
	if value == nil {
		return "(nil)"
	}
	return fmt.Sprint(value)
}

// proof is what one node answered to a Redis client that asked for everything.
type proof struct {
	right     int // keys with the value that was written
	wrong     int // keys with another value, or none
	back      int // deleted keys with a value
	size      int64
	scanned   int // keys that SCAN returned, each once
	strangers int // keys that SCAN returned and nobody wrote, or more than once
}

func (d *demo) prove(ctx context.Context) error {
	d.step("Proof")
	d.say("No digest is trusted here: a Redis client reads every key on every node and compares the value, byte by byte, with what was written. At read consistency ONE each node answers from its own copy.")
	want := len(d.data.model)
	right, back, sized, scanned := true, true, true, true
	var found []proof
	t := table{align: "lrrrrr"}
	t.head("NODE", "RIGHT", "WRONG", "BACK FROM THE DEAD", "DBSIZE", "SCANNED")
	for i := range d.clients {
		p, err := d.proveNode(ctx, i)
		if err != nil {
			return fmt.Errorf("reading from %s: %w", d.node(i).Name, err)
		}
		t.row(d.node(i).Name, count(p.right), count(p.wrong), count(p.back), count(p.size), count(p.scanned))
		found = append(found, p)
		right = right && p.right == want && p.wrong == 0
		back = back && p.back == 0
		sized = sized && p.size == int64(want)
		scanned = scanned && p.scanned == want && p.strangers == 0
	}
	d.table(t)
	d.check(right, "every key has its value on every node", "%s", d.onEach(found, func(p proof) int { return p.right }))
	d.check(back, "no deleted key is back", "%s deleted; with a value: %s", count(len(d.data.deleted)), d.onEach(found, func(p proof) int { return p.back }))
	d.check(sized, "every node counts the same", "DBSIZE %s", d.onEach(found, func(p proof) int { return int(p.size) }))
	d.check(scanned, "SCAN returns each key once and no other", "%s", d.onEach(found, func(p proof) int { return p.scanned + p.strangers }))

	d.say("Last, every node reads all of its rows from disk and sums its trees up anew.")
	roots, err := d.node(0).Admin.Roots(ctx, true)
	if err != nil {
		return err
	}
	d.command("roots --recompute", func(a *app) { a.printRoots(roots, false) })
	entries, complete := map[string]uint64{}, true
	for _, s := range roots.Shards {
		complete = complete && len(s.Replicas) == len(d.fleet.Nodes)
		for _, r := range s.Replicas {
			entries[r.Node.String()] += r.Entries
			complete = complete && r.Recomputed == r.Root
		}
	}
	for _, n := range d.fleet.Nodes {
		complete = complete && entries[n.Name] == uint64(want+len(d.data.deleted))
	}
	d.check(judgeRoots(roots) == nil && complete, "all roots are equal, and are what the rows on disk say",
		"%s; %s entries at each node are the keys and %s tombstones", plural(len(roots.Shards), "shard"), count(entries[d.node(0).Name]), count(len(d.data.deleted)))
	return nil
}

// onEach prints a figure of each node.
func (d *demo) onEach(found []proof, figure func(proof) int) string {
	parts := make([]string, len(found))
	for i, p := range found {
		parts[i] = d.node(i).Name + " " + count(figure(p))
	}
	return strings.Join(parts, ", ")
}

// proveNode reads everything from one node.
func (d *demo) proveNode(ctx context.Context, i int) (p proof, err error) {
	name := d.node(i).Name
	keys := make([]string, 0, len(d.data.model)+len(d.data.deleted))
	for key := range d.data.model {
		keys = append(keys, key)
	}
	keys = append(keys, d.data.deleted...)
	done := 0
	for batch := range slices.Chunk(keys, demoBatch) {
		if err := d.readBatch(ctx, d.clients[i], batch, &p); err != nil {
			return p, err
		}
		done += len(batch)
		d.progress(done, len(keys), "keys read from "+name)
	}
	if p.size, err = d.clients[i].DBSize(ctx).Result(); err != nil {
		return p, err
	}
	seen := make(map[string]bool, len(keys))
	scan := d.clients[i].Scan(ctx, 0, "", demoBatch).Iterator()
	for scan.Next(ctx) {
		key := scan.Val()
		if _, expected := d.data.model[key]; !expected || seen[key] {
			p.strangers++
			continue
		}
		seen[key] = true
	}
	p.scanned = len(seen)
	return p, scan.Err()
}

// readBatch reads keys with pipelined MGETs and compares the values.
func (d *demo) readBatch(ctx context.Context, c *redis.Client, keys []string, p *proof) error {
	parts := slices.Collect(slices.Chunk(keys, demoBatch/10))
	answers := make([]*redis.SliceCmd, len(parts))
	_, err := c.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, part := range parts {
			answers[i] = pipe.MGet(ctx, part...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, part := range parts {
		values := answers[i].Val()
		if len(values) != len(part) {
			return fmt.Errorf("MGET of %d keys returned %d values", len(part), len(values))
		}
		for j, key := range part {
			want, exists := d.data.model[key]
			got, held := values[j].(string)
			switch {
			case exists && held && got == want:
				p.right++
			case exists:
				p.wrong++
			case held:
				p.back++
			}
		}
	}
	return nil
}
