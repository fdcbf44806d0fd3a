package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"syntropy/coordinator"
	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/storage"
)

// readBytesMax bounds the entries of one answer to a read: enough that a batch of
// small keys comes at once, and little against the memory of a node. At least one
// entry is always answered.
const readBytesMax = 4 << 20

// readKeyBytesMax and readKeysMax bound the keys of one question, of which several
// fit into a message.
const (
	readKeyBytesMax = 1 << 20
	readKeysMax     = 10_000
)

// errGone is the error of a read whose client did not wait for it.
var errGone = &Error{CodeTimeout, "the request was cancelled by the one who made it"}

// readHurry is after how long a read asks another replica as well: far more than an
// answer takes, and little to somebody who waits.
const readHurry = 250 * time.Millisecond

// Found is what a read says of one key.
type Found = coordinator.Found

// Read returns the newest versions that the replicas asked hold of the first of
// the keys: of all, unless they are large; of at least one. They may be tombstones
// or expired. Replicas asked that turn out to hold something older are repaired.
func (n *Node) Read(client context.Context, level coordinator.Level, keys [][]byte) ([]Found, error) {
	r, err := n.enter()
	if err != nil {
		return nil, err
	}
	defer n.leave()
	if err := r.mayCoordinate(); err != nil {
		return nil, err
	}
	if level == coordinator.Default {
		level = n.opts.ReadConsistency
	}
	keys = firstKeys(keys)
	ctx, cancel := context.WithTimeout(client, r.settings.RequestDeadline)
	if level == coordinator.One {
		if found, ok := r.readHere(ctx, keys); ok {
			cancel()
			return found, nil
		}
	}
	read, err := coordinator.NewRead(r.placement(r.readable), r.digest, level, keys)
	if err != nil {
		cancel()
		return nil, r.unreadable(err)
	}
	run := &readRun{r: r, read: read, keys: keys, cancel: cancel, decided: make(chan struct{})}
	run.mu.Lock()
	run.advance(ctx)
	run.mu.Unlock()
	hurry := time.NewTimer(min(r.settings.RequestDeadline/8, readHurry))
	defer hurry.Stop()
	for decided := false; !decided; {
		select {
		case <-run.decided:
			decided = true
		case <-hurry.C:
			run.mu.Lock()
			read.Hurry()
			run.advance(ctx)
			run.mu.Unlock()
		case <-ctx.Done():
			if errors.Is(client.Err(), context.Canceled) {
				return nil, errGone
			}
			run.mu.Lock()
			read.Expire()
			run.advance(ctx)
			run.mu.Unlock()
			<-run.decided
			decided = true
		}
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.err != nil {
		return nil, r.unreadable(run.err)
	}
	found := make([]Found, read.Prefix())
	for i := range found {
		if found[i].Entry, found[i].OK = read.Entry(i); found[i].OK {
			// What this node stamps next is above what its clients have seen. Stamps
			// beyond the bound stay as they are: the next write is refused then.
			_ = r.clock.Observe(found[i].Entry.Newest())
		}
	}
	return found, nil
}

// unreadable is the error of a read, with the reason why this node's own replica
// cannot serve it, if there is one.
func (r *replica) unreadable(err error) error {
	answer := coordinated(err)
	if own := r.mayServe(true); own != nil {
		if coded := (*Error)(nil); errors.As(answer, &coded) {
			coded.text += "; " + own.Error()
		}
	}
	return answer
}

// readHere answers from this node's own replica, if it can read all of the keys. It
// is the whole of a read at level ONE.
func (r *replica) readHere(ctx context.Context, keys [][]byte) (found []Found, ok bool) {
	l := r.layout()
	if !r.readable(l, r.self) {
		return nil, false
	}
	if l.held < len(l.table.Shards) {
		for _, key := range keys {
			if shard, _ := r.store.Locate(key); !l.table.Holds(r.self, shard) {
				return nil, false
			}
		}
	}
	type answer struct {
		found []Found
		err   error
	}
	read := make(chan answer, 1) // a disk may take longer than any deadline
	r.node.requests.Go(func() {
		found, err := r.lookupHere(keys)
		read <- answer{found, err}
	})
	hurry := time.NewTimer(min(r.settings.RequestDeadline/8, readHurry))
	defer hurry.Stop()
	select {
	case a := <-read:
		if a.err != nil {
			r.log.Error("could not read this node's own replica: others are asked", "error", a.err)
		}
		return a.found, a.err == nil
	case <-hurry.C: // the read goes on with this replica and another one
		return nil, false
	case <-ctx.Done():
		return nil, false
	}
}

// firstKeys leaves as many of the keys as one question may hold.
func firstKeys(keys [][]byte) [][]byte {
	size := 0
	for i, key := range keys {
		if size += len(key); i > 0 && (size > readKeyBytesMax || i >= readKeysMax) {
			return keys[:i]
		}
	}
	return keys
}

// lookupHere reads the first of the keys from this node's store.
func (r *replica) lookupHere(keys [][]byte) ([]Found, error) {
	found := make([]Found, 0, len(keys))
	for size := 0; len(found) < len(keys) && (len(found) == 0 || size < readBytesMax); {
		e, ok, err := r.store.Get(keys[len(found)])
		if err != nil {
			return nil, r.unread(keys[len(found)], err)
		}
		found = append(found, Found{Entry: e, OK: ok})
		size += len(e.Key) + len(e.Value)
	}
	return found, nil
}

// unread is the error of a key that could not be read here. What cannot be read for a
// reason that is not known yet has its shard scrubbed.
func (r *replica) unread(key []byte, err error) error {
	if !errors.Is(err, storage.ErrQuarantined) {
		shard, _ := r.store.Locate(key)
		r.scrubber.doubt(shard, false)
	}
	return &Error{CodeStorage, err.Error()}
}

func (r *replica) digest(e lww.Entry) merkle.Sum { return r.store.Sum(e) }

// readRun carries out what a coordinator.Read decides. Its goroutines may go on
// for a while after the client was answered, to repair.
type readRun struct {
	r      *replica
	keys   [][]byte
	cancel context.CancelFunc

	mu      sync.Mutex
	read    *coordinator.Read
	running int // goroutines
	told    bool
	decided chan struct{}
	err     error
}

// advance starts what is due. The caller holds run.mu.
func (run *readRun) advance(ctx context.Context) {
	for {
		asks := run.read.Asks()
		if len(asks) == 0 {
			break
		}
		for _, a := range asks {
			run.start(func() { run.ask(ctx, a) })
		}
	}
	for _, s := range run.read.Repairs() {
		if run.r.node.opts.NoReadRepair {
			run.read.Repaired(s, errSwitchedOff)
			continue
		}
		run.start(func() { run.repair(ctx, s) })
	}
	if done, err := run.read.Done(); done && !run.told {
		run.told, run.err = true, err
		close(run.decided)
	}
	if run.told && run.running == 0 {
		run.cancel()
	}
}

// start runs work that ends with a call of advance. The caller holds run.mu.
func (run *readRun) start(work func()) {
	run.running++
	run.r.node.requests.Go(work)
}

var errSwitchedOff = errors.New("read repair is switched off")

// ask puts the question of one Ask to a replica.
func (run *readRun) ask(ctx context.Context, a coordinator.Ask) {
	answer, err := run.r.lookup(ctx, a.To, pick(run.keys, a.Full), pick(run.keys, a.Digest))
	run.mu.Lock()
	defer run.mu.Unlock()
	run.running--
	if err != nil {
		run.read.Failed(a, err)
	} else {
		run.read.Answered(a, answer)
	}
	run.advance(ctx)
}

func pick(keys [][]byte, index []int) [][]byte {
	picked := make([][]byte, len(index))
	for i, k := range index {
		picked[i] = keys[k]
	}
	return picked
}

// repair brings the newest versions to a replica that answered with older ones.
func (run *readRun) repair(ctx context.Context, s coordinator.Send) {
	var p *peer
	if s.To != run.r.self {
		p = run.r.peer(s.To)
	}
	_, err := run.r.apply(ctx, p, s.Entries, forReadRepair)
	if err != nil {
		run.r.log.Debug("a read could not repair a replica", "node", s.To.String(), "error", err)
	} else {
		run.r.counters.readRepairs.Add(int64(len(s.Entries)))
		run.r.node.opts.Events.readRepaired(s.To, s.Entries)
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	run.running--
	run.read.Repaired(s, err)
	run.advance(ctx)
}

// lookup asks one replica for the entries of some keys and the digests of others.
func (r *replica) lookup(ctx context.Context, id hlc.NodeID, keys, digestKeys [][]byte) (answer coordinator.ReadAnswer, err error) {
	if id == r.self {
		if answer.Entries, err = r.lookupHere(keys); err != nil {
			return answer, err
		}
		for _, key := range digestKeys {
			e, ok, err := r.store.Get(key)
			if err != nil {
				return answer, err
			}
			d := coordinator.DigestAnswer{OK: ok}
			if ok {
				d.Sum = r.digest(e)
			}
			answer.Digests = append(answer.Digests, d)
		}
		return answer, nil
	}
	reply, err := r.peer(id).link.Call(ctx, &peerpb.Message{Body: &peerpb.Message_Lookup{Lookup: &peerpb.Lookup{Keys: keys, DigestKeys: digestKeys}}})
	if err != nil {
		return answer, err
	}
	l := reply.GetLookupReply()
	if l == nil || len(l.Entries) > len(keys) || len(l.Digests) != len(l.Entries)+len(digestKeys) || len(keys) > 0 && len(l.Entries) == 0 {
		return answer, errMalformedAnswer
	}
	for _, raw := range l.Entries {
		f := Found{OK: len(raw) > 0}
		if f.OK {
			if f.Entry, _, err = lww.DecodeEntry(raw); err != nil {
				return answer, err
			}
		}
		answer.Entries = append(answer.Entries, f)
	}
	for _, raw := range l.Digests[len(l.Entries):] {
		d := coordinator.DigestAnswer{OK: len(raw) > 0} // empty: there is no entry
		if d.OK {
			if len(raw) != merkle.SumBytes {
				return answer, errMalformedAnswer
			}
			d.Sum = merkle.SumFrom(raw)
		}
		answer.Digests = append(answer.Digests, d)
	}
	return answer, nil
}
