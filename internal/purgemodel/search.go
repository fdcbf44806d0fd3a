package purgemodel

import (
	"fmt"
	"hash/maphash"
	"strings"
)

// Result is what a search came to.
type Result struct {
	States   uint64 // visited, the first one included
	Steps    uint64 // taken, to states that were new or not
	Closures uint64 // states that were run to their end
	Depth    int    // down to which every state was visited
	Whole    bool   // every state that can be reached was visited
	Wrong    string // what is wrong, "" if nothing is
	Trace    []string
}

// Search visits the states of a scenario, breadth first, down to a depth (0: all), and up
// to a number of them (0: all), and stops at the first that is wrong.
func Search(cfg Scenario, depth int, limit uint64) Result {
	v := &search{cfg: &cfg, seen: newSet()}
	v.enc.arrival = cfg.Limits.Arrival()
	if cfg.rules.raise == nil {
		cfg.rules = sound()
	}
	return v.run(depth, limit)
}

type search struct {
	cfg    *Scenario
	enc    normal
	seen   *set
	parent []uint32 // of each state, by number
	choice []uint16 // which of its steps led here
}

func (v *search) run(depth int, limit uint64) (res Result) {
	first, _ := v.enc.encode(v.cfg.start())
	v.seen.add(first)
	v.parent, v.choice = append(v.parent, 0), append(v.choice, 0)
	var layer, next frontier
	layer.push(0, first)
	res.States = 1
	for d := 1; ; d++ {
		for layer.more() {
			number, b := layer.pop()
			at := uint16(0)
			stop := false
			v.cfg.successors(v.cfg.decode(b), func(_ step, n *state) {
				choice := at
				at++
				if stop {
					return
				}
				res.Steps++
				b, _ := v.enc.encode(n)
				hash, added := v.seen.add(b)
				if !added && n.bad == "" {
					return
				}
				v.parent, v.choice = append(v.parent, number), append(v.choice, choice)
				res.States = uint64(len(v.parent))
				bad := v.cfg.wrong(n)
				if bad == "" && v.cfg.Closure > 0 && hash%uint64(v.cfg.Closure) == 0 {
					res.Closures++
					bad = v.cfg.closes(v.cfg.decode(b))
				}
				if bad != "" {
					res.Wrong, res.Trace = bad, v.trace(uint32(len(v.parent)-1))
					stop = true
					return
				}
				next.push(uint32(len(v.parent)-1), b)
			})
			if stop || limit > 0 && res.States >= limit {
				return res
			}
		}
		res.Depth = d
		if next.empty() {
			res.Whole = true
			return res
		}
		if d == depth {
			return res
		}
		layer, next = next, frontier{}
	}
}

// trace tells how a state is reached, with the names that the nodes have at the beginning.
func (v *search) trace(number uint32) (lines []string) {
	var choices []uint16
	for n := number; n != 0; n = v.parent[n] {
		choices = append(choices, v.choice[n])
	}
	b, names := v.enc.encode(v.cfg.start())
	s := v.cfg.decode(b)
	// real[x] is the original name of what is x now.
	var real [nodes]int
	for i, p := range names {
		real[p] = i
	}
	for k := len(choices) - 1; k >= 0; k-- {
		at := uint16(0)
		var taken step
		var to state
		v.cfg.successors(s, func(a step, n *state) {
			if at == choices[k] {
				taken, to = a, *n
			}
			at++
		})
		lines = append(lines, taken.print(func(i int) string { return string(rune('A' + real[i])) })+"   "+to.show(real))
		b, names := v.enc.encode(&to)
		s = v.cfg.decode(b)
		var now [nodes]int
		for i, p := range names {
			now[p] = real[i]
		}
		real = now
	}
	return lines
}

// show prints what the replicas hold.
func (s *state) show(real [nodes]int) string {
	var out [nodes]string
	for i := range s.reps {
		r := &s.reps[i]
		t := fmt.Sprintf("%c:", 'A'+real[i])
		if !r.up {
			t += "down "
		}
		t += r.mode.String()[:2]
		for _, h := range r.ent {
			if h.id != 0 {
				t += fmt.Sprintf(" %c%d@%d", "vxe"[s.write(h.id).kind], h.id, h.applied)
			}
		}
		if c := r.purge.Cut.At; c != 0 {
			t += fmt.Sprintf(" P%d.%d/%d", ticksOf(c), c&3, r.purge.Upto)
		}
		out[real[i]] = t
	}
	return fmt.Sprintf("[%d | %s]", s.now, strings.Join(out[:], " | "))
}

// frontier is a queue of encoded states.
type frontier struct {
	chunks [][]byte
	read   int
}

const chunkBytes = 1 << 20

func (f *frontier) push(number uint32, b []byte) {
	n := len(f.chunks)
	if n == 0 || len(f.chunks[n-1])+len(b)+6 > chunkBytes {
		f.chunks = append(f.chunks, make([]byte, 0, chunkBytes))
		n++
	}
	c := f.chunks[n-1]
	c = append(c, byte(number), byte(number>>8), byte(number>>16), byte(number>>24), byte(len(b)), byte(len(b)>>8))
	f.chunks[n-1] = append(c, b...)
}

func (f *frontier) empty() bool { return len(f.chunks) == 0 }

func (f *frontier) more() bool {
	if len(f.chunks) > 0 && f.read == len(f.chunks[0]) {
		f.chunks, f.read = f.chunks[1:], 0
	}
	return len(f.chunks) > 0
}

func (f *frontier) pop() (number uint32, b []byte) {
	c := f.chunks[0][f.read:]
	number = uint32(c[0]) | uint32(c[1])<<8 | uint32(c[2])<<16 | uint32(c[3])<<24
	n := int(c[4]) | int(c[5])<<8
	f.read += 6 + n
	return number, c[6 : 6+n]
}

// set is a set of 128-bit hashes, in an open table.
type set struct {
	seeds [2]maphash.Seed
	table [][2]uint64
	used  int
}

func newSet() *set {
	return &set{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, table: make([][2]uint64, 1<<12)}
}

// add reports whether the bytes were not there, and returns half of their hash.
func (s *set) add(b []byte) (hash uint64, added bool) {
	h := [2]uint64{maphash.Bytes(s.seeds[0], b) | 1, maphash.Bytes(s.seeds[1], b)}
	if !s.insert(h) {
		return h[1], false
	}
	if s.used++; s.used*4 > len(s.table)*3 {
		old := s.table
		s.table = make([][2]uint64, 2*len(old))
		for _, h := range old {
			if h[0] != 0 {
				s.insert(h)
			}
		}
	}
	return h[1], true
}

func (s *set) insert(h [2]uint64) bool {
	mask := uint64(len(s.table) - 1)
	for i := h[1] & mask; ; i = (i + 1) & mask {
		switch s.table[i] {
		case [2]uint64{}:
			s.table[i] = h
			return true
		case h:
			return false
		}
	}
}
