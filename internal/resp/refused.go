package resp

import "strings"

// refusals are the commands of Redis that this store does not have, with the
// reason and what to do instead; "client|kill" is CLIENT KILL. "Unknown command" would send people looking for
// a newer version; the reason saves them the search.
var refusals = []struct {
	reason   string
	commands string
}{
	{"last write wins would lose one of two concurrent updates; write the new value with SET, or keep one key per writer and add them up when reading",
		"incr decr incrby decrby incrbyfloat"},
	{"it changes a part of a value and no read-modify-write is atomic across replicas; write the whole value with SET",
		"append setrange setbit bitfield bitop"},
	{"it writes depending on what is there and no read-modify-write is atomic across replicas; use GET and SET where the last write may win",
		"setnx msetnx"},
	{"reading one key and writing another is not atomic across replicas; GET the old key, SET the new one, then DEL the old one",
		"rename renamenx copy move"},
	{"values are strings of bytes here, not of bits; GET the value and look in the client",
		"getbit bitcount bitpos bitfield_ro lcs"},
	{"replicas without a leader have no transactions; each command stands alone, and MSET writes many keys in one request",
		"multi exec discard watch unwatch"},
	{"a script cannot be atomic across replicas; do the work in the client with GET and SET",
		"eval evalsha eval_ro evalsha_ro script fcall fcall_ro"},
	{"this is a key-value store and passes no messages; use a message broker",
		"subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe publish spublish pubsub"},
	{"values are plain strings and a list cannot be merged by last write wins; use one key per element and SCAN",
		"lpush rpush lpushx rpushx lpop rpop llen lrange lindex lset linsert lrem ltrim lpos lmove lmpop rpoplpush blpop brpop blmove blmpop brpoplpush"},
	{"values are plain strings and a hash cannot be merged by last write wins; use one key per field, such as SET object:field value",
		"hset hsetnx hget hmset hmget hgetall hdel hexists hincrby hincrbyfloat hkeys hvals hlen hstrlen hscan hrandfield hexpire hpexpire httl hpersist hgetdel hgetex hsetex"},
	{"values are plain strings and a set cannot be merged by last write wins; use one key per member and EXISTS",
		"sadd srem smembers sismember smismember scard spop srandmember smove sinter sintercard sinterstore sunion sunionstore sdiff sdiffstore sscan"},
	{"values are plain strings and a sorted set cannot be merged by last write wins; use one key per member",
		"zadd zrem zscore zmscore zincrby zcard zcount zlexcount zrange zrangestore zrangebyscore zrangebylex zrevrange zrevrangebyscore zrevrangebylex zrank zrevrank zremrangebyrank zremrangebyscore zremrangebylex zpopmin zpopmax zmpop bzpopmin bzpopmax bzmpop zrandmember zunion zunionstore zinter zintercard zinterstore zdiff zdiffstore zscan geoadd geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch geosearchstore"},
	{"values are plain strings and a stream needs one order of its entries, which replicas without a leader do not have; use a message broker",
		"xadd xdel xlen xrange xrevrange xread xreadgroup xgroup xack xpending xclaim xautoclaim xtrim xinfo xsetid"},
	{"values are plain strings; count in the client",
		"pfadd pfcount pfmerge pfdebug pfselftest"},
	{"it would walk every shard while everyone waits; use SCAN with MATCH",
		"keys"},
	{"keys are not kept in an order to draw from or sort by; use SCAN",
		"randomkey sort sort_ro"},
	{"there is only database 0",
		"swapdb"},
	{"Redis' dump format is not supported; read with SCAN and MGET, and write with MSET or 'syntropy import'",
		"dump restore migrate"},
	{"entries have no access statistics and no other encoding; see 'syntropy inspect KEY'",
		"object memory"},
	{"OK already means that as many replicas as the write consistency asks for have the write, on disk unless their nodes run with --sync interval; choose with SYN.CONSISTENCY, and see WAIT",
		"waitaof"},
	{"every node takes reads and writes, and none follows another; see 'syntropy status' and 'syntropy repair'",
		"replicaof slaveof sync psync replconf failover role"},
	{"no slot is ever on its way to another node: any node serves any key",
		"asking"},
	{"nodes enter by 'syntropy serve --join', and slots are not assigned by hand; see 'syntropy status'",
		"cluster|addslots cluster|addslotsrange cluster|bumpepoch cluster|delslots cluster|delslotsrange cluster|failover cluster|flushslots cluster|forget cluster|meet cluster|replicate cluster|replicas cluster|slaves cluster|reset cluster|saveconfig cluster|set-config-epoch cluster|setslot cluster|links cluster|count-failure-reports"},
	{"keys are not kept by slot; use SCAN, or DBSIZE for their number",
		"cluster|countkeysinslot cluster|getkeysinslot"},
	{"a node does not learn of what clients of other nodes write, so it cannot say which keys have changed; turn client-side caching off in the client",
		"client|tracking client|caching client|trackinginfo client|getredir"},
	{"clients are not held up, silenced or cut off by each other; stop the client, or the node with SIGTERM",
		"client|kill client|pause client|unpause client|reply client|unblock"},
	{"settings are given to 'syntropy serve' when it starts",
		"config|set config|rewrite config|resetstat"},
	{"a script cannot be atomic across replicas; do the work in the client with GET and SET",
		"function|load function|delete function|dump function|restore function|kill function|stats"},
	{"writes go to a log as they come, before they are acknowledged unless the node runs with --sync interval; there is nothing to save",
		"save bgsave bgrewriteaof lastsave"},
	{"a node is stopped with SIGTERM",
		"shutdown"},
	{"this server keeps no record of commands; see INFO and CLIENT LIST for its counts",
		"monitor slowlog latency"},
	{"it is about the insides of Redis; see 'syntropy inspect KEY', SYN.INSPECT and INFO",
		"debug"},
	{"authentication is not enabled on this server; connect without a password",
		"auth acl"},
}

func refusedTable() map[string]string {
	table := make(map[string]string)
	for _, group := range refusals {
		for _, name := range strings.Fields(group.commands) {
			table[name] = group.reason
		}
	}
	return table
}
