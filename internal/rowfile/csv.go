package rowfile

import "io"

// nextCSV gathers lines until a row is complete. A broken quote is blamed on the
// line on which the row began, and the reader goes on with the line after that
// one: the lines that the row ran over are most likely innocent.
func (r *Reader) nextCSV() (Row, error) {
	var (
		row    csvRow
		text   []byte // the lines of the row so far
		first  int    // length of its first line
		begin  int
		extra  int // lines after the first
		budget = MaxLineBytes
	)
	blame := func(err error, tooBig bool) (Row, error) {
		r.lines.takeBack(text[first:], extra, tooBig)
		return Row{Line: begin}, err
	}
	for {
		line, err := r.lines.next()
		switch {
		case err == nil:
		case len(text) == 0:
			return Row{Line: r.lines.number}, err
		case err == io.EOF:
			return blame(malformed(`a quote (") is opened and never closed`), false)
		case err == errTooLong:
			return blame(malformed(`a quote (") is opened and not closed within %d bytes (24 MiB)`, MaxLineBytes), true)
		default:
			return Row{Line: begin}, err
		}
		if len(text) == 0 {
			if len(trimEnd(line)) == 0 {
				continue
			}
			begin, first = r.lines.number, len(line)
		} else {
			extra++
		}
		text = append(text, line...)
		if budget -= len(line); budget < 0 {
			return blame(malformed(`a quote (") is opened and not closed within %d bytes (24 MiB)`, MaxLineBytes), false)
		}
		if err := row.add(line); err != nil {
			return blame(err, false)
		}
		if row.quoted {
			continue // the field goes on in the next line
		}
		if n := len(row.fields); n != 2 {
			// Well formed but not a row of ours: nothing to go back over, and
			// the inside of a value must not be read as rows.
			return Row{Line: begin}, malformed("%s where there must be two, key and value", columns(n))
		}
		return Row{Key: row.fields[0], Value: row.fields[1], Line: begin}, nil
	}
}

func columns(n int) string {
	if n == 1 {
		return "one column"
	}
	return malformed("%d columns", n).Error()
}

// csvRow is the parser's state between the lines of one row.
type csvRow struct {
	fields [][]byte
	field  []byte // the one being read, while quoted
	quoted bool   // inside quotes
}

// add parses one more line of the row.
func (c *csvRow) add(line []byte) error {
	// Inside quotes the line end is data, so it is taken off only outside.
	body := trimEnd(line)
	i := 0
	if !c.quoted {
		c.field = nil
	}
	for {
		if !c.quoted {
			if i < len(body) && body[i] == '"' {
				c.quoted = true
				c.field = []byte{}
				i++
			} else {
				start := i
				for i < len(body) && body[i] != ',' {
					if body[i] == '"' {
						return malformed(`a quote (") inside a field that does not begin with one: quote the field and double the quote`)
					}
					i++
				}
				c.fields = append(c.fields, append([]byte{}, body[start:i]...))
				if i == len(body) {
					return nil
				}
				i++ // the comma
				continue
			}
		}
		// Inside quotes, up to the closing one.
		for i < len(line) && (line[i] != '"' || i+1 < len(line) && line[i+1] == '"') {
			c.field = append(c.field, line[i])
			if line[i] == '"' {
				i++ // a doubled quote stands for one
			}
			i++
		}
		if i == len(line) {
			return nil
		}
		i++ // the closing quote
		c.quoted = false
		c.fields = append(c.fields, c.field)
		c.field = nil
		if i >= len(body) {
			return nil
		}
		if body[i] != ',' {
			return malformed(`text after a closing quote ("): double a quote that belongs to the field`)
		}
		i++
	}
}
