package config

import (
	"errors"
	"strconv"
	"time"

	"syntropy/coordinator"
	"syntropy/internal/topology"
)

// Limits of node settings that are amounts.
const (
	cacheMiBMin  = 1       // with less, every read goes to disk
	mebibytesMax = 1 << 20 // a TiB: more is a typing error
)

func level(field func(*Config) *coordinator.Level) func(*Config, []string) error {
	return one(func(c *Config, s string) error {
		l, err := coordinator.ParseLevel(s)
		if err != nil {
			return errors.New("give one, quorum or all")
		}
		*field(c) = l
		return nil
	})
}

// nodeSettings may differ from node to node, and from start to start.
func nodeSettings() []*Setting {
	return []*Setting{{
		Name: fileSetting, Takes: "file",
		Usage: "read settings from this YAML file",
		Doc:   `A YAML file with settings, as shown below. A flag or a variable wins over what the file says. Without it no file is read.`,
		read:  text(func(c *Config) *string { return &c.File }),
	}, {
		Name: "data-dir", Takes: "directory",
		Usage: "all that the node keeps; created if absent (required)",
		Doc: `Where the node keeps everything: data, trees, hints, its identity and what it knows of the cluster. Required; created if absent. It belongs to
one node with one peer address: put in the place of another node's, it is refused by the cluster.`,
		read: text(func(c *Config) *string { return &c.DataDir }),
	}, {
		Name: "listen", Takes: "H:P", Default: "127.0.0.1:7001",
		Usage: "for clients (Redis protocol)",
		Doc:   `Where clients connect, with any Redis library. Port 0 takes a free one. There is no password and no encryption in this version: on an address that others can reach, everybody who reaches it reads and writes everything.`,
		read:  address(func(c *Config) *string { return &c.Listen }, 0, "127.0.0.1:7001"),
	}, {
		Name: "peer-listen", Takes: "H:P", Default: "127.0.0.1:7101",
		Usage: "for other nodes: they dial it",
		Doc:   `Where other nodes connect, and the address by which the cluster knows this node for good: other nodes dial it, so it is neither a wildcard nor port 0, and stays the same over restarts. Who reaches it can learn the secret of the cluster: keep it on a network that you trust.`,
		read:  one(readPeerListen),
	}, {
		Name: "admin-listen", Takes: "H:P", Default: "127.0.0.1:7201",
		Usage: "for operators (HTTP)",
		Doc:   "Where `syntropy status`, `syntropy repair` and the like ask this node. Port 0 takes a free one. Who reaches it may do all that an operator may.",
		read:  address(func(c *Config) *string { return &c.AdminListen }, 0, "127.0.0.1:7201"),
	}, {
		Name: "join", Takes: "H:P", List: true,
		Usage: "peer address of another node; repeat for several",
		Doc: `Peer addresses of other nodes, by which an empty node finds its cluster. One that answers is enough; name several so that one may be down. Its own address among them does no harm, so all nodes
can have the same list. A node that is in a cluster remembers the other members and needs none, but refuses to start when one of them is in another cluster.`,
		read: readJoin,
	}, {
		Name: "bootstrap-expect", Takes: "number", Default: "0",
		Usage: "form a new cluster when so many empty nodes have met",
		Doc: "How many empty nodes form a new cluster together: each waits until that many have met through `join`, and then they create it, once. The same on all of them. May exceed `replicas`. " +
			"0, with `join`: no cluster is formed; the node joins the one that it finds. 0 without `join`, on loopback: a cluster of one. Not needed after the first start.",
		Range: "0 to " + strconv.Itoa(topology.MaxMembers) + " nodes",
		Low:   "Expecting fewer nodes than are started leaves the others out, and they say so.",
		High:  "Expecting more than are started waits for ever; the log says for whom.",
		read:  number(func(c *Config) *int { return &c.BootstrapExpect }, 0, topology.MaxMembers),
	}, {
		Name: "zone", Takes: "name",
		Usage: "where this node is: a rack, a room, a data centre",
		Doc:   "Where this node is, in your words: whatever tends to fail as one. The replicas of a shard are put into as many zones as there are. It is fixed when the node enters the cluster; after that it may be left out, and another one is refused.",
		Range: "up to " + strconv.Itoa(zoneMax) + " letters, digits, `-`, `.` and `_`",
		Low:   "All nodes in one zone (or none named): a rack that fails may take all replicas of a shard.",
		High:  "Zones of very different size: the nodes of the small ones hold more than others.",
		read:  one(readZone),
	}, {
		Name: "write-consistency", Takes: "one|quorum|all", Default: "quorum",
		Usage: "how many replicas hold a write before OK",
		Doc: "How many replicas of a key must hold a write, durably by this node's and their `sync`, before the client is told OK. All replicas get every write whatever is chosen; this says for how many the client waits. " +
			"A connection can choose another level with `SYN.CONSISTENCY`.",
		Low:  "`one`: an OK may rest on one disk alone, and reads at `quorum` may not see it yet.",
		High: "`all`: no write to a key is possible while any of its replicas is down.",
		read: level(func(c *Config) *coordinator.Level { return &c.WriteConsistency }),
	}, {
		Name: "read-consistency", Takes: "one|quorum|all", Default: "quorum",
		Usage: "how many replicas answer a read",
		Doc: "How many replicas of a key are asked by a read; the newest version that any of them holds is the answer. With writes and reads at `quorum` a read sees every write that was told OK before it began. " +
			"A connection can choose another level with `SYN.CONSISTENCY`.",
		Low:  "`one`: fastest, and answers what one replica holds, which may be old for as long as that replica lacks a write.",
		High: "`all`: no read of a key is possible while any of its replicas is down.",
		read: level(func(c *Config) *coordinator.Level { return &c.ReadConsistency }),
	}, {
		Name: "repair-interval", Takes: "duration", Default: "1h",
		Usage: "pairs of nodes compare once in this; or off",
		Doc: "Each pair of nodes that hold the same shards compares them once in this time and repairs what differs, whether or not anything seems wrong. Two nodes that agree spend one exchange on it, of under 100 bytes when both hold every shard. " +
			"`off` or 0: only `syntropy repair` does, and `syntropy status` shows for how long nobody has looked.",
		Range: "a duration from 1s to 8760h, or `off`",
		Low:   "Seconds: with large or often changing data, comparing becomes load of its own.",
		High:  "Days: a write that a replica missed and that no hint brought stays missing there for that long, and until then fewer disks hold it than you think. Stay far below `gc-grace`.",
		read:  one(readRepairInterval),
	}, {
		Name: "hinted-handoff", Takes: "on|off", Default: "on",
		Usage: "keep writes for replicas that are down",
		Doc:   "Whether this node keeps the writes that it coordinates for a replica that is down or late, and brings them when it is back. It concerns the hints that this node would keep; other nodes have their own setting. A hint that cannot be kept never fails a client's write.",
		Low:   "`off`: what a node missed reaches it by read repair and anti-entropy only, so up to a `repair-interval` later.",
		read:  onOff(func(c *Config) *bool { return &c.HintedHandoff }),
	}, {
		Name: "read-repair", Takes: "on|off", Default: "on",
		Usage: "repair replicas that a read finds stale",
		Doc:   "Whether a read that this node coordinates, and that finds a replica stale, brings it the newer version, deletes and expiries included. The answer to the client is the newest version in any case.",
		Low:   "`off`: a version that is held by fewer replicas than a quorum may be seen by one read and not by the next.",
		read:  onOff(func(c *Config) *bool { return &c.ReadRepair }),
	}, {
		Name: "hint-max-mib", Takes: "MiB", Default: "1024",
		Usage: "disk for writes kept for others",
		Doc:   "How much of this node's disk the writes kept for others may take, over all of them. When it is full, the oldest hints of the node that has the most make room, and are counted.",
		Range: "1 to " + strconv.Itoa(mebibytesMax) + " MiB",
		Low:   "Too little: a short absence under load is already left to anti-entropy.",
		High:  "Too much: the disk of a healthy node fills because another one is away, and bringing it all back takes long.",
		read:  mebibytes(func(c *Config) *int64 { return &c.HintBytesMax }, 1, mebibytesMax),
	}, {
		Name: "hint-rate-mib", Takes: "MiB", Default: "8",
		Usage: "of kept writes brought to one node, per second",
		Doc:   "How fast this node brings one returned node what it kept for it, per second. Every other node does the same at the same time.",
		Range: "1 to " + strconv.Itoa(mebibytesMax) + " MiB per second",
		Low:   "Too slow: hints grow older than `hint-window` while they wait, and are dropped.",
		High:  "Too fast: a node that has just come back is busy with the past while clients wait.",
		read:  mebibytes(func(c *Config) *int64 { return &c.HintBytesPerSec }, 1, mebibytesMax),
	}, {
		Name: "sync", Takes: "always|interval:D", Default: "always",
		Usage: "durable before each OK, or every D",
		Doc: "When this node makes writes durable. `always`: before it acknowledges any; writes that come at the same time share the wait. `interval:100ms`: every 100 ms, and it acknowledges at once. " +
			"Each node makes its own copy durable by its own setting.",
		Low:  "`interval`: a crash of the program or of the machine loses what this node acknowledged in the last interval; when a whole quorum crashes together, acknowledged writes are lost.",
		High: "`always` on a slow disk: each write waits for it.",
		read: one(readSync),
	}, {
		Name: "cache-mib", Takes: "auto|MiB", Default: "auto",
		Usage: "memory for the block cache",
		Doc: "Memory for blocks of the data on disk; a quarter as much again remembers the versions of keys that were written, so that most writes read nothing. " +
			"`auto`: a fifth of the machine's memory, or of what the node's control group allows, within 64 MiB and 64 GiB. " +
			"The node needs more than that: for what was written and is not yet on disk, for its trees (under a byte a key), and for requests.",
		Range: strconv.Itoa(cacheMiBMin) + " to " + strconv.Itoa(mebibytesMax) + " MiB, or `auto`",
		Low:   "Too little: reads, and the read before each write, go to disk.",
		High:  "More than the machine has: it swaps, or is killed.",
		read:  one(readCache),
	}, {
		Name: "min-free-mib", Takes: "auto|MiB", Default: "auto",
		Usage: "free disk space below which no writes are taken",
		Doc: "How much of the disk under `data-dir` is kept free: below it this node refuses writes, and goes on serving reads; a quarter above it, it takes writes again by itself. " +
			"`auto`: a twentieth of the disk, within 256 MiB and 16 GiB, but at most a quarter of it.",
		Range: "1 to " + strconv.Itoa(mebibytesMax) + " MiB, or `auto`",
		Low:   "Too little: compactions find no room, what was deleted is not freed, and the disk is really full.",
		High:  "Too much: writes are refused while there is room.",
		read:  one(readMinFree),
	}, {
		Name: "scrub-interval", Takes: "duration", Default: "168h",
		Usage: "compare all rows with the trees so often; or off",
		Doc: "Every row on this node's disk is read once in this time, in the background, and compared with the Merkle trees; what has rotted is put into quarantine and healed from another replica. " +
			"`off` or 0: only what reads and comparisons come across is found, and what `syntropy scrub` finds.",
		Range: "a duration from 1m to 87600h, or `off`",
		Low:   "Minutes: the disk is read all the time, at `scrub-rate-mib`.",
		High:  "Months: what rots on one disk may have rotted on another one as well before it is found.",
		read:  one(readScrubInterval),
	}, {
		Name: "scrub-rate-mib", Takes: "MiB", Default: "16",
		Usage: "of rows read by such a scrub, per second",
		Doc:   "How fast the scrub in the background reads, per second. What there is reason to doubt, and what `syntropy scrub` asks for, is read as fast as the disk can.",
		Range: "1 to " + strconv.Itoa(mebibytesMax) + " MiB per second",
		Low:   "Too slow: a scrub does not come to its end within `scrub-interval`.",
		High:  "Too fast: reads of clients wait for the disk.",
		read:  mebibytes(func(c *Config) *int64 { return &c.ScrubBytesPerSec }, 1, mebibytesMax),
	}, {
		Name: "max-clients", Takes: "number", Default: "10000",
		Usage: "connections of clients at a time",
		Doc:   "How many clients may be connected at a time; more are told so, and closed. An idle one costs about 10 KiB and an open file.",
		Range: "1 to 1000000 connections",
		Low:   "Clients that keep pools of connections are refused.",
		High:  "More than the open files that the system allows: nobody new gets in, peers included.",
		read:  number(func(c *Config) *int { return &c.MaxClients }, 1, 1_000_000),
	}, {
		Name: "client-timeout", Takes: "duration", Default: "0s",
		Usage: "close connections of silent clients after this",
		Doc:   "How long a client may be silent between commands before its connection is closed; 0 is for ever. Clients keep connections for later, so give it only where they forget to close them.",
		Low:   "Clients find connections of their pools closed, and have to make new ones.",
		read:  one(readClientTimeout),
	}, {
		Name: "enable-flush", Takes: "on|off", Default: "off", Switch: true,
		Usage: "let FLUSHALL and FLUSHDB delete everything",
		Doc:   "Whether clients of this node may delete all data of the cluster with `FLUSHALL` and `FLUSHDB`: for tests and caches. It leaves a tombstone for each key.",
		High:  "One typing error deletes the data of the cluster, on all replicas.",
		read:  onOff(func(c *Config) *bool { return &c.EnableFlush }),
	}, {
		Name: "verbose", Takes: "on|off", Default: "off", Switch: true,
		Usage: "log every connection and the storage engine's doings",
		Doc:   "Whether the log, on stderr, also tells of every connection and of what the storage engine does.",
		read:  onOff(func(c *Config) *bool { return &c.Verbose }),
	}, {
		Name: "test-clock-offset", Takes: "duration", Default: "0s", Hidden: true,
		Usage: "added to the machine's clock",
		Doc:   "Added to the machine's clock, for fault tests.",
		read:  duration(func(c *Config) *time.Duration { return &c.ClockOffset }),
	}}
}
