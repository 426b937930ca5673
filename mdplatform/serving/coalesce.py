"""One `MGET` for all that is asked in one tick of an event loop.

A thousand tasks that each took a connection of their own would wait for one another; asked together they are a few
round trips. These go one after the other: an answer that lay unread while the loop decodes others would seem late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

Held: TypeAlias = "list[bytes | None]"
_QUESTIONS_AT_ONCE = 128  # blobs are large: one answer of the server should stay within some megabytes


class Coalescer:
    """Gathers what is asked in one tick; for one event loop. `fetch` gets many keys and gives as many values."""

    def __init__(self, fetch: Callable[[Sequence[str]], Awaitable[Held]]) -> None:
        self._fetch = fetch
        self._waiting: list[tuple[Sequence[str], asyncio.Future[Held]]] = []
        self._fetching: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    async def get(self, keys: Sequence[str]) -> Held:
        """Give the values of `keys`; raises what `fetch` raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Held] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._start)
        self._waiting.append((keys, future))
        return await future

    def _start(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _QUESTIONS_AT_ONCE):
            self._spawn(waiting[start : start + _QUESTIONS_AT_ONCE])

    def _spawn(self, batch: list[tuple[Sequence[str], asyncio.Future[Held]]]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)

    async def _run(self, batch: list[tuple[Sequence[str], asyncio.Future[Held]]]) -> None:
        try:
            async with self._turn:
                held = await self._fetch([key for keys, _ in batch for key in keys])
        except BaseException as failure:  # whoever waits has to hear of it, whatever it is
            for _, future in batch:
                if not future.done():
                    future.set_exception(failure)
            if not isinstance(failure, Exception):
                raise
            return
        start = 0
        for keys, future in batch:
            if not future.done():
                future.set_result(held[start : start + len(keys)])
            start += len(keys)
