"""Patience with the transport: what fails because its server is away is tried again until it is back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mdplatform.errors import TransportRefused, TransportUnavailable
from mdplatform.worker.counts import Counts
from mdplatform.worker.events import Events

T = TypeVar("T")
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


def is_cancelled(failure: BaseException) -> bool:
    """Whether the present task is to end; a `CancelledError` may also come from something that it waited for."""
    task = asyncio.current_task()
    return isinstance(failure, asyncio.CancelledError) and task is not None and task.cancelling() > 0


class Patience:
    """Tries calls again with growing pauses; tells once that the server is away, and once that it is back."""

    def __init__(self, events: Events, counts: Counts) -> None:
        self._events = events
        self._counts = counts
        self._away_since: float | None = None

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Give what the call gives, however long its server is away; cancel it to give up.

        What the server refuses is not tried again: it raises `TransportRefused`.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                result = await call()
            except (TransportUnavailable, asyncio.CancelledError) as away:
                if is_cancelled(away) or isinstance(away, TransportRefused):
                    raise
                self.away(away)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.back()
                return result

    def away(self, failure: BaseException) -> None:
        """Note that the server does not answer."""
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._counts.outages += 1
            self._events.warn("transport_away", cause=str(failure) or type(failure).__name__)

    def back(self) -> None:
        """Note that it answers."""
        if self._away_since is not None:
            self._events.note("transport_back", after_seconds=round(time.monotonic() - self._away_since, 3))
            self._away_since = None
