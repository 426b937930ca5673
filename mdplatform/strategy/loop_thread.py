"""An event loop in a thread of its own, for the facades whose methods block."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads until it is stopped; `closed` makes the error of who comes after that."""

    def __init__(self, name: str, closed: Callable[[], Exception]) -> None:
        self._closed = closed
        self._lock = threading.Lock()
        self._is_stopped = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_stopped(self) -> bool:
        """Whether it takes nothing any more."""
        return self._is_stopped

    @property
    def is_current(self) -> bool:
        """Whether the caller is in the thread of the loop, where waiting would be for ever."""
        return threading.current_thread() is self._thread

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Have a coroutine run in the loop, and wait for what it gives; not in the loop's own thread."""
        with self._lock:
            if self._is_stopped:
                work.close()
                raise self._closed()
            waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        except concurrent.futures.CancelledError:
            if self._is_stopped:
                raise self._closed() from None
            raise
        except BaseException:  # Ctrl-C among them: nobody wants it any more
            waiting.cancel()
            raise

    def ended(self, work: Coroutine[Any, Any, T | None]) -> T | None:
        """Wait as `wait` does; None where the loop has ended, or is the caller's own, in which it is not waited for."""
        if self.is_current:  # what is collected as garbage may be so in any thread
            asyncio.run_coroutine_threadsafe(work, self._loop)
            return None
        try:
            return self.wait(work)
        except Exception:
            if self._is_stopped:
                return None
            raise

    def stop(self) -> None:
        """End the loop and its thread; what still runs in it, such as a callback, is cancelled."""
        with self._lock:
            if not self._is_stopped:
                self._is_stopped = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel(asyncio.all_tasks(self._loop)))
        finally:
            self._loop.close()


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
