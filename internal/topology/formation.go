package topology

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Identity names one disk at one peer address.
type Identity struct {
	Incarnation string
	Addr        string
	Zone        string // where the node is; see Member
}

// String prints address and the start of the incarnation, which is enough to
// tell two disks apart.
func (i Identity) String() string {
	return fmt.Sprintf("%s (disk %.8s)", i.Addr, i.Incarnation)
}

// MeetRequest is what a node says of itself when it meets another.
type MeetRequest struct {
	Me       Identity
	Expect   int        // how many nodes form the cluster
	Settings Settings   // of the cluster to be
	View     []Identity // whom it knows, itself included, by incarnation
	Frozen   bool       // the view is complete and will not change
}

// MeetReply is the answer to a MeetRequest.
type MeetReply struct {
	Mine    MeetRequest // what the one who answers says of itself
	Formed  *Formed     // it is in a cluster already
	Refusal string      // why the asker cannot take part; final, for people
}

// Formed tells of an existing cluster.
type Formed struct {
	ClusterID string
	Members   []Member
	Record    *Record // only for an asker at a member's address
	Table     *Table  // the same; nil if the one who answers knows none yet
}

// AdoptRequest is the leader's offer of a new record.
type AdoptRequest struct {
	From   Identity
	Record *Record
}

// ErrNotReady refuses an offer for now: the node does not know all members yet.
var ErrNotReady = errors.New("not ready: this node does not know all members yet")

// Formation is the state of one node on its way into a cluster, and afterwards:
// a node in a cluster keeps answering. It does no I/O and knows no time, and is
// not safe for concurrent use; see Registrar.
type Formation struct {
	me       Identity
	expect   int
	settings Settings
	known    []Identity      // by incarnation; frozen when there are expect of them
	agreed   map[string]bool // incarnations that reported exactly our frozen view
	record   *Record

	// A node that forms no cluster, and is no member of the one it asked.
	given   func(flag string) bool // settings that the user gave; nil: all
	foreign string                 // cluster id
	doors   []string               // addresses of members, which may let it in
}

// NewFormation starts at a node that knows only itself, or that is in the
// cluster of record already (then expect and settings are not used). With expect
// zero the node forms no cluster; it waits for one that exists, of which it is a
// member that lost its disk, or which is to take it in: see Doors.
func NewFormation(me Identity, expect int, settings Settings, record *Record) (*Formation, error) {
	if err := checkIdentity(me); err != nil {
		return nil, err
	}
	f := &Formation{me: me, expect: expect, settings: settings, record: record, known: []Identity{me}, agreed: make(map[string]bool)}
	if record != nil {
		f.expect, f.settings = len(record.Members), record.Settings
		return f, nil
	}
	if expect < 0 || expect > MaxMembers {
		return nil, fmt.Errorf("a cluster of %d nodes: give 1 to %d, or 0 to join an existing one", expect, MaxMembers)
	}
	return f, settings.Validate()
}

// Request returns what this node says when it meets another.
func (f *Formation) Request() MeetRequest {
	return MeetRequest{Me: f.me, Expect: f.expect, Settings: f.settings, View: slices.Clone(f.known), Frozen: f.frozen()}
}

// Addrs returns the addresses learnt so far, this node's excluded.
func (f *Formation) Addrs() []string {
	var addrs []string
	for _, id := range f.known {
		if id != f.me {
			addrs = append(addrs, id.Addr)
		}
	}
	return sortedAddrs(addrs)
}

// Meet answers a node that introduces itself. One that cannot take part is told
// so and changes nothing here: a mistaken newcomer must not stop the others.
// table is the newest that this node knows, or nil.
func (f *Formation) Meet(req MeetRequest, table *Table) MeetReply {
	reply := MeetReply{}
	if f.record == nil {
		if err := f.learn(req); err != nil {
			reply.Refusal = err.Error()
		}
	} else {
		reply.Formed = &Formed{ClusterID: f.record.ClusterID, Members: membersOf(f.record, table)}
		if _, ok := memberAt(f.record, table, req.Me.Addr); ok {
			reply.Formed.Record, reply.Formed.Table = f.record, table
		} else if req.Expect != 0 { // else it may ask to be let in
			reply.Refusal = strangerText(reply.Formed, req.Me.Addr)
		}
	}
	reply.Mine = f.Request() // after learning, so that the asker hears of it at once
	return reply
}

// membersOf returns a copy of the present members: a table, if there is one, is
// never older than the record.
func membersOf(r *Record, t *Table) []Member {
	if t != nil {
		return slices.Clone(t.Members)
	}
	return slices.Clone(r.Members)
}

func memberAt(r *Record, t *Table, addr string) (Member, bool) {
	members := membersOf(r, t)
	if i := slices.IndexFunc(members, func(m Member) bool { return m.Addr == addr }); i >= 0 {
		return members[i], true
	}
	return Member{}, false
}

func strangerText(formed *Formed, addr string) string {
	return fmt.Sprintf("cluster %s already consists of %s, and %s is not in it: to add this node, start it with --join and without --bootstrap-expect",
		formed.ClusterID, membersText(formed.Members), addr)
}

// Met takes in the answer of the node at addr. When that node brought the record
// of a cluster that this node belongs to, the record is returned: the caller
// makes it durable and calls Commit. An error is final.
func (f *Formation) Met(addr string, reply MeetReply) (*Record, error) {
	switch {
	case f.record != nil:
		return nil, nil
	case reply.Formed != nil && reply.Formed.Record != nil:
		if err := f.checkFormed(reply.Formed.Record, reply.Formed.Table); err != nil {
			return nil, fmt.Errorf("the node at %s is in a cluster that this node cannot enter: %w", addr, err)
		}
		return reply.Formed.Record, nil
	case reply.Refusal != "":
		return nil, fmt.Errorf("the node at %s refuses this node: %s", addr, reply.Refusal)
	case reply.Formed != nil && f.expect != 0:
		return nil, errors.New(strangerText(reply.Formed, f.me.Addr))
	case reply.Formed != nil:
		return nil, f.knock(addr, reply)
	}
	if err := f.learn(reply.Mine); err != nil {
		return nil, fmt.Errorf("cannot form a cluster with the node at %s: %w", addr, err)
	}
	return nil, nil
}

// knock notes a node that may let this one into its cluster, if that is the one
// that the flags describe.
func (f *Formation) knock(addr string, reply MeetReply) error {
	id := reply.Formed.ClusterID
	if f.foreign != "" && f.foreign != id {
		return fmt.Errorf("the node at %s is in cluster %s, the one at %s in cluster %s: name nodes of one cluster with --join", f.doors[0], f.foreign, addr, id)
	}
	if err := f.checkSettings(reply.Mine.Settings, id); err != nil {
		return fmt.Errorf("the node at %s is in a cluster that this node cannot enter: %w", addr, err)
	}
	f.foreign = id
	if !slices.Contains(f.doors, addr) {
		f.doors = append(f.doors, addr)
	}
	return nil
}

// Doors returns the cluster that this node is to enter as a new member, and the
// addresses at which it has found members; "" as long as there are none.
func (f *Formation) Doors() (clusterID string, addrs []string) {
	return f.foreign, slices.Clone(f.doors)
}

// checkFormed decides whether this node is the member that the record means. Its
// start-up flags must describe that cluster: a difference is a mistake that
// would surface much later.
func (f *Formation) checkFormed(r *Record, t *Table) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if t != nil {
		if err := t.fits(r); err != nil {
			return err
		}
	}
	m, ok := memberAt(r, t, f.me.Addr)
	if !ok {
		return errors.New(strangerText(&Formed{ClusterID: r.ClusterID, Members: membersOf(r, t)}, f.me.Addr))
	}
	if err := m.checkZone(f.me); err != nil {
		return err
	}
	if f.expect != 0 && len(r.Members) != f.expect {
		return fmt.Errorf("this node expects a cluster of %d, cluster %s consists of %s", f.expect, r.ClusterID, membersText(r.Members))
	}
	return f.checkSettings(r.Settings, r.ClusterID)
}

// checkSettings compares the flags with the settings of a cluster. A node that
// takes part in creating one has to know them all; one that comes later takes
// over those that it was not given.
func (f *Formation) checkSettings(of Settings, clusterID string) error {
	given := f.given
	if f.expect != 0 {
		given = nil
	}
	if diff := f.settings.differences(of, "here", "in cluster "+clusterID, given); diff != "" {
		return errors.New("settings differ: " + diff)
	}
	return nil
}

// learn merges what another node says into the view, or explains why the two
// cannot be in one cluster and changes nothing.
func (f *Formation) learn(other MeetRequest) error {
	if len(other.View) > MaxMembers {
		return fmt.Errorf("%s reports %d nodes, a cluster has at most %d", other.Me.Addr, len(other.View), MaxMembers)
	}
	for _, id := range append([]Identity{other.Me}, other.View...) {
		if err := checkIdentity(id); err != nil {
			return err
		}
	}
	if other.Me == f.me {
		return nil // dialled itself, by another name perhaps
	}
	if other.Expect == 0 || f.expect == 0 {
		return nil // one of the two forms no cluster, and waits for one that exists
	}
	if other.Expect != f.expect {
		return fmt.Errorf("%s expects a cluster of %d, %s one of %d: start all with one --bootstrap-expect", f.me.Addr, f.expect, other.Me.Addr, other.Expect)
	}
	if diff := f.settings.differences(other.Settings, "at "+f.me.Addr, "at "+other.Me.Addr, nil); diff != "" {
		return fmt.Errorf("settings differ: %s: start all nodes with the same ones", diff)
	}
	union := slices.Clone(f.known)
	for _, id := range append([]Identity{other.Me}, other.View...) {
		if slices.Contains(union, id) {
			continue
		}
		for _, known := range union {
			if known.Addr == id.Addr && known.Incarnation == id.Incarnation {
				return fmt.Errorf("the node at %s is in zone %q for some and in zone %q for others: if it was started again with another --zone, restart the other nodes, which remember the first", id.Addr, known.Zone, id.Zone)
			}
			if known.Addr == id.Addr {
				return fmt.Errorf("two nodes claim the address %s, disks %.8s and %.8s: give each node a --peer-listen of its own; "+
					"if its data directory was emptied meanwhile, restart the other nodes, which remember the old one", id.Addr, known.Incarnation, id.Incarnation)
			}
			if known.Incarnation == id.Incarnation {
				return fmt.Errorf("the nodes at %s and %s have the same disk %.8s: was a data directory copied? Empty one; "+
					"if the node changed its address, restart the other nodes, which remember the old one", known.Addr, id.Addr, id.Incarnation)
			}
		}
		union = append(union, id)
	}
	if len(union) > f.expect {
		return fmt.Errorf("%d nodes want to form a cluster of %d: %s knows %s; %s knows %s: stop the surplus nodes, or raise --bootstrap-expect on all",
			len(union), f.expect, f.me.Addr, identitiesText(f.known), other.Me.Addr, identitiesText(other.View))
	}
	slices.SortFunc(union, func(a, b Identity) int { return strings.Compare(a.Incarnation, b.Incarnation) })
	f.known = union // a frozen view is full, so the union can only be itself
	if other.Frozen && f.frozen() && slices.Equal(other.View, f.known) {
		f.agreed[other.Me.Incarnation] = true
	}
	return nil
}

func (f *Formation) frozen() bool { return f.expect > 0 && len(f.known) == f.expect }

// Leads reports whether this node is to create the record now: every member
// reported the view of this node, in which it has the lowest incarnation.
func (f *Formation) Leads() bool {
	return f.record == nil && f.frozen() && f.known[0] == f.me && len(f.agreed) == f.expect-1
}

// Found creates the record. The caller makes it durable and calls Commit before
// anybody else sees it, or a crash could let this node create a second one.
func (f *Formation) Found(rand io.Reader, now time.Time) (*Record, error) {
	if !f.Leads() {
		panic("topology: Found without the consent of all members")
	}
	r, err := NewRecord(f.settings, append(f.Addrs(), f.me.Addr), rand, now)
	if err != nil {
		return nil, err
	}
	for _, id := range f.known {
		i := slices.IndexFunc(r.Members, func(m Member) bool { return m.Addr == id.Addr })
		r.Members[i].Founder, r.Members[i].Zone = id.Incarnation, id.Zone
	}
	return r, r.Validate()
}

// Adopt checks the leader's offer. When it returns a record, the caller makes it
// durable, calls Commit and acknowledges. Without record and error this node has
// it already. ErrNotReady asks the leader to come again.
func (f *Formation) Adopt(req AdoptRequest) (*Record, error) {
	if req.Record == nil {
		return nil, errors.New("an offer without a record")
	}
	if err := req.Record.Validate(); err != nil {
		return nil, err
	}
	if f.record != nil {
		if f.record.Fingerprint() != req.Record.Fingerprint() {
			return nil, fmt.Errorf("%s is in cluster %s and cannot adopt the record of cluster %s", f.me.Addr, f.record.ClusterID, req.Record.ClusterID)
		}
		return nil, nil
	}
	if !f.frozen() {
		return nil, ErrNotReady
	}
	if req.From != f.known[0] {
		return nil, fmt.Errorf("%s takes a record only from %v, this one is from %v", f.me.Addr, f.known[0], req.From)
	}
	if len(req.Record.Members) != len(f.known) {
		return nil, fmt.Errorf("the record has the members %s, %s knows %s", membersText(req.Record.Members), f.me.Addr, identitiesText(f.known))
	}
	for _, m := range req.Record.Members {
		if !slices.Contains(f.known, Identity{m.Founder, m.Addr, m.Zone}) {
			return nil, fmt.Errorf("%v of the record is unknown to %s, which knows %s", m, f.me.Addr, identitiesText(f.known))
		}
	}
	if diff := f.settings.differences(req.Record.Settings, "at "+f.me.Addr, "in the record", nil); diff != "" {
		return nil, errors.New("settings differ: " + diff)
	}
	return req.Record, nil
}

// Commit tells that the record is durable here. From now on this node answers
// everybody with it.
func (f *Formation) Commit(r *Record) { f.record = r }

// Record returns the committed record, or nil.
func (f *Formation) Record() *Record { return f.record }

// Waiting says for people what is missing.
func (f *Formation) Waiting() string {
	switch {
	case f.foreign != "":
		return fmt.Sprintf("waiting for cluster %s to take in this node", f.foreign)
	case f.expect == 0:
		return "waiting for a node named by --join that is in a cluster"
	}
	if missing := f.expect - len(f.known); missing > 0 {
		nodes := "nodes"
		if missing == 1 {
			nodes = "node"
		}
		return fmt.Sprintf("waiting for %d more %s: known %s", missing, nodes, identitiesText(f.known))
	}
	if f.known[0] != f.me {
		return fmt.Sprintf("all %d nodes are known; waiting for %s to create the cluster", f.expect, f.known[0].Addr)
	}
	var missing []Identity
	for _, id := range f.known {
		if id != f.me && !f.agreed[id.Incarnation] {
			missing = append(missing, id)
		}
	}
	return fmt.Sprintf("all %d nodes are known; waiting for the consent of %s", f.expect, identitiesText(missing))
}

func checkIdentity(id Identity) error {
	if !isHex128(id.Incarnation) {
		return fmt.Errorf("incarnation %q of %s is not 16 bytes in hex", id.Incarnation, id.Addr)
	}
	return errors.Join(checkAddr(id.Addr), checkZone(id.Zone))
}

func identitiesText(ids []Identity) string {
	addrs := make([]string, len(ids))
	for i, id := range ids {
		addrs[i] = id.Addr
	}
	return strings.Join(sortedAddrs(addrs), ", ")
}
