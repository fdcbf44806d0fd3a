package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// machine is where results were measured.
type machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	Go    string `json:"go"`
	OS    string `json:"os"`
}

const machineFile = "machine.json"

func writeMachine(dir string) error {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if found := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(raw); found != nil {
			m.CPU = string(found[1])
		}
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, machineFile), append(raw, '\n'), 0o644)
}

// describeCommit names the newest commit that changed what is measured, if this
// runs in its directory of a clone.
func describeCommit() string {
	args := append([]string{"log", "-1", "--format=%h", "--"}, "../../../antientropy", "../../../merkle", "../../../internal/reconcile", "../../*.go")
	out, err := exec.Command("git", args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
