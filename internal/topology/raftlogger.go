package topology

import (
	"context"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"
)

// raftLogger writes what the raft library says of itself at debug level: what of
// it matters to an operator, Log says in its own words.
type raftLogger struct{ logger *slog.Logger }

var _ raft.Logger = raftLogger{}

// raftPanic is how the library ends when what it is told contradicts what it
// knows.
type raftPanic string

func (l raftLogger) say(level, text string, args []any) {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.logger.Debug("raft: "+fmt.Sprintf(text, args...), "raft_level", level)
	}
}

func (l raftLogger) Debug(v ...any)              { l.say("debug", "%s", []any{fmt.Sprint(v...)}) }
func (l raftLogger) Debugf(f string, v ...any)   { l.say("debug", f, v) }
func (l raftLogger) Info(v ...any)               { l.say("info", "%s", []any{fmt.Sprint(v...)}) }
func (l raftLogger) Infof(f string, v ...any)    { l.say("info", f, v) }
func (l raftLogger) Warning(v ...any)            { l.say("warning", "%s", []any{fmt.Sprint(v...)}) }
func (l raftLogger) Warningf(f string, v ...any) { l.say("warning", f, v) }
func (l raftLogger) Error(v ...any)              { l.say("error", "%s", []any{fmt.Sprint(v...)}) }
func (l raftLogger) Errorf(f string, v ...any)   { l.say("error", f, v) }
func (l raftLogger) Fatal(v ...any)              { panic(raftPanic(fmt.Sprint(v...))) }
func (l raftLogger) Fatalf(f string, v ...any)   { panic(raftPanic(fmt.Sprintf(f, v...))) }
func (l raftLogger) Panic(v ...any)              { panic(raftPanic(fmt.Sprint(v...))) }
func (l raftLogger) Panicf(f string, v ...any)   { panic(raftPanic(fmt.Sprintf(f, v...))) }
