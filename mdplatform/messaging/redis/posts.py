"""Where broadcasts lie in Redis, and the scripts that write them.

    mdp:{live}:heads           hash: the place of the last post of each topic
    mdp:{live}:posts:<topic>   stream: the posts that are kept; an entry has `body`. Also the channel of that name, on
                               which each post is published in the step that keeps it, as `<place> <body>`
    mdp:{live}:facts:<topic>   hash: the newest values by name
    mdp:{live}:senders         hash: the number of the last call of each broadcaster
    mdp:{live}:wishes          hash: wishes by name; `until` is a sorted set of their names, by when they end

A *place* is an entry's id, `<microseconds>-<number>`. Numbers count the posts of a topic from 1 without a hole, and the
microseconds, the server's time, never go back. So who has heard up to a place knows the next post by its number, and
anything else means that posts were let go, or that the server has forgotten them: it was emptied, or came back without
its last second.

All keys have one hash tag: in a cluster too, one script writes the posts of many topics, and one command reads them.
Nothing has an expiry of Redis's own, since what has one may be evicted when memory is short.
"""

from __future__ import annotations

PREFIX = "mdp:{live}:"
HEADS = f"{PREFIX}heads"


def posts_key(topic: str) -> str:
    """Give the key of a topic's stream, and the name of its channel.

    >>> posts_key("BTCUSDT")
    'mdp:{live}:posts:BTCUSDT'
    """
    return f"{PREFIX}posts:{topic}"


def facts_key(topic: str) -> str:
    """Give the key of a topic's facts."""
    return f"{PREFIX}facts:{topic}"


# ARGV: broadcaster, number of its call, the latest microseconds that it was given; then of each post topic, how many
# are kept, body, count of facts, and name and value of each. Gives the microseconds. A call that came through before is
# not done again, in whatever order the two arrive.
SEND = """
local P, last = KEYS[1], redis.call('HGET', KEYS[1] .. 'senders', ARGV[1])
if last and tonumber(last) >= tonumber(ARGV[2]) then return tonumber(ARGV[3]) end
if not last and redis.call('HLEN', P .. 'senders') >= 10000 then redis.call('DEL', P .. 'senders') end
redis.call('HSET', P .. 'senders', ARGV[1], ARGV[2])
local time = redis.call('TIME')
local now = math.max(time[1] * 1000000 + time[2], tonumber(ARGV[3]))
local heads, newest, at = {}, now, 4
while at <= #ARGV do
  local topic, body, facts = ARGV[at], ARGV[at + 2], tonumber(ARGV[at + 3])
  local posts, head = P .. 'posts:' .. topic, heads[topic]
  if not head then
    local place = redis.call('HGET', P .. 'heads', topic)
    if not place then redis.call('DEL', posts) end
    local before, number = string.match(place or '0-0', '^(%d+)-(%d+)$')
    head = {math.max(now, tonumber(before)), tonumber(number)}
    heads[topic], newest = head, math.max(newest, head[1])
  end
  head[2] = head[2] + 1
  local place = string.format('%.0f-%.0f', head[1], head[2])
  redis.call('XADD', posts, 'MAXLEN', '~', ARGV[at + 1], place, 'body', body)
  at = at + 4
  for _ = 1, facts do
    if ARGV[at + 1] == '' then
      redis.call('HDEL', P .. 'facts:' .. topic, ARGV[at])
    else
      redis.call('HSET', P .. 'facts:' .. topic, ARGV[at], ARGV[at + 1])
    end
    at = at + 2
  end
  redis.call('PUBLISH', posts, place .. ' ' .. body)
end
for topic, head in pairs(heads) do
  redis.call('HSET', P .. 'heads', topic, string.format('%.0f-%.0f', head[1], head[2]))
end
return newest
"""

_SWEEP = """
local P, time = KEYS[1], redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'until', '-inf', now)) do
  redis.call('ZREM', P .. 'until', name)
  redis.call('HDEL', P .. 'wishes', name)
end
"""

# ARGV: name, body, life in microseconds. An empty body takes the wish back.
WISH = f"""{_SWEEP}
if ARGV[2] == '' then
  redis.call('ZREM', P .. 'until', ARGV[1])
  redis.call('HDEL', P .. 'wishes', ARGV[1])
else
  redis.call('ZADD', P .. 'until', string.format('%.0f', now + tonumber(ARGV[3])), ARGV[1])
  redis.call('HSET', P .. 'wishes', ARGV[1], ARGV[2])
end
"""

# Gives name and body of each wish that is alive.
WISHES = f"""{_SWEEP}
return redis.call('HGETALL', P .. 'wishes')
"""
