package main

import (
	"fmt"
	"strings"
)

// table is Markdown that is read as it is, too.
func (f figures) table() string {
	var b strings.Builder
	rows := float64(f.Rows)
	fmt.Fprintf(&b, "- %s rows, keys of %d bytes, values of %d random bytes, %d shards\n", group(int64(f.Rows)), keyBytes, f.ValueBytes, f.Shards)
	fmt.Fprintf(&b, "- %s\n", f.Machine)
	fmt.Fprintf(&b, "- `%s`\n\n", f.Command)
	line := func(what, is string) { fmt.Fprintf(&b, "| %-58s | %30s |\n", what, is) }
	line("one replica", "")
	fmt.Fprintf(&b, "|%s|%s:|\n", strings.Repeat("-", 60), strings.Repeat("-", 31))
	line("load, rows a second", group(int64(rows/f.LoadSeconds)))
	line("load, seconds (of CPU time)", fmt.Sprintf("%.0f (%.0f)", f.LoadSeconds, f.LoadCPU))
	line("disk, bytes a row", fmt.Sprintf("%.1f", float64(f.DiskBytes)/rows))
	line("trees in memory, MiB (bytes a row)", fmt.Sprintf("%.1f (%.3f)", float64(f.TreeBytes)/(1<<20), float64(f.TreeBytes)/rows))
	line("resident memory after opening, MiB", fmt.Sprintf("%.0f", float64(f.MemoryBytes)/(1<<20)))
	line("opening, seconds (of it Pebble alone)", fmt.Sprintf("%.2f (%.2f)", f.OpenSeconds, f.EngineSeconds))
	line("ratio to opening Pebble alone", fmt.Sprintf("%.1f", f.OpenSeconds/f.EngineSeconds))
	fmt.Fprintf(&b, "\n| rows that differ | milliseconds | of CPU, both sides | bytes | rounds | rows read |\n|---:|---:|---:|---:|---:|---:|\n")
	for _, s := range f.Sessions {
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %s | %d | %s |\n", group(int64(s.Diverged)), 1000*s.Seconds, 1000*s.CPU, group(s.Bytes), s.Rounds, group(int64(s.RowsRead)))
	}
	return b.String()
}

func group(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
