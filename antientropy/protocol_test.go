package antientropy

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"syntropy/lww"
	"syntropy/merkle"
	"syntropy/ring"
	"syntropy/storage"
)

const protocolPage = "../docs/protocol.md"

// The page that describes the protocol is read by people who write a second
// implementation, so it must not drift from the first.
func TestTheProtocolPageIsTrue(t *testing.T) {
	raw, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)

	// Each table of codes, by the heading of its first column.
	for heading, want := range map[string]map[int]string{
		"kind": {
			kindOpen: "open", kindEqual: "equal", kindDiffer: "differ", kindRequest: "request",
			kindResponse: "response", kindRefusal: "refusal", kindFinish: "finish",
		},
		"what":  {differNamed: "names", differLevel: "level", differSample: "sample", differOnly: "nothing", differPart: "part"},
		"state": {nameAbsent: "absent", nameVersion: "version", nameEntry: "entry", nameSeveral: "several", nameFull: "full"},
		"code": {
			childEqual: "equal", childNamed: "named", childSplit: "split", childMine: "mine",
			childYours: "yours", childSlow: "slow", childList: "list",
		},
		"section": {
			askLevel: "level", askSplits: "splits", askCompares: "compares", askLists: "lists",
			askProbes: "probes", askVersions: "versions", askFetches: "fetches", askPush: "push",
		},
		"open flag":     {flagDryRun: "dry run", flagOnly: "only", flagSalt: "salt", flagTextbook: "textbook", flagAsOf: "as of", flagOutline: "outline"},
		"state flag":    {nameTombstone: "tombstone", nameExpiry: "expiry", nameLogical: "logical", nameLate: "late"},
		"response flag": {responseFinished: "finished", responseRevealed: "revealed"},
		"fetch flag":    {fetchSums: "sums", fetchFirst: "first", fetchSkip: "skip"},
	} {
		_, table, found := strings.Cut(page, "| "+heading+" |")
		table, _, _ = strings.Cut(table, "\n\n")
		rows := regexp.MustCompile(`(?m)^\| (\d+) \| ([a-z ]+) \|`).FindAllStringSubmatch(table, -1)
		if !found || len(rows) != len(want) {
			t.Errorf("the table of each %s has %d rows, want %d", heading, len(rows), len(want))
		}
		got := make(map[string]string)
		for _, row := range rows {
			got[row[1]] = row[2]
		}
		for code, name := range want {
			if got[fmt.Sprint(code)] != name {
				t.Errorf("%s %d is %q, the page says %q", heading, code, name, got[fmt.Sprint(code)])
			}
		}
	}

	for name, value := range map[string]int{
		"DefaultMessageBytes": DefaultMessageBytes, "maxItems": maxItems, "maxListed": maxListed, "maxPushed": maxPushed,
		"maxLevelNodes": maxLevelNodes, "outlineNodes": outlineNodes, "outlineMost": outlineMost, "outlineFew": outlineFew, "maxSample": maxSample,
		"sampleNodes": sampleNodes, "sampleStep": sampleStep, "rowsPerNode": rowsPerNode, "rowsPerMessage": rowsPerMessage,
		"protocolVersion": protocolVersion, "merkle.DigestVersion": merkle.DigestVersion, "merkle.MaxBits": merkle.MaxBits,
		"ring.Slots": ring.Slots, "lww.MaxKeyBytes": lww.MaxKeyBytes, "lww.MaxValueBytes": lww.MaxValueBytes,
	} {
		if row := fmt.Sprintf("| `%s` | %d |", name, value); !strings.Contains(page, row) {
			t.Errorf("the page lacks the row %q", row)
		}
	}

	_, rest, _ := strings.Cut(page, "```example\n")
	example, _, _ := strings.Cut(rest, "```")
	want, r := workedExample(t)
	if example != want {
		t.Errorf("the example of the page should be:\n%s", want)
	}
	sizes := fmt.Sprintf("%d bytes were sent and %d received, of them %d for the entries", r.BytesSent, r.BytesReceived, r.EntryBytes)
	if !strings.Contains(strings.Join(strings.Fields(page), " "), sizes) {
		t.Errorf("the page does not say that %s", sizes)
	}
}

// workedExample runs the example of the page and prints its bytes.
func workedExample(t *testing.T) (string, Report) {
	a, b := newStore(t, storage.Options{Shards: 1}), newStore(t, storage.Options{Shards: 1})
	for _, r := range []replica{a, b} {
		mustApply(t, r, value("earth", "planet", 1), value("mars", "planet", 2))
	}
	mustApply(t, a, value("earth", "blue", 60))
	mustApply(t, b, tombstone("mars", 61), value("pluto", "small", 62))
	s := session{a: a, b: b, cfg: Config{Now: second(100)}}
	r := s.mustRun(t)
	var out strings.Builder
	d := describer{brief: true}
	for _, m := range s.transcript {
		arrow := "<-"
		if m.toPartner {
			arrow = "->"
		}
		fmt.Fprintf(&out, "%s %s", arrow, d.describe(m.bytes))
		for i, b := range m.bytes {
			if i%24 == 0 {
				if i > 0 {
					out.WriteByte('\n')
				}
				out.WriteString("  ")
			}
			fmt.Fprintf(&out, " %02x", b)
		}
		out.WriteByte('\n')
	}
	return out.String(), r
}
