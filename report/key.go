package report

import (
	"encoding/base64"
	"unicode/utf8"
)

// JSONKey returns a key as the two fields that JSON has for it: text, and for a
// key that is not UTF-8 also base64.
func JSONKey(key []byte) (text, b64 string) {
	if utf8.Valid(key) {
		return string(key), ""
	}
	return string(key), base64.StdEncoding.EncodeToString(key)
}
