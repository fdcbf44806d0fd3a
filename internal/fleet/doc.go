// Package fleet runs the nodes of a cluster as processes of their own on this
// machine, for `syntropy dev` and `syntropy demo`.
//
// # Problem
//
// To show what a cluster does when a node is killed, there must be real
// processes to kill, and whatever happens to the one who started them, none may
// be left behind: it would hold its ports and its data for ever.
//
// # Idea
//
// A [Fleet] starts this very program again, once per node, as `syntropy serve`
// on 127.0.0.1. Each [Node] can be killed and started again on its own data.
// [Fleet.Stop] ends all of them in order. Should the starter die without calling
// it, Linux sends them SIGTERM.
//
// # Caveats
//
// Nodes do not share the starter's terminal: Ctrl-C reaches the starter alone,
// which then decides. Elsewhere than on Linux, nodes outlive a starter that is
// killed by signal 9.
package fleet
