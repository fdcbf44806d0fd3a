package bench

import "syntropy/merkle"

// Peers returns all peers, in the order in which they are printed.
func Peers() []Peer {
	return []Peer{
		Syntropy{},
		Syntropy{Label: "/hint", Hint: 1},
		Syntropy{Label: "/hint*3", Hint: 3},
		Syntropy{Label: "/hint/3", Hint: 1. / 3},
		Merkle16{DigestBytes: merkle.SumBytes},
		Merkle16{DigestBytes: hashBytes},
		Merkle2{},
		Riak{},
		Weaviate{},
		Negentropy{},
		MST{},
		RIBLT{},
		RIBLT{Kept: 1 << 14},
		Flat{},
		Brute{},
	}
}
