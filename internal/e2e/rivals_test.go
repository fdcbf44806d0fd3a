package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// rivalry is a key that several clients write at once. A read of it must not return
// what was written before an acknowledged write began that was over before the read
// began. Changes of its expiry, all far in the future, must change nothing of that.
type rivalry struct {
	key string

	mu     sync.Mutex
	writes []rival
	begun  map[string]time.Time // of writes that are under way
}

// rival is one write; no value is a delete.
type rival struct {
	value      string
	begin, end time.Time
	acked      bool
	open       bool // it may be carried out at any time
}

func (c *clients) rival(rng *rand.Rand, id string) {
	r, node := c.shared[rng.IntN(len(c.shared))], c.node(rng)
	switch kind := rng.IntN(100); {
	case kind < 40:
		answer, a, b, err := c.do(node, "GET", r.key)
		if err == nil {
			r.read(c.w, node, a, b, answer.(string))
		}
	case kind < 65:
		value := r.key + "#" + id
		r.begin(value)
		_, a, b, err := c.do(node, "SET", r.key, value)
		r.wrote(value, a, b, err)
	case kind < 80:
		token := "delete " + id
		r.begin(token)
		_, a, b, err := c.do(node, "DEL", r.key)
		r.mu.Lock()
		delete(r.begun, token)
		r.mu.Unlock()
		r.wrote("", a, b, err)
	case kind < 92:
		_, _, _, _ = c.do(node, "EXPIRE", r.key, 100_000) // its outcome changes nothing
	default:
		_, _, _, _ = c.do(node, "PERSIST", r.key)
	}
}

func (r *rivalry) begin(value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun == nil {
		r.begun = make(map[string]time.Time)
	}
	r.begun[value] = time.Now()
}

func (r *rivalry) wrote(value string, a, b time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.begun, value)
	r.writes = append(r.writes, rival{value, a, b, err == nil, gaveUp(err)})
}

func (r *rivalry) read(w *chaos, node int, a, b time.Time, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var newest rival // of the acknowledged ones that were over, the one that began last
	for _, x := range r.writes {
		if x.acked && x.end.Before(a) && x.begin.After(newest.begin) {
			newest = x
		}
	}
	if _, underWay := r.begun[value]; underWay {
		return
	}
	if value == "" {
		if newest.begin.IsZero() || len(r.begun) > 0 {
			return
		}
	}
	found := false
	for _, x := range r.writes {
		if x.value == value {
			found = true
			if x.open || !x.end.Before(newest.begin) {
				return
			}
		}
	}
	old := ""
	for _, x := range r.writes {
		if x.value == value || !x.end.Before(newest.begin) {
			old += fmt.Sprintf("\n  %q %.3f-%.3f acknowledged %v", x.value, x.begin.Sub(w.began).Seconds(), x.end.Sub(w.began).Seconds(), x.acked)
		}
	}
	w.wrong("n%d answered %q for %s between %.3f and %.3f (written at all: %v); %q was acknowledged after it:%.2000s", node+1, value, r.key,
		a.Sub(w.began).Seconds(), b.Sub(w.began).Seconds(), found, newest.value, old)
}
