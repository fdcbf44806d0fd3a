package rowfile

import (
	"bytes"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func Example() {
	r, err := NewReader(strings.NewReader("U+0041\tLATIN CAPITAL LETTER A\noops\nU+0042\tLATIN CAPITAL LETTER B\n"),
		"names.tsv", Options{Format: TSV})
	if err != nil {
		panic(err)
	}
	for {
		row, err := r.Next()
		if err == io.EOF {
			break
		}
		if bad, ok := errors.AsType[*LineError](err); ok {
			fmt.Println("skipped:", bad)
			continue
		}
		if err != nil {
			panic(err)
		}
		fmt.Printf("%d %s = %s\n", row.Line, row.Key, row.Value)
	}
	// Output:
	// 1 U+0041 = LATIN CAPITAL LETTER A
	// skipped: names.tsv:2: there is no TAB between a key and a value
	// 3 U+0042 = LATIN CAPITAL LETTER B
}

// transcript reads everything and writes one line per answer of Next.
func transcript(t *testing.T, src io.Reader, name string, opts Options) string {
	t.Helper()
	r, err := NewReader(src, name, opts)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for {
		row, err := r.Next()
		if err == io.EOF {
			return out.String()
		}
		if bad, ok := errors.AsType[*LineError](err); ok {
			fmt.Fprintf(&out, "!! %v\n", bad)
			continue
		}
		if err != nil {
			fmt.Fprintf(&out, "END %v\n", err)
			return out.String()
		}
		fmt.Fprintf(&out, "%d: %q = %q\n", row.Line, row.Key, row.Value)
	}
}

// TestGolden reads every file in testdata, in one go and byte by byte, with
// LF and with CRLF line ends, with a byte order mark and without: the rows and
// the line numbers of the errors are always the same.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.*")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, path := range inputs {
		format, err := FormatOf(path)
		if err != nil {
			continue // a golden file
		}
		files++
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			opts := Options{Format: format, Header: strings.Contains(path, "header")}
			name := filepath.Base(path)
			got := transcript(t, bytes.NewReader(text), name, opts)
			golden := path + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			crlf := bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
			for how, src := range map[string]io.Reader{
				"as it is":        bytes.NewReader(text),
				"byte by byte":    iotest.OneByteReader(bytes.NewReader(text)),
				"with a mark":     io.MultiReader(strings.NewReader("\ufeff"), bytes.NewReader(text)),
				"no last newline": bytes.NewReader(bytes.TrimSuffix(text, []byte("\n"))),
				"CRLF":            bytes.NewReader(crlf),
			} {
				got := transcript(t, src, name, opts)
				if how == "CRLF" { // a line end inside quotes is data
					got = strings.ReplaceAll(got, `\r\n`, `\n`)
				}
				if got != string(want) {
					t.Errorf("%s: got\n%s\nwant\n%s", how, got, want)
				}
			}
		})
	}
	if files < 6 {
		t.Errorf("%d files in testdata, want at least 6", files)
	}
}

func TestCRLFInsideAQuotedValueIsKept(t *testing.T) {
	got := transcript(t, strings.NewReader("k,\"a\r\nb\"\r\n"), "x", Options{Format: CSV})
	if want := "1: \"k\" = \"a\\r\\nb\"\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLimits(t *testing.T) {
	k, v := strings.Repeat("k", MaxKeyBytes), strings.Repeat("v", MaxValueBytes)
	long := strings.Repeat("x", MaxLineBytes)
	for name, tc := range map[string]struct {
		format Format
		text   string
		want   string // what the transcript must contain
	}{
		"largest row":        {TSV, k + "\t" + v, `1: "kkk`},
		"key too long":       {TSV, k + "k\tv\nnext\trow", "!! f:1: the key has 65537 bytes, more than the limit of 65536 (64 KiB)\n2: \"next\""},
		"value too long":     {TSV, "k\t" + v + "v\nnext\trow", "!! f:1: the value has 8388609 bytes, more than the limit of 8388608 (8 MiB)\n2: \"next\""},
		"line too long":      {TSV, "k\t" + long + "\nnext\trow", "!! f:1: the line is longer than 25165824 bytes (24 MiB)\n2: \"next\""},
		"last line too long": {JSONL, "\n" + long + "x", "!! f:2: the line is longer"},
		// The line that was gathered and lost is reported in its turn.
		"quote before a long line": {CSV, "a,\"b\nc,d\n" + long + "xx\ne,f", "!! f:1: a quote (\") is opened and not closed within 25165824 bytes (24 MiB)\n" +
			"2: \"c\" = \"d\"\n!! f:3: the line is longer than 25165824 bytes (24 MiB)\n4: \"e\" = \"f\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := transcript(t, strings.NewReader(tc.text), "f", Options{Format: tc.format})
			if !strings.Contains(got, tc.want) {
				t.Errorf("got %.300s\nwant %s", got, tc.want)
			}
		})
	}
}

// An unclosed quote before very many rows costs one row, and time that grows
// with the file and not with its square.
func TestAnUnclosedQuoteCostsOneRow(t *testing.T) {
	const rows = 300_000
	text := "first,\"oops\n" + strings.Repeat("k,v\n,\n", rows/2)
	r, err := NewReader(strings.NewReader(text), "f", Options{Format: CSV})
	if err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	for {
		_, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			bad++
		} else {
			good++
		}
	}
	// The unclosed row, and every "," for its empty key.
	if good != rows/2 || bad != rows/2+1 {
		t.Errorf("%d good rows and %d bad ones", good, bad)
	}
}

func TestAFailingDiskEndsTheReading(t *testing.T) {
	for _, format := range []Format{TSV, CSV, JSONL} {
		src := io.MultiReader(strings.NewReader("a\tb"), iotest.ErrReader(errors.New("disk on fire")))
		got := transcript(t, src, "f", Options{Format: format})
		if want := "END f: reading after line 0: disk on fire\n"; got != want {
			t.Errorf("%v: got %s, want %s", format, got, want)
		}
	}
}

func TestUTF16IsRefused(t *testing.T) {
	got := transcript(t, strings.NewReader("\xff\xfea\x00\t\x00"), "f", Options{Format: TSV})
	if !strings.Contains(got, "convert it to UTF-8") {
		t.Error(got)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rows.CSV")
	if err := os.WriteFile(path, []byte("k,v\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	row, err := r.Next()
	if err != nil || string(row.Key) != "k" || string(row.Value) != "v" || r.Size() != 4 || r.Offset() != 4 {
		t.Errorf("row %v, size %d, offset %d, error %v", row, r.Size(), r.Offset(), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}

	for path, want := range map[string]string{
		"-":                              "standard input has no name",
		"rows.dat":                       "does not tell the format",
		filepath.Join(dir, "absent.tsv"): "no such file",
	} {
		if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want %q", path, err, want)
		}
	}
	if _, err := Open(dir, Options{Format: TSV}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := NewReader(strings.NewReader(""), "f", Options{Format: JSONL, Header: true}); err == nil {
		t.Error("a header of JSON lines was accepted")
	}
	if _, err := ParseFormat("xml"); err == nil {
		t.Error("xml is a format")
	}
}

// FuzzReader throws bytes at all three formats: no panic, an end, line numbers
// that never run backwards, and limits that hold.
func FuzzReader(f *testing.F) {
	for _, path := range []string{"plain.tsv", "broken.tsv", "quotes.csv", "broken.csv", "broken.jsonl"} {
		if text, err := os.ReadFile(filepath.Join("testdata", path)); err == nil {
			f.Add(text)
		}
	}
	f.Add([]byte("\ufeffa,\"b\r\n\"\"c\"\r\n\"x\"y,z"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, format := range []Format{TSV, CSV, JSONL} {
			r, err := NewReader(bytes.NewReader(text), "f", Options{Format: format})
			if err != nil {
				t.Fatal(err)
			}
			last := 0
			for {
				row, err := r.Next()
				line := row.Line
				if bad, ok := errors.AsType[*LineError](err); ok {
					line = bad.Line
				} else if err != nil {
					break
				} else if len(row.Key) == 0 || len(row.Key) > MaxKeyBytes || len(row.Value) > MaxValueBytes {
					t.Fatalf("%v: row %v breaks a limit", format, row)
				}
				if line <= last {
					t.Fatalf("%v: line %d after line %d", format, line, last)
				}
				last = line
			}
			if format == CSV && last > bytes.Count(text, []byte("\n"))+1 {
				t.Fatalf("line %d of a file with fewer", last)
			}
		}
	})
}

// FuzzCSVAgreesWithTheStandardLibrary: on a file without errors this parser and
// encoding/csv read the same.
func FuzzCSVAgreesWithTheStandardLibrary(f *testing.F) {
	f.Add("a,b\n\"c,\"\"d\"\"\",e\n\nf,\"g\nh\"\n")
	f.Add("a,\r\n,\"\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\r") || strings.HasPrefix(text, "\ufeff") ||
			strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
			return // see the package comment
		}
		std := csv.NewReader(strings.NewReader(text))
		std.FieldsPerRecord = 2
		want, err := std.ReadAll()
		wrong := err != nil
		var got [][]string
		r, err := NewReader(strings.NewReader(text), "f", Options{Format: CSV})
		if err != nil {
			t.Fatal(err)
		}
		for {
			row, err := r.next() // without the check of sizes
			if err == io.EOF {
				break
			}
			if err != nil {
				if !wrong {
					t.Fatalf("%q: %v, but encoding/csv reads %q", text, err, want)
				}
				return
			}
			got = append(got, []string{string(row.Key), string(row.Value)})
		}
		if wrong {
			t.Fatalf("%q: read %q, but encoding/csv fails", text, got)
		}
		if fmt.Sprint(len(got), got) != fmt.Sprint(len(want), want) {
			t.Fatalf("%q: read %q, but encoding/csv reads %q", text, got, want)
		}
	})
}
