package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// What a repair may cost.
const (
	// overheadMax is how many bytes it may take to find a key that differs, beside
	// the row itself.
	overheadMax = 90
	// rowsReadMax is how many rows may be read for each key that differs: by each
	// node, and by both together.
	rowsReadMax = 100
)

// bound is one promise and what came of it.
type bound struct {
	What string  `json:"what"`
	Is   float64 `json:"is"`
	Max  float64 `json:"max"`
	Pass bool    `json:"pass"`
}

func (f *figures) judge() {
	add := func(what string, is, most float64) {
		f.Bounds = append(f.Bounds, bound{what, is, most, is <= most})
	}
	stale := float64(f.Stale)
	add("bytes, both ways", float64(f.Repair.bytes()), float64(f.EncodedBytes)+overheadMax*stale)
	add("rows read by both nodes, for each key that differs", float64(f.Repair.RowsRead)/stale, rowsReadMax)
	for i, n := range f.Repair.NodeRows {
		add(fmt.Sprintf("rows read by n%d, for each key that differs", i+1), float64(n)/stale, rowsReadMax)
	}
}

// wrong tells whether the repair did not do what it says. What it costs is judged
// by the bounds and is no error.
func (f *figures) wrong() error {
	var errs []error
	claim := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	claim(f.StillStale == f.StillStaleAsked && f.HintsDelivered == 0, "something other than the repair brought rows to n2: %d of %d were still stale, %d came by hints", f.StillStale, f.StillStaleAsked, f.HintsDelivered)
	claim(f.Repair.KeysDiverged == f.Stale && f.Repair.KeysPushed == f.Stale && f.Repair.KeysPulled == 0 && f.Repair.KeysInFlight == 0,
		"%d rows were stale, and the repair found %d, pushed %d, pulled %d and left %d", f.Stale, f.Repair.KeysDiverged, f.Repair.KeysPushed, f.Repair.KeysPulled, f.Repair.KeysInFlight)
	claim(f.Again.KeysDiverged == 0, "the second repair found %d keys", f.Again.KeysDiverged)
	claim(f.RootsEqual, "the roots differ after the repair")
	claim(f.Arrived == f.Stale, "n2 answers %d of %d stale rows with their new value", f.Arrived, f.Stale)
	claim(f.Kept == f.KeptAsked, "n2 answers %d of %d other rows with the value that they had", f.Kept, f.KeptAsked)
	return errors.Join(errs...)
}

// table is Markdown that is read as it is, too.
func (f *figures) table() string {
	var b strings.Builder
	row := func(name string, cells ...string) {
		cells = append(cells, make([]string, 2-len(cells))...)
		fmt.Fprintf(&b, "| %-58s | %22s | %22s |\n", name, cells[0], cells[1])
	}
	rule := func() {
		fmt.Fprintf(&b, "|%s|%s:|%s:|\n", strings.Repeat("-", 60), strings.Repeat("-", 23), strings.Repeat("-", 23))
	}
	r, again := f.Repair, f.Again
	each := func(of float64) string { return fmt.Sprintf("%.1f", of/float64(f.Stale)) }

	fmt.Fprintf(&b, "- %s rows on each node, keys of %d bytes, values of %d random bytes; %s of them stale on n2\n", group(int64(f.Rows)), f.KeyBytes, f.ValueBytes, group(int64(f.Stale)))
	fmt.Fprintf(&b, "- %s\n", f.Machine)
	fmt.Fprintf(&b, "- nodes ran with --sync %s --hint-window %s --repair-interval off, otherwise defaults\n", f.Sync, f.HintWindow)
	fmt.Fprintf(&b, "- `%s`\n\n", f.Command)

	row("the repair", "first", "second, nothing differs")
	rule()
	row("keys that differed", group(int64(r.KeysDiverged)), group(int64(again.KeysDiverged)))
	row("bytes n1 to n2", group(r.BytesSent), group(again.BytesSent))
	row("bytes n2 to n1", group(r.BytesReceived), group(again.BytesReceived))
	row("bytes both ways, framing of messages included", group(r.bytes()), group(again.bytes()))
	row("of them the stale rows, encoded", group(f.EncodedBytes))
	row("the rest, for each key that differed", each(float64(r.bytes()-f.EncodedBytes)))
	if r.TCPBytes > 0 {
		row("bytes on the TCP connections meanwhile, by the kernel", group(r.TCPBytes), group(again.TCPBytes))
		row("of these the rest, for each key that differed", each(float64(r.TCPBytes-f.EncodedBytes)))
	}
	row("rounds", group(int64(r.Rounds)), group(int64(again.Rounds)))
	row("rounds until every key was known", group(r.NamingRounds), group(again.NamingRounds))
	row("duration, as reported", ms(r.DurationMS), ms(again.DurationMS))
	row("duration of the command", ms(1000*r.CommandSeconds), ms(1000*again.CommandSeconds))
	for i := range r.CPUSeconds {
		row(fmt.Sprintf("CPU time of n%d", i+1), ms(1000*r.CPUSeconds[i]), ms(1000*again.CPUSeconds[i]))
	}
	row("rows read by both, as reported", group(r.RowsRead), group(again.RowsRead))
	for i := range r.NodeRows {
		row(fmt.Sprintf("rows read by n%d, by its counter", i+1), group(r.NodeRows[i]), group(again.NodeRows[i]))
	}
	row("rows read by both, for each key that differed", each(float64(r.RowsRead)))
	row("nodes of the trees compared", group(r.NodesCompared), group(again.NodesCompared))

	fmt.Fprintf(&b, "\n")
	row("what may be spent", "is", "at most")
	rule()
	for _, v := range f.Bounds {
		verdict := "PASS"
		if !v.Pass {
			verdict = "FALLS SHORT"
		}
		row(v.What+": "+verdict, number1(v.Is), number1(v.Max))
	}

	fmt.Fprintf(&b, "\n")
	row("before and after", "n1", "n2")
	rule()
	row(fmt.Sprintf("load: %.0f s, %s rows a second; CPU time", f.LoadSeconds, group(int64(float64(f.Rows)/f.LoadSeconds))), ms(1000*f.LoadCPU[0]), ms(1000*f.LoadCPU[1]))
	row("batches of the load that were late, and written again", group(int64(f.LoadRetried)))
	row("disk at the end, MiB", group(f.DiskBytes[0]>>20), group(f.DiskBytes[1]>>20))
	row("memory, most of this life, MiB", group(f.MemoryBytes[0]>>20), group(f.MemoryBytes[1]>>20))
	row("stop with all data", "", ms(1000*f.StopSeconds))
	row("start with all data, until live", "", ms(1000*f.StartSeconds))
	row("hints for n2 while it was away: kept, expired, delivered", fmt.Sprintf("%s, %s, %s", group(f.HintsKept), group(f.HintsExpired), group(f.HintsDelivered)))
	row("stale before the repair, of rows asked for", "", fmt.Sprintf("%s of %s", group(int64(f.StillStale)), group(int64(f.StillStaleAsked))))
	recomputed := "roots equal"
	if f.RootsRecomputed {
		recomputed = "roots equal, and equal to the sums of all rows"
	}
	row(recomputed, yes(f.RootsEqual), yes(f.RootsEqual))
	row("stale rows that n2, alone, answers with the new value", "", fmt.Sprintf("%s of %s", group(int64(f.Arrived)), group(int64(f.Stale))))
	row("other rows that n2, alone, answers with their value", "", fmt.Sprintf("%s of %s", group(int64(f.Kept)), group(int64(f.KeptAsked))))
	return b.String()
}

func ms(v float64) string {
	if v >= 10_000 {
		return fmt.Sprintf("%.1f s", v/1000)
	}
	return fmt.Sprintf("%.1f ms", v)
}

func number1(v float64) string {
	if v >= 1000 {
		return group(int64(v))
	}
	return fmt.Sprintf("%.1f", v)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// pace tells when something is due again.
type pace struct {
	mu    sync.Mutex
	every time.Duration
	last  time.Time
}

func newPace(every time.Duration) *pace { return &pace{every: every, last: time.Now()} }

func (p *pace) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < p.every {
		return false
	}
	p.last = time.Now()
	return true
}
