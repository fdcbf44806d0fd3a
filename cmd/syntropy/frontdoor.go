package main

import (
	"context"
	"strconv"
	"time"

	"syntropy/internal/admin"
	"syntropy/internal/node"
	"syntropy/internal/resp"
)

// frontDoor lets the two protocols reach a node: it is the Backend of package
// resp and the Node of package admin.
type frontDoor struct{ *node.Node }

var (
	_ resp.Backend = frontDoor{}
	_ admin.Node   = frontDoor{}
)

// MGet implements resp.Backend: it stops at resp.MGetBytes.
func (d frontDoor) MGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	values := make([][]byte, 0, len(keys))
	bytes := 0
	for _, key := range keys {
		if bytes >= resp.MGetBytes {
			break
		}
		value, found, err := d.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		if found && value == nil {
			value = []byte{}
		}
		values = append(values, value)
		bytes += len(value)
	}
	return values, nil
}

// Put implements resp.Backend.
func (d frontDoor) Put(ctx context.Context, pairs []resp.Pair) error {
	ops := make([]node.Op, len(pairs))
	for i, p := range pairs {
		ops[i] = node.Op{Key: p.Key, Value: p.Value}
	}
	return d.Write(ctx, ops)
}

// Delete implements resp.Backend. How many keys existed is what this node's
// replica says; the tombstones are written in any case, since another replica
// may hold what this one lacks.
func (d frontDoor) Delete(ctx context.Context, keys [][]byte) (existed int, err error) {
	if existed, err = d.Exists(ctx, keys); err != nil {
		return 0, err
	}
	ops := make([]node.Op, len(keys))
	for i, key := range keys {
		ops[i] = node.Op{Key: key, Delete: true}
	}
	return existed, d.Write(ctx, ops)
}

// Exists implements resp.Backend.
func (d frontDoor) Exists(ctx context.Context, keys [][]byte) (n int, err error) {
	for _, key := range keys {
		_, found, err := d.Get(ctx, key)
		if err != nil {
			return 0, err
		}
		if found {
			n++
		}
	}
	return n, nil
}

// Info implements resp.Backend.
func (d frontDoor) Info(ctx context.Context) []resp.InfoSection {
	st, err := d.Status(ctx)
	if err != nil {
		return []resp.InfoSection{{Name: "Syntropy", Fields: [][2]string{{"state", err.Error()}}}}
	}
	fields := [][2]string{
		{"cluster", st.Cluster},
		{"node", st.Node.String()},
		{"tombstones", strconv.FormatInt(st.Tombstones, 10)},
		{"oldest_unproven_seconds", strconv.FormatFloat(st.OldestUnprovenSeconds, 'f', 3, 64)},
	}
	up := 0
	for _, n := range st.Nodes {
		fields = append(fields, [2]string{n.Node.String(), "addr=" + n.Peer + ",state=" + n.State})
		if n.Up {
			up++
		}
	}
	fields = append(fields, [2]string{"nodes_up", strconv.Itoa(up)})
	sections := []resp.InfoSection{{Name: "Syntropy", Fields: fields}}
	if size, err := d.Size(ctx); err == nil && size > 0 {
		sections = append(sections, resp.InfoSection{Name: "Keyspace", Fields: [][2]string{
			{"db0", "keys=" + strconv.FormatInt(size, 10) + ",expires=0,avg_ttl=0"},
		}})
	}
	return sections
}

// loadDeadline bounds one batch of an import, which is larger than a request of
// a client.
const loadDeadline = time.Minute

// Load implements admin.Node.
func (d frontDoor) Load(ctx context.Context, rows []admin.Row) error {
	ctx, cancel := context.WithTimeout(ctx, loadDeadline)
	defer cancel()
	ops := make([]node.Op, len(rows))
	for i, row := range rows {
		ops[i] = node.Op{Key: row.Key, Value: row.Value}
	}
	return d.Write(ctx, ops)
}
