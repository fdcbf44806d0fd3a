package antientropy

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"syntropy/lww"
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

	kinds := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| (\w+) \|`).FindAllStringSubmatch(page, -1) {
		kinds[row[1]] = row[2]
	}
	for kind, name := range map[int]string{
		kindOpen: "open", kindEqual: "equal", kindRoots: "roots", kindRequest: "request",
		kindResponse: "response", kindFinish: "finish", kindFinished: "finished", kindRefusal: "refusal",
	} {
		if got := kinds[fmt.Sprint(kind)]; got != name {
			t.Errorf("kind %d is %q, the page says %q", kind, name, got)
		}
	}
	if len(kinds) != 8 {
		t.Errorf("the page has %d kinds", len(kinds))
	}

	for name, value := range map[string]int{
		"DefaultMessageBytes": DefaultMessageBytes, "maxItems": maxItems, "maxListed": maxListed, "maxPushed": maxPushed,
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
	sizes := fmt.Sprintf("%d bytes were sent and %d received", r.BytesSent, r.BytesReceived)
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
	s := session{a: a, b: b, cfg: Config{Now: second(100)}}
	r := s.mustRun(t)
	var out strings.Builder
	for _, m := range s.transcript {
		arrow := "<-"
		if m.toPartner {
			arrow = "->"
		}
		fmt.Fprintf(&out, "%s %s", arrow, describe(m.bytes, true))
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
