package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Settings are the cluster-wide settings: fixed when the cluster is created,
// the same on every node.
type Settings struct {
	// Replicas is how many replicas a shard should have, 1 to 7. More survive
	// more failures and cost as many times the disk and the writes.
	Replicas int
	// Shards is a power of two, 1 to 4096. Few shards make few, large units of
	// repair and rebuild; many cost memory and messages for each.
	Shards int
	// GCGrace is how long a delete is remembered at least. A replica away for
	// longer is rebuilt. It must exceed the sum of the four durations below, or
	// a delayed write could bring deleted data back.
	GCGrace time.Duration
	// HintWindow is how long a write for a replica that is down is kept.
	HintWindow time.Duration
	// Settle is the age below which a difference counts as still in flight. 0
	// makes repair chase writes that are about to arrive by themselves.
	Settle time.Duration
	// RequestDeadline is how long a coordinator may take over one request.
	RequestDeadline time.Duration
	// MaxClockSkew is how far apart the clocks of two nodes may be. Too low
	// fences healthy nodes; too high lets a wrong clock win every conflict.
	MaxClockSkew time.Duration
	// DigestVersion is the version of the digests in the Merkle trees.
	DigestVersion int
}

// DefaultSettings returns the settings of a cluster created without flags.
func DefaultSettings() Settings {
	return Settings{
		Replicas:        3,
		Shards:          256,
		GCGrace:         240 * time.Hour,
		HintWindow:      3 * time.Hour,
		Settle:          10 * time.Second,
		RequestDeadline: 5 * time.Second,
		MaxClockSkew:    500 * time.Millisecond,
		DigestVersion:   2, // merkle.DigestVersion
	}
}

const (
	maxReplicas = 7    // a write waits for a majority; beyond four answers it only gets slower
	maxShards   = 4096 // four slots of the 16384 to a shard; each shard costs memory on every node
	// maxDuration keeps sums of durations far from overflow. Nobody needs a
	// tombstone for longer.
	maxDuration = 10 * 365 * 24 * time.Hour
)

// Validate reports every setting that no cluster may have.
func (s Settings) Validate() error {
	var errs []error
	if s.Replicas < 1 || s.Replicas > maxReplicas {
		errs = append(errs, fmt.Errorf("replicas is %d: give 1 to %d", s.Replicas, maxReplicas))
	}
	if s.Shards < 1 || s.Shards > maxShards || s.Shards&(s.Shards-1) != 0 {
		errs = append(errs, fmt.Errorf("shards is %d: give a power of two from 1 to %d", s.Shards, maxShards))
	}
	if s.DigestVersion < 1 {
		errs = append(errs, fmt.Errorf("digest_version is %d: the first one is 1", s.DigestVersion))
	}
	for _, d := range []struct {
		name    string
		value   time.Duration
		minimum time.Duration
	}{
		{"gc_grace", s.GCGrace, 1},
		{"hint_window", s.HintWindow, 1},
		{"settle", s.Settle, 0},
		{"request_deadline", s.RequestDeadline, 1},
		{"max_clock_skew", s.MaxClockSkew, 1},
	} {
		switch {
		case d.value < d.minimum && d.minimum == 0:
			errs = append(errs, fmt.Errorf("%s is %v: it must not be negative", d.name, d.value))
		case d.value < d.minimum:
			errs = append(errs, fmt.Errorf("%s is %v: it must be positive", d.name, d.value))
		case d.value > maxDuration:
			errs = append(errs, fmt.Errorf("%s is %v: give at most %v", d.name, d.value, maxDuration))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if late := s.Late(); s.GCGrace <= late {
		return fmt.Errorf("gc_grace %v must exceed hint_window %v + settle %v + request_deadline %v + max_clock_skew %v = %v, "+
			"or a delayed write could bring deleted data back: raise gc_grace or lower hint_window",
			s.GCGrace, s.HintWindow, s.Settle, s.RequestDeadline, s.MaxClockSkew, late)
	}
	return nil
}

// Late returns the age after which no write can still arrive anywhere for the
// first time: hint window, settle, request deadline and clock skew added up.
func (s Settings) Late() time.Duration {
	return s.HintWindow + s.Settle + s.RequestDeadline + s.MaxClockSkew
}

// flags lists the settings in the words of the command line. It is the one
// place that knows them all; a setting without a flag cannot be contradicted.
func (s Settings) flags() []flag {
	return []flag{
		{"replicas", strconv.Itoa(s.Replicas)},
		{"shards", strconv.Itoa(s.Shards)},
		{"gc-grace", s.GCGrace.String()},
		{"hint-window", s.HintWindow.String()},
		{"settle", s.Settle.String()},
		{"request-deadline", s.RequestDeadline.String()},
		{"max-clock-skew", s.MaxClockSkew.String()},
	}
}

type flag struct{ name, value string }

// differences names the settings in which s and o differ, each as
// "--shards 128 HERE, 256 THERE"; it is empty when they are equal. Flags that are
// not given contradict nothing; nil: all are given.
func (s Settings) differences(o Settings, here, there string, given func(flag string) bool) string {
	var parts []string
	theirs := o.flags()
	for i, own := range s.flags() {
		if own.value != theirs[i].value && (given == nil || given(own.name)) {
			parts = append(parts, fmt.Sprintf("--%s %s %s, %s %s", own.name, own.value, here, theirs[i].value, there))
		}
	}
	if s.DigestVersion != o.DigestVersion {
		parts = append(parts, fmt.Sprintf("digest version %d %s, %d %s", s.DigestVersion, here, o.DigestVersion, there))
	}
	return strings.Join(parts, "; ")
}

// settingsJSON is the stored form: durations are strings that people can read.
type settingsJSON struct {
	Replicas        int      `json:"replicas"`
	Shards          int      `json:"shards"`
	GCGrace         duration `json:"gc_grace"`
	HintWindow      duration `json:"hint_window"`
	Settle          duration `json:"settle"`
	RequestDeadline duration `json:"request_deadline"`
	MaxClockSkew    duration `json:"max_clock_skew"`
	DigestVersion   int      `json:"digest_version"`
}

type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// MarshalJSON implements json.Marshaler.
func (s Settings) MarshalJSON() ([]byte, error) {
	return json.Marshal(settingsJSON{
		s.Replicas, s.Shards, duration(s.GCGrace), duration(s.HintWindow), duration(s.Settle),
		duration(s.RequestDeadline), duration(s.MaxClockSkew), s.DigestVersion,
	})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Settings) UnmarshalJSON(b []byte) error {
	var j settingsJSON
	if err := unmarshalStrict(b, &j); err != nil {
		return err
	}
	*s = Settings{
		j.Replicas, j.Shards, time.Duration(j.GCGrace), time.Duration(j.HintWindow), time.Duration(j.Settle),
		time.Duration(j.RequestDeadline), time.Duration(j.MaxClockSkew), j.DigestVersion,
	}
	return nil
}
