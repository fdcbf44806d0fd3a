// Package rowfile reads files of key/value rows, one row at a time, however
// large the file is.
//
// # Problem
//
// An import of a hundred million rows meets a file that some other program
// wrote. Some line of it will be broken. The reader must say which line and
// why, be able to go on behind it, never hold more than one row in memory, and
// never hand out a row that is not byte for byte what the file says.
//
// # Idea
//
// Three formats, one [Reader]:
//
//	TSV    key TAB value           \t \n \r \\ stand for TAB, LF, CR, backslash
//	CSV    key,value               RFC 4180; a quoted field may span lines
//	JSONL  {"key":"k","value":"v"} key_base64 and value_base64 for bytes that are not UTF-8
//
// [Reader.Next] returns rows until io.EOF. A malformed row is a *[LineError];
// call Next again to go on with the line after it. Any other error ends the
// reading. A byte order mark, CRLF line ends, empty lines and a missing last
// newline are all fine.
//
// # Caveats
//
// A CSV quote that is never closed would swallow the rest of the file as one
// field. The reader blames the line that opened it and goes on with the line
// after that one, so a typo costs one row and not all of them. CSV is parsed
// here and not with encoding/csv for two reasons: that reader buffers such a
// field without a limit, and it silently turns CR LF inside a quoted value into
// LF. On everything else the two agree; a fuzz test holds them together.
package rowfile
