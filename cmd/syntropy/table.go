package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rivo/uniseg"
)

// style is an ANSI colour, given by name.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// cell is one field of a table.
type cell struct {
	text  string
	style style
	free  bool // runs over the columns after it, as the last cell of its row
	// brief is for texts of any length, in the last column: what does not fit
	// the page is cut, and stands in full below the table.
	brief bool
}

// pageWidth is the width that output is made for.
const pageWidth = 100

// briefMin is the room in which a text that was cut still says something.
const briefMin = 12

// table aligns rows in columns.
type table struct {
	align  string // per column 'l' or 'r'; missing ones are 'l'
	indent string
	rows   [][]cell
}

// head adds a row of column names.
func (t *table) head(names ...string) {
	row := make([]cell, len(names))
	for i, n := range names {
		row[i] = cell{text: n, style: bold}
	}
	t.rows = append(t.rows, row)
}

// row adds a row of strings and cells.
func (t *table) row(fields ...any) {
	row := make([]cell, len(fields))
	for i, f := range fields {
		if c, ok := f.(cell); ok {
			row[i] = c
		} else {
			row[i] = cell{text: fmt.Sprint(f)}
		}
	}
	t.rows = append(t.rows, row)
}

// print writes the table with two spaces between columns and none at line ends,
// and below it the texts that had to be cut, with the first cell of their rows.
func (t *table) print(w io.Writer, colour bool) {
	var width []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			if !c.free {
				width[i] = max(width[i], uniseg.StringWidth(c.text))
			}
		}
	}
	var cut [][2]cell
	for _, row := range t.rows {
		line, gap, start := "", t.indent, uniseg.StringWidth(t.indent)
		for i, c := range row {
			if c.brief {
				c.text = visible(c.text)
				if room := pageWidth - start; uniseg.StringWidth(c.text) > room {
					cut = append(cut, [2]cell{row[0], c})
					c.text = "see below"
					if room >= briefMin {
						c.text = clip(cut[len(cut)-1][1].text, room)
					}
				}
			}
			start += width[i] + 2
			pad := strings.Repeat(" ", max(0, width[i]-uniseg.StringWidth(c.text)))
			text := paint(c.text, c.style, colour)
			switch {
			case i < len(t.align) && t.align[i] == 'r':
				gap += pad
				pad = ""
			case c.text == "":
				gap += pad + "  "
				continue
			}
			// Spaces are put in front of text only, so none end a line.
			if c.text != "" {
				line += gap + text
				gap = ""
			}
			gap += pad + "  "
		}
		fmt.Fprintln(w, line)
	}
	for i, c := range cut {
		if i == 0 {
			fmt.Fprintln(w)
		}
		head := t.indent + c[0].text + "  "
		for _, line := range wrapped(head, strings.Repeat(" ", uniseg.StringWidth(head)), c[1].text) {
			fmt.Fprintln(w, paint(line, c[1].style, colour))
		}
	}
}

// wrapped breaks text into lines of the page's width, the first of which begins
// with head and the others with indent, which is as wide.
func wrapped(head, indent, text string) (lines []string) {
	line, used := head, uniseg.StringWidth(indent)
	for i, word := range strings.Fields(text) {
		switch width := uniseg.StringWidth(word); {
		case i == 0:
			line, used = line+word, used+width
		case used+1+width > pageWidth:
			lines = append(lines, line)
			line, used = indent+word, uniseg.StringWidth(indent)+width
		default:
			line, used = line+" "+word, used+1+width
		}
	}
	return append(lines, line)
}

// printLong prints a text of any length, such as an error of a node, as a
// paragraph.
func (a *app) printLong(text string, s style) {
	for _, line := range wrapped("", "  ", visible(text)) {
		fmt.Fprintln(a.out, paint(line, s, a.colour))
	}
}

// visible makes one line of a text, without what could drive the terminal.
func visible(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// clip cuts a text to a width, if it is wider.
func clip(text string, width int) string {
	if uniseg.StringWidth(text) <= width {
		return text
	}
	short := ""
	for _, r := range text {
		if uniseg.StringWidth(short+string(r)) > width-2 {
			break
		}
		short += string(r)
	}
	return strings.TrimRight(short, " ") + ".."
}

func paint(text string, s style, colour bool) string {
	if !colour || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// showKey prints a key so that it cannot be taken for anything else: control
// characters (which could also drive the terminal) and bytes that are not UTF-8
// are escaped, and the length is at most width columns.
func showKey(key string, width int) string {
	quoted := strconv.Quote(key)
	text := quoted
	if quoted == `"`+key+`"` && key != "" && strings.TrimSpace(key) == key {
		text = key
	}
	return clip(text, width)
}

// count prints 34924 as "34,924".
func count[T ~int | ~int64 | ~uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural prints "1 key" and "2 keys".
func plural[T ~int | ~int64 | ~uint64](n T, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}

// size prints a number of bytes for people.
func size(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1024 && unit < len(units)-1 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %s", f, units[unit])
}

// span prints a duration for people, from milliseconds to days.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// short returns the first 8 hex digits of a digest: enough to see that two
// differ.
func short(digest string) string {
	return digest[:min(8, len(digest))]
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
