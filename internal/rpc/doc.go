// Package rpc carries messages between the nodes of a cluster over gRPC, and
// tells at once when a peer is gone.
//
// # Problem
//
// A coordinator sends each write to every replica and waits for some. It needs
// thousands of small requests in flight, little cost for each, and a prompt "not
// connected" instead of a timeout per request when a peer is down. And no two
// nodes may exchange a row before they know to be in one cluster, with the same
// settings, each the member that the other takes it for.
//
// # Idea
//
// Each node keeps one [Link] to every other node: a long-lived stream on which it
// sends requests and gets replies, in any order. (For requests the other way, the
// other node has a Link of its own.) A stream starts with a Hello, which the
// [Handler] accepts or refuses with a [Refusal]. What is ready to send at one
// moment goes out as one frame, so batches form by themselves under load and
// cost no delay without it.
//
//	caller ─ Call ─► window ─► outbox ═ Frame ═► Server ─► Handle (a goroutine each)
//	caller ◄──────── pending ◄═ Frame ═ outbox ◄──────────────┘
//
// Back-pressure: a link has at most 256 calls in flight; the 257th waits, until
// its context ends, and the server would read no further if it did not. The
// heartbeat is exempt, so a busy peer is never taken for a dead one.
//
// Liveness: a peer that sends nothing for [LinkOptions.DeadAfter], heartbeats
// being due each second, is dead: the link breaks, its calls fail with
// [ErrBroken], and it dials again.
//
// Apart from the links, a [Dialer] carries what makes a node a member, and a
// [Courier] the messages of the log that holds the topology: both must work before
// there are members to link to.
//
// # Caveats
//
// ErrBroken and a context that ends mean unknown: the peer may have done it.
//
// A call whose context ends keeps its place in the window until the reply comes
// or the link breaks, since the peer is still working on it.
//
// Connections are plaintext unless credentials are given in the options.
package rpc
