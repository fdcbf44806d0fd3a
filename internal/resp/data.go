package resp

import (
	"bytes"
	"context"
	"strconv"
	"strings"
)

// The commands that read and write keys.

func dataCommands() []command {
	return []command{
		{name: "get", arity: 2, flags: []string{"readonly", "fast"}, firstKey: 1, lastKey: 1, keyStep: 1,
			group: "string", since: "1.0.0", usage: "key", summary: "Returns the value of a key.", run: get, paced: true},
		{name: "del", arity: -2, flags: []string{"write"}, firstKey: 1, lastKey: -1, keyStep: 1,
			group: "generic", since: "1.0.0", usage: "key [key ...]", note: "racy: the keys that existed are counted before the delete, so two clients may count the same one",
			summary: "Deletes one or more keys.", run: del},
		{name: "unlink", arity: -2, flags: []string{"write", "fast"}, firstKey: 1, lastKey: -1, keyStep: 1,
			group: "generic", since: "4.0.0", usage: "key [key ...]", note: "racy: like DEL",
			summary: "Deletes one or more keys; the same as DEL.", run: del},
		{name: "exists", arity: -2, flags: []string{"readonly", "fast"}, firstKey: 1, lastKey: -1, keyStep: 1,
			group: "generic", since: "1.0.0", usage: "key [key ...]", summary: "Counts the keys that exist.", run: exists},
		{name: "mget", arity: -2, flags: []string{"readonly", "fast"}, firstKey: 1, lastKey: -1, keyStep: 1,
			group: "string", since: "1.0.0", usage: "key [key ...]", note: "racy: the values are not read at one moment",
			summary: "Returns the values of one or more keys.", run: mget, paced: true},
		{name: "mset", arity: -3, flags: []string{"write", "denyoom"}, firstKey: 1, lastKey: -1, keyStep: 2,
			group: "string", since: "1.0.1", usage: "key value [key value ...]", note: "racy: not a transaction; others may see some of the keys before the rest, and after an error some may be written",
			summary: "Sets the values of one or more keys; not a transaction.", run: mset},
		{name: "strlen", arity: 2, flags: []string{"readonly", "fast"}, firstKey: 1, lastKey: 1, keyStep: 1,
			group: "string", since: "2.2.0", usage: "key", summary: "Returns the length of a value.", run: strlen},
		{name: "getrange", arity: 4, flags: []string{"readonly"}, firstKey: 1, lastKey: 1, keyStep: 1,
			group: "string", since: "2.4.0", usage: "key start end", summary: "Returns a part of a value.", run: getRange},
		{name: "substr", arity: 4, flags: []string{"readonly"}, firstKey: 1, lastKey: 1, keyStep: 1,
			group: "string", since: "1.0.0", usage: "key start end", summary: "Returns a part of a value; the same as GETRANGE.", run: getRange},
		{name: "touch", arity: -2, flags: []string{"readonly", "fast"}, firstKey: 1, lastKey: -1, keyStep: 1,
			group: "generic", since: "3.2.1", usage: "key [key ...]", note: "differs: keys have no access time to change, so it is EXISTS",
			summary: "Counts the keys that exist.", run: exists},
		{name: "type", arity: 2, flags: []string{"readonly", "fast"}, firstKey: 1, lastKey: 1, keyStep: 1,
			group: "generic", since: "1.0.0", usage: "key", summary: "Returns the type of a key: string or none.", run: typeOf},
		{name: "scan", arity: -2, flags: []string{"readonly"},
			group: "generic", since: "2.8.0", usage: "cursor [MATCH pattern] [COUNT count] [TYPE type]", note: "differs: COUNT is at most 10000. A key that is there throughout is returned exactly once, if the levels of reads and writes together are more than all replicas; one that comes or goes, perhaps. A cursor is good on every node, and after a restart",
			summary: "Iterates over the keys.", run: scan},
		{name: "dbsize", arity: 1, flags: []string{"readonly", "fast"},
			group: "server", since: "1.0.0", note: "differs: an estimate. A key that expires counts for some seconds more, and a node that does not hold all keys reckons the rest from those that it holds",
			summary: "Returns the number of keys.", run: dbsize},
	}
}

func get(ctx context.Context, c *conn, args [][]byte) {
	if err := checkKey(args[1]); err != nil {
		c.w.backendError(err)
		return
	}
	c.getEach(ctx, args[1:])
}

func del(ctx context.Context, c *conn, args [][]byte) {
	if err := checkKeys(args[1:]); err != nil {
		c.w.backendError(err)
		return
	}
	existed, err := c.backend.Delete(ctx, distinct(cloneAll(args[1:])))
	c.count(int64(existed), err)
}

// distinct drops repetitions: Redis counts a key deleted twice once.
func distinct(keys [][]byte) [][]byte {
	if len(keys) == 1 {
		return keys
	}
	seen := make(map[string]struct{}, len(keys))
	out := keys[:0]
	for _, key := range keys {
		if _, again := seen[string(key)]; !again {
			seen[string(key)] = struct{}{}
			out = append(out, key)
		}
	}
	return out
}

func exists(ctx context.Context, c *conn, args [][]byte) {
	if err := checkKeys(args[1:]); err != nil {
		c.w.backendError(err)
		return
	}
	n, err := c.backend.Exists(ctx, cloneAll(args[1:]))
	c.count(int64(n), err)
}

func (c *conn) count(n int64, err error) {
	if err != nil {
		c.w.backendError(err)
		return
	}
	c.w.integer(n)
}

func mget(ctx context.Context, c *conn, args [][]byte) {
	if err := checkKeys(args[1:]); err != nil {
		c.w.backendError(err)
		return
	}
	keys := args[1:]
	values, err := c.mgetSome(ctx, keys)
	if err != nil {
		c.w.backendError(err)
		return
	}
	c.w.array(len(keys))
	c.writeValues(ctx, keys, values, nil)
}

// looked counts keys that were there and keys that were not.
func (c *conn) looked(found, missed int64) {
	if found > 0 {
		c.srv.hits.Add(found)
	}
	if missed > 0 {
		c.srv.misses.Add(missed)
	}
}

// mgetSome asks the backend for some of the keys, the first ones.
func (c *conn) mgetSome(ctx context.Context, keys [][]byte) (values [][]byte, err error) {
	keys = keys[:min(len(keys), mgetKeysMax)]
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	values, err = c.backend.MGet(ctx, cloneAll(keys))
	if err == nil && (len(values) == 0 || len(values) > len(keys)) {
		err = errMGetAnswer
	}
	return values, err
}

// writeValues writes a reply for each key, beginning with what mgetSome returned
// for the first of them, and asks for more when those are written. After an
// error it asks no more: the error is the reply for the keys that are left.
func (c *conn) writeValues(ctx context.Context, keys, values [][]byte, err error) {
	for {
		release := func() {}
		if err == nil {
			release, err = c.srv.hold(values...)
		}
		if err != nil {
			for range keys {
				c.w.backendError(err)
				c.w.grown()
			}
			return
		}
		missed := int64(0)
		for _, value := range values {
			if value == nil {
				missed++
				c.w.null()
				c.w.grown()
			} else {
				c.w.bulk(value)
			}
		}
		release()
		c.looked(int64(len(values))-missed, missed)
		keys = keys[len(values):]
		if len(keys) == 0 || c.w.err != nil {
			return
		}
		values, err = c.mgetSome(ctx, keys)
	}
}

func mset(ctx context.Context, c *conn, args [][]byte) {
	flat := args[1:]
	if len(flat)%2 != 0 {
		c.w.error("ERR wrong number of arguments for 'mset' command")
		return
	}
	// All pairs are checked before any is written.
	for i := 0; i < len(flat); i += 2 {
		if err := checkPair(flat[i], flat[i+1]); err != nil {
			c.w.backendError(err)
			return
		}
	}
	if err := c.backend.Put(ctx, lastOfEach(clonePairs(flat, nil))); err != nil {
		c.w.backendError(err)
		return
	}
	c.w.ok()
}

// lastOfEach keeps the last pair of every key, as writing them in turn would.
func lastOfEach(pairs []Pair) []Pair {
	at := make(map[string]int, len(pairs))
	out := pairs[:0]
	for _, pair := range pairs {
		if i, again := at[string(pair.Key)]; again {
			out[i] = pair
			continue
		}
		at[string(pair.Key)] = len(out)
		out = append(out, pair)
	}
	return out
}

func strlen(ctx context.Context, c *conn, args [][]byte) {
	if err := checkKey(args[1]); err != nil {
		c.w.backendError(err)
		return
	}
	value, _, err := c.backend.Get(ctx, bytes.Clone(args[1]))
	c.count(int64(len(value)), err)
}

// getRange is GETRANGE and SUBSTR: bytes from start to end, both included, and
// counted from the end when negative.
func getRange(ctx context.Context, c *conn, args [][]byte) {
	start, ok := parseInteger(args[2])
	end, alsoOK := parseInteger(args[3])
	if !ok || !alsoOK {
		c.w.error(errNotInteger)
		return
	}
	if err := checkKey(args[1]); err != nil {
		c.w.backendError(err)
		return
	}
	value, _, err := c.backend.Get(ctx, bytes.Clone(args[1]))
	if err != nil {
		c.w.backendError(err)
		return
	}
	size := int64(len(value))
	if start < 0 && end < 0 && start > end {
		size = 0
	}
	if start < 0 {
		start = max(0, start+int64(len(value)))
	}
	if end < 0 {
		end = max(0, end+int64(len(value)))
	}
	end = min(end, size-1)
	if start > end {
		c.w.bulk(nil)
		return
	}
	c.value(value[start:end+1], true, nil)
}

func typeOf(ctx context.Context, c *conn, args [][]byte) {
	if err := checkKey(args[1]); err != nil {
		c.w.backendError(err)
		return
	}
	n, err := c.backend.Exists(ctx, cloneAll(args[1:]))
	switch {
	case err != nil:
		c.w.backendError(err)
	case n == 0:
		c.w.status("none")
	default:
		c.w.status("string")
	}
}

func dbsize(ctx context.Context, c *conn, _ [][]byte) {
	n, err := c.backend.Size(ctx)
	c.count(n, err)
}

const (
	scanCountDefault = 10
	// scanCountMax keeps one SCAN from walking the whole store: a client may
	// always be answered fewer keys than it asked for.
	scanCountMax = 10_000
)

func scan(ctx context.Context, c *conn, args [][]byte) {
	cursor, err := strconv.ParseUint(string(args[1]), 10, 64)
	if err != nil {
		c.w.error("ERR invalid cursor")
		return
	}
	var pattern []byte
	count, stringsOnly := scanCountDefault, true
	for options := args[2:]; len(options) > 0; options = options[2:] {
		if len(options) < 2 {
			c.w.error(errSyntax)
			return
		}
		value := options[1]
		switch strings.ToLower(string(options[0])) {
		case "match":
			pattern = value
		case "count":
			n, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil {
				c.w.error(errNotInteger)
				return
			}
			if n < 1 {
				c.w.error(errSyntax)
				return
			}
			count = int(min(n, scanCountMax))
		case "type":
			stringsOnly = strings.EqualFold(string(value), "string")
		default:
			c.w.error(errSyntax)
			return
		}
	}
	var keys [][]byte
	next := uint64(0)
	// There are only strings, so a scan for another type is over at once.
	if stringsOnly {
		next, keys, err = c.backend.Scan(ctx, cursor, count)
		if err != nil {
			c.w.backendError(err)
			return
		}
	}
	if pattern != nil {
		matching := make([][]byte, 0, len(keys))
		for _, key := range keys {
			if globMatch(pattern, key) {
				matching = append(matching, key)
			}
		}
		keys = matching
	}
	c.w.array(2)
	c.w.bulkString(strconv.FormatUint(next, 10))
	c.w.array(len(keys))
	for _, key := range keys {
		c.w.bulk(key)
	}
}
