"""The steps of who looks over all requests: the run path, sweeps, people."""

from __future__ import annotations

from mdplatform.messaging.redis.scripts.script import script

# ARGV: 1 for those whose deadline has passed alone, at most. Gives id and fields of each, the earliest deadline first.
IN_FLIGHT = script("""
local upto, found = ARGV[1] == '1' and string.format('%.0f', now) or '+inf', {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'open', '-inf', upto, 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = {id, told_of(id)}
end
return found
""")

# ARGV: note; then ids. Gives how many were parked or will come back with the note once they park.
RELEASE_IDS = script(
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

# ARGV: idle time (ms), at most. Gives id and fields of what lies in the queues for so long and nobody has worked on.
STRANDED = script("""
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

# ARGV: a place. Drops what is wanted up to there.
TRIM_WANTED = script("cut_wanted(0, ARGV[1])", frees=True)

# ARGV: reason, bound of the dead letters; then ids. Forgets them, for their records cannot be read or are not there.
DISCARD = script(
    """
for at = 3, #ARGV do discard(ARGV[at], ARGV[1], ARGV[2]) end
""",
    frees=True,
)
