package antientropy

import (
	"fmt"
	"strings"

	"syntropy/hlc"
	"syntropy/lww"
	"syntropy/merkle"
)

// describe prints a message for golden files: its kind and size, then one line
// for each thing in it.
func describe(msg []byte, brief bool) string {
	var p printer
	r := &reader{b: msg[1:]}
	switch msg[0] {
	case kindOpen:
		m := readOpen(r)
		p.head("open", msg)
		if m.protocol != protocolVersion {
			p.line("protocol %d", m.protocol)
			break
		}
		p.line("protocol %d, digests %d, %d shards", m.protocol, m.digestVersion, m.shards)
		if m.only != nil {
			p.line("only shards %v", m.only)
		}
		if m.dryRun {
			p.line("dry run")
		}
		p.line("digest %s", short(m.digest))
	case kindEqual:
		p.head("equal", msg)
	case kindRoots:
		p.head("roots", msg)
		for i, d := range readList(r, 1<<14, (*reader).digest) {
			p.line("#%d: %s", i, digestText(d))
		}
	case kindRequest:
		m := readRequest(r)
		p.head("request", msg)
		for _, n := range m.expand {
			p.line("expand %s", refText(n))
		}
		for _, n := range m.list {
			p.line("list %s", refText(n))
		}
		for _, t := range m.versions {
			p.line("versions of %d/%s but %d", t.shard, t.token, len(t.sums))
		}
		for _, t := range m.pull {
			p.line("pull from %d/%s: %d", t.shard, t.token, len(t.sums))
		}
		for _, e := range m.push {
			p.line("push %s", entryText(e))
		}
	case kindResponse:
		m := readResponse(r)
		p.head("response", msg)
		for i, c := range m.expanded {
			p.line("expanded #%d: %s", i, childrenText(c))
		}
		for i, l := range m.listed {
			p.line("listed #%d:", i)
			for _, it := range l {
				p.line("  %s", it.token)
			}
		}
		for i, l := range m.versions {
			p.line("versions #%d:", i)
			for _, v := range l {
				p.line("  %s: %s", v.key, versionText(v.version, fmt.Sprintf("%d bytes", v.valueBytes)))
			}
		}
		for i, l := range m.pulled {
			p.line("pulled #%d:", i)
			for _, e := range l {
				p.line("  %s", entryText(e))
			}
		}
		if m.applied > 0 {
			p.line("applied %d", m.applied)
		}
	case kindFinish:
		p.head("finish", msg)
	case kindFinished:
		p.head("finished", msg)
	case kindRefusal:
		m := readRefusal(r)
		p.head("refusal", msg)
		p.line("%s: %s", m.code, m.text)
	}
	if r.err != nil {
		p.line("%v", r.err)
	}
	if brief {
		return p.text[:strings.IndexByte(p.text, '\n')+1]
	}
	return p.text
}

type printer struct{ text string }

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

func short(s merkle.Sum) string { return s.String()[:8] + ".." }

func digestText(d merkle.Digest) string {
	if d == (merkle.Digest{}) {
		return "empty"
	}
	return fmt.Sprintf("%d in %s", d.Count, short(d.Sum))
}

func refText(n nodeRef) string { return nodeText(n.shard, n.node) }

func nodeText(shard int, n merkle.Node) string { return fmt.Sprintf("%d/%q", shard, n.String()) }

func childrenText(c [merkle.Fanout]merkle.Digest) string {
	var parts []string
	for i, d := range c {
		if d != (merkle.Digest{}) {
			parts = append(parts, fmt.Sprintf("%x: %s", i, digestText(d)))
		}
	}
	return strings.Join(parts, ", ")
}

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

func entryText(e lww.Entry) string {
	return fmt.Sprintf("%s = %s", e.Key, versionText(e.Version, string(e.Value)))
}
