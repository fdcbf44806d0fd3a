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
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

// TestScripts runs testdata/*.txt: conversations of two replicas, a and b, with
// every message printed. Run with -rewrite to accept what they print now.
//
//	replicas [shards=1] [leaf-keys-a=72] [leaf-keys-b=72] [tokens=equal|neighbours] [weak]
//	entries              lines of:
//	  write a b KEY VALUE @SECOND [nN]
//	  delete a b KEY @SECOND [nN]
//	  expire a b KEY at=SECOND @SECOND [nN]
//	  fill a b PREFIX COUNT @SECOND
//	session now=SECOND [settle=10s] [expected=N] [as-of=SECOND] [shards=0,1] [salt=N]
//	        [textbook] [dry-run] [message-bytes=N] [partner-bytes=N] [fail-a] [fail-b]
//	        [cut=MESSAGES] [lie=NAME] [brief|silent]
//	refused code=busy text=...   the partner takes part in no session
//	open [protocol=N] [digests=1,2] [cluster-shards=N]   a foreign first message
//
// Weak replicas take all entries of one key for the same: their fingerprints are
// of nothing else.
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
	d.MaybeScanArgs(t, "leaf-keys-a", &leafA)
	d.MaybeScanArgs(t, "leaf-keys-b", &leafB)
	if d.MaybeScanArgs(t, "tokens", &tokens) || d.HasArg("weak") {
		of, ok := map[string]func([]byte) ring.Token{
			"equal": func([]byte) ring.Token { return 0x123456789abcdef },
			"neighbours": func(key []byte) ring.Token {
				return 0x123456789abcd00 + ring.Token(key[len(key)-1])%4
			},
			"": ring.NewTokens(testSecret).Of,
		}[tokens]
		if !ok {
			d.Fatalf(t, "unknown tokens %q", tokens)
		}
		a, b := newMap(shards, 4, of), newMap(shards, 4, of)
		if d.HasArg("weak") {
			weak := func(s merkle.Sum) merkle.Sum { return merkle.Sum{Hi: 7 << 3, Lo: s.Lo} }
			a.fingerprint, b.fingerprint = weak, weak
		}
		s.a, s.b = a, b
		return ""
	}
	s.a = newStore(t, storage.Options{Shards: shards, LeafKeys: leafA})
	s.b = newStore(t, storage.Options{Shards: shards, LeafKeys: leafB})
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

func numbers(t *testing.T, d *datadriven.TestData, arg datadriven.CmdArg) (list []int) {
	for n := range strings.SplitSeq(strings.Join(arg.Vals, ","), ",") {
		list = append(list, number(t, d, n))
	}
	return list
}

// session runs a session from a to b and prints it as it goes.
func (s *script) session(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	run := session{a: s.a, b: s.b}
	s.configure(t, d, &run)
	brief, silent := d.HasArg("brief"), d.HasArg("silent")
	printed := describer{brief: brief}
	liar := describer{}
	var lie string
	d.MaybeScanArgs(t, "lie", &lie)
	told := false
	run.tamper = func(_ int, toPartner bool, msg []byte) []byte {
		arrow := "<- "
		if toPartner {
			arrow = "-> "
		}
		if lie != "" {
			msg = liar.rewrite(msg, func(_ *request, r *response, first *differMessage) {
				if told || toPartner || !lies[lie].tell(r, first) {
					return
				}
				told = true
				arrow = "<~ "
			})
		}
		if !silent {
			out.WriteString(arrow + printed.describe(msg))
		}
		return msg
	}
	run.cfg.Compared, run.cfg.Found = func(Comparison) {}, func(Difference) {}
	if !brief && !silent {
		run.cfg.Compared = func(c Comparison) {
			rows := ""
			if run.cfg.Textbook {
				rows = fmt.Sprintf(" %d and %d rows:", c.InitiatorRows, c.PartnerRows)
			}
			fmt.Fprintf(&out, "   compare %s:%s %s\n", nodeText(c.Shard, c.Node), rows, c.Then)
		}
		run.cfg.Found = func(f Difference) {
			fmt.Fprintf(&out, "   differs %s: a %s; b %s: %s (%s)\n", f.Key, sideText(f.Initiator), sideText(f.Partner), f.Action, f.Reason())
		}
	}
	report, err := run.run(t)
	if err != nil {
		fmt.Fprintf(&out, "error: %v\n", err)
	}
	if run.partnerErr != nil {
		fmt.Fprintf(&out, "partner's error: %v\n", run.partnerErr)
	}
	if lie != "" && !told {
		d.Fatalf(t, "the lie %q was not told", lie)
	}
	out.WriteString(reportText(report))
	fmt.Fprintf(&out, "        the partner: done %v, complete %v\n", run.partner.Done(), run.partner.Complete())
	fmt.Fprintf(&out, "the replicas are equal: %v\n", equalReplicas(t, s.a, s.b))
	return out.String()
}

func (s *script) configure(t *testing.T, d *datadriven.TestData, run *session) {
	var now, asOf, salt int
	var settle string
	cfg := &run.cfg
	d.ScanArgs(t, "now", &now)
	cfg.Now = second(now)
	if d.MaybeScanArgs(t, "settle", &settle) {
		var err error
		if cfg.Settle, err = time.ParseDuration(settle); err != nil {
			d.Fatalf(t, "%v", err)
		}
	}
	if d.MaybeScanArgs(t, "as-of", &asOf) {
		cfg.AsOf = second(asOf)
	}
	d.MaybeScanArgs(t, "salt", &salt)
	cfg.Salt = uint8(salt)
	d.MaybeScanArgs(t, "expected", &cfg.Expected)
	d.MaybeScanArgs(t, "message-bytes", &cfg.MessageBytes)
	d.MaybeScanArgs(t, "partner-bytes", &run.partnerBytes)
	d.MaybeScanArgs(t, "cut", &run.cut)
	if arg, ok := d.Arg("shards"); ok {
		cfg.Shards = numbers(t, d, arg)
	}
	cfg.DryRun, cfg.Textbook = d.HasArg("dry-run"), d.HasArg("textbook")
	failing := func([]lww.Entry) error { return errors.New("the disk is full") }
	if d.HasArg("fail-a") {
		run.applyA = failing
	}
	if d.HasArg("fail-b") {
		run.applyB = failing
	}
}

func sideText(s *Side) string {
	if s == nil {
		return "nothing"
	}
	return versionText(s.Version, bytesText(s.ValueBytes))
}

func reportText(r Report) string {
	return fmt.Sprintf("report: complete %v, %d of %d shards equal, %d rounds, %d bytes sent, %d received\n"+
		"        %d diverged, %d pulled, %d pushed, %d in flight; %d rounds and %d bytes of naming\n",
		r.Complete, r.ShardsEqual, r.Shards, r.Rounds, r.BytesSent, r.BytesReceived,
		r.Diverged, r.Pulled, r.Pushed, r.InFlight, r.NamingRounds, r.NamingBytes)
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
	var p describer
	return "-> " + p.describe(msg) + "<- " + p.describe(reply) +
		fmt.Sprintf("error: %v\n", err) + reportText(init.Report()) +
		fmt.Sprintf("next message: %v, %v\n", next, nextErr)
}

// open shows what a partner makes of a first message that it cannot accept.
func (s *script) open(t *testing.T, d *datadriven.TestData) string {
	v := s.b.view()
	m := openMessage{
		protocol: protocolVersion, digestVersions: []byte{merkle.DigestVersion}, shards: v.Shards(),
		moment: second(100), settled: second(100), nameBits: nameBitsFor(0),
	}
	var protocol int
	if d.MaybeScanArgs(t, "protocol", &protocol) {
		m.protocol = byte(protocol)
	}
	if arg, ok := d.Arg("digests"); ok {
		m.digestVersions = nil
		for _, n := range numbers(t, d, arg) {
			m.digestVersions = append(m.digestVersions, byte(n))
		}
	}
	d.MaybeScanArgs(t, "cluster-shards", &m.shards)
	if arg, ok := d.Arg("only"); ok {
		m.only = numbers(t, d, arg)
	}
	resp := newResponder(v)
	msg := m.append(nil)
	apply, err := resp.Receive(msg)
	if len(apply) > 0 {
		d.Fatalf(t, "entries in the first message")
	}
	reply := resp.Reply(nil)
	again, againErr := resp.Receive(slices.Clone(msg))
	var p describer
	return "-> " + p.describe(msg) + "<- " + p.describe(reply) +
		fmt.Sprintf("partner's error: %v, done: %v\n", err, resp.Done()) +
		fmt.Sprintf("the same again: %d entries, %v\n", len(again), againErr)
}
