"""Threads in which computations run: few of them, the most urgent work first.

One of them is kept free for urgent work (CRITICAL and HIGH), so that it never waits for the end of long computations
that are less so.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from heapq import heappop, heappush
from typing import Any, TypeVar

from mdplatform.messaging.priority import DataPriority

_URGENT = DataPriority.HIGH.rank
T = TypeVar("T")


class Threads:
    """Runs functions in at most `most` threads (two or more), for one event loop. Close it."""

    def __init__(self, most: int = 2) -> None:
        self._most = max(2, most)
        self._executor = ThreadPoolExecutor(self._most, thread_name_prefix="evaluator")
        self._busy = 0
        self._waiting: list[tuple[int, int, Callable[[], Any], asyncio.Future[Any]]] = []
        self._numbers = itertools.count()

    def run(self, rank: int, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have `work` run in a thread, once one is free for work of that rank (0 is the most urgent)."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (rank, next(self._numbers), work, future))
        self._start()
        return future

    def close(self) -> None:
        """Let what runs end by itself; what waits never begins."""
        for *_, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        while self._waiting:
            room = self._most if self._waiting[0][0] <= _URGENT else self._most - 1
            if self._busy >= room:
                return
            _, _, work, future = heappop(self._waiting)
            if future.done():
                continue
            self._busy += 1
            running = asyncio.get_running_loop().run_in_executor(self._executor, work)
            running.add_done_callback(partial(self._ended, future))

    def _ended(self, future: asyncio.Future[Any], running: asyncio.Future[Any]) -> None:
        self._busy -= 1
        if running.cancelled():
            future.cancel()
        elif (failure := running.exception()) is not None:
            if not future.done():
                future.set_exception(failure)
        elif not future.done():
            future.set_result(running.result())
        self._start()
