"""The Lua scripts of the Redis bus, and the names of its keys.

Each script is one atomic step of the server: what Kafka's broker would do. Keys in the `bus`
server, for topic T, partition P and group G:

    s:T:P     stream; offset n has the id `{n+1}-0`; fields k, t (ms) and v (unless withdrawn)
    n:T:P     the offset that the next record gets
    h:T       hash of a compacted topic: key -> `P:offset:ms:value`
    e:T:P     sorted set: offsets of records that were erased and are not past their retention
    pos:G:T   hash: partition -> first offset not committed
    l:G:T:P   lease: the token of the partition's one reader, with an expiry
    m:G:T     sorted set of the group's members by the time (ms) at which they count as gone
    topics    hash: topic -> the number of partitions that it was begun with
"""

from __future__ import annotations

TOPICS_KEY = "topics"

PUBLISH = """
local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local num_partitions = tonumber(ARGV[1])
local compacted = ARGV[2] == '1'
local following = {}
for i = 3, #ARGV, 3 do
  local p, key, value = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local offset = following[p]
  if not offset then
    offset = tonumber(redis.call('GET', KEYS[2 + num_partitions + p]) or '0')
  end
  following[p] = offset + 1
  local id = string.format('%.0f-0', offset + 1)
  local kept = string.sub(value, 1, 1) == '1'
  if kept then
    redis.call('XADD', KEYS[2 + p], id, 'k', key, 't', ms, 'v', string.sub(value, 2))
  else
    redis.call('XADD', KEYS[2 + p], id, 'k', key, 't', ms)
  end
  if compacted then
    if kept then
      redis.call('HSET', KEYS[1], key,
        string.format('%d:%.0f:%.0f:', p, offset, ms) .. string.sub(value, 2))
    else
      redis.call('HDEL', KEYS[1], key)
    end
  end
end
for p, offset in pairs(following) do
  redis.call('SET', KEYS[2 + num_partitions + p], string.format('%.0f', offset))
end
return 1
"""
"""KEYS: h:T, then s:T:P of all partitions, then n:T:P of all. ARGV: number of partitions, whether
compacted, then partition, key, `1`value or `0` of each record."""

DROP_LAST = """
local last = redis.call('HGET', KEYS[1], ARGV[1])
if last and string.sub(last, 1, #ARGV[2]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
"""
"""KEYS: h:T. ARGV: key, `P:offset:` of the record that it must still hold."""

SHARE = """
local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local token, lease_ms = ARGV[1], tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms)
redis.call('ZADD', KEYS[1], ms + lease_ms, token)
local num_partitions = #KEYS - 2
local share = math.ceil(num_partitions / redis.call('ZCARD', KEYS[1]))
local held, free, mine = 0, {}, {}
for p = 0, num_partitions - 1 do
  local owner = redis.call('GET', KEYS[3 + p])
  if owner == token then
    if held < share then
      redis.call('PEXPIRE', KEYS[3 + p], lease_ms)
      held = held + 1
      mine[#mine + 1] = {p, 0, redis.call('HGET', KEYS[2], p) or '0'}
    else
      redis.call('DEL', KEYS[3 + p])
    end
  elseif not owner then
    free[#free + 1] = p
  end
end
for _, p in ipairs(free) do
  if held >= share then break end
  redis.call('SET', KEYS[3 + p], token, 'PX', lease_ms)
  held = held + 1
  mine[#mine + 1] = {p, 1, redis.call('HGET', KEYS[2], p) or '0'}
end
return mine
"""
"""KEYS: m:G:T, pos:G:T, l:G:T:P of all partitions. ARGV: token, lease in ms. Renews what is held,
frees the excess over a fair share, takes what is free up to it. Returns of each partition held:
its number, whether it was taken just now, and then its stored position."""

COMMIT = """
redis.call('HDEL', KEYS[1], '')
local lost = {}
for i = 2, #KEYS do
  local p, following = ARGV[2 * i - 2], ARGV[2 * i - 1]
  if redis.call('GET', KEYS[i]) ~= ARGV[1] then
    lost[#lost + 1] = tonumber(p)
  elseif tonumber(following) > tonumber(redis.call('HGET', KEYS[1], p) or '0') then
    redis.call('HSET', KEYS[1], p, following)
  end
end
return lost
"""
"""KEYS: pos:G:T, then the lease of each partition. ARGV: token, then partition and the first
offset not committed of each. Returns the partitions whose lease is another's.

A full server denies a script its first write if that takes memory, and none after another. So both
SHARE and COMMIT begin with one that takes none: what was read must be passed before it can go."""

LEAVE = """
redis.call('ZREM', KEYS[1], ARGV[1])
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end
end
return 1
"""
"""KEYS: m:G:T, l:G:T:P of all partitions. ARGV: token."""

SELECT = """
local found = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
local chosen = {}
for _, entry in ipairs(found) do
  if ARGV[3] == '' then
    chosen[#chosen + 1] = entry
  else
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'k' and entry[2][i + 1] == ARGV[3] then chosen[#chosen + 1] = entry end
    end
  end
end
if #found < tonumber(ARGV[2]) then return {'', chosen} end
return {'(' .. found[#found][1], chosen}
"""
"""KEYS: s:T:P. ARGV: where to begin, how many to look at, the wanted key or nothing for all.
Returns where to go on, empty at the end, and the entries of the key."""


def stream_key(topic: str, partition: int) -> str:
    """The stream of a partition."""
    return f"s:{topic}:{partition}"


def next_key(topic: str, partition: int) -> str:
    """The counter of a partition."""
    return f"n:{topic}:{partition}"


def erased_key(topic: str, partition: int) -> str:
    """The offsets that were erased from a partition."""
    return f"e:{topic}:{partition}"


def latest_key(topic: str) -> str:
    """The hash of a compacted topic."""
    return f"h:{topic}"


def position_key(group: str, topic: str) -> str:
    """The positions of a group."""
    return f"pos:{group}:{topic}"


def lease_key(group: str, topic: str, partition: int) -> str:
    """The lease of a partition in a group."""
    return f"l:{group}:{topic}:{partition}"


def members_key(group: str, topic: str) -> str:
    """The members of a group."""
    return f"m:{group}:{topic}"
