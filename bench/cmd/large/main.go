// Program large measures one very large replica, and a session between two of
// them, on one machine:
//
//	go run ./large -rows 1e6                       # in bench/cmd; a few seconds
//	go run ./large -doc ../../docs/large.md        # 1e8 rows; the figures into the page
//
// It loads the rows of every shard in order, opens the directory again, makes the
// second replica as a copy of it, and lets the two compare themselves: as they are,
// with one row that differs, and with a thousand. Both replicas are in this process,
// and what they say to each other is encoded as it is on a network.
//
// It needs about 150 bytes of disk and 16 bytes of memory for each row.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"syntropy/internal/reconcile"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "large:", err)
		os.Exit(1)
	}
}

// options are what can be chosen.
type options struct {
	rows, shards, valueBytes int
	cacheMiB                 int
	dir                      string
	keep                     bool
	diverged                 []int
}

func run(args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("large", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := options{diverged: []int{1, 1000}}
	rows := flags.String("rows", "1e8", "rows of each replica")
	flags.IntVar(&o.shards, "shards", 256, "shards, a power of two")
	flags.IntVar(&o.valueBytes, "value-bytes", 100, "length of a value; 8 or more")
	flags.IntVar(&o.cacheMiB, "cache-mib", 1024, "block cache of each replica")
	flags.StringVar(&o.dir, "dir", "", "where the replicas go; a new temporary directory if empty")
	flags.BoolVar(&o.keep, "keep", false, "leave the replicas there")
	doc := flags.String("doc", "", "a Markdown file whose figures to replace")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.rows, err = reconcile.ParseCount(*rows); err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	if o.rows < 2000 || o.valueBytes < 8 || o.valueBytes > 1<<20 {
		return fmt.Errorf("-rows %d -value-bytes %d: give 2000 rows at least, and values of 8 bytes to 1 MiB", o.rows, o.valueBytes)
	}
	if *doc != "" { // before an hour of work
		if _, err := replaceFigures(*doc, ""); err != nil {
			return err
		}
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "syntropy-large-"); err != nil {
			return err
		}
	}
	if !o.keep {
		defer func() {
			err = errors.Join(err, os.RemoveAll(filepath.Join(o.dir, "a")), os.RemoveAll(filepath.Join(o.dir, "b")))
			_ = os.Remove(o.dir) // if nothing else is in it
		}()
	}
	began := time.Now()
	f, err := measure(o, func(format string, args ...any) {
		fmt.Fprintf(stderr, "%7.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	})
	if err != nil {
		return err
	}
	text := f.table()
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\n%s\n", text, line)
	if *doc != "" {
		page, err := replaceFigures(*doc, text)
		if err != nil {
			return err
		}
		return os.WriteFile(*doc, []byte(page), 0o644)
	}
	return nil
}

// The page is written by hand but for what is between these lines.
const (
	figuresBegin = "<!-- measured: make bench-large -->"
	figuresEnd   = "<!-- end of what is measured -->"
)

func replaceFigures(doc, text string) (string, error) {
	page, err := os.ReadFile(doc)
	if err != nil {
		return "", err
	}
	before, rest, begins := strings.Cut(string(page), figuresBegin)
	_, after, ends := strings.Cut(rest, figuresEnd)
	if !begins || !ends {
		return "", fmt.Errorf("%s: the lines %q and %q are not there", doc, figuresBegin, figuresEnd)
	}
	return before + figuresBegin + "\n\n" + text + "\n" + figuresEnd + after, nil
}
