// Package peerpb holds the messages between nodes, generated from peer.proto:
// read that file. They are encoded without reflection (MarshalVT and its kin),
// since every write passes here once per replica.
//
// After a change of peer.proto run go generate. It needs protoc on the PATH and
// fetches the plugins, at the versions pinned in generate.sh, into a directory
// that it removes afterwards.
package peerpb

//go:generate sh generate.sh
