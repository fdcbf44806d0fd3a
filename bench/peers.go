package bench

import "syntropy/merkle"

// Peers returns all peers, in the order in which they are printed.
func Peers() []Peer {
	return []Peer{
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
