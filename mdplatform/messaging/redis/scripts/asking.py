"""The steps that askers take, and settling, which everybody may."""

from __future__ import annotations

from mdplatform.messaging.redis.scripts.script import script

# ARGV: nonce, address, most standing ones, most tombstones, limits of the four classes; then of each envelope id,
# priority, deadline, sent_at, body, strategy, label, standing, route, content. Gives how many are in flight, then for
# each envelope 1 (admitted), 2 (known), 3 (its id is known with other content) or 0 (refused). Also sweeps what has
# expired: more than can come in.
ADMIT = script("""
local nonce, address, most_standing, most_settled = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local limits = {}
for rank, class in ipairs(PLACES) do limits[class] = tonumber(ARGV[4 + rank]) end
local sweeps = 32 + 2 * (#ARGV - 8) / 10
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
drop_addresses(4)
local standing = redis.call('SCARD', P .. 'standing')
local open = redis.call('ZCARD', P .. 'open') - standing
local receipts = {0}
for at = 9, #ARGV, 10 do
  local id, class = ARGV[at], ARGV[at + 1]
  local deadline = string.format('%.0f', math.min(tonumber(ARGV[at + 2]), now + LONGEST))
  local record = P .. 'record:' .. id
  local held = redis.call('HMGET', record, 'stage', 'nonce', 'content')
  if held[1] then
    local before, content = held[3] or '', ARGV[at + 9]
    local is_other = before ~= '' and content ~= '' and before ~= content
    receipts[#receipts + 1] = held[2] == nonce .. at and 1 or is_other and 3 or 2
  elseif open >= limits[class] or (ARGV[at + 7] == '1' and standing >= most_standing) then
    receipts[#receipts + 1] = 0
  else
    local route = ARGV[at + 8]
    local entry = redis.call('XADD', P .. 'queue:' .. class, '*', 'id', id)
    redis.call('HSET', record, 'priority', class, 'deadline', deadline, 'sent_at', ARGV[at + 3], 'body', ARGV[at + 4],
      'strategy', ARGV[at + 5], 'label', ARGV[at + 6], 'standing', ARGV[at + 7], 'nonce', nonce .. at,
      'stage', 'queued', 'entry', entry, 'attempts', 0, 'returned', '', 'note', '', 'content', ARGV[at + 9],
      'to', route == '' and address or address .. '/' .. route)
    redis.call('ZADD', P .. 'open', deadline, id)
    open = open + 1
    receipts[#receipts + 1] = 1
  end
end
touch(address)
receipts[1] = open
return receipts
""")

# ARGV: answers kept, their bytes, their life (µs), nonce; then id and body of each. Gives 1 (first) or 0 of each.
SETTLE = script(
    """
return settle({unpack(ARGV, 5)}, ARGV[4], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
""",
    frees=True,
)

# ARGV: address, 1 to have the replies sent there as well; then ids. Gives id and fields of each.
LOOK_UP = script("""
local found = {}
for at = 3, #ARGV do
  local id, record = ARGV[at], P .. 'record:' .. ARGV[at]
  if ARGV[2] == '1' then
    local held = redis.call('HMGET', record, 'stage', 'to')
    if held[1] and held[1] ~= 'settled' then
      local to = {}
      for _, each in ipairs(lines(held[2])) do
        if each ~= ARGV[1] then to[#to + 1] = each end
      end
      to[#to + 1] = ARGV[1]
      if #to > ADDRESSES_OF_ONE then table.remove(to, 2) end
      redis.call('HSET', record, 'to', table.concat(to, '\\n'))
      touch(ARGV[1])
    end
  end
  found[#found + 1] = {id, told_of(id)}
end
return found
""")

# ARGV: stream of replies; then place and size of each that was read. Forgets those, and keeps the stream for a while.
READ = script(
    """
local places, bytes = {}, 0
for at = 2, #ARGV, 2 do places[#places + 1] = ARGV[at] end
if #places > 0 then
  local gone = redis.call('XDEL', P .. 'replies:' .. ARGV[1], unpack(places))
  for at = #ARGV - 2 * gone + 1, #ARGV, 2 do bytes = bytes + ARGV[at + 1] end -- the others, the oldest, were cut
  if gone > 0 then count_replies(ARGV[1], -bytes) end
end
touch(ARGV[1])
""",
    frees=True,
)
