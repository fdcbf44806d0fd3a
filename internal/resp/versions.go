package resp

import (
	"bytes"
	"context"
	"time"

	"syntropy/report"
)

// Commands about what Redis has no word for: the timestamp by which the last write
// wins, what each replica holds of a key, and how many replicas hold what was
// written.

func versionCommands() []command {
	return []command{
		{name: "syn.timestamp", arity: 2, flags: []string{"readonly", "fast"}, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "0.1.0",
			usage: "key", note: "own: of two writes the one with the greater timestamp stays; nil when there is no such key",
			summary: "Returns the timestamp of a value, when that was, and the node that wrote it.", run: timestamp},
		{name: "syn.inspect", arity: 2, flags: []string{"readonly", "admin"}, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "0.1.0",
			usage: "key", note: "own: asks all replicas, whatever the consistency; shows tombstones and expired values too",
			summary: "Returns what each replica holds of a key.", run: inspect},
		{name: "wait", arity: 3, flags: []string{"blocking"}, group: "generic", since: "3.0.0", usage: "numreplicas timeout",
			note:    "differs: never waits, since OK came after the replicas had the write: on disk, unless their nodes run with --sync interval. It answers how many the write consistency of the connection waits for, less one; ask for more with SYN.CONSISTENCY before writing",
			summary: "Returns how many replicas beside one have each write that was told OK.", run: wait},
	}
}

func timestamp(ctx context.Context, c *conn, args [][]byte) {
	if err := checkKey(args[1]); err != nil {
		c.w.backendError(err)
		return
	}
	version, found, err := c.backend.Stamp(ctx, bytes.Clone(args[1]))
	switch {
	case err != nil:
		c.w.backendError(err)
	case !found:
		c.w.null()
	default:
		c.w.mapOf(3)
		c.w.bulkString("timestamp")
		c.w.integer(int64(version.Timestamp))
		c.w.bulkString("time")
		c.w.bulkString(version.Time.UTC().Format(timeLayout))
		c.w.bulkString("node")
		c.w.bulkString(version.Node)
	}
}

// timeLayout is RFC 3339 with microseconds, which is how exact timestamps are.
const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

// Version is what the last write wins by.
type Version struct {
	Timestamp uint64
	Time      time.Time // that the timestamp stands for
	Node      string    // that wrote it, such as n1
}

func inspect(ctx context.Context, c *conn, args [][]byte) {
	if err := checkKey(args[1]); err != nil {
		c.w.backendError(err)
		return
	}
	in, err := c.backend.Inspect(ctx, bytes.Clone(args[1]))
	if err != nil {
		c.w.backendError(err)
		return
	}
	c.w.mapOf(5)
	c.w.bulkString("slot")
	c.w.integer(int64(in.Slot))
	c.w.bulkString("shard")
	c.w.integer(int64(in.Shard))
	c.w.bulkString("token")
	c.w.bulkString(in.Token)
	c.w.bulkString("agree")
	c.w.boolean(in.Agree)
	c.w.bulkString("replicas")
	c.w.array(len(in.Replicas))
	for _, replica := range in.Replicas {
		c.replica(&replica)
	}
}

// replica writes what one replica holds: less when it holds nothing, or is down.
func (c *conn) replica(v *report.ReplicaVersion) {
	holds := "nothing"
	switch {
	case v.Error != "":
		holds = "unknown"
	case v.Found && v.Tombstone:
		holds = "tombstone"
	case v.Found:
		holds = "value"
	}
	fields := [][2]string{{"node", v.Node.String()}, {"state", v.State}, {"holds", holds}}
	if v.Error != "" {
		fields = append(fields, [2]string{"error", v.Error})
	}
	numbers := 0
	if v.Found && v.Error == "" {
		fields = append(fields, [2]string{"time", v.Time}, [2]string{"writer", v.Writer}, [2]string{"digest", v.Digest})
		numbers = 3
	}
	c.w.mapOf(len(fields) + numbers)
	for _, field := range fields {
		c.w.bulkString(field[0])
		c.w.bulkString(field[1])
	}
	if numbers == 0 {
		return
	}
	c.w.bulkString("timestamp")
	c.w.integer(int64(v.Timestamp))
	c.w.bulkString("bytes")
	c.w.integer(int64(v.ValueBytes))
	c.w.bulkString("expires")
	if v.Expires == nil {
		c.w.integer(ttlNoExpiry)
	} else {
		c.w.integer(v.Expires.UnixMilli())
	}
}

func wait(ctx context.Context, c *conn, args [][]byte) {
	if _, ok := parseInteger(args[1]); !ok {
		c.w.error(errNotInteger)
		return
	}
	timeout, ok := parseInteger(args[2])
	switch {
	case !ok:
		c.w.error("ERR timeout is not an integer or out of range")
		return
	case timeout < 0:
		c.w.error("ERR timeout is negative")
		return
	}
	l, ok := c.layout(ctx)
	if !ok {
		return
	}
	replicas := 1
	if len(l.Shards) > 0 {
		replicas = len(l.Shards[0])
	}
	_, level := c.backend.Consistency()
	c.w.integer(int64(level.of(replicas) - 1))
}

// of returns how many of n replicas the level waits for.
func (l Consistency) of(n int) int {
	switch l {
	case ConsistencyOne:
		return 1
	case ConsistencyAll:
		return n
	}
	return n/2 + 1
}
