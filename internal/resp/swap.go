package resp

import (
	"bytes"
	"context"
	"strings"
)

// Commands that read a key and then write it. Redis does the two at once; here
// another client may write in between, and the answer is then what was there before
// that. What they write wins or loses by its timestamp like any other write. Nothing
// that is written depends on the value that was read, so no update gets lost unseen:
// where it would, as with INCR, the command is refused.

func swapCommands() []command {
	const race = "racy: the value is read first, so two clients at the same time may be answered the same one"
	write := []string{"write", "fast"}
	return []command{
		{name: "getset", arity: 3, flags: append([]string{"denyoom"}, write...), firstKey: 1, lastKey: 1, keyStep: 1, group: "string", since: "1.0.0",
			usage: "key value", note: race, summary: "Sets the value of a key and returns the one before.", run: getSet},
		{name: "getdel", arity: 2, flags: write, firstKey: 1, lastKey: 1, keyStep: 1, group: "string", since: "6.2.0",
			usage: "key", note: race, summary: "Returns the value of a key and deletes it.", run: getDel},
		{name: "getex", arity: -2, flags: write, firstKey: 1, lastKey: 1, keyStep: 1, group: "string", since: "6.2.0",
			usage:   "key [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | PERSIST]",
			note:    "racy: the value is read first, and its expiry changed after it; never undoes a delete or a newer value",
			summary: "Returns the value of a key and sets or removes its expiry.", run: getEx},
	}
}

// getSet is GETSET, which is SET with GET.
func getSet(ctx context.Context, c *conn, args [][]byte) {
	c.put(ctx, args[1], args[2], setOptions{get: true})
}

func getDel(ctx context.Context, c *conn, args [][]byte) {
	value, found, err := c.getOne(ctx, args[1])
	if err == nil && found {
		_, err = c.backend.Delete(ctx, cloneAll(args[1:]))
	}
	c.value(value, found, err)
}

// getOne reads a key for a command that goes on to write it.
func (c *conn) getOne(ctx context.Context, key []byte) (value []byte, found bool, err error) {
	if err := checkKey(key); err != nil {
		return nil, false, err
	}
	// The value must live beyond the call that writes: a Backend gives its slices
	// until then only.
	value, found, err = c.backend.Get(ctx, bytes.Clone(key))
	return bytes.Clone(value), found, err
}

// value writes the reply of a command that returns one.
func (c *conn) value(value []byte, found bool, err error) {
	release := func() {}
	if err == nil {
		release, err = c.srv.hold(value)
	}
	switch {
	case err != nil:
		c.w.backendError(err)
	case !found:
		c.w.null()
	default:
		c.w.bulk(value)
		release()
	}
}

func getEx(ctx context.Context, c *conn, args [][]byte) {
	expires, persist, problem := parseGetExOptions(args[2:], c.srv.now())
	if problem != "" {
		c.w.error(problem)
		return
	}
	value, found, err := c.getOne(ctx, args[1])
	switch {
	case err != nil || !found:
	case persist:
		_, err = c.backend.Persist(ctx, bytes.Clone(args[1]))
	case expires != 0:
		_, err = c.backend.Expire(ctx, bytes.Clone(args[1]), expires, 0)
	}
	c.value(value, found, err)
}

// parseGetExOptions returns the expiry to set, or that it is to be removed, or
// neither; or an error text.
func parseGetExOptions(options [][]byte, now int64) (expires int64, persist bool, problem string) {
	var form timeForm
	var amount []byte
	for ; len(options) > 0; options = options[1:] {
		option := strings.ToUpper(string(options[0][:min(len(options[0]), optionBytesMax)]))
		if option == "PERSIST" && form.unit == 0 {
			persist = true
			continue
		}
		asked := formOf(option)
		if asked.unit == 0 || persist || len(options) < 2 || form.unit != 0 && asked != form {
			return 0, false, errSyntax
		}
		form, amount, options = asked, options[1], options[1:]
	}
	if form.unit != 0 {
		expires, problem = parseSetExpiry("getex", amount, form, now)
	}
	return expires, persist, problem
}
