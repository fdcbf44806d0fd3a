package antientropy

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/ring"
	"syntropy/storage"
)

// TestScripts runs testdata/*.txt: conversations of two replicas, a and b, with
// every message printed. Run with -rewrite to accept what they print now.
//
//	replicas [shards=1] [leaf-a=2] [leaf-b=2] [tokens=equal|neighbours]
//	entries              lines of:
//	  write a b KEY VALUE @SECOND [nN]
//	  delete a b KEY @SECOND [nN]
//	  expire a b KEY at=SECOND @SECOND [nN]
//	  fill a b PREFIX COUNT @SECOND
//	session now=SECOND [settle=10s] [list-max=16] [shards=0,1] [dry-run] [brief]
//	        [message-bytes=N] [partner-bytes=N] [fail-a] [fail-b]
//	refused code=busy text=...   the partner takes part in no session
//	open [protocol=N] [digests=N] [cluster-shards=N]   a foreign first message
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			var s script
			datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
				switch d.Cmd {
				case "replicas":
					return s.replicas(t, d)
				case "entries":
					return s.entries(t, d)
				case "session":
					return s.session(t, d)
				case "refused":
					return s.refused(t, d)
				case "open":
					return s.open(t, d)
				}
				d.Fatalf(t, "unknown command %q", d.Cmd)
				return ""
			})
		})
	}
}

type script struct{ a, b replica }

func (s *script) replicas(t *testing.T, d *datadriven.TestData) string {
	shards, leafA, leafB, tokens := 1, 0, 0, ""
	d.MaybeScanArgs(t, "shards", &shards)
	d.MaybeScanArgs(t, "leaf-a", &leafA)
	d.MaybeScanArgs(t, "leaf-b", &leafB)
	if d.MaybeScanArgs(t, "tokens", &tokens) {
		of := map[string]func([]byte) ring.Token{
			"equal": func([]byte) ring.Token { return 0x123456789abcdef },
			"neighbours": func(key []byte) ring.Token {
				return 0x123456789abcd00 + ring.Token(key[len(key)-1])%4
			},
		}[tokens]
		s.a = &mapReplica{make(map[string]lww.Entry), shards, of}
		s.b = &mapReplica{make(map[string]lww.Entry), shards, of}
		return ""
	}
	s.a = newStore(t, storage.Options{Shards: shards, LeafLevel: leafA})
	s.b = newStore(t, storage.Options{Shards: shards, LeafLevel: leafB})
	return ""
}

func (s *script) entries(t *testing.T, d *datadriven.TestData) string {
	for line := range strings.Lines(d.Input) {
		fields := strings.Fields(line)
		verb, fields := fields[0], fields[1:]
		var to []replica
		for len(fields) > 0 && (fields[0] == "a" || fields[0] == "b") {
			to = append(to, map[string]replica{"a": s.a, "b": s.b}[fields[0]])
			fields = fields[1:]
		}
		v := lww.Version{Node: 1}
		var words []string
		var expires int
		for _, f := range fields {
			switch {
			case f[0] == '@':
				v.Stamp = second(number(t, d, f[1:]))
			case f[0] == 'n' && len(f) == 2:
				v.Node = hlc.NodeID(number(t, d, f[1:]))
			case strings.HasPrefix(f, "at="):
				expires = number(t, d, f[3:])
			default:
				words = append(words, f)
			}
		}
		key := []byte(words[0])
		for _, r := range to {
			var entries []lww.Entry
			switch verb {
			case "write":
				entries = []lww.Entry{{Key: key, Value: []byte(words[1]), Version: v}}
			case "delete":
				v.Tombstone = true
				entries = []lww.Entry{{Key: key, Version: v}}
			case "expire":
				e, ok := allRows(t, r.view())[words[0]]
				if !ok {
					d.Fatalf(t, "no key %q to expire", key)
				}
				e.ExpiryStamp, e.ExpiryNode, e.Expires = v.Stamp, v.Node, second(expires).Time().UnixMilli()
				entries = []lww.Entry{e}
			case "fill":
				for i := range number(t, d, words[1]) {
					entries = append(entries, lww.Entry{Key: fmt.Appendf(nil, "%s%04d", key, i), Value: []byte("filled"), Version: v})
				}
			default:
				d.Fatalf(t, "unknown line %q", line)
			}
			if err := r.apply(entries); err != nil {
				d.Fatalf(t, "%s: %v", line, err)
			}
		}
	}
	return fmt.Sprintf("a holds %d, b holds %d\n", len(allRows(t, s.a.view())), len(allRows(t, s.b.view())))
}

func number(t *testing.T, d *datadriven.TestData, text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return n
}

// session runs a session from a to b and prints it as it goes.
func (s *script) session(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	var now int
	var settle string
	run := session{a: s.a, b: s.b}
	d.ScanArgs(t, "now", &now)
	run.cfg.Now = second(now)
	if d.MaybeScanArgs(t, "settle", &settle) {
		var err error
		if run.cfg.Settle, err = time.ParseDuration(settle); err != nil {
			d.Fatalf(t, "%v", err)
		}
	}
	d.MaybeScanArgs(t, "list-max", &run.cfg.ListMax)
	d.MaybeScanArgs(t, "message-bytes", &run.cfg.MessageBytes)
	d.MaybeScanArgs(t, "partner-bytes", &run.partnerBytes)
	if arg, ok := d.Arg("shards"); ok {
		for shard := range strings.SplitSeq(arg.Vals[0], ",") {
			run.cfg.Shards = append(run.cfg.Shards, number(t, d, shard))
		}
	}
	run.cfg.DryRun = d.HasArg("dry-run")
	brief := d.HasArg("brief")
	failing := func([]lww.Entry) error { return errors.New("the disk is full") }
	if d.HasArg("fail-a") {
		run.applyA = failing
	}
	if d.HasArg("fail-b") {
		run.applyB = failing
	}
	run.tamper = func(_ int, toPartner bool, msg []byte) []byte {
		arrow := "<- "
		if toPartner {
			arrow = "-> "
		}
		out.WriteString(arrow + describe(msg, brief))
		return msg
	}
	if !brief {
		run.cfg.Compared = func(c Comparison) {
			fmt.Fprintf(&out, "   compare %s: %d and %d: %s\n", nodeText(c.Shard, c.Node), c.Initiator.Count, c.Partner.Count, c.Then)
		}
		run.cfg.Found = func(f Difference) {
			fmt.Fprintf(&out, "   differs %s: a %s; b %s: %s (%s)\n", f.Key, sideText(f.Initiator), sideText(f.Partner), f.Action, f.Reason)
		}
	}
	report, err := run.run(t)
	if err != nil {
		fmt.Fprintf(&out, "error: %v\n", err)
	}
	if run.partnerErr != nil {
		fmt.Fprintf(&out, "partner's error: %v\n", run.partnerErr)
	}
	out.WriteString(reportText(report))
	fmt.Fprintf(&out, "the replicas are equal: %v\n", equalReplicas(t, s.a, s.b))
	return out.String()
}

func sideText(s *Side) string {
	if s == nil {
		return "nothing"
	}
	return versionText(s.Version, fmt.Sprintf("%d bytes", s.ValueBytes))
}

func reportText(r Report) string {
	return fmt.Sprintf("report: complete %v, %d of %d shards equal, %d rounds, %d bytes sent, %d received\n"+
		"        %d diverged, %d pulled, %d pushed, %d in flight\n",
		r.Complete, r.ShardsEqual, r.Shards, r.Rounds, r.BytesSent, r.BytesReceived,
		r.Diverged, r.Pulled, r.Pushed, r.InFlight)
}

// refused shows what an initiator makes of a partner that is busy.
func (s *script) refused(t *testing.T, d *datadriven.TestData) string {
	var code string
	d.ScanArgs(t, "code", &code)
	text := strings.TrimSpace(d.Input)
	init := NewInitiator(s.a.view(), Config{Now: second(0)})
	msg, err := init.Next()
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	reply := Refuse(code, text)
	_, err = init.Receive(reply)
	var refused *RefusedError
	if !errors.As(err, &refused) {
		d.Fatalf(t, "%v is no refusal", err)
	}
	next, nextErr := init.Next()
	return "-> " + describe(msg, false) + "<- " + describe(reply, false) +
		fmt.Sprintf("error: %v\n", err) + reportText(init.Report()) +
		fmt.Sprintf("next message: %v, %v\n", next, nextErr)
}

// open shows what a partner makes of a first message that it cannot accept.
func (s *script) open(t *testing.T, d *datadriven.TestData) string {
	m := openMessage{protocol: protocolVersion, digestVersion: 1, shards: s.b.view().Shards()}
	var protocol, digests int
	if d.MaybeScanArgs(t, "protocol", &protocol) {
		m.protocol = byte(protocol)
	}
	if d.MaybeScanArgs(t, "digests", &digests) {
		m.digestVersion = byte(digests)
	}
	d.MaybeScanArgs(t, "cluster-shards", &m.shards)
	if arg, ok := d.Arg("only"); ok {
		m.only = []int{}
		for shard := range strings.SplitSeq(arg.Vals[0], ",") {
			m.only = append(m.only, number(t, d, shard))
		}
	}
	resp := NewResponder(s.b.view())
	msg := m.append(nil)
	apply, err := resp.Receive(msg)
	if len(apply) > 0 {
		d.Fatalf(t, "entries in the first message")
	}
	reply := resp.Reply(nil)
	again, againErr := resp.Receive(slices.Clone(msg))
	return "-> " + describe(msg, false) + "<- " + describe(reply, false) +
		fmt.Sprintf("partner's error: %v, done: %v\n", err, resp.Done()) +
		fmt.Sprintf("the same again: %d entries, %v\n", len(again), againErr)
}
