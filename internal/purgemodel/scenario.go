package purgemodel

import "syntropy/purge"

// limits are such that every one matters within few ticks.
var limits = purge.Limits{Grace: 2 * tick, HintWindow: tick, Excluded: quorum - 1}

// scenario returns one with a name: a value that all replicas have, and a delete of it.
func scenario(name string, b Budget) Scenario {
	if b.Raises == 0 {
		b.Raises = 2
	}
	return Scenario{Name: name, Limits: limits, Keys: 1, Writes: []string{"v0", "x0"}, Given: 1, Budget: b}
}

// classes are the things that can go wrong, each by itself.
var classes = []Scenario{
	scenario("calm", Budget{}),
	scenario("down", Budget{Down: 1}),
	scenario("isolate", Budget{Isolate: 1}),
	scenario("cut", Budget{Cut: 1}),
	scenario("replace", Budget{Replace: 1}),
	scenario("restore", Budget{Backup: 1, Restore: 1}),
	scenario("rollback", Budget{Backup: 1, Rollback: 1}),
	scenario("slow", Budget{Slow: 1}),
	scenario("resume", Budget{Slow: 1, Resume: 1}),
	scenario("lost", Budget{Lost: 1}),
	scenario("hint", Budget{Hints: 1}),
	scenario("late", Budget{Late: 1}),
	scenario("read", Budget{Reads: 1}),
	scenario("clock", Budget{Clock: 1}),
	scenario("fail", Budget{Fail: 1}),
}

// and returns a scenario in which both can happen.
func (cfg Scenario) and(o Scenario) Scenario {
	cfg.Name += "+" + o.Name
	a, b := &cfg.Budget, o.Budget
	a.Down += b.Down
	a.Cut += b.Cut
	a.Isolate += b.Isolate
	a.Replace += b.Replace
	a.Backup += b.Backup
	a.Rollback += b.Rollback
	a.Restore += b.Restore
	a.Slow += b.Slow
	a.Resume += b.Resume
	a.Lost += b.Lost
	a.Clock += b.Clock
	a.Hints += b.Hints
	a.Late += b.Late
	a.Reads += b.Reads
	a.Fail += b.Fail
	return cfg
}

// writing returns the scenario with other writes, none of them there at the beginning.
func (cfg Scenario) writing(writes ...string) Scenario {
	cfg.Writes, cfg.Given = writes, 0
	for _, w := range writes {
		if _, key := parseWrite(w); int(key) >= cfg.Keys {
			cfg.Keys = int(key) + 1
		}
	}
	return cfg
}

// after returns the scenario, searched from where these steps lead.
func (cfg Scenario) after(steps ...string) Scenario {
	cfg.Script = steps
	return cfg
}
