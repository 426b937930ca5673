"""The steps of a request's life as Lua scripts: each is atomic, so that a crash falls between two, never into one.

Each script has `KEYS[1]`, the prefix of all keys, and the functions of `_COMMON`. All may be called again after a
lost answer: who settles or admits gives a nonce, so that it knows its own work again; what acts on a delivery is fenced
by its attempt, so that a worker from which it was taken away cannot park, keep or bury it any more.

A record's fields: `priority deadline sent_at body strategy label standing` (the envelope), `nonce` (of the admission),
`to` (addresses), `stage`, `entry` (its one valid entry in the queue), `attempts`, `holder`, `turn` (when it was taken),
`returned` and `note`, `again` (release at once when it parks), `needs`, `told` (the last number), `settler` (nonce of
the settlement) and `answer`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_COMMON = """
local P, GROUP = KEYS[1], 'workers'
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ADDRESS_LIFE, ADDRESSES_OF_ONE = 3600 * 1000000, 64
local REPLIES, REPLY_BYTES = 10000, 67108864
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

local function done(priority, entry)
  local stream = P .. 'queue:' .. priority
  local acknowledged = redis.call('XACK', stream, GROUP, entry)
  redis.call('XDEL', stream, entry)
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

local function touch(address, until_at)
  local stream = string.match(address, '^[^/]*')
  redis.call('ZADD', P .. 'addresses', 'GT', math.max(until_at, now + ADDRESS_LIFE), stream)
end

local function reply(to, id, final, body)
  local bound = math.max(100, math.min(REPLIES, math.floor(REPLY_BYTES / (#body + 1))))
  for _, address in ipairs(lines(to)) do
    local stream, route = string.match(address, '^([^/]*)/?(.*)$')
    if redis.call('ZSCORE', P .. 'addresses', stream) then
      redis.call('XADD', P .. 'replies:' .. stream, 'MAXLEN', '~', bound, '*',
        'id', id, 'final', final, 'body', body, 'to', route)
    end
  end
end

local function let_go(id)
  local size = redis.call('HSTRLEN', P .. 'record:' .. id, 'answer')
  if size > 0 then
    redis.call('HDEL', P .. 'record:' .. id, 'answer')
    redis.call('DECRBY', P .. 'answer_bytes', size)
  end
end

local function settle(id, body, nonce, kept, kept_bytes, kept_for)
  local record = P .. 'record:' .. id
  local held = redis.call('HMGET', record, 'stage', 'settler', 'priority', 'entry', 'needs', 'to', 'deadline',
    'standing')
  if held[1] == 'settled' then return held[2] == nonce and 1 or 0 end
  if held[4] and held[4] ~= '' then done(held[3], held[4]) end
  leave(id, held[5])
  redis.call('ZREM', P .. 'open', id)
  if held[8] == '1' then redis.call('SREM', P .. 'standing', id) end
  redis.call('HDEL', record, 'body', 'to', 'entry', 'needs', 'turn', 'returned', 'note', 'again', 'told', 'nonce')
  redis.call('HSET', record, 'stage', 'settled', 'holder', '', 'settler', nonce, 'answer', body)
  redis.call('ZADD', P .. 'settled', math.max(now, tonumber(held[7] or 0)) + kept_for, id)
  local bytes = redis.call('INCRBY', P .. 'answer_bytes', #body)
  local count = redis.call('RPUSH', P .. 'answers', id)
  while count > 1 and (count > kept or bytes > kept_bytes) do
    let_go(redis.call('LPOP', P .. 'answers'))
    count, bytes = count - 1, tonumber(redis.call('GET', P .. 'answer_bytes'))
  end
  reply(held[6], id, '1', body)
  return 1
end

local function told_of(id)
  return redis.call('HMGET', P .. 'record:' .. id, 'priority', 'strategy', 'label', 'stage', 'sent_at', 'deadline',
    'holder', 'needs', 'attempts', 'answer', 'standing', 'body')
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


def _script(text: str, *, frees: bool = False) -> Script:
    """Make a script; one that frees memory in the end also runs when memory is short."""
    whole = f"#!lua flags=allow-oom\n{_COMMON}{text}" if frees else _COMMON + text
    return Script(whole, hashlib.sha1(whole.encode()).hexdigest())


# ARGV: nonce, address, most standing ones, most tombstones, limits of the four classes; then of each envelope id,
# priority, deadline, sent_at, body, strategy, label, standing, route. Gives how many are in flight, then for each
# envelope 1 (admitted), 2 (known) or 0 (refused). Also sweeps what has expired: more than can come in.
ADMIT = _script("""
local nonce, address, most_standing, most_settled = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local limits = {}
for rank, class in ipairs(PLACES) do limits[class] = tonumber(ARGV[4 + rank]) end
local sweeps = 32 + 2 * (#ARGV - 8) / 9
local gone = redis.call('ZRANGEBYSCORE', P .. 'settled', '-inf', now, 'LIMIT', 0, sweeps)
for _, id in ipairs(gone) do
  let_go(id)
  redis.call('DEL', P .. 'record:' .. id)
  redis.call('ZREM', P .. 'settled', id)
end
for _ = 1, math.min(sweeps, redis.call('ZCARD', P .. 'settled') - most_settled) do
  local id = redis.call('ZPOPMIN', P .. 'settled')[1]
  let_go(id)
  redis.call('DEL', P .. 'record:' .. id)
end
for _, stream in ipairs(redis.call('ZRANGEBYSCORE', P .. 'addresses', '-inf', now, 'LIMIT', 0, 4)) do
  redis.call('DEL', P .. 'replies:' .. stream)
  redis.call('ZREM', P .. 'addresses', stream)
end
local standing = redis.call('SCARD', P .. 'standing')
local open = redis.call('ZCARD', P .. 'open') - standing
local receipts, until_at = {0}, 0
for at = 9, #ARGV, 9 do
  local id, class, deadline = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local record = P .. 'record:' .. id
  local held = redis.call('HMGET', record, 'stage', 'nonce')
  if held[1] then
    receipts[#receipts + 1] = held[2] == nonce .. at and 1 or 2
  elseif open >= limits[class] or (ARGV[at + 7] == '1' and standing >= most_standing) then
    receipts[#receipts + 1] = 0
  else
    local route = ARGV[at + 8]
    local entry = redis.call('XADD', P .. 'queue:' .. class, '*', 'id', id)
    redis.call('HSET', record, 'priority', class, 'deadline', deadline, 'sent_at', ARGV[at + 3], 'body', ARGV[at + 4],
      'strategy', ARGV[at + 5], 'label', ARGV[at + 6], 'standing', ARGV[at + 7], 'nonce', nonce .. at,
      'stage', 'queued', 'entry', entry, 'attempts', 0, 'returned', '', 'note', '',
      'to', route == '' and address or address .. '/' .. route)
    redis.call('ZADD', P .. 'open', deadline, id)
    open = open + 1
    until_at = math.max(until_at, tonumber(deadline))
    receipts[#receipts + 1] = 1
  end
end
touch(address, until_at + ADDRESS_LIFE)
receipts[1] = open
return receipts
""")

# ARGV: answers kept, their bytes, their life (µs), nonce; then id and body of each. Gives 1 (first) or 0 of each.
SETTLE = _script(
    """
local firsts, kept, bytes, life = {}, tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for at = 5, #ARGV, 2 do
  firsts[#firsts + 1] = settle(ARGV[at], ARGV[at + 1], ARGV[4] .. at, kept, bytes, life)
end
return firsts
""",
    frees=True,
)

_OPEN = """
-- Gives what a worker needs of an entry, or drops it: settled meanwhile, or not the request's one valid entry.
local taken = {}
local turn = redis.call('GET', P .. 'turn') or '0'
local function open(priority, entry, fields)
  local id, raw = nil, {}
  for at = 1, #fields, 2 do
    if fields[at] == 'id' then id = fields[at + 1] else raw[#raw + 1] = fields[at] .. '=' .. fields[at + 1] end
  end
  if id and #id > 256 then id = nil end
  local record = P .. 'record:' .. (id or '')
  local held = redis.call('HMGET', record, 'stage', 'entry', 'deadline', 'sent_at', 'body', 'strategy', 'label',
    'standing', 'returned', 'note')
  if not id or not held[1] then
    taken[#taken + 1] = {priority, entry, id or '', 0, table.concat(raw, '\\n'),
      id and 'no request is open under its id' or 'it has no id, or one that is too long'}
  elseif held[1] == 'settled' or held[2] ~= entry then
    done(priority, entry)
  else
    local attempt = redis.call('HINCRBY', record, 'attempts', 1)
    redis.call('HSET', record, 'stage', 'taken', 'holder', ARGV[1], 'turn', turn)
    taken[#taken + 1] = {priority, entry, id, attempt, unpack(held, 3)}
  end
end
"""

# ARGV: worker, shares of the four classes; then class, entry and id of what was read already (id empty: none). Gives of
# each delivery class, entry, id, attempt and eight fields of the record; an attempt of 0 is a bad entry.
TAKE = _script(
    _OPEN
    + """
local left = {}
for rank, class in ipairs(PLACES) do left[class] = tonumber(ARGV[1 + rank]) end
for at = 6, #ARGV, 3 do
  local stream = P .. 'queue:' .. ARGV[at]
  local entries = redis.call('XRANGE', stream, ARGV[at + 1], ARGV[at + 1])
  for _, each in ipairs(entries) do open(ARGV[at], each[1], each[2]) end
  left[ARGV[at]] = left[ARGV[at]] - 1
end
for _, class in ipairs(PLACES) do
  if left[class] > 0 then
    local stream = P .. 'queue:' .. class
    local read = grouped(stream, 'XREADGROUP', 'GROUP', GROUP, ARGV[1], 'COUNT', left[class], 'STREAMS', stream, '>')
    for _, each in ipairs(read[1] and read[1][2] or {}) do open(class, each[1], each[2]) end
  end
end
return taken
"""
)

# ARGV: worker, idle time (ms), at most. Gives what `TAKE` gives.
RECLAIM = _script(
    _OPEN
    + """
local left = tonumber(ARGV[3])
for _, class in ipairs(PLACES) do
  if left > 0 then
    local stream = P .. 'queue:' .. class
    local read = grouped(stream, 'XAUTOCLAIM', stream, GROUP, ARGV[1], ARGV[2], '0-0', 'COUNT', left)
    for _, each in ipairs(read[2] or {}) do
      open(class, each[1], each[2])
      left = left - 1
    end
  end
end
return taken
"""
)

# ARGV: worker; then class, entry, id and attempt of each delivery.
KEEP = _script("""
for at = 2, #ARGV, 4 do
  if mine(ARGV[at + 2], ARGV[at + 1], ARGV[at + 3]) then
    redis.call('XCLAIM', P .. 'queue:' .. ARGV[at], GROUP, ARGV[1], 0, ARGV[at + 1], 'JUSTID')
  end
end
""")

# ARGV: id, body, number or empty; then class, entry and attempt of a delivery that is done with, or nothing. Gives 1 if
# it was sent.
TELL = _script("""
local record = P .. 'record:' .. ARGV[1]
local held = redis.call('HMGET', record, 'stage', 'to', 'told')
if ARGV[4] and mine(ARGV[1], ARGV[5], ARGV[6]) then
  done(ARGV[4], ARGV[5])
  redis.call('HSET', record, 'stage', 'parked', 'entry', '', 'holder', '', 'needs', '')
end
if not held[1] or held[1] == 'settled' then return 0 end
if ARGV[3] ~= '' then
  if held[3] and tonumber(ARGV[3]) <= tonumber(held[3]) then return 0 end
  redis.call('HSET', record, 'told', ARGV[3])
end
reply(held[2], ARGV[1], '0', ARGV[2])
return 1
""")

# ARGV: id, class, entry, attempt, 1 if something is wanted, what is wanted, its bound; then the needs.
PARK = _script(
    """
local id, class, entry = ARGV[1], ARGV[2], ARGV[3]
local record = P .. 'record:' .. id
if not mine(id, entry, ARGV[4]) then return 0 end
local held = redis.call('HMGET', record, 'turn', 'again', 'note', 'standing', 'strategy')
local turn = redis.call('GET', P .. 'turn') or '0'
local taken_at, again, note = tonumber(held[1]), held[2] == '1', held[2] == '1' and held[3] or ''
local forgotten = tonumber(redis.call('GET', P .. 'forgotten') or '0')
for at = 8, #ARGV do
  local released = redis.call('ZSCORE', P .. 'released', ARGV[at])
  if taken_at < (released and tonumber(released) or forgotten) then again = true end
end
done(class, entry)
if held[4] == '1' then redis.call('SADD', P .. 'standing', id) end
if again then
  queue(id, class, '1', note)
  return 2
end
local needs = {}
for at = 8, #ARGV do
  needs[#needs + 1] = ARGV[at]
  redis.call('ZADD', P .. 'parked:' .. ARGV[at], turn, id)
end
redis.call('HSET', record, 'stage', 'parked', 'entry', '', 'holder', '', 'needs', table.concat(needs, '\\n'))
if ARGV[5] == '1' then
  redis.call('XADD', P .. 'wanted', 'MAXLEN', '~', ARGV[7], '*',
    'id', id, 'priority', class, 'strategy', held[5], 'body', ARGV[6])
end
return 1
""",
    frees=True,
)

# ARGV: turn (empty to begin), note, at most, bound of `released`; then the needs. Gives the turn, how many were given
# back, and 1 if there are more that were parked before this turn.
RELEASE = _script(
    """
local turn, note, left, count = ARGV[1], ARGV[2], tonumber(ARGV[3]), 0
if turn == '' then
  turn = redis.call('INCR', P .. 'turn')
  for at = 5, #ARGV do redis.call('ZADD', P .. 'released', turn, ARGV[at]) end
  local over = redis.call('ZCARD', P .. 'released') - tonumber(ARGV[4])
  if over > 0 then redis.call('SET', P .. 'forgotten', redis.call('ZPOPMIN', P .. 'released', over)[2 * over]) end
end
for at = 5, #ARGV do
  local parked = P .. 'parked:' .. ARGV[at]
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', parked, '-inf', '(' .. turn, 'LIMIT', 0, left)) do
    local held = redis.call('HMGET', P .. 'record:' .. id, 'stage', 'needs', 'priority')
    redis.call('ZREM', parked, id)
    leave(id, held[2])
    if held[1] == 'parked' then
      queue(id, held[3], '1', note)
      count = count + 1
    end
    left = left - 1
  end
  if left <= 0 then return {turn, count, 1} end
end
return {turn, count, 0}
""",
    frees=True,
)

# ARGV: note; then ids. Gives how many were parked or will come back with the note once they park.
RELEASE_IDS = _script(
    """
local count = 0
for at = 2, #ARGV do
  local id, record = ARGV[at], P .. 'record:' .. ARGV[at]
  local held = redis.call('HMGET', record, 'stage', 'needs', 'priority')
  if held[1] == 'parked' then
    leave(id, held[2])
    queue(id, held[3], '1', ARGV[1])
  elseif held[1] == 'queued' then
    redis.call('HSET', record, 'returned', '1', 'note', ARGV[1])
  elseif held[1] == 'taken' then
    redis.call('HSET', record, 'again', '1', 'note', ARGV[1])
  end
  if held[1] and held[1] ~= 'settled' then count = count + 1 end
end
return count
""",
    frees=True,
)

# ARGV: class, entry, id, attempt, raw, reason, bound, 1 if it is settled, body, answers kept, their bytes, their life,
# nonce.
BURY = _script(
    """
local id = ARGV[3]
if ARGV[4] == '0' or mine(id, ARGV[2], ARGV[4]) then
  if done(ARGV[1], ARGV[2]) == 1 then
    redis.call('XADD', P .. 'dead', 'MAXLEN', '~', ARGV[7], '*',
      'id', id, 'priority', ARGV[1], 'reason', ARGV[6], 'body', ARGV[5])
    if ARGV[4] ~= '0' then redis.call('HSET', P .. 'record:' .. id, 'stage', 'parked', 'entry', '', 'holder', '') end
  end
end
if ARGV[8] == '1' and id ~= '' then
  settle(id, ARGV[9], ARGV[13], tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]))
end
""",
    frees=True,
)

# ARGV: 1 for those whose deadline has passed alone, at most. Gives id and fields of each, the earliest deadline first.
IN_FLIGHT = _script("""
local upto, found = ARGV[1] == '1' and string.format('%.0f', now) or '+inf', {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'open', '-inf', upto, 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = {id, told_of(id)}
end
return found
""")

# ARGV: address, 1 to have the replies sent there as well; then ids. Gives id and fields of each.
LOOK_UP = _script("""
local found = {}
for at = 3, #ARGV do
  local id, record = ARGV[at], P .. 'record:' .. ARGV[at]
  if ARGV[2] == '1' then
    local held = redis.call('HMGET', record, 'stage', 'to', 'deadline')
    if held[1] and held[1] ~= 'settled' then
      local to = {}
      for _, each in ipairs(lines(held[2])) do
        if each ~= ARGV[1] then to[#to + 1] = each end
      end
      to[#to + 1] = ARGV[1]
      if #to > ADDRESSES_OF_ONE then table.remove(to, 2) end
      redis.call('HSET', record, 'to', table.concat(to, '\\n'))
      touch(ARGV[1], tonumber(held[3]) + ADDRESS_LIFE)
    end
  end
  found[#found + 1] = {id, told_of(id)}
end
return found
""")

# ARGV: idle time (ms), at most. Gives id and fields of what lies in the queues for so long and nobody has worked on.
STRANDED = _script("""
local idle, left, found = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
local before = string.format('%.0f', math.floor(now / 1000) - idle)
for _, class in ipairs(PLACES) do
  local stream = P .. 'queue:' .. class
  for _, each in ipairs(redis.call('XRANGE', stream, '-', before, 'COUNT', 4 * left)) do
    local held = grouped(stream, 'XPENDING', stream, GROUP, each[1], each[1], 1)[1]
    if left > 0 and each[2][1] == 'id' and (not held or held[3] >= idle) then
      found[#found + 1] = {each[2][2], told_of(each[2][2])}
      left = left - 1
    end
  end
end
return found
""")

# ARGV: id, idle time (ms) after which a worker's hold on it no longer counts. Gives its body, or nothing.
PARK_STRANDED = _script(
    """
local record = P .. 'record:' .. ARGV[1]
local held = redis.call('HMGET', record, 'stage', 'entry', 'priority', 'body', 'standing')
if held[1] ~= 'queued' and held[1] ~= 'taken' then return false end
local stream = P .. 'queue:' .. held[3]
local pending = grouped(stream, 'XPENDING', stream, GROUP, held[2], held[2], 1)[1]
if pending and pending[3] < tonumber(ARGV[2]) then return false end
done(held[3], held[2])
redis.call('HSET', record, 'stage', 'parked', 'entry', '', 'holder', '', 'needs', '')
if held[5] == '1' then redis.call('SADD', P .. 'standing', ARGV[1]) end
return held[4]
""",
    frees=True,
)

# ARGV: worker, idle time (ms). Forgets the names of others that have read nothing for so long and hold nothing.
TIDY = _script("""
local streams = {P .. 'changes'}
for _, class in ipairs(PLACES) do streams[#streams + 1] = P .. 'queue:' .. class end
for _, stream in ipairs(streams) do
  for _, consumer in ipairs(grouped(stream, 'XINFO', 'CONSUMERS', stream, GROUP)) do
    local about = {}
    for at = 1, #consumer, 2 do about[consumer[at]] = consumer[at + 1] end
    if about.name ~= ARGV[1] and about.pending == 0 and about.idle >= tonumber(ARGV[2]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, about.name)
    end
  end
end
""")
