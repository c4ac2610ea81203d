"""What the server does in one piece: Lua scripts. They are what makes a step atomic.

In all of them the hash of holders (`Keys.holders`) says who has a durable place. A consumer group
is named after subscriber, holder *and* connection: who takes a place over, or comes back after a
lost connection, replaces the group by one of its own, which begins with the first message that was
not acknowledged. So a former holder, or the ghost of a connection that the server takes for alive,
cannot snatch anything while it waits in XREADGROUP: its group is gone. What it had pending is
claimed by the new one, in order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from rustic_ai.redis.link import Link, redis_errors


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the hash that the server knows it by."""

    text: str
    sha: str

    @classmethod
    def of(cls, *parts: str) -> Script:
        """Put a script together."""
        text = "\n".join(parts)
        return cls(text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - Redis's choice

    def run(self, link: Link, keys: list[str], arguments: list[Any]) -> Any:
        """Run it; sends its text only to a server that does not have it."""
        words = [len(keys), *keys, *arguments]
        try:
            return link.call("EVALSHA", self.sha, *words)
        except redis_errors.NoScriptError:
            return link.call("EVAL", self.text, *words)


_GROUPS = """
local function pairs_of(list)
  local found = {}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end

local function groups_of(stream)
  local listed = redis.pcall('XINFO', 'GROUPS', stream)
  if listed.err then return {} end
  local found = {}
  for i, facts in ipairs(listed) do found[i] = pairs_of(facts) end
  return found
end

local function group_of(stream, name)
  for _, facts in ipairs(groups_of(stream)) do
    if facts['name'] == name then return facts end
  end
  return nil
end

local function create(stream, name, position, read)
  local words = {'XGROUP', 'CREATE', stream, name, position, 'MKSTREAM'}
  if read then words[7] = 'ENTRIESREAD'; words[8] = string.format('%.0f', read) end
  redis.pcall('XGROUP', 'DESTROY', stream, name)  -- fails where there is no stream yet
  redis.call(unpack(words))
  redis.call('PERSIST', stream)
end
"""

_COMPARE = """
local function before(a, b)
  local a_ms, a_n = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_n = string.match(b, '(%d+)-(%d+)')
  if a_ms ~= b_ms then return tonumber(a_ms) < tonumber(b_ms) end
  return tonumber(a_n) < tonumber(b_n)
end
"""

UNIT = Script.of(
    """
-- Stores outputs and acknowledges entries: both, once, and only for who holds the places.
-- KEYS: counter; per place: holders, stream; per topic: stream, topics of the namespace
-- ARGV: number of the unit, lifetime of counter, of stream, token; places, per place: subscriber,
--       entries, their ids; topics, their names; per output: number of its topic, record
local done = redis.call('GET', KEYS[1])
if done and tonumber(done) >= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], done, 'PX', ARGV[2])  -- written anew, for WAIT to wait for
  return {'again'}
end
local token, places, at = ARGV[4], tonumber(ARGV[5]), 6
local settled = {}
for p = 1, places do
  local subscriber, count = ARGV[at], tonumber(ARGV[at + 1])
  local facts = redis.call('HMGET', KEYS[2 * p], 'owner:' .. subscriber, 'group:' .. subscriber)
  if facts[1] and facts[1] ~= token and facts[1] ~= '-' .. token then
    return {'taken', subscriber}
  end
  if facts[2] then settled[#settled + 1] = {KEYS[2 * p + 1], facts[2], at + 2, at + 1 + count} end
  at = at + 2 + count
end
local topics, base = tonumber(ARGV[at]), 2 * places + 1
for i = at + topics + 1, #ARGV, 2 do
  redis.call('XADD', KEYS[base + 2 * tonumber(ARGV[i]) - 1], '*', 'r', ARGV[i + 1])
end
for t = 1, topics do
  redis.call('SADD', KEYS[base + 2 * t], ARGV[at + t])
  redis.call('PEXPIRE', KEYS[base + 2 * t - 1], ARGV[3], 'GT')
end
for _, s in ipairs(settled) do
  for i = s[3], s[4], 1000 do
    redis.call('XACK', s[1], s[2], unpack(ARGV, i, math.min(i + 999, s[4])))
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'done'}
"""
)

TAKE = Script.of(
    _GROUPS,
    _COMPARE,
    """
-- Makes a durable place, or takes it over from whoever has it.
-- KEYS: holders, stream, topics that the subscriber holds
-- ARGV: subscriber, token, where a new place begins, topic, group, '1': only if it is ours already
-- Returns: whether it is new, position, and of the message at which holders crashed: its id, how
-- often they did, and the last id that one of them had in hand
local holders, stream = KEYS[1], KEYS[2]
local name, token, mine = ARGV[1], ARGV[2], ARGV[5]
local found = redis.call('HMGET', holders, 'group:' .. name, 'owner:' .. name, 'crash:' .. name)
local owner = found[2]
if ARGV[6] == '1' and owner ~= token then return owner and 'taken' or 'gone' end
local facts = found[1] and group_of(stream, found[1])
local new, position, crash = 1, '', {'0-0', '0', '0-0'}
if not facts then
  create(stream, mine, ARGV[3])
  position = group_of(stream, mine)['last-delivered-id']
  redis.call('HDEL', holders, 'crash:' .. name)
else
  new, position = 0, facts['last-delivered-id']
  local read = facts['entries-read']
  local pending = redis.call('XPENDING', stream, found[1])
  if found[3] then
    crash = {string.match(found[3], '(%S+) (%S+) (%S+)')}
  end
  if pending[1] > 0 then
    local first, last = pending[2], pending[3]
    local previous = redis.call('XREVRANGE', stream, '(' .. first, '-', 'COUNT', 1)
    position = previous[1] and previous[1][1] or '0-0'
    read = read and math.max(0, read - pending[1])
    if owner and owner ~= token and string.sub(owner, 1, 1) ~= '-' then
      local count = 1
      if first == crash[1] then count = crash[2] + 1
      elseif not before(crash[3], first) then count = 2 end
      if before(crash[3], last) then crash[3] = last end
      crash = {first, string.format('%d', count), crash[3]}
      redis.call('HSET', holders, 'crash:' .. name, table.concat(crash, ' '))
    end
  end
  redis.call('XGROUP', 'DESTROY', stream, found[1])
  create(stream, mine, position, read)
end
redis.call('HSET', holders, 'group:' .. name, mine, 'owner:' .. name, token)
redis.call('SADD', KEYS[3], ARGV[4])
return {new, position, crash[1], crash[2], crash[3]}
""",
)

BURY = Script.of(
    _GROUPS,
    """
-- Moves the message at which holders crashed to the dead letters, before any is read.
-- KEYS: holders, stream; where there is a dead letter: its stream, topics of its namespace
-- ARGV: subscriber, token, id of the message, topic of the dead letter, its record
local holders, name = KEYS[1], ARGV[1]
local facts = redis.call('HMGET', holders, 'owner:' .. name, 'group:' .. name, 'crash:' .. name)
if facts[1] ~= ARGV[2] then return 'taken' end
local first, _, seen = string.match(facts[3] or '', '(%S+) (%S+) (%S+)')
if first ~= ARGV[3] then return 'again' end
if KEYS[3] then
  redis.call('XADD', KEYS[3], '*', 'r', ARGV[5])
  redis.call('SADD', KEYS[4], ARGV[4])
end
local read = group_of(KEYS[2], facts[2])['entries-read']
local words = {'XGROUP', 'SETID', KEYS[2], facts[2], first}
if read then words[6] = 'ENTRIESREAD'; words[7] = string.format('%.0f', read + 1) end
redis.call(unpack(words))
redis.call('HSET', holders, 'crash:' .. name, '0-0 0 ' .. seen)
return 'done'
""",
)

RELEASE = Script.of(
    """
-- Leaves a place cleanly. KEYS: holders, stream, topics held.
-- ARGV: subscriber, token ('': whoever holds it), topic, lifetime of a stream, '1': give it up
local name = ARGV[1]
local facts = redis.call('HMGET', KEYS[1], 'owner:' .. name, 'group:' .. name)
if ARGV[2] ~= '' and facts[1] ~= ARGV[2] then return 0 end
if ARGV[5] ~= '1' then
  redis.call('HSET', KEYS[1], 'owner:' .. name, '-' .. ARGV[2])
  return 1
end
if facts[2] and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('XGROUP', 'DESTROY', KEYS[2], facts[2])
end
redis.call('HDEL', KEYS[1], 'owner:' .. name, 'group:' .. name, 'crash:' .. name)
redis.call('SREM', KEYS[3], ARGV[3])
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
return 1
"""
)

DECLARE = Script.of(
    _GROUPS,
    """
-- Makes a durable place where there is none. KEYS: holders, stream, topics held, topics of the
-- namespace. ARGV: subscriber, where it begins, topic
local group = redis.call('HGET', KEYS[1], 'group:' .. ARGV[1])
if group and group_of(KEYS[2], group) then return 0 end
group = ARGV[1] .. '@'
create(KEYS[2], group, ARGV[2])
redis.call('HDEL', KEYS[1], 'owner:' .. ARGV[1], 'crash:' .. ARGV[1])
redis.call('HSET', KEYS[1], 'group:' .. ARGV[1], group)
redis.call('SADD', KEYS[3], ARGV[3])
redis.call('SADD', KEYS[4], ARGV[3])
return 1
""",
)

TRIM = Script.of(
    _GROUPS,
    _COMPARE,
    """
-- Trims history by count and age, never what a group has not acknowledged.
-- KEYS: stream. ARGV: messages, age in ms
-- Returns: messages that the slowest group has not acknowledged, and the name of that group
local stream, groups = KEYS[1], groups_of(KEYS[1])
local most, floor, behind, slowest = tonumber(ARGV[1]), '', 0, ''
for _, facts in ipairs(groups) do
  local needed = facts['last-delivered-id']
  local backlog = facts['pending'] + (facts['lag'] or most + 1)
  if facts['pending'] > 0 then needed = redis.call('XPENDING', stream, facts['name'])[2] end
  if floor == '' or before(needed, floor) then floor = needed end
  if facts['lag'] and backlog > behind then behind, slowest = backlog, facts['name'] end
  if backlog > most then most = 0 end
end
if most > 0 then redis.call('XTRIM', stream, 'MAXLEN', most)
elseif redis.call('XLEN', stream) > tonumber(ARGV[1]) then
  redis.call('XTRIM', stream, 'MINID', floor)
end
local now = redis.call('TIME')
local old = string.format('%.0f-0', now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[2])
if floor ~= '' and before(floor, old) then old = floor end
redis.call('XTRIM', stream, 'MINID', old)
if #groups == 0 then redis.call('PEXPIRE', stream, ARGV[2]) end
return {behind, slowest}
""",
)

TOPICS = Script.of(
    """
-- Returns the topics of a namespace that have a stream, and forgets the others.
-- KEYS: topics of the namespace. ARGV: what the keys of streams begin with
local found = {}
for _, topic in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[1] .. topic) == 1 then found[#found + 1] = topic
  else redis.call('SREM', KEYS[1], topic) end
end
return found
"""
)

FORGET = Script.of(
    """
-- Takes a field out of a hash where it still has the value. KEYS: hash. ARGV: field, value
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
"""
)
