"""Calling callbacks: each answer once, those of one request in order, and none in the way of another for long.

A callback is called in the event loop, one after the other; after every few milliseconds the loop gets a turn, so that
what else runs in it waits for one callback at most. What a callback returns, if it can be awaited, runs as a task: at
most `AT_ONCE` at a time, and one of a request after the other. A callback that raises is logged, and stops nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any

from mdplatform.requests.answer import Answer
from mdplatform.strategy.pending import Pending

AT_ONCE = 256
SLOW_SECONDS = 0.1
"""A callback that holds up the loop for longer than this is named in the log."""
_TURN_SECONDS = 0.002

_log = logging.getLogger(__name__)


class Callbacks:
    """The callbacks of one manager, in its event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._caller: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    def put(self, pending: Pending, answer: Answer) -> None:
        """Have an answer given to the request's callback, if it has one."""
        if pending.callback is None:
            return
        if len(pending.to_call) == pending.to_call.maxlen:
            _log.warning("The callback of request %s is too slow: its oldest answer is left out", pending.id)
        pending.to_call.append(answer)
        if not pending.is_calling:
            self._enqueue(pending)

    def _enqueue(self, pending: Pending) -> None:
        pending.is_calling = True
        self._waiting.append(pending)
        if self._caller is None or self._caller.done():
            self._caller = asyncio.get_running_loop().create_task(self._call_all())

    async def _call_all(self) -> None:
        turn = time.perf_counter()
        while self._waiting:
            self._call(self._waiting.popleft())
            if time.perf_counter() - turn > _TURN_SECONDS:
                await asyncio.sleep(0)
                turn = time.perf_counter()

    def _call(self, pending: Pending) -> None:
        """Call back with the answers of one request, until one is to be awaited."""
        while pending.to_call:
            answer = pending.to_call.popleft()
            began = time.perf_counter()
            answer.latency_ms = (began - pending.began) * 1000 if answer.number == 0 else answer.latency_ms
            assert pending.callback is not None
            try:
                returned = pending.callback(answer)
            except BaseException as failure:  # noqa: BLE001  it is the strategy's; the log has it
                _raise_of_main_thread(failure)
                _log.exception("The callback of request %s failed", pending.id)
                continue
            if (took := time.perf_counter() - began) > SLOW_SECONDS:
                _log.warning(
                    "The callback of request %s held up the event loop for %.0f ms; what takes long belongs "
                    "behind an `await`, such as `asyncio.to_thread`", pending.id, took * 1000,
                )  # fmt: skip
            if inspect.isawaitable(returned):
                task = asyncio.ensure_future(self._finish(pending, returned))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                return
        pending.is_calling = False

    async def _finish(self, pending: Pending, returned: Awaitable[Any]) -> None:
        """Wait for what a callback returned, then go on with the request's next answer."""
        try:
            async with self._slots:
                await returned
        except (Exception, KeyboardInterrupt, SystemExit) as failure:  # noqa: BLE001  the strategy's; the log has it
            _raise_of_main_thread(failure)
            _log.exception("The callback of request %s failed", pending.id)
        finally:
            pending.is_calling = False
            if pending.to_call:
                self._enqueue(pending)


def _raise_of_main_thread(failure: BaseException) -> None:
    """Let what ends a program pass in its main thread; in a thread of the manager's own, others would wait for ever."""
    if not isinstance(failure, Exception) and threading.current_thread() is threading.main_thread():
        raise failure
