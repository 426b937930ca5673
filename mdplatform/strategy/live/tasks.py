"""The tasks that a consumer runs beside what it is asked for: none is lost sight of, and a failure is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class Tasks:
    """Tasks of one event loop; those that are `to_end` are waited for at the close, all others are cancelled."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self._to_end: set[asyncio.Task[None]] = set()
        self.is_closed = False

    def begin(self, work: Coroutine[Any, Any, None], *, to_end: bool = False) -> None:
        """Run something."""
        task = asyncio.get_running_loop().create_task(work)
        (self._to_end if to_end else self.running).add(task)
        task.add_done_callback(self._ended)

    async def cancel(self) -> None:
        """Cancel what is not to be waited for."""
        self.is_closed = True
        for each in tuple(self.running):
            each.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)

    async def end(self) -> None:
        """Wait for all that is left."""
        await asyncio.gather(*self._to_end, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self._to_end.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("A task of the consumer failed", exc_info=failure)


def is_being_cancelled() -> bool:
    """Whether somebody wants the running task to end; a `CancelledError` alone can be anybody's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
