package node

import (
	"encoding/binary"
	"sync"
	"time"

	"syntropy/hlc"
	"syntropy/storage"
)

// proofs remember, for each other member, until when it is proven to hold all
// that this node held. A lost proof costs one session.
type proofs struct {
	store *storage.Store

	mu    sync.Mutex
	until map[hlc.NodeID]time.Time
}

const metaProofs = "proofs"

func openProofs(store *storage.Store) (*proofs, error) {
	p := &proofs{store: store, until: make(map[hlc.NodeID]time.Time)}
	raw, _, err := store.Meta(metaProofs)
	if err != nil {
		return nil, err
	}
	for ; len(raw) >= 10; raw = raw[10:] {
		id := hlc.NodeID(binary.BigEndian.Uint16(raw))
		p.until[id] = time.UnixMicro(int64(binary.BigEndian.Uint64(raw[2:]))).UTC()
	}
	return p, nil
}

func (p *proofs) record(partner hlc.NodeID, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until[partner] = until
	var raw []byte
	for id, t := range p.until {
		raw = binary.BigEndian.AppendUint16(raw, uint16(id))
		raw = binary.BigEndian.AppendUint64(raw, uint64(t.UnixMicro()))
	}
	// A proof that is not stored is lost at the next start, no more.
	_ = p.store.PutMeta(metaProofs, raw)
}

func (p *proofs) get(partner hlc.NodeID) (until time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok = p.until[partner]
	return until, ok
}
