package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMeasureAndRender(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "page.md")
	if err := os.WriteFile(page, []byte("before\n"+begin+"old\n"+end+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-rows", "300", "-rounds", "1", "-slice", "100", "-cache-mib", "2", "-work", dir, "-results", dir, "-doc", page}
	if err := run(args); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(first)
	for _, want := range []string{"before\n" + begin, end + "after\n", "| write, full, synced | ", "| bulk load of a row | ", "3e+02 rows"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "old") {
		t.Error("the old figures are still there")
	}
	if err := run([]string{"-results", dir, "-doc", page}); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(page); string(again) != text {
		t.Error("rendering again changes the page")
	}
	if err := os.WriteFile(page, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-results", dir, "-doc", page}); err == nil {
		t.Error("a page without a place for figures was written")
	}
}
