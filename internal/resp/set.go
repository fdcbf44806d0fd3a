package resp

import (
	"context"
	"strings"
)

// SET, its options, and the two commands that are SET with an expiry.

func setCommands() []command {
	return []command{
		{name: "set", arity: -3, flags: []string{"write", "denyoom"}, firstKey: 1, lastKey: 1, keyStep: 1,
			group: "string", since: "1.0.0",
			usage:   "key value [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds]",
			note:    "differs: NX, XX, GET and KEEPTTL are refused",
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
	expires, problem := parseSetOptions(args[3:], c.srv.now())
	if problem != "" {
		c.w.error(problem)
		return
	}
	c.put(ctx, args[1], args[2], expires)
}

// setWithExpiry is SETEX and PSETEX.
func setWithExpiry(name string, form timeForm) handler {
	return func(ctx context.Context, c *conn, args [][]byte) {
		expires, problem := parseSetExpiry(name, args[2], form, c.srv.now())
		if problem != "" {
			c.w.error(problem)
			return
		}
		c.put(ctx, args[1], args[3], expires)
	}
}

func (c *conn) put(ctx context.Context, key, value []byte, expires int64) {
	if err := checkPair(key, value); err != nil {
		c.w.backendError(err)
		return
	}
	if err := c.backend.Put(ctx, clonePairs([][]byte{key, value}, []int64{expires})); err != nil {
		c.w.backendError(err)
		return
	}
	c.w.ok()
}

// noAtomicUpdate is why SET takes no condition and no GET.
const noAtomicUpdate = "no read-modify-write is atomic across replicas"

// parseSetOptions returns the expiry that the options of a SET ask for, 0 for
// none, or an error text. What Redis would not take gets Redis' error; only a SET
// that Redis would carry out is refused, with the reason.
func parseSetOptions(options [][]byte, now int64) (expires int64, problem string) {
	var form timeForm // of the expiry; none while its unit is 0
	var amount []byte
	var nx, xx, keepTTL bool
	refusal := ""
	for ; len(options) > 0; options = options[1:] {
		option := strings.ToUpper(string(options[0][:min(len(options[0]), optionBytesMax)]))
		why := ""
		switch {
		case option == "NX" && !xx:
			nx, why = true, "last write wins cannot honour SET NX: "+noAtomicUpdate
		case option == "XX" && !nx:
			xx, why = true, "last write wins cannot honour SET XX: "+noAtomicUpdate
		case option == "GET":
			why = "last write wins cannot honour SET GET: " + noAtomicUpdate
		case option == "KEEPTTL" && form.unit == 0:
			keepTTL, why = true, "SET KEEPTTL is refused: it would write back an expiry that was read, and "+
				noAtomicUpdate+"; give the time again with EX, PX, EXAT or PXAT"
		default:
			// The same option twice is no contradiction: the last one counts.
			asked := formOf(option)
			if asked.unit == 0 || keepTTL || len(options) < 2 || form.unit != 0 && asked != form {
				return 0, errSyntax
			}
			form, amount, options = asked, options[1], options[1:]
		}
		if refusal == "" {
			refusal = why
		}
	}
	if form.unit != 0 {
		if expires, problem = parseSetExpiry("set", amount, form, now); problem != "" {
			return 0, problem
		}
	}
	if refusal != "" {
		return 0, "ERR " + refusal
	}
	return expires, ""
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
