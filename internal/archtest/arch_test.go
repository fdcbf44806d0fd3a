package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "syntropy"

// pkg is a package of the module as `go list` sees it.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func (p pkg) name() string {
	name, _ := nameOf(p.ImportPath)
	return name
}

// nameOf returns what the table calls a package, and whether it is one of this module.
// The package at the root has the module's own name.
func nameOf(path string) (name string, ours bool) {
	if path == module {
		return module, true
	}
	return strings.CutPrefix(path, module+"/")
}

func packages(t *testing.T) (pkgs []pkg) {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", module+"/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// allowed reads the table of ARCHITECTURE.md.
func allowed(t *testing.T) map[string][]string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "..", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z0-9/]+)` \\|[^|]*\\|([^|]*)\\|$")
	name := regexp.MustCompile("`([^`]+)`")
	table := make(map[string][]string)
	for _, m := range row.FindAllStringSubmatch(string(doc), -1) {
		table[m[1]] = nil
		for _, n := range name.FindAllStringSubmatch(m[2], -1) {
			table[m[1]] = append(table[m[1]], n[1])
		}
	}
	if len(table) < 10 {
		t.Fatalf("the table in ARCHITECTURE.md has only %d rows: did its form change?", len(table))
	}
	return table
}

func TestEveryImportIsOnTheMap(t *testing.T) {
	table := allowed(t)
	for _, p := range packages(t) {
		may, ok := table[p.name()]
		if !ok {
			t.Errorf("package %s is not in the table of ARCHITECTURE.md", p.name())
			continue
		}
		delete(table, p.name())
		for _, imp := range p.Imports {
			if name, ours := nameOf(imp); ours && !slices.Contains(may, name) {
				t.Errorf("%s imports %s, which ARCHITECTURE.md does not allow", p.name(), name)
			}
		}
	}
	for name := range table {
		t.Errorf("ARCHITECTURE.md describes package %s, which does not exist", name)
	}
}

// forbidden are the edges that somebody will want to add one day, and why not.
// They hold whatever the table says.
var forbidden = []struct{ from, to, reason string }{
	{"antientropy", "storage", "a session runs over anybody's store: it asks for a View"},
	{"storage", "antientropy", "the store does not know who compares it"},
	{"merkle", "storage", "the tree reads no disk; the store adjusts it"},
	{"lww", "merkle", "the conflict rule stands alone: what is newer must not depend on how it is compared"},
	{"storage", "storage/pebblestore", "the logic is written once over a small Engine, and knows none"},
	{"storage/pebblestore", "lww", "an engine keeps rows, not entries"},
	{"storage/memstore", "lww", "an engine keeps rows, not entries"},
	{"internal/rpc", "internal/node", "the transport carries what the node says, not the reverse"},
	{"internal/rpc", "antientropy", "a session's messages are bytes to the transport"},
	{"internal/node", "syntropy", "the library is a face of the node; the node does not know it"},
	{"syntropy", "internal/resp", "an embedded node opens no door that its program did not ask for"},
	{"syntropy", "internal/admin", "an embedded node opens no door that its program did not ask for"},
	{"syntropy", "syntropytest", "what serves tests is not linked into programs"},
	{"report", "internal/node", "reports are an outside contract: they hold values and know nobody"},
	{"cmd/syntropy", "internal/node", "the binary runs the node that programs embed, through the same door"},
	{"internal/node", "internal/resp", "front doors depend on the node, the node on no front door"},
	{"internal/node", "internal/admin", "front doors depend on the node, the node on no front door"},
	{"internal/resp", "internal/node", "the protocol serves any Backend, so it is tested without a cluster"},
	{"purge", "antientropy", "the rules of the purge are searched by themselves: a session is a record to them"},
	{"internal/sim", "internal/node", "the simulator runs the pure packages; the shell has goroutines and clocks"},
}

func TestForbiddenEdges(t *testing.T) {
	pkgs := packages(t)
	for _, edge := range forbidden {
		for _, p := range pkgs {
			if p.name() != edge.from {
				continue
			}
			for _, imp := range p.Imports {
				if name, ours := nameOf(imp); ours && name == edge.to {
					t.Errorf("%s must not import %s: %s", edge.from, edge.to, edge.reason)
				}
			}
		}
	}
}

// pure are the packages that the simulator drives. They must do the same again
// for the same input.
var pure = []string{"hlc", "lww", "ring", "merkle", "antientropy", "coordinator", "purge"}

// impureImports are refused in pure packages. storage is left out: it has locks,
// since a node shares it.
var impureImports = map[string]string{
	"os":           "files belong to the shell",
	"net":          "sockets belong to the shell",
	"net/http":     "sockets belong to the shell",
	"math/rand":    "randomness is an argument",
	"math/rand/v2": "randomness is an argument",
	"crypto/rand":  "randomness is an argument",
	"log/slog":     "a decision is returned, not logged",
	"context":      "what does not wait cannot be cancelled",
}

func TestPurePackagesArePure(t *testing.T) {
	for _, p := range packages(t) {
		if !slices.Contains(pure, p.name()) {
			continue
		}
		for _, file := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, imp := range f.Imports {
				path, _ := strconv.Unquote(imp.Path.Value)
				if reason, bad := impureImports[path]; bad {
					t.Errorf("%s: %s imports %q: %s", fset.Position(imp.Pos()), p.name(), path, reason)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: a goroutine in a pure package", fset.Position(n.Pos()))
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Sleep", "Tick"}, n.Sel.Name) {
						t.Errorf("%s: time.%s in a pure package: time is an argument", fset.Position(n.Pos()), n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}
