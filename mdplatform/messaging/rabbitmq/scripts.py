"""What bridges keep in Redis: where each asker's direct replies go, and the last updates that were sent there.

    mdp:{requests}:rabbitmq:line:<asker>   hash: `to`, the address, and `line`, which counts the asker's connections
    mdp:{requests}:rabbitmq:told:<asker>   list: place, id and body of the last updates, which it may have missed

Both are written in one step with what reads them, so that an update is either carried to the new address or among
those that the asker is told with its `hello`. Final answers need no such list: they are in the records.
"""

from __future__ import annotations

import hashlib

from mdplatform.messaging.redis.scripts import Script


def _script(text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode()).hexdigest())


# ARGV: asker, its address, the number of its connection. Gives the list of updates.
HELLO = _script("""
local line = KEYS[1] .. 'rabbitmq:line:' .. ARGV[1]
local number = redis.call('HGET', line, 'line')
if not number or tonumber(ARGV[3]) > tonumber(number) then
  redis.call('HSET', line, 'to', ARGV[2], 'line', ARGV[3])
end
redis.call('EXPIRE', line, 86400)
return redis.call('LRANGE', KEYS[1] .. 'rabbitmq:told:' .. ARGV[1], 0, -1)
""")

# ARGV: the stream of replies; then place, asker and 1 if it is final of each reply. Gives the address of each, or ''.
CARRY = _script("""
local found = {}
for at = 2, #ARGV, 3 do
  local place, asker = ARGV[at], ARGV[at + 1]
  local line = KEYS[1] .. 'rabbitmq:line:' .. asker
  found[#found + 1] = redis.call('HGET', line, 'to') or ''
  redis.call('EXPIRE', line, 86400)
  local entry = ARGV[at + 2] ~= '1' and redis.call('XRANGE', ARGV[1], place, place)[1]
  if entry then
    local told, id, body = KEYS[1] .. 'rabbitmq:told:' .. asker, '', ''
    for field = 1, #entry[2], 2 do
      if entry[2][field] == 'id' then id = entry[2][field + 1] end
      if entry[2][field] == 'body' then body = entry[2][field + 1] end
    end
    redis.call('RPUSH', told, place, id, body)
    redis.call('LTRIM', told, -96, -1)
    redis.call('EXPIRE', told, 600)
  end
end
return found
""")
