package resp

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/redcon"
)

const (
	// flushBytes is how much of the replies is held before they are written
	// although more commands wait: a reply of any size needs no more memory.
	flushBytes = 64 << 10
	// writeBytes is what a client must take within one WriteTimeout. A limit
	// on progress, not on the whole reply: 8 MiB over a thin line is fine.
	writeBytes = 256 << 10
)

// replyWriter encodes replies in the protocol version of its connection and
// keeps them until flush. After an error of the connection it writes nothing.
type replyWriter struct {
	nc      net.Conn
	timeout time.Duration
	resp3   bool
	buf     []byte
	err     error
}

func (w *replyWriter) status(s string)     { w.buf = redcon.AppendString(w.buf, s) }
func (w *replyWriter) ok()                 { w.buf = redcon.AppendOK(w.buf) }
func (w *replyWriter) integer(n int64)     { w.buf = redcon.AppendInt(w.buf, n) }
func (w *replyWriter) array(n int)         { w.buf = redcon.AppendArray(w.buf, n) }
func (w *replyWriter) bulkString(s string) { w.bulk([]byte(s)) }

// error writes an error line; text begins with its code.
func (w *replyWriter) error(text string) { w.buf = redcon.AppendError(w.buf, text) }

// backendError writes an error of the backend with the code it names itself.
func (w *replyWriter) backendError(err error) {
	code := "ERR"
	var coder interface{ Code() string }
	if errors.As(err, &coder) {
		if c := coder.Code(); c != "" && !strings.ContainsAny(c, " \r\n") {
			code = c
		}
	}
	w.error(code + " " + err.Error())
}

func (w *replyWriter) bulk(b []byte) {
	if len(b) < flushBytes {
		w.buf = redcon.AppendBulk(w.buf, b)
		w.grown()
		return
	}
	// A large value is written from where it lies, not copied first.
	w.buf = append(w.buf, '$')
	w.buf = strconv.AppendInt(w.buf, int64(len(b)), 10)
	w.buf = append(w.buf, '\r', '\n')
	w.flush()
	w.write(b)
	w.buf = append(w.buf, '\r', '\n')
}

func (w *replyWriter) null() {
	if w.resp3 {
		w.buf = append(w.buf, "_\r\n"...)
		return
	}
	w.buf = redcon.AppendNull(w.buf)
}

// mapOf begins a map of n pairs: in RESP2 a flat array.
func (w *replyWriter) mapOf(n int) {
	if w.resp3 {
		w.header('%', n)
		return
	}
	w.array(2 * n)
}

// boolean writes a truth value: in RESP2 as 1 or 0.
func (w *replyWriter) boolean(b bool) {
	switch {
	case !w.resp3 && b:
		w.integer(1)
	case !w.resp3:
		w.integer(0)
	case b:
		w.buf = append(w.buf, "#t\r\n"...)
	default:
		w.buf = append(w.buf, "#f\r\n"...)
	}
}

// set begins a set of n elements: in RESP2 an array.
func (w *replyWriter) set(n int) {
	if w.resp3 {
		w.header('~', n)
		return
	}
	w.array(n)
}

// text writes text meant for people: in RESP3 a verbatim string, in RESP2 a bulk.
func (w *replyWriter) text(s string) {
	if !w.resp3 {
		w.bulkString(s)
		return
	}
	w.header('=', len(s)+len("txt:"))
	w.buf = append(w.buf, "txt:"...)
	w.buf = append(w.buf, s...)
	w.buf = append(w.buf, '\r', '\n')
}

func (w *replyWriter) header(kind byte, n int) {
	w.buf = append(w.buf, kind)
	w.buf = strconv.AppendInt(w.buf, int64(n), 10)
	w.buf = append(w.buf, '\r', '\n')
}

// grown flushes a reply that outgrows the buffer while it is being made.
func (w *replyWriter) grown() {
	if len(w.buf) >= flushBytes {
		w.flush()
	}
}

func (w *replyWriter) flush() {
	if len(w.buf) > 0 {
		w.write(w.buf)
		w.buf = w.buf[:0]
	}
}

func (w *replyWriter) write(b []byte) {
	for len(b) > 0 && w.err == nil {
		piece := b[:min(len(b), writeBytes)]
		b = b[len(piece):]
		if w.err = w.nc.SetWriteDeadline(time.Now().Add(w.timeout)); w.err == nil {
			_, w.err = w.nc.Write(piece)
		}
	}
}
