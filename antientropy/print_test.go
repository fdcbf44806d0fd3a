package antientropy

import (
	"fmt"
	"slices"
	"strings"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// describer prints the messages of a session for golden files. It reads them in
// their order, as the two sides do: what a response says depends on the request,
// and how it says it on the first message.
type describer struct {
	codec   codec
	request request
	brief   bool // kind and size only
	failed  error
}

func (d *describer) describe(msg []byte) string {
	p := printer{names: d.codec}
	r := &reader{codec: d.codec, b: msg[1:]}
	switch msg[0] {
	case kindOpen:
		m := r.open()
		p.head("open", msg)
		if m.protocol != protocolVersion {
			p.line("protocol %d", m.protocol)
			break
		}
		d.codec = testCodec(m)
		p.open(m)
	case kindEqual:
		p.head("equal", msg)
	case kindDiffer:
		p.head("differ", msg)
		p.differ(r.differ())
	case kindRequest, kindFinish:
		d.request = r.request(msg[0])
		p.head(map[byte]string{kindRequest: "request", kindFinish: "finish"}[msg[0]], msg)
		p.request(d.request)
	case kindResponse:
		m := r.response(d.request)
		p.head("response", msg)
		p.response(d.request, m)
	case kindRefusal:
		m := r.refusal()
		p.head("refusal", msg)
		p.line("%s: %s", m.code, m.text)
	}
	if r.err != nil {
		p.line("%v", r.err)
	}
	if d.brief {
		return p.text[:strings.IndexByte(p.text, '\n')+1]
	}
	return p.text
}

// testCodec is the codec of a session of this package's tests, which share one
// secret.
func testCodec(m openMessage) codec {
	h := merkle.NewHasher(testSecret)
	return codec{m.nameBits, m.moment, m.textbook, func(e lww.Entry) uint32 { return uint32(h.Entry(e).Lo) }}
}

type printer struct {
	text  string
	names codec
}

func (p *printer) head(kind string, msg []byte) {
	unit := "bytes"
	if len(msg) == 1 {
		unit = "byte"
	}
	p.text += fmt.Sprintf("%s, %d %s\n", kind, len(msg), unit)
}

func (p *printer) line(format string, args ...any) {
	p.text += "     " + fmt.Sprintf(format, args...) + "\n"
}

func (p *printer) open(m openMessage) {
	p.line("protocol %d, digests %d, %d shards", m.protocol, m.digestVersions, m.shards)
	if m.only != nil {
		p.line("only shards %v", m.only)
	}
	for _, f := range []struct {
		set  bool
		text string
	}{
		{m.dryRun, "dry run"}, {m.textbook, "textbook"}, {m.salt != 0, fmt.Sprintf("salt %d", m.salt)},
		{m.asOf, "as of " + at(m.moment)}, {m.expected > 0, fmt.Sprintf("%d expected to differ", m.expected)},
		{m.outline != nil, fmt.Sprintf("an outline of %d nodes", len(m.outline))},
	} {
		if f.set {
			p.line("%s", f.text)
		}
	}
	p.line("settled to %s, names of %d bits", at(m.settled), m.nameBits)
	p.line("%d rows, check %s, digest %s", m.count, checkText(m.check), syndromeText(m.syndrome))
}

func (p *printer) differ(m differMessage) {
	switch m.what {
	case differNamed:
		p.line("check of the others %s", checkText(m.check))
		for _, n := range m.named {
			p.named("named ", n)
		}
		return
	case differLevel:
		p.line("%s", levelText(m.bits, m.level))
	case differPart:
		p.line("%d bits below the root, where the outlines differ (%064b): %d nodes", m.bits, m.marked, len(m.level))
	case differSample:
		p.line("a sample of %d bytes", len(m.sample))
	case differOnly:
		p.line("nothing but that")
	}
	p.line("%d rows, check %s", m.count, checkText(m.check))
}

func (p *printer) request(m request) {
	if m.level > 0 {
		p.line("all nodes of level %d?", m.level-1)
	}
	for _, a := range m.splits {
		but := " but the last"
		if a.all {
			but = ""
		}
		p.line("split %q: all %d children%s?", a.node, 1<<a.bits, but)
	}
	for _, a := range m.compares {
		p.line("compare %q with %s", a.node, childrenText(a.theirs))
	}
	for _, a := range m.lists {
		p.line("compare the rows of %q with %s", a.node, p.itemsText(a.items))
	}
	for _, a := range m.probes {
		know := ""
		if a.absent {
			know = " nothing here."
		}
		if a.again {
			know = " the entry, please."
		}
		p.line("what is at %s?%s", a.name, know)
	}
	for _, a := range m.versions {
		p.line("versions at %q but %d?", a.node, len(a.except))
	}
	for _, a := range m.fetches {
		what := "all entries"
		if len(a.sums) > 0 {
			what = fmt.Sprintf("%d entries", len(a.sums))
		}
		if a.skip > 0 {
			what += fmt.Sprintf(" from +%x on", a.skip)
		}
		p.line("fetch %q: %s", a.node, what)
	}
	for _, e := range m.push {
		p.line("push %s", entryText(e))
	}
}

func (p *printer) response(q request, m response) {
	if m.revealed != 0 {
		p.line("of rows not named before: check %s", checkText(m.revealed))
	}
	if q.level > 0 {
		p.line("%s", levelText(q.level-1, m.level))
		if m.counts != nil {
			p.line("rows under them: %d", m.counts)
		}
	}
	for i, a := range m.splits {
		p.line("split %q: %s", q.splits[i].node, childrenText(a.syndromes))
		if a.counts != nil {
			p.line("rows under them: %d", a.counts)
		}
	}
	for i, children := range m.compares {
		for j, a := range children {
			p.child(q.compares[i].node.Down(q.compares[i].bits, j), a)
		}
	}
	for i, a := range m.lists {
		p.child(q.lists[i].node, a)
	}
	for _, n := range m.probes {
		p.named("there: ", n)
	}
	for i, a := range m.versions {
		p.line("versions at %q: held %b%s", q.versions[i].node, a.held, map[bool]string{true: ", too many"}[a.tooMany])
		for _, v := range a.list {
			p.line("  %s", keyVersionText(v))
		}
	}
	for i, a := range m.fetches {
		rest := ""
		if a.next > 0 {
			rest = fmt.Sprintf(", the rest is from +%x on", a.next)
		}
		p.line("fetched %q: %d entries%s", q.fetches[i].node, len(a.entries), rest)
		for _, e := range a.entries {
			p.line("  %s", entryText(e))
		}
		for _, v := range a.young {
			p.line("  too young: %s", keyVersionText(v))
		}
	}
	if m.applied > 0 {
		p.line("applied %d", m.applied)
	}
	if m.finished {
		p.line("finished: %d rows read, %d nodes compared", m.rowsRead, m.compared)
	}
}

func (p *printer) child(n merkle.Node, a childAnswer) {
	switch a.code {
	case childEqual:
		p.line("%q: equal", n)
	case childNamed:
		p.line("%q:", n)
		for _, m := range a.named {
			p.named("  named ", m)
		}
	case childSplit:
		p.line("%q: more than two differ. Its children: %s", n, childrenText(a.split[:]))
	case childMine:
		p.line("%q: only mine", n)
	case childYours:
		p.line("%q: only yours", n)
	case childSlow:
		p.line("%q: names are too short here", n)
	case childList:
		p.line("%q: all rows: %s", n, p.itemsText(a.items))
	}
}

func (p *printer) named(before string, n named) {
	what := ""
	switch n.state {
	case nameAbsent:
		what = n.name.String() + ": nothing"
	case nameVersion:
		what = n.name.String() + ": " + versionText(n.version, "value untold")
	case nameEntry:
		what = entryText(*n.entry)
	case nameSeveral:
		what = n.name.String() + ": several rows"
	case nameFull:
		what = "but not sent: " + keyVersionText(*n.full)
	}
	if n.late {
		what += ", late"
	}
	p.line("%s%s", before, what)
}

func (p *printer) itemsText(items []item) string {
	var parts []string
	for _, it := range items {
		parts = append(parts, merkle.Node{Bits: uint8(p.names.nameBits), Path: it.name}.String())
	}
	return fmt.Sprintf("%d rows [%s]", len(items), strings.Join(parts, " "))
}

func checkText(check uint64) string { return fmt.Sprintf("%08x..", check>>32) }

func syndromeText(s merkle.Syndrome) string {
	if s.IsZero() {
		return "empty"
	}
	return fmt.Sprintf("%06x..", s[0]>>37)
}

func levelText(bits int, level []merkle.Syndrome) string {
	if len(level) > 16 {
		empty := 0
		for _, s := range level {
			if s.IsZero() {
				empty++
			}
		}
		return fmt.Sprintf("level %d: %d digests, %d of them empty", bits, len(level), empty)
	}
	return fmt.Sprintf("level %d: %s", bits, childrenText(level))
}

func childrenText(list []merkle.Syndrome) string {
	var parts []string
	for _, s := range list {
		parts = append(parts, syndromeText(s))
	}
	return strings.Join(parts, " ")
}

func nodeText(shard int, n merkle.Node) string { return fmt.Sprintf("%d/%q", shard, n.String()) }

// at prints a stamp as the script wrote it.
func at(s hlc.Stamp) string { return fmt.Sprintf("@%d", int(s.Sub(epoch).Seconds())) }

func versionText(v lww.Version, value string) string {
	if v.Tombstone {
		value = "deleted"
	}
	text := fmt.Sprintf("%s %s %s", value, at(v.Stamp), v.Node)
	if v.ExpiryStamp != 0 {
		text += fmt.Sprintf(", expires @%d set %s %s", v.Expires/1000-epoch.Time().Unix(), at(v.ExpiryStamp), v.ExpiryNode)
	}
	return text
}

func keyVersionText(v keyVersion) string {
	text := fmt.Sprintf("%s: %s", v.key, versionText(v.version, bytesText(v.valueBytes)))
	if v.late {
		text += ", late"
	}
	return text
}

func bytesText(n int) string {
	if n < 0 {
		return "value untold"
	}
	return fmt.Sprintf("%d bytes", n)
}

func entryText(e lww.Entry) string {
	value := string(e.Value)
	if len(value) > 40 {
		value = value[:20] + ".." + fmt.Sprint(len(value)) + " bytes"
	}
	return fmt.Sprintf("%s = %s", e.Key, versionText(e.Version, value))
}

// rewrite decodes a message of a session as described so far and encodes it
// again, with a change in between.
func (d *describer) rewrite(msg []byte, change func(*request, *response, *differMessage)) []byte {
	r := &reader{codec: d.codec, b: slices.Clone(msg[1:])}
	// The check of a named entry is not kept by the reader.
	check := func(list []named) {
		for i := range list {
			if list[i].state == nameEntry {
				list[i].sum = d.codec.check(*list[i].entry)
			}
		}
	}
	var again []byte
	switch msg[0] {
	case kindOpen:
		d.codec = testCodec(r.open())
		again = msg
	case kindDiffer:
		m := r.differ()
		check(m.named)
		change(nil, nil, &m)
		again = d.codec.appendDiffer(nil, m)
	case kindRequest, kindFinish:
		d.request = r.request(msg[0])
		if d.failed = r.err; r.err != nil {
			return msg
		}
		m := d.request
		change(&m, nil, nil)
		again = d.codec.appendRequest(nil, m)
	case kindResponse:
		m := r.response(d.request)
		if d.failed = r.err; r.err != nil {
			return msg
		}
		check(m.probes)
		for _, l := range append(m.compares, m.lists) {
			for i := range l {
				check(l[i].named)
			}
		}
		change(nil, &m, nil)
		again = d.codec.appendResponse(nil, d.request, m)
	default:
		return msg
	}
	d.failed = r.err
	return again
}
