// Package report holds what a node tells the people who run it: how its cluster is,
// what every replica holds of a key, what a repair found and did, and the roots of
// all trees.
//
// A program that embeds a node gets these values from its methods; operators get
// them as JSON from the admin API and from every command with --json. The JSON
// names are an outside contract: scripts depend on them, so a field may be added
// and none is renamed or removed.
//
// Keys are bytes and JSON has only text, so a key stands in two fields: key, and
// key_base64 if it is not UTF-8. See [JSONKey].
package report
