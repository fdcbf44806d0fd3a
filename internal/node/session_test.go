package node

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syntropy/antientropy"
	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/lww"
	"syntropy/storage"
	"syntropy/storage/memstore"
)

// countingEngine counts the snapshots that are open.
type countingEngine struct {
	storage.Engine
	open atomic.Int64
}

type countedReader struct {
	storage.Reader
	engine *countingEngine
}

func (e *countingEngine) Snapshot() storage.Reader {
	e.open.Add(1)
	return countedReader{e.Engine.Snapshot(), e}
}

func (r countedReader) Close() error {
	r.engine.open.Add(-1)
	return r.Reader.Close()
}

// partner is a replica that takes part in sessions, and nothing else.
func partner(t *testing.T) (*replica, *countingEngine) {
	t.Helper()
	e := &countingEngine{Engine: memstore.New()}
	s, err := storage.Open(e, storage.Options{Shards: 1, Secret: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := openClock(s, time.Second, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply([]lww.Entry{entry("a", "1", time.Hour)}); err != nil {
		t.Fatal(err)
	}
	proofs, err := openProofs(s)
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{node: &Node{}, self: 1, store: s, clock: c, proofs: proofs, sessions: newSessionTable(s, func() []int { return nil }, func(int) {}), log: slog.New(slog.DiscardHandler)}
	r.topology.Store(layoutOf(1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9))
	r.room = roomy()
	r.rotten = newRotten(1)
	if r.scrubber, err = openScrubber(r); err != nil {
		t.Fatal(err)
	}
	r.schedule = newScheduler(r, true)
	return r, e
}

// opening is the first message of a session over an empty store.
func opening(t *testing.T) []byte {
	t.Helper()
	msg, err := antientropy.NewInitiator(memStore(t, 1).Snapshot(), antientropy.Config{Now: hlc.FromTime(time.Now())}).Next()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func say(r *replica, from hlc.NodeID, m *peerpb.Session) (kind byte, text string) {
	b := r.handleSession(from, m).GetSessionReply().GetPayload()
	if len(b) == 0 {
		return 0, ""
	}
	return b[0], string(b[1:])
}

// TestSessionLimit: the table takes so many sessions and tells the next one
// that it is busy; each way of ending one makes room and releases its view.
func TestSessionLimit(t *testing.T) {
	r, e := partner(t)
	open := opening(t)
	for id := range uint64(maxPartnerSessions) {
		if _, text := say(r, 2, &peerpb.Session{Id: id, Open: true, Payload: open}); text == "" {
			t.Fatal("no answer")
		}
	}
	if got := e.open.Load(); got != maxPartnerSessions {
		t.Fatalf("%d snapshots are open", got)
	}
	_, text := say(r, 3, &peerpb.Session{Id: 77, Open: true, Payload: open})
	wantWords(t, text, "busy", "try again later")
	if _, text := say(r, 3, &peerpb.Session{Id: 0, Payload: open}); text == "" {
		t.Fatal("no answer")
	} else {
		wantWords(t, text, "unknown") // n2 has a session 0, n3 has not
	}

	say(r, 2, &peerpb.Session{Id: 0, Cancel: true})                // cancelled
	say(r, 2, &peerpb.Session{Id: 1, Payload: []byte("nonsense")}) // failed
	say(r, 2, &peerpb.Session{Id: 2, Payload: []byte{}})           // failed at once
	if got := e.open.Load(); got != 1 {
		t.Fatalf("%d snapshots are open after three sessions ended", got)
	}
	say(r, 3, &peerpb.Session{Id: 5, Open: true, Payload: open})
	r.sessions.drop(2) // the link of n2 closed
	if _, text := say(r, 2, &peerpb.Session{Id: 3, Payload: open}); text == "" {
		t.Fatal("no answer")
	} else {
		wantWords(t, text, "unknown", "begin a new one")
	}
	if got := e.open.Load(); got != 1 {
		t.Fatalf("%d snapshots are open after the link closed", got)
	}
	r.sessions.closeAll()
	if got := e.open.Load(); got != 0 {
		t.Fatalf("%d snapshots leaked", got)
	}
}

// TestSessionFinishes: a session that ran to its end leaves nothing.
func TestSessionFinishes(t *testing.T) {
	r, e := partner(t)
	mine := memStore(t, 1)
	view := mine.Snapshot()
	s := antientropy.NewInitiator(view, antientropy.Config{Now: hlc.FromTime(time.Now())})
	for open := true; ; open = false {
		msg, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		if msg == nil {
			break
		}
		entries, err := s.Receive(r.handleSession(2, &peerpb.Session{Id: 1, Open: open, Payload: msg}).GetSessionReply().GetPayload())
		if err != nil {
			t.Fatal(err)
		}
		_, err = mine.Apply(entries)
		s.Applied(err)
	}
	if rep := s.Report(); !rep.Complete || rep.Pulled != 1 {
		t.Fatalf("%+v", rep)
	}
	if got := e.open.Load(); got != 0 {
		t.Fatalf("%d snapshots leaked", got)
	}
}

// TestSessionExpires: silence ends a session, and so does age.
func TestSessionExpires(t *testing.T) {
	r, e := partner(t)
	began := time.Now()
	say(r, 2, &peerpb.Session{Id: 1, Open: true, Payload: opening(t)})
	r.sessions.expireAt(began.Add(sessionIdle))
	if e.open.Load() != 1 {
		t.Fatal("a session ended before its time")
	}
	r.sessions.expireAt(time.Now().Add(sessionIdle + time.Second))
	if e.open.Load() != 0 {
		t.Fatal("an idle session lives on")
	}

	say(r, 2, &peerpb.Session{Id: 2, Open: true, Payload: opening(t)})
	s, _ := r.sessions.get(sessionKey{2, 2}, false)
	late := time.Now().Add(sessionAge + time.Second)
	s.used.Store(int64(late.Sub(s.opened))) // busy until just now
	r.sessions.expireAt(late)
	if e.open.Load() != 0 {
		t.Fatal("a session may live for ever if it is busy")
	}
}

// TestSessionRaces: messages, links that close, cancellations and expiry at the
// same time leave nothing open.
func TestSessionRaces(t *testing.T) {
	r, e := partner(t)
	open := opening(t)
	var wg sync.WaitGroup
	for n := range 4 {
		from := hlc.NodeID(n + 2)
		wg.Go(func() {
			for id := range uint64(200) {
				say(r, from, &peerpb.Session{Id: id % 3, Open: id%2 == 0, Payload: open, Cancel: id%7 == 6})
				if id%5 == 4 {
					r.sessions.drop(from)
				}
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			r.sessions.expireAt(time.Now().Add(time.Hour))
		}
	})
	wg.Wait()
	r.sessions.closeAll()
	if got := e.open.Load(); got != 0 {
		t.Fatalf("%d snapshots leaked", got)
	}
}

// TestProofsRoundTrip: proofs come back after a restart, and what is cut short
// gives fewer of them and no wrong one.
func TestProofsRoundTrip(t *testing.T) {
	s := memStore(t, 1)
	p, err := openProofs(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := p.get(2); ok {
		t.Fatal("a proof from nowhere")
	}
	p.record(2, noon)
	p.record(65535, noon.Add(time.Hour))
	p.record(2, noon.Add(time.Minute))
	if p, err = openProofs(s); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[hlc.NodeID]time.Time{2: noon.Add(time.Minute), 65535: noon.Add(time.Hour)} {
		if got, ok := p.get(id); !ok || !got.Equal(want) {
			t.Errorf("%v: proven until %v, want %v", id, got, want)
		}
	}
	raw, _, err := s.Meta(metaProofs)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutMeta(metaProofs, raw[:13]); err != nil {
		t.Fatal(err)
	}
	if p, err = openProofs(s); err != nil || len(p.until) != 1 {
		t.Fatalf("cut short: %v, %v", p.until, err)
	}
}
