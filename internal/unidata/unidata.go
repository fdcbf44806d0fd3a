// Package unidata provides a data set that everybody can check by eye: the names
// of the Unicode characters, about 34,000 rows that come with the program.
//
// A demonstration on random bytes proves nothing to the person who watches it.
// "U+0041" is LATIN CAPITAL LETTER A on every computer in the world, so after
// an outage, a repair and a proof anyone can look a row up and see that it is
// right.
//
// The names are those of golang.org/x/text/unicode/runenames, compiled in: no
// download, no file, and the same rows in the same order on every run.
package unidata

import (
	"fmt"
	"iter"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/runenames"
)

// Rows yields every named character in the order of its code point: the key is
// like "U+0041" and the value like "LATIN CAPITAL LETTER A". Ranges that have
// only a label, such as "<control>" and "<CJK Ideograph>", are left out: their
// rows would all be the same.
func Rows() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for r := rune(0); r <= unicode.MaxRune; r++ {
			name := runenames.Name(r)
			if name == "" || strings.HasPrefix(name, "<") {
				continue
			}
			if !yield(fmt.Sprintf("U+%04X", r), name) {
				return
			}
		}
	}
}
