"""What a listener has heard, and what is next: the rule by which posts are given, whatever carries them.

1. A topic that is followed has a cursor: the place of the last post that was given.
2. A post that is pushed is given if its number is the next one; by any other the topic falls *behind*. So does a topic
   whose subscription begins: when it is new, and whenever a connection was made anew. What is pushed of a topic that is
   behind is on its shelf already, and is not given: its number may be the next one on a server that forgot, and now
   counts other posts.
3. What is behind is read from its *shelf*, where posts are kept, from the cursor on, until nothing more is there. If
   the first post that is found is not the next one, those between were let go: that is said as `Missed`.
4. If the shelf's head is not as late as the cursor, the server has forgotten what was heard. That is said as `Missed`
   too, and the topic is read from its beginning.

So what is given is always the next post, and who carries posts may lose them, repeat them and mix them up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from mdplatform.messaging.broadcast import Missed, Post
from mdplatform.messaging.posting import BEGINNING, read_place

_READ_AT_ONCE = 1000
_READ_BYTES = 8_000_000
_DOUBT_SECONDS = 1.0


class Shelf(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a topic: the place of its last post, and place and body of the first posts after a cursor."""

    head: str
    posts: tuple[tuple[str, bytes], ...]


class Shelves(Protocol):
    """Where posts, facts and wishes are kept. Methods raise `TransportUnavailable`."""

    async def heads(self, topics: Sequence[str]) -> list[str]:
        """Give the places of the last posts."""
        ...

    async def after(self, places: Mapping[str, str], at_most: int) -> list[Shelf]:
        """Give the shelves of topics after places, at most so many posts of each; heads are read before posts."""
        ...

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics."""
        ...

    async def wish(self, name: str, body: bytes, life_seconds: float) -> None:
        """Keep a wish for so long; forget it if it is empty."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


class _Topic:
    __slots__ = ("doubted_at", "micros", "name", "number")

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.micros, self.number = read_place(place, name)
        self.doubted_at = -math.inf

    @property
    def place(self) -> str:
        return f"{self.micros}-{self.number}"

    def is_doubtful(self) -> bool:
        """Whether to look, now and then, if a post that seems to come again is that of a server which forgot."""
        now = time.monotonic()
        if now - self.doubted_at < _DOUBT_SECONDS:
            return False
        self.doubted_at = now
        return True


class Hearing:
    """The topics that are followed. Nothing here waits, so that a cursor moves together with what is given."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}
        self._behind: dict[str, _Topic] = {}
        self._typical = 1000.0

    @property
    def cursors(self) -> dict[str, str]:
        """The place up to which each topic was heard."""
        return {topic.name: topic.place for topic in self._topics.values()}

    @property
    def is_behind(self) -> bool:
        """Whether there is something to read from shelves."""
        return bool(self._behind)

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    def add(self, cursors: Mapping[str, str]) -> list[str]:
        """Follow topics from these cursors on; give those that are new. Raises `InvalidPost` before any is followed."""
        added = [_Topic(name, place) for name, place in cursors.items() if name not in self._topics]
        self._topics.update((topic.name, topic) for topic in added)
        return [topic.name for topic in added]

    def remove(self, topics: Sequence[str]) -> list[str]:
        """Follow topics no more; give those that were followed."""
        gone = [name for name in dict.fromkeys(topics) if self._topics.pop(name, None)]
        for name in gone:
            self._behind.pop(name, None)
        return gone

    def fall_behind(self, topic: str = "") -> None:
        """Have a topic read from its shelf; without a name all of them."""
        if not topic:
            self._behind = dict(self._topics)
        elif topic in self._topics:
            self._behind[topic] = self._topics[topic]

    def to_read(self, at_most: int) -> tuple[dict[str, str], int]:
        """Give the places of some topics that are behind, and how many posts of each to read after them."""
        places = {name: topic.place for name, topic in zip(self._behind, self._behind.values(), strict=True)}
        places = dict(list(places.items())[:at_most])
        count = int(_READ_BYTES / (max(1, len(places)) * self._typical))
        return places, max(1, min(_READ_AT_ONCE, count))

    def push(self, name: str, payload: bytes, found: list[Post | Missed]) -> None:
        """Add what was pushed to `found` if it is next."""
        topic = self._topics.get(name)
        if topic is None or name in self._behind:
            return
        space = payload.index(b" ")
        place = payload[:space].decode()
        dash = place.index("-")
        micros, number = int(place[:dash]), int(place[dash + 1 :])
        if number == topic.number + 1 and micros >= topic.micros:
            topic.micros, topic.number = micros, number
            found.append(Post(name, payload[space + 1 :], {}, place))
        elif micros > topic.micros or number > topic.number or topic.is_doubtful():
            self._behind[name] = topic

    def read(self, places: Mapping[str, str], shelves: Sequence[Shelf], count: int, found: list[Post | Missed]) -> None:
        """Add what was read after these places to `found`."""
        for (name, place), shelf in zip(places.items(), shelves, strict=True):
            topic = self._topics.get(name)
            if topic is None or topic.place != place:
                continue  # it was left, or followed anew, meanwhile
            head = read_place(shelf.head, name)
            if head < (topic.micros, topic.number):
                topic.micros = topic.number = 0
                found.append(Missed(name, BEGINNING))
                continue
            for at, body in shelf.posts:
                self._give(topic, at, body, found)
            if not shelf.posts and head > (topic.micros, topic.number):
                topic.micros, topic.number = head
                found.append(Missed(name, topic.place))
            if len(shelf.posts) < count:
                self._behind.pop(name, None)

    def _give(self, topic: _Topic, place: str, body: bytes, found: list[Post | Missed]) -> None:
        micros, number = read_place(place, topic.name)
        if number != topic.number + 1 or micros < topic.micros:
            found.append(Missed(topic.name, f"{micros}-{number - 1}"))
        topic.micros, topic.number = micros, number
        self._typical += 0.01 * (len(body) - self._typical)
        found.append(Post(topic.name, body, {}, place))
