package topology

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestInit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	me := Seat{"b:7101", "west"}
	record, err := Init(path, DefaultSettings(), me, []Seat{{"c:7101", "north"}, {"a:7101", ""}}, newSeeded(1), epoch)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := OpenDir(path, newSeeded(2), epoch)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if !reflect.DeepEqual(dir.Record(), record) {
		t.Fatalf("kept %+v, returned %+v", dir.Record(), record)
	}
	want := []Member{{ID: 1, Addr: "a:7101"}, {ID: 2, Addr: "b:7101", Zone: "west", Founder: dir.Incarnation()}, {ID: 3, Addr: "c:7101", Zone: "north"}}
	if !reflect.DeepEqual(record.Members, want) {
		t.Fatalf("members %+v, want %+v", record.Members, want)
	}
	if conf, err := firstVoters(record); err != nil || len(conf.Voters) != 1 || len(conf.Learners) != 0 || conf.Voters[0] != raftID(dir.Incarnation()) {
		t.Fatal("who decides:", conf, err)
	}
}

func TestInitRefuses(t *testing.T) {
	init := func(path string, me Seat, others ...Seat) error {
		_, err := Init(path, DefaultSettings(), me, others, newSeeded(1), epoch)
		return err
	}
	path := filepath.Join(t.TempDir(), "d")
	wantError(t, init(path, Seat{"a:7101", ""}, Seat{"a:7101", ""}), "n1 and n2 have one address, a:7101")
	wantError(t, init(path, Seat{"a", ""}), `"a" is not a peer address`)
	wantError(t, init(path, Seat{"a:7101", "x y"}), `"x y" is not a zone`)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatal("a mistake left something behind:", err)
	}
	if err := init(path, Seat{"a:7101", ""}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(path, recordFile))
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, init(path, Seat{"b:7101", ""}), "holds cluster", "give an empty data directory")
	if after, err := os.ReadFile(filepath.Join(path, recordFile)); err != nil || string(after) != string(before) {
		t.Fatal("the record was touched:", err)
	}

	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, init(foreign, Seat{"a:7101", ""}), "not a Syntropy data directory")
}
