package coordinator

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"syntropy/hlc"
	"syntropy/lww"
)

// TestScripts runs testdata/*.txt: requests, message by message. Run with
// -rewrite to accept what they print now.
//
//	cluster [self=n1] [wall=100] [bound=50]   lines of a shard's replicas: n1 n2 n3
//	down n3 / up n3
//	hold                   lines of: n1 n2 KEY VALUE|- @STAMP [expires=MS] [touched=STAMP]
//	write [level=quorum]   lines of: put KEY VALUE [expires=MS] | delete KEY |
//	                       touch KEY as=n1 expires=MS   (as n1 holds it now)
//	read [level=quorum]    lines of: KEY
//	deliver n1 [cut=1]     the oldest message to n1 arrives, and its answer too
//	mute n1                it arrives, but the answer is lost
//	lose n1                it does not arrive
//	reject n1 REASON       it arrives and is refused
//	expire                 the deadline passes
//	show                   what the replicas hold
//
// A key is in the shard that its first letter names: "b..." in shard 1, and so
// on, all others in shard 0.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			var s *script
			datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
				if d.Cmd == "cluster" {
					s = newScript(t, d)
					return ""
				}
				s.out.Reset()
				s.step(t, d)
				s.progress()
				return s.out.String()
			})
		})
	}
}

type script struct {
	out      strings.Builder
	self     hlc.NodeID
	clock    manualClock
	shards   [][]hlc.NodeID
	replicas map[hlc.NodeID]replica
	down     map[hlc.NodeID]bool

	write   *Write
	read    *Read
	keys    [][]byte
	sends   []Send // on their way: of the write, or repairs of the read
	asks    []Ask
	told    bool
	dropped bool
}

func newScript(t *testing.T, d *datadriven.TestData) *script {
	s := &script{replicas: make(map[hlc.NodeID]replica), down: make(map[hlc.NodeID]bool)}
	self, wall, bound := "n1", 100, 50
	d.MaybeScanArgs(t, "self", &self)
	d.MaybeScanArgs(t, "wall", &wall)
	d.MaybeScanArgs(t, "bound", &bound)
	s.self = nodeID(t, d, self)
	s.clock = manualClock{wall: hlc.Stamp(wall), bound: hlc.Stamp(bound)}
	for line := range strings.Lines(d.Input) {
		var shard []hlc.NodeID
		for _, f := range strings.Fields(line) {
			id := nodeID(t, d, f)
			shard = append(shard, id)
			s.replicas[id] = replica{}
		}
		s.shards = append(s.shards, shard)
	}
	return s
}

func nodeID(t *testing.T, d *datadriven.TestData, text string) hlc.NodeID {
	id, err := hlc.ParseNodeID(text)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return id
}

func number(t *testing.T, d *datadriven.TestData, text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return n
}

func (s *script) place() Placement {
	return Placement{
		Self: s.self,
		Shard: func(key []byte) int {
			if n := int(key[0] - 'a'); n < len(s.shards) {
				return n
			}
			return 0
		},
		Replicas: func(shard int) []hlc.NodeID { return s.shards[shard] },
		May:      func(id hlc.NodeID) bool { return !s.down[id] },
	}
}

func (s *script) step(t *testing.T, d *datadriven.TestData) {
	var node hlc.NodeID
	if len(d.CmdArgs) > 0 && len(d.CmdArgs[0].Vals) == 0 {
		node = nodeID(t, d, d.CmdArgs[0].Key)
	}
	switch d.Cmd {
	case "down", "up":
		s.down[node] = d.Cmd == "down"
	case "hold":
		for line := range strings.Lines(d.Input) {
			s.hold(t, d, strings.Fields(line))
		}
	case "write":
		s.startWrite(t, d)
	case "read":
		s.startRead(t, d)
	case "deliver", "mute", "lose", "reject":
		s.message(t, d, node)
	case "expire":
		if s.write != nil {
			s.write.Expire()
		} else {
			s.read.Expire()
		}
		s.sends, s.asks = nil, nil
	case "hurry":
		s.read.Hurry()
	case "show":
		s.show()
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
}

func (s *script) hold(t *testing.T, d *datadriven.TestData, fields []string) {
	var to []hlc.NodeID
	for fields[0][0] == 'n' && len(fields[0]) == 2 {
		to, fields = append(to, nodeID(t, d, fields[0])), fields[1:]
	}
	e := value(fields[0], fields[1], hlc.Stamp(number(t, d, fields[2][1:])), 9)
	if fields[1] == "-" {
		e.Tombstone, e.Value = true, nil
	}
	for _, f := range fields[3:] {
		name, text, _ := strings.Cut(f, "=")
		switch n := number(t, d, text); name {
		case "expires":
			e.Expires = int64(n)
			e.ExpiryStamp, e.ExpiryNode = e.Stamp, 9
		case "touched":
			e.ExpiryStamp, e.ExpiryNode = hlc.Stamp(n), 9
		}
	}
	for _, id := range to {
		s.replicas[id][fields[0]] = e
	}
}

func level(t *testing.T, d *datadriven.TestData) Level {
	name := "quorum"
	d.MaybeScanArgs(t, "level", &name)
	l, err := ParseLevel(name)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return l
}

func (s *script) startWrite(t *testing.T, d *datadriven.TestData) {
	s.write, s.read, s.sends, s.asks, s.told, s.dropped = nil, nil, nil, nil, false, false
	var ms []Mutation
	for line := range strings.Lines(d.Input) {
		fields := strings.Fields(line)
		m := put(fields[1], "")
		rest := fields[2:]
		switch fields[0] {
		case "put":
			m.Value, rest = []byte(fields[2]), fields[3:]
		case "delete":
			m.Kind, m.Value = Delete, nil
		case "touch":
			m.Kind, m.Value = Touch, nil
		}
		for _, f := range rest {
			switch name, text, _ := strings.Cut(f, "="); name {
			case "as":
				m.Base = s.replicas[nodeID(t, d, text)][fields[1]]
			case "expires":
				m.Expires = int64(number(t, d, text))
			}
		}
		ms = append(ms, m)
	}
	w, err := NewWrite(s.place(), &s.clock, level(t, d), ms)
	if err != nil {
		fmt.Fprintf(&s.out, "refused: %v\n", err)
		return
	}
	s.write = w
}

func (s *script) startRead(t *testing.T, d *datadriven.TestData) {
	s.write, s.read, s.sends, s.asks, s.told = nil, nil, nil, nil, false
	s.keys = nil
	for line := range strings.Lines(d.Input) {
		s.keys = append(s.keys, []byte(strings.TrimSpace(line)))
	}
	r, err := NewRead(s.place(), digest, level(t, d), s.keys)
	if err != nil {
		fmt.Fprintf(&s.out, "refused: %v\n", err)
		return
	}
	s.read = r
}

var errLost = errors.New("the connection was lost")

// message carries the oldest message to a node.
func (s *script) message(t *testing.T, d *datadriven.TestData, node hlc.NodeID) {
	if n := slices.IndexFunc(s.asks, func(a Ask) bool { return a.To == node }); n >= 0 {
		a := s.asks[n]
		s.asks = slices.Delete(s.asks, n, n+1)
		if d.Cmd != "deliver" {
			s.read.Failed(a, errLost)
			return
		}
		cut := len(a.Full)
		d.MaybeScanArgs(t, "cut", &cut)
		ans := s.replicas[node].lookup(a, s.keys, cut)
		for _, f := range ans.Entries {
			if f.OK {
				fmt.Fprintf(&s.out, "<- %v: %s\n", node, entryText(f.Entry))
			} else {
				fmt.Fprintf(&s.out, "<- %v: nothing\n", node)
			}
		}
		for _, g := range ans.Digests {
			fmt.Fprintf(&s.out, "<- %v: digest %.8s\n", node, map[bool]string{true: g.Sum.String(), false: "of nothing"}[g.OK])
		}
		s.read.Answered(a, ans)
		return
	}
	n := slices.IndexFunc(s.sends, func(m Send) bool { return m.To == node })
	if n < 0 {
		d.Fatalf(t, "there is no message to %v", node)
	}
	m := s.sends[n]
	s.sends = slices.Delete(s.sends, n, n+1)
	var answers []Answer
	switch d.Cmd {
	case "deliver", "mute":
		answers = s.replicas[node].apply(m)
	case "reject":
		for range m.Entries {
			answers = append(answers, Answer{Outcome: Rejected, Reason: d.CmdArgs[1].String()})
		}
	}
	switch {
	case d.Cmd == "lose" || d.Cmd == "mute":
		if s.write != nil {
			s.write.Failed(m, errLost)
		} else {
			s.read.Repaired(m, errLost)
		}
		return
	case s.write != nil:
		s.write.Answered(m, answers)
	default:
		s.read.Repaired(m, nil)
	}
	for i, a := range answers {
		fmt.Fprintf(&s.out, "<- %v: %s %v", node, m.Entries[i].Key, a.Outcome)
		if a.Outcome == Shadowed {
			fmt.Fprintf(&s.out, " by %s", versionText(a.Version))
		}
		s.out.WriteString("\n")
	}
}

// progress prints what the request wants and says after a step.
func (s *script) progress() {
	if w := s.write; w != nil {
		for _, m := range w.Sends() {
			fmt.Fprintf(&s.out, "-> %v: %s\n", m.To, entriesText(m.Entries))
			s.sends = append(s.sends, m)
		}
		if done, err := w.Done(); done && !s.told {
			s.told = true
			if err != nil {
				fmt.Fprintf(&s.out, "done: %v\n", err)
			} else {
				fmt.Fprintf(&s.out, "done: %v\n", w.Results())
			}
		}
		for _, h := range w.Hints() {
			fmt.Fprintf(&s.out, "hint for %v: %s\n", h.To, entriesText(h.Entries))
		}
		if w.Finished() && !s.dropped {
			s.dropped = true
			s.out.WriteString("finished\n")
		}
		return
	}
	if s.read == nil {
		return
	}
	for _, a := range s.read.Asks() {
		fmt.Fprintf(&s.out, "-> %v: round %d, full %s, digest %s\n", a.To, a.Round, s.keyNames(a.Full), s.keyNames(a.Digest))
		s.asks = append(s.asks, a)
	}
	for _, m := range s.read.Repairs() {
		fmt.Fprintf(&s.out, "-> %v: repair %s\n", m.To, entriesText(m.Entries))
		s.sends = append(s.sends, m)
	}
	done, err := s.read.Done()
	if !done || s.told {
		return
	}
	s.told = true
	if err != nil {
		fmt.Fprintf(&s.out, "done: %v\n", err)
		return
	}
	for i := range s.keys[:s.read.Prefix()] {
		if e, ok := s.read.Entry(i); ok {
			fmt.Fprintf(&s.out, "done: %s\n", entryText(e))
		} else {
			fmt.Fprintf(&s.out, "done: %s not found\n", s.keys[i])
		}
	}
	for _, key := range s.keys[s.read.Prefix():] {
		fmt.Fprintf(&s.out, "left out: %s\n", key)
	}
}

func (s *script) keyNames(index []int) string {
	names := make([]string, len(index))
	for n, i := range index {
		names[n] = string(s.keys[i])
	}
	return "[" + strings.Join(names, " ") + "]"
}

func (s *script) show() {
	var ids []hlc.NodeID
	for id := range s.replicas {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		var entries []lww.Entry
		for _, key := range sortedKeys(s.replicas[id]) {
			entries = append(entries, s.replicas[id][key])
		}
		fmt.Fprintf(&s.out, "%v holds %s\n", id, entriesText(entries))
	}
}
