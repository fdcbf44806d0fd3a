package antientropy

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
	"syntropy/storage/memstore"
)

// tb is a test, a benchmark, or a property of package rapid.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

var testSecret = [32]byte{1}

// epoch is second 0 of every test.
var epoch = hlc.FromTime(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))

func second(n int) hlc.Stamp { return epoch.Add(time.Duration(n) * time.Second) }

func value(key, value string, at int) lww.Entry {
	return lww.Entry{Key: []byte(key), Value: []byte(value), Version: lww.Version{Stamp: second(at), Node: 1}}
}

func tombstone(key string, at int) lww.Entry {
	return lww.Entry{Key: []byte(key), Version: lww.Version{Stamp: second(at), Node: 1, Tombstone: true}}
}

// replica is what a test needs of one side of a session.
type replica interface {
	// view freezes the replica.
	view() View
	apply([]lww.Entry) error
}

// storeReplica is a replica in the real store.
type storeReplica struct{ *storage.Store }

func newStore(t tb, opts storage.Options) storeReplica {
	t.Helper()
	opts.Secret = testSecret
	s, err := storage.Open(memstore.New(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return storeReplica{s}
}

func (r storeReplica) view() View { return r.Snapshot() }

func (r storeReplica) apply(entries []lww.Entry) error {
	_, err := r.Apply(entries)
	return err
}

// mapReplica is the obvious slow replica: a map, no tree, digests summed from
// all rows whenever they are asked for. Its tokens are what a test wants them
// to be.
type mapReplica struct {
	rows     map[string]lww.Entry
	shards   int
	leafBits int
	token    func(key []byte) ring.Token
	// fingerprint may weaken the hash, so that fingerprints collide.
	fingerprint func(merkle.Sum) merkle.Sum
}

func newMap(shards, leafBits int, token func(key []byte) ring.Token) *mapReplica {
	return &mapReplica{make(map[string]lww.Entry), shards, leafBits, token, func(s merkle.Sum) merkle.Sum { return s }}
}

func (r *mapReplica) apply(entries []lww.Entry) error {
	for _, e := range entries {
		if err := e.Validate(); err != nil {
			return err
		}
		if old, ok := r.rows[string(e.Key)]; !ok || lww.Compare(e, old) > 0 {
			r.rows[string(e.Key)] = e.Clone()
		}
	}
	return nil
}

func (r *mapReplica) view() View {
	v := &mapView{shards: r.shards, token: r.token, fingerprint: r.fingerprint, leafBits: r.leafBits, hasher: merkle.NewHasher(testSecret)}
	for _, e := range r.rows {
		v.rows = append(v.rows, merkle.Row{Position: v.Position(e.Key), Entry: e, Sum: v.Sum(e)})
	}
	slices.SortFunc(v.rows, func(a, b merkle.Row) int {
		return cmp.Or(cmp.Compare(a.Position, b.Position), cmp.Compare(v.token(a.Entry.Key), v.token(b.Entry.Key)), bytes.Compare(a.Entry.Key, b.Entry.Key))
	})
	return v
}

type mapView struct {
	shards      int
	token       func(key []byte) ring.Token
	fingerprint func(merkle.Sum) merkle.Sum
	leafBits    int // of the leaves that are kept, below a shard
	hasher      *merkle.Hasher
	rows        []merkle.Row
}

func (v *mapView) Shards() int { return v.shards }

func (v *mapView) Root(shard int) (d merkle.Digest) {
	v.Rows(merkle.Node{Bits: uint8(ring.ShardBits(v.shards)), Path: uint64(shard)}, func(r *merkle.Row) bool {
		d = d.Plus(merkle.DigestOf(r.Position, r.Sum))
		return true
	})
	return d
}

func (v *mapView) Syndromes(n merkle.Node, bits int, dst []merkle.Syndrome) bool {
	if int(n.Bits)+bits > ring.ShardBits(v.shards)+v.leafBits {
		return false
	}
	sum := merkle.NewSummer(n, bits, dst)
	v.Rows(n, func(r *merkle.Row) bool {
		sum.Add(r.Position, r.Fingerprint(0))
		return true
	})
	return true
}

func (v *mapView) Rows(n merkle.Node, visit func(*merkle.Row) bool) error {
	i, _ := slices.BinarySearchFunc(v.rows, n.First(), func(r merkle.Row, x ring.Position) int { return cmp.Compare(r.Position, x) })
	for ; i < len(v.rows) && n.Contains(v.rows[i].Position); i++ {
		if !visit(&v.rows[i]) {
			break
		}
	}
	return nil
}

func (v *mapView) Position(key []byte) ring.Position {
	return ring.At(ring.ShardOf(ring.Slot(key), v.shards), v.token(key), v.shards)
}

func (v *mapView) Sum(e lww.Entry) merkle.Sum { return v.fingerprint(v.hasher.Entry(e)) }
func (v *mapView) Hash(b []byte) uint64       { return v.hasher.Bytes(b) }

func shardNode(v View, shard int) merkle.Node {
	return merkle.Node{Bits: uint8(ring.ShardBits(v.Shards())), Path: uint64(shard)}
}

// allRows returns the entries of a view by key, read shard by shard.
func allRows(t tb, v View) map[string]lww.Entry {
	t.Helper()
	rows := make(map[string]lww.Entry)
	for shard := range v.Shards() {
		err := v.Rows(shardNode(v, shard), func(r *merkle.Row) bool {
			rows[string(r.Entry.Key)] = r.Entry.Clone()
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

func entriesEqual(a, b lww.Entry) bool {
	return a.Version == b.Version && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
}

// equalReplicas reports whether both hold the same entries and have the same
// roots.
func equalReplicas(t tb, a, b replica) bool {
	t.Helper()
	va, vb := a.view(), b.view()
	for shard := range va.Shards() {
		if va.Root(shard) != vb.Root(shard) {
			return false
		}
	}
	return maps.EqualFunc(allRows(t, va), allRows(t, vb), entriesEqual)
}

// message is one message of a transcript.
type message struct {
	toPartner bool
	bytes     []byte
}

// session is a conversation of two replicas in one goroutine, with hooks for
// whatever may go wrong between them.
type session struct {
	a, b         replica
	cfg          Config
	partnerBytes int // the partner's message limit, 0: the default

	viewA, viewB View // nil: those of a and b, as of cfg.AsOf
	// tamper may replace a message on its way.
	tamper func(i int, toPartner bool, msg []byte) []byte
	// applyA and applyB stand in for the replicas' apply.
	applyA, applyB func([]lww.Entry) error
	// cut is the number of messages after which the connection is gone, 0: never.
	cut int

	transcript  []message
	comparisons []Comparison
	found       []Difference
	appliedA    []lww.Entry
	appliedB    []lww.Entry
	partner     *Responder
	partnerErr  error
}

var errCut = errors.New("the connection is gone")

// roundsMax ends a session that does not end by itself.
const roundsMax = 100_000

// run carries the messages. It returns the initiator's error.
func (s *session) run(t tb) (Report, error) {
	t.Helper()
	if s.viewA == nil {
		s.viewA = viewAsOf(s.a, cmp.Or(s.cfg.AsOf, hlc.Max))
	}
	if s.applyA == nil {
		s.applyA = s.a.apply
	}
	if s.applyB == nil {
		s.applyB = s.b.apply
	}
	if s.cfg.Compared == nil {
		s.cfg.Compared = func(c Comparison) { s.comparisons = append(s.comparisons, c) }
	}
	if s.cfg.Found == nil {
		s.cfg.Found = func(d Difference) { s.found = append(s.found, d) }
	}
	init, resp := NewInitiator(s.viewA, s.cfg), NewResponder(func(asOf hlc.Stamp) (View, error) {
		if s.viewB == nil {
			s.viewB = viewAsOf(s.b, asOf)
		}
		return s.viewB, nil
	})
	s.partner = resp
	if s.partnerBytes > 0 {
		resp.messageBytes = s.partnerBytes
	}
	for range roundsMax {
		msg, err := init.Next()
		if msg == nil || err != nil {
			return init.Report(), err
		}
		if s.cut > 0 && len(s.transcript) >= s.cut {
			return init.Report(), errCut
		}
		pushed, err := resp.Receive(s.carry(true, msg))
		if err != nil {
			s.partnerErr, err = err, nil
		} else if len(pushed) > 0 {
			if err = s.applyB(pushed); err == nil {
				s.appliedB = append(s.appliedB, cloneAll(pushed)...)
			}
		}
		reply := resp.Reply(err)
		if s.cut > 0 && len(s.transcript) >= s.cut {
			return init.Report(), errCut
		}
		pulled, err := init.Receive(s.carry(false, reply))
		if err != nil {
			return init.Report(), err
		}
		if len(pulled) > 0 {
			if err = s.applyA(pulled); err == nil {
				s.appliedA = append(s.appliedA, cloneAll(pulled)...)
			}
		}
		init.Applied(err)
	}
	t.Fatalf("the session is not over after %d rounds", roundsMax)
	return Report{}, nil
}

// newResponder returns a partner whose view is there already.
func newResponder(v View) *Responder {
	return NewResponder(func(hlc.Stamp) (View, error) { return v, nil })
}

// viewAsOf freezes a replica as of a moment, if it remembers moments.
func viewAsOf(r replica, asOf hlc.Stamp) View {
	if st, ok := r.(storeReplica); ok {
		return st.SnapshotAsOf(asOf)
	}
	return r.view()
}

func (s *session) carry(toPartner bool, msg []byte) []byte {
	msg = bytes.Clone(msg)
	if s.tamper != nil {
		msg = s.tamper(len(s.transcript), toPartner, msg)
	}
	s.transcript = append(s.transcript, message{toPartner, msg})
	return msg
}

func cloneAll(entries []lww.Entry) []lww.Entry {
	out := make([]lww.Entry, len(entries))
	for i, e := range entries {
		out[i] = e.Clone()
	}
	return out
}

// mustRun is run for sessions that must complete.
func (s *session) mustRun(t tb) Report {
	t.Helper()
	r, err := s.run(t)
	if err != nil {
		t.Fatalf("session: %v", err)
	}
	if !r.Complete {
		t.Fatalf("the session is not complete: %+v", r)
	}
	return r
}

// expectOneDigest checks that a session between two replicas that agree costs
// one digest and its answer, whatever they hold.
func expectOneDigest(t tb, a, b replica) {
	t.Helper()
	s := session{a: a, b: b, cfg: Config{Now: second(1 << 20)}}
	r := s.mustRun(t)
	if r.Rounds != 1 || r.ShardsEqual != r.Shards || r.BytesSent > 100 || r.BytesReceived != 1 {
		t.Fatalf("replicas that agree exchanged more than one digest: %+v", r)
	}
}
