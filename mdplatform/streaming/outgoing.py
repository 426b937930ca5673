"""Outgoing: the posts that are on their way to a broadcaster, kept while it does not answer.

Posts are sent in order, many in one round trip. While the server is away they wait; when too many do, the oldest that
the journal has on disk are let go (consumers see by the packets' numbers that some are missing, and read the lake), and
where it has not, `room` keeps the feed waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.broadcast import Broadcaster, Post

MOST_WAITING = 20_000
"""Posts that wait, above which the oldest are let go."""
_AT_ONCE = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0


class Outgoing:
    """A queue in front of `broadcaster`. `is_safe(symbol, until)` tells whether bars up to then are on disk.

    `on_trouble` is called when the server stops answering (with the error), and when it answers again (with None).
    """

    def __init__(
        self,
        broadcaster: Broadcaster,
        is_safe: Callable[[str, int], bool],
        on_trouble: Callable[[TransportUnavailable | None], None] = lambda _: None,
        most: int = MOST_WAITING,
    ) -> None:
        self.sent = 0
        self.let_go = 0
        self._broadcaster = broadcaster
        self._is_safe = is_safe
        self._on_trouble = on_trouble
        self._most = most
        self._queue: deque[tuple[Post, int]] = deque()
        self._under_way = 0
        self._some = asyncio.Event()
        self._less = asyncio.Event()
        self._less.set()
        self._away = False

    @property
    def is_away(self) -> bool:
        """Whether the server did not answer when it was last tried."""
        return self._away

    @property
    def waiting(self) -> int:
        """How many posts have not been sent."""
        return len(self._queue)

    def put(self, posts: Iterable[tuple[Post, int]]) -> None:
        """Send these posts, each with the instant (µs) up to which it tells of its symbol."""
        self._queue.extend(posts)
        self._some.set()
        if len(self._queue) > self._most:
            self._less.clear()
            self._let_go()

    def _let_go(self) -> None:
        """Drop the oldest posts that are on disk, as many as there are too many."""
        excess = len(self._queue) - self._most
        head = [self._queue.popleft() for _ in range(self._under_way)]  # these may arrive yet
        while excess > 0 and self._queue and self._is_safe(self._queue[0][0].topic, self._queue[0][1]):
            self._queue.popleft()
            self.let_go += 1
            excess -= 1
        self._queue.extendleft(reversed(head))
        if excess <= 0:
            self._less.set()

    async def room(self) -> None:
        """Wait until no more than the bound wait."""
        while not self._less.is_set():
            try:
                async with asyncio.timeout(_LONGEST_PAUSE):
                    await self._less.wait()
            except TimeoutError:
                self._let_go()

    async def turn(self) -> None:
        """Let others have their turn, and what waits be sent if the answer to what was sent before has come.

        That takes three rounds of the event loop: the answer is read, it wakes `run`, and that sends.
        """
        for _ in range(3 if self._queue else 1):
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            await self._some.wait()
            batch = [post for post, _ in islice(self._queue, _AT_ONCE)]
            self._under_way = len(batch)
            try:
                await self._broadcaster.send(batch)
            except TransportUnavailable as away:
                self._under_way = 0
                if not self._away:
                    self._away = True
                    self._on_trouble(away)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            finally:
                self._under_way = 0
            pause = _FIRST_PAUSE
            self._sent(len(batch))

    def _sent(self, count: int) -> None:
        for _ in range(count):
            self._queue.popleft()
        self.sent += count
        if len(self._queue) <= self._most:
            self._less.set()
        if not self._queue:
            self._some.clear()
        if self._away:
            self._away = False
            self._on_trouble(None)

    async def drained(self, seconds: float) -> bool:
        """Wait until all was sent, at most so long; tell whether it was."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._queue and loop.time() < deadline:
            await asyncio.sleep(0.005)
        return not self._queue
