"""A listener: what is pushed to it, and what it reads from the shelves where it fell behind (`hearing` has the rule).

While the server is away `receive` gives nothing and connects again and again; after `PATIENCE` seconds of that it
raises `TransportUnavailable`, at each call until the server is back, and then goes on from the cursors. A listener that
lets too much lie is dropped by the server; it comes back, and reads what it has not heard.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.broadcast import Missed, Post
from mdplatform.messaging.hearing import Hearing, Shelves
from mdplatform.messaging.posting import check_topics, check_wish
from mdplatform.messaging.redis.line import PATIENCE, pause

_MOST_AT_ONCE = 10_000
_TOPICS_AT_ONCE = 64


class Pushes(Protocol):
    """The connection on which posts come as they are sent."""

    @property
    def is_connected(self) -> bool:
        """Whether something may come."""
        ...

    async def connect(self, topics: Sequence[str]) -> None:
        """Connect anew and subscribe to topics. Raises `TransportUnavailable`."""
        ...

    async def follow(self, topics: Sequence[str]) -> None:
        """Subscribe to these too, if there is a connection; one that fails meanwhile is given up."""
        ...

    async def leave(self, topics: Sequence[str]) -> None:
        """Take subscriptions back."""
        ...

    def take(self) -> Iterator[tuple[str, bytes | None]]:
        """Give topic and payload of what has come; None where a subscription begins, of all topics without a name."""
        ...

    async def wait(self, seconds: float) -> None:
        """Wait until something has come or the connection is lost, at most so long."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


class PushedListener:
    """A `Listener`, for one event loop; one task at a time may `receive`."""

    def __init__(self, pushes: Pushes, shelves: Shelves) -> None:
        self._pushes = pushes
        self._shelves = shelves
        self._hearing = Hearing()
        self._away_since: float | None = None
        self._failures = 0
        self._closed = False

    @property
    def cursors(self) -> Mapping[str, str]:
        """Where each topic was heard up to."""
        return self._hearing.cursors

    async def follow(self, topics: Sequence[str], cursors: Mapping[str, str] | None = None) -> dict[str, str]:
        """Hear these topics too; give the cursor of each. Raises `InvalidPost` before anything is followed."""
        check_topics(topics)
        wanted = {name: (cursors or {}).get(name) for name in topics if name not in self._hearing}
        fresh = [name for name, place in wanted.items() if place is None]
        heads = dict(zip(fresh, await self._shelves.heads(fresh) if fresh else (), strict=True))
        added = self._hearing.add({name: place or heads[name] for name, place in wanted.items()})
        if added:
            await self._pushes.follow(added)
        found = self._hearing.cursors
        return {name: found[name] for name in topics if name in found}

    async def leave(self, topics: Sequence[str]) -> None:
        """Hear these topics no more."""
        check_topics(topics)
        gone = self._hearing.remove(topics)
        if gone:
            await self._pushes.leave(gone)

    async def receive(self, wait_seconds: float) -> list[Post | Missed]:
        """Give what was posted since the last call, in order within a topic; wait for the first, at most so long.

        One call gives some ten thousand posts at most. It may take `PATIENCE` longer if the server fails meanwhile.
        """
        end = time.monotonic() + wait_seconds
        while True:
            if not self._pushes.is_connected and not await self._connect(end):
                return []
            found: list[Post | Missed] = []
            if self._hearing.is_behind:
                places, count = self._hearing.to_read(_TOPICS_AT_ONCE)
                shelves = await self._shelves.after(places, count)
                self._hearing.read(places, shelves, count, found)  # from here on nothing waits
            self._hear(found)
            left = end - time.monotonic()
            if found or (left <= 0 and not self._hearing.is_behind):
                return found
            if not self._hearing.is_behind:
                await self._pushes.wait(left)

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics; an empty mapping where there are none."""
        check_topics(topics)
        return await self._shelves.facts(topics)

    async def wish(self, name: str, body: bytes, life_seconds: float) -> None:
        """Say what is wished for, until so long from now; an empty body takes it back."""
        check_wish(name, body, life_seconds)
        await self._shelves.wish(name, body, life_seconds)

    async def close(self) -> None:
        """Let go of the connections."""
        self._closed = True
        await self._shelves.close()
        await self._pushes.close()

    async def _connect(self, end: float) -> bool:
        """Connect and subscribe anew; whether that went well in time."""
        if self._closed:
            raise TransportUnavailable("This listener was closed", remedy="Make a new one")
        while True:
            known = self._hearing.cursors
            try:
                await self._pushes.connect(list(known))
            except TransportUnavailable:
                now = time.monotonic()
                self._away_since = self._away_since or now
                if now - self._away_since > PATIENCE:
                    raise
                await asyncio.sleep(pause(self._failures))
                self._failures += 1
                if time.monotonic() >= end:
                    return False
                continue
            self._away_since, self._failures = None, 0
            late = [name for name in self._hearing.cursors if name not in known]
            if late:  # they were followed meanwhile, when there was nothing to subscribe on
                await self._pushes.follow(late)
            self._hearing.fall_behind()
            return True

    def _hear(self, found: list[Post | Missed]) -> None:
        push = self._hearing.push
        for topic, payload in self._pushes.take():
            if payload is None:
                self._hearing.fall_behind(topic)
            else:
                push(topic, payload, found)
                if len(found) >= _MOST_AT_ONCE:
                    return
