package main

import (
	"fmt"
	"strings"
	"time"

	"syntropy/lww"
)

// cost is what one session took to settle a number of differences.
type cost struct {
	differ   int
	repaired traffic
	inFlight traffic // the same differences, too young to be repaired
}

// sessionCosts measures single sessions: two replicas with all keys of the
// scenario, one of which lacks the last write of some of them.
func sessionCosts(s scenario) (costs []cost, err error) {
	for differ := 0; differ <= s.Keys/10; differ = max(1, 10*differ) {
		c := cost{differ: differ}
		if c.repaired, err = oneSession(s, differ, time.Hour); err != nil {
			return nil, err
		}
		if c.inFlight, err = oneSession(s, differ, 0); err != nil {
			return nil, err
		}
		costs = append(costs, c)
	}
	return costs, nil
}

// oneSession runs the session of two replicas some time after one of them missed
// so many writes.
func oneSession(s scenario, differ int, after time.Duration) (traffic, error) {
	c, err := newCluster(s, 0, 1)
	if err != nil {
		return traffic{}, err
	}
	c.now = time.Hour
	a, b := c.nodes[0], c.nodes[1]
	// Every so many'th key, so that they are spread over the shards.
	for i := range differ {
		if err := c.miss(a, b, i*(s.Keys/differ)); err != nil {
			return traffic{}, err
		}
	}
	c.now += after
	if err := c.repair(a, b); err != nil {
		return traffic{}, err
	}
	t := c.tally.quiet
	if t.sessions == 0 {
		t = c.tally.repairing
	}
	return t, nil
}

// miss writes a key on one replica only.
func (c *cluster) miss(has, lacks *replica, key int) error {
	e := c.entry(key, has.id)
	err := c.apply(has, []lww.Entry{e}, byNewer)
	c.acknowledge(key, e.Stamp)
	lacks.missed(key, miss{whileUp, e.Stamp, c.now, lacks.served})
	return err
}

func costTable(costs []cost) string {
	var b strings.Builder
	b.WriteString("One session, by how many keys differ. In flight means that the differences are younger than the settle window: they are looked at and left alone.\n\n")
	b.WriteString("| keys that differ | rounds | bytes | bytes a key | rounds, all in flight | bytes, all in flight |\n|---:|---:|---:|---:|---:|---:|\n")
	for _, c := range costs {
		each := "-"
		if c.differ > 0 {
			each = size(float64(c.repaired.bytes) / float64(c.differ))
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %d | %s |\n", thousands(c.differ), c.repaired.rounds, size(float64(c.repaired.bytes)), each,
			c.inFlight.rounds, size(float64(c.inFlight.bytes)))
	}
	return b.String()
}
