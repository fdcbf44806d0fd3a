package resp

import (
	"bytes"
	"context"
	"strings"
)

// SET, its options, and the commands that are a SET with one of them.

func setCommands() []command {
	return []command{
		{name: "set", arity: -3, flags: []string{"write", "denyoom"}, firstKey: 1, lastKey: 1, keyStep: 1,
			group: "string", since: "1.0.0",
			usage:   "key value [GET] [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | KEEPTTL]",
			note:    "differs: NX and XX are refused. GET and KEEPTTL are racy: the value or the expiry is read first, and another client may write in between",
			summary: "Sets the value of a key, and when it expires.", run: set},
		{name: "setex", arity: 4, flags: []string{"write", "denyoom"}, firstKey: 1, lastKey: 1, keyStep: 1,
			group: "string", since: "2.0.0", usage: "key seconds value",
			summary: "Sets the value of a key and the seconds until it expires.", run: setWithExpiry("setex", secondsLeft)},
		{name: "psetex", arity: 4, flags: []string{"write", "denyoom"}, firstKey: 1, lastKey: 1, keyStep: 1,
			group: "string", since: "2.6.0", usage: "key milliseconds value",
			summary: "Sets the value of a key and the milliseconds until it expires.", run: setWithExpiry("psetex", millisLeft)},
	}
}

func set(ctx context.Context, c *conn, args [][]byte) {
	options, problem := parseSetOptions(args[3:], c.srv.now())
	if problem != "" {
		c.w.error(problem)
		return
	}
	c.put(ctx, args[1], args[2], options)
}

// setWithExpiry is SETEX and PSETEX.
func setWithExpiry(name string, form timeForm) handler {
	return func(ctx context.Context, c *conn, args [][]byte) {
		expires, problem := parseSetExpiry(name, args[2], form, c.srv.now())
		if problem != "" {
			c.w.error(problem)
			return
		}
		c.put(ctx, args[1], args[3], setOptions{expires: expires})
	}
}

// put is SET and its kin. What the options want to know of what is there is read
// first.
func (c *conn) put(ctx context.Context, key, value []byte, options setOptions) {
	var before []byte
	var found bool
	err := checkPair(key, value)
	if err == nil && options.get {
		before, found, err = c.getOne(ctx, key)
	}
	if err == nil && options.keepTTL {
		options.expires, _, err = c.backend.ExpiryOf(ctx, bytes.Clone(key))
	}
	if err == nil {
		err = c.backend.Put(ctx, clonePairs([][]byte{key, value}, []int64{options.expires}))
	}
	switch {
	case err != nil:
		c.w.backendError(err)
	case options.get:
		c.value(before, found, nil)
	default:
		c.w.ok()
	}
}

// setOptions is what the options of a SET ask for.
type setOptions struct {
	expires int64 // 0: never
	keepTTL bool  // leave the expiry as it is
	get     bool  // answer the value before
}

// plain tells whether a SET only writes.
func (o setOptions) plain() bool { return !o.keepTTL && !o.get }

// noAtomicUpdate is why SET takes no condition.
const noAtomicUpdate = "no read-modify-write is atomic across replicas"

// parseSetOptions returns what the options of a SET ask for, or an error text. What
// Redis would not take gets Redis' error; only a SET that Redis would carry out is
// refused, with the reason.
func parseSetOptions(options [][]byte, now int64) (asked setOptions, problem string) {
	var form timeForm // of the expiry; none while its unit is 0
	var amount []byte
	condition := ""
	for ; len(options) > 0; options = options[1:] {
		option := strings.ToUpper(string(options[0][:min(len(options[0]), optionBytesMax)]))
		switch {
		case (option == "NX" || option == "XX") && (condition == "" || condition == option):
			condition = option
		case option == "GET":
			asked.get = true
		case option == "KEEPTTL" && form.unit == 0:
			asked.keepTTL = true
		default:
			// The same option twice is no contradiction: the last one counts.
			given := formOf(option)
			if given.unit == 0 || asked.keepTTL || len(options) < 2 || form.unit != 0 && given != form {
				return asked, errSyntax
			}
			form, amount, options = given, options[1], options[1:]
		}
	}
	if form.unit != 0 {
		if asked.expires, problem = parseSetExpiry("set", amount, form, now); problem != "" {
			return asked, problem
		}
	}
	if condition != "" {
		return asked, "ERR last write wins cannot honour SET " + condition + ": " + noAtomicUpdate
	}
	return asked, ""
}

// optionBytesMax is longer than any option.
const optionBytesMax = 8

// formOf is the form of an option of SET that takes a time, or the zero value.
func formOf(option string) timeForm {
	switch option {
	case "EX":
		return secondsLeft
	case "PX":
		return millisLeft
	case "EXAT":
		return secondsSince
	case "PXAT":
		return millisSince
	}
	return timeForm{}
}

// parseSetExpiry reads the time of a SET. Unlike EXPIRE a SET takes no time that
// counts 0 or less, but an absolute one that has passed.
func parseSetExpiry(name string, text []byte, form timeForm, now int64) (expires int64, problem string) {
	n, ok := parseInteger(text)
	if !ok {
		return 0, errNotInteger
	}
	expires, ok = form.moment(n, now)
	if n <= 0 || !ok {
		return 0, invalidExpire(name)
	}
	return expires, ""
}
