package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// What clients of a cluster in trouble may see. A key of one writer has a state
// that is sure, what its last acknowledged request left, and states that may be:
// what later requests left that ended with an error. A read may return any of them
// and nothing else, so never what was there before an acknowledged request.
//
// Requests that the client gave up on are different: a frozen node may carry one
// out when it thaws. Their key is left alone until that cannot happen any more.

// state is what one request leaves of a key. The moments are Unix milliseconds and
// inclusive: an expiry is computed by a node at some time during the request. Zero
// is never.
type state struct {
	value    string // empty: deleted
	from, to int64
}

// expirySlack is for rounding to milliseconds.
const expirySlack = 5

func (s state) mayLive(a time.Time) bool {
	return s.value != "" && (s.to == 0 || a.UnixMilli() <= s.to+expirySlack)
}

func (s state) mayBeGone(b time.Time) bool {
	return s.value == "" || s.from != 0 && b.UnixMilli() >= s.from-expirySlack
}

type history struct {
	key   string
	sure  []state // usually one
	maybe []state
	node  int       // that may still carry out a request, with open
	open  time.Time // when the client gave up
	log   []string
}

// logMax bounds what is told of a key when something is wrong with it.
const logMax = 40

func (h *history) states() []state { return slices.Concat(h.sure, h.maybe) }

func (h *history) wrote(s state, err error) {
	switch {
	case err == nil:
		h.sure, h.maybe = []state{s}, nil
	case !strings.Contains(err.Error(), "nothing was written"):
		h.may(s)
	}
}

func (h *history) may(s state) {
	if !slices.Contains(h.states(), s) {
		h.maybe = append(h.maybe, s)
	}
}

// touched notes a changed expiry; answer tells whether the node found the key.
func (h *history) touched(a, b time.Time, from, to int64, answer bool, err error) (ok bool) {
	if err != nil && strings.Contains(err.Error(), "nothing was written") || err == nil && !answer {
		return true
	}
	var after []state
	for _, s := range h.states() {
		if s.mayLive(a) {
			after = append(after, state{s.value, from, to})
		}
	}
	if err == nil {
		h.sure = after
		return len(after) > 0
	}
	for _, s := range after {
		h.may(s)
	}
	return true
}

// read checks a value, empty for none.
func (h *history) read(a, b time.Time, value string) bool {
	for _, s := range h.states() {
		if value == s.value && (value == "" || s.mayLive(a)) || value == "" && s.mayBeGone(b) {
			return true
		}
	}
	return false
}

// clients are all clients of a chaos test.
type clients struct {
	w       *chaos
	redis   []*redis.Client
	stop    context.CancelFunc
	ctx     context.Context
	group   sync.WaitGroup
	writers []*writer
	shared  []*rivalry
}

const (
	writersCount = 8
	keysEach     = 40
	rivals       = 4
	sharedKeys   = 10
)

func (w *chaos) clients(seed uint64) *clients {
	c := &clients{w: w}
	c.ctx, c.stop = context.WithCancel(w.t.Context())
	for _, s := range w.servers {
		r := redis.NewClient(&redis.Options{Addr: s.client, MaxRetries: -1, DialTimeout: time.Second,
			ReadTimeout: deadline + 3*time.Second, PoolSize: writersCount + rivals, DialerRetries: 1})
		w.t.Cleanup(func() { r.Close() })
		c.redis = append(c.redis, r)
	}
	for i := range sharedKeys {
		c.shared = append(c.shared, &rivalry{key: fmt.Sprintf("shared/%d", i)})
	}
	for i := range writersCount {
		wr := &writer{clients: c, rng: rand.New(rand.NewPCG(seed, uint64(1+i)))}
		for k := range keysEach {
			wr.keys = append(wr.keys, &history{key: fmt.Sprintf("writer%d/%d", i, k), sure: []state{{}}})
		}
		c.writers = append(c.writers, wr)
		c.group.Go(func() {
			for c.ctx.Err() == nil {
				wr.step()
			}
		})
	}
	for i := range rivals {
		rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
		c.group.Go(func() {
			for n := 0; c.ctx.Err() == nil; n++ {
				c.rival(rng, fmt.Sprintf("%d.%d", i, n))
			}
		})
	}
	return c
}

func (c *clients) end() {
	c.stop()
	c.group.Wait()
}

// node chooses one, and seldom one that is known to be in trouble.
func (c *clients) node(rng *rand.Rand) int {
	n := rng.IntN(len(c.redis))
	for range 4 {
		if !c.w.isOut(n, 0) || rng.IntN(16) == 0 {
			break
		}
		n = rng.IntN(len(c.redis))
	}
	return n
}

// do makes one request and checks how it ended.
func (c *clients) do(node int, args ...any) (answer any, a, b time.Time, err error) {
	a = time.Now()
	answer, err = c.redis[node].Do(context.WithoutCancel(c.ctx), args...).Result()
	b = time.Now()
	if errors.Is(err, redis.Nil) {
		answer, err = "", nil
	}
	w := c.w
	w.count.Add(1)
	if err != nil { // the next one at once would fail for the same reason
		select {
		case <-time.After(20 * time.Millisecond):
		case <-c.ctx.Done():
		}
	}
	if !w.wasWell(node, a, b) {
		return answer, a, b, err
	}
	took := b.Sub(a)
	for old := w.slowest.Load(); int64(took) > old && !w.slowest.CompareAndSwap(old, int64(took)); old = w.slowest.Load() {
	}
	if err != nil {
		w.errs.Add(1)
	}
	if took > deadline+time.Second {
		w.wrong("n%d was well, and %.60s took %v: %v", node+1, fmt.Sprint(args...), took, err)
	}
	if err != nil && w.wasCalm(a.Add(-deadline-time.Second), b) {
		w.wrong("n%d was well and the others calm, and %.60s failed after %v: %v", node+1, fmt.Sprint(args...), took, err)
	}
	return answer, a, b, err
}

// writer is one client with keys that nobody else writes.
type writer struct {
	*clients
	rng  *rand.Rand
	keys []*history
	seq  int
}

func (wr *writer) value(h *history) string {
	wr.seq++
	return fmt.Sprintf("%s#%d", h.key, wr.seq)
}

// gaveUp reports whether a request may still be carried out.
func gaveUp(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func (h *history) note(node int, a, b time.Time, args []any, answer any, err error, w *chaos) {
	h.log = append(h.log, fmt.Sprintf("  %8.3f-%.3f n%d %v -> %v %v", a.Sub(w.began).Seconds(), b.Sub(w.began).Seconds(), node+1, args, answer, err))
	if len(h.log) > logMax {
		h.log = h.log[1:]
	}
	if gaveUp(err) {
		h.node, h.open = node, b
	}
}

func (h *history) wrong(w *chaos, what string, args ...any) {
	w.wrong("%s: %s; sure %v, maybe %v\n%s", h.key, fmt.Sprintf(what, args...), h.sure, h.maybe, strings.Join(h.log, "\n"))
}

// resolved reports whether no request to the key is open.
func (wr *writer) resolved(h *history) bool {
	const enough = 5 * time.Second // after a thaw
	if !h.open.IsZero() && time.Since(h.open) > enough && !wr.w.isOut(h.node, enough) {
		h.open = time.Time{}
	}
	return h.open.IsZero()
}

func (wr *writer) step() {
	h := wr.keys[wr.rng.IntN(len(wr.keys))]
	node, kind := wr.node(wr.rng), wr.rng.IntN(100)
	if kind < 45 || !wr.resolved(h) {
		wr.get(node, h)
		return
	}
	switch {
	case kind < 60 || len(h.maybe) > 8:
		s := state{value: wr.value(h)}
		answer, a, b, err := wr.do(node, "SET", h.key, s.value)
		h.wrote(s, err)
		h.note(node, a, b, []any{"SET", s.value}, answer, err, wr.w)
	case kind < 68:
		ms := int64(300 + wr.rng.IntN(3000))
		s := state{value: wr.value(h)}
		answer, a, b, err := wr.do(node, "SET", h.key, s.value, "PX", ms)
		s.from, s.to = a.UnixMilli()+ms, b.UnixMilli()+ms
		if gaveUp(err) {
			s.to = 1 << 60 // computed when it thaws
		}
		h.wrote(s, err)
		h.note(node, a, b, []any{"SET", s.value, "PX", ms}, answer, err, wr.w)
	case kind < 80:
		answer, a, b, err := wr.do(node, "DEL", h.key)
		h.note(node, a, b, []any{"DEL"}, answer, err, wr.w)
		h.wrote(state{}, err)
	case kind < 88:
		ms := int64(300 + wr.rng.IntN(3000))
		if wr.rng.IntN(2) == 0 {
			ms *= 100
		}
		wr.touch(node, h, ms)
	case kind < 94:
		wr.touch(node, h, 0)
	default:
		wr.mset(node)
	}
}

// touch is PEXPIRE, or PERSIST for 0 ms.
func (wr *writer) touch(node int, h *history, ms int64) {
	args := []any{"PEXPIRE", h.key, ms}
	if ms == 0 {
		args = []any{"PERSIST", h.key}
	}
	answer, a, b, err := wr.do(node, args...)
	from, to := a.UnixMilli()+ms, b.UnixMilli()+ms
	if ms == 0 {
		from, to = 0, 0
	} else if gaveUp(err) {
		to = 1 << 60
	}
	h.note(node, a, b, args, answer, err, wr.w)
	before := *h
	if !h.touched(a, b, from, to, answer == int64(1), err) {
		before.wrong(wr.w, "%v answered 1, and there is no such key", args)
	}
	if err == nil && answer == int64(0) && ms > 0 && !slices.ContainsFunc(h.states(), func(s state) bool { return s.mayBeGone(b) }) {
		h.wrong(wr.w, "%v answered 0, and the key exists", args)
	}
}

func (wr *writer) mset(node int) {
	args, keys, states := []any{"MSET"}, []*history(nil), []state(nil)
	for range 2 + wr.rng.IntN(6) {
		if h := wr.keys[wr.rng.IntN(len(wr.keys))]; wr.resolved(h) && !slices.Contains(keys, h) {
			keys, states = append(keys, h), append(states, state{value: wr.value(h)})
			args = append(args, h.key, states[len(states)-1].value)
		}
	}
	if len(keys) == 0 {
		return
	}
	answer, a, b, err := wr.do(node, args...)
	for i, h := range keys {
		h.note(node, a, b, []any{"MSET", states[i].value}, answer, err, wr.w)
		h.wrote(states[i], err)
	}
}

func (wr *writer) get(node int, h *history) {
	answer, a, b, err := wr.do(node, "GET", h.key)
	h.log = append(h.log, fmt.Sprintf("  %8.3f-%.3f n%d GET -> %v %v", a.Sub(wr.w.began).Seconds(), b.Sub(wr.w.began).Seconds(), node+1, answer, err))
	if err == nil && !h.read(a, b, answer.(string)) {
		h.wrong(wr.w, "n%d answered %q", node+1, answer)
	}
}

// check reads every key on every node and compares.
func (c *clients) check(when string) {
	for _, wr := range c.writers {
		for _, h := range wr.keys {
			for node := range c.redis {
				wr.get(node, h)
			}
		}
	}
	for _, r := range c.shared {
		var first any
		for node := range c.redis {
			answer, a, b, err := c.do(node, "GET", r.key)
			if err != nil {
				c.w.wrong("%s: n%d: GET %s: %v", when, node+1, r.key, err)
				continue
			}
			r.read(c.w, node, a, b, answer.(string))
			if first == nil {
				first = answer
			}
			if answer != first {
				c.w.wrong("%s: %s is %v on n1 and %v on n%d", when, r.key, first, answer, node+1)
			}
		}
	}
}

// scan compares what SCAN says on every node with what GET says. Short expiries are
// over by now, and long ones are not.
func (c *clients) scan() {
	want := make(map[string]bool)
	for _, wr := range c.writers {
		for _, h := range wr.keys {
			if answer, _, _, err := c.do(0, "GET", h.key); err != nil || answer != "" {
				want[h.key] = true
			}
		}
	}
	for _, r := range c.shared {
		if answer, _, _, err := c.do(0, "GET", r.key); err != nil || answer != "" {
			want[r.key] = true
		}
	}
	for node, client := range c.redis {
		found := make(map[string]int)
		it := client.Scan(context.WithoutCancel(c.ctx), 0, "", 50).Iterator()
		for it.Next(context.WithoutCancel(c.ctx)) {
			found[it.Val()]++
		}
		if it.Err() != nil {
			c.w.wrong("n%d: SCAN: %v", node+1, it.Err())
		}
		for key, n := range found {
			if n > 1 || !want[key] {
				c.w.wrong("n%d: SCAN returns %s %d times; GET finds it: %v", node+1, key, n, want[key])
			}
		}
		if len(found) != len(want) {
			c.w.wrong("n%d: SCAN returns %d keys, there are %d", node+1, len(found), len(want))
		}
	}
}
