package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// The functions here make the read functions of settings: from text to a typed
// field, with an error that says what to give.

// one reads a setting that has one value.
func one(read func(c *Config, text string) error) func(*Config, []string) error {
	return func(c *Config, texts []string) error { return read(c, texts[0]) }
}

func text(field func(*Config) *string) func(*Config, []string) error {
	return one(func(c *Config, s string) error {
		*field(c) = s
		return nil
	})
}

// number reads a whole number from low to high.
func number[T int | int64](field func(*Config) *T, low, high int64) func(*Config, []string) error {
	return one(func(c *Config, s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < low || n > high {
			return fmt.Errorf("give a whole number from %d to %d", low, high)
		}
		*field(c) = T(n)
		return nil
	})
}

// mebibytes reads a number of MiB into a field that counts bytes.
func mebibytes(field func(*Config) *int64, low, high int64) func(*Config, []string) error {
	return one(func(c *Config, s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < low || n > high {
			return fmt.Errorf("give a whole number of MiB from %d to %d", low, high)
		}
		*field(c) = n << 20
		return nil
	})
}

func onOff(field func(*Config) *bool) func(*Config, []string) error {
	return one(func(c *Config, s string) error {
		switch s {
		case "on", "true":
			*field(c) = true
		case "off", "false":
			*field(c) = false
		default:
			return errors.New("give on or off")
		}
		return nil
	})
}

// duration reads a time with its unit.
func duration(field func(*Config) *time.Duration) func(*Config, []string) error {
	return one(func(c *Config, s string) (err error) {
		*field(c), err = parseDuration(s)
		return err
	})
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("the unit is missing: give a duration such as %ss, %sm or %sh", s, s, s)
	}
	return 0, errors.New("give a duration such as 10s, 5m or 1h30m; the units are h, m, s and ms")
}

const (
	// repairIntervalMin: a session takes a moment even when nothing differs, and
	// more often than this nodes would do little else.
	repairIntervalMin = time.Second
	// repairIntervalMax: whoever wants repair more seldom than yearly wants none,
	// and should say so.
	repairIntervalMax = 365 * 24 * time.Hour
)

func readRepairInterval(c *Config, s string) error {
	if s == "off" {
		c.RepairInterval = 0
		return nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return fmt.Errorf("%w; or off", err)
	}
	if d != 0 && (d < repairIntervalMin || d > repairIntervalMax) {
		return fmt.Errorf("give from %v to %.0fh, or off", repairIntervalMin, repairIntervalMax.Hours())
	}
	c.RepairInterval = d
	return nil
}

const (
	// scrubIntervalMin: more often, a node reads its disk all the time.
	scrubIntervalMin = time.Minute
	// scrubIntervalMax is beyond the life of a disk.
	scrubIntervalMax = 10 * 365 * 24 * time.Hour
)

func readScrubInterval(c *Config, s string) error {
	if s == "off" {
		c.ScrubInterval = 0
		return nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return fmt.Errorf("%w; or off", err)
	}
	if d != 0 && (d < scrubIntervalMin || d > scrubIntervalMax) {
		return fmt.Errorf("give from %v to %.0fh, or off", scrubIntervalMin, scrubIntervalMax.Hours())
	}
	c.ScrubInterval = d
	return nil
}

func readCache(c *Config, s string) error {
	if s == "auto" {
		c.CacheBytes = cacheOf(memoryBytes("/"))
		return nil
	}
	if err := mebibytes(func(c *Config) *int64 { return &c.CacheBytes }, cacheMiBMin, mebibytesMax)(c, []string{s}); err != nil {
		return fmt.Errorf("%w; or auto", err)
	}
	return nil
}

func readMinFree(c *Config, s string) error {
	if s == "auto" {
		c.MinFree = 0
		return nil
	}
	if err := mebibytes(func(c *Config) *int64 { return &c.MinFree }, 1, mebibytesMax)(c, []string{s}); err != nil {
		return fmt.Errorf("%w; or auto", err)
	}
	return nil
}

func readClientTimeout(c *Config, s string) (err error) {
	if c.ClientTimeout, err = parseDuration(s); err == nil && c.ClientTimeout < 0 {
		err = errors.New("give a duration of 0, which is for ever, or more")
	}
	return err
}

func readSync(c *Config, s string) error {
	if s == "always" {
		c.SyncInterval = 0
		return nil
	}
	if text, ok := strings.CutPrefix(s, "interval:"); ok {
		if d, err := time.ParseDuration(text); err == nil && d > 0 {
			c.SyncInterval = d
			return nil
		}
	}
	return errors.New("give always, or an interval such as interval:100ms")
}

// zoneMax bounds the name of a zone, which travels with every topology table.
const zoneMax = 64

func readZone(c *Config, s string) error {
	if err := CheckZone(s); err != nil {
		return err
	}
	c.Zone = s
	return nil
}

// CheckZone refuses what cannot be the name of a zone. Empty is fine: it is the
// zone of all nodes that name none.
func CheckZone(name string) error {
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r))
	}
	if len(name) > zoneMax || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("a zone is a name of at most %d letters, digits, hyphens, dots and underscores, such as rack-7", zoneMax)
	}
	return nil
}

// address reads host:port. portMin is 0 where a free port may be asked for.
func address(field func(*Config) *string, portMin int, example string) func(*Config, []string) error {
	return one(func(c *Config, s string) error {
		if err := CheckAddr(s, portMin, example); err != nil {
			return err
		}
		*field(c) = s
		return nil
	})
}

// CheckAddr refuses what is not host:port. portMin is 0 where a free port may be
// asked for, else 1. The example ends the error's text.
func CheckAddr(addr string, portMin int, example string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil || strings.ContainsAny(addr, " \t\r\n/\\?#@,") {
		return fmt.Errorf("not an address: give host:port, such as %s", example)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || int(n) < portMin {
		from := "1"
		if portMin == 0 {
			from = "0 (any free one)"
		}
		return fmt.Errorf("ports are %s to 65535, such as %s", from, example)
	}
	return nil
}

// CheckPeerAddr refuses what other nodes could not dial, now or after a restart.
func CheckPeerAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && port == "0" {
		return errors.New("give host:port with a fixed port; other nodes dial it, also after a restart")
	}
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return errors.New("give the address by which other nodes reach this one, not a wildcard")
	}
	return CheckAddr(addr, 1, "127.0.0.1:7101")
}

func readPeerListen(c *Config, s string) error {
	if err := CheckPeerAddr(s); err != nil {
		return err
	}
	c.PeerListen = s
	return nil
}

func readJoin(c *Config, texts []string) error {
	c.Join = nil
	for _, s := range texts {
		if err := CheckAddr(s, 1, "127.0.0.1:7102, the peer address of another node"); err != nil {
			if len(texts) > 1 {
				return fmt.Errorf("%q is %w", s, err)
			}
			return err
		}
		c.Join = append(c.Join, s)
	}
	return nil
}
