package unidata_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"syntropy/internal/unidata"
)

func ExampleRows() {
	n := 0
	for key, value := range unidata.Rows() {
		fmt.Println(key, value)
		if n++; n == 3 {
			break
		}
	}
	// Output:
	// U+0020 SPACE
	// U+0021 EXCLAMATION MARK
	// U+0022 QUOTATION MARK
}

func TestRowsAreTheNamedCharacters(t *testing.T) {
	rows := maps.Collect(unidata.Rows())
	if len(rows) < 30_000 || len(rows) > 60_000 {
		t.Errorf("%d rows, want about 34,000", len(rows))
	}
	for key, want := range map[string]string{
		"U+0041":  "LATIN CAPITAL LETTER A",
		"U+00E9":  "LATIN SMALL LETTER E WITH ACUTE",
		"U+221E":  "INFINITY",
		"U+1F600": "GRINNING FACE",
	} {
		if got := rows[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	for key, value := range rows {
		if strings.ContainsAny(value, "<>") {
			t.Errorf("%s has a label and no name: %q", key, value)
		}
	}
	for _, unnamed := range []string{"U+0000", "U+4E00", "U+AC00", "U+10FFFF"} {
		if name, ok := rows[unnamed]; ok {
			t.Errorf("%s has no name of its own but is a row: %q", unnamed, name)
		}
	}
}

func TestRowsComeInTheSameOrderEveryTime(t *testing.T) {
	var first, second []string
	for key := range unidata.Rows() {
		first = append(first, key)
	}
	for key := range unidata.Rows() {
		second = append(second, key)
	}
	if strings.Join(first, " ") != strings.Join(second, " ") {
		t.Error("two passes differ")
	}
}
