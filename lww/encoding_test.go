package lww_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"syntropy/hlc"
	"syntropy/lww"
)

// anyEntry draws entries from all that is valid.
var anyEntry = rapid.Custom(func(t *rapid.T) lww.Entry {
	e := lww.Entry{
		Key: rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "key"),
		Version: lww.Version{
			Stamp:     hlc.Stamp(rapid.Uint64Min(1).Draw(t, "stamp")),
			Node:      hlc.NodeID(rapid.Uint16().Draw(t, "node")),
			Tombstone: rapid.Bool().Draw(t, "tombstone"),
		},
	}
	if !e.Tombstone {
		e.Value = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")
	}
	if rapid.Bool().Draw(t, "expiry") {
		e.ExpiryStamp = hlc.Stamp(rapid.Uint64().Draw(t, "expiry stamp"))
		e.ExpiryNode = hlc.NodeID(rapid.Uint16().Draw(t, "expiry node"))
		e.Expires = rapid.Int64Min(0).Draw(t, "expires")
	}
	return e
})

// TestEncodingRoundTrip: an entry comes back as it went in, its length was
// announced exactly, and every cut of it is refused.
func TestEncodingRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEntry.Draw(t, "entry")
		prefix := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "prefix")
		suffix := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "suffix")
		b := lww.AppendEntry(bytes.Clone(prefix), e)
		if !bytes.HasPrefix(b, prefix) {
			t.Fatal("AppendEntry changed what was there before")
		}
		b = b[len(prefix):]
		if got := lww.EncodedLen(e); got != len(b) {
			t.Fatalf("EncodedLen says %d, AppendEntry appends %d bytes", got, len(b))
		}
		got, rest, err := lww.DecodeEntry(append(bytes.Clone(b), suffix...))
		if err != nil || !equal(got, e) || !bytes.Equal(rest, suffix) {
			t.Fatalf("came back as %+v, rest %x, %v", got, rest, err)
		}
		for cut := range b {
			if _, _, err := lww.DecodeEntry(b[:cut]); !errors.Is(err, lww.ErrMalformed) {
				t.Fatalf("cut to %d of %d bytes: %v", cut, len(b), err)
			}
		}
		row := lww.AppendRow(nil, e)
		if !bytes.HasSuffix(b, row) {
			t.Fatal("an entry does not end with its row")
		}
		if got, err := lww.DecodeRow(e.Key, row); err != nil || !equal(got, e) {
			t.Fatalf("the row came back as %+v, %v", got, err)
		}
	})
}

// TestEncodingLayout pins the bytes: rows on disk outlive the program that
// wrote them.
func TestEncodingLayout(t *testing.T) {
	for _, tc := range []struct {
		name  string
		entry lww.Entry
		want  string
	}{
		{"a value", lww.Entry{Key: []byte("key"), Value: []byte("v"), Version: lww.Version{Stamp: 0x0102030405060708, Node: 0x0a0b}},
			"03 6b6579 0c 00 0102030405060708 0a0b 76"},
		{"a tombstone", lww.Entry{Key: []byte("k"), Version: lww.Version{Stamp: 1, Node: 2, Tombstone: true}},
			"01 6b 0b 01 0000000000000001 0002"},
		{"with expiry", lww.Entry{Key: []byte("k"), Value: []byte("v"), Version: lww.Version{Stamp: 1, Node: 2, ExpiryStamp: 3, ExpiryNode: 4, Expires: 5}},
			"01 6b 1e 02 0000000000000001 0002 0000000000000003 0004 0000000000000005 76"},
		{"expiry removed", lww.Entry{Key: []byte("k"), Version: lww.Version{Stamp: 1, Node: 2, ExpiryStamp: 3, ExpiryNode: 4}},
			"01 6b 1d 02 0000000000000001 0002 0000000000000003 0004 0000000000000000"},
	} {
		if got, want := hex.EncodeToString(lww.AppendEntry(nil, tc.entry)), strings.ReplaceAll(tc.want, " ", ""); got != want {
			t.Errorf("%s: %s, want %s", tc.name, got, want)
		}
	}
}

// TestDecodeRefuses lists bytes that are no entry, each for another reason.
func TestDecodeRefuses(t *testing.T) {
	const head = "0000000000000001" + "0002"
	for name, text := range map[string]string{
		"nothing":                       "",
		"no row":                        "01 6b",
		"an empty key":                  "00 0b 00" + head,
		"an empty row":                  "01 6b 00",
		"half a head":                   "01 6b 05 00 00000000",
		"an unknown flag":               "01 6b 0b 04" + head,
		"all flags":                     "01 6b 0b ff" + head,
		"half an expiry":                "01 6b 0f 02" + head + "00000000",
		"an expiry flag, but no expiry": "01 6b 1d 02" + head + "0000000000000000 0000 0000000000000000",
		"a tombstone with a value":      "01 6b 0c 01" + head + "76",
		"no stamp":                      "01 6b 0b 00 0000000000000000 0002",
		"an expiry before 1970":         "01 6b 1d 02" + head + "0000000000000001 0001 ffffffffffffffff",
		"a length that overflows":       "ffffffffffffffffffff01 6b",
		"a length without end":          "ffffffffffffffffffffffffff",
		"a key longer than all bytes":   "05 6b",
		"a key over the limit":          "81800400",
		"a row over the limit":          "01 6b ffffffff0f",
		"a padded key length":           "8100 6b 0b 00" + head,
		"a padded row length":           "01 6b 8b00 00" + head,
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if e, _, err := lww.DecodeEntry(b); !errors.Is(err, lww.ErrMalformed) {
			t.Errorf("%s: read as %+v, %v", name, e, err)
		}
	}
}

func TestValidate(t *testing.T) {
	good := func() lww.Entry {
		return lww.Entry{Key: []byte("k"), Value: []byte("v"), Version: lww.Version{Stamp: 1, Node: 1}}
	}
	for name, spoil := range map[string]func(*lww.Entry){
		"no key":                   func(e *lww.Entry) { e.Key = nil },
		"a key too long":           func(e *lww.Entry) { e.Key = make([]byte, lww.MaxKeyBytes+1) },
		"a value too long":         func(e *lww.Entry) { e.Value = make([]byte, lww.MaxValueBytes+1) },
		"a tombstone with a value": func(e *lww.Entry) { e.Tombstone = true },
		"no stamp":                 func(e *lww.Entry) { e.Stamp = 0 },
		"a negative expiry":        func(e *lww.Entry) { e.Expires = -1 },
	} {
		e := good()
		spoil(&e)
		if err := e.Validate(); !errors.Is(err, lww.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	largest := good()
	largest.Key, largest.Value = make([]byte, lww.MaxKeyBytes), make([]byte, lww.MaxValueBytes)
	largest.ExpiryStamp = 1
	if err := largest.Validate(); err != nil {
		t.Error(err)
	}
	if e, rest, err := lww.DecodeEntry(lww.AppendEntry(nil, largest)); err != nil || len(rest) != 0 || !equal(e, largest) {
		t.Errorf("the largest entry does not come back: %v", err)
	}
}

// FuzzDecodeEntry: any bytes are an entry or an error, never a panic. An entry
// that was read is valid and encodes to the very bytes it was read from: there
// is one encoding, so equal entries have equal digests.
func FuzzDecodeEntry(f *testing.F) {
	for _, e := range seedEntries() {
		b := lww.AppendEntry(nil, e)
		f.Add(b)
		f.Add(append(b, b...))
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := lww.DecodeEntry(b)
		if err != nil {
			if !errors.Is(err, lww.ErrMalformed) {
				t.Fatalf("%v does not wrap ErrMalformed", err)
			}
			return
		}
		if err := e.Validate(); err != nil {
			t.Fatalf("read an entry that is not valid: %v", err)
		}
		if again := append(lww.AppendEntry(nil, e), rest...); !bytes.Equal(again, b) {
			t.Fatalf("%x was read, %x is what it encodes to", b, again)
		}
		if got := lww.EncodedLen(e); got != len(b)-len(rest) {
			t.Fatalf("EncodedLen says %d, it took %d bytes", got, len(b)-len(rest))
		}
	})
}

// FuzzDecodeRow is the same for rows as they lie on disk.
func FuzzDecodeRow(f *testing.F) {
	for _, e := range seedEntries() {
		f.Add(e.Key, lww.AppendRow(nil, e))
	}
	f.Add([]byte("k"), []byte{4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, key, row []byte) {
		e, err := lww.DecodeRow(key, row)
		if err != nil {
			if !errors.Is(err, lww.ErrMalformed) {
				t.Fatalf("%v does not wrap ErrMalformed", err)
			}
			return
		}
		if again := lww.AppendRow(nil, e); !bytes.Equal(again, row) {
			t.Fatalf("%x was read, %x is what it encodes to", row, again)
		}
	})
}

func seedEntries() []lww.Entry {
	return []lww.Entry{
		{Key: []byte("k"), Value: []byte("v"), Version: lww.Version{Stamp: 1, Node: 1}},
		{Key: []byte("k"), Version: lww.Version{Stamp: 1 << 60, Node: 65535, Tombstone: true}},
		{Key: bytes.Repeat([]byte("k"), 200), Value: bytes.Repeat([]byte("v"), 200), Version: lww.Version{Stamp: 1, Node: 1, ExpiryStamp: 2, ExpiryNode: 1, Expires: 3}},
		{Key: []byte{0}, Version: lww.Version{Stamp: 1, Node: 1, ExpiryStamp: 2, ExpiryNode: 1}},
	}
}
