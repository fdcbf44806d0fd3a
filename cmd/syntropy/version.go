package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by release builds: -ldflags "-X main.version=v1.2.3".
var version = "dev"

type versionReport struct {
	Version string `json:"version"`
	Commit  string `json:"commit"` // empty when the build did not record it
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func newVersion(a *app) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "version",
		Short: "which build is this?",
		Long: `Prints the version of this program, the commit that it was built from, and the Go
version and platform. It asks no node.

Example:
  $ syntropy version
  syntropy v1.2.3 (commit 1a2b3c4d5e6f, go1.26.8 linux/amd64)

Exit statuses: 0 always; 2 usage.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionReport{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			if a.json {
				return a.printJSON(v)
			}
			commit := cmp.Or(v.Commit, "unknown")
			fmt.Fprintf(a.out, "syntropy %s (commit %s, %s %s/%s)\n", v.Version, commit[:min(12, len(commit))], v.Go, v.OS, v.Arch)
			return nil
		},
	})
}
