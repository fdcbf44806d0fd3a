package topology

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestDamagedLogIsLeftAlone: what it held cannot be guessed, so the node says so
// and touches nothing.
func TestDamagedLogIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCouncil(t, founded(t, ""))
		n := c.start(disk(1), nil)
		c.within(time.Second, "a table", func() bool { return version(n) == 1 })
		c.enroll(n, disk(2))
		c.end(n)
		file := filepath.Join(n.path, logFile)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// What the body says is believed only under its checksum.
		resum := func(change, to string) string {
			body := strings.Replace(string(good), change, to, 1)
			_, body, _ = strings.Cut(body, "\n")
			return logHead([]byte(body)) + body
		}
		for _, test := range []struct{ name, content, want string }{
			{"flipped", strings.Replace(string(good), `"hard_state":"C`, `"hard_state":"D`, 1), "checksum"},
			{"cut", string(good[:len(good)-9]), "checksum"},
			{"empty", "", "unreadable topology log"},
			{"newer", strings.Replace(string(good), `"format":1`, `"format":2`, 1), "written by a newer version"},
			{"copied", resum(incarnation(1), incarnation(3)), "was it copied?"},
			{"of another cluster", resum(c.record.ClusterID, incarnation(3)), "was it copied?"},
			{"unknown field", resum(`{"cluster_id"`, `{"x":1,"cluster_id"`), `unknown field "x"`},
			{"nothing in it", resum(`"hard_state":"`, `"hard_state":"","y":"`), "unreadable"},
		} {
			if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			dir, err := OpenDir(n.path, nil, epoch)
			if err != nil {
				t.Fatal(err)
			}
			_, err = OpenLog(LogOptions{Record: c.record, Me: n.me, Dir: dir})
			if err == nil {
				t.Fatal(test.name, "was accepted")
			}
			wantError(t, err, file, test.want, "do not remove this file alone")
			if err := dir.Close(); err != nil {
				t.Fatal(err)
			}
			if after, err := os.ReadFile(file); err != nil || string(after) != test.content {
				t.Fatal(test.name, "was touched", err)
			}
		}

		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
		again := c.start(n.me, nil)
		c.within(5*time.Second, "a leader", func() bool { return again.log.Status().Role == "leader" })
		c.enroll(again, disk(3))
	})
}

// TestDamagedTable: the same for the table.
func TestDamagedTable(t *testing.T) {
	path := t.TempDir()
	dir, err := OpenDir(path, newSeeded(1), epoch)
	if err != nil {
		t.Fatal(err)
	}
	table := FirstTable(founded(t, "", ""))
	if err := dir.SaveTable(table); err != nil {
		t.Fatal(err)
	}
	if err := dir.SaveTable(&Table{}); err == nil {
		t.Fatal("saved an invalid table")
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	if dir, err = OpenDir(path, nil, epoch); err != nil || dir.Table().Version != 1 || len(dir.Table().Shards) != 256 {
		t.Fatal(dir, err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, tableFile), []byte(`{"format":1,"version":0}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenDir(path, nil, epoch)
	wantError(t, err, "topology.json", "a version above zero", "may be removed")
}

// TestDiskThatFails: a promise that cannot be kept is not made.
func TestDiskThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "d")
		dir, err := OpenDir(path, fixed(incarnation(1)), epoch)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		log, err := OpenLog(LogOptions{Record: founded(t, ""), Me: disk(1), Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		wantError(t, log.Run(t.Context()), "keeping the topology log")
		if log.Table() != nil {
			t.Error("a table that is not durable was shown")
		}
		if _, err := log.Enroll(t.Context(), disk(2)); err == nil {
			t.Error("enrolled by a node that has stopped")
		}
	})
}

// TestDiskThatWentBack: a node whose data directory was restored from an old copy
// has forgotten what it acknowledged. It must not vote, and says why.
func TestDiskThatWentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCouncil(t, founded(t, "", "", ""))
		nodes := c.startAll()
		c.within(time.Second, "a table", func() bool { return version(nodes[0]) == 1 && version(nodes[2]) == 1 })
		c.end(nodes[2])
		file := filepath.Join(nodes[2].path, logFile)
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c.start(nodes[2].me, nil)
		c.enroll(nodes[2], disk(9))
		c.end(nodes[2])
		if err := os.WriteFile(file, old, 0o600); err != nil {
			t.Fatal(err)
		}

		back := c.start(nodes[2].me, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		select {
		case err = <-back.err:
		case <-ctx.Done():
			t.Fatal("it goes on")
		}
		wantError(t, err, "contradicts what the other members know", "restored from an old copy")
		back.err <- nil // reported
		c.enroll(nodes[0], disk(10))
	})
}
