package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"syntropy/internal/admin"
	"syntropy/internal/rowfile"
)

// Limits of an import.
const (
	batchRows      = 512
	batchRowsMax   = 10_000
	batchBytes     = 1 << 20 // a batch is sent when it holds this much, whatever its rows
	reasonsKept    = 5       // skipped lines that the summary names
	progressPeriod = 5 * time.Second
)

type importOptions struct {
	format  string
	onError string
	header  bool
	batch   int
}

func newImport(a *app) *cobra.Command {
	var opts importOptions
	cmd := &cobra.Command{
		Use:     "import FILE",
		GroupID: groupData,
		Short:   "write the rows of a file into the cluster",
		Long: `Reads keys and values from FILE ("-" is the standard input, with --format) and
writes them through a node, in batches, like a client would.

  tsv    key TAB value; \t \n \r \\ stand for TAB, LF, CR and backslash
  csv    key,value as in RFC 4180; --header skips the first row
  jsonl  {"key":"k","value":"v"} per line; key_base64 and value_base64 for bytes
         that are not UTF-8

The format goes by the file's name unless --format is given. Keys have 1 byte to
64 KiB, values up to 8 MiB.

The file is not checked beforehand. At a malformed line the import stops (or goes
on without it, with --on-error skip) and says which line and why; the rows before
it are stored. Correct the line and run the import again: writing the same rows
twice is safe. It does overwrite what others wrote to these keys in the meantime.

Example:
  $ syntropy import names.tsv
  imported 34,924 rows, 1.2 MiB, in 3.4 s

With --json it prints {"file","rows","bytes","seconds","skipped","reasons","error"}
also when it fails.

Exit statuses: 0 all rows are stored, except those that --on-error skip left out;
1 the import stopped early; 2 usage.`,
		Args: oneArg("the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runImport(cmd.Context(), args[0], opts)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.format, "format", "auto", "`tsv|csv|jsonl`; auto goes by the name of the file")
	f.StringVar(&opts.onError, "on-error", "stop", "at a malformed line: `stop|skip`")
	f.BoolVar(&opts.header, "header", false, "the first row holds column names")
	f.IntVar(&opts.batch, "batch", batchRows, fmt.Sprintf("send at most `N` rows at a time (1 to %d)", batchRowsMax))
	return a.client(cmd)
}

// importSummary is what an import did, and its --json.
type importSummary struct {
	File    string   `json:"file"`
	Rows    int64    `json:"rows"`  // stored
	Bytes   int64    `json:"bytes"` // of their keys and values
	Seconds float64  `json:"seconds"`
	Skipped int64    `json:"skipped"`
	Reasons []string `json:"reasons"` // of the first skipped lines
	Error   string   `json:"error"`   // empty: all of the file was read
}

func (a *app) runImport(ctx context.Context, path string, opts importOptions) error {
	format, err := rowfile.ParseFormat(opts.format)
	if err != nil {
		return usageError("--format: %w", err)
	}
	if opts.onError != "stop" && opts.onError != "skip" {
		return usageError("--on-error is %q: it is stop or skip", opts.onError)
	}
	if opts.batch < 1 || opts.batch > batchRowsMax {
		return usageError("--batch is %d: it is 1 to %d", opts.batch, batchRowsMax)
	}
	if format == rowfile.Auto {
		if format, err = rowfile.FormatOf(path); err != nil {
			return usageError("%w, with --format", err)
		}
	}
	if format == rowfile.JSONL && opts.header {
		return usageError("--header: JSON lines have no header")
	}
	in := rowfile.Options{Format: format, Header: opts.header}
	var r *rowfile.Reader
	if path == "-" {
		r, err = rowfile.NewReader(a.in, "stdin", in)
	} else {
		r, err = rowfile.Open(path, in)
	}
	if err != nil {
		return err
	}
	c := a.dial()
	defer c.Close()
	imp := importer{
		reader: r,
		client: c,
		opts:   opts,
		sum:    importSummary{File: path, Reasons: []string{}},
		report: a.progressOf(r),
	}
	began := a.now()
	err = imp.run(ctx)
	err = errors.Join(err, r.Close())
	imp.sum.Seconds = a.now().Sub(began).Seconds()
	if err != nil {
		imp.sum.Error = err.Error()
	}
	if a.json {
		return errors.Join(a.printJSON(imp.sum), err)
	}
	if err == nil {
		a.printImport(imp.sum)
	}
	return err
}

func (a *app) printImport(s importSummary) {
	fmt.Fprintf(a.out, "imported %s, %s, in %s\n", plural(s.Rows, "row"), size(s.Bytes), span(seconds(s.Seconds)))
	if s.Skipped == 0 {
		return
	}
	fmt.Fprintf(a.out, "skipped %s:\n", plural(s.Skipped, "malformed line"))
	for _, reason := range s.Reasons {
		fmt.Fprintln(a.out, "  "+reason)
	}
	if more := s.Skipped - int64(len(s.Reasons)); more > 0 {
		fmt.Fprintf(a.out, "  and %s more\n", count(more))
	}
}

// importer moves rows from a file to a node.
type importer struct {
	reader *rowfile.Reader
	client *admin.Client
	opts   importOptions
	sum    importSummary
	report progress

	batch []admin.Row
	bytes int64 // in batch
	first int   // line of the batch's first row
	last  int   // line of its last row
}

func (m *importer) run(ctx context.Context) error {
	defer m.report.done()
	for {
		row, err := m.reader.Next()
		if bad, ok := errors.AsType[*rowfile.LineError](err); ok && m.opts.onError == "skip" {
			m.sum.Skipped++
			if len(m.sum.Reasons) < reasonsKept {
				m.sum.Reasons = append(m.sum.Reasons, bad.Error())
			}
			continue
		}
		if err != nil {
			// What was read before the end, or before the broken line, is good.
			if ferr := m.flush(ctx); ferr != nil {
				return ferr
			}
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("%w; %s before it: correct the line and import again, which is safe, or use --on-error skip", err, stored(m.sum.Rows))
		}
		if len(m.batch) == 0 {
			m.first = row.Line
		}
		m.batch = append(m.batch, admin.Row{Key: row.Key, Value: row.Value})
		m.bytes += int64(len(row.Key) + len(row.Value))
		m.last = row.Line
		if len(m.batch) >= m.opts.batch || m.bytes >= batchBytes {
			if err := m.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// flush sends the batch.
func (m *importer) flush(ctx context.Context) error {
	if len(m.batch) == 0 {
		return nil
	}
	if err := m.client.Load(ctx, m.batch); err != nil {
		if err == context.Canceled {
			err = errors.New("interrupted")
		}
		if _, ok := errors.AsType[*admin.NoAnswerError](err); ok { // nothing was sent
			return fmt.Errorf("%w; %s, none from line %d on", err, stored(m.sum.Rows), m.first)
		}
		return fmt.Errorf("%w; %s, and of lines %d to %d some may be: import again, which is safe", err, stored(m.sum.Rows), m.first, m.last)
	}
	m.sum.Rows += int64(len(m.batch))
	m.sum.Bytes += m.bytes
	m.batch, m.bytes = m.batch[:0], 0
	m.report.at(m.reader.Offset(), m.sum)
	return nil
}

func stored(n int64) string {
	if n == 1 {
		return "1 row is stored"
	}
	return count(n) + " rows are stored"
}

// progress tells a waiting person how far an import is.
type progress interface {
	at(offset int64, sum importSummary)
	done()
}

func (a *app) progressOf(r *rowfile.Reader) progress {
	if !a.progress {
		return &progressLines{app: a, total: r.Size(), last: a.now()}
	}
	total := r.Size()
	if total == 0 {
		total = -1 // a pipe: no end in sight
	}
	return progressBar{progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(a.err),
		progressbar.OptionSetDescription("importing"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0), // else it starts a goroutine
		progressbar.OptionClearOnFinish(),
	)}
}

// A bar that cannot be drawn is no reason to stop an import, so its errors are
// dropped.
type progressBar struct{ bar *progressbar.ProgressBar }

func (p progressBar) at(offset int64, _ importSummary) { _ = p.bar.Set64(offset) }
func (p progressBar) done()                            { _ = p.bar.Clear() }

// progressLines is for logs: a line now and then.
type progressLines struct {
	app   *app
	total int64
	last  time.Time
}

func (p *progressLines) at(offset int64, sum importSummary) {
	now := p.app.now()
	if now.Sub(p.last) < progressPeriod {
		return
	}
	p.last = now
	of := ""
	if p.total > 0 {
		of = fmt.Sprintf(" (%d%% of the file)", 100*offset/p.total)
	}
	fmt.Fprintf(p.app.err, "%s so far%s\n", stored(sum.Rows), of)
}

func (p *progressLines) done() {}
