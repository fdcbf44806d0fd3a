package coordinator

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// replica is one node's store: for each key the greatest entry it was given.
type replica map[string]lww.Entry

func (r replica) apply(s Send) []Answer {
	answers := make([]Answer, len(s.Entries))
	for n, e := range s.Entries {
		answers[n] = r.applyOne(e)
	}
	return answers
}

func (r replica) applyOne(e lww.Entry) Answer {
	if err := e.Validate(); err != nil {
		return Answer{Outcome: Rejected, Reason: err.Error()}
	}
	held, found := r[string(e.Key)]
	if found && lww.Compare(e, held) < 0 {
		return Answer{Outcome: Shadowed, Version: held.Version}
	}
	r[string(e.Key)] = e
	return Answer{}
}

// lookup answers a question, with at most full entries.
func (r replica) lookup(a Ask, keys [][]byte, full int) (ans ReadAnswer) {
	for _, i := range a.Full[:min(full, len(a.Full))] {
		e, ok := r[string(keys[i])]
		ans.Entries = append(ans.Entries, Found{e, ok})
	}
	for _, i := range a.Digest {
		e, ok := r[string(keys[i])]
		d := DigestAnswer{OK: ok}
		if ok {
			d.Sum = digest(e)
		}
		ans.Digests = append(ans.Digests, d)
	}
	return ans
}

var hasher = merkle.NewHasher([32]byte{1})

func digest(e lww.Entry) merkle.Sum { return hasher.Entry(e) }

// manualClock is a hybrid logical clock whose wall is set by the test.
type manualClock struct{ wall, last, bound hlc.Stamp }

func (c *manualClock) Next() (hlc.Stamp, error) {
	c.last = max(c.last+1, c.wall)
	return c.last, nil
}

func (c *manualClock) Observe(s hlc.Stamp) error {
	if s > c.wall+c.bound {
		return &hlc.AheadError{Stamp: s, Ahead: time.Duration(s-c.wall) * time.Second, Bound: time.Duration(c.bound) * time.Second}
	}
	c.last = max(c.last, s)
	return nil
}

func always(hlc.NodeID) bool { return true }

// place puts every key on the same replicas.
func place(self hlc.NodeID, may func(hlc.NodeID) bool, replicas ...hlc.NodeID) Placement {
	return Placement{Self: self, May: may,
		Shard:    func([]byte) int { return 0 },
		Replicas: func(int) []hlc.NodeID { return replicas }}
}

func put(key, value string) Mutation { return Mutation{Key: []byte(key), Value: []byte(value)} }

func value(key, text string, at hlc.Stamp, by hlc.NodeID) lww.Entry {
	return lww.Entry{Key: []byte(key), Value: []byte(text), Version: lww.Version{Stamp: at, Node: by}}
}

func equal(a, b lww.Entry) bool { return lww.Compare(a, b) == 0 && string(a.Key) == string(b.Key) }

func versionText(v lww.Version) string {
	text := fmt.Sprintf("@%d %v", v.Stamp, v.Node)
	switch {
	case v.Expires != 0:
		text += fmt.Sprintf(", expires %d @%d %v", v.Expires, v.ExpiryStamp, v.ExpiryNode)
	case v.ExpiryStamp != 0:
		text += fmt.Sprintf(", persists @%d %v", v.ExpiryStamp, v.ExpiryNode)
	}
	return text
}

func entryText(e lww.Entry) string {
	if e.Tombstone {
		return fmt.Sprintf("%s deleted %s", e.Key, versionText(e.Version))
	}
	return fmt.Sprintf("%s=%s %s", e.Key, e.Value, versionText(e.Version))
}

func entriesText(entries []lww.Entry) string {
	texts := make([]string, len(entries))
	for i, e := range entries {
		texts[i] = entryText(e)
	}
	return strings.Join(texts, "; ")
}

func sortedKeys[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
