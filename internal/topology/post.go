package topology

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	// sendTimeout bounds one Send, so that a node that swallows packets holds up
	// only its own queue, and that for no longer than an election takes.
	sendTimeout = 2 * time.Second
	// postMessages and postBytes bound what waits for one node. A leader has at
	// most inflightMessages on their way to it, and heartbeats; what is dropped
	// here the library sends again.
	postMessages = 2 * inflightMessages
	postBytes    = 4 << 20
)

// post sends messages to other nodes, to each at its own pace. A goroutine runs
// for a node as long as there is something to send to it.
type post struct {
	send  func(ctx context.Context, to Member, messages [][]byte) error
	work  sync.WaitGroup
	sent  chan sent // what became of each batch
	mu    sync.Mutex
	boxes map[uint64]*box // of nodes that have a goroutine now
}

// box is what waits for one node.
type box struct {
	messages  [][]byte
	bytes     int
	snapshots int // how many of them bring a snapshot
}

// sent reports a batch to the library, which waits for that after a snapshot.
type sent struct {
	to       uint64
	snapshot bool
	err      error
}

func newPost(send func(ctx context.Context, to Member, messages [][]byte) error) *post {
	return &post{send: send, sent: make(chan sent), boxes: make(map[uint64]*box)}
}

// put queues a message, or drops it if too much is waiting, and says which. Until
// ctx ends somebody must receive from p.sent.
func (p *post) put(ctx context.Context, to Member, m raftpb.Message) (bool, error) {
	b, err := m.Marshal()
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.boxes[m.To]
	if q == nil {
		q = new(box)
		p.boxes[m.To] = q
		p.work.Go(func() { p.run(ctx, m.To, to) })
	}
	if len(q.messages) >= postMessages || q.bytes+len(b) > postBytes {
		return false, nil
	}
	q.messages = append(q.messages, b)
	q.bytes += len(b)
	if m.Type == raftpb.MsgSnap {
		q.snapshots++
	}
	return true, nil
}

// run sends what is queued for one node until nothing is.
func (p *post) run(ctx context.Context, id uint64, to Member) {
	for {
		p.mu.Lock()
		q := p.boxes[id]
		if len(q.messages) == 0 || ctx.Err() != nil {
			delete(p.boxes, id)
			p.mu.Unlock()
			return
		}
		batch := *q
		*q = box{}
		p.mu.Unlock()

		err := p.sendOne(ctx, to, batch.messages)
		if err == nil && batch.snapshots == 0 {
			continue
		}
		select {
		case p.sent <- sent{to: id, snapshot: batch.snapshots > 0, err: err}:
		case <-ctx.Done():
		}
	}
}

func (p *post) sendOne(ctx context.Context, to Member, messages [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return p.send(ctx, to, messages)
}
