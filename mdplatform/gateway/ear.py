"""An ear: what a client that waits has heard."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from mdplatform.requests.answer import AnswerBody, Progress

Heard: TypeAlias = "AnswerBody | Progress"


class Ear:
    """A watcher that keeps the next answer of each request that it watches: the final one, or one above `after`."""

    def __init__(self, after: int = 0) -> None:
        self.heard: dict[str, AnswerBody] = {}
        self._after = after
        self._missing: set[str] = set()
        self._done = asyncio.Event()

    def __call__(self, reply: Heard) -> None:
        if isinstance(reply, AnswerBody) and (reply.final or reply.number > self._after):
            self.heard.setdefault(reply.request_id, reply)
            self._missing.discard(reply.request_id)
            if not self._missing:
                self._done.set()

    async def hear_all(self, missing: set[str]) -> None:
        """Wait until an answer to each of these was heard."""
        self._missing = missing - self.heard.keys()
        if self._missing:
            self._done.clear()
            await self._done.wait()

    def stop(self) -> None:
        """Wait no more."""
        self._done.set()
