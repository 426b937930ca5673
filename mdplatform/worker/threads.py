"""Threads in which computations run: few of them, the most urgent work first.

One of them is kept free for urgent work (CRITICAL and HIGH), so that it never waits for the end of long computations
that are less so.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

from mdplatform.messaging.priority import DataPriority

_URGENT = DataPriority.HIGH.rank
T = TypeVar("T")


@dataclass(eq=False)
class Job(Generic[T]):
    """Work that waits or runs, and the future of what it gives."""

    work: Callable[[], T]
    future: asyncio.Future[T]
    has_begun: bool = False


class Threads:
    """Runs functions in at most `most` threads (two or more), for one event loop. Close it."""

    def __init__(self, most: int = 2) -> None:
        self._most = max(2, most)
        self._executor = ThreadPoolExecutor(self._most, thread_name_prefix="evaluator")
        self._busy = 0
        self._waiting: list[tuple[int, int, Job[Any]]] = []
        self._numbers = itertools.count()

    def run(self, rank: int, work: Callable[[], T]) -> Job[T]:
        """Have `work` run in a thread, once one is free for work of that rank (0 is the most urgent)."""
        job = Job(work, asyncio.get_running_loop().create_future())
        self.hurry(job, rank)
        return job

    def hurry(self, job: Job[Any], rank: int) -> None:
        """Let a job that waits be of that rank, if it was less urgent."""
        if not job.has_begun:
            heappush(self._waiting, (rank, next(self._numbers), job))
            self._start()

    def close(self) -> None:
        """Let what runs end by itself; what waits never begins."""
        for _, _, job in self._waiting:
            if not job.has_begun:
                job.future.cancel()
        self._waiting.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        while self._waiting:
            rank, _, job = self._waiting[0]
            if job.has_begun or job.future.done():
                heappop(self._waiting)
                continue
            if self._busy >= (self._most if rank <= _URGENT else self._most - 1):
                return
            heappop(self._waiting)
            job.has_begun = True
            self._busy += 1
            running = asyncio.get_running_loop().run_in_executor(self._executor, job.work)
            running.add_done_callback(partial(self._ended, job.future))

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
