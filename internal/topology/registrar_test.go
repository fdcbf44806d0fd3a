package topology

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// local connects registrars within the process.
type local struct {
	mu    sync.Mutex
	nodes map[string]*Registrar
	logs  map[string]*Log // of nodes that can enroll others
}

func (l *local) at(addr string) (*Registrar, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.nodes[addr]; r != nil {
		return r, nil
	}
	return nil, errors.New("connection refused")
}

func (l *local) Meet(ctx context.Context, addr string, req MeetRequest) (MeetReply, error) {
	r, err := l.at(addr)
	if err != nil {
		return MeetReply{}, err
	}
	return r.HandleMeet(ctx, req), nil
}

func (l *local) Adopt(ctx context.Context, addr string, req AdoptRequest) error {
	r, err := l.at(addr)
	if err != nil {
		return err
	}
	return r.HandleAdopt(ctx, req)
}

func (l *local) Enroll(ctx context.Context, addr string, req EnrollRequest) (EnrollReply, error) {
	l.mu.Lock()
	log := l.logs[addr]
	l.mu.Unlock()
	if log == nil {
		return EnrollReply{}, errors.New("connection refused")
	}
	return log.HandleEnroll(ctx, req)
}

func (l *local) add(t *testing.T, opts RegistrarOptions) *Registrar {
	opts.Interval = time.Millisecond
	if opts.Settings == (Settings{}) {
		opts.Settings = DefaultSettings()
	}
	r, err := NewRegistrar(opts)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[opts.Me.Addr] = r
	return r
}

func TestFormOverATransport(t *testing.T) {
	net := &local{nodes: make(map[string]*Registrar)}
	type result struct {
		record *Record
		err    error
	}
	const nodes = 3
	results := make([]result, nodes)
	var wg sync.WaitGroup
	for i := range nodes {
		var mu sync.Mutex
		saved := 0
		r := net.add(t, RegistrarOptions{
			Me: Identity{Incarnation: incarnation(uint64(i + 1)), Addr: addr(i)}, Expect: nodes, Join: []string{addr(0)},
			Persist: func(*Record) error {
				mu.Lock()
				defer mu.Unlock()
				if saved++; saved > 1 {
					t.Error("persisted twice")
				}
				return nil
			},
		})
		wg.Go(func() {
			record, _, err := r.Form(t.Context(), net)
			results[i] = result{record, err}
		})
	}
	wg.Wait()
	for i, got := range results {
		if got.err != nil || got.record.Fingerprint() != results[0].record.Fingerprint() {
			t.Errorf("node %d: %+v", i, got)
		}
	}

	// n2 comes back on an empty disk.
	r := net.add(t, RegistrarOptions{
		Me: Identity{Incarnation: incarnation(9), Addr: addr(1)}, Expect: nodes, Join: []string{addr(0)},
		Persist: func(*Record) error { return nil },
	})
	record, table, err := r.Form(t.Context(), net)
	if err != nil || table != nil || record.ClusterID != results[0].record.ClusterID || record.IsFounder(r.opts.Me) {
		t.Error("returning member:", record, table, err)
	}
}

func TestFormEndsWithItsContextAndSaysWhatWasMissing(t *testing.T) {
	net := &local{nodes: make(map[string]*Registrar)}
	r := net.add(t, RegistrarOptions{
		Me: Identity{Incarnation: incarnation(1), Addr: addr(0)}, Expect: 3, Join: []string{addr(0), addr(1)},
		Persist: func(*Record) error { return nil },
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, _, err := r.Form(ctx, net)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting for 2 more nodes: known 127.0.0.1:7101") {
		t.Fatal(err)
	}
}

func TestFormReportsADiskThatFails(t *testing.T) {
	net := &local{nodes: make(map[string]*Registrar)}
	full := errors.New("no space left on device")
	r := net.add(t, RegistrarOptions{
		Me: Identity{Incarnation: incarnation(1), Addr: addr(0)}, Expect: 1, Persist: func(*Record) error { return full },
	})
	if _, _, err := r.Form(t.Context(), net); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if r.Record() != nil {
		t.Fatal("a record that is not durable was shown")
	}
}
