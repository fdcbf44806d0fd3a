package coordinator

// Hints returns what is to be kept for replicas that did not answer, each entry
// once for each replica. A hint carries the entry as it was last stamped: an
// earlier attempt is known to have lost.
//
// Hints become due when an entry is settled, since until then it may be stamped
// again, and after that whenever a send fails. A request that failed with
// *UnknownError or *ShadowedError leaves hints, too: some replica may hold what
// was sent, and then the others are to hold it soon rather than when somebody
// notices. Two things leave none. An entry that a replica is known to shadow
// without having been acknowledged would lose wherever it arrives. And a replica
// that rejected an entry would reject it again.
func (w *Write) Hints() []Send {
	if len(w.owed) == 0 {
		return nil
	}
	var m mail
	m.addGrouped(w.attempt, w.owed)
	w.owed = nil
	for n := range m.sends {
		m.sends[n].id = -1 // nothing is to be reported about a hint
	}
	return m.sends
}

// settle closes an entry: from now on it is not sent again, and replicas that
// miss it are owed a hint.
func (w *Write) settle(i int) {
	e := &w.entries[i]
	if e.settled || e.last != i {
		return
	}
	e.settled = true
	for n := range e.targets {
		w.owe(i, &e.targets[n])
	}
}

// owe notes the hint for a replica that missed a settled entry.
func (w *Write) owe(i int, t *target) {
	e := &w.entries[i]
	if t.state != missed || e.beaten {
		return
	}
	t.state = hinted
	w.owed = append(w.owed, item{t.node, i, &e.entry})
}
