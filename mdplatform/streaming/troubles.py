"""Troubles: what goes wrong around a stream, logged once when it begins and once when it is over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger("mdplatform.feed")


class Troubles:
    """The troubles that there are, by what is said of them."""

    def __init__(self) -> None:
        self._there: set[str] = set()

    def note(self, trouble: str, is_there: bool, told: str = "") -> None:
        """Say whether a trouble is there, and what is told of it."""
        if is_there and trouble not in self._there:
            self._there.add(trouble)
            log.error("%s; the stream goes on. %s", trouble, told)
        elif not is_there and trouble in self._there:
            self._there.discard(trouble)
            log.warning("Over: %s", trouble[:1].lower() + trouble[1:])

    async def attempt(self, trouble: str, work: Callable[[], object]) -> None:
        """Do something in a thread; it is a trouble if that fails. What was taken waits, and is tried again."""
        try:
            await asyncio.to_thread(work)
        except Exception as failed:  # noqa: BLE001  # the stream is more than any of this
            self.note(trouble, True, str(failed))
        else:
            self.note(trouble, False)

    async def every(self, seconds: float, work: Callable[[], Awaitable[None]], trouble: str) -> None:
        """Do something again and again, after a pause of so long, or of as long as it took; say when it fails."""
        took = 0.0
        while True:
            await asyncio.sleep(max(seconds, took))
            began = time.monotonic()
            try:
                await work()
            except Exception as failed:  # noqa: BLE001  # the stream is more than any of this
                self.note(trouble, True, repr(failed))
            else:
                self.note(trouble, False)
            took = time.monotonic() - began
