package coordinator

import (
	"slices"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// Read is one request to read one or several keys. It is not safe for
// concurrent use.
type Read struct {
	place Placement
	hash  func(lww.Entry) merkle.Sum
	level Level

	keys   []reading
	prefix int // keys that the request will answer; those beyond are left alone

	asks  []Ask
	open  []bool // by ask
	taken int    // asks that the caller has got
	queue []question
	round int

	settled bool // all entries are known
	repairs mail
	done    bool
	err     error
}

// reading is one key being read.
type reading struct {
	key      []byte
	shard    int
	replicas []hlc.NodeID
	need     int          // answers that the level asks for
	slots    []slot       // one for each of them, and more while one is slow
	failed   []hlc.NodeID // replicas that held a slot before
	complete bool
	entry    lww.Entry
	found    bool
}

// slot is one answer, from whichever replica gives it in the end.
type slot struct {
	node    hlc.NodeID
	full    bool // the entry was asked for, else its digest
	waiting bool
	found   bool // the replica holds something
	entry   lww.Entry
	sum     merkle.Sum // of the entry; if full, only once it was needed
}

// question is one thing to be asked of one replica.
type question struct {
	to   hlc.NodeID
	key  int
	full bool
}

// Ask is one question to one replica: for the entries of some keys and for the
// digests alone of others. Its slices are only to be read.
type Ask struct {
	To           hlc.NodeID
	Full, Digest []int // indices of keys, ascending
	// Round is 0 for the first questions. Later ones fetch entries whose digests
	// differ, or replace a replica that failed.
	Round int

	id int
}

// Found is what a replica holds of a key.
type Found struct {
	Entry lww.Entry // a tombstone, or expired, as the case may be
	OK    bool      // false: the replica holds nothing
}

// DigestAnswer is the digest of what a replica holds of a key.
type DigestAnswer struct {
	Sum merkle.Sum
	OK  bool // false: the replica holds nothing
}

// ReadAnswer is a replica's answer to an Ask.
type ReadAnswer struct {
	// Entries are for Ask.Full, in order. There may be fewer when the answer is
	// full, but not none if any were asked for.
	Entries []Found
	// Digests are for Ask.Digest, in order, all of them.
	Digests []DigestAnswer
}

// NewRead queues the first questions. hash is the digest that the replicas
// answer with. It fails with *UnavailableError when too few replicas may be
// asked.
func NewRead(p Placement, hash func(lww.Entry) merkle.Sum, level Level, keys [][]byte) (*Read, error) {
	r := &Read{place: p, hash: hash, level: level, keys: make([]reading, len(keys)), prefix: len(keys)}
	slots := make([]slot, 0, 2*len(keys)) // of all keys; two is the usual quorum
	r.queue = make([]question, 0, 2*len(keys))
	for i, key := range keys {
		k := &r.keys[i]
		k.key, k.shard = key, p.Shard(key)
		k.replicas = p.Replicas(k.shard)
		k.need = level.Of(len(k.replicas))
		first := len(slots)
		for n := range k.need {
			k.slots = slots[first:]
			node, ok := r.candidate(k)
			if !ok {
				k.slots = nil
				return nil, r.unavailable(k, nil)
			}
			slots = append(slots, slot{node: node, full: n == 0, waiting: true})
			r.queue = append(r.queue, question{node, i, n == 0})
		}
		k.slots = slots[first:len(slots):len(slots)]
	}
	r.send()
	r.settle()
	return r, nil
}

// candidate returns the next replica to ask for a key: this node if possible,
// since that costs no message, then the others in their order.
func (r *Read) candidate(k *reading) (hlc.NodeID, bool) {
	free := func(id hlc.NodeID) bool {
		return r.place.May(id) && !slices.Contains(k.failed, id) &&
			!slices.ContainsFunc(k.slots, func(s slot) bool { return s.node == id })
	}
	if slices.Contains(k.replicas, r.place.Self) && free(r.place.Self) {
		return r.place.Self, true
	}
	if n := slices.IndexFunc(k.replicas, free); n >= 0 {
		return k.replicas[n], true
	}
	return 0, false
}

// send turns the queue into one question for each replica.
func (r *Read) send() {
	if r.round > 0 {
		// Keys are asked for in the caller's order, so that an answer that is cut
		// short leaves out the last ones.
		slices.SortStableFunc(r.queue, func(a, b question) int { return a.key - b.key })
	}
	first := len(r.asks)
	for _, q := range r.queue {
		n := slices.IndexFunc(r.asks[first:], func(a Ask) bool { return a.To == q.to })
		if n < 0 {
			n = len(r.asks) - first
			r.asks = append(r.asks, Ask{To: q.to, Round: r.round, id: len(r.asks)})
			r.open = append(r.open, true)
		}
		if a := &r.asks[first+n]; q.full {
			a.Full = append(a.Full, q.key)
		} else {
			a.Digest = append(a.Digest, q.key)
		}
	}
	if len(r.queue) > 0 {
		r.round++
	}
	r.queue = r.queue[:0]
}

// Asks returns what is to be asked now, each question once. What comes of each
// is reported with Answered or Failed.
func (r *Read) Asks() []Ask {
	fresh := r.asks[r.taken:len(r.asks):len(r.asks)]
	r.taken = len(r.asks)
	return fresh
}

// Hurry asks one more replica for each answer that has not come yet, where there is
// one, and takes whichever answers first. Calling it too early costs messages; not
// calling it lets one slow replica hold up every read that asks it.
func (r *Read) Hurry() {
	if r.done || r.settled {
		return
	}
	for i := range r.keys[:r.prefix] {
		k := &r.keys[i]
		if k.complete {
			continue
		}
		for _, s := range k.slots {
			if !s.waiting {
				continue
			}
			node, ok := r.candidate(k)
			if !ok {
				break
			}
			k.slots = append(k.slots, slot{node: node, full: s.full, waiting: true})
			r.queue = append(r.queue, question{node, i, s.full})
		}
	}
	r.send()
}

// Done reports whether the client can be answered, and with what error: nil or
// *UnavailableError. With nil, Prefix and Entry say the rest.
//
// A read that found differences is done when its repairs are: an answer that is
// held by one replica only could be missing from the next read. A repair that
// fails does not fail the read, which has its answer.
func (r *Read) Done() (bool, error) { return r.done, r.err }

// Prefix returns how many keys have an answer, at least one: replicas may cut
// their answers short. The caller asks for the others in another request.
func (r *Read) Prefix() int { return r.prefix }

// Entry returns the newest version of key i among the replicas asked, and
// whether there is one. It may be a tombstone, or expired: the caller applies
// the clock. It shares the memory of the answers.
func (r *Read) Entry(i int) (lww.Entry, bool) {
	if i >= r.prefix || !r.settled {
		return lww.Entry{}, false
	}
	return r.keys[i].entry, r.keys[i].found
}

// Repairs returns the entries that replicas are to be sent because they answered
// with older ones or none, each message once. What comes of each is reported
// with Repaired. A replica that shadows a repair has something newer yet, and
// that is as good as applied.
func (r *Read) Repairs() []Send { return r.repairs.take() }

// Repaired reports that a repair was carried out (nil), or that it was not.
func (r *Read) Repaired(s Send, _ error) {
	if r.repairs.close(s) && r.repairs.left == 0 {
		r.done = true
	}
}

// Expire ends the request: the deadline passed. A read that knows its answer
// stops waiting for repairs; one that does not fails.
func (r *Read) Expire() {
	switch {
	case r.done:
	case r.settled:
		r.done = true
	default:
		for i := range r.keys[:r.prefix] {
			k := &r.keys[i]
			for _, s := range k.slots {
				if s.waiting {
					k.failed = append(k.failed, s.node)
				}
			}
			if !k.complete {
				r.fail(r.unavailable(k, ErrDeadline))
			}
		}
	}
}

func (r *Read) fail(err error) {
	if !r.done {
		r.done, r.err = true, err
	}
}

func (r *Read) unavailable(k *reading, err error) error {
	u := &UnavailableError{Op: "read", Shard: k.shard, Level: r.level, Need: r.level.Of(len(k.replicas)),
		Replicas: k.replicas, Err: err}
	for _, id := range k.replicas {
		if slices.Contains(k.failed, id) || !r.place.May(id) {
			u.Down = append(u.Down, id)
		}
	}
	return u
}
