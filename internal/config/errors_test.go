package config

import (
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestErrors is a script of what is refused and how. The commands are flags,
// environment and file, each with its lines as they would be given; all of one
// block is resolved together.
func TestErrors(t *testing.T) {
	dir := regexp.MustCompile(`[^\s"]*/node\.yaml`)
	datadriven.RunTest(t, "testdata/errors.txt", func(t *testing.T, d *datadriven.TestData) string {
		var args, environ []string
		file := ""
		switch d.Cmd {
		case "flags":
			args = strings.Fields(d.Input)
		case "environment":
			environ = strings.Split(d.Input, "\n")
		case "file":
			file = d.Input + "\n"
		default:
			d.Fatalf(t, "unknown command")
		}
		_, err := try(t, args, environ, file)
		if err == nil {
			return "fine"
		}
		return dir.ReplaceAllString(err.Error(), "node.yaml")
	})
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{ExampleFile, "join: [a:1\n", "a: &x [*x]", "? {a: b}\n: c", "---\n---\n", "zone: !!binary eA==", "<<: {zone: a}", "\xff", "zone: |\n  a\n  b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		found, err := parseFile("node.yaml", raw)
		if err != nil && !strings.Contains(err.Error(), "node.yaml") {
			t.Errorf("an error without its place: %v", err)
		}
		for name, g := range found {
			if s := Find(name); s == nil || len(g.texts) == 0 || !s.List && len(g.texts) != 1 {
				t.Errorf("%s: %+v", name, g)
			}
		}
	})
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"gc_grace": "gc-grace", "lisen": "listen", "Repair-Interval": "repair-interval", "hintwindow": "hint-window", "": "join", "dataDir": "data-dir",
	} {
		if got := nearest(name, fileKeys()); got != want {
			t.Errorf("nearest to %q: %q, want %q", name, got, want)
		}
	}
	if distance("kitten", "sitting") != 3 || distance("", "abc") != 3 || distance("abc", "") != 3 {
		t.Error("wrong distance")
	}
}
