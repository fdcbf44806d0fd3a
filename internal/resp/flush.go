package resp

import (
	"context"
	"strings"
)

// Deleting everything: FLUSHALL and FLUSHDB. One typing error would delete the data
// of a cluster, and last write wins has no way back, so a node does it only if it was
// started for it.

const flushRefused = "one command must not delete the data of a cluster, unless the node was started with --enable-flush; delete keys with DEL, or begin with an empty data directory"

// flushCount is how many keys are found and deleted at a time.
const flushCount = 1000

func flushCommands() []command {
	const note = "racy: only on a node with --enable-flush, else refused; deletes key by key and leaves tombstones, so what is written meanwhile may stay, and after an error a part is deleted"
	write := []string{"write"}
	return []command{
		{name: "flushall", arity: -1, flags: write, group: "server", since: "1.0.0", usage: "[ASYNC | SYNC]",
			note: note, summary: "Deletes all keys.", run: flush, paced: true},
		{name: "flushdb", arity: -1, flags: write, group: "server", since: "1.0.0", usage: "[ASYNC | SYNC]",
			note: "racy: like FLUSHALL", summary: "Deletes all keys; the same as FLUSHALL.", run: flush, paced: true},
		{name: "function", arity: -2, flags: []string{"noscript"}, group: "scripting", since: "7.0.0",
			summary: "A container for commands about functions: there are none.", subcommands: []command{
				{name: "flush", arity: -2, since: "7.0.0", usage: "[ASYNC | SYNC]", summary: "Deletes all functions: there are none.", run: functionFlush},
				{name: "list", arity: -2, since: "7.0.0", usage: "[LIBRARYNAME pattern] [WITHCODE]", summary: "Lists the functions: there are none.",
					run: func(_ context.Context, c *conn, _ [][]byte) { c.w.array(0) }},
			}},
	}
}

func flush(ctx context.Context, c *conn, args [][]byte) {
	if !c.srv.opts.EnableFlush {
		c.w.error("ERR " + strings.ToUpper(string(args[0])) + " is refused: " + flushRefused)
		return
	}
	if !isFlushOption(args[1:]) {
		c.w.error(errSyntax)
		return
	}
	for cursor := uint64(0); ; {
		next, err := c.flushSome(ctx, cursor)
		if err != nil {
			c.w.backendError(err)
			return
		}
		if cursor = next; cursor == 0 {
			c.w.ok()
			return
		}
	}
}

// isFlushOption accepts ASYNC and SYNC. Both are done before the answer.
func isFlushOption(options [][]byte) bool {
	return len(options) == 0 || len(options) == 1 &&
		(strings.EqualFold(string(options[0]), "async") || strings.EqualFold(string(options[0]), "sync"))
}

// flushSome deletes about flushCount keys, in the time of one command.
func (c *conn) flushSome(ctx context.Context, cursor uint64) (next uint64, err error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	next, keys, err := c.backend.Scan(ctx, cursor, flushCount)
	if err != nil || len(keys) == 0 {
		return next, err
	}
	_, err = c.backend.Delete(ctx, keys)
	return next, err
}

func functionFlush(_ context.Context, c *conn, args [][]byte) {
	if !isFlushOption(args[2:]) {
		c.w.error("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
		return
	}
	c.w.ok()
}
