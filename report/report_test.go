package report

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// Scripts depend on these names: a field may be added, and none renamed or removed.
func TestJSONNamesAreKept(t *testing.T) {
	now := time.Unix(0, 0)
	for _, c := range []struct {
		value any
		names string
	}{
		{Status{}, "cluster topology_version nodes oldest_unproven_seconds hints_pending tombstones rebuilding pairs counters node"},
		{NodeStatus{}, "node peer up state shards entries tombstones clock_skew_ms hints_pending writes_missed"},
		{PairStatus{ProvenUntil: &now}, "a b shards proven_until unproven_seconds"},
		{Inspection{}, "key shard slot token agree replicas"},
		{ReplicaVersion{}, "node state found tombstone timestamp expires value_bytes digest"},
		{Roots{}, "equal recomputed shards"},
		{ShardRoots{}, "shard replicas"},
		{ReplicaRoot{}, "node state root entries purge_cut"},
		{Repair{}, "initiator partner shards shards_equal rounds bytes_sent bytes_received keys_diverged keys_pulled keys_pushed " +
			"keys_in_flight rebuilds duration_ms error"},
		{Repair{NamingRounds: 1, RowsRead: 1, NodesCompared: 1, EntryBytes: 1}, "naming_rounds rows_read nodes_compared entry_bytes"},
		{Counters{}, "writes_in_flight hints_pending deliveries_failed hints_kept hints_delivered hints_expired hints_dropped hints_rejected " +
			"read_repairs sessions_scheduled keys_pulled keys_pushed rows_read_by_repair"},
		{Difference{}, "shard key token initiator partner action reason"},
		{SideVersion{}, "timestamp time writer tombstone value_bytes expires"},
		{DescentStep{}, "shard level node initiator initiator_entries partner partner_entries outcome then"},
		{RepairOptions{Node: 1, Shard: new(int), DryRun: true, Explain: true, NoWait: true}, "node shard dry_run explain no_wait"},
	} {
		text, err := json.Marshal(c.value)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		for _, name := range strings.Fields(c.names) {
			if _, ok := fields[name]; !ok {
				t.Errorf("%T has no field %q any more: %s", c.value, name, text)
			}
		}
	}
}

func TestJSONKey(t *testing.T) {
	for _, c := range []struct{ key, text, b64 string }{
		{"käse", "käse", ""},
		{"\xff\x00", "\xff\x00", "/wA="},
	} {
		if text, b64 := JSONKey([]byte(c.key)); text != c.text || b64 != c.b64 {
			t.Errorf("%q: %q and %q, want %q and %q", c.key, text, b64, c.text, c.b64)
		}
	}
	states := []string{StateChecking, StateJoining, StateLive, StateStale, StateDown}
	if want := []string{"checking", "joining", "live", "stale", "down"}; !slices.Equal(states, want) {
		t.Errorf("the states are called %q, scripts know %q", states, want)
	}
}
