package config

import (
	"fmt"
	"slices"
	"strings"
)

// ExampleFile is the configuration file that the reference shows.
const ExampleFile = `data-dir: /var/lib/syntropy
listen: 10.0.0.1:7001
peer-listen: 10.0.0.1:7101
admin-listen: 127.0.0.1:7201
zone: rack-1

# The same on all three nodes.
bootstrap-expect: 3
join:
  - 10.0.0.1:7101
  - 10.0.0.2:7101
  - 10.0.0.3:7101
`

const referenceHead = "<!-- Written from the definitions in internal/config by `go generate ./internal/config`: change them there. -->\n\n" +
	"# Configuration\n\n" +
	"Every setting of `syntropy serve` can be given in three ways, and the first of these that gives it\n" +
	"wins:\n\n" +
	"1. a flag: `--repair-interval 30m`\n" +
	"2. an environment variable, `SYNTROPY_` and the name in capitals with underscores:\n" +
	"   `SYNTROPY_REPAIR_INTERVAL=30m`\n" +
	"3. the YAML file that `--config` or `SYNTROPY_CONFIG` names: `repair-interval: 30m`\n" +
	"4. else its default.\n\n" +
	"A list is given by repeating the flag or with commas (`--join A --join B`, `SYNTROPY_JOIN=A,B`), in\n" +
	"the file as a YAML list; it replaces a list given in a weaker way as a whole. An empty variable counts\n" +
	"as not given.\n\n" +
	"What is not a setting is an error and not ignored: an unknown key of the file, a key given twice, or a\n" +
	"variable that begins with `SYNTROPY_` and is none of these (`SYNTROPY_ADMIN`, the address that the\n" +
	"other commands ask, is known too). The message names the nearest setting and the line. `syntropy config`,\n" +
	"with the same flags, prints what counts and where it comes from, and starts nothing.\n\n" +
	"Durations have a unit: `500ms`, `10s`, `5m`, `1h30m`. Switches are `on` or `off`. There are no secrets\n" +
	"among the settings: the cluster makes its own and keeps it in the data directories.\n\n" +
	"A file, the same on each of three machines but for its addresses:\n\n" +
	"```yaml\n" + ExampleFile + "```\n"

const clusterHead = "\n## Cluster settings\n\n" +
	"They are the same on all nodes and are fixed when the cluster is created, from what its first nodes were\n" +
	"given (or `syntropy init` was). After that they may be left out. A node that is given another value than\n" +
	"the cluster was created with, in whatever way, does not start and names the difference.\n"

const nodeHead = "\n## Node settings\n\n" +
	"Each node has its own, and may have others at each start.\n"

// Reference returns the page docs/configuration.md.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, part := range []struct {
		head    string
		cluster bool
	}{{nodeHead, false}, {clusterHead, true}} {
		b.WriteString(part.head)
		shown := slices.DeleteFunc(slices.Clone(settings), func(s *Setting) bool { return s.Hidden || s.Cluster != part.cluster })
		b.WriteString("\n| setting | takes | default |\n|---|---|---|\n")
		for _, s := range shown {
			fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s |\n", s.Name, s.Name, strings.ReplaceAll(s.Takes, "|", ", "), quoted(s.Default))
		}
		for _, s := range shown {
			s.describe(&b)
		}
	}
	return b.String()
}

func quoted(text string) string {
	if text == "" {
		return "none"
	}
	return "`" + text + "`"
}

func (s *Setting) describe(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n", s.Name)
	key := ", `" + s.Name + ":` in the file"
	if !s.inFile() {
		key = ", not in the file"
	}
	wrap(b, "", "`--"+s.Name+"`, `"+s.Env()+"`"+key+". Default: "+quoted(s.Default)+".")
	b.WriteByte('\n')
	wrap(b, "", s.Doc)
	var facts []string
	if s.Range != "" {
		facts = append(facts, "Range: "+s.Range+".")
	}
	for _, extreme := range []string{s.Low, s.High} {
		if extreme != "" {
			facts = append(facts, extreme)
		}
	}
	if len(facts) > 0 {
		b.WriteByte('\n')
	}
	for _, f := range facts {
		wrap(b, "- ", f)
	}
}

// pageWidth is where lines of the page end.
const pageWidth = 100

// wrap writes a paragraph; lines after the first are indented as far as its mark.
func wrap(b *strings.Builder, mark, text string) {
	line := mark
	for i, word := range strings.Fields(text) {
		if i > 0 && len(line)+1+len(word) > pageWidth {
			b.WriteString(line + "\n")
			line = strings.Repeat(" ", len(mark)) + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
}
