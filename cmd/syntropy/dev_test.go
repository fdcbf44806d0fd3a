package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"syntropy/internal/config"
)

// TestDevArgs: what dev starts its nodes with.
func TestDevArgs(t *testing.T) {
	kept := filepath.Join(t.TempDir(), "kept")
	sh := newShell(t, &fakeNode{})
	if got := sh.run("init", "--data-dir", filepath.Join(kept, "n1"), "--peer-listen", "127.0.0.1:7101", "--replicas", "5"); got.status != exitOK {
		t.Fatalf("%+v", got)
	}
	for _, tc := range []struct {
		nodes int
		dir   string
		flags string
		want  string
	}{
		{3, "", "", "--replicas=3"},
		{5, "", "", "--replicas=3"},
		{1, "", "", "--replicas=1"},
		{5, "", "--replicas 4", "--replicas=4"},
		{5, kept, "", "--replicas=5"},
		{3, "", "--repair-interval 1m --hint-window 5s --hinted-handoff off --read-repair off", "--repair-interval=1m --hinted-handoff=off --read-repair=off --hint-window=5s --replicas=3"},
	} {
		fs := pflag.NewFlagSet("dev", pflag.ContinueOnError)
		opts := devOptions{nodes: tc.nodes, dataDir: tc.dir, flags: config.AddFlags(fs, passedOn...)}
		if err := fs.Parse(strings.Fields(tc.flags)); err != nil {
			t.Fatal(err)
		}
		args, err := opts.args()
		if got := strings.Join(args, " "); err != nil || got != tc.want {
			t.Errorf("%d nodes, %s: %s, %v", tc.nodes, tc.flags, got, err)
		}
	}
}
