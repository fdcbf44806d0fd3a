package topology

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// D/topology.log holds what this disk has promised and what it knows of the log.
// It is small, and replaced as a whole:
//
//	{"format":1,"sha256":"..."}            one line; the sum of all after it
//	{"cluster_id":"...","incarnation":"...",
//	 "hard_state":"...","snapshot":"...","entries":["...",...]}
//
// The last three are the messages of the raft library, in base64.
const logFormat = 1

type logHeadJSON struct {
	Format int    `json:"format"`
	SHA256 string `json:"sha256"`
}

type logBodyJSON struct {
	ClusterID   string   `json:"cluster_id"`
	Incarnation string   `json:"incarnation"`
	HardState   []byte   `json:"hard_state"`
	Snapshot    []byte   `json:"snapshot"`
	Entries     [][]byte `json:"entries"` // after the snapshot
}

// firstIndex is the place in the log of the snapshot that all nodes begin with.
const firstIndex = 1

// newLogStore returns the log as it begins on every node: empty, with its voters.
func newLogStore(r *Record) (*raft.MemoryStorage, error) {
	voters, err := firstVoters(r)
	if err != nil {
		return nil, err
	}
	store := raft.NewMemoryStorage()
	begin := raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{ConfState: voters, Index: firstIndex, Term: 1}}
	return store, errors.Join(
		store.ApplySnapshot(begin),
		store.SetHardState(raftpb.HardState{Term: 1, Commit: firstIndex}),
	)
}

// loadLog reads the log of this disk, or nil if it has none.
func (d *Dir) loadLog(r *Record) (*raft.MemoryStorage, error) {
	b, err := os.ReadFile(d.file(logFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	store, err := parseLog(b, r.ClusterID, d.Incarnation())
	if err != nil {
		return nil, fmt.Errorf("%s: %w; do not remove this file alone, for it holds what this disk has promised to others: give the node an empty data directory, and it becomes a member with a new disk", d.file(logFile), err)
	}
	return store, nil
}

func parseLog(b []byte, clusterID, incarnation string) (*raft.MemoryStorage, error) {
	head, body, _ := bytes.Cut(b, []byte("\n"))
	if err := checkFormat(head, logFormat, "topology log"); err != nil {
		return nil, err
	}
	var h logHeadJSON
	if err := unmarshalStrict(head, &h); err != nil {
		return nil, fmt.Errorf("unreadable topology log: %w", err)
	}
	if sum := sha256.Sum256(body); h.SHA256 != hex.EncodeToString(sum[:]) {
		return nil, errors.New("the topology log is damaged: its checksum does not match")
	}
	var j logBodyJSON
	if err := unmarshalStrict(body, &j); err != nil {
		return nil, fmt.Errorf("unreadable topology log: %w", err)
	}
	if j.ClusterID != clusterID || j.Incarnation != incarnation {
		return nil, fmt.Errorf("the topology log is of disk %.8s in cluster %s, and not of this one: was it copied?", j.Incarnation, j.ClusterID)
	}
	var hard raftpb.HardState
	var snapshot raftpb.Snapshot
	entries := make([]raftpb.Entry, len(j.Entries))
	errs := []error{hard.Unmarshal(j.HardState), snapshot.Unmarshal(j.Snapshot)}
	for i := range entries {
		errs = append(errs, entries[i].Unmarshal(j.Entries[i]))
		if want := snapshot.Metadata.Index + 1 + uint64(i); entries[i].Index != want {
			errs = append(errs, fmt.Errorf("entry %d is where %d should be", entries[i].Index, want))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("unreadable topology log: %w", err)
	}
	if last := snapshot.Metadata.Index + uint64(len(entries)); hard.Commit < snapshot.Metadata.Index || hard.Commit > last {
		return nil, fmt.Errorf("unreadable topology log: it ends at %d and is agreed on up to %d", last, hard.Commit)
	}
	store := raft.NewMemoryStorage()
	return store, errors.Join(store.ApplySnapshot(snapshot), store.SetHardState(hard), store.Append(entries))
}

// saveLog makes the whole log durable.
func (d *Dir) saveLog(store *raft.MemoryStorage, clusterID string) error {
	b, err := encodeLog(store, clusterID, d.Incarnation())
	if err == nil {
		err = d.writeBytes(logFile, b)
	}
	if err != nil {
		return fmt.Errorf("keeping the topology log: %w", err)
	}
	return nil
}

func encodeLog(store *raft.MemoryStorage, clusterID, incarnation string) ([]byte, error) {
	hard, _, err := store.InitialState()
	if err != nil {
		return nil, err
	}
	snapshot, err := store.Snapshot()
	if err != nil {
		return nil, err
	}
	j := logBodyJSON{ClusterID: clusterID, Incarnation: incarnation, Entries: [][]byte{}}
	if j.HardState, err = hard.Marshal(); err != nil {
		return nil, err
	}
	if j.Snapshot, err = snapshot.Marshal(); err != nil {
		return nil, err
	}
	last, err := store.LastIndex()
	if err != nil {
		return nil, err
	}
	if first := snapshot.Metadata.Index + 1; first <= last {
		entries, err := store.Entries(first, last+1, maxLogBytes)
		if err != nil {
			return nil, err
		}
		for i := range entries {
			b, err := entries[i].Marshal()
			if err != nil {
				return nil, err
			}
			j.Entries = append(j.Entries, b)
		}
		if uint64(len(j.Entries)) != last+1-first {
			return nil, fmt.Errorf("the log has grown over %d bytes", maxLogBytes)
		}
	}
	body, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	return append([]byte(logHead(body)), body...), nil
}

func logHead(body []byte) string {
	return fmt.Sprintf("{\"format\":%d,\"sha256\":\"%x\"}\n", logFormat, sha256.Sum256(body))
}

// maxLogBytes bounds the entries in the file. The largest entry is a first table,
// of some 200 KiB at the most, and compaction keeps a few dozen small ones: more
// means that compaction does not work.
const maxLogBytes = 64 << 20
