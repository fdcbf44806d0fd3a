package node

import (
	"encoding/json"
	"fmt"
	"time"

	"syntropy/hlc"
)

// metaAbsence keeps the absence ledger.
const metaAbsence = "absence"

// absence knows for how long each other member has been away, and decides when
// one has been away too long to be synced with: longer than gc_grace, after
// which tombstones may be gone, and a replica that never saw them would bring
// deleted data back.
//
// It counts the time that *this node was running* without contact to the
// member, never wall clock differences: a stopped cluster that starts again
// after a month has missed nothing, and a clock that jumps declares nobody
// dead. A member is declared dead only by a node in contact with a majority, so
// of two sides of a partition at most one gives a verdict. The verdict names
// the member's disk, stands once it is made, and ends only with another disk.
//
// absence does no I/O and reads no clock; its owner persists it.
type absence struct {
	gcGrace time.Duration
	members int

	AliveUntil time.Time                   `json:"alive_until"` // this node was in service then
	Peers      map[hlc.NodeID]*peerAbsence `json:"peers"`
}

type peerAbsence struct {
	Incarnation string        `json:"incarnation"` // disk of the last contact
	Unseen      time.Duration `json:"unseen_ns"`   // running without contact since then
	Dead        bool          `json:"dead"`
	Table       uint64        `json:"table,omitempty"` // version of the topology when the disk was first met
}

func newAbsence(stored []byte, gcGrace time.Duration, members []hlc.NodeID) (*absence, error) {
	a := &absence{gcGrace: gcGrace, Peers: make(map[hlc.NodeID]*peerAbsence)}
	if len(stored) > 0 {
		if err := json.Unmarshal(stored, a); err != nil {
			return nil, fmt.Errorf("the stored record of absences is malformed: %w", err)
		}
	}
	a.setMembers(members)
	return a, nil
}

// setMembers takes note of all other members; members are only ever added.
func (a *absence) setMembers(members []hlc.NodeID) {
	a.members = len(members) + 1
	for _, id := range members {
		if a.Peers[id] == nil {
			a.Peers[id] = new(peerAbsence)
		}
	}
}

func (a *absence) encode() []byte {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // plain fields cannot fail
	}
	return b
}

// alive notes that this node is in service at this moment.
func (a *absence) alive(now time.Time) { a.AliveUntil = now }

// tick accounts for a time that this node has been running, given the members
// that were in contact.
func (a *absence) tick(elapsed time.Duration, inContact func(hlc.NodeID) bool) (died []hlc.NodeID) {
	contacts := 1
	for id := range a.Peers {
		if inContact(id) {
			contacts++
		}
	}
	for id, p := range a.Peers {
		if inContact(id) {
			p.Unseen = 0
			continue
		}
		p.Unseen += elapsed
		if p.Unseen > a.gcGrace && !p.Dead && 2*contacts > a.members {
			p.Dead = true
			died = append(died, id)
		}
	}
	return died
}

// refusal says why the member with this disk must not take part, if so. A disk that
// succeeds the one that was known has been filled since it came empty; any other one
// that does not come empty is not what the member should have.
func (a *absence) refusal(id hlc.NodeID, incarnation, state string, succeeds bool) (text string, refused bool) {
	p := a.Peers[id]
	switch {
	case p == nil || p.Incarnation == "":
		return "", false
	case p.Incarnation == incarnation && p.Dead:
		return fmt.Sprintf("%v was away for longer than gc_grace (%v) while the others went on: deletes made meanwhile may be forgotten by now, so its data could bring deleted keys back", id, a.gcGrace), true
	case p.Incarnation != incarnation && state != StateJoining && !succeeds:
		return fmt.Sprintf("%v comes back with another data directory (%.8s, it had %.8s), not as an empty one: it was copied, restored or mixed up", id, incarnation, p.Incarnation), true
	}
	return "", false
}

// succeeds reports whether a disk of a member came after the one of the last
// contact: it says that it replaces that one, or a later version of the topology
// than that of the contact names it. An old disk that is put back does neither.
func (a *absence) succeeds(id hlc.NodeID, incarnation, replaces, named string, version uint64) bool {
	p := a.Peers[id]
	return p != nil && (replaces != "" && replaces == p.Incarnation || named == incarnation && version > p.Table)
}

// contact notes that a member was accepted, and tells whether it has another
// disk than before.
func (a *absence) contact(id hlc.NodeID, incarnation string, version uint64) (changed bool) {
	p := a.Peers[id]
	if p == nil {
		return false
	}
	changed = p.Incarnation != incarnation
	if changed {
		p.Table = version
	}
	*p = peerAbsence{Incarnation: incarnation, Table: p.Table}
	return changed
}

// awayFor is how long this node itself was not running before now.
func (a *absence) awayFor(now time.Time) time.Duration {
	if a.AliveUntil.IsZero() {
		return 0
	}
	return now.Sub(a.AliveUntil)
}
