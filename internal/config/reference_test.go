package config

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite docs/configuration.md")

func TestReferenceIsUpToDate(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	if *update {
		if err := os.WriteFile(path, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != Reference() {
		t.Errorf("%s is out of date: run go generate ./internal/config", path)
	}
}

// TestEverySettingIsExplained: a definition that lacks a part would leave a gap in
// help or reference.
func TestEverySettingIsExplained(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range Settings() {
		if seen[s.Name] {
			t.Errorf("%s is defined twice", s.Name)
		}
		seen[s.Name] = true
		switch {
		case s.Takes == "" || s.Usage == "" || s.Doc == "" || s.read == nil:
			t.Errorf("%s lacks a part: %+v", s.Name, s)
		case strings.ToLower(s.Name) != s.Name || strings.ContainsAny(s.Name, "_ "):
			t.Errorf("%s is not in lower case with hyphens", s.Name)
		case strings.Contains(s.Usage, "`"): // help would take it for the name of the value
			t.Errorf("the usage of %s has a backquote", s.Name)
		case !strings.HasSuffix(s.Doc, "."):
			t.Errorf("the text of %s does not end", s.Name)
		}
		for _, extreme := range []string{s.Low, s.High} {
			if extreme != "" && !strings.HasSuffix(extreme, ".") {
				t.Errorf("%s: a text does not end: %s", s.Name, extreme)
			}
		}
	}
}

// TestGuaranteesNameWhatExists: the settings and pages that GUARANTEES.md sends
// its readers to are there.
func TestGuaranteesNameWhatExists(t *testing.T) {
	top := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(top, "GUARANTEES.md"))
	if err != nil {
		t.Fatal(err)
	}
	settings, links := 0, 0
	for _, m := range regexp.MustCompile("`([a-z]+(?:-[a-z]+)+)[ `]").FindAllStringSubmatch(string(page), -1) {
		settings++
		if Find(m[1]) == nil {
			t.Errorf("there is no setting %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(string(page), -1) {
		links++
		if _, err := os.Stat(filepath.Join(top, m[1])); err != nil {
			t.Errorf("a link leads nowhere: %v", err)
		}
	}
	if settings < 5 || links < 3 {
		t.Errorf("%d settings and %d links found: is this the right page?", settings, links)
	}
}

func TestReferenceReads(t *testing.T) {
	page := Reference()
	for line := range strings.Lines(page) {
		if n := utf8.RuneCountInString(line); n > 112 && !strings.HasPrefix(line, "|") {
			t.Errorf("a line of %d columns: %s", n, line)
		}
		if strings.HasSuffix(line, " \n") {
			t.Errorf("a line ends in a space: %q", line)
		}
	}
	if strings.Contains(page, "test-clock-offset") {
		t.Error("a hidden setting is shown")
	}
	c := resolve(t, nil, nil, ExampleFile)
	if c.Zone != "rack-1" || len(c.Join) != 3 || c.BootstrapExpect != 3 {
		t.Errorf("the example is read as %+v", c)
	}
}
