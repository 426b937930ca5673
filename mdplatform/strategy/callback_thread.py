"""A thread in which the callbacks of a facade that blocks are called, one after the other."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeAlias

_Call: TypeAlias = "tuple[Callable[[Any], object], Any, Future[BaseException | None]]"

_log = logging.getLogger(__name__)


class CallbackThread:
    """Calls functions in one thread; whoever has one called waits for it in an event loop, which is free meanwhile."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """Whether the caller is such a callback."""
        return threading.current_thread() is self._thread

    def calling(self, function: Callable[[Any], object]) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """Give a coroutine function that has a function of one argument called in the thread; it raises what that does.

        What would end a program is a `RuntimeError` here.
        """

        @functools.wraps(function)
        async def call(given: Any) -> None:
            done: Future[BaseException | None] = Future()
            self._calls.put((function, given, done))
            failure = await asyncio.wrap_future(done)
            if isinstance(failure, Exception):
                raise failure
            if failure is not None:
                raise RuntimeError(f"A callback raised {type(failure).__name__}") from failure

        return call

    def stop(self, seconds: float) -> None:
        """End the thread, when the callback that is running is done with: it is waited for so long."""
        self._calls.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            _log.warning("A callback is still running, %.0f s after the end of %s", seconds, self._thread.name)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, given, done = call
            if done.set_running_or_notify_cancel():
                done.set_result(_failure_of(function, given))


def _failure_of(function: Callable[[Any], object], given: Any) -> BaseException | None:
    try:
        function(given)
    except BaseException as failure:  # noqa: BLE001  it is the strategy's, and told where it is waited for
        return failure
    return None
