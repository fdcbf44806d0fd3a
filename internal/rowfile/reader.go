package rowfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"syntropy/lww"
)

// The limits of a row. Key and value limits are those of the store; a line may
// be longer than a value because base64 and JSON escapes make bytes longer.
const (
	MaxKeyBytes   = lww.MaxKeyBytes
	MaxValueBytes = lww.MaxValueBytes
	MaxLineBytes  = 24 << 20 // also bounds a CSV row that spans lines
)

// Format is how rows are written in a file.
type Format int

// The formats. Auto goes by the extension of the file's name.
const (
	Auto Format = iota
	TSV
	CSV
	JSONL
)

var formatNames = [...]string{Auto: "auto", TSV: "tsv", CSV: "csv", JSONL: "jsonl"}

// String returns the name that ParseFormat reads.
func (f Format) String() string { return formatNames[f] }

// ParseFormat reads "tsv", "csv", "jsonl" or "auto".
func ParseFormat(s string) (Format, error) {
	for f, name := range formatNames {
		if s == name {
			return Format(f), nil
		}
	}
	return Auto, fmt.Errorf("%q is not a format: use tsv, csv or jsonl", s)
}

// FormatOf tells the format of a file by its extension.
func FormatOf(path string) (Format, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".tsv", ".tab":
		return TSV, nil
	case ".csv":
		return CSV, nil
	case ".jsonl", ".ndjson":
		return JSONL, nil
	}
	return Auto, fmt.Errorf("the name %q does not tell the format: say tsv, csv or jsonl", path)
}

// Options says how to read a file. The zero value goes by the file's name and
// takes every line for a row.
type Options struct {
	Format Format
	// Header skips the first row, which holds column names. TSV and CSV only.
	Header bool
}

// Row is one row of a file. Its slices belong to the caller.
type Row struct {
	Key, Value []byte
	Line       int // where the row begins, from 1
}

// LineError reports a malformed row. The reader can go on behind it.
type LineError struct {
	File   string
	Line   int
	Reason string
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason) }

// errMalformed carries a reason from a parser to Next, which knows the line.
type errMalformed string

func (e errMalformed) Error() string { return string(e) }

func malformed(format string, args ...any) error {
	return errMalformed(fmt.Sprintf(format, args...))
}

// Reader reads the rows of one file. It is not safe for concurrent use.
type Reader struct {
	lines  lines
	name   string
	next   func() (Row, error) // one row in the file's format
	header bool                // still to be skipped
	file   io.Closer
	size   int64
}

// Open opens a file of rows; "-" is the standard input, whose format must be
// given.
func Open(path string, opts Options) (*Reader, error) {
	if path == "-" {
		if opts.Format == Auto {
			return nil, errors.New("the standard input has no name to tell its format: say tsv, csv or jsonl")
		}
		return NewReader(os.Stdin, "stdin", opts)
	}
	if opts.Format == Auto {
		format, err := FormatOf(path)
		if err != nil {
			return nil, err
		}
		opts.Format = format
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory, not a file of rows", path)
	}
	var r *Reader
	if err == nil {
		r, err = NewReader(f, path, opts)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r.file = f
	if info.Mode().IsRegular() {
		r.size = info.Size()
	}
	return r, nil
}

// NewReader reads rows from src. name stands in errors.
func NewReader(src io.Reader, name string, opts Options) (*Reader, error) {
	r := &Reader{
		lines:  lines{src: bufio.NewReaderSize(src, 256<<10)},
		name:   name,
		header: opts.Header,
	}
	switch opts.Format {
	case TSV:
		r.next = r.perLine(parseTSV)
	case CSV:
		r.next = r.nextCSV
	case JSONL:
		if opts.Header {
			return nil, errors.New("JSON lines have no header: only TSV and CSV do")
		}
		r.next = r.perLine(parseJSON)
	default:
		return nil, errors.New("the format is not given: say tsv, csv or jsonl")
	}
	return r, nil
}

// Next returns the next row, io.EOF after the last one, a *LineError for a
// malformed row, or any other error when the file cannot be read further.
func (r *Reader) Next() (Row, error) {
	for {
		row, err := r.next()
		if err == io.EOF {
			return Row{}, io.EOF
		}
		reason, bad := errors.AsType[errMalformed](err)
		if err != nil && !bad {
			return Row{}, fmt.Errorf("%s: reading after line %d: %w", r.name, r.lines.number, err)
		}
		if r.header {
			// Column names need not obey the rules of rows.
			r.header = false
			continue
		}
		if err == nil {
			reason = checkSizes(row)
		}
		if reason != "" {
			return Row{}, &LineError{File: r.name, Line: row.Line, Reason: string(reason)}
		}
		return row, nil
	}
}

func checkSizes(row Row) errMalformed {
	switch {
	case len(row.Key) == 0:
		return "the key is empty"
	case len(row.Key) > MaxKeyBytes:
		return errMalformed(fmt.Sprintf("the key has %d bytes, more than the limit of %d (64 KiB)", len(row.Key), MaxKeyBytes))
	case len(row.Value) > MaxValueBytes:
		return errMalformed(fmt.Sprintf("the value has %d bytes, more than the limit of %d (8 MiB)", len(row.Value), MaxValueBytes))
	}
	return ""
}

// Offset returns how many bytes of the file have been read, for a progress bar.
func (r *Reader) Offset() int64 { return r.lines.offset }

// Size returns the file's size, or 0 when it is not known.
func (r *Reader) Size() int64 { return r.size }

// Close closes the file.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// perLine reads rows of a format whose rows are single lines.
func (r *Reader) perLine(parse func([]byte) (key, value []byte, err error)) func() (Row, error) {
	return func() (Row, error) {
		for {
			line, err := r.lines.next()
			if err != nil {
				return Row{Line: r.lines.number}, err
			}
			if line = trimEnd(line); len(line) == 0 {
				continue
			}
			key, value, err := parse(line)
			return Row{Key: key, Value: value, Line: r.lines.number}, err
		}
	}
}

// trimEnd takes the line end off a line.
func trimEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}
