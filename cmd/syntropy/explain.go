package main

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"syntropy/report"
)

// printExplanation draws a session as a textbook draws a Merkle comparison: for
// each shard the levels from the root down, with both digests side by side and
// what their comparison led to, then the keys that were found at the bottom.
func (a *app) printExplanation(r report.Repair) {
	w := a.out
	fmt.Fprintln(w, paint(fmt.Sprintf("%v compares its replicas with those of %v", r.Initiator, r.Partner), bold, a.colour))
	fmt.Fprintf(w, "%s in common, %s equal at the root\n\n", plural(r.Shards, "shard"), count(r.ShardsEqual))

	steps := map[int][]report.DescentStep{}
	for _, s := range r.Descent {
		steps[s.Shard] = append(steps[s.Shard], s)
	}
	found := map[int][]report.Difference{}
	for _, d := range r.Differences {
		found[d.Shard] = append(found[d.Shard], d)
		if steps[d.Shard] == nil {
			steps[d.Shard] = []report.DescentStep{} // found without a descent
		}
	}
	equal := 0
	for _, shard := range slices.Sorted(maps.Keys(steps)) {
		if len(found[shard]) == 0 && len(steps[shard]) == 1 && steps[shard][0].Outcome == "match" {
			equal++ // one line for all of them, below
			continue
		}
		fmt.Fprintln(w, paint(fmt.Sprintf("shard %d", shard), bold, a.colour))
		if len(steps[shard]) > 0 {
			a.printDescent(r, steps[shard])
		}
		a.printFound(r, found[shard])
		fmt.Fprintln(w)
	}
	if equal > 0 {
		fmt.Fprintf(w, "%s more: the roots match, so everything below is equal and nothing was looked at\n\n", plural(equal, "shard"))
	}
	a.printTruncated(w, r)
}

// printDescent draws the comparisons of one shard, level by level.
func (a *app) printDescent(r report.Repair, steps []report.DescentStep) {
	slices.SortStableFunc(steps, func(x, y report.DescentStep) int {
		return cmp.Or(cmp.Compare(x.Level, y.Level), cmp.Compare(x.Node, y.Node))
	})
	t := table{align: "rlrrrrll", indent: "  "}
	t.head("", "", r.Initiator.String(), "", r.Partner.String(), "", "", "")
	t.row(cell{text: "level", style: dim}, cell{text: "node", style: dim}, cell{text: "digest", style: dim}, cell{text: "entries", style: dim}, cell{text: "digest", style: dim}, cell{text: "entries", style: dim})
	level := -1
	for i, s := range steps {
		last := i+1 == len(steps) || steps[i+1].Level != s.Level || parent(steps[i+1].Node) != parent(s.Node)
		label := ""
		if s.Level != level {
			level = s.Level
			label = count(level)
		}
		outcome, then, digest := cell{text: s.Outcome, style: yellow}, cell{text: s.Then}, cell{style: yellow}
		if s.Outcome == "match" {
			outcome, then.style, digest.style = cell{text: s.Outcome, style: green}, dim, dim
		}
		mine, theirs := digest, digest
		mine.text, theirs.text = short(s.Initiator), short(s.Partner)
		t.row(label, nodePath(s, last), mine, count(s.InitiatorEntries), theirs, count(s.PartnerEntries), outcome, then)
	}
	t.print(a.out, a.colour)
}

// nodePath prints a node's path in nibbles, further right the deeper it is, so
// that the column looks like the tree. last marks the last one compared below
// its parent.
func nodePath(s report.DescentStep, last bool) string {
	if s.Node == "" {
		return "root"
	}
	branch := "├ "
	if last {
		branch = "└ "
	}
	return strings.Repeat("  ", max(0, s.Level-1)) + branch + s.Node
}

func parent(path string) string { return path[:max(0, len(path)-1)] }

// printFound draws the keys at the bottom of a shard's descent: both versions,
// which one wins and why, and which way it goes.
func (a *app) printFound(r report.Repair, found []report.Difference) {
	for _, d := range found {
		fmt.Fprintf(a.out, "\n  key %s   token %s\n", paint(keyText(d, 60), bold, a.colour), d.Token)
		t := table{indent: "    "}
		mine, theirs := cell{}, cell{}
		switch d.Action {
		case "push":
			mine = cell{text: "wins", style: green}
		case "pull":
			theirs = cell{text: "wins", style: green}
		}
		t.row(append([]any{r.Initiator}, explained(d.Initiator, mine)...)...)
		t.row(append([]any{r.Partner}, explained(d.Partner, theirs)...)...)
		t.print(a.out, a.colour)
		fmt.Fprintf(a.out, "    %s   %s\n", direction(r, d), reason(r, d))
	}
}

// printDifferences lists what a dry run found.
func (a *app) printDifferences(r report.Repair) {
	fmt.Fprintln(a.out, paint(fmt.Sprintf("%v and %v differ in these keys", r.Initiator, r.Partner), bold, a.colour))
	t := table{align: "r"}
	t.head("SHARD", "KEY", "AT", "HOLDS", "WRITTEN", "BY")
	for _, d := range r.Differences {
		first := append([]any{d.Shard, keyText(d, 36), r.Initiator}, versionOf(d.Initiator)...)
		second := append([]any{"", "", r.Partner}, versionOf(d.Partner)...)
		t.row(first...)
		t.row(second...)
		t.row("", "", cell{text: direction(r, d) + "   " + reason(r, d), style: yellow, free: true})
	}
	t.print(a.out, a.colour)
	a.printTruncated(a.out, r)
	fmt.Fprintln(a.out)
}

func (a *app) printTruncated(w io.Writer, r report.Repair) {
	if r.Truncated > 0 {
		fmt.Fprintf(w, "%s more left out: the lists are bounded; --shard S shows one shard\n", plural(r.Truncated, "line"))
	}
}

// keyOf returns the key's bytes, which JSON text cannot always hold.
func keyOf(d report.Difference) string {
	if raw, err := base64.StdEncoding.DecodeString(d.KeyBase64); err == nil && len(raw) > 0 {
		return string(raw)
	}
	return d.Key
}

// keyText shows a key. Of one that is left alone because it was written again
// meanwhile, the session may know no more than its place.
func keyText(d report.Difference, width int) string {
	if key := keyOf(d); key != "" {
		return showKey(key, width)
	}
	return "(not told)"
}

// reason tells why in terms of nodes; the report speaks of the session's sides.
func reason(r report.Repair, d report.Difference) string {
	return strings.NewReplacer("the initiator", r.Initiator.String(), "the partner", r.Partner.String()).Replace(d.Reason)
}

// direction draws which way a version goes, with the first node always left.
func direction(r report.Repair, d report.Difference) string {
	switch d.Action {
	case "push":
		return fmt.Sprintf("%v -> %v", r.Initiator, r.Partner)
	case "pull":
		return fmt.Sprintf("%v <- %v", r.Initiator, r.Partner)
	case "both":
		return fmt.Sprintf("%v <-> %v", r.Initiator, r.Partner)
	case "wait":
		return "in flight"
	}
	return d.Action
}

// versionOf prints what a side holds, when it was written and by whom.
func versionOf(v *report.SideVersion) []any {
	switch {
	case v == nil:
		return []any{"nothing", "", ""}
	case v.Tombstone:
		return []any{"tombstone", v.Time, v.Writer}
	case v.ValueBytes < 0: // it was not told
		return []any{"value", v.Time, v.Writer}
	}
	return []any{"value, " + plural(v.ValueBytes, "byte"), v.Time, v.Writer}
}

// explained is versionOf in the words of an explanation, with the verdict and the
// expiry.
func explained(v *report.SideVersion, verdict cell) []any {
	fields := versionOf(v)
	expires := ""
	if v != nil {
		fields[2] = "by " + v.Writer
		if v.Expires != nil {
			expires = "expires " + when(v.Expires)
		}
	}
	return append(fields, verdict, expires)
}
