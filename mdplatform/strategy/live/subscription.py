"""One subscription: its callback, the frames that wait for it, and its counts.

A function is called in the event loop, at once; what it returns, if it can be awaited, runs in a task of the
subscription's own, and frames that come meanwhile wait in a queue. Frames are given in order, each once; a callback
that raises is counted, logged, and called again with the next one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable
from time import time_ns
from typing import Any

from mdplatform.strategy.live.wanted import Policy, Wanted
from mdplatform.streaming.frame import Frame

SLOW_SECONDS = 0.1
"""A callback that holds up the event loop for longer is named in the log."""
_SLOW_NS = int(SLOW_SECONDS * 1e9)
_log = logging.getLogger(__name__)


class Subscription:
    """What is given to one callback, or, without one, to who iterates."""

    __slots__ = (
        "_bound", "_callback", "_changed", "_is_busy", "_is_ended", "_ready", "_returned", "_takes_revisions",
        "_task", "_wake", "dropped", "error", "failed", "frames", "id", "is_open", "last", "last_at", "waiting",
        "wanted",
    )  # fmt: skip

    def __init__(self, id: str, wanted: Wanted) -> None:
        self.id = id
        self.wanted = wanted
        self.is_open = True
        self.frames = 0
        self.dropped = 0
        self.failed = 0
        self.error = ""
        self.last: Frame | None = None
        self.last_at = 0
        self.waiting: deque[Frame] = deque()
        self._callback = wanted.callback
        self._takes_revisions = wanted.revisions
        self._bound = wanted.queue
        self._ready = self._callback
        self._task: asyncio.Task[None] | None = None
        self._returned: Awaitable[Any] | None = None
        self._is_busy = False
        self._wake: asyncio.Future[Awaitable[Any] | None] | None = None
        self._changed: asyncio.Future[None] | None = None
        self._is_ended = False

    @property
    def is_full(self) -> bool:
        """Whether as many frames wait as may."""
        return len(self.waiting) >= self._bound

    @property
    def is_blocking(self) -> bool:
        """Whether the shape has to wait for it."""
        return self.is_full and self.is_open and self.wanted.policy is Policy.BLOCK

    def offer(self, frame: Frame) -> bool:
        """Give a frame: at once, or when its turn comes; if the queue is full, as the policy says.

        Tell whether it was not given at once.
        """
        if frame.revision and not self._takes_revisions:
            return False
        ready = self._ready
        if ready is None:
            self._keep(frame)
            return True
        # from here on it is done for each frame and subscription, so it is little
        self.frames += 1
        self.last = frame
        self.last_at = began = time_ns()
        try:
            returned = ready(frame)
        except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001  it is the strategy's; status and log have it
            self._fail(failure)
            return False
        if returned is not None and inspect.isawaitable(returned):
            self._await(returned)
        elif time_ns() - began > _SLOW_NS:
            self._complain((time_ns() - began) / 1e6)
        return False

    def _keep(self, frame: Frame) -> None:
        """Let a frame wait; if the queue is full, what the policy says is dropped."""
        if not self.is_open:
            return
        if len(self.waiting) >= self._bound:
            if self.wanted.policy is Policy.CONFLATE:
                self.dropped += len(self.waiting)
                self.waiting.clear()
            else:
                self.dropped += 1
                self.waiting.popleft()
        self.waiting.append(frame)
        if self._callback is None:
            self._tell()

    async def room(self) -> None:
        """Wait until the queue has room, or nobody wants anything any more."""
        while self.is_full and self.is_open:
            await self._wait()

    async def next(self) -> Frame | None:
        """Give the next frame to who iterates; None when it is over."""
        while not self.waiting:
            if not self.is_open or self._is_ended:
                return None
            await self._wait()
        frame = self.waiting.popleft()
        self._tell()
        self._note(frame)
        return frame

    async def drained(self) -> None:
        """Wait until all frames were given and the callback is done with them."""
        while self.is_open and (self.waiting or self._is_busy):
            await self._wait()

    def end(self) -> None:
        """Say that no more frames come; those that wait are still given."""
        self._is_ended = True
        self._tell()

    def close(self) -> None:
        """Give nothing any more; a callback that is running goes on to its end."""
        self.is_open = False
        self._ready = None
        self.waiting.clear()
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        self._tell()

    async def cancel(self) -> None:
        """Close, and end a callback that is running, unless it is who asks."""
        self.close()
        task = self._task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if inspect.iscoroutine(self._returned):  # it may not have begun yet
                self._returned.close()

    def _note(self, frame: Frame) -> None:
        self.frames += 1
        self.last = frame
        self.last_at = time_ns()

    def _await(self, returned: Awaitable[Any]) -> None:
        """Wait for what the callback returned in a task of the subscription's own."""
        self._is_busy, self._ready, self._returned = True, None, returned
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(returned)
        else:
            self._task = asyncio.get_running_loop().create_task(self._run(returned))

    def _complain(self, took_ms: float) -> None:
        _log.warning(
            "The callback of subscription %s held up the event loop for %.0f ms; what takes long belongs behind an "
            "`await`, such as `asyncio.to_thread`", self.id, took_ms,
        )  # fmt: skip

    async def _run(self, returned: Awaitable[Any] | None) -> None:
        """Wait for what the callback returned, again and again, and give it what comes meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            while returned is not None:
                try:
                    await returned
                except Exception as failure:  # noqa: BLE001  it is the strategy's; status and log have it
                    self._fail(failure)
                returned = await self._call_waiting()
                if returned is None and self.is_open:
                    self._is_busy, self._ready = False, self._callback
                    self._tell()
                    self._wake = loop.create_future()
                    returned = await self._wake
        finally:
            self._is_busy, self._wake = False, None
            self._ready = self._callback if self.is_open else None
            self._tell()
            if self.waiting and self._ready is not None:  # the callback was cancelled from inside
                self.offer(self.waiting.popleft())

    async def _call_waiting(self) -> Awaitable[Any] | None:
        """Call back with what waits, up to what is to be awaited; None where nothing waits any more."""
        assert self._callback is not None
        while self.waiting:
            frame = self.waiting.popleft()
            self._tell()
            self._note(frame)
            try:
                returned = self._callback(frame)
            except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001  it is the strategy's; status and log have it
                self._fail(failure)
                continue
            if returned is not None and inspect.isawaitable(returned):
                return returned
            await asyncio.sleep(0)
        return None

    def _fail(self, failure: BaseException) -> None:
        self.failed += 1
        self.error = f"{type(failure).__name__}: {failure}"[:200]
        _log.error("The callback of subscription %s failed", self.id, exc_info=failure)

    async def _wait(self) -> None:
        if self._changed is None or self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def _tell(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
