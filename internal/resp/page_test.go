package resp

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/commands.md")

const pagePath = "../../docs/commands.md"

// TestCommandsPage keeps docs/commands.md what the command table says.
func TestCommandsPage(t *testing.T) {
	want := commandsPage()
	if *update {
		if err := os.WriteFile(pagePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/commands.md is not what the command table says; make it again with\n\tgo test ./internal/resp -run TestCommandsPage -update")
	}
}

func TestEveryCommandIsOnThePage(t *testing.T) {
	page := commandsPage()
	row := func(name string) {
		begin := "\n| `" + strings.ToUpper(name)
		if !strings.Contains(page, begin+"`") && !strings.Contains(page, begin+" ") {
			t.Errorf("%s is not on the page", name)
		}
	}
	for name, cmd := range commandTable() {
		row(name)
		for _, sub := range cmd.subcommands {
			row(name + " " + sub.name)
		}
	}
	for name := range refusedTable() {
		if !strings.Contains(page, "`"+strings.ToUpper(strings.ReplaceAll(name, "|", " "))+"`") {
			t.Errorf("%s is not on the page", name)
		}
	}
}

func TestUsageAndNoteOfEveryCommand(t *testing.T) {
	check := func(cmd *command, names int) {
		full := "usage of " + cmd.name + ", " + cmd.usage
		if verdict, _, _ := strings.Cut(cmd.note, ":"); !slices.Contains([]string{"", "racy", "differs", "own"}, verdict) {
			t.Errorf("note of %s: %q is no verdict", cmd.name, verdict)
		}
		depth, needed := 0, names
		words := strings.Fields(strings.NewReplacer("[", " [ ", "]", " ] ").Replace(cmd.usage))
	count:
		for _, word := range words {
			switch {
			case word == "[":
				depth++
			case word == "]":
				depth--
			case depth == 0 && word == "|":
				break count // the other alternatives are as long
			case depth == 0:
				needed++
			}
		}
		if needed != max(cmd.arity, -cmd.arity) {
			t.Errorf("%s: needs %d words, but the arity is %d", full, needed, cmd.arity)
		}
		if strings.Contains(cmd.usage, "[") && cmd.arity > 0 {
			t.Errorf("%s: has options, but the arity is %d", full, cmd.arity)
		}
	}
	for _, cmd := range commandTable() {
		if cmd.subcommands == nil {
			check(cmd, 1)
		}
		for i := range cmd.subcommands {
			check(&cmd.subcommands[i], 2)
		}
	}
}

// commandsPage renders the page.
func commandsPage() string {
	var page strings.Builder
	page.WriteString(`# Commands

What a node answers on its Redis port. The protocol is RESP2 or RESP3; arguments, replies,
error texts and rounding are those of Redis 7.0.15 wherever nothing else is said. This page is
made from the command table of ` + "`internal/resp`" + `; a test keeps the two equal.

The third column tells what a client of Redis must know:

- **exact**: does what it does in Redis.
- **racy**: does what it does in Redis as long as nobody else works on the same keys at the same
  moment; it says what happens otherwise.
- **differs**: says how.
- **own**: a command that Redis does not have.
- **refused**: answers an error with the reason; nothing is done.

For every write: of two writes to a key the one with the later timestamp stays, on every replica,
and both clients were told OK. OK means that as many replicas as the write consistency asks for
have the write. An error or a timeout means unknown, unless the text says that nothing was written.

Any node serves any key. How many replicas a command waits for is the node's setting, or what the
connection chose: ` + "`SYN.CONSISTENCY ALL`, `SYN.CONSISTENCY READ ONE WRITE QUORUM`" + `. RESET and a new
connection begin with the node's setting, and HELLO changes nothing about it. A read is sure to see
an acknowledged write when the levels of the two together are more than all replicas (QUORUM and
QUORUM, ONE and ALL); with less it may answer what was there before.

Keys have 1 to 65536 bytes, values at most 8388608 (8 MiB). All values are strings.
`)
	for _, section := range []struct {
		title, intro string
		commands     []command
	}{
		{"Keys and values", "", slices.Concat(setCommands(), dataCommands(), swapCommands(), flushCommands()[:2])},
		{"Expiry", `An expiry is a moment, kept in milliseconds since 1970 with a timestamp of its own: a node
computes it once, by its clock, from the duration that it is given. Whether a key has expired is
judged by the clock of the node that answers. A moment that has passed deletes the key.
`, expiryCommands()},
		{"Versions and replicas", "", versionCommands()},
		{"The connection", "", connectionCommands()},
		{"The cluster", `A client that knows Redis Cluster goes straight to a replica of each key, which saves a hop. It need
not, since any node serves any key; none ever answers MOVED or ASK. Each node tells its clients what
it knows at the moment, so a client learns of a node that went or came back when it asks again.

Such clients take nodes for owners of keys of their own. So what they ask of all masters at once
concerns the same keys several times: DBSIZE is added up, a SCAN on each of them finds each key as
often, and a client may refuse by itself to send one command with keys of several slots. Where that
matters, use the plain client.
`, clusterCommands()},
		{"The server", "", append(serverCommands(), flushCommands()[2:]...)},
	} {
		fmt.Fprintf(&page, "\n## %s\n\n", section.title)
		if section.intro != "" {
			page.WriteString(section.intro + "\n")
		}
		page.WriteString("| command | what it does | as in Redis? |\n|---|---|---|\n")
		for i := range section.commands {
			cmd := &section.commands[i]
			if cmd.run != nil {
				pageRow(&page, cmd.name, cmd)
			}
			for j := range cmd.subcommands {
				pageRow(&page, cmd.name+" "+cmd.subcommands[j].name, &cmd.subcommands[j])
			}
		}
	}
	page.WriteString(`
## Refused

Replicas without a leader merge by last write wins. What reads, computes and writes back would be
acknowledged twice and then lose one of the two, so it is refused, and so is what there is no data
for. A command that is neither above nor here is answered as Redis answers an unknown one.

| why, and what instead | commands |
|---|---|
`)
	for _, group := range refusals {
		names := strings.Join(strings.Fields(strings.ToUpper(group.commands)), "` `")
		fmt.Fprintf(&page, "| %s | `%s` |\n", group.reason, strings.ReplaceAll(names, "|", " "))
	}
	return page.String()
}

func pageRow(page *strings.Builder, name string, cmd *command) {
	usage := strings.ToUpper(name)
	if cmd.usage != "" {
		usage += " " + strings.ReplaceAll(cmd.usage, "|", `\|`)
	}
	verdict := "exact"
	if cmd.note != "" {
		kind, how, more := strings.Cut(cmd.note, ":")
		verdict = "**" + kind + "**"
		if more {
			verdict += ":" + how
		}
	}
	fmt.Fprintf(page, "| `%s` | %s | %s |\n", usage, cmd.summary, verdict)
}
