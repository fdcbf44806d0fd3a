package purge

// Mode is how far a replica may be relied on. It is stored with the State.
type Mode int

const (
	// Joining: it takes writes and serves no reads; its rows are being built, or were
	// built and it has not had a session with each other member yet.
	Joining Mode = iota
	// Condemned: it must be rebuilt and holds its old rows still. It takes writes, and
	// has no sessions.
	Condemned
	// Unchecked: it has started with the rows that it had and has not met a majority
	// yet. It takes writes and serves no reads.
	Unchecked
	// Live: it serves reads.
	Live
)

// String names the mode as reports do.
func (m Mode) String() string {
	return [...]string{"joining", "condemned", "unchecked", "live"}[m]
}

// Started returns the mode in which a replica starts that was stored with another.
// marked: the data directory is new, or says that it was restored from a backup.
func Started(stored Mode, marked bool) Mode {
	switch {
	case marked:
		return Condemned
	case stored == Live:
		return Unchecked
	}
	return stored
}

// Checked reports whether an unchecked replica may go live: it has met so many
// members, none of which is being built itself, that with it they are a majority, and
// is still in good standing with each of them.
func Checked(met, replicas int) bool { return 2*(met+1) > replicas }

// Joined reports whether a replica that was rebuilt may go live: it has had a session
// with each other member since, as initiator or as partner. A member that cannot be
// reached keeps it waiting; that nobody will come back is for an operator to say.
func (s State) Joined(members []Member) bool {
	for _, m := range members {
		if m.Replica == 0 || s.pair(m.Replica).last() == (Session{}) {
			return false
		}
	}
	return true
}
