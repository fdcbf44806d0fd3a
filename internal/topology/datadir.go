package topology

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A data directory as this package sees it; the rest belongs to the store.
//
//	D/lock           held with flock while a process uses D; holds its pid
//	D/node.json      the incarnation of this disk; written once
//	D/cluster.json   the cluster record with its secret, mode 0600; written once
//	D/topology.json  the newest table that this node has seen
//	D/topology.log   this node's part of the log of tables: see logfile.go
const (
	lockFile   = "lock"
	nodeFile   = "node.json"
	recordFile = "cluster.json"
	tableFile  = "topology.json"
	logFile    = "topology.log"
	tempSuffix = ".tmp"
	nodeFormat = 1
)

// Dir is an open data directory. One process uses it at a time. Its methods are
// not safe for concurrent use.
type Dir struct {
	path   string
	lock   *os.File
	node   nodeJSON
	record *Record
	table  *Table

	madePath, madeNode bool // by this OpenDir
}

type nodeJSON struct {
	Format      int       `json:"format"`
	Incarnation string    `json:"incarnation"`
	Created     time.Time `json:"created"`
}

// OpenDir locks the data directory and reads what it holds. An absent or empty
// directory becomes a data directory with a new incarnation; any other one that
// is not a data directory is refused untouched, since it is most likely a
// mistyped path.
func OpenDir(path string, rand io.Reader, now time.Time) (*Dir, error) {
	_, absent := os.Stat(path)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("creating the data directory: %w", err)
	}
	if err := checkOurs(path); err != nil {
		return nil, err
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: lock, madePath: absent != nil}
	if err := d.load(rand, now); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// RecordIn returns the cluster record in a data directory, or nil if there is
// none, and touches nothing.
func RecordIn(path string) (*Record, error) {
	file := filepath.Join(path, recordFile)
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := ParseRecord(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// checkOurs refuses a directory that holds something but is not ours. What an
// interrupted first OpenDir leaves is ours; lost+found is on every fresh disk.
func checkOurs(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("reading the data directory: %w", err)
	}
	var foreign []string
	for _, e := range entries {
		switch e.Name() {
		case nodeFile:
			return nil
		case lockFile, nodeFile + tempSuffix, "lost+found":
		default:
			foreign = append(foreign, e.Name())
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	const shown = 3
	text := strings.Join(foreign[:min(shown, len(foreign))], ", ")
	if more := len(foreign) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("%s is not a Syntropy data directory; it holds %s; give an empty one", path, text)
}

// lockDir takes the lock, which the kernel releases when the process ends in
// whatever way. The file stays: removing it would let two processes lock two
// different files of that name.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		owner := "another process"
		pid := make([]byte, 20)
		if n, _ := f.ReadAt(pid, 0); n > 0 {
			owner += " (pid " + strings.TrimSpace(string(pid[:n])) + ")"
		}
		return nil, fmt.Errorf("%s uses %s: stop it first, or give this node a data directory of its own", owner, path)
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the data directory: %w", err), f.Close())
	}
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the data directory: %w", err), f.Close())
	}
	return f, nil
}

func (d *Dir) load(rand io.Reader, now time.Time) error {
	b, err := os.ReadFile(d.file(nodeFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := d.create(rand, now); err != nil {
			return fmt.Errorf("creating the data directory %s: %w", d.path, err)
		}
	case err != nil:
		return err
	default:
		if err := d.parseNode(b); err != nil {
			return fmt.Errorf("%s: %w", d.file(nodeFile), err)
		}
	}

	if d.record, err = RecordIn(d.path); err != nil {
		return err
	}
	return d.loadTable()
}

func (d *Dir) loadTable() error {
	b, err := os.ReadFile(d.file(tableFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		d.table, err = ParseTable(b)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; if the other members are up, this file alone may be removed: they have it too", d.file(tableFile), err)
	}
	return nil
}

func (d *Dir) create(rand io.Reader, now time.Time) error {
	var incarnation [16]byte
	if _, err := io.ReadFull(rand, incarnation[:]); err != nil {
		return err
	}
	d.node = nodeJSON{nodeFormat, hex.EncodeToString(incarnation[:]), now.UTC().Truncate(time.Millisecond)}
	d.madeNode = true
	return d.write(nodeFile, d.node)
}

func (d *Dir) parseNode(b []byte) error {
	if err := checkFormat(b, nodeFormat, "data directory"); err != nil {
		return err
	}
	if err := unmarshalStrict(b, &d.node); err != nil {
		return fmt.Errorf("unreadable: %w", err)
	}
	if !isHex128(d.node.Incarnation) {
		return fmt.Errorf("unreadable: incarnation %q is not 16 bytes in hex", d.node.Incarnation)
	}
	return nil
}

// Path returns the directory as it was given.
func (d *Dir) Path() string { return d.path }

// Incarnation is the random identity of this disk: 16 bytes in hex. A node that
// starts on an empty disk is another incarnation, whatever its address.
func (d *Dir) Incarnation() string { return d.node.Incarnation }

// Record returns the cluster record, or nil when this node is in no cluster.
func (d *Dir) Record() *Record { return d.record }

// SaveRecord makes the record durable. It refuses to replace the record of
// another cluster, whose data the directory holds.
func (d *Dir) SaveRecord(r *Record) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("saving the cluster record: %w", err)
	}
	if d.record != nil && d.record.ClusterID != r.ClusterID {
		return fmt.Errorf("%s belongs to cluster %s and cannot take the record of cluster %s: give an empty data directory", d.path, d.record.ClusterID, r.ClusterID)
	}
	if err := d.write(recordFile, r); err != nil {
		return fmt.Errorf("saving the cluster record: %w", err)
	}
	kept := *r
	kept.Members = slices.Clone(r.Members)
	d.record = &kept
	return nil
}

// Table returns the newest table that was kept when the directory was opened or
// by SaveTable since, or nil. A Log knows better, once there is one.
func (d *Dir) Table() *Table { return d.table }

// HasTopology reports whether a table or a log was ever kept here.
func (d *Dir) HasTopology() bool {
	for _, name := range []string{tableFile, logFile} {
		if _, err := os.Stat(d.file(name)); !errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// SaveTable makes a table durable. A node that enters a cluster does so before it
// saves the record: then it never is in a cluster that it knows no place in.
func (d *Dir) SaveTable(t *Table) error {
	if err := d.writeTable(t); err != nil {
		return err
	}
	d.table = t
	return nil
}

// writeTable leaves alone what the caller of Dir may be reading, so that a Log
// can use it at any time.
func (d *Dir) writeTable(t *Table) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("saving the topology table: %w", err)
	}
	if err := d.writeBytes(tableFile, append(t.Encode(), '\n')); err != nil {
		return fmt.Errorf("saving the topology table: %w", err)
	}
	return nil
}

// SettingsConflict compares settings that the user gave with the recorded ones
// and names each flag that contradicts them. isSet tells whether a flag, such as
// "gc-grace", was given at all: defaults contradict nothing.
func (d *Dir) SettingsConflict(given Settings, isSet func(flag string) bool) error {
	if d.record == nil {
		return nil
	}
	var errs []error
	recorded := d.record.Settings.flags()
	for i, f := range given.flags() {
		if isSet(f.name) && f.value != recorded[i].value {
			errs = append(errs, fmt.Errorf("--%s %s given, the cluster in %s was created with %s", f.name, f.value, d.path, recorded[i].value))
		}
	}
	return errors.Join(errs...)
}

// Close releases the lock. The directory must not be used afterwards.
func (d *Dir) Close() error { return d.lock.Close() }

// Discard closes the directory of a node that was refused by the cluster, and
// leaves no trace of an identity that it was given for nothing. A directory that
// was there before, or that has come to hold anything, is only closed.
func (d *Dir) Discard() error {
	if !d.madeNode || d.record != nil {
		return d.Close()
	}
	errs := []error{os.Remove(d.file(nodeFile)), os.Remove(d.file(lockFile)), d.Close()}
	if d.madePath {
		_ = os.Remove(d.path) // succeeds only if it is empty
	}
	return errors.Join(errs...)
}

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

// write replaces a file with the JSON form of v.
func (d *Dir) write(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return d.writeBytes(name, append(b, '\n'))
}

// writeBytes replaces a file so that a crash leaves the old one or the new one.
// All files get mode 0600: one of them holds the secret.
func (d *Dir) writeBytes(name string, b []byte) error {
	temp := d.file(name + tempSuffix)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, d.file(name)); err != nil {
		return err
	}
	// The rename itself lives in the directory.
	parent, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}
