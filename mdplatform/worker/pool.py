"""The pool of threads in which a worker computes: urgent work first, and always a thread that is free for it.

Of `n` threads, `n` may be at work for CRITICAL requests, `n - 1` for all others together, `n - 2` for NORMAL and LOW,
`n - 3` for LOW (at least one each). So a flood of slow LOW work never makes a CRITICAL one wait for its end. How urgent
a piece of work is, is said by the context in which it is handed over: `urgency`, which `asyncio.to_thread` keeps.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any, ParamSpec, TypeAlias, TypeVar

from mdplatform.messaging.priority import DataPriority

P = ParamSpec("P")
T = TypeVar("T")

urgency: ContextVar[DataPriority] = ContextVar("urgency", default=DataPriority.HIGH)
"""For whom the present task works."""
_Job: TypeAlias = tuple[int, int, Future[Any], Callable[[], Any]]
"""Rank, order, result and work."""
THREADS = 4


class ComputePool(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` that does the most urgent first, and bounds how many threads each class may hold."""

    def __init__(self, threads: int = THREADS) -> None:
        super().__init__(threads, thread_name_prefix="compute")
        self._bounds = [max(1, threads - each.rank) for each in DataPriority]
        self._running = [0] * len(self._bounds)
        self._waiting: list[_Job] = []
        self._order = itertools.count()
        self._guard = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have it computed, as urgently as the context says."""
        future: Future[T] = Future()
        with self._guard:
            job: _Job = (urgency.get().rank, next(self._order), future, partial(fn, *args, **kwargs))
            heapq.heappush(self._waiting, job)
        super().submit(self._work)
        return future

    @property
    def running(self) -> int:
        """How many threads are at work."""
        return sum(self._running)

    def _work(self) -> None:
        while (job := self._start()) is not None:
            rank, future, compute = job
            try:
                result = compute()
            except BaseException as failure:  # noqa: BLE001  it is the future's to raise
                self._end(rank)
                future.set_exception(failure)
            else:
                self._end(rank)
                future.set_result(result)
            del job, future, compute

    def _start(self) -> tuple[int, Future[Any], Callable[[], Any]] | None:
        """Take the most urgent piece of work; None if there is none that may start now (who ends one looks again)."""
        with self._guard:
            while self._waiting:
                rank, _, future, compute = self._waiting[0]
                # What is less urgent counts against the bounds of all that is more urgent.
                if any(sum(self._running[each:]) >= self._bounds[each] for each in range(rank + 1)):
                    return None
                heapq.heappop(self._waiting)
                if future.set_running_or_notify_cancel():
                    self._running[rank] += 1
                    return rank, future, compute
        return None

    def _end(self, rank: int) -> None:
        with self._guard:
            self._running[rank] -= 1
