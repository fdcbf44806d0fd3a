package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"syntropy"
	"syntropy/hlc"
	"syntropy/internal/admin"
	"syntropy/internal/resp"
)

// frontDoor lets the two protocols reach a node: it is the Backend of package resp and
// the Node of package admin. What it has in common with a DB comes from there.
type frontDoor struct{ *syntropy.DB }

var (
	_ resp.Backend = frontDoor{}
	_ admin.Node   = frontDoor{}
)

// levels are the levels of a node by those of the protocol.
var levels = map[resp.Consistency]syntropy.Level{
	resp.ConsistencyDefault: syntropy.Default,
	resp.ConsistencyOne:     syntropy.One,
	resp.ConsistencyQuorum:  syntropy.Quorum,
	resp.ConsistencyAll:     syntropy.All,
}

// At implements resp.Backend.
func (d frontDoor) At(read, write resp.Consistency) resp.Backend {
	return frontDoor{d.AtLevels(levels[read], levels[write])}
}

// Consistency implements resp.Backend.
func (d frontDoor) Consistency() (read, write resp.Consistency) {
	r, w := d.Levels()
	for shown, level := range levels {
		if level == r {
			read = shown
		}
		if level == w {
			write = shown
		}
	}
	return read, write
}

// Get implements resp.Backend.
func (d frontDoor) Get(ctx context.Context, key []byte) (value []byte, found bool, err error) {
	value, err = d.DB.Get(ctx, key)
	if errors.Is(err, syntropy.ErrNotFound) {
		return nil, false, nil
	}
	return value, err == nil, err
}

// MGet implements resp.Backend: it stops at resp.MGetBytes. One answer of the node may
// be longer, since each replica that is asked may bring that much.
func (d frontDoor) MGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	values, err := d.GetSome(ctx, keys...)
	if err != nil {
		return nil, err
	}
	bytes := 0
	for i, value := range values {
		if bytes >= resp.MGetBytes {
			return values[:i], nil
		}
		bytes += len(value)
	}
	return values, nil
}

// Put implements resp.Backend. The node bounds the time of a write by itself, and says
// more of one that ran out of it than the context does.
func (d frontDoor) Put(ctx context.Context, pairs []resp.Pair) error {
	all := make([]syntropy.Pair, len(pairs))
	for i, p := range pairs {
		all[i] = syntropy.Pair{Key: p.Key, Value: p.Value, Expires: moment(p.Expires)}
	}
	return d.PutAll(context.WithoutCancel(ctx), all...)
}

// moment returns an expiry of the protocol, in milliseconds since 1970 and zero for
// never, as a time.
func moment(expires int64) time.Time {
	if expires == 0 {
		return time.Time{}
	}
	return time.UnixMilli(expires)
}

// millis is the inverse of moment.
func millis(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

// Delete implements resp.Backend. How many keys existed is read first, at the level of
// reads; the tombstones are written in any case, since a replica that was not asked may
// hold what the others lack.
func (d frontDoor) Delete(ctx context.Context, keys [][]byte) (existed int, err error) {
	if existed, err = d.Exists(ctx, keys); err != nil {
		return 0, err
	}
	return existed, d.DB.Delete(ctx, keys...)
}

// Exists implements resp.Backend.
func (d frontDoor) Exists(ctx context.Context, keys [][]byte) (n int, err error) {
	for len(keys) > 0 {
		values, err := d.GetSome(ctx, keys...)
		if err != nil {
			return 0, err
		}
		for _, value := range values {
			if value != nil {
				n++
			}
		}
		keys = keys[len(values):]
	}
	return n, nil
}

// Expire implements resp.Backend.
func (d frontDoor) Expire(ctx context.Context, key []byte, at int64, cond resp.ExpireCondition) (bool, error) {
	return d.ExpireIf(ctx, key, moment(at), func(current time.Time) bool { return cond.Allows(millis(current), at) })
}

// ExpiryOf implements resp.Backend.
func (d frontDoor) ExpiryOf(ctx context.Context, key []byte) (expires int64, found bool, err error) {
	at, _, err := d.Expiry(ctx, key)
	if errors.Is(err, syntropy.ErrNotFound) {
		return 0, false, nil
	}
	return millis(at), err == nil, err
}

// Scan implements resp.Backend.
func (d frontDoor) Scan(ctx context.Context, cursor uint64, count int) (next uint64, keys [][]byte, err error) {
	page, err := d.Page(ctx, syntropy.PageOptions{From: syntropy.Cursor(cursor), Count: count, KeysOnly: true})
	if err != nil {
		return 0, nil, err
	}
	keys = make([][]byte, len(page.Pairs))
	for i, p := range page.Pairs {
		keys[i] = p.Key
	}
	return uint64(page.Next), keys, nil
}

// Stamp implements resp.Backend.
func (d frontDoor) Stamp(ctx context.Context, key []byte) (v resp.Version, found bool, err error) {
	stamp, node, err := d.DB.Stamp(ctx, key)
	if errors.Is(err, syntropy.ErrNotFound) {
		return v, false, nil
	}
	return resp.Version{Timestamp: uint64(stamp), Time: stamp.Time(), Node: node.String()}, err == nil, err
}

// Layout implements resp.Backend.
func (d frontDoor) Layout(ctx context.Context) (resp.Layout, error) {
	w, err := d.Whereabouts(ctx)
	if err != nil {
		return resp.Layout{}, err
	}
	l := resp.Layout{Cluster: w.Cluster, Version: w.Version, Nodes: make([]resp.LayoutNode, len(w.Members)), Shards: make([][]int, len(w.Replicas))}
	index := make(map[hlc.NodeID]int, len(w.Members))
	for i, m := range w.Members {
		index[m.ID] = i
		l.Nodes[i] = resp.LayoutNode{Name: m.ID.String(), ClientAddr: m.ClientAddr, PeerAddr: m.PeerAddr, Serves: m.Serves}
		if m.ID == w.Self {
			l.Self = i
		}
	}
	for shard, ids := range w.Replicas {
		l.Shards[shard] = make([]int, len(ids))
		for i, id := range ids {
			l.Shards[shard][i] = index[id]
		}
	}
	return l, nil
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

// loadBytes is about how much one request of a load writes. A load may be larger than
// what replicas take within the deadline of one request.
const loadBytes = 1 << 20

// Load implements admin.Node.
func (d frontDoor) Load(ctx context.Context, rows []admin.Row) error {
	for len(rows) > 0 {
		var pairs []syntropy.Pair
		for size := 0; len(pairs) < len(rows) && size < loadBytes; {
			row := rows[len(pairs)]
			pairs = append(pairs, syntropy.Pair{Key: row.Key, Value: row.Value})
			size += len(row.Key) + len(row.Value)
		}
		if err := d.PutAll(ctx, pairs...); err != nil {
			return err
		}
		rows = rows[len(pairs):]
	}
	return nil
}
