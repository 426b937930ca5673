"""Batches: what many tasks ask in one tick of the loop goes to the transport as one call.

A thousand clients at once would else be a thousand round trips on a few connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Given = TypeVar("Given")
_MOST_AT_ONCE = 256


class Batches(Generic[Asked, Given]):
    """Gathers calls of `ask`, which gives as much as it is given, in order; for one event loop."""

    def __init__(self, ask: Callable[[Sequence[Asked]], Awaitable[Sequence[Given]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Asked, asyncio.Future[Given]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, asked: Sequence[Asked]) -> list[Given]:
        """Give what is given for each; raises what `ask` raises."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Given]] = [loop.create_future() for _ in asked]
        self._waiting.extend(zip(asked, futures, strict=True))
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run())
        return list(await asyncio.gather(*futures))

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            try:
                given = await self._ask([each for each, _ in batch])
            except BaseException as failure:  # whoever waits has to hear of it, whatever it is
                for _, future in batch:
                    if not future.done():
                        future.set_exception(failure)
                if not isinstance(failure, Exception):
                    raise
                continue
            for (_, future), each in zip(batch, given, strict=True):
                if not future.done():
                    future.set_result(each)
