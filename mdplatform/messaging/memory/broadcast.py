"""Broadcasts inside one process: for tests and notebooks. What it holds is gone with the process.

All broadcasters and listeners of one `MemoryBroadcast` share its state, in one event loop. A place is `0-<number>`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice

from mdplatform.messaging.broadcast import Missed, Post
from mdplatform.messaging.posting import Keeping, changed, check_posts, check_topics, check_wish, read_place
from mdplatform.settings import Settings

_MOST_AT_ONCE = 10_000


class _Topic:
    """The posts of a topic that are kept, and the number of the last."""

    def __init__(self) -> None:
        self.kept: deque[bytes] = deque()
        self.number = 0
        self.facts: dict[str, bytes] = {}


class MemoryBroadcast:
    """The shared state; `broadcaster` and `listener` give its sides."""

    def __init__(self, settings: Settings) -> None:
        self._topics: dict[str, _Topic] = {}
        self._wishes: dict[str, tuple[float, bytes]] = {}
        self._keeping = Keeping(settings)
        self._bells: set[asyncio.Event] = set()

    def broadcaster(self) -> MemoryBroadcaster:
        """Give a side that says."""
        return MemoryBroadcaster(self)

    def listener(self) -> MemoryListener:
        """Give a side that hears."""
        return MemoryListener(self)

    def add(self, posts: Sequence[Post]) -> None:
        """Append posts and change facts."""
        for post in posts:
            topic = self._topics.setdefault(post.topic, _Topic())
            topic.number += 1
            topic.kept.append(post.body)
            for _ in range(len(topic.kept) - self._keeping.of(post.topic, len(post.body))):
                topic.kept.popleft()
            changed(topic.facts, post.facts)
        for bell in self._bells:
            bell.set()

    def head(self, topic: str) -> int:
        """Give the number of the last post of a topic."""
        known = self._topics.get(topic)
        return 0 if known is None else known.number

    def after(self, name: str, number: int, at_most: int) -> list[Post | Missed]:
        """Give what a topic holds after a number."""
        topic = self._topics.get(name) or _Topic()
        found: list[Post | Missed] = []
        first = topic.number - len(topic.kept) + 1
        if number > topic.number or number < first - 1:
            number = first - 1
            found.append(Missed(name, f"0-{number}"))
        skipped = number - first + 1
        for at, body in enumerate(islice(topic.kept, skipped, skipped + at_most), number + 1):
            found.append(Post(name, body, {}, f"0-{at}"))
        return found

    def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics."""
        check_topics(topics)
        return {name: dict(self._topics[name].facts) if name in self._topics else {} for name in topics}

    def wish(self, name: str, body: bytes, life_seconds: float) -> None:
        """Note a wish, or forget it."""
        check_wish(name, body, life_seconds)
        self._wishes.pop(name, None)
        if body:
            self._wishes[name] = (time.monotonic() + life_seconds, body)

    def wishes(self) -> dict[str, bytes]:
        """Give the wishes that are alive."""
        now = time.monotonic()
        self._wishes = {name: each for name, each in self._wishes.items() if each[0] > now}
        return {name: body for name, (_, body) in self._wishes.items()}

    def bell(self) -> asyncio.Event:
        """Give an event that is set whenever something is added."""
        bell = asyncio.Event()
        self._bells.add(bell)
        return bell

    def forget(self, bell: asyncio.Event) -> None:
        """Set that event no more."""
        self._bells.discard(bell)


class MemoryBroadcaster:
    """A `Broadcaster` in the process; make it with `MemoryBroadcast.broadcaster`."""

    def __init__(self, broadcast: MemoryBroadcast) -> None:
        self._broadcast = broadcast

    async def send(self, posts: Sequence[Post]) -> None:
        """Append posts, in order. Raises `InvalidPost` before anything is sent."""
        check_posts(posts)
        self._broadcast.add(posts)

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics; an empty mapping where there are none."""
        return self._broadcast.facts(topics)

    async def wishes(self) -> dict[str, bytes]:
        """Give the wishes that are alive, by the name of who has them."""
        return self._broadcast.wishes()

    async def close(self) -> None:
        """Nothing is held."""


class MemoryListener:
    """A `Listener` in the process; make it with `MemoryBroadcast.listener`."""

    def __init__(self, broadcast: MemoryBroadcast) -> None:
        self._broadcast = broadcast
        self._bell = broadcast.bell()
        self._heard: dict[str, int] = {}

    @property
    def cursors(self) -> Mapping[str, str]:
        """Where each topic was heard up to."""
        return {name: f"0-{number}" for name, number in self._heard.items()}

    async def follow(self, topics: Sequence[str], cursors: Mapping[str, str] | None = None) -> dict[str, str]:
        """Hear these topics too; give the cursor of each. Raises `InvalidPost` before anything is followed."""
        check_topics(topics)
        given = {name: read_place(place, name)[1] for name, place in (cursors or {}).items() if name in topics}
        for name in topics:
            self._heard.setdefault(name, given.get(name, self._broadcast.head(name)))
        self._bell.set()
        return {name: f"0-{self._heard[name]}" for name in topics}

    async def leave(self, topics: Sequence[str]) -> None:
        """Hear these topics no more."""
        check_topics(topics)
        for name in topics:
            self._heard.pop(name, None)

    async def receive(self, wait_seconds: float) -> list[Post | Missed]:
        """Give what was posted since the last call, in order within a topic; wait for the first, at most so long."""
        end = time.monotonic() + wait_seconds
        while True:
            self._bell.clear()
            found: list[Post | Missed] = []
            for name, number in self._heard.items():
                came = self._broadcast.after(name, number, _MOST_AT_ONCE - len(found))
                if came:
                    found += came
                    self._heard[name] = int(came[-1].place.partition("-")[2])
            left = end - time.monotonic()
            if found or left <= 0:
                return found
            try:
                async with asyncio.timeout(left):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics; an empty mapping where there are none."""
        return self._broadcast.facts(topics)

    async def wish(self, name: str, body: bytes, life_seconds: float) -> None:
        """Say what is wished for, until so long from now; an empty body takes it back."""
        self._broadcast.wish(name, body, life_seconds)

    async def close(self) -> None:
        """Hear nothing more."""
        self._heard.clear()
        self._broadcast.forget(self._bell)
