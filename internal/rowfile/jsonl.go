package rowfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// parseJSON reads one object. It goes token by token because decoding into a
// struct would accept what must not pass silently: a field given twice, a field
// in other letter case, null for an empty value.
func parseJSON(line []byte) (key, value []byte, err error) {
	if !utf8.Valid(line) {
		// encoding/json would store U+FFFD in place of the bytes.
		return nil, nil, malformed("the line is not UTF-8: give such bytes as key_base64 or value_base64")
	}
	if loneSurrogate(line) {
		return nil, nil, malformed(`a \u escape is half of a surrogate pair: give such bytes as key_base64 or value_base64`)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if tok, err := d.Token(); err != nil {
		return nil, nil, notJSON(err)
	} else if tok != json.Delim('{') {
		return nil, nil, malformed(`not an object: write {"key":"...","value":"..."}`)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, nil, notJSON(err)
		}
		field := name.(string) // a member's name is never anything else
		what, into := "value", &value
		switch field {
		case "key", "key_base64":
			what, into = "key", &key
		case "value", "value_base64":
		default:
			return nil, nil, malformed("unknown field %q: there are key, value, key_base64 and value_base64", field)
		}
		tok, err := d.Token()
		if err != nil {
			return nil, nil, notJSON(err)
		}
		text, ok := tok.(string)
		if !ok {
			return nil, nil, malformed("%s is %s: it must be a string", field, kind(tok))
		}
		if *into != nil {
			return nil, nil, malformed("the %s is given twice", what)
		}
		*into = []byte(text)
		if field != what {
			if *into, err = base64.StdEncoding.Strict().DecodeString(text); err != nil {
				return nil, nil, malformed("%s is not base64: %v", field, err)
			}
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, nil, notJSON(err)
	}
	switch _, err := d.Token(); {
	case err != io.EOF:
		return nil, nil, malformed("something follows the object: one object per line")
	case key == nil:
		return nil, nil, malformed("the field key is missing")
	case value == nil:
		return nil, nil, malformed("the field value is missing")
	}
	return key, value, nil
}

func notJSON(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("not JSON: the line ends too early")
	}
	return malformed("not JSON: %v", err)
}

func kind(tok json.Token) string {
	switch tok := tok.(type) {
	case json.Delim:
		if tok == '{' {
			return "an object"
		}
		return "an array"
	case float64:
		return "the number " + strconv.FormatFloat(tok, 'g', -1, 64)
	case nil:
		return "null"
	default:
		return fmt.Sprint(tok) // true or false
	}
}

// loneSurrogate reports an escape like \ud800 without its other half, which
// encoding/json would replace by U+FFFD.
func loneSurrogate(line []byte) bool {
	for i := bytes.IndexByte(line, '\\'); i >= 0 && i+1 < len(line); {
		step := 2
		switch hi := escaped(line[i:]); {
		case hi >= 0xdc00 && hi < 0xe000:
			return true
		case hi >= 0xd800 && hi < 0xdc00:
			if lo := escaped(line[i+6:]); lo < 0xdc00 || lo >= 0xe000 {
				return true
			}
			step = 12
		}
		next := bytes.IndexByte(line[i+step:], '\\')
		if next < 0 {
			return false
		}
		i += step + next
	}
	return false
}

// escaped returns the code unit of a \uXXXX escape at the start of b, or 0.
func escaped(b []byte) uint64 {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0
	}
	v, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return v
}
