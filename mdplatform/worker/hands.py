"""What a worker has in hand: how many of each class it takes at once, so that none starves and nothing is hoarded.

A worker takes again whenever it has room, a few of each class at a time, the most urgent first. Each class has a share
of its own: a flood of one leaves the others theirs. What it has not taken another worker may take.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Delivery

HELD = {DataPriority.CRITICAL: 64, DataPriority.HIGH: 48, DataPriority.NORMAL: 32, DataPriority.LOW: 8}
"""The most that a worker has in hand of each class."""
AT_ONCE = {DataPriority.CRITICAL: 16, DataPriority.HIGH: 8, DataPriority.NORMAL: 6, DataPriority.LOW: 3}
"""The most that it takes of each class in one go."""


class Hands:
    """The deliveries that are being worked on."""

    def __init__(self, held: Mapping[DataPriority, int] = HELD, at_once: Mapping[DataPriority, int] = AT_ONCE) -> None:
        self._limits = held
        self._at_once = at_once
        self._held: dict[tuple[str, str], Delivery] = {}
        self._counts = dict.fromkeys(DataPriority, 0)
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def deliveries(self) -> list[Delivery]:
        """What is in hand."""
        return list(self._held.values())

    @property
    def are_full(self) -> bool:
        """Whether there is no room for some class."""
        return any(self._counts[each] >= self._limits[each] for each in DataPriority)

    def shares(self) -> dict[DataPriority, int]:
        """Give how many of each class to take now; classes without room are left out."""
        room = {each: min(self._limits[each] - self._counts[each], self._at_once[each]) for each in DataPriority}
        return {priority: count for priority, count in room.items() if count > 0}

    def take(self, delivery: Delivery) -> bool:
        """Have a delivery in hand; False if it is already (it was claimed from ourselves)."""
        key = (delivery.envelope.id, delivery.token)
        if key in self._held:
            return False
        self._held[key] = delivery
        self._counts[delivery.envelope.priority] += 1
        return True

    def drop(self, delivery: Delivery) -> None:
        """Be done with it."""
        if self._held.pop((delivery.envelope.id, delivery.token), None) is not None:
            self._counts[delivery.envelope.priority] -= 1
            self._changed.set()

    async def wait_for_change(self, seconds: float) -> None:
        """Wait until something was dropped, at most so long."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
