"""A script, and the Lua functions that all of them share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_COMMON = """
local P, GROUP = KEYS[1], 'workers'
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ADDRESS_LIFE, BRIDGES_LIFE, ADDRESSES_OF_ONE = 60 * 1000000, 3600 * 1000000, 64
local REPLY_BYTES, ALL_REPLY_BYTES, LARGE_REPLY, ENTRY_BYTES = 33554432, 67108864, 65536, 200
local LONGEST = 7 * 86400 * 1000000
local PLACES = {'CRITICAL', 'HIGH', 'NORMAL', 'LOW'}

local function lines(text)
  local found = {}
  for each in string.gmatch(text or '', '[^\\n]+') do found[#found + 1] = each end
  return found
end

-- Makes the group if it is not there (any more), and calls again.
local function grouped(stream, ...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    if not string.find(answer.err, 'NOGROUP', 1, true) and not string.find(answer.err, 'no such key', 1, true) then
      error(answer)
    end
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
    answer = redis.call(...)
  end
  return answer or {}
end

local function done(priority, ...)
  local stream = P .. 'queue:' .. priority
  local acknowledged = redis.call('XACK', stream, GROUP, ...)
  redis.call('XDEL', stream, ...)
  return acknowledged
end

local function queue(id, priority, returned, note)
  local entry = redis.call('XADD', P .. 'queue:' .. priority, '*', 'id', id)
  redis.call('HSET', P .. 'record:' .. id, 'stage', 'queued', 'entry', entry, 'holder', '', 'needs', '',
    'returned', returned, 'note', note, 'again', '', 'attempts', 0)
end

local function leave(id, needs)
  for _, need in ipairs(lines(needs)) do redis.call('ZREM', P .. 'parked:' .. need, id) end
end

-- An address that nobody touches for a while goes, with what lies there; bridges come back later.
local function touch(address)
  local stream = string.match(address, '^[^/]*')
  local life = stream == 'rabbitmq' and BRIDGES_LIFE or ADDRESS_LIFE
  redis.call('ZADD', P .. 'addresses', 'GT', now + life, stream)
end

-- Counts what replies take up: of this stream, and of all.
local function count_replies(stream, bytes)
  local own = tonumber(redis.call('ZINCRBY', P .. 'reply_bytes', bytes, stream))
  if own <= 0 then redis.call('ZREM', P .. 'reply_bytes', stream) end
  return own, redis.call('INCRBY', P .. 'all_reply_bytes', bytes)
end

local function drop_address(stream)
  redis.call('DEL', P .. 'replies:' .. stream)
  redis.call('ZREM', P .. 'addresses', stream)
  count_replies(stream, -(redis.call('ZSCORE', P .. 'reply_bytes', stream) or 0))
end

local function drop_addresses(at_most)
  for _, stream in ipairs(redis.call('ZRANGEBYSCORE', P .. 'addresses', '-inf', now, 'LIMIT', 0, at_most)) do
    drop_address(stream)
  end
end

-- Drops the oldest replies of a stream until so many bytes are free, or `kept` of them are left.
local function cut_replies(stream, bytes, kept)
  local key = P .. 'replies:' .. stream
  while bytes > 0 and redis.call('XLEN', key) > kept do
    local oldest, size = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1], 0
    for at = 1, #oldest[2], 2 do
      if oldest[2][at] == 'size' then size = tonumber(oldest[2][at + 1]) or 0 end
    end
    redis.call('XDEL', key, oldest[1])
    count_replies(stream, -size)
    bytes = bytes - size
  end
end

-- Drops what nobody reads any more, then the oldest replies of whom most waits for, until all are within their bound.
local function make_room()
  drop_addresses(100)
  local over = tonumber(redis.call('GET', P .. 'all_reply_bytes')) - ALL_REPLY_BYTES
  local most = redis.call('ZREVRANGE', P .. 'reply_bytes', 0, 0)
  while over > 0 and most[1] do
    cut_replies(most[1], over, 0)
    if redis.call('XLEN', P .. 'replies:' .. most[1]) == 0 then
      count_replies(most[1], -(redis.call('ZSCORE', P .. 'reply_bytes', most[1]) or 0))
    end
    over = tonumber(redis.call('GET', P .. 'all_reply_bytes')) - ALL_REPLY_BYTES
    most = redis.call('ZREVRANGE', P .. 'reply_bytes', 0, 0)
  end
end

-- A final answer that is large, or comes where much waits, stays in its record alone: who reads fetches it from there.
local function reply(to, id, final, body)
  for _, address in ipairs(lines(to)) do
    local stream, route = string.match(address, '^([^/]*)/?(.*)$')
    local until_at = tonumber(redis.call('ZSCORE', P .. 'addresses', stream) or 0)
    if until_at > now then
      local waiting = tonumber(redis.call('ZSCORE', P .. 'reply_bytes', stream) or 0)
      local fetched = final == '1' and #body > ENTRY_BYTES and (#body > LARGE_REPLY or waiting > REPLY_BYTES / 4)
      local size = ENTRY_BYTES + (fetched and 0 or #body)
      redis.call('XADD', P .. 'replies:' .. stream, '*', 'id', id, 'final', final, 'to', route, 'size', size,
        fetched and 'fetched' or 'body', fetched and #body or body)
      local own, all = count_replies(stream, size)
      cut_replies(stream, own - REPLY_BYTES, 1)
      if all > ALL_REPLY_BYTES then make_room() end
    elseif until_at > 0 then
      drop_address(stream)
    end
  end
end

local function let_go(id)
  local size = redis.call('HSTRLEN', P .. 'record:' .. id, 'answer')
  if size > 0 then
    redis.call('HDEL', P .. 'record:' .. id, 'answer')
    redis.call('DECRBY', P .. 'answer_bytes', size)
  end
  return size
end

-- Settles requests, given as id and body by turns; gives 1 (first) or 0 of each. What a command can do for many is done
-- once, at the end; nothing is half done, because everything that could be refused is read or written before.
local function settle(answers, nonce, kept, kept_bytes, kept_for)
  local firsts, ids, gone, stamps, entries, size = {}, {}, {}, {}, {}, 0
  for at = 1, #answers, 2 do
    local id, body, mark = answers[at], answers[at + 1], nonce .. at
    local record = P .. 'record:' .. id
    local held = redis.call('HMGET', record, 'stage', 'settler', 'priority', 'entry', 'needs', 'to', 'deadline',
      'standing')
    if held[1] == 'settled' then
      firsts[#firsts + 1] = held[2] == mark and 1 or 0
    else
      firsts[#firsts + 1] = 1
      redis.call('HSET', record, 'stage', 'settled', 'holder', '', 'settler', mark, 'answer', body)
      redis.call('HDEL', record, 'body', 'to', 'entry', 'needs', 'turn', 'returned', 'note', 'again', 'told', 'nonce',
        'wanted', 'runs')
      if held[4] and held[4] ~= '' then
        entries[held[3]] = entries[held[3]] or {}
        table.insert(entries[held[3]], held[4])
      end
      if held[5] and held[5] ~= '' then leave(id, held[5]) end
      if held[8] == '1' then redis.call('SREM', P .. 'standing', id) end
      ids[#ids + 1] = id
      stamps[#stamps + 1] = math.max(now, tonumber(held[7]) or 0) + kept_for
      stamps[#stamps + 1] = id
      size = size + #body
      reply(held[6], id, '1', body)
    end
  end
  if #ids == 0 then return firsts end
  for priority, of_class in pairs(entries) do done(priority, unpack(of_class)) end
  redis.call('ZREM', P .. 'open', unpack(ids))
  redis.call('ZADD', P .. 'settled', unpack(stamps))
  local bytes = redis.call('INCRBY', P .. 'answer_bytes', size)
  local count = redis.call('RPUSH', P .. 'answers', unpack(ids))
  while count > 1 and (count > kept or bytes > kept_bytes) do
    bytes = bytes - let_go(redis.call('LPOP', P .. 'answers'))
    count = count - 1
  end
  return firsts
end

-- Drops the oldest that is wanted until so many bytes are free, or all up to a place.
local function cut_wanted(bytes, place)
  local stream, freed = P .. 'wanted', 0
  while place or freed < bytes do
    local oldest = redis.call('XRANGE', stream, '-', place or '+', 'COUNT', 1)[1]
    if not oldest then break end
    freed = freed + ENTRY_BYTES
    for at = 1, #oldest[2], 2 do
      if oldest[2][at] == 'body' then freed = freed + #oldest[2][at + 1] end
    end
    redis.call('XDEL', stream, oldest[1])
  end
  if redis.call('XLEN', stream) == 0 then redis.call('DEL', P .. 'wanted_bytes')
  elseif freed > 0 then redis.call('DECRBY', P .. 'wanted_bytes', freed) end
end

local function told_of(id)
  local told = redis.pcall('HMGET', P .. 'record:' .. id, 'priority', 'strategy', 'label', 'stage', 'sent_at',
    'deadline', 'holder', 'needs', 'attempts', 'answer', 'standing', 'body')
  return told.err and {told.err} or told
end

-- Forgets a request whose record cannot be read, or is not there: the record goes into the dead letters.
local function discard(id, reason, kept)
  local record = P .. 'record:' .. id
  local told = redis.call('TYPE', record).ok
  if told == 'hash' then
    local held = redis.call('HMGET', record, 'stage', 'priority', 'entry', 'needs', 'body')
    if held[1] == 'settled' then return end
    for _, class in ipairs(PLACES) do
      if held[2] == class and held[3] then redis.pcall('XACK', P .. 'queue:' .. class, GROUP, held[3]) end
      if held[2] == class and held[3] then redis.pcall('XDEL', P .. 'queue:' .. class, held[3]) end
    end
    leave(id, held[4])
    redis.call('XADD', P .. 'dead', 'MAXLEN', '~', kept, '*',
      'id', id, 'priority', held[2] or '', 'reason', reason, 'body', held[5] or '')
  elseif told ~= 'none' then
    redis.call('XADD', P .. 'dead', 'MAXLEN', '~', kept, '*', 'id', id, 'priority', '', 'reason', reason, 'body', '')
  end
  redis.call('DEL', record)
  redis.call('ZREM', P .. 'open', id)
  redis.call('SREM', P .. 'standing', id)
end

-- Whether the delivery is still this one: nobody took it away, and it was not settled.
local function mine(id, entry, attempt)
  local held = redis.call('HMGET', P .. 'record:' .. id, 'stage', 'entry', 'attempts')
  return held[1] == 'taken' and held[2] == entry and held[3] == attempt
end
"""


@dataclass(frozen=True)
class Script:
    """A script with its hash, by which the server knows it once it has seen it."""

    text: str
    sha: str


def script(text: str, *, frees: bool = False) -> Script:
    """Make a script; one that frees memory in the end also runs when memory is short."""
    whole = f"#!lua flags=allow-oom\n{_COMMON}{text}" if frees else _COMMON + text
    return Script(whole, hashlib.sha1(whole.encode()).hexdigest())
