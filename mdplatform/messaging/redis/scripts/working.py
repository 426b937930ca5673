"""The steps that workers take."""

from __future__ import annotations

from mdplatform.messaging.redis.scripts.script import script

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
  local held = redis.pcall('HMGET', record, 'stage', 'entry', 'deadline', 'sent_at', 'body', 'strategy', 'label',
    'standing', 'returned', 'note', 'runs', 'told')
  if held.err then
    taken[#taken + 1] = {priority, entry, id, 0, table.concat(raw, ' '), 'its record cannot be read'}
  elseif not id or not held[1] then
    taken[#taken + 1] = {priority, entry, id or '', 0, table.concat(raw, '\\n'),
      id and 'no request is open under its id' or 'it has no id, or one that is too long'}
  elseif held[1] == 'settled' or held[2] ~= entry then
    done(priority, entry)
  else
    local attempt = redis.pcall('HINCRBY', record, 'attempts', 1)
    if type(attempt) == 'table' then attempt = 1 redis.call('HSET', record, 'attempts', 1) end
    redis.call('HSET', record, 'stage', 'taken', 'holder', ARGV[1], 'turn', turn)
    taken[#taken + 1] = {priority, entry, id, attempt, unpack(held, 3)}
  end
end
"""

# ARGV: worker, shares of the four classes; then class, entry and id of what was read already (id empty: none). Gives of
# each delivery class, entry, id, attempt and ten fields of the record; an attempt of 0 is a bad entry.
TAKE = script(
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

# ARGV: worker, idle time (ms), at most. Gives what `TAKE` gives. Also drops addresses, for where nobody is admitted.
RECLAIM = script(
    _OPEN
    + """
drop_addresses(100)
local left = tonumber(ARGV[3])
for _, class in ipairs(PLACES) do
  if left > 0 then
    local stream = P .. 'queue:' .. class
    local silent = grouped(stream, 'XPENDING', stream, GROUP, 'IDLE', ARGV[2], '-', '+', left)
    for _, each in ipairs(silent) do
      local claimed = redis.call('XCLAIM', stream, GROUP, ARGV[1], ARGV[2], each[1])
      if claimed[1] then
        open(class, claimed[1][1], claimed[1][2])
        left = left - 1
      end
    end
  end
end
return taken
""",
    frees=True,
)

# ARGV: worker; then class, entry, id and attempt of each delivery.
KEEP = script("""
for at = 2, #ARGV, 4 do
  if mine(ARGV[at + 2], ARGV[at + 1], ARGV[at + 3]) then
    redis.call('XCLAIM', P .. 'queue:' .. ARGV[at], GROUP, ARGV[1], 0, ARGV[at + 1], 'JUSTID')
  end
end
""")

# ARGV: id, body, number or empty, its mark; then class, entry and attempt of a delivery that is done with, or nothing.
# Gives 1 if it was sent.
TELL = script("""
local record = P .. 'record:' .. ARGV[1]
local held = redis.call('HMGET', record, 'stage', 'to', 'told')
if ARGV[5] and mine(ARGV[1], ARGV[6], ARGV[7]) then
  done(ARGV[5], ARGV[6])
  redis.call('HSET', record, 'stage', 'parked', 'entry', '', 'holder', '', 'needs', '')
end
if not held[1] or held[1] == 'settled' then return 0 end
if ARGV[3] ~= '' then
  if held[3] and tonumber(ARGV[3]) <= tonumber(string.match(held[3], '^%S*')) then return 0 end
  redis.call('HSET', record, 'told', ARGV[3] .. ' ' .. ARGV[4])
end
reply(held[2], ARGV[1], '0', ARGV[2])
return 1
""")

_BROUGHT = """
-- Notes which runs brought what a request wants from runs; `run_of` gives the run of a need, or nothing.
local function brought(id, run_of)
  local held = redis.call('HMGET', P .. 'record:' .. id, 'wanted', 'runs')
  if not held[1] then return end
  local runs, told = {}, {}
  for _, each in ipairs(lines(held[2])) do
    local need, run = string.match(each, '^(.*) (.*)$')
    runs[need] = run
  end
  for _, need in ipairs(lines(held[1])) do
    local run = run_of(need)
    if run and run ~= '' then runs[need] = run end
  end
  for need, run in pairs(runs) do told[#told + 1] = need .. ' ' .. run end
  if #told > 0 then redis.call('HSET', P .. 'record:' .. id, 'runs', table.concat(told, '\\n')) end
end
"""

# ARGV: id, class, entry, attempt, how many of the needs are wanted from runs (empty: nothing is), what is wanted, the
# bytes that may be; then the needs, those first.
PARK = script(
    _BROUGHT
    + """
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
if ARGV[5] ~= '' then
  local wanted = {}
  for at = 8, 7 + ARGV[5] do wanted[#wanted + 1] = ARGV[at] end
  redis.call('HSET', record, 'wanted', table.concat(wanted, '\\n'))
else
  redis.call('HDEL', record, 'wanted', 'runs')
end
if again then
  brought(id, function(need)
    local released = redis.call('ZSCORE', P .. 'released', need)
    return released and taken_at < tonumber(released) and redis.call('HGET', P .. 'released_by', need)
  end)
  queue(id, class, '1', note)
  return 2
end
local needs = {}
for at = 8, #ARGV do
  needs[#needs + 1] = ARGV[at]
  redis.call('ZADD', P .. 'parked:' .. ARGV[at], turn, id)
end
redis.call('HSET', record, 'stage', 'parked', 'entry', '', 'holder', '', 'needs', table.concat(needs, '\\n'))
if ARGV[5] ~= '' then
  redis.call('XADD', P .. 'wanted', '*', 'id', id, 'priority', class, 'strategy', held[5], 'body', ARGV[6])
  local bytes = redis.call('INCRBY', P .. 'wanted_bytes', #ARGV[6] + ENTRY_BYTES)
  if bytes > tonumber(ARGV[7]) then cut_wanted(bytes - ARGV[7]) end
end
return 1
""",
    frees=True,
)

# ARGV: turn (empty to begin), note, at most, bound of `released`; then need and run (or empty) of each. Gives the turn,
# how many were given back, and 1 if there are more that were parked before this turn.
RELEASE = script(
    _BROUGHT
    + """
local turn, note, left, count, runs = ARGV[1], ARGV[2], tonumber(ARGV[3]), 0, {}
for at = 5, #ARGV, 2 do runs[ARGV[at]] = ARGV[at + 1] end
local function run_of(need) return runs[need] end
if turn == '' then
  turn = redis.call('INCR', P .. 'turn')
  for need, run in pairs(runs) do
    redis.call('ZADD', P .. 'released', turn, need)
    if run ~= '' then redis.call('HSET', P .. 'released_by', need, run)
    else redis.call('HDEL', P .. 'released_by', need) end
  end
  local over = redis.call('ZCARD', P .. 'released') - tonumber(ARGV[4])
  if over > 0 then
    local gone = redis.call('ZPOPMIN', P .. 'released', over)
    redis.call('SET', P .. 'forgotten', gone[2 * over])
    for at = 1, #gone, 2 do redis.call('HDEL', P .. 'released_by', gone[at]) end
  end
end
for at = 5, #ARGV, 2 do
  local parked = P .. 'parked:' .. ARGV[at]
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', parked, '-inf', '(' .. turn, 'LIMIT', 0, left)) do
    local held = redis.call('HMGET', P .. 'record:' .. id, 'stage', 'needs', 'priority')
    redis.call('ZREM', parked, id)
    leave(id, held[2])
    if held[1] == 'parked' then
      brought(id, run_of)
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

# ARGV: class, entry, id, attempt, raw, reason, bound, 1 if it is settled, body, answers kept, their bytes, their life,
# nonce.
BURY = script(
    """
local id = ARGV[3]
if ARGV[4] == '0' or mine(id, ARGV[2], ARGV[4]) then
  if done(ARGV[1], ARGV[2]) == 1 then
    redis.call('XADD', P .. 'dead', 'MAXLEN', '~', ARGV[7], '*',
      'id', id, 'priority', ARGV[1], 'reason', ARGV[6], 'body', ARGV[5])
    if ARGV[4] ~= '0' then
      redis.call('HSET', P .. 'record:' .. id, 'stage', 'parked', 'entry', '', 'holder', '')
    elseif id ~= '' and redis.pcall('HGET', P .. 'record:' .. id, 'entry') ~= false then
      discard(id, ARGV[6], ARGV[7])
    end
  end
end
if ARGV[8] == '1' and id ~= '' then
  settle({id, ARGV[9]}, ARGV[13], tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]))
end
""",
    frees=True,
)

# ARGV: worker, idle time (ms). Forgets the names of others that have read nothing for so long and hold nothing.
TIDY = script("""
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
