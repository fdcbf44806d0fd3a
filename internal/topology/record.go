package topology

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"syntropy/hlc"
)

// recordFormat is the version of the stored form of a Record.
const recordFormat = 1

const (
	// MaxMembers bounds a cluster. Every member keeps a connection to every other
	// one, so larger clusters would be slow long before they were impossible.
	MaxMembers = 64
	// maxZoneBytes is more than any name for a rack or a data centre needs, and
	// keeps tables and error texts short.
	maxZoneBytes = 64
)

// Secret keys the digests of a cluster. It prints as "(secret)"; only its JSON
// form, which is what is stored and sent to members, reveals it.
type Secret [32]byte

// String hides the secret from logs and error texts.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "(secret)" }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(hex.EncodeToString(s[:])) }

// UnmarshalJSON implements json.Unmarshaler.
func (s *Secret) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("secret is not a string")
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(s) {
		return fmt.Errorf("secret is not %d bytes in hex", len(s))
	}
	copy(s[:], raw)
	return nil
}

// Member is one node of a cluster.
type Member struct {
	ID   hlc.NodeID `json:"id"`
	Addr string     `json:"addr"` // peer address, host:port
	// Founder is, in a Record, the incarnation that took part in creating the
	// cluster under this address; a member with another one has lost its disk
	// since, or was named by hand before it had one (then Founder is empty). In a
	// Table it is the incarnation that the member has now.
	Founder string `json:"founder,omitempty"`
	// Zone is where the node is, in the operator's words: the replicas of a shard
	// are put into as many zones as there are. Empty is a zone like any other.
	Zone string `json:"zone,omitempty"`
}

// String prints the member the way people write it: "n1 (10.0.0.1:7101)".
func (m Member) String() string { return fmt.Sprintf("%v (%s)", m.ID, m.Addr) }

// Record is what every node of a cluster agrees on. It is created once and not
// changed; share it freely, but do not modify it.
type Record struct {
	Format    int       `json:"format"`
	Version   uint64    `json:"version"` // of the member set
	ClusterID string    `json:"cluster_id"`
	Secret    Secret    `json:"secret"`
	Created   time.Time `json:"created"`
	Settings  Settings  `json:"settings"`
	Members   []Member  `json:"members"` // by ID
}

// NewRecord makes the record of a new cluster. Members get the ids n1, n2, ...
// in the order of their host and then their port as a number, so everybody can
// tell beforehand who is who.
func NewRecord(settings Settings, addrs []string, rand io.Reader, now time.Time) (*Record, error) {
	r := &Record{
		Format:   recordFormat,
		Version:  1,
		Created:  now.UTC().Truncate(time.Millisecond),
		Settings: settings,
	}
	for _, addr := range sortedAddrs(addrs) {
		r.Members = append(r.Members, Member{ID: hlc.NodeID(len(r.Members) + 1), Addr: addr})
	}
	var id [16]byte
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return nil, fmt.Errorf("making a cluster id: %w", err)
	}
	if _, err := io.ReadFull(rand, r.Secret[:]); err != nil {
		return nil, fmt.Errorf("making a cluster secret: %w", err)
	}
	r.ClusterID = hex.EncodeToString(id[:])
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// NewLoneRecord makes the record of a cluster of one.
func NewLoneRecord(settings Settings, me Identity, rand io.Reader, now time.Time) (*Record, error) {
	r, err := NewRecord(settings, []string{me.Addr}, rand, now)
	if err != nil {
		return nil, err
	}
	r.Members[0].Founder, r.Members[0].Zone = me.Incarnation, me.Zone
	return r, r.Validate()
}

// ParseRecord reads the JSON form and validates it.
func ParseRecord(b []byte) (*Record, error) {
	if err := checkFormat(b, recordFormat, "cluster record"); err != nil {
		return nil, err
	}
	r := new(Record)
	if err := unmarshalStrict(b, r); err != nil {
		return nil, fmt.Errorf("unreadable cluster record: %w", err)
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("invalid cluster record: %w", err)
	}
	return r, nil
}

// Validate reports what no record may hold.
func (r *Record) Validate() error {
	if r.Format != recordFormat {
		return fmt.Errorf("format is %d, this program knows %d", r.Format, recordFormat)
	}
	if !isHex128(r.ClusterID) {
		return fmt.Errorf("cluster id %q is not 16 bytes in hex", r.ClusterID)
	}
	if r.Secret == (Secret{}) {
		return errors.New("the secret is missing")
	}
	if err := checkMembers(r.Members); err != nil {
		return err
	}
	return r.Settings.Validate()
}

func checkMembers(members []Member) error {
	if len(members) == 0 || len(members) > MaxMembers {
		return fmt.Errorf("%d members: a cluster has 1 to %d", len(members), MaxMembers)
	}
	addrs := make(map[string]hlc.NodeID)
	for i, m := range members {
		if err := checkAddr(m.Addr); err != nil {
			return err
		}
		if m.ID == 0 || i > 0 && m.ID <= members[i-1].ID {
			return fmt.Errorf("member ids must be above zero and ascending: %v is out of place", m)
		}
		if other, ok := addrs[m.Addr]; ok {
			return fmt.Errorf("%v and %v have one address, %s", other, m.ID, m.Addr)
		}
		addrs[m.Addr] = m.ID
		if m.Founder != "" && !isHex128(m.Founder) {
			return fmt.Errorf("founder %q of %v is not 16 bytes in hex", m.Founder, m.ID)
		}
		if err := checkZone(m.Zone); err != nil {
			return err
		}
	}
	return nil
}

// Fingerprint identifies the whole record in 16 bytes of hex. It is keyed with
// the secret, so it proves knowledge of the secret and reveals nothing of it.
func (r *Record) Fingerprint() string {
	open := *r
	open.Secret = Secret{}
	canonical, err := json.Marshal(open)
	if err != nil {
		panic(err) // a Record holds nothing that JSON cannot express
	}
	mac := hmac.New(sha256.New, r.Secret[:])
	mac.Write(canonical)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Member returns the member with that id.
func (r *Record) Member(id hlc.NodeID) (Member, bool) {
	return r.find(func(m Member) bool { return m.ID == id })
}

// MemberByAddr returns the member with that peer address.
func (r *Record) MemberByAddr(addr string) (Member, bool) {
	return r.find(func(m Member) bool { return m.Addr == addr })
}

// IsFounder reports whether that disk founded the cluster under its address. If
// not, it replaced another one and may lack what that one acknowledged: unless it
// has been rebuilt since, which only its store knows, it must not serve reads.
// The answer survives restarts, so a crash right after the record was saved does
// not turn an empty disk into a good one.
func (r *Record) IsFounder(id Identity) bool {
	m, ok := r.MemberByAddr(id.Addr)
	return ok && m.Founder == id.Incarnation
}

func (r *Record) find(match func(Member) bool) (Member, bool) {
	if i := slices.IndexFunc(r.Members, match); i >= 0 {
		return r.Members[i], true
	}
	return Member{}, false
}

// membersText lists members for error texts.
func membersText(members []Member) string {
	parts := make([]string, len(members))
	for i, m := range members {
		parts[i] = m.String()
	}
	return strings.Join(parts, ", ")
}

// sortedAddrs orders by host and then by port as a number: 7102 before 17101.
func sortedAddrs(addrs []string) []string {
	sorted := slices.Clone(addrs)
	slices.SortFunc(sorted, func(a, b string) int {
		hostA, portA := splitAddr(a)
		hostB, portB := splitAddr(b)
		return cmp.Or(strings.Compare(hostA, hostB), cmp.Compare(portA, portB))
	})
	return sorted
}

func splitAddr(addr string) (host string, port int) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, 0
	}
	port, _ = strconv.Atoi(text)
	return host, port
}

func checkAddr(addr string) error {
	if host, port := splitAddr(addr); host == "" || port < 1 || port > 65535 {
		return fmt.Errorf("%q is not a peer address: give host:port, such as 10.0.0.1:7101", addr)
	}
	return nil
}

func checkZone(zone string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(zone) > maxZoneBytes || strings.ContainsFunc(zone, odd) {
		return fmt.Errorf("%.100q is not a zone: give up to %d letters, digits and signs, without spaces", zone, maxZoneBytes)
	}
	return nil
}

func isHex128(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == 16
}

// checkFormat reads nothing but the format, since the rest of a newer form
// may not even parse.
func checkFormat(b []byte, known int, what string) error {
	var head struct{ Format int }
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("unreadable %s: %w", what, err)
	}
	if head.Format > known {
		return fmt.Errorf("the %s has format %d, this program knows formats up to %d: it was written by a newer version; run that one", what, head.Format, known)
	}
	if head.Format < 1 {
		return fmt.Errorf("unreadable %s: it has no format number", what)
	}
	return nil
}

// unmarshalStrict refuses unknown fields: a field that this program does not
// know may change what the others mean, and would be lost on writing.
func unmarshalStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("there is more after the end")
	}
	return nil
}
