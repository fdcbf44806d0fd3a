package node

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"syntropy/coordinator"
	"syntropy/internal/topology"
	"syntropy/lww"
	"syntropy/report"
)

// defences are the columns of the table in docs/repair.md: each line of defence
// with the others switched off.
var defences = []string{"nothing", "only hints", "only read repair", "only anti-entropy"}

// divergence is a row of it: a way in which n3 comes to miss something.
type divergence struct {
	row  string // its text in the table
	make func(t *testing.T, c *cluster)
	read coordinator.Level // Default: nobody reads the key
}

const hotKey = "the key"

// whileDown lets n1 do something while n3 is away.
func whileDown(longer bool, do func(t *testing.T, n1 *member)) func(*testing.T, *cluster) {
	return func(t *testing.T, c *cluster) {
		n1, n3 := c.nodes[0], c.nodes[2]
		n3.stop()
		eventually(t, "n1 notices", func() bool { return len(n1.replicaOf().usablePeers()) == 1 })
		do(t, n1)
		if longer {
			passed(t, c.settings.HintWindow+10*time.Millisecond)
		}
		n3.start()
		c.connected()
		for _, m := range c.nodes[:2] { // that it is up says not yet that it serves
			eventually(t, m.name+" knows that n3 serves", func() bool { return m.replicaOf().peer(3).takes(StateLive) })
		}
	}
}

func overwrite(t *testing.T, n1 *member) {
	t.Helper()
	if err := n1.Write(t.Context(), coordinator.Quorum, []coordinator.Mutation{{Key: []byte(hotKey), Value: []byte("new")}}); err != nil {
		t.Fatal(err)
	}
	n1.quiet()
}

func divergences() []divergence {
	const (
		brief   = "a write while it was down for less than the hint window"
		long    = "a write while it was down for longer than the hint window"
		deleted = "a delete while it was down for longer than the hint window"
		expiry  = "a new expiry while it was down for longer than the hint window"
		lost    = "a row that its own disk has lost without a trace"
		unread  = "; nobody reads the key"
		readAll = "; the key is read at ALL"
		readOne = "; the key is read at ONE"
	)
	remove := func(t *testing.T, n1 *member) {
		if err := n1.Write(t.Context(), coordinator.Quorum, []coordinator.Mutation{{Kind: coordinator.Delete, Key: []byte(hotKey)}}); err != nil {
			t.Fatal(err)
		}
		n1.quiet()
	}
	expire := func(t *testing.T, n1 *member) {
		at := time.Now().Add(time.Hour).UnixMilli()
		ok, err := n1.SetExpiry(t.Context(), coordinator.Quorum, coordinator.Quorum, []byte(hotKey), func(lww.Entry) (int64, bool) { return at, true })
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		n1.quiet()
	}
	loseRow := func(t *testing.T, c *cluster) {
		e := entry(hotKey+" that n3 lost", "v", time.Minute)
		for _, m := range c.nodes[:2] { // as if n3 had never had it
			m.inject(e)
		}
	}
	return []divergence{
		{brief + unread, whileDown(false, overwrite), coordinator.Default},
		{long + unread, whileDown(true, overwrite), coordinator.Default},
		{long + readAll, whileDown(true, overwrite), coordinator.All},
		{long + readOne, whileDown(true, overwrite), coordinator.One},
		{deleted + readAll, whileDown(true, remove), coordinator.All},
		{expiry + readAll, whileDown(true, expire), coordinator.All},
		{"a write whose hint was lost: no room for it, or the disk that it lay on is gone", whileDown(false, func(t *testing.T, n1 *member) {
			overwrite(t, n1)
			if _, err := n1.replicaOf().hints.Forget(3); err != nil {
				t.Fatal(err)
			}
		}), coordinator.Default},
		{lost + unread, loseRow, coordinator.Default},
		{lost + readAll, loseRow, coordinator.All},
	}
}

// tableOf reads the table of docs/repair.md: what each defence does in each row.
func tableOf(t *testing.T) map[string][]string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/repair.md")
	if err != nil {
		t.Fatal(err)
	}
	table := make(map[string][]string)
	for _, m := range regexp.MustCompile(`(?m)^\| (.+) \|$`).FindAllStringSubmatch(string(doc), -1) {
		cells := strings.Split(m[1], " | ")
		if len(cells) == 1+len(defences) {
			table[cells[0]] = cells[1:]
		}
	}
	if head := strings.Join(table["what n3 missed"], ", "); head != strings.Join(defences, ", ") {
		t.Fatalf("the table has the columns %s", head)
	}
	delete(table, "what n3 missed")
	return table
}

// TestWhoHealsWhat: each line of defence alone heals what the table in
// docs/repair.md says, and no more.
func TestWhoHealsWhat(t *testing.T) {
	table := tableOf(t)
	for _, d := range divergences() {
		cells, ok := table[d.row]
		if !ok {
			t.Errorf("docs/repair.md has no row %q", d.row)
			continue
		}
		delete(table, d.row)
		for i, defence := range defences {
			t.Run(strings.ReplaceAll(d.row, " ", "_")+"/"+strings.ReplaceAll(defence, " ", "_"), func(t *testing.T) {
				want, known := map[string]bool{"heals": true, "-": false}[cells[i]]
				if !known {
					t.Fatalf("the cell says %q", cells[i])
				}
				if got := d.under(t, defence); got != want {
					t.Errorf("healed: %v; docs/repair.md says %q", got, cells[i])
				}
			})
		}
	}
	for row := range table {
		t.Errorf("docs/repair.md has a row that no test stands for: %q", row)
	}
}

// under lets n3 miss something, gives one defence the chance to do all it can, and
// reports whether n3 then holds what n1 holds.
func (d divergence) under(t *testing.T, defence string) bool {
	c := newCluster(t, 3, defenceSettings())
	c.hints = defence == "only hints"
	c.readRepair = defence == "only read repair"
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	n1, n3 := c.nodes[0], c.nodes[2]
	if err := n1.Write(t.Context(), coordinator.All, mutations([]Op{{Key: []byte(hotKey), Value: []byte("old")}})); err != nil {
		t.Fatal(err)
	}
	d.make(t, c)
	if d.read != coordinator.Default {
		keys := [][]byte{[]byte(hotKey), []byte(hotKey + " that n3 lost")}
		if _, err := n1.Read(t.Context(), d.read, keys); err != nil {
			t.Fatal(err)
		}
	}
	switch defence {
	case "only hints": // until none is left, delivered or dropped
		r := n1.replicaOf()
		eventually(t, "no hint is pending", func() bool { return r.hintsPending() == 0 })
	case "only anti-entropy":
		c.interval = time.Second
		began := time.Now()
		for _, m := range c.nodes { // from now on by schedule, and nobody asks for it
			m.stop()
			m.start()
		}
		c.connected()
		eventually(t, "n3 was compared with n1", func() bool {
			until, ok := n1.replicaOf().proofs.get(3)
			return ok && until.After(began)
		})
	}
	return c.agree(n1, n3)
}

func (c *cluster) agree(a, b *member) bool {
	ra, rb := a.replicaOf().store, b.replicaOf().store
	for _, key := range []string{hotKey, hotKey + " that n3 lost"} {
		ea, founda, erra := ra.Get([]byte(key))
		eb, foundb, errb := rb.Get([]byte(key))
		if erra != nil || errb != nil {
			c.t.Fatal(erra, errb)
		}
		if founda != foundb || founda && lww.Compare(ea, eb) != 0 {
			return false
		}
	}
	return true
}

// defenceSettings have a hint window that a test can wait for.
func defenceSettings() (s topology.Settings) {
	s = testSettings()
	s.HintWindow = time.Second
	return s
}

// TestOneKeyThroughTheWholePicture walks one key past all three lines, with all of
// them at work: the hint expires, nobody reads it, anti-entropy brings it.
func TestOneKeyThroughTheWholePicture(t *testing.T) {
	c := newCluster(t, 3, defenceSettings())
	c.hints, c.readRepair = true, true
	for _, m := range c.nodes {
		m.start()
	}
	c.connected()
	n1, n3 := c.nodes[0], c.nodes[2]
	overwriteWith := func(value string) {
		if err := n1.Write(t.Context(), coordinator.Quorum, mutations([]Op{{Key: []byte(hotKey), Value: []byte(value)}})); err != nil {
			t.Fatal(err)
		}
		n1.quiet()
	}
	overwriteWith("old")
	n3.stop()
	eventually(t, "n1 notices", func() bool { return len(n1.replicaOf().usablePeers()) == 1 })
	overwriteWith("new")
	r1 := n1.replicaOf()
	if got := r1.hintsPending(); got != 1 {
		t.Fatalf("n1 keeps %d hints, not one", got)
	}
	passed(t, c.settings.HintWindow+10*time.Millisecond)
	n3.start()
	c.connected()
	eventually(t, "the hint is gone", func() bool { return r1.hintsPending() == 0 })
	if h := r1.hints.Stats(); h.Delivered != 0 || h.Expired != 1 {
		t.Fatalf("the hint was not dropped for its age: %+v", h)
	}
	if got := n3.get([]byte(hotKey)); got != "old" {
		t.Fatalf("n3 holds %q: something has healed it already", got)
	}
	if got := r1.count().ReadRepairs; got != 0 {
		t.Fatalf("%d read repairs, but nobody reads", got)
	}
	in, err := n1.Inspect(t.Context(), []byte(hotKey))
	if err != nil || in.Agree {
		t.Fatalf("the operator sees no difference: %+v, %v", in, err)
	}
	c.settled()
	reports := n1.repair(report.RepairOptions{Node: 3})
	if len(reports) != 2 || reports[0].KeysPushed != 1 || reports[0].KeysDiverged != 1 {
		t.Fatalf("%+v", reports)
	}
	if got := n3.get([]byte(hotKey)); got != "new" {
		t.Fatalf("n3 holds %q after the repair", got)
	}
	c.equal()
}
