package rowfile

import "bytes"

// parseTSV reads "key TAB value". The escapes are those of PostgreSQL's COPY
// and of the IANA text/tab-separated-values usage: without them a value could
// hold neither a TAB nor a line end.
func parseTSV(line []byte) (key, value []byte, err error) {
	rawKey, rawValue, found := bytes.Cut(line, []byte("\t"))
	if !found {
		return nil, nil, malformed("there is no TAB between a key and a value")
	}
	if extra := bytes.Count(rawValue, []byte("\t")); extra > 0 {
		return nil, nil, malformed(`%d columns where there must be two: write a TAB inside a value as \t`, extra+2)
	}
	if key, err = unescape(rawKey); err != nil {
		return nil, nil, err
	}
	value, err = unescape(rawValue)
	return key, value, err
}

func unescape(raw []byte) ([]byte, error) {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '\\' {
			if i++; i == len(raw) {
				return nil, malformed(`a \ at the end of a column: write a backslash as \\`)
			}
			switch raw[i] {
			case 't':
				c = '\t'
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case '\\':
			default:
				return nil, malformed(`%q is not an escape: there are \t, \n, \r and \\`, raw[i-1:i+1])
			}
		}
		out = append(out, c)
	}
	return out, nil
}
