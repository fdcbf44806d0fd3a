package topology

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestFirstTableComesAtOnce: a cluster that is being formed has people waiting.
func TestFirstTableComesAtOnce(t *testing.T) {
	for _, nodes := range []int{1, 2, 3, 4, 7} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCouncil(t, founded(t, blanks(nodes)...))
				all := c.startAll()
				soon := 400 * time.Millisecond // the first attempt comes before the others are there
				if nodes == 1 {
					soon = 50 * time.Millisecond
				}
				for _, n := range all {
					c.within(soon, "a first table", func() bool { return version(n) == 1 })
				}
				for _, n := range all {
					s := n.log.Status()
					want := wantedVoters(nodes)
					if s.Leader != 1 || len(s.Voters) != want || s.Applied < 3 || s.Applied != s.Committed {
						t.Errorf("%v: %+v", n.me, s)
					}
					if learns := int(s.Voters[want-1]) < slices.IndexFunc(c.record.Members, func(m Member) bool { return m.Addr == n.me.Addr })+1; learns != (s.Role == roleLearner) {
						t.Errorf("%v: role %s, voters %v", n.me, s.Role, s.Voters)
					}
				}
				c.endAll()
				for _, n := range all {
					if !slices.Equal(n.told, []uint64{1}) {
						t.Errorf("%v was told of the tables %v", n.me, n.told)
					}
				}
			})
		})
	}
}

// TestFirstTableWithoutTheFirstLeader: nobody waits for the one that usually
// begins, and it gets the table when it comes.
func TestFirstTableWithoutTheFirstLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCouncil(t, founded(t, "", "", ""))
		n2, n3 := c.start(disk(2), nil), c.start(disk(3), nil)
		c.within(5*time.Second, "a table of two", func() bool { return version(n2) == 1 && version(n3) == 1 })
		n1 := c.start(disk(1), nil)
		c.within(2*time.Second, "the table at the third", func() bool { return version(n1) == 1 })
	})
}

// TestWithoutMajority: nothing changes, who asks is told why, and what is known
// is known at once after a restart.
func TestWithoutMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCouncil(t, founded(t, "", "", ""))
		alone := c.start(disk(1), nil)
		newcomer := disk(4)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := alone.log.Enroll(ctx, newcomer)
		wantError(t, err, "more than half of the voters of the topology, [n1 n2 n3], have to be up")
		if !errors.Is(err, context.DeadlineExceeded) || version(alone) != 0 {
			t.Fatal(err, version(alone))
		}
		n2 := c.start(disk(2), nil)
		c.within(5*time.Second, "a table of two", func() bool { return version(alone) == 1 && version(n2) == 1 })
		c.end(alone)
		c.end(n2)

		alone = c.start(disk(1), nil)
		if version(alone) != 1 {
			t.Fatal("after a restart the table is forgotten")
		}
		reply, err := alone.log.HandleEnroll(ctx, EnrollRequest{Me: newcomer})
		if err == nil {
			t.Fatal("enrolled without a majority:", reply)
		}
	})
}

func TestEnrollNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// As syntropy init makes it: n1 has a disk, n2 and n3 are still to come.
		c := newCouncil(t, founded(t, "a", "-", "-"))
		n1 := c.startAll()[0]
		table := c.enroll(n1, disk(2))
		n2 := c.start(disk(2), table)
		if again := c.enroll(n1, disk(2)); again.Version != table.Version {
			t.Error("enrolled twice")
		}
		c.within(3*time.Second, "a learner", func() bool { return n2.log.Status().Role == roleLearner })
		if voters := n1.log.Status().Voters; len(voters) != 1 {
			t.Error("two voters:", voters)
		}
		// Through a node that does not lead, for an address that is no member's, and
		// with two at the same time.
		var wg sync.WaitGroup
		for _, me := range []Identity{disk(3), {incarnation(9), addr(8), "b"}} {
			wg.Go(func() { c.enroll(n2, me) })
		}
		wg.Wait()
		table = n2.log.Table()
		if m, _ := table.MemberByAddr(addr(8)); m != (Member{4, addr(8), incarnation(9), "b"}) || len(table.HeldBy(4)) != 0 {
			t.Errorf("the newcomer is %+v and holds %d shards", m, len(table.HeldBy(4)))
		}
		n3 := c.start(disk(3), nil) // its record is all it has
		n4 := c.start(Identity{incarnation(9), addr(8), "b"}, table)
		c.within(10*time.Second, "three voters", func() bool {
			return len(n4.log.Status().Voters) == 3 && n3.log.Table() != nil && n3.log.Table().Version == table.Version
		})
		// The one that began is no longer needed.
		c.end(n1)
		c.enroll(n3, Identity{incarnation(10), addr(0), ""})
	})
}

// TestReplacedDisk: a member that lost its disk comes back with another one,
// which registers itself through whoever is up and votes in its place.
func TestReplacedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCouncil(t, founded(t, "", "", ""))
		all := c.startAll()
		c.within(time.Second, "a table", func() bool { return version(all[0]) == 1 && version(all[1]) == 1 && version(all[2]) == 1 })
		old := all[0]
		c.end(old)
		fresh := c.start(Identity{incarnation(77), addr(0), ""}, all[1].log.Table())
		if role := fresh.log.Status().Role; role != roleOutsider {
			t.Error("a new disk is a", role)
		}
		table := c.enroll(fresh, fresh.me) // by its own Log, which no leader knows
		if len(table.Members) != 3 || table.Members[0].Founder != fresh.me.Incarnation || table.Members[0].ID != 1 {
			t.Error("members:", table.Members)
		}
		c.within(10*time.Second, "its vote", func() bool {
			s := fresh.log.Status()
			return len(s.Voters) == 3 && s.Role != roleLearner && s.Role != roleOutsider
		})
		// Its vote counts: the other two are not needed both.
		c.end(all[1])
		c.enroll(all[2], disk(4))
		c.end(fresh)

		// The old disk is back in the node. It was voted out, and comes in again.
		c.start(all[1].me, nil)
		back := c.start(old.me, nil)
		c.enroll(back, back.me)
	})
}

// TestMessagesForAnotherDisk: what was meant for the disk that a member had is
// not taken by the one that it has.
func TestMessagesForAnotherDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCouncil(t, founded(t, "", "", ""))
		n1 := c.start(disk(1), nil)
		var captured [][]byte
		var mu sync.Mutex
		n2dir, err := OpenDir(filepath.Join(t.TempDir(), "x"), fixed(incarnation(2)), epoch)
		if err != nil {
			t.Fatal(err)
		}
		defer n2dir.Close()
		other, err := OpenLog(LogOptions{
			Record: c.record, Me: disk(2), Dir: n2dir,
			Send: func(_ context.Context, to Member, messages [][]byte) error {
				mu.Lock()
				defer mu.Unlock()
				if to.ID == 3 {
					captured = append(captured, messages...)
				}
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := other.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(captured) == 0 {
			t.Fatal("the test is void")
		}
		wantError(t, n1.log.Receive(captured[:1]), "for disk 3 arrived at 1")
		wantError(t, n1.log.Receive([][]byte{{0xff}}), "unreadable message")
		wantError(t, n1.log.Receive([][]byte{nil}), "for disk 0")
	})
}

// TestLogUnderLossesAndRestarts: whatever gets lost and whoever restarts, all
// nodes see the same tables, and in the end everybody is enrolled once.
func TestLogUnderLossesAndRestarts(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 3))
				founders := 3 + int(seed%3)
				c := newCouncil(t, founded(t, blanks(founders)...))
				var mu sync.Mutex
				lossy := true
				c.send = func(context.Context, string, [][]byte) error {
					mu.Lock()
					defer mu.Unlock()
					if lossy && r.IntN(4) == 0 {
						return errors.New("lost")
					}
					return nil
				}
				nodes := c.startAll()
				ctx, cancel := context.WithCancel(context.Background())
				var enrolling sync.WaitGroup
				for i := range 5 {
					enrolling.Go(func() {
						me := disk(20 + i)
						for ctx.Err() == nil {
							mu.Lock()
							through := c.disks[incarnation(uint64(1+r.IntN(founders)))]
							mu.Unlock()
							c.mu.Lock()
							up := c.nodes[through.me.Addr]
							c.mu.Unlock()
							if up == nil {
								up = nodes[0] // perhaps down as well: then Enroll says so
							}
							try, done := context.WithTimeout(ctx, 3*time.Second)
							_, err := up.log.Enroll(try, me)
							if err != nil {
								<-try.Done()
							}
							done()
							if err == nil {
								return
							}
						}
					})
				}
				pause := time.NewTicker(700 * time.Millisecond)
				defer pause.Stop()
				for range 25 {
					<-pause.C
					mu.Lock()
					n := nodes[r.IntN(len(nodes))]
					mu.Unlock()
					c.end(n)
					<-pause.C
					c.start(n.me, nil)
				}
				mu.Lock()
				lossy = false
				mu.Unlock()
				enrolling.Wait()
				cancel()
				c.within(20*time.Second, "one table with all in it", func() bool {
					for _, n := range nodes {
						if version(n) != 6 || n.log.Status().Applied != nodes[0].log.Status().Applied {
							return false
						}
					}
					return true
				})
				members := nodes[0].log.Table().Members
				if len(members) != founders+5 {
					t.Error("members:", members)
				}
			})
		})
	}
}

// TestLateComersGetTheWholeTable: who was away for longer than the log goes back
// gets what came of it, also when that gets lost at first.
func TestLateComersGetTheWholeTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCouncil(t, founded(t, "", "", "", ""))
		var mu sync.Mutex
		lose := 0
		c.send = func(_ context.Context, to string, messages [][]byte) error {
			mu.Lock()
			defer mu.Unlock()
			whole := func(b []byte) bool { return len(b) > 1024 }
			if to == addr(3) && lose > 0 && slices.ContainsFunc(messages, whole) {
				lose--
				return errors.New("lost")
			}
			return nil
		}
		nodes := c.startAll()
		c.within(time.Second, "a table", func() bool { return version(nodes[3]) == 1 })
		c.end(nodes[3])
		for i := range MaxMembers - 4 {
			c.enroll(nodes[0], disk(10+i))
		}
		var refused *RefusedError
		if _, err := nodes[0].log.Enroll(t.Context(), disk(100)); !errors.As(err, &refused) || !strings.Contains(err.Error(), "64 members, which is the most") {
			t.Error("one too many:", err)
		}
		b, err := os.ReadFile(filepath.Join(nodes[0].path, logFile))
		if err != nil || len(b) > 100<<10 {
			t.Errorf("the log has grown to %d bytes, %v", len(b), err)
		}

		mu.Lock()
		lose = 2
		mu.Unlock()
		late := c.start(nodes[3].me, nil)
		want := nodes[0].log.Table().Version
		c.within(20*time.Second, "the whole table", func() bool { return version(late) == want })
		mu.Lock()
		if lose != 0 {
			t.Error("nothing got lost")
		}
		mu.Unlock()
		c.end(late)
		late = c.start(late.me, nil)
		if version(late) != want {
			t.Error("and lost it again")
		}
		// One that was enrolled and never there is told everything, too.
		never := c.start(disk(10), nil)
		c.within(20*time.Second, "the whole table", func() bool { return version(never) == want })
	})
}

// TestASlowNodeHoldsUpNobody: one that takes messages and never answers costs the
// others nothing.
func TestASlowNodeHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCouncil(t, founded(t, "", "", ""))
		c.send = func(ctx context.Context, to string, _ [][]byte) error {
			if to == addr(2) {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		n1, n2 := c.start(disk(1), nil), c.start(disk(2), nil)
		c.within(2*time.Second, "a table of two", func() bool { return version(n1) == 1 && version(n2) == 1 })
		c.enroll(n1, disk(9))
	})
}
