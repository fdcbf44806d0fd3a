package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func rowsFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loaded returns the sizes of the batches and all rows as "key=value" words.
func (f *fakeNode) loaded() (sizes []int, rows string) {
	for _, b := range f.batches {
		sizes = append(sizes, len(b))
		for _, r := range b {
			rows += fmt.Sprintf("%s=%s ", r.Key, r.Value)
		}
	}
	return sizes, strings.TrimSpace(rows)
}

func TestImport(t *testing.T) {
	f := &fakeNode{}
	sh := newShell(t, f)
	sh.tick = 100 * time.Millisecond
	got := sh.run("import", rowsFile(t, "rows.csv", "name,value\na,1\nb,2\nc,3\n"), "--header", "--batch", "2")
	sizes, rows := f.loaded()
	if got.status != exitOK || got.err != "" || !strings.HasPrefix(got.out, "imported 3 rows, 6 B, in ") {
		t.Errorf("%+v", got)
	}
	if fmt.Sprint(sizes) != "[2 1]" || rows != "a=1 b=2 c=3" {
		t.Errorf("batches %v of %s", sizes, rows)
	}
}

func TestImportFromStdin(t *testing.T) {
	f := &fakeNode{}
	sh := newShell(t, f)
	sh.stdin = strings.NewReader(`{"key":"a","value":"1"}`)
	got := sh.run("import", "-", "--format", "jsonl", "--json")
	var s importSummary
	if err := json.Unmarshal([]byte(got.out), &s); err != nil {
		t.Fatal(err, got)
	}
	if got.status != exitOK || got.err != "" || s.File != "-" || s.Rows != 1 || s.Bytes != 2 || s.Reasons == nil || s.Error != "" {
		t.Errorf("%+v: %+v", got, s)
	}
}

func TestImportSendsABatchWhenItHoldsEnoughBytes(t *testing.T) {
	f := &fakeNode{}
	sh := newShell(t, f)
	text := strings.Repeat("k\t"+strings.Repeat("v", 400<<10)+"\n", 4)
	if got := sh.run("import", rowsFile(t, "rows.tsv", text)); got.status != exitOK {
		t.Errorf("%+v", got)
	}
	if sizes, _ := f.loaded(); fmt.Sprint(sizes) != "[3 1]" {
		t.Errorf("batches %v", sizes)
	}
}

func TestImportStopsAtAMalformedLine(t *testing.T) {
	f := &fakeNode{}
	sh := newShell(t, f)
	path := rowsFile(t, "rows.tsv", "a\t1\nb\t2\nbroken\nc\t3\n")
	got := sh.run("import", path)
	want := "syntropy: " + path + ":3: there is no TAB between a key and a value; 2 rows are stored before it: correct the line and import again, which is safe, or use --on-error skip\n"
	if got != (result{exitFailed, "", want}) {
		t.Errorf("%+v", got)
	}
	if _, rows := f.loaded(); rows != "a=1 b=2" {
		t.Errorf("loaded %s", rows)
	}
	got = sh.run("import", path, "--json")
	var s importSummary
	if err := json.Unmarshal([]byte(got.out), &s); err != nil || got.status != exitFailed || s.Rows != 2 || "syntropy: "+s.Error+"\n" != want {
		t.Errorf("%+v: %+v, %v", got, s, err)
	}
}

func TestImportSkipsMalformedLines(t *testing.T) {
	f := &fakeNode{}
	sh := newShell(t, f)
	path := rowsFile(t, "rows.tsv", "a\t1\n"+strings.Repeat("broken\n", 7)+"b\t2\n")
	got := sh.run("import", path, "--on-error", "skip")
	if got.status != exitOK || got.err != "" {
		t.Errorf("%+v", got)
	}
	golden(t, "import_skip.txt", strings.ReplaceAll(got.out, path, "rows.tsv"))
	if _, rows := f.loaded(); rows != "a=1 b=2" {
		t.Errorf("loaded %s", rows)
	}
}

func TestImportSaysWhatAFailedBatchLeaves(t *testing.T) {
	f := &fakeNode{loadErr: func(batch int) error {
		if batch == 1 {
			return errors.New("too few replicas")
		}
		return nil
	}}
	sh := newShell(t, f)
	got := sh.run("import", rowsFile(t, "rows.tsv", "a\t1\nb\t2\n\nc\t3\nd\t4\ne\t5\n"), "--batch", "2")
	want := "syntropy: too few replicas; 2 rows are stored, and of lines 4 to 5 some may be: import again, which is safe\n"
	if got != (result{exitFailed, "", want}) {
		t.Errorf("%+v", got)
	}
}

func TestImportShowsProgress(t *testing.T) {
	f := &fakeNode{}
	sh := newShell(t, f)
	sh.tick = 3 * time.Second
	path := rowsFile(t, "rows.tsv", "a\t1\nb\t2\nc\t3\nd\t4\n")
	got := sh.run("import", path, "--batch", "1")
	if want := "1 row is stored so far (25% of the file)\n3 rows are stored so far (75% of the file)\n"; got.err != want {
		t.Errorf("lines: %q", got.err)
	}
	sh.bar = true
	for _, file := range []string{path, "-"} {
		sh.stdin = strings.NewReader("a\t1\n")
		got = sh.run("import", file, "--format", "tsv")
		if got.status != exitOK || !strings.Contains(got.err, "importing") || strings.Contains(got.out, "importing") {
			t.Errorf("bar: %+v", got)
		}
	}
	if got := sh.run("import", filepath.Join(t.TempDir(), "absent.tsv")); got.status != exitFailed || !strings.Contains(got.err, "no such file") {
		t.Errorf("absent: %+v", got)
	}
}
