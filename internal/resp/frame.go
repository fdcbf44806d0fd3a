package resp

import (
	"bytes"
	"fmt"
	"time"

	"github.com/tidwall/redcon"
)

// protocolError ends a connection: after it nobody knows where the next command
// begins.
type protocolError struct {
	text string
	// stranger marks bytes that are no Redis client at all.
	stranger bool
}

func (e *protocolError) Error() string {
	text := "Protocol error: " + e.text
	if e.stranger {
		text += "; this is the Redis protocol port of Syntropy; the admin HTTP API is on --admin-listen"
	}
	return text
}

func strange(format string, args ...any) error {
	return &protocolError{text: fmt.Sprintf(format, args...), stranger: true}
}

func tooBig(format string, args ...any) error {
	return &protocolError{text: fmt.Sprintf(format, args...)}
}

func tooSlow(limit time.Duration) error {
	return &protocolError{text: fmt.Sprintf("a command was begun, and the rest of it, or the next 256 KiB, has not come within %v", limit)}
}

// framer finds the end of the command at the front of a buffer and checks its
// declared lengths on the way. It remembers how far it came, so a command that
// arrives in many pieces is walked once; redcon alone would start over with
// every piece, and would wait for any length a client cares to declare.
//
//	*2\r\n $3\r\n GET \r\n $1\r\n k \r\n
//	 args   bulk            bulk
//
// Bytes are judged strictly from left to right: the first wrong one decides, so
// the outcome does not depend on how the network cut them.
type framer struct {
	pos    int  // bytes of the command walked so far
	multi  bool // the '*' header was read
	args   int  // bulks still to come
	inBulk bool // the '$' header of a bulk of bulk bytes was read
	bulk   int
	word   inlineWord
}

type inlineWord int

const (
	beforeWord inlineWord = iota
	inWord
	afterWord
)

// next returns the size of the whole command at the front of buf, or 0 when more
// bytes are needed. Until it returns a size, the same front must be given again.
func (f *framer) next(buf []byte) (size int, err error) {
	if len(buf) == 0 {
		return 0, nil
	}
	var done bool
	if buf[0] == '*' {
		done, err = f.multibulk(buf)
	} else {
		done, err = f.inline(buf)
	}
	if err != nil || !done {
		return 0, err
	}
	size = f.pos
	*f = framer{}
	return size, nil
}

func (f *framer) multibulk(buf []byte) (done bool, err error) {
	if !f.multi {
		n, ok, err := f.header(buf, "invalid multibulk length")
		if err != nil || !ok {
			return false, err
		}
		if n > CommandArgsMax {
			return false, tooBig("invalid multibulk length: a command has at most %d arguments", CommandArgsMax)
		}
		f.multi, f.args = true, n
	}
	for f.args > 0 {
		if !f.inBulk {
			if f.pos == len(buf) {
				return false, nil
			}
			if c := buf[f.pos]; c != '$' {
				return false, strange("expected '$', got %q", c)
			}
			n, ok, err := f.header(buf, "invalid bulk length")
			switch {
			case err != nil || !ok:
				return false, err
			case n < 0:
				return false, strange("invalid bulk length")
			case n > bulkBytesMax:
				return false, tooBig("invalid bulk length: a value has at most %d bytes (8 MiB)", ValueBytesMax)
			case f.pos+n+2 > CommandBytesMax:
				return false, tooBig("a command has at most %d bytes (64 MiB) in total", CommandBytesMax)
			}
			f.inBulk, f.bulk = true, n
		}
		end := f.pos + f.bulk
		if len(buf) > end && buf[end] != '\r' || len(buf) > end+1 && buf[end+1] != '\n' {
			return false, strange("a bulk does not end where its length says")
		}
		if len(buf) < end+2 {
			return false, nil
		}
		f.pos, f.inBulk = end+2, false
		f.args--
	}
	return true, nil
}

// headerBytesMax is longer than any length that could be accepted.
const headerBytesMax = 16

// header reads the number of a "*n\r\n" or "$n\r\n" line at f.pos.
func (f *framer) header(buf []byte, invalid string) (n int, ok bool, err error) {
	negative := false
	for i := f.pos + 1; i < len(buf); i++ {
		switch c := buf[i]; {
		case i-f.pos > headerBytesMax:
			return 0, false, strange("%s", invalid)
		case c >= '0' && c <= '9' && buf[i-1] != '\r':
			n = n*10 + int(c-'0')
		case c == '-' && i == f.pos+1:
			negative = true
		case c == '\r' && buf[i-1] >= '0' && buf[i-1] <= '9':
		case c == '\n' && buf[i-1] == '\r':
			f.pos = i + 1
			if negative {
				n = -n
			}
			return n, true, nil
		default:
			return 0, false, strange("%s", invalid)
		}
	}
	return 0, false, nil
}

// inline walks a command typed as a line. Redis takes any line for one; here the
// first word must look like a command, because a TLS or HTTP client that gets
// "unknown command" for every line learns less than from one clear sentence.
func (f *framer) inline(buf []byte) (done bool, err error) {
	for ; f.pos < len(buf); f.pos++ {
		c := buf[f.pos]
		if f.pos >= inlineBytesMax {
			return false, tooBig("too big inline request: a line has at most %d bytes", inlineBytesMax)
		}
		switch {
		case c == '\n':
			if isHTTP(buf[:f.pos]) {
				return false, strange("this is HTTP")
			}
			f.pos++
			return true, nil
		case c == ' ' || c == '\t' || c == '\r':
			if f.word == inWord {
				f.word = afterWord
			}
		case c == 0:
			return false, strange("a zero byte in an inline command")
		case f.word == afterWord:
		case f.word == beforeWord && !isLetter(c) && c != '"' && c != '\'':
			return false, strange("expected '*' or an inline command, got %q", c)
		case c <= ' ' || c > '~':
			return false, strange("expected an inline command, got %q", c)
		default:
			f.word = inWord
		}
	}
	return false, nil
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// isHTTP recognises a request line: METHOD target HTTP/version. No command of
// ours has that shape: GET takes one key.
func isHTTP(line []byte) bool {
	words := bytes.Fields(line)
	if len(words) != 3 || !bytes.HasPrefix(words[2], []byte("HTTP/")) {
		return false
	}
	switch string(words[0]) {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI":
		return true
	}
	return false
}

// parse splits one whole command into its arguments, which lie in frame (or in
// memory of their own, where quotes were removed). An empty line or an array of
// no elements has no arguments.
func parse(frame []byte, into [][]byte) (args [][]byte, err error) {
	if frame[0] == '*' && (frame[1] == '-' || bytes.HasPrefix(frame, []byte("*0"))) {
		// Redis skips "*0" and "*-1"; redcon does not know the second, and
		// takes the bulks after a "*00" for its arguments.
		if n, _, _ := (&framer{}).header(frame, ""); n <= 0 {
			return into[:0], nil
		}
	}
	complete, args, _, rest, err := redcon.ReadNextCommand(frame, into)
	switch {
	case err != nil:
		return nil, &protocolError{text: trimProtocolError(err)}
	case !complete || len(rest) > 0:
		// The framer and redcon must agree on where a command ends.
		return nil, &protocolError{text: "invalid command"}
	}
	return args, nil
}

func trimProtocolError(err error) string {
	return string(bytes.TrimPrefix([]byte(err.Error()), []byte("Protocol error: ")))
}
