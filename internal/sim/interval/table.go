package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// row is one line of the table: what is measured, and how it is read off a run.
type row struct {
	name string
	of   func(c *cluster) float64
	show func(v float64) string
	// worst shows the greatest of all runs instead of their median: a maximum
	// is about the one bad day.
	worst bool
	// repaired rows make no sense without anti-entropy.
	repaired bool
}

// perPairDay divides what one run counted among pairs and days.
func perPairDay(of func(t *tally) float64) func(c *cluster) float64 {
	return func(c *cluster) float64 { return of(c.tally) / float64(pairs*c.Days) }
}

func rows() []row {
	all := func(t *tally) traffic {
		return traffic{
			t.quiet.sessions + t.repairing.sessions, t.quiet.rounds + t.repairing.rounds,
			t.quiet.entries + t.repairing.entries, t.quiet.bytes + t.repairing.bytes,
		}
	}
	age := func(why cause, q float64) func(c *cluster) float64 {
		return func(c *cluster) float64 { return float64(quantile(c.tally.missed[why].age, q)) }
	}
	exposed := func(why cause, q float64) func(c *cluster) float64 {
		return func(c *cluster) float64 { return float64(quantile(c.tally.missed[why].exposed, q)) }
	}
	share := func(why cause, h healer) func(c *cluster) float64 {
		return func(c *cluster) float64 {
			m := &c.tally.missed[why]
			return ratio(float64(m.healedBy[h]), float64(len(m.age)))
		}
	}
	return []row{
		{name: "**Traffic, per pair and day**"},
		{name: "sessions", of: perPairDay(func(t *tally) float64 { return float64(all(t).sessions) }), show: significant, repaired: true},
		{name: "of them with nothing to repair", of: perPairDay(func(t *tally) float64 { return float64(t.quiet.sessions) }), show: significant, repaired: true},
		{name: "bytes of those", of: perPairDay(func(t *tally) float64 { return float64(t.quiet.bytes) }), show: size, repaired: true},
		{name: "bytes of sessions that repaired", of: perPairDay(func(t *tally) float64 { return float64(t.repairing.bytes) }), show: size, repaired: true},
		{name: "entries repaired", of: perPairDay(func(t *tally) float64 { return float64(t.repairing.entries) }), show: significant, repaired: true},
		{name: "bytes of all sessions per entry repaired", of: func(c *cluster) float64 {
			return ratio(float64(all(c.tally).bytes), float64(c.tally.repairing.entries))
		}, show: size, repaired: true},
		{name: "**Writes missed by a replica that was up: until it has them**"},
		{name: "median", of: age(whileUp, 0.5), show: span},
		{name: "99 of 100 within", of: age(whileUp, 0.99), show: span},
		{name: "longest, all seeds", of: age(whileUp, 1), show: span, worst: true},
		{name: "healed by anti-entropy", of: share(whileUp, byAntiEntropy), show: percent},
		{name: "by read repair", of: share(whileUp, byReadRepair), show: percent},
		{name: "by a newer write of the key", of: share(whileUp, byNewer), show: percent},
		{name: "by nothing before the end", of: share(whileUp, byNothing), show: percent},
		{name: "**Writes missed in a long outage: until the replica has them**"},
		{name: "median", of: age(whileAway, 0.5), show: span},
		{name: "99 of 100 within", of: age(whileAway, 0.99), show: span},
		{name: "longest, all seeds", of: age(whileAway, 1), show: span, worst: true},
		{name: "back up and still without them: 99 of 100 within", of: exposed(whileAway, 0.99), show: span},
		{name: "the same, longest of all seeds", of: exposed(whileAway, 1), show: span, worst: true},
		{name: "healed by anti-entropy", of: share(whileAway, byAntiEntropy), show: percent},
		{name: "by read repair", of: share(whileAway, byReadRepair), show: percent},
		{name: "by a newer write of the key", of: share(whileAway, byNewer), show: percent},
		{name: "by nothing before the end", of: share(whileAway, byNothing), show: percent},
		{name: "**What a reader sees**"},
		{name: "stale keys on a replica that is up, average", of: func(c *cluster) float64 {
			return ratio(c.tally.servingStale, c.tally.serving) * 1e6
		}, show: ppm},
		{name: "reads at ONE that are stale", of: func(c *cluster) float64 {
			return ratio(float64(c.tally.readsStale), float64(c.tally.readsOne)) * 1e6
		}, show: ppm},
		{name: "**Proof**"},
		{name: "longest time that a pair was unproven, all seeds", of: func(c *cluster) float64 { return float64(c.tally.unprovenMax.age) }, show: span, worst: true, repaired: true},
		{name: "the part of it in which both were up, longest", of: func(c *cluster) float64 { return float64(c.tally.unprovenMax.together) }, show: span, worst: true, repaired: true},
	}
}

// intervalTable prints one column for each interval, runs[interval][seed].
func intervalTable(intervals []time.Duration, runs [][]*cluster) string {
	var b strings.Builder
	b.WriteString("| repair interval |")
	for _, i := range intervals {
		b.WriteString(" " + intervalName(i) + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(intervals)) + "\n")
	for _, r := range rows() {
		b.WriteString("| " + r.name + " |")
		for i := range intervals {
			b.WriteString(" " + r.cell(intervals[i], runs[i]) + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r row) cell(interval time.Duration, runs []*cluster) string {
	if r.of == nil {
		return ""
	}
	if r.repaired && interval == 0 {
		return "-"
	}
	return r.show(r.value(runs))
}

// value is what a row shows of some runs: their median, or their worst.
func (r row) value(runs []*cluster) float64 {
	var values []float64
	for _, c := range runs {
		values = append(values, r.of(c))
	}
	if r.worst {
		return quantile(values, 1)
	}
	return quantile(values, 0.5)
}

// intervalName is a heading. Zero is the scheduler's word for never.
func intervalName(i time.Duration) string {
	if i == 0 {
		return "never"
	}
	return short(i)
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func percent(v float64) string { return strconv.FormatFloat(100*v, 'f', 1, 64) + "%" }
func ppm(v float64) string     { return significant(v) + " in a million" }

func size(v float64) string {
	switch {
	case v >= 1<<20:
		return significant(v/(1<<20)) + " MiB"
	case v >= 10<<10:
		return significant(v/(1<<10)) + " KiB"
	}
	return strconv.FormatFloat(v, 'f', 0, 64) + " B"
}

// significant prints no more figures behind the point than mean something.
func significant(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func span(v float64) string { return short(time.Duration(v)) }

// short prints a duration in the one unit that suits it.
func short(d time.Duration) string {
	unit := func(u time.Duration, name string) string {
		return strconv.FormatFloat(float64(int(float64(d)/float64(u)*10+0.5))/10, 'f', -1, 64) + " " + name
	}
	switch {
	case d >= 48*time.Hour:
		return unit(24*time.Hour, "days")
	case d >= time.Hour:
		return unit(time.Hour, "h")
	case d >= time.Minute:
		return unit(time.Minute, "min")
	}
	return unit(time.Second, "s")
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// summary says what the seeds had in common, whatever the interval: the table
// is worth nothing without it.
func summary(runs []*cluster) string {
	median := func(of func(t *tally) int) int {
		var values []int
		for _, c := range runs {
			values = append(values, of(c.tally))
		}
		return quantile(values, 0.5)
	}
	total := func(of func(t *tally) int) (sum int) {
		for _, c := range runs {
			sum += of(c.tally)
		}
		return sum
	}
	long := func(t *tally) int { return t.longOutages }
	out := func(t *tally) int { return t.outages }
	return fmt.Sprintf("In the median run: %s writes; %d outages, %d of them longer than the hint window (in all runs together %d and %d); "+
		"%s deliveries made good by hints; %s writes missed in an outage that hints do not cover; %s missed by a replica that was up.\n",
		thousands(median(func(t *tally) int { return t.writes })), median(out), median(long), total(out), total(long),
		thousands(median(func(t *tally) int { return t.hinted })),
		thousands(median(func(t *tally) int { return len(t.missed[whileAway].age) })), thousands(median(func(t *tally) int { return len(t.missed[whileUp].age) })))
}
