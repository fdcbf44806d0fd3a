// Package admin is a node's door for operators: a small HTTP API that answers in
// JSON, and the client that the command line uses to talk to it.
//
// # The API
//
//	GET  /v1/status                       the cluster as this node sees it
//	GET  /v1/inspect?key=K                every replica's version of a key (key_base64= for any bytes)
//	POST /v1/repair                       run anti-entropy now; the body holds report.RepairOptions
//	POST /v1/repair/cancel                stop what operators repair, here and on the connected nodes
//	GET  /v1/roots                        the Merkle root of every replica; recompute=1 sums the rows on disk
//	POST /v1/load                         write rows: JSON lines as package rowfile reads them
//	GET  /healthz                         the process answers
//
// The answers are the types of package report, field for field what the commands
// print with --json. An error is
//
//	{"error": "what is wrong and what to do", "code": "bad_request"}
//
// with a status code that fits; see [Error] for the codes.
//
// # Who may call
//
// Nobody is asked for a password: the address belongs on loopback or on a
// private network. A browser on such a machine is the one stranger that can
// reach it anyway, on behalf of any page it shows, so requests that a page makes
// (they carry Origin or Sec-Fetch-Site) are refused.
//
// # Who waits for whom
//
// A repair answers when it is done, which may take long. Whoever disconnects
// cancels what he asked for: the context that [Node] is given ends. The same
// happens to repairs, but not to loads, when the server shuts down.
package admin
