package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// storyIndent sets everything off from the headings.
const storyIndent = "   "

// demoCheck is something that must hold.
type demoCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was found
}

// story tells what the demo does: steps, plain sentences, and what was measured.
type story struct {
	out    io.Writer
	colour bool
	bar    io.Writer // a terminal that shows how far a long step is; nil: none

	steps  int
	checks []demoCheck
	dense  bool // the last line was a check: prose keeps a distance
	empty  bool // the last line was empty
}

// step begins a step.
func (s *story) step(title string) {
	s.steps++
	s.dense = false
	fmt.Fprintf(s.out, "\n%s\n", paint(fmt.Sprintf("%d  %s", s.steps, title), bold, s.colour))
}

// say explains, in lines of the page's width.
func (s *story) say(format string, args ...any) {
	if s.dense {
		fmt.Fprintln(s.out)
	}
	s.dense = false
	s.wrap(storyIndent, storyIndent, fmt.Sprintf(format, args...))
}

// wrap prints text in lines of the page's width; see wrapped.
func (s *story) wrap(head, indent, text string) {
	s.empty = false
	for _, line := range wrapped(head, indent, text) {
		fmt.Fprintln(s.out, line)
	}
}

// check tells whether something holds, and goes on either way.
func (s *story) check(ok bool, name, format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	s.checks = append(s.checks, demoCheck{name, ok, detail})
	mark := paint("ok    ", green, s.colour)
	if !ok {
		mark = paint("FAILED", red, s.colour)
	}
	text := name
	if detail != "" {
		text += ": " + detail
	}
	s.dense = true
	s.wrap(storyIndent+mark+"  ", storyIndent+strings.Repeat(" ", 8), text)
}

// failed returns the names of the checks that failed.
func (s *story) failed() []string {
	names := []string{}
	for _, c := range s.checks {
		if !c.OK {
			names = append(names, c.Name)
		}
	}
	return names
}

// command shows a command of syntropy and what it prints. The printing is that
// of the command itself.
func (s *story) command(line string, print func(*app)) {
	s.dense = false
	if !s.empty {
		fmt.Fprintln(s.out)
	}
	fmt.Fprintf(s.out, "%s%s\n", storyIndent, paint("$ syntropy "+line, bold, s.colour))
	var text bytes.Buffer
	print(&app{out: &text, colour: s.colour})
	for line := range strings.Lines(strings.TrimRight(text.String(), "\n")) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			line = storyIndent + line
		}
		fmt.Fprintln(s.out, line)
	}
	fmt.Fprintln(s.out)
}

// table prints a table of the story's own, set apart by empty lines.
func (s *story) table(t table) {
	t.indent = storyIndent
	s.dense = false
	fmt.Fprintln(s.out)
	t.print(s.out, s.colour)
	fmt.Fprintln(s.out)
	s.empty = true
}

// progress shows how far a long step is, and nothing when it is done.
func (s *story) progress(done, total int, what string) {
	if s.bar == nil {
		return
	}
	if done >= total {
		fmt.Fprint(s.bar, "\r\x1b[K")
		return
	}
	fmt.Fprintf(s.bar, "\r\x1b[K%s%s of %s %s", storyIndent, count(done), count(total), what)
}
