"""The replies that wait to be received by an asker: each once, in order, and bounded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable

from mdplatform.messaging.transport import Reply

_FINALS_KNOWN = 100_000
_PLACES_KNOWN = 64
_LONGEST = 100_000
Taken = Callable[[], Awaitable[None]]


class Inbox:
    """Takes replies by their places and gives them out once. After its final answer nothing of a request is taken.

    A reply may come with what is to be done once it was taken, which is when the next ones are asked for.
    """

    def __init__(self) -> None:
        self._replies: deque[tuple[Reply, Taken | None]] = deque()
        self._given: list[Taken] = []
        self._some = asyncio.Event()
        self._finals: OrderedDict[str, None] = OrderedDict()
        self._places: OrderedDict[str, deque[str]] = OrderedDict()

    def put(self, reply: Reply, place: str = "", taken: Taken | None = None) -> bool:
        """Take a reply; False if it is known already. A full inbox drops its oldest."""
        if reply.id in self._finals:
            return False
        if reply.final:
            self._places.pop(reply.id, None)
            self._finals[reply.id] = None
            if len(self._finals) > _FINALS_KNOWN:
                self._finals.popitem(last=False)
        else:
            places = self._places.setdefault(reply.id, deque(maxlen=_PLACES_KNOWN))
            if len(self._places) > _FINALS_KNOWN:
                self._places.popitem(last=False)
            if place in places:
                return False
            places.append(place)
        self._replies.append((reply, taken))
        if len(self._replies) > _LONGEST:
            self._replies.popleft()
        self._some.set()
        return True

    def has_final(self, id: str) -> bool:
        """Whether the final answer of a request has come."""
        return id in self._finals

    def forget(self, id: str) -> None:
        """Let go of what is remembered of a request from which nothing more is expected."""
        self._places.pop(id, None)

    async def take(self, wait_seconds: float) -> list[Reply]:
        """Give all replies; wait for the first, at most so long."""
        given, self._given = self._given, []
        for taken in given:
            await taken()
        if not self._replies and wait_seconds > 0:
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._some.wait()
            except TimeoutError:
                return []
        replies = list(self._replies)
        self._replies.clear()
        self._some.clear()
        self._given = [taken for _, taken in replies if taken is not None]
        return [reply for reply, _ in replies]
