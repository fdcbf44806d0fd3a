package resp

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
)

// The commands about when keys go away. Clients speak of seconds or milliseconds,
// from now or since 1970; a store gets absolute milliseconds only, since a
// duration would begin anew on every replica that learns of it later. Checks and
// their order, texts and rounding are those of Redis.

// ExpireCondition says when EXPIRE and its kin may change an expiry. The zero
// value is always; XX may stand with GT or LT, the others stand alone.
type ExpireCondition uint8

// The conditions, as bits.
const (
	ExpireNX ExpireCondition = 1 << iota // the key does not expire
	ExpireXX                             // the key expires
	ExpireGT                             // the new expiry is later than the present one
	ExpireLT                             // the new expiry is earlier than the present one
)

// Allows says whether an expiry may change from current to at; both in
// milliseconds since 1970, current 0 for a key that does not expire. Never counts
// as later than any time: GT does not shorten such a key's life, and LT does.
func (cond ExpireCondition) Allows(current, at int64) bool {
	switch {
	case cond&ExpireNX != 0 && current != 0,
		cond&ExpireXX != 0 && current == 0,
		cond&ExpireGT != 0 && (current == 0 || at <= current),
		cond&ExpireLT != 0 && current != 0 && at >= current:
		return false
	}
	return true
}

// timeForm is how a command writes a moment.
type timeForm struct {
	unit     int64 // in milliseconds
	relative bool  // counted from now, not from 1970
}

var (
	secondsLeft  = timeForm{unit: 1000, relative: true}
	millisLeft   = timeForm{unit: 1, relative: true}
	secondsSince = timeForm{unit: 1000}
	millisSince  = timeForm{unit: 1}
)

// expiresMin stands for every moment until 1970: to a store 0 is "does not
// expire", and it knows no time before. Both have passed, so nobody can tell.
const expiresMin = 1

// moment returns the time that n means, in milliseconds since 1970 and at least
// expiresMin, or false when it does not fit.
func (f timeForm) moment(n, now int64) (at int64, ok bool) {
	if n > math.MaxInt64/f.unit || n < math.MinInt64/f.unit {
		return 0, false
	}
	at = n * f.unit
	if f.relative {
		if at > math.MaxInt64-now {
			return 0, false
		}
		at += now
	}
	return max(at, expiresMin), true
}

// number is the inverse of moment: what a command answers for an expiry. Half a
// second and more counts as a second, like in Redis.
func (f timeForm) number(expires, now int64) int64 {
	n := expires
	if f.relative {
		n = max(0, expires-now)
	}
	whole := n / f.unit
	if 2*(n%f.unit) >= f.unit && f.unit > 1 {
		whole++
	}
	return whole
}

func expiryCommands() []command {
	write, read := []string{"write", "fast"}, []string{"readonly", "fast"}
	const options = " [NX | XX | GT | LT]"
	const race = "racy: of two at the same time both may answer 1, and the later one stays; never undoes a delete or a newer value"
	const alike = "racy: like EXPIRE"
	return []command{
		{name: "expire", arity: -3, flags: write, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "1.0.0",
			usage: "key seconds" + options, note: race, summary: "Sets the seconds until a key expires.", run: expire("expire", secondsLeft)},
		{name: "pexpire", arity: -3, flags: write, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "2.6.0",
			usage: "key milliseconds" + options, note: alike, summary: "Sets the milliseconds until a key expires.", run: expire("pexpire", millisLeft)},
		{name: "expireat", arity: -3, flags: write, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "1.2.0",
			usage: "key unix-seconds" + options, note: alike, summary: "Sets when a key expires, in seconds since 1970.", run: expire("expireat", secondsSince)},
		{name: "pexpireat", arity: -3, flags: write, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "2.6.0",
			usage: "key unix-milliseconds" + options, note: alike, summary: "Sets when a key expires, in milliseconds since 1970.", run: expire("pexpireat", millisSince)},
		{name: "persist", arity: 2, flags: write, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "2.2.0",
			usage: "key", note: alike, summary: "Removes the expiry of a key.", run: persist},
		{name: "ttl", arity: 2, flags: read, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "1.0.0",
			usage: "key", summary: "Returns the seconds until a key expires, by this node's clock.", run: expiry(secondsLeft)},
		{name: "pttl", arity: 2, flags: read, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "2.6.0",
			usage: "key", summary: "Returns the milliseconds until a key expires, by this node's clock.", run: expiry(millisLeft)},
		{name: "expiretime", arity: 2, flags: read, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "7.0.0",
			usage: "key", summary: "Returns when a key expires, in seconds since 1970.", run: expiry(secondsSince)},
		{name: "pexpiretime", arity: 2, flags: read, firstKey: 1, lastKey: 1, keyStep: 1, group: "generic", since: "7.0.0",
			usage: "key", summary: "Returns when a key expires, in milliseconds since 1970.", run: expiry(millisSince)},
	}
}

// expire is EXPIRE and its kin.
func expire(name string, form timeForm) handler {
	return func(ctx context.Context, c *conn, args [][]byte) {
		cond, problem := parseExpireOptions(args[3:])
		if problem != "" {
			c.w.error(problem)
			return
		}
		n, ok := parseInteger(args[2])
		if !ok {
			c.w.error(errNotInteger)
			return
		}
		at, ok := form.moment(n, c.srv.now())
		if !ok {
			c.w.error(invalidExpire(name))
			return
		}
		if err := checkKey(args[1]); err != nil {
			c.w.backendError(err)
			return
		}
		done, err := c.backend.Expire(ctx, bytes.Clone(args[1]), at, cond)
		c.yesNo(done, err)
	}
}

func parseExpireOptions(options [][]byte) (cond ExpireCondition, problem string) {
	for _, option := range options {
		switch {
		case bytes.EqualFold(option, []byte("nx")):
			cond |= ExpireNX
		case bytes.EqualFold(option, []byte("xx")):
			cond |= ExpireXX
		case bytes.EqualFold(option, []byte("gt")):
			cond |= ExpireGT
		case bytes.EqualFold(option, []byte("lt")):
			cond |= ExpireLT
		default:
			return 0, fmt.Sprintf("ERR Unsupported option %.128s", option)
		}
	}
	switch {
	case cond&ExpireNX != 0 && cond != ExpireNX:
		return 0, "ERR NX and XX, GT or LT options at the same time are not compatible"
	case cond&ExpireGT != 0 && cond&ExpireLT != 0:
		return 0, "ERR GT and LT options at the same time are not compatible"
	}
	return cond, ""
}

func persist(ctx context.Context, c *conn, args [][]byte) {
	if err := checkKey(args[1]); err != nil {
		c.w.backendError(err)
		return
	}
	done, err := c.backend.Persist(ctx, bytes.Clone(args[1]))
	c.yesNo(done, err)
}

func (c *conn) yesNo(yes bool, err error) {
	n := int64(0)
	if yes {
		n = 1
	}
	c.count(n, err)
}

// What TTL and its kin answer instead of a time.
const (
	ttlNoKey    = -2
	ttlNoExpiry = -1
)

// expiry is TTL and its kin.
func expiry(form timeForm) handler {
	return func(ctx context.Context, c *conn, args [][]byte) {
		if err := checkKey(args[1]); err != nil {
			c.w.backendError(err)
			return
		}
		expires, found, err := c.backend.ExpiryOf(ctx, bytes.Clone(args[1]))
		answer := int64(ttlNoKey)
		switch {
		case found && expires == 0:
			answer = ttlNoExpiry
		case found:
			answer = form.number(expires, c.srv.now())
		}
		c.count(answer, err)
	}
}

func invalidExpire(name string) string {
	return "ERR invalid expire time in '" + name + "' command"
}

// parseInteger reads a number as Redis does: one way to write each, so no "+1",
// "01" or "-0".
func parseInteger(text []byte) (n int64, ok bool) {
	digits := bytes.TrimPrefix(text, []byte("-"))
	if len(text) > len("-9223372036854775808") || len(digits) == 0 || digits[0] == '0' && len(text) > 1 {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	return n, err == nil
}
