package syntropy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"syntropy"
)

var (
	bg     = context.Background
	k      = []byte("k")
	absent = []byte("absent")
)

// open opens a cluster of one.
func open(t *testing.T, dir string) *syntropy.DB {
	t.Helper()
	db, err := syntropy.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	if err := db.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants reports an error that is not the wanted one.
func wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func TestALoneNodeKeepsItsData(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	if _, err := db.Get(bg(), k); !errors.Is(err, syntropy.ErrNotFound) {
		t.Errorf("a key that was never written: %v", err)
	}
	check(t, db.Put(bg(), k, []byte("v")))
	check(t, db.Put(bg(), []byte("empty"), nil))
	check(t, db.Put(bg(), []byte("gone"), []byte("v")))
	check(t, db.Delete(bg(), []byte("gone"), absent))
	if _, err := syntropy.Open(dir, nil); !errors.Is(err, syntropy.ErrInvalid) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("opening a directory that is in use: %v", err)
	}
	check(t, db.Close())

	db = open(t, dir) // nil options again: it needs the same address, whatever that is
	value, err := db.Get(bg(), k)
	if err != nil || string(value) != "v" {
		t.Errorf("after a restart: %q, %v", value, err)
	}
	values, err := db.MultiGet(bg(), k, absent, []byte("empty"), []byte("gone"), k)
	check(t, err)
	if got := fmt.Sprintf("%q", values); got != `["v" "" "" "" "v"]` || values[1] != nil || values[2] == nil || values[3] != nil {
		t.Errorf("MultiGet: %#v", values)
	}
	members, err := db.Members(bg())
	check(t, err)
	if len(members) != 1 || members[0].ID != db.ID() || !members[0].Up || members[0].State != "live" {
		t.Errorf("members: %+v", members)
	}
}

// listener opens a free port.
func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	return l
}

func TestTheDirectoryOfAnotherMember(t *testing.T) {
	dir := t.TempDir()
	db, err := syntropy.Open(dir, &syntropy.Options{PeerAddr: "127.0.0.1:7", PeerListener: listener(t)})
	check(t, err)
	check(t, db.Ready(t.Context()))
	check(t, db.Close())
	_, err = syntropy.Open(dir, nil)
	wants(t, "without the address that it had", err, syntropy.ErrInvalid)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:7") {
		t.Errorf("the error does not name the address: %v", err)
	}
	_, err = syntropy.Open(dir, &syntropy.Options{PeerAddr: "127.0.0.1:7", PeerListener: listener(t), Shards: 8})
	wants(t, "with other settings than the cluster's", err, syntropy.ErrInvalid)
	if err == nil || !strings.Contains(err.Error(), "shards") {
		t.Errorf("the error does not name the setting: %v", err)
	}
}

func TestClosed(t *testing.T) {
	db := open(t, t.TempDir())
	check(t, db.Close())
	check(t, db.Close())
	ctx, cancel := context.WithCancel(bg())
	defer cancel()
	one := db.At(syntropy.One)
	for what, err := range map[string]error{
		"Put":                     db.Put(bg(), k, nil),
		"Put that can be stopped": db.Put(ctx, k, nil),
		"Delete":                  one.Delete(bg(), k),
		"Ready":                   db.Ready(bg()),
		"Get":                     second(db.Get(bg(), k)),
		"Expire":                  second(db.Expire(bg(), k, time.Now())),
		"Page":                    second(db.Page(bg(), syntropy.PageOptions{})),
		"Size":                    second(db.Size(bg())),
		"Status":                  second(db.Status(bg())),
		"Inspect":                 second(db.Inspect(bg(), k)),
		"Roots":                   second(db.Roots(bg(), false)),
		"CancelRepair":            second(db.CancelRepair(bg())),
	} {
		wants(t, what, err, syntropy.ErrClosed)
	}
	for _, err := range db.Scan(bg()) {
		wants(t, "Scan", err, syntropy.ErrClosed)
	}
}

func second[T any](_ T, err error) error { return err }

func TestNotReady(t *testing.T) {
	db, err := syntropy.Open(t.TempDir(), &syntropy.Options{
		PeerAddr: "127.0.0.1:7", PeerListener: listener(t), Join: []string{"127.0.0.1:9"}, BootstrapExpect: 2,
	})
	check(t, err)
	defer db.Close()
	wants(t, "Put", db.Put(bg(), k, nil), syntropy.ErrNotReady)
	ctx, cancel := context.WithTimeout(bg(), 50*time.Millisecond)
	defer cancel()
	err = db.Ready(ctx)
	wants(t, "Ready", err, syntropy.ErrNotReady)
	wants(t, "Ready", err, context.DeadlineExceeded)
	if !strings.Contains(err.Error(), "not formed yet") {
		t.Errorf("Ready does not say what is missing: %v", err)
	}
	if db.ID() != 0 {
		t.Errorf("a node in no cluster is called %v", db.ID())
	}
	check(t, db.Close())
	wants(t, "Put, after Close", db.Put(bg(), k, nil), syntropy.ErrClosed)
}

func TestBadInput(t *testing.T) {
	db := open(t, t.TempDir())
	long := make([]byte, syntropy.MaxKeyBytes+1)
	large := make([]byte, syntropy.MaxValueBytes+1)
	year := 365 * 24 * time.Hour
	for what, err := range map[string]error{
		"Put without a key":        db.Put(bg(), nil, nil),
		"Put with a long key":      db.Put(bg(), long, nil),
		"Put of a large value":     db.Put(bg(), k, large),
		"Delete without a key":     db.Delete(bg(), k, nil),
		"Get without a key":        second(db.Get(bg(), nil)),
		"MultiGet with a long key": second(db.MultiGet(bg(), k, long)),
		"Expire at no time":        second(db.Expire(bg(), k, time.Time{})),
		"Expire in a far future":   second(db.Expire(bg(), k, time.UnixMilli(1<<63-1).Add(year))),
		"Persist without a key":    second(db.Persist(bg(), nil)),
		"Expiry without a key":     func() error { _, _, err := db.Expiry(bg(), nil); return err }(),
		"Inspect without a key":    second(db.Inspect(bg(), nil)),
		"Page of fewer than none":  second(db.Page(bg(), syntropy.PageOptions{Count: -1})),
	} {
		wants(t, what, err, syntropy.ErrInvalid)
	}
	check(t, db.PutAll(bg()))
	check(t, db.Delete(bg()))
	if values, err := db.MultiGet(bg()); err != nil || len(values) != 0 {
		t.Errorf("MultiGet of nothing: %v, %v", values, err)
	}
	if _, err := db.Get(bg(), k); !errors.Is(err, syntropy.ErrNotFound) {
		t.Errorf("bad input has written something: %v", err)
	}
	check(t, db.Put(bg(), long[1:], large[1:])) // the largest that there can be
	if v, err := db.Get(bg(), long[1:]); err != nil || len(v) != syntropy.MaxValueBytes {
		t.Errorf("the largest value: %d bytes, %v", len(v), err)
	}
}

// What the caller does with slices before or after a call changes nothing.
func TestSlicesAreCopied(t *testing.T) {
	db := open(t, t.TempDir())
	key, value := []byte("key"), []byte("value")
	check(t, db.Put(bg(), key, value))
	copy(key, "xxx")
	copy(value, "xxxxx")
	for range 2 {
		got, err := db.Get(bg(), []byte("key"))
		if err != nil || string(got) != "value" {
			t.Fatalf("got %q, %v", got, err)
		}
		copy(got, "yyyyy")
	}
}

func TestALateDeadline(t *testing.T) {
	db := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(bg())
	check(t, db.Put(ctx, k, []byte("v")))
	cancel()
	err := db.Put(ctx, k, []byte("w"))
	wants(t, "a write that never began", err, context.Canceled)
	if errors.Is(err, syntropy.ErrUnknownOutcome) {
		t.Errorf("the outcome is known, nothing was written: %v", err)
	}
	wants(t, "Ready", db.Ready(ctx), context.Canceled)
	if v, err := db.Get(bg(), k); err != nil || string(v) != "v" {
		t.Errorf("got %q, %v", v, err)
	}
}

// Size leaves out what has expired, though it still takes room: also what was there when
// the node was started.
func TestSizeWithoutExpired(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	check(t, db.PutAll(bg(), syntropy.Pair{Key: []byte("stays")}, syntropy.Pair{Key: []byte("goes"), Expires: time.Now()}))
	isOne := func() error {
		if n, err := db.Size(bg()); n != 1 || err != nil {
			return fmt.Errorf("%d keys, %v", n, err)
		}
		return nil
	}
	soon(t, isOne)
	check(t, db.Close())
	db = open(t, dir)
	soon(t, isOne)
}
