// Package resp is the Redis protocol server of a node: it lets redis-cli,
// go-redis and every other Redis client talk to a Syntropy cluster unchanged.
//
// # The problem
//
// Clients send commands faster than a replicated store can commit them one by
// one, and anyone can reach the port: a browser, a TLS client, a program that
// declares a terabyte and sends a byte. So this package does two things with
// care: it joins what a client pipelined into few backend calls without
// changing what the client sees, and it refuses bad input before it costs
// memory.
//
// # The path of a command
//
//	net.Conn -> frame -> command table -> handler -> Backend
//	            limits    arity, reason    one reply, in order
//
// A framer walks the bytes of a connection and checks every declared length
// against a limit before anything of that length is buffered; only whole
// commands reach the library that parses them (redcon). The command table says
// everything there is to know about a command, and COMMAND is made from it.
// Neighbouring SETs become one [Backend.Put], neighbouring GETs one
// [Backend.MGet]; replies leave together, in the order of the commands. Large
// values leave as they come: the next ones are asked for when they are written.
//
// # The smallest program
//
//	srv := resp.New(backend, resp.Options{})
//	ln, _ := net.Listen("tcp", "127.0.0.1:7001")
//	go srv.Serve(ln)
//	...
//	srv.Shutdown(ctx)
//
// # Consistency
//
// A connection reads and writes at the levels that the node is set to, or at
// those that it chose with SYN.CONSISTENCY, a command of our own: it holds a
// [Backend.At] these levels, until RESET.
//
// # Where keys are
//
// Clients of Redis Cluster ask which node holds which slots, and go there: a
// [Layout] is turned into what they understand. No node ever sends a client
// elsewhere, since any node serves any key.
//
// # Expiry
//
// Clients give durations or moments; a Backend gets moments only, in
// milliseconds since 1970, computed once from [Options.Now]. Whether EXPIRE NX
// and the like apply is decided by the Backend on the version that it reads, so
// they are racy among each other; they never undo a delete.
//
// # What is refused, and why
//
// Replicas merge by last write wins. A command that reads, computes and writes
// back (INCR, APPEND, SET NX, a transaction) would be acknowledged on two
// replicas at once and then lose one of the two. Such commands are refused with
// the reason and with what to do instead; see refused.go. The list of all
// commands, with what differs from Redis, is docs/commands.md, which a test makes
// from the command table.
//
// # Caveats
//
//   - An error or a timeout of a write means unknown, not undone.
//   - MSET and joined SETs are one call, not a transaction: other clients may
//     see some of the keys before the others.
//   - Replies of a pipeline are written while it is executed, so a client must
//     read while it writes once a pipeline and its replies both outgrow the
//     socket buffers (a few MiB). One that never reads is cut off after
//     [Options.WriteTimeout].
package resp
