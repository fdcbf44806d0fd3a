package main

import (
	"encoding/base64"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"syntropy/report"
)

func newInspect(a *app) *cobra.Command {
	var isBase64 bool
	cmd := &cobra.Command{
		Use:     "inspect KEY",
		GroupID: groupAsk,
		Short:   "what does every replica hold of this key?",
		Long: `Asks every replica of the key's shard for its version, changes nothing, and says
whether they agree. A read through a client asks as many replicas as its consistency
says, and answers the newest version that it finds; this shows what all of them hold.

  HOLDS    value, tombstone (a delete, which is kept and repaired like a value),
           or nothing
  WRITTEN  the stamp of the version. The latest one wins, marked "newest".
  DIGEST   start of the entry's digest: equal digests, equal entries

Example:
  $ syntropy inspect U+1F600
  key U+1F600   slot 9189   shard 143   token 0a3f9c21b7d4e65

  NODE  STATE  HOLDS      BYTES  WRITTEN                      BY  EXPIRES  DIGEST
  n1    live   value         13  2026-11-22T09:30:00.000125Z  n1  never    3f9ac210  newest
  n2    live   nothing
  n3    down   ?                                                                     no answer

  The replicas that answered do not agree. To make them: syntropy repair --shard 143

Exit statuses: 0 the replicas that answered agree (also when none holds the key);
3 they differ; 1 the command failed or no replica answered; 2 usage.`,
		Args: oneArg("the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := []byte(args[0])
			if isBase64 {
				var err error
				if key, err = base64.StdEncoding.DecodeString(args[0]); err != nil {
					return usageError("%q is not base64: %w", args[0], err)
				}
			}
			if len(key) == 0 {
				return usageError("the key is empty")
			}
			c := a.dial()
			defer c.Close()
			in, err := c.Inspect(cmd.Context(), key)
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(in)
			} else {
				a.printInspection(in, key)
			}
			if err != nil {
				return err
			}
			return judgeInspection(in)
		},
	}
	cmd.Flags().BoolVar(&isBase64, "base64", false, "KEY is base64, for keys that are not text")
	return a.client(cmd)
}

func judgeInspection(in report.Inspection) error {
	answered := 0
	for _, r := range in.Replicas {
		if r.Error == "" {
			answered++
		}
	}
	switch {
	case answered == 0:
		return fmt.Errorf("no replica of shard %d answered: see syntropy status for which nodes are up", in.Shard)
	case !in.Agree:
		return disagree("the replicas of shard %d differ in this key", in.Shard)
	}
	return nil
}

func (a *app) printInspection(in report.Inspection, key []byte) {
	fmt.Fprintf(a.out, "key %s   slot %d   shard %d   token %s\n\n", showKey(string(key), 200), in.Slot, in.Shard, in.Token)

	newest := uint64(0)
	for _, r := range in.Replicas {
		newest = max(newest, r.Timestamp)
	}
	t := table{align: "lllrlllll"}
	t.head("NODE", "STATE", "HOLDS", "BYTES", "WRITTEN", "BY", "EXPIRES", "DIGEST", "")
	held, answered := 0, 0
	for _, r := range in.Replicas {
		state := stateCell(r.State)
		if r.Error != "" {
			t.row(r.Node, state, "?", "", "", "", "", "", cell{text: r.Error, style: red, brief: true})
			continue
		}
		answered++
		if !r.Found {
			t.row(r.Node, state, "nothing")
			continue
		}
		held++
		holds, bytes, note := "value", count(r.ValueBytes), cell{}
		if r.Tombstone {
			holds, bytes = "tombstone", ""
		}
		if r.Timestamp == newest && !in.Agree {
			note = cell{text: "newest", style: green}
		}
		t.row(r.Node, state, holds, bytes, r.Time, r.Writer, when(r.Expires), short(r.Digest), note)
	}
	t.print(a.out, a.colour)
	fmt.Fprintln(a.out)
	switch {
	case answered == 0:
		fmt.Fprintln(a.out, "No replica answered.")
	case !in.Agree:
		fmt.Fprintf(a.out, "The replicas that answered do not agree. To make them: syntropy repair --shard %d\n", in.Shard)
	case held == 0:
		fmt.Fprintln(a.out, "No replica that answered holds the key, and no tombstone of it.")
	default:
		fmt.Fprintln(a.out, "The replicas that answered agree.")
	}
}

func when(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
