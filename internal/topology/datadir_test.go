package topology

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testRecord(t *testing.T, seed uint64) *Record {
	t.Helper()
	r, err := NewRecord(DefaultSettings(), []string{"b:7101", "a:17101", "a:7102"}, newSeeded(seed), epoch)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("got error %v, want one with %q", err, part)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	r := testRecord(t, 1)
	want := []Member{{ID: 1, Addr: "a:7102"}, {ID: 2, Addr: "a:17101"}, {ID: 3, Addr: "b:7101"}}
	if !reflect.DeepEqual(r.Members, want) {
		t.Fatal("members are not in order of host and port:", r.Members)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"gc_grace":"240h0m0s"`) {
		t.Fatalf("durations are not readable: %s", b)
	}
	back, err := ParseRecord(b)
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Fatalf("got %+v, %v", back, err)
	}
	if back.Fingerprint() != r.Fingerprint() || len(r.Fingerprint()) != 32 {
		t.Fatal("fingerprints:", back.Fingerprint(), r.Fingerprint())
	}
	if text := fmt.Sprintf("%v %+v %#v", r, r, r); strings.Contains(text, fmt.Sprint(r.Secret[:])) || !strings.Contains(text, "(secret)") {
		t.Fatal("printing reveals the secret:", text)
	}
	if m, ok := r.Member(2); !ok || m.Addr != "a:17101" {
		t.Fatal(m)
	}
	if _, ok := r.MemberByAddr("c:1"); ok {
		t.Fatal("found a stranger")
	}
}

func TestLoneRecord(t *testing.T) {
	me := Identity{Incarnation: incarnation(1), Addr: addr(0)}
	r, err := NewLoneRecord(DefaultSettings(), me, newSeeded(1), epoch)
	if err != nil || len(r.Members) != 1 || !r.IsFounder(me) {
		t.Fatal(r, err)
	}
	if r.IsFounder(Identity{Incarnation: incarnation(2), Addr: addr(0)}) || r.IsFounder(Identity{Incarnation: incarnation(1), Addr: addr(1)}) {
		t.Fatal("another disk or address is no founder")
	}
}

func TestFingerprintCoversEverything(t *testing.T) {
	base := testRecord(t, 1).Fingerprint()
	for i, change := range []func(*Record){
		func(r *Record) { r.Version++ },
		func(r *Record) { r.ClusterID = incarnation(1) },
		func(r *Record) { r.Secret[31]++ },
		func(r *Record) { r.Created = r.Created.Add(time.Second) },
		func(r *Record) { r.Settings.Shards = 128 },
		func(r *Record) { r.Settings.MaxClockSkew++ },
		func(r *Record) { r.Members[2].Addr = "c:1" },
		func(r *Record) { r.Members[2].Founder = incarnation(1) },
		func(r *Record) { r.Members[2].Zone = "a" },
	} {
		r := testRecord(t, 1)
		change(r)
		if r.Fingerprint() == base {
			t.Errorf("change %d leaves the fingerprint as it was", i)
		}
	}
}

func TestParseRecordRefuses(t *testing.T) {
	for _, test := range []struct{ change, to, want string }{
		{`"format":1`, `"format":2`, "has format 2, this program knows formats up to 1"},
		{`"format":1`, `"format":0`, "no format number"},
		{`"format":1`, `"format":1,"zones":1`, "zones"},
		{`"addr":"a:7102"`, `"addr":"a:7102","zone":"rack 1"`, `"rack 1" is not a zone`},
		{`"a:7102"`, `"b:7101"`, "n1 and n3 have one address"},
		{`"a:7102"`, `"a"`, "not a peer address"},
		{`"id":"n2"`, `"id":"n1"`, "ascending"},
		{`"shards":256`, `"shards":255`, "power of two"},
		{`"240h0m0s"`, `"long"`, "long"},
		{`"cluster_id":"`, `"cluster_id":"0`, "not 16 bytes"},
		{`"secret":"`, `"secret":"00`, "not 32 bytes"},
		{`{`, `[`, "unreadable"},
	} {
		b, _ := json.Marshal(testRecord(t, 1))
		_, err := ParseRecord([]byte(strings.Replace(string(b), test.change, test.to, 1)))
		wantError(t, err, test.want)
	}
	_, err := NewRecord(DefaultSettings(), []string{"a:1", "a:1"}, newSeeded(1), epoch)
	wantError(t, err, "n1 and n2 have one address, a:1")
}

func TestSettingsValidate(t *testing.T) {
	if err := DefaultSettings().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		change func(*Settings)
		want   string
	}{
		{func(s *Settings) { s.Replicas = 8 }, "replicas is 8: give 1 to 7"},
		{func(s *Settings) { s.Shards = 8192 }, "shards is 8192: give a power of two from 1 to 4096"},
		{func(s *Settings) { s.HintWindow = 0 }, "hint_window is 0s: it must be positive"},
		{func(s *Settings) { s.Settle = -1 }, "settle is -1ns: it must not be negative"},
		{func(s *Settings) { s.GCGrace = 1 << 62 }, "give at most"},
		{func(s *Settings) { s.GCGrace = s.Late() },
			"gc_grace 3h0m15.5s must exceed hint_window 3h0m0s + settle 10s + request_deadline 5s + max_clock_skew 500ms = 3h0m15.5s"},
	} {
		s := DefaultSettings()
		test.change(&s)
		wantError(t, s.Validate(), test.want)
	}
	s := DefaultSettings()
	s.Settle, s.GCGrace = 0, s.Late()-s.Settle+1
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestDataDirectoryKeepsWhatItIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dir")
	d, err := OpenDir(path, newSeeded(1), epoch)
	if err != nil {
		t.Fatal(err)
	}
	if d.Record() != nil || !isHex128(d.Incarnation()) {
		t.Fatal("a new directory holds", d.Record(), d.Incarnation())
	}
	_, err = OpenDir(path, newSeeded(2), epoch)
	wantError(t, err, fmt.Sprintf("another process (pid %d) uses %s", os.Getpid(), path))

	r := testRecord(t, 1)
	if err := d.SaveRecord(r); err != nil {
		t.Fatal(err)
	}
	wantError(t, d.SaveRecord(testRecord(t, 2)), "belongs to cluster "+r.ClusterID)
	if info, _ := os.Stat(filepath.Join(path, recordFile)); info.Mode().Perm() != 0o600 {
		t.Fatal("the secret is readable by others:", info.Mode())
	}
	incarnation := d.Incarnation()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d, err = OpenDir(path, newSeeded(3), epoch)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Incarnation() != incarnation || !reflect.DeepEqual(d.Record(), r) {
		t.Fatalf("after reopening: %s %+v", d.Incarnation(), d.Record())
	}

	given := DefaultSettings()
	given.Shards, given.GCGrace = 128, time.Hour
	err = d.SettingsConflict(given, func(flag string) bool { return flag == "shards" || flag == "replicas" })
	wantError(t, err, "--shards 128 given, the cluster in "+path+" was created with 256")
	if strings.Contains(err.Error(), "gc-grace") {
		t.Fatal("a flag that was not given is in conflict:", err)
	}
	if err := d.SettingsConflict(given, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
}

func TestDataDirectoryRefuses(t *testing.T) {
	for _, test := range []struct {
		name, file, content string
		want                []string
	}{
		{"foreign", "photo.jpg", "", []string{"is not a Syntropy data directory; it holds photo.jpg; give an empty one"}},
		{"record alone", recordFile, "{}", []string{"it holds cluster.json"}},
		{"newer node", nodeFile, `{"format":2}`, []string{"format 2", "up to 1", "newer"}},
		{"damaged node", nodeFile, `{"format":1,`, []string{nodeFile, "unreadable"}},
		{"no incarnation", nodeFile, `{"format":1}`, []string{"incarnation"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := t.TempDir()
			if err := os.WriteFile(filepath.Join(path, test.file), []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := OpenDir(path, newSeeded(1), epoch)
			wantError(t, err, test.want...)
			b, err := os.ReadFile(filepath.Join(path, test.file))
			if err != nil || string(b) != test.content {
				t.Fatal("the file was changed")
			}
			if _, err := os.Stat(filepath.Join(path, lockFile)); test.file != nodeFile && err == nil {
				t.Fatal("something was written into a foreign directory")
			}
		})
	}

	// A refused directory is not left locked; a damaged record names its file.
	path := t.TempDir()
	d, err := OpenDir(path, newSeeded(1), epoch)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	for _, content := range []string{`{"format":7}`, `{`, ``} {
		if err := os.WriteFile(filepath.Join(path, recordFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = OpenDir(path, newSeeded(1), epoch)
		wantError(t, err, filepath.Join(path, recordFile))
	}
	if err := os.Remove(filepath.Join(path, recordFile)); err != nil {
		t.Fatal(err)
	}
	if d, err = OpenDir(path, newSeeded(1), epoch); err != nil {
		t.Fatal(err)
	}
	d.Close()
}
