"""The side that hears, over Redis: posts are pushed as they are published, and what was not is read from the streams.

1. A topic that is followed has a cursor: the place of the last post that was given. Its channel is subscribed to.
2. A pushed post is given if its number is the next one; by any other the topic falls *behind*. So does every topic
   whose subscription begins: when it is new, and whenever the connection was made anew.
3. What is behind is read from its stream, from the cursor on, until nothing more is there; and again from step 2. If
   the first post that is found is not the next one, those between were let go: that is said as `Missed`.
4. If the server knows no place as late as the cursor, it has forgotten what was heard. That is said as `Missed` too,
   and the topic is read from its beginning.

So what is given is always the next post, whatever the connection does, and a cursor moves only when `receive` returns.
The server drops a listener that lets too much lie; it comes back, and reads what it has not heard.

While Redis is away `receive` gives nothing; after `PATIENCE` seconds of that it raises `TransportUnavailable`, at each
call until Redis is back, and then goes on from the cursors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mdplatform.messaging.broadcast import Missed, Post
from mdplatform.messaging.posting import check_topics, check_wish, read_place
from mdplatform.messaging.redis_broadcaster import read_facts
from mdplatform.messaging.redis_line import PATIENCE, Line, gone, pause
from mdplatform.messaging.redis_posts import BEGINNING, HEADS, PREFIX, WISH, posts_key
from mdplatform.messaging.redis_pushes import Pushes
from mdplatform.settings import Settings
from mdplatform.valkey.connection import REDIS_FAILURES

_MOST_AT_ONCE = 10_000
_BEHIND_AT_ONCE = 64
_READ_AT_ONCE = 1000
_READ_BYTES = 8_000_000


class _Topic:
    """A topic and the place up to which it was heard."""

    __slots__ = ("key", "micros", "name", "number")

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.key = posts_key(name).encode()
        self.micros, self.number = read_place(place, name)

    @property
    def place(self) -> str:
        return f"{self.micros}-{self.number}"

    def precedes(self, micros: int, number: int) -> bool:
        return number == self.number + 1 and micros >= self.micros


class RedisListener:
    """A `Listener`, for one event loop; one task at a time may `receive`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._line = Line(settings)
        self._pushes = Pushes(settings)
        self._topics: dict[bytes, _Topic] = {}
        self._behind: dict[bytes, _Topic] = {}
        self._typical = 1000.0
        self._away_since: float | None = None
        self._failures = 0

    @property
    def cursors(self) -> Mapping[str, str]:
        """Where each topic was heard up to."""
        return {topic.name: topic.place for topic in self._topics.values()}

    async def follow(self, topics: Sequence[str], cursors: Mapping[str, str] | None = None) -> dict[str, str]:
        """Hear these topics too; give the cursor of each. Raises `InvalidPost` before anything is followed."""
        check_topics(topics)
        given = {name: place for name, place in (cursors or {}).items() if name in topics}
        known = {topic.name: topic for topic in self._topics.values()}
        added = {name: _Topic(name, place) for name, place in given.items() if name not in known}
        fresh = [name for name in dict.fromkeys(topics) if name not in known and name not in added]
        if fresh:
            heads = await self._line.command("HMGET", HEADS, *fresh)
            for name, head in zip(fresh, heads, strict=True):
                added[name] = _Topic(name, BEGINNING if head is None else head.decode())
        for topic in added.values():
            self._topics.setdefault(topic.key, topic)
        if added:
            self._pushes.write("SUBSCRIBE", *(topic.key for topic in added.values()))
        found = {topic.name: topic.place for topic in self._topics.values()}
        return {name: found[name] for name in topics}

    async def leave(self, topics: Sequence[str]) -> None:
        """Hear these topics no more."""
        check_topics(topics)
        gone = [key for key in (posts_key(name).encode() for name in topics) if self._topics.pop(key, None)]
        for key in gone:
            self._behind.pop(key, None)
        if gone:
            self._pushes.write("UNSUBSCRIBE", *gone)

    async def receive(self, wait_seconds: float) -> list[Post | Missed]:
        """Give what was posted since the last call, in order within a topic; wait for the first, at most so long.

        One call gives about ten thousand posts at most. It may take `PATIENCE` longer if Redis fails meanwhile.
        """
        end = time.monotonic() + wait_seconds
        while True:
            if not self._pushes.is_connected and not await self._connected(end):
                return []
            behind = list(self._behind.values())[:_BEHIND_AT_ONCE]
            answers = await self._read(behind) if behind else None
            # from here on nothing waits: what moves a cursor is given
            found: list[Post | Missed] = []
            if answers is not None:
                self._catch_up(behind, answers, found)
            self._hear(found)
            left = end - time.monotonic()
            if found or (left <= 0 and not self._behind):
                return found
            if not self._behind and not await self._pushes.wait(left) and time.monotonic() >= end:
                return []

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics; an empty mapping where there are none."""
        return await read_facts(self._line, topics)

    async def wish(self, name: str, body: bytes, life_seconds: float) -> None:
        """Say what is wished for, until so long from now; an empty body takes it back."""
        check_wish(name, body, life_seconds)
        await self._line.command("EVAL", WISH, 1, PREFIX, name, body, round(life_seconds * 1e6))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._line.close()
        await self._pushes.close()

    async def _connected(self, end: float) -> bool:
        """Connect and subscribe anew; whether that went well in time."""
        while True:
            try:
                await self._pushes.connect()
            except REDIS_FAILURES as failure:
                now = time.monotonic()
                self._away_since = self._away_since or now
                if now - self._away_since > PATIENCE:
                    raise gone(self._settings, failure) from None
                await asyncio.sleep(pause(self._failures))
                self._failures += 1
                if time.monotonic() >= end:
                    return False
                continue
            self._away_since, self._failures = None, 0
            self._behind = dict(self._topics)
            if self._topics:
                self._pushes.write("SUBSCRIBE", *self._topics)
            return True

    async def _read(self, behind: Sequence[_Topic]) -> tuple[list[str], Sequence[Any], Any, int]:
        """Give the places asked for, the heads and what the streams hold after those places, at most so many each."""
        places = [topic.place for topic in behind]
        count = max(1, min(_READ_AT_ONCE, int(_READ_BYTES / (len(behind) * self._typical))))
        keys = [topic.key for topic in behind]
        # in this order: what the heads know must be in the streams, unless it was let go
        heads, streams = await asyncio.gather(
            self._line.command("HMGET", HEADS, *(topic.name for topic in behind)),
            self._line.command("XREAD", "COUNT", count, "STREAMS", *keys, *places),
        )
        return places, heads, streams, count

    def _catch_up(
        self,
        behind: Sequence[_Topic],
        answers: tuple[list[str], Sequence[Any], Any, int],
        found: list[Post | Missed],
    ) -> None:
        places, heads, streams, count = answers
        entries = dict(streams.items() if isinstance(streams, dict) else streams or ())
        for topic, place, head in zip(behind, places, heads, strict=True):
            if self._topics.get(topic.key) is not topic or topic.place != place:
                continue  # it was left, or followed anew, meanwhile
            micros, number = (0, 0) if head is None else read_place(head.decode(), topic.name)
            if (micros, number) < (topic.micros, topic.number):
                topic.micros, topic.number = 0, 0
                found.append(Missed(topic.name, BEGINNING))
                continue
            came = entries.get(topic.key, ())
            for at, fields in came:
                self._give(topic, at.decode(), fields[1], found)
            if not came and (micros, number) > (topic.micros, topic.number):
                topic.micros, topic.number = micros, number
                found.append(Missed(topic.name, topic.place))
            if len(came) < count:
                self._behind.pop(topic.key, None)

    def _give(self, topic: _Topic, place: str, body: bytes, found: list[Post | Missed]) -> None:
        first, _, second = place.partition("-")
        micros, number = int(first), int(second)
        if not topic.precedes(micros, number):
            found.append(Missed(topic.name, f"{micros}-{number - 1}"))
        topic.micros, topic.number = micros, number
        self._typical += 0.01 * (len(body) - self._typical)
        found.append(Post(topic.name, body, {}, place))

    def _hear(self, found: list[Post | Missed]) -> None:
        """Give what was pushed and is next; note what is not as behind."""
        topics, behind = self._topics, self._behind
        for message in self._pushes.take():
            kind = message[0]
            if kind == b"message":
                topic = topics.get(message[1])
                if topic is None:
                    continue
                payload = message[2]
                space = payload.index(b" ")
                place = payload[:space].decode()
                dash = place.index("-")
                micros, number = int(place[:dash]), int(place[dash + 1 :])
                if number == topic.number + 1 and micros >= topic.micros:
                    topic.micros, topic.number = micros, number
                    found.append(Post(topic.name, payload[space + 1 :], {}, place))
                    if len(found) >= _MOST_AT_ONCE:
                        return
                elif topic.key not in behind:
                    behind[topic.key] = topic
            elif kind == b"subscribe":
                topic = topics.get(message[1])
                if topic is not None:
                    behind[topic.key] = topic
