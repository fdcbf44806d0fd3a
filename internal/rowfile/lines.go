package rowfile

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// lines splits a file into lines of bounded length, counts them, and can take
// back lines that a CSV row turned out not to own.
type lines struct {
	src    *bufio.Reader
	buf    []byte // the line returned last
	back   []byte // whole lines taken back, to be returned again first
	tooBig bool   // the line after back was too long and is gone
	number int    // of the line returned last, from 1
	offset int64  // bytes read from src
	begun  bool
}

// errTooLong ends the line's part in any row; the rest of the line is skipped.
var errTooLong = malformed("the line is longer than %d bytes (24 MiB)", MaxLineBytes)

// next returns the next line with its line end, if it has one. The bytes are
// valid until the following call.
func (l *lines) next() ([]byte, error) {
	if len(l.back) > 0 {
		end := bytes.IndexByte(l.back, '\n') + 1
		if end == 0 {
			end = len(l.back)
		}
		line := l.back[:end]
		l.back = l.back[end:]
		l.number++
		return line, nil
	}
	if l.tooBig {
		l.tooBig = false
		l.number++
		return nil, errTooLong
	}
	if !l.begun {
		l.begun = true
		if err := l.skipMark(); err != nil {
			return nil, err
		}
	}
	l.buf = l.buf[:0]
	tooLong := false
	for {
		part, err := l.src.ReadSlice('\n')
		l.offset += int64(len(part))
		if len(l.buf)+len(part) > MaxLineBytes {
			tooLong = true
		}
		if !tooLong {
			l.buf = append(l.buf, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(l.buf) == 0 && !tooLong:
			return nil, io.EOF
		case err != nil && err != io.EOF:
			// A line cut short by a failing disk must not pass for a row.
			return nil, err
		}
		l.number++
		if tooLong {
			return nil, errTooLong
		}
		return l.buf, nil
	}
}

// takeBack makes next return the given whole lines, count of them, once more.
// The bytes must not be changed afterwards.
func (l *lines) takeBack(text []byte, count int, tooBig bool) {
	if count == 0 && !tooBig {
		// The usual case; also keeps a file of nothing but broken lines linear.
		return
	}
	l.back = append(bytes.Clone(text), l.back...)
	l.tooBig = l.tooBig || tooBig
	if tooBig {
		count++
	}
	l.number -= count
}

// skipMark drops a UTF-8 byte order mark, which spreadsheets put first and
// which would otherwise become part of the first key.
func (l *lines) skipMark() error {
	mark, _ := l.src.Peek(3) // an error comes again with the first read
	switch {
	case bytes.Equal(mark, []byte("\xef\xbb\xbf")):
		n, err := l.src.Discard(3)
		l.offset += int64(n)
		return err
	case bytes.HasPrefix(mark, []byte("\xff\xfe")), bytes.HasPrefix(mark, []byte("\xfe\xff")):
		return errors.New("the file is UTF-16: convert it to UTF-8 first, for example with iconv")
	}
	return nil
}
